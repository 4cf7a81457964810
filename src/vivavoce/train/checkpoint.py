"""A training run's folder: opening the student, going on after a kill, keeping the loss curve, saving the result.

::

    out/  model.safetensors config.json tokenizer.json …       the student, if all its weights were trained
          adapter_model.safetensors adapter_config.json …      its LoRA adapter over a base that is named there, if not
          loss.jsonl  train_result.json                        the curve, and what was done
          checkpoints/                                         only while unfinished and with save_steps
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from huggingface_hub import constants as hub
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedTokenizerBase,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer_callback import PrinterCallback
from transformers.utils import logging as transformers_logging

from vivavoce.agents import weights
from vivavoce.agents.gguf_files import gguf_in
from vivavoce.agents.quantised import loading, one_way, stored_quantised
from vivavoce.errors import DataError, RecipeError, RunConflict
from vivavoce.files import json_lines
from vivavoce.records import digest, seed_of
from vivavoce.train.adapters import save, start_from
from vivavoce.train.settings import Progress, TrainResult, TrainSettings
from vivavoce.train.shards import is_sharded, whole_weights

logger = logging.getLogger(__name__)
transformers_logging.disable_progress_bar()  # its bars for loading and saving would break up ours
hub.HF_HUB_DISABLE_TELEMETRY = True  # training sends no telemetry

_NO_EFFECT = {"threads", "log_steps", "save_steps", "resident"}  # settings that do not change the weights


def open_model(model: str | Path, settings: TrainSettings) -> tuple[Any, PreTrainedTokenizerBase]:
    """The student and its tokenizer, on the CPU.

    A folder that holds an adapter is opened with its base: the adapter stays beside it, frozen, if another one is to
    be trained, and is added to its weights if all of them are. Weights are float32, but for a frozen base under LoRA
    with ``bf16``, or in 4 bits; such a one is on the device that it is trained on. Raises DataError if nothing can be
    opened, RecipeError if no adapter can be added to that one or all weights of one in 4 bits are to be trained,
    MissingDependency without a package that the settings need.
    """
    settings.need_packages()
    dtype = torch.bfloat16 if settings.bf16 and settings.lora else torch.float32
    if gguf_in(Path(model)):
        model = weights.folder(str(model))
    folder = Path(model)
    base = weights.base_folder(folder)
    if not settings.lora and stored_quantised(base or folder) == "bitsandbytes":
        what = "the model's own weights are in few bits (bitsandbytes), and all are to be trained"
        raise RecipeError(what, str(base or folder), "train an adapter (lora), or start from the whole weights")
    try:
        tokenizer = AutoTokenizer.from_pretrained(weights.tokenizer_folder(folder) if base else model)
        with weights.LOADING:
            how = loading(settings.quantise, Path(base or model), dtype, training_device(settings))
            student = AutoModelForCausalLM.from_pretrained(base or model, **how)
            one_way(student)
    except (OSError, ValueError) as error:
        raise DataError(f"cannot open the model: {error}", str(model), "give a folder or a hub name") from error
    if base and settings.lora:
        student = start_from(student, folder)
    elif base:
        student = weights.merge_adapter(weights.add_adapter(student, folder)).requires_grad_(True)
    return student, tokenizer


def training_device(settings: TrainSettings) -> str:
    """The device that this process trains on, as accelerate chooses it."""
    if settings.device == "cpu" or not torch.accelerator.is_available():
        return "cpu"
    kind = torch.accelerator.current_accelerator()
    assert kind is not None, "an accelerator was there a moment ago"
    return f"{kind.type}:{int(os.environ.get('LOCAL_RANK', '0')) % torch.accelerator.device_count()}"


def fingerprint(model: str | Path) -> str:
    """A hash that changes with the weights: of a folder's files, or of a hub model's name and commit.

    That of an adapter changes with the weights of its base too.
    """
    folder = weights.folder(str(model)) if gguf_in(Path(model)) else Path(model)
    if base := weights.base_folder(folder):
        return digest([weights.fingerprint(folder), fingerprint(base)])
    if not folder.is_dir():
        from transformers import AutoConfig

        return digest([str(model), getattr(AutoConfig.from_pretrained(model), "_commit_hash", None)])
    total = hashlib.sha256()
    for file in sorted(folder.iterdir()):
        if file.suffix in {".safetensors", ".bin"} or file.name == "config.json":
            with file.open("rb") as stream:
                total.update(f"{file.name}:{hashlib.file_digest(stream, 'sha256').hexdigest()}\n".encode())
    return total.hexdigest()


def run_key(kind: str, model: str | Path, settings: TrainSettings, seed: int, data: Any) -> str:
    """The dependencies of a checkpoint; a run goes on from a checkpoint only if all of them are the same."""
    knobs = settings.model_dump(mode="json", exclude=_NO_EFFECT)
    return digest([kind, fingerprint(model), knobs, seed, data])


def arguments(settings: TrainSettings, out: Path, seed: int, steps: int) -> TrainingArguments:
    """The arguments of transformers' Trainer. Raises what :func:`check_launch` raises."""
    shared: dict[str, Any] = {
        "output_dir": str(out / "checkpoints"),
        "max_steps": steps,
        "learning_rate": settings.learning_rate,
        "lr_scheduler_type": settings.lr_scheduler,
        "warmup_steps": int(np.ceil(steps * settings.warmup_ratio)),
        "adam_beta1": settings.adam_betas[0],
        "adam_beta2": settings.adam_betas[1],
        "adam_epsilon": settings.adam_eps,
        "weight_decay": settings.weight_decay,
        **({"optim": "adamw_torch_8bit"} if settings.adam_bits == 8 else {}),
        "max_grad_norm": settings.max_grad_norm,
        **_checkpointing(settings.gradient_checkpointing),
        "logging_steps": settings.log_steps,
        "logging_first_step": True,
        "save_strategy": "steps" if settings.save_steps else "no",
        "save_steps": settings.save_steps or 500,
        "save_total_limit": 2,
        # without it, several processes on CPUs would each train alone
        "use_cpu": settings.device == "cpu" or not torch.accelerator.is_available(),
        "dataloader_pin_memory": torch.cuda.is_available() and settings.device != "cpu",
        # The data come in training order, for all epochs at once: that is what makes a resumed run exact.
        "train_sampling_strategy": "sequential",
        "remove_unused_columns": False,
        "seed": seed,
        "report_to": "none",
        "disable_tqdm": True,
    }
    made = TrainingArguments(**shared, per_device_train_batch_size=1)
    check_launch(made, settings)
    return made


def _checkpointing(on: bool) -> dict[str, Any]:
    # transformers renamed gradient to activation checkpointing on the way from 5.10 to 5.23
    known = {field.name for field in fields(TrainingArguments)}
    name = "activation_checkpointing" if "activation_checkpointing" in known else "gradient_checkpointing"
    return {name: on, f"{name}_kwargs": {"use_reentrant": False}}


def check_launch(arguments: TrainingArguments, settings: TrainSettings) -> None:
    """Raise RecipeError if training was started in a way that it does not support: one process that sees several
    GPUs, DeepSpeed, the first version of FSDP, Muon on sharded matrices, weights in 4 bits that are sharded, fewer
    states to an update than devices.
    """
    if arguments.n_gpu > 1:
        what = f"one process sees {arguments.n_gpu} GPUs"
        raise RecipeError(what, "device", "start with `accelerate launch`, or set CUDA_VISIBLE_DEVICES to one of them")
    if os.environ.get("ACCELERATE_USE_DEEPSPEED", "").lower() == "true":
        raise RecipeError("DeepSpeed is not supported", "accelerate launch", "use --use_fsdp --fsdp_version 2")
    if is_sharded() and os.environ.get("FSDP_VERSION", "1") != "2":
        what = "the first version of FSDP is not supported"
        raise RecipeError(what, "accelerate launch", "use --fsdp_version 2")
    if is_sharded() and settings.muon:
        raise RecipeError("Muon needs whole matrices", "muon", "launch without FSDP, or set it to null")
    if is_sharded() and settings.quantise:
        raise RecipeError("weights in 4 bits are not shared", "quantise", "launch without FSDP, or set it to null")
    if (launched := int(os.environ.get("WORLD_SIZE", "1"))) > 1 and arguments.world_size == 1:
        what = f"{launched} processes were launched, and this one finds no other"
        raise RecipeError(what, "accelerate launch", "launch as many processes as there are GPUs, or set device: cpu")
    devices, states = arguments.world_size, getattr(settings, "states_per_step", None)
    if states is not None and states < devices:
        what = f"{devices} devices share the {states} states of an update, and each needs one"
        raise RecipeError(what, "states_per_step", f"set it to {devices} or more, or launch on fewer devices")


def leave_launch() -> None:
    """Close the group of processes that accelerate opened, as the last thing a process does with it.

    Left to the interpreter's end, the group's own threads ask for an interpreter that is gone. Now and then they abort
    a process whose training is done and saved. Does nothing if there is one process.
    """
    PartialState().destroy_process_group()


def training_order(count: int, size: int, steps: int, seed: int, *, groups: list[str] | None = None) -> list[int]:
    """Indices of ``steps * size`` rows in training order: every epoch another permutation of ``count`` rows.

    With ``groups``, equal neighbours stay together. Steps run on across epochs, so every step is full.
    """
    order: list[int] = []
    epoch = 0
    while len(order) < steps * size:
        shuffled = np.random.default_rng(seed_of("order", seed, epoch)).permutation(count)
        if groups is not None:
            first: dict[str, int] = {}
            for rank, i in enumerate(shuffled):
                first.setdefault(groups[i], rank)
            shuffled = np.array(sorted(range(count), key=lambda i: (first[groups[i]], i)))
        order.extend(shuffled.tolist())
        epoch += 1
    return order[: steps * size]


class CurveWriter(TrainerCallback):
    """Writes the loss curve as it comes and tells the caller the progress of training."""

    def __init__(self, file: Path, progress: Progress | None) -> None:
        self.file, self.progress = file, progress

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if state.is_world_process_zero:  # a resumed run keeps the points up to its checkpoint
            self.file.write_text("".join(json.dumps(point) + "\n" for point in points(state)))

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if state.global_step >= state.max_steps:  # the curve ends where training does
            control.should_log = True
        if self.progress and state.is_world_process_zero and not control.should_log:
            self.progress(state.global_step, state.max_steps, {})

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        if not state.is_world_process_zero or logs is None or "loss" not in logs:
            return
        with self.file.open("a") as stream:
            stream.write(json.dumps(points(state)[-1]) + "\n")
        if self.progress:
            self.progress(state.global_step, state.max_steps, dict(logs))


def points(state: TrainerState) -> list[dict[str, float]]:
    """The loss curve in a trainer's state."""
    return [dict(entry) for entry in state.log_history if "loss" in entry]


@contextmanager
def threads(count: int | None) -> Iterator[None]:
    """Torch's CPU threads while the block runs."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def finished_result(out: Path, key: str) -> TrainResult | None:
    """The result of this run, if it was finished before. Raises RunConflict if the folder is another run's."""
    for file in (out / "train_result.json", out / "checkpoints" / "run.json"):
        if file.is_file() and json.loads(file.read_text()).get("key") != key:
            raise RunConflict("another training run lives here", str(out), "take another folder, or delete this one")
    if not (out / "train_result.json").is_file():
        return None
    stored = json.loads((out / "train_result.json").read_text())
    del stored["key"]
    curve = [json.loads(line) for _, line in json_lines(out / "loss.jsonl")]
    return TrainResult(**{**stored, "path": out, "history": tuple(curve)})


def train(trainer: Trainer, out: Path, key: str, progress: Progress | None) -> float:
    """Run ``trainer`` to its end, from the last whole checkpoint of the same run if there is one.

    The loss curve is kept in ``out``, and ``progress`` is told; returns the seconds that it took.
    """
    started = time.perf_counter()
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(CurveWriter(out / "loss.jsonl", progress))
    checkpoints = out / "checkpoints"
    # The trainer's state is the last file of a checkpoint, so one without it was cut off in the writing.
    whole = [folder for folder in checkpoints.glob("checkpoint-*") if (folder / "trainer_state.json").is_file()]
    record = checkpoints / "run.json"
    if whole and record.is_file() and json.loads(record.read_text()).get("sharded", False) != is_sharded():
        logger.warning("checkpoints of %s are of another kind (train.fsdp): training starts again", out.name)
        whole = []
    trainer.accelerator.wait_for_everyone()  # all have looked
    if trainer.args.save_strategy != "no" and trainer.is_world_process_zero():
        if not whole:
            shutil.rmtree(checkpoints, ignore_errors=True)
        checkpoints.mkdir(parents=True, exist_ok=True)
        record.write_text(json.dumps({"key": key, "sharded": is_sharded()}))
    latest = max(whole, key=lambda folder: int(folder.name.split("-")[1]), default=None)
    trainer.train(resume_from_checkpoint=str(latest) if latest else None)
    return time.perf_counter() - started


def finish(
    trainer: Trainer,
    tokenizer: PreTrainedTokenizerBase,
    out: Path,
    key: str,
    *,
    rows_used: int,
    rows_dropped: int,
    seconds: float,
    details: Mapping[str, Any] | None = None,
) -> TrainResult:
    """Save the student and the result, and drop the checkpoints."""
    curve = points(trainer.state)
    result = TrainResult(
        out,
        trainer.state.global_step,
        curve[0]["loss"],
        curve[-1]["loss"],
        rows_used,
        rows_dropped,
        int(trainer.state.num_input_tokens_seen),
        seconds,
        dict(details or {}),
        tuple(curve),
    )
    trainer.accelerator.wait_for_everyone()
    whole: Any = whole_weights(trainer.accelerator.unwrap_model(trainer.model)) if is_sharded() else None
    if trainer.is_world_process_zero():
        student: Any = trainer.accelerator.unwrap_model(trainer.model)
        if hasattr(student, "peft_config"):
            save(student, out, whole)
        else:
            student = student if whole is None else _assemble(student, whole)
            student.config.use_cache = True
            student.save_pretrained(out)
        tokenizer.save_pretrained(out)
        stored = asdict(replace(result, history=())) | {"path": str(out), "key": key}
        del stored["history"]
        (out / "train_result.json").write_text(json.dumps(stored, indent=1) + "\n")
        shutil.rmtree(out / "checkpoints", ignore_errors=True)
    trainer.accelerator.wait_for_everyone()
    return result


def _assemble(student: Any, whole: Mapping[str, Any]) -> Any:
    """The whole student, put together from the parts that the devices hold."""
    with weights.LOADING:
        made = AutoModelForCausalLM.from_config(student.config, dtype=student.dtype)
    made.load_state_dict(whole)
    return made


__all__ = [
    "CurveWriter",
    "arguments",
    "check_launch",
    "fingerprint",
    "finish",
    "finished_result",
    "leave_launch",
    "open_model",
    "points",
    "run_key",
    "threads",
    "train",
    "training_device",
    "training_order",
]
