"""Engines that serve a model: vLLM, started and watched over by the run, or one that runs already, by its address.

::

    Engine (the run)                                  Attached (any process)
      keeper ─▶ vLLM on a free port                     reads NAME.json, asks the server there
      /health until it is ready ─▶ NAME.json            lost an answer? has the engine died?
      it ended, or is silent? one line, and again       waits for the next one, and asks again

An engine ends with the process that started it, however that ends: the keeper between the two kills it when the pipe
from its parent closes. What an engine prints goes to ``NAME.log`` beside the state.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from vivavoce.agents.engine_probes import alive, free_port, healthy, listenable, names, spare_loopback
from vivavoce.agents.variables import Variable
from vivavoce.errors import RecipeError
from vivavoce.files import file_name
from vivavoce.progress import say

_POLL_S = 0.2
_HEALTH_S, _SILENT = 30.0, 4
"""Seconds between two looks at an engine's health, and the number of failures in a row before it is killed."""
_STARTS = 3
"""Failed starts in a row after which an engine is given up."""
_CPU_CONTEXT = 8192
_OURS = {"--host", "--model", "--port", "--served-model-name"}
_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""Largest ranks of adapters that vLLM's flag takes."""
_WORKER = Path(__file__).parent / "vllm_worker"
"""A folder for the path of vLLM's worker; see `vivavoce_on_cpu.py` in it."""
_KEEPER = """
import os, signal, subprocess, sys, threading, time
signal.signal(signal.SIGINT, signal.SIG_IGN)
child = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL, start_new_session=True)
def end(*_):
    for how, wait_s in ((signal.SIGTERM, 5.0), (signal.SIGKILL, 0.0)):
        try:
            os.killpg(child.pid, how)
        except ProcessLookupError:
            return
        until = time.monotonic() + wait_s
        while time.monotonic() < until and child.poll() is None:
            time.sleep(0.05)
signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=end).start())
def follow():
    while os.read(0, 4096):
        pass
    end()
threading.Thread(target=follow, daemon=True).start()
code = child.wait()
end()
os._exit(code if code >= 0 else 128 - code)
"""


class Serve(BaseModel):
    """The settings by which a model is served: by an engine that is started for it, or by one that runs at a
    ``url``.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    engine: Literal["vllm", "sglang"] = "vllm"
    """The engine. SGLang is only asked, at a ``url``; vLLM is started too."""
    url: str | None = None
    """Address of an engine that runs already and serves the same model, ``http://host:8000``. It must see the folders
    in which adapters and weights are written. None: vLLM is started here."""
    served_name: str | None = None
    """The name of the model at the engine at ``url``; None: the first that it lists."""
    api_key_env: Variable | None = None
    """Name of the environment variable with the key of that engine; None: it needs none."""
    python: str | None = None
    """Python of the environment that vLLM is installed in; None: the one that runs this."""
    command: tuple[str, ...] | None = None
    """A command that takes vLLM's flags, in place of ``python -m vllm.entrypoints.openai.api_server``."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """``auto`` is cuda if there is a device, otherwise cpu."""
    devices: str | None = None
    """GPUs that the engine may use, as CUDA_VISIBLE_DEVICES has them; None: all."""
    memory: float | None = Field(default=None, gt=0)
    """Share of a GPU's memory that the engine takes (vLLM's own is 0.9), or GiB of its cache on a CPU (None: 2)."""
    context: int | None = Field(default=None, ge=16)
    """Tokens of prompt and answer together; None: as many as the model takes, on a CPU 8,192 at most."""
    lora_rank: int | None = Field(default=None, ge=1)
    """Largest rank of the adapters that it serves; None: what the recipe trains, or the adapter at hand has."""
    float32_head: bool = True
    """Compute the last layer, which makes the logits, in float32: logits of 20 in bfloat16 are off by up to 0.06."""
    args: tuple[str, ...] = ()
    """Further flags of vLLM, say ``[--tensor-parallel-size, "2"]``."""
    env: dict[str, str] = Field(default={})
    """Further environment variables of the engine."""
    start_s: float = Field(default=900.0, gt=0)
    """Seconds within which an engine must be ready; one at a ``url`` that is down is waited for as long."""
    timeout_s: float = Field(default=3600.0, gt=0)
    """Seconds for one answer. The engine's health is checked apart from it."""
    max_concurrency: int = Field(default=256, ge=1)
    """Calls in flight at most."""
    max_mismatch: float = Field(default=0.1, gt=0)
    """Mean absolute difference, in nats a token, between the log-probabilities of the engine and those of the trainer
    at which on-policy training stops."""
    top_logprobs: int | None = Field(default=None, ge=1)
    """Likeliest tokens that the engine names at every position when its model scores a student's tokens; None: it does
    not score, and the trainer loads the model for that, which knows all of its distribution."""
    while_training: bool = True
    """Whether the engine goes on while students are trained. False: it ends before, so that training has its memory,
    and starts again for the next reply. The engine of a student that samples while it learns goes on in any case."""
    logs: str | None = None
    """Folder of the engine's log and state; None: that of the run."""

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if own_flags := sorted(_OURS.intersection(one.partition("=")[0] for one in self.args)):
            raise ValueError(f"`{own_flags[0]}` is chosen by the run: leave it out of `args`")
        if self.top_logprobs is not None and not self.while_training:
            raise ValueError("an engine that scores is needed while students are trained: leave out `while_training`")
        if self.top_logprobs is not None and self.engine != "vllm":
            raise ValueError(
                "vivavoce cannot score with SGLang: leave out `top_logprobs`, and the trainer loads the model"
            )
        if self.url is None:
            if self.engine == "sglang":
                raise ValueError(
                    "vivavoce does not start SGLang: start it yourself and give its `url`, or use engine: vllm"
                )
            if misplaced := [key for key in ("served_name", "api_key_env") if getattr(self, key) is not None]:
                raise ValueError(
                    f"`{misplaced[0]}` is for an engine that runs already: give its `url`, or leave it out"
                )
            if self.python is not None and self.command is not None:
                raise ValueError("give either `python` or `command`")
            return self
        own = ("python", "command", "devices", "memory", "context", "args", "env")
        if misplaced := [key for key in own if getattr(self, key) not in (None, (), {})]:
            raise ValueError(
                f"`{misplaced[0]}` is for an engine that is started here, but `url` names one that runs already"
            )
        if not re.fullmatch(r"https?://[^/@?#\s]+(/[^@?#\s]*)?", self.url):
            raise ValueError(f"`url` is {self.url!r}, which is not an address: write http://host:8000")
        return self

    @property
    def root(self) -> str:
        """Address of an engine that runs already, without ``/v1``."""
        assert self.url is not None
        return self.url.rstrip("/").removesuffix("/v1")


class Running(NamedTuple):
    """An engine that is ready."""

    generation: int
    """Later ones have larger numbers."""
    url: str
    """Address of its root, without ``/v1``."""
    model: str
    """Its name of its model; empty: the first that it lists."""


class Engine:
    """One vLLM server and the thread that watches over it. Made by :func:`engine`."""

    def __init__(self, name: str, serve: Serve, model: Path, *, dtype: str, rank: int | None, trust: bool) -> None:
        self.name, self.serve, self.model = name, serve, model
        self._dtype, self._rank, self._trust = dtype, rank, trust
        self.state, self.log = state_file(name, serve), state_file(name, serve).with_suffix(".log")
        self.state.parent.mkdir(parents=True, exist_ok=True)
        _need_own(self.state, name)
        spare_loopback()
        self._port = free_port()
        self._stop = threading.Event()
        self._keeper: subprocess.Popen[bytes] | None = None
        self._state: dict[str, Any] = {}
        self._tell(state_of(self.state).get("generation", -1) + 1, ready=False)  # later ones have larger numbers
        self._thread = threading.Thread(target=self._watch, name=f"vivavoce-engine-{name}", daemon=True)
        self._thread.start()

    @property
    def rank(self) -> int | None:
        """The largest rank of adapters that it takes; None if it takes none."""
        return self._rank

    def close(self) -> None:
        """End the engine and wait until it has ended."""
        self._stop.set()
        self._thread.join()
        with contextlib.suppress(OSError):  # a full disk, say: no call waits for the engine any more
            self._tell(self._state["generation"], ready=False, failed=f"the engine {self.name} was closed")

    # --- in the thread

    def _watch(self) -> None:
        try:
            self._supervise()
        except Exception as error:  # noqa: BLE001 - calls must not wait for an engine that is not watched over
            what = f"engine {self.name} is ended, because it cannot be watched over: {error}"
            say(what)
            try:
                self._give_up(self._state["generation"], what)
            except OSError:  # a full disk, say
                self.state.unlink(missing_ok=True)
        finally:
            self._end()

    def _supervise(self) -> None:
        first, failures = True, 0
        generation: int = self._state["generation"]
        while not self._stop.is_set():
            begun = time.monotonic()
            try:
                if not listenable(self._port):
                    self._port = free_port()
                self._start()
            except OSError as error:
                self._give_up(generation, f"cannot start the engine: {error}")
                return
            if not self._ready(begun):
                if self._stop.is_set():
                    return
                failures += 1
                slow = self._keeper is not None and self._keeper.poll() is None
                self._end()
                taken = not slow and not listenable(self._port)  # by another program, a moment before
                if slow or (first and not taken) or failures >= _STARTS:
                    why = f"was not ready within {self.serve.start_s:g} s" if slow else "ended before it was ready"
                    self._give_up(generation, f"the engine {why}")
                    return
                continue
            failures = 0
            self._tell(generation, ready=True)
            took = time.monotonic() - begun
            if first:
                say(f"engine {self.name}: vLLM serves {self.model.name} on port {self._port} after {took:.0f} s")
            first = False
            why = self._until_it_ends()
            if self._stop.is_set():
                return
            generation += 1
            self._port = free_port()  # so that what was meant for the engine that died does not reach the next one
            self._tell(generation, ready=False)
            say(
                f"engine {self.name} {why}: it is started again, and the calls that it had not answered are "
                f"sent again; its log is {self.log}"
            )
            self._end()

    def _start(self) -> None:
        environment = {**os.environ, **self._environment(), **self.serve.env}
        command = [sys.executable, "-c", _KEEPER, *self.command()]
        with self.log.open("ab") as out:
            self._keeper = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=out, stderr=subprocess.STDOUT, env=environment
            )

    def command(self) -> list[str]:
        """The command, with all flags."""
        serve = self.serve
        program = serve.command or (serve.python or sys.executable, "-m", "vllm.entrypoints.openai.api_server")
        flags: dict[str, Any] = {
            "--model": self.model,
            "--served-model-name": self.model.name,
            "--host": "127.0.0.1",
            "--port": self._port,
            "--dtype": self._dtype,
            "--max-logprobs": max(20, serve.top_logprobs or 0),
            "--logprobs-mode": "raw_logprobs",  # the model's own, whatever a call is sampled with
            "--generation-config": "vllm",  # a call says how it is sampled, not the model's folder
        }
        switches = ["--trust-remote-code"] if self._trust else []
        context = serve.context
        if _on_cpu(serve):
            context = context or min(_context(self.model) or _CPU_CONTEXT, _CPU_CONTEXT)
            # In parts, the prompt of a call with a seed ends vLLM on a CPU: "CPU Generator does not use offset".
            switches += ["--enforce-eager", "--no-enable-chunked-prefill"]
            flags["--max-num-batched-tokens"] = max(_CPU_CONTEXT, context)
            flags["--worker-extension-cls"] = "vivavoce_on_cpu.Extension"
        elif serve.memory is not None:
            flags["--gpu-memory-utilization"] = serve.memory
        if context is not None:
            flags["--max-model-len"] = context
        if serve.float32_head:
            flags["--hf-overrides"] = json.dumps({"head_dtype": "float32"})
        if self._rank is not None:
            switches.append("--enable-lora")
            rank = next((n for n in _RANKS if n >= self._rank), self._rank)
            flags |= {"--max-lora-rank": rank, "--max-loras": 2, "--max-cpu-loras": 8}
        own_flags = {one.partition("=")[0] for one in serve.args if one.startswith("--")}
        options = [word for flag, value in flags.items() if flag not in own_flags for word in (flag, str(value))]
        return [*program, *options, *(s for s in switches if s not in own_flags), *serve.args]

    def _environment(self) -> dict[str, str]:
        variables = {
            "VLLM_NO_USAGE_STATS": "1",
            "DO_NOT_TRACK": "1",
            "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True",
            "VLLM_SERVER_DEV_MODE": "1",  # how weights are updated, and the cache of prompts emptied
        }
        if _on_cpu(self.serve):
            variables |= {"VLLM_CPU_KVCACHE_SPACE": f"{self.serve.memory or 2:g}", "CUDA_VISIBLE_DEVICES": ""}
            # vLLM keeps one core free of its threads: of two cores that is half, and the trainer waits for it anyhow.
            free = "VLLM_CPU_NUM_OF_RESERVED_CPU"
            variables[free] = os.environ.get(free, "0")
            paths = [str(_WORKER), os.environ.get("PYTHONPATH")]
            variables["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
        elif self.serve.devices is not None:
            variables["CUDA_VISIBLE_DEVICES"] = self.serve.devices
        return variables

    def _ready(self, begun: float) -> bool:
        """Wait until the engine says that it is ready; False if it ends, or takes too long."""
        keeper, url = self._keeper, f"http://127.0.0.1:{self._port}"
        assert keeper is not None
        while not self._stop.wait(_POLL_S):
            if keeper.poll() is not None or time.monotonic() - begun > self.serve.start_s:
                return False
            if healthy(url, 5.0) and self.model.name in (names(url, 5.0) or ()):
                return True
        return False

    def _until_it_ends(self) -> str:
        """Wait for the end of the engine, or end one that is silent; returns the outcome, in words."""
        keeper, silent, looked = self._keeper, 0, time.monotonic()
        assert keeper is not None
        while not self._stop.wait(_POLL_S):
            if (code := keeper.poll()) is not None:
                return f"was killed by {_signal(code)}" if code > 128 else f"ended with status {code}"
            if time.monotonic() - looked > _HEALTH_S:
                silent = 0 if healthy(f"http://127.0.0.1:{self._port}", _HEALTH_S) else silent + 1
                looked = time.monotonic()
            if silent >= _SILENT:
                self._end()
                return f"failed its health check for {_SILENT * _HEALTH_S:.0f} s"
        return "was stopped"

    def _end(self) -> None:
        keeper = self._keeper
        if keeper is None:
            return
        if keeper.poll() is None:
            keeper.terminate()
            try:
                keeper.wait(15)
            except subprocess.TimeoutExpired:
                keeper.kill()
                keeper.wait()
        if keeper.stdin is not None:
            keeper.stdin.close()

    def _give_up(self, generation: int, what: str) -> None:
        tail = "\n".join(_log_tail(self.log))
        self._tell(generation, ready=False, failed=f"{what}. Its log ends:\n{tail}" if tail else what)

    def _tell(self, generation: int, *, ready: bool, failed: str | None = None) -> None:
        self._state = {
            "generation": generation,
            "url": f"http://127.0.0.1:{self._port}",
            "model": self.model.name,
            "ready": ready,
            "failed": failed,
            "pid": self._keeper.pid if self._keeper else None,
            "owner": os.getpid(),
            "log": str(self.log),
        }
        part = self.state.with_suffix(".part")
        part.write_text(json.dumps(self._state, indent=2) + "\n", "utf-8")
        part.replace(self.state)


_engines: dict[tuple[str, str], Engine] = {}
_lock = threading.Lock()


def engine(
    name: str,
    serve: Serve,
    model: Path,
    *,
    dtype: str = "auto",
    rank: int | None = None,
    trust: bool = False,
) -> Engine:
    """The engine of this process that serves the whole model in the folder ``model`` to the agent ``name``.

    It is started if there is none, or none that takes adapters of that ``rank``; it is not waited for. An engine of the
    same agent that serves another model is closed. Raises RecipeError if its program is not there.
    """
    check(name, serve)
    wanted = serve.lora_rank or rank
    with _lock:
        key = name, str(state_file(name, serve).parent)
        there = _engines.get(key)
        if there is not None:
            fits = wanted is None or (there.rank or 0) >= wanted
            if there.model == model and fits and not there._state.get("failed"):
                return there
            wanted = max(wanted or 0, there.rank or 0) or None
            there.close()
        _engines[key] = Engine(name, serve, model, dtype=dtype, rank=wanted, trust=trust)
        return _engines[key]


def state_file(name: str, serve: Serve) -> Path:
    """The file in which the engine of an agent tells its state."""
    return Path(serve.logs or "engines").absolute() / f"{file_name(name)}.json"


def there(name: str, serve: Serve) -> bool:
    """Whether this process has started the engine of an agent, and has not ended it."""
    return (name, str(state_file(name, serve).parent)) in _engines


def close(name: str, logs: Path, busy: Callable[[], bool] = lambda: False) -> None:
    """End the engine of an agent, if there is one, unless it turns out to be ``busy``: a call may have begun that found
    it there.
    """
    with _lock:
        key = name, str(logs.absolute())
        if (one := _engines.pop(key, None)) is None:
            return
        if busy():
            _engines[key] = one
        else:
            one.close()


def close_all(logs: Path | None = None) -> None:
    """End the engines of this process: those with their state in ``logs``, or all."""
    with _lock:
        for key, one in list(_engines.items()):
            if logs is None or Path(key[1]) == logs.absolute():
                one.close()
                del _engines[key]


atexit.register(close_all)


def check(name: str, serve: Serve) -> None:
    """Raise RecipeError if the program that should run vLLM is not there, or has no vLLM."""
    if serve.url is not None or serve.command is not None:
        return
    python = serve.python or sys.executable
    do = "make an environment with vLLM in it, and name its Python with `serve: {python: …}`, or give the `url` of one"
    looked = "import importlib.util, sys; sys.exit(importlib.util.find_spec('vllm') is None)"
    try:
        answered = subprocess.run([python, "-c", looked], capture_output=True, timeout=60, check=False).returncode == 0
    except (OSError, subprocess.SubprocessError) as error:
        raise RecipeError(f"cannot run {python}: {error}", f"agent {name!r}, `serve`", do) from None
    if not answered:
        raise RecipeError(f"vLLM is not installed for {python}", f"agent {name!r}, `serve`", do)


def _on_cpu(serve: Serve) -> bool:
    if serve.device != "auto":
        return serve.device == "cpu"
    return not (Path("/dev/nvidiactl").exists() or Path("/dev/kfd").exists())


def _context(model: Path) -> int | None:
    try:
        config = json.loads((model / "config.json").read_text("utf-8"))
    except (OSError, ValueError):
        return None
    length = config.get("max_position_embeddings") or (config.get("text_config") or {}).get("max_position_embeddings")
    return length if isinstance(length, int) else None


def state_of(file: Path) -> dict[str, Any]:
    """The state that an engine wrote to its file; empty if there is none."""
    try:
        return json.loads(file.read_text("utf-8"))
    except (OSError, ValueError):
        return {}


def _need_own(state: Path, name: str) -> None:
    """Raise RecipeError if the engine of another run, which is at work, tells its state in the same file."""
    other = state_of(state)
    owner = other.get("owner")
    if owner in (None, os.getpid()) or other.get("failed") or not alive(owner) or not healthy(other["url"], 5.0):
        return
    do = "give each run a folder of its own with `serve.logs`, start it elsewhere, or wait"
    raise RecipeError(f"the engine {name!r} of another run (process {owner}) is at work there", str(state), do)


def _signal(code: int) -> str:
    try:
        return signal.Signals(code - 128).name
    except ValueError:
        return f"signal {code - 128}"


def _log_tail(log: Path, lines: int = 12) -> list[str]:
    """The last lines of a log."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 8000))
            return file.read().decode("utf-8", "replace").splitlines()[-lines:]
    except OSError:
        return []


__all__ = [
    "Engine",
    "Running",
    "Serve",
    "check",
    "close",
    "close_all",
    "engine",
    "state_file",
    "state_of",
    "there",
]
