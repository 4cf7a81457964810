"""The memory that a recipe takes on its devices, reckoned before anything is loaded.

::

    talking     every local model that is asked: its weights, and the cache of the calls that it answers side by side
    training    in each process: weights, gradients and optimiser states of the student, or its part of them; the local
                scorers; what a pass keeps for its gradient; the cache of the answers that the student draws

What a pass keeps on a GPU is 34 bytes a token, layer and unit of width in half precision (arXiv:2205.05198, Eq. 2,
without the attention scores, which are not kept); nothing of it was measured on the models that it is said of. On a CPU
layers are not compiled and keep more: 18 numbers a unit of width and 4 a unit of the feed-forward layer, by the peak
memory of trainings of models of the shape of Qwen3.
"""

from __future__ import annotations

import importlib.util
import json
import math
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from vivavoce.agents.chat_template import AS_IT_CAME
from vivavoce.agents.engines import Serve
from vivavoce.agents.quantised import BITS
from vivavoce.config import AgentSpec, Recipe
from vivavoce.errors import RecipeError
from vivavoce.files import object_in
from vivavoce.methods.budgets import samples
from vivavoce.methods.opening import trained_how
from vivavoce.methods.token_count import model_folders
from vivavoce.train.objective import OnPolicyOptions
from vivavoce.train.settings import LoRASettings, TrainSettings

_GIB = 2**30
_LOGITS = {"cpu": 2**22 * 12, "gpu": 2**27 * 12}
"""Bytes of the logits that exist at a time, with what their gradient takes."""
_PROGRAM = 0.5 * _GIB
"""What Python takes with torch and transformers, which all processes of a CPU share."""
_VLLM = 0.9
"""The share of a GPU that vLLM takes by default."""


@dataclass(frozen=True)
class Machine:
    """The free bytes of each GPU, and of the memory."""

    gpus: tuple[float, ...]
    memory: float

    @classmethod
    def here(cls) -> Machine:
        """Look at this machine as it is now."""
        gpus: tuple[float, ...] = ()
        if importlib.util.find_spec("torch"):
            import torch

            if torch.cuda.is_available():
                gpus = tuple(float(torch.cuda.mem_get_info(i)[0]) for i in range(torch.cuda.device_count()))
        return cls(gpus, free_memory())

    @classmethod
    def of(cls, text: str) -> Machine:
        """The machine that a text such as ``8x80`` names: eight GPUs of 80 GiB. Raises RecipeError if it names none."""
        match = re.fullmatch(r"([1-9]\d*)\s*x\s*([1-9]\d*)\s*(?:GB|GiB)?", text.strip(), re.IGNORECASE)
        if not match:
            raise RecipeError(
                f"`{text}` names no GPUs", "--gpus", "write how many there are and their GiB, such as 8x80"
            )
        return cls((float(match[2]) * _GIB,) * int(match[1]), math.inf)


def free_memory(proc: Path = Path("/proc"), groups: Path = Path("/sys/fs/cgroup")) -> float:
    """Bytes that this process may still take: what is left of the machine, or of the control group that it is in, which
    is a container's or a Slurm job's. What only caches files counts as left.
    """
    try:
        lines = dict(line.split(":", 1) for line in (proc / "meminfo").read_text().splitlines())
        free = float(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):  # not Linux
        free = float(os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    return min((free, *_left_in_groups(proc, groups)))


def _left_in_groups(proc: Path, groups: Path) -> Iterator[float]:
    """Bytes that are left of every control group around this process that has a limit."""
    try:
        lines = [line.split(":", 2) for line in (proc / "self" / "cgroup").read_text().splitlines()]
    except OSError:
        return
    for _, controllers, path in lines:
        if controllers == "":
            top, names, cached = groups, ("memory.max", "memory.current"), "inactive_file"
        elif "memory" in controllers.split(","):
            names, cached = ("memory.limit_in_bytes", "memory.usage_in_bytes"), "total_inactive_file"
            top = groups / "memory"
        else:
            continue
        here = top / path.strip("/")
        for group in (here, *here.parents):
            try:
                limit, used = (float((group / name).read_text()) for name in names)
                stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
                yield limit - used + float(stat.get(cached, 0))
            except (OSError, ValueError):  # no limit (`max`), or not to be seen from inside a container
                pass
            if group == top:
                break


class ModelSize(NamedTuple):
    """A model's size."""

    weights: float
    """The number of weights."""
    layers: float
    width: float
    vocabulary: float
    cached: float
    """Numbers that its cache holds of each token."""
    bytes: float
    """Bytes of each weight as it is stored."""
    inner: float
    """Width of a feed-forward layer; of experts, of those that a token goes through."""
    known: bool
    """Whether it was read off the model, not off its name."""


class Use(NamedTuple):
    """The memory that one kind of work takes of one device, or of each of several alike."""

    when: str
    """``talking`` or ``training``."""
    device: str
    parts: dict[str, float]
    """Bytes by what takes them."""
    free: float

    @property
    def needed(self) -> float:
        return sum(self.parts.values())

    @property
    def summary(self) -> str:
        """In a line, for people."""
        parts = ", ".join(f"{name} {gib(size)}" for name, size in self.parts.items() if size >= 2**19)
        return (
            f"{self.when}: {gib(self.needed)} of {gib(self.free)} free on {self.device} ({parts or 'next to nothing'})"
        )


def gib(size: float) -> str:
    return f"{size / 2**30:,.1f} GiB" if size >= 2**29 else f"{size / 2**20:,.1f} MiB"


def uses(recipe: Recipe, machine: Machine, longest: Mapping[str, int]) -> list[Use]:
    """The memory that the recipe takes on each device, the largest of each kind of work.

    ``longest`` are the tokens of each agent's longest calls.
    """
    parts = list(recipe.parts.values()) or [recipe]
    lines = [use for part in parts for use in (*_talking(part, machine, longest), *_training(part, machine, longest))]
    kinds = dict.fromkeys((use.when, use.device) for use in lines)
    return [max((u for u in lines if (u.when, u.device) == kind), key=lambda u: u.needed) for kind in kinds]


def unknown(recipe: Recipe) -> tuple[list[str], list[str]]:
    """Local models whose size is not known at all, and those whose size their names tell."""
    local = [spec for spec in recipe.agents if spec.backend == "hf_local"]
    sizes = {spec.name: size_of(spec) for spec in local}
    return [n for n, s in sizes.items() if s is None], [n for n, s in sizes.items() if s is not None and not s.known]


# --- what talks


def _talking(recipe: Recipe, machine: Machine, longest: Mapping[str, int]) -> list[Use]:
    on = dict[str, dict[str, float]]()
    for spec in recipe.agents:
        size = size_of(spec) if spec.backend == "hf_local" else None
        if size is None:
            continue
        if (serve := _serve(spec)) is not None:
            for device, size_bytes in _engine(serve, size, machine).items():
                on.setdefault(device, {})[f"engine of {spec.name}"] = size_bytes
            continue
        options = spec.options
        rows = min(int(options.get("max_batch", 256)), recipe.in_flight)
        tokens = min(
            int(options.get("max_batch_tokens", 131072)), rows * (longest.get(spec.name, 0) + spec.max_new_tokens)
        )
        each = _bytes(str(options.get("dtype", "auto")), size)
        device = _device(str(options.get("device", "auto")), machine)
        there = on.setdefault(device, {})
        there[spec.name] = there.get(spec.name, 0.0) + _weight_bytes(size, each, options) + tokens * size.cached * each
    for parts in (parts for device, parts in on.items() if device == "the CPU"):
        parts["the program"] = _PROGRAM
    return [Use("talking", device, parts, _free(device, machine)) for device, parts in on.items()]


def _engine(serve: Serve, size: ModelSize, machine: Machine) -> dict[str, float]:
    """The memory of an engine that the run starts, by device."""
    if serve.url is not None:
        return {}
    if not machine.gpus or serve.device == "cpu":
        return {"the CPU": (serve.memory or 2) * _GIB + 2 * size.weights}
    share = serve.memory or _VLLM
    named = [int(one) for one in (serve.devices or "0").split(",") if one.strip().isdecimal()]
    return {f"GPU {k}": share * machine.gpus[k] for k in named if k < len(machine.gpus)}


def _serve(spec: AgentSpec) -> Serve | None:
    serve = spec.options.get("serve")
    return None if serve is None else Serve.model_validate(serve)


def _device(named: str, machine: Machine) -> str:
    if not machine.gpus or named == "cpu":
        return "the CPU"
    _, _, index = named.partition(":")
    return f"GPU {index or 0}"


def _free(device: str, machine: Machine) -> float:
    if device == "the CPU":
        return machine.memory
    index = int(device.split()[1])
    return machine.gpus[index] if index < len(machine.gpus) else 0.0


# --- what learns


def _training(recipe: Recipe, machine: Machine, longest: Mapping[str, int]) -> list[Use]:
    size = size_of(recipe.student)
    if size is None:
        return []
    return [_learning(recipe, settings, size, machine, longest) for _, settings in trained_how(recipe)]


def _learning(
    recipe: Recipe, settings: TrainSettings, size: ModelSize, machine: Machine, longest: Mapping[str, int]
) -> Use:
    processes, shares = recipe.train.processes or 1, recipe.train.processes if recipe.train.fsdp else 1
    on_gpus = bool(machine.gpus) and settings.device != "cpu"
    half = 2 if settings.bf16 else 4
    parts = {"student": student(size, settings, shares or 1)}
    if isinstance(settings, OnPolicyOptions):
        parts |= _scoring(recipe, settings, shares or 1)
        if samples(recipe, settings) and _serve(recipe.student) is None:
            drawn = math.ceil(settings.states_per_step * settings.rollouts / processes)
            tokens = drawn * min(settings.max_length, longest.get(recipe.student.name, 0) + settings.max_new_tokens)
            parts["cache of its answers"] = tokens * size.cached * half
            if recipe.train.fsdp:
                parts["a whole copy that answers"] = size.weights * half
    parts["a pass"] = a_pass(size, settings, on_gpus) + _LOGITS["gpu" if on_gpus else "cpu"]
    if not on_gpus:
        times = processes * recipe.parallel
        size_bytes = {k: v * times for k, v in parts.items()} | {"the program": _PROGRAM}
        return Use("training", "the CPU", size_bytes, machine.memory)
    used = min(len(machine.gpus), processes * (recipe.parallel if recipe.train.processes else 1))
    side_by_side = math.ceil(processes * recipe.parallel / used)
    parts = {name: size_bytes * side_by_side for name, size_bytes in parts.items()}
    engines = dict[str, float]()
    for spec in recipe.agents:
        serve, served = _serve(spec) if spec.backend == "hf_local" else None, size_of(spec)
        if (
            serve is not None
            and served is not None
            and (
                serve.while_training
                or (spec is recipe.student and isinstance(settings, OnPolicyOptions) and samples(recipe, settings))
            )
        ):
            for device, size_bytes in _engine(serve, served, machine).items():
                engines[device] = engines.get(device, 0.0) + size_bytes
    trained_on = [f"GPU {k}" for k in range(used)]
    worst = max(trained_on, key=lambda device: engines.get(device, 0.0) - _free(device, machine))
    if engines.get(worst):
        parts["engines"] = engines[worst]
    return Use("training", worst if used == 1 else f"each of {used} GPUs", parts, _free(worst, machine))


def student(size: ModelSize, settings: TrainSettings, shares: int) -> float:
    """Bytes of a student in training that one of ``shares`` processes holds: weights, gradients, optimiser states."""
    if settings.lora is not None:
        half = 2 if settings.bf16 else 4
        base = in_few_bits(size, half) if settings.quantise else size.weights * half
        return (base + 16 * _adapted(size, settings.lora)) / shares
    states = 4 if settings.muon else 2 * settings.adam_bits / 8
    held = size.weights * (8 + states) / shares
    if settings.bf16 and shares == 1:
        return held + 2 * size.weights  # what autocast keeps of a pass
    return held + (2 * size.weights * (2 if settings.bf16 else 4) / max(1, size.layers) if shares > 1 else 0)


def _adapted(size: ModelSize, lora: LoRASettings) -> float:
    """Weights of a student's adapters."""
    return len(lora.targets) * lora.r * 2.5 * size.width * size.layers  # layers are up to 4 wide


def on_disk(recipe: Recipe, students: int) -> tuple[float, float] | None:
    """Bytes that one trained student is kept in, and that so many take while a run trains them; None if their size is
    not known.

    All weights are kept, or adapters alone, in float32. Those in training have two checkpoints, with the optimiser's
    two numbers for each weight.
    """
    size = size_of(recipe.student)
    if size is None:
        return None
    loras = [settings.lora for _, settings in trained_how(recipe)]
    kept = 4 * max((size.weights if lora is None else _adapted(size, lora) for lora in loras), default=size.weights)
    return kept, kept * (students + 2 * 3 * min(recipe.parallel, students))


def a_pass(size: ModelSize, settings: TrainSettings, on_gpus: bool) -> float:
    """Bytes that one forward pass keeps for its gradient."""
    half = 2 if settings.bf16 else 4
    tokens = max(getattr(settings, "token_budget", 0), settings.max_length)
    if on_gpus:
        layer = at_once = 17 * half * tokens * size.width
    else:
        layer = (3 if settings.bf16 else 4) * tokens * (18 * size.width + 4 * size.inner)  # norms stay in float32
        at_once = 3 * layer  # one is computed again, and gradients go through it
    return (
        size.layers * half * tokens * size.width + at_once if settings.gradient_checkpointing else size.layers * layer
    )


def _scoring(recipe: Recipe, options: OnPolicyOptions, shares: int) -> dict[str, float]:
    """Bytes of the scorers that one process holds, by name."""
    bytes_by_scorer = dict[str, float]()
    for spec in recipe.scoring_agents:
        size = size_of(spec) if spec.backend == "hf_local" and not _scores_elsewhere(spec) else None
        if size is not None:
            each = 4.0 if not options.bf16 else 2.0 if options.lora else min(size.bytes, 4.0)
            if spec.options.get("quantise"):
                bytes_by_scorer[f"scorer {spec.name}"] = in_few_bits(size, each)
                continue
            head = min(size.weights, 2 * size.vocabulary * size.width)
            bytes_by_scorer[f"scorer {spec.name}"] = each * ((size.weights - head) / shares + head)
    return bytes_by_scorer


def _scores_elsewhere(spec: AgentSpec) -> bool:
    serve = _serve(spec)
    return serve is not None and serve.top_logprobs is not None


# --- sizes


def size_of(spec: AgentSpec) -> ModelSize | None:
    """The size of a local model: from its files, else from its config, else from a name such as ``Qwen3-14B``."""
    folders = tuple(model_folders(spec))
    return _size_in(folders) or _size_in_name(str(spec.options.get("model", "")))


@cache
def _size_in(folders: tuple[Path, ...]) -> ModelSize | None:
    config = next((f / "config.json" for f in folders if (f / "config.json").is_file()), None)
    if config is None:
        return None
    settings = object_in(config, AS_IT_CAME)
    settings = settings.get("text_config") or settings
    count, size = 0, 0
    for file in (file for folder in folders for file in folder.glob("*.safetensors")):
        for shape in _shapes(file):
            count += math.prod(shape)
        size += file.stat().st_size
    if not count:
        count, size = _count_weights(config), 2
        size *= count
    layers, width = (
        settings.get("num_hidden_layers", settings.get("n_layer", 1)),
        settings.get("hidden_size", settings.get("n_embd", 1)),
    )
    heads = settings.get("num_attention_heads", settings.get("n_head", 1))
    pairs = settings.get("num_key_value_heads") or heads
    cached = 2 * layers * pairs * (settings.get("head_dim") or width / max(1, heads))
    inner = _inner(settings, width)
    return ModelSize(
        count, layers, width, settings.get("vocab_size", 0), cached, size / max(1, count), inner, known=True
    )


def _inner(settings: Mapping[str, Any], width: float) -> float:
    experts, each = settings.get("num_experts_per_tok"), settings.get("moe_intermediate_size")
    if experts and each:
        return experts * each
    # GPT-2's layer is four times as wide as the model, and keeps half as much of it, for it has no gate.
    return settings.get("intermediate_size") or 2 * width


def _shapes(file: Path) -> list[list[int]]:
    """Shapes of the tensors in a file, from its header."""
    with file.open("rb") as stream:
        header = json.loads(stream.read(int.from_bytes(stream.read(8), "little")))
    return [tensor["shape"] for name, tensor in header.items() if name != "__metadata__"]


def _count_weights(config: Path) -> int:
    """Weights of a model whose config alone is here."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.device("meta"):
        model: Any = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(config.parent))
    return sum(p.numel() for p in model.parameters())


def _size_in_name(name: str) -> ModelSize | None:
    """The size of a model by the number in its name; None if it has none.

    It is taken for a decoder of usual proportions: 12 squares of its width a layer, a width of 80 a layer, 8 heads of
    128.
    """
    match = re.search(r"(?<![\w.])(\d+(?:\.\d+)?)([bm])(?![a-z\d])", name.rpartition("/")[2], re.IGNORECASE)
    if match is None:
        return None
    count = float(match[1]) * (1e9 if match[2].lower() == "b" else 1e6)
    width = (count / 12 * 80) ** (1 / 3)
    cached = 2 * width / 80 * min(1024, width)
    return ModelSize(count, width / 80, width, 150_000, cached, 2.0, 8 / 3 * width, known=False)


def _weight_bytes(size: ModelSize, each: float, options: Mapping[str, Any]) -> float:
    """Bytes of a model's weights of ``each`` bytes, or in 4 bits, but for what embeds tokens and makes logits."""
    return in_few_bits(size, each) if options.get("quantise") else size.weights * each


def in_few_bits(size: ModelSize, each: float) -> float:
    """Bytes of a model whose linear layers are in 4 bits; the others have ``each`` bytes a weight."""
    ends = min(size.weights, 2 * size.vocabulary * size.width)
    return (size.weights - ends) * BITS / 8 + ends * each


def _bytes(dtype: str, size: ModelSize) -> float:
    return {"float32": 4.0, "bfloat16": 2.0, "float16": 2.0}.get(dtype, size.bytes)


__all__ = [
    "Machine",
    "ModelSize",
    "Use",
    "a_pass",
    "free_memory",
    "gib",
    "on_disk",
    "size_of",
    "student",
    "unknown",
    "uses",
]
