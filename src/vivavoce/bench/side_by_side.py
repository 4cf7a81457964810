"""Two ways of doing the same work, one after the other in one process, again and again: times, ratios, memory.

The sides alternate, so that a busy machine slows both; processor time is measured beside the clock for the same reason.
"""

from __future__ import annotations

import gc
import math
import platform
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any, Literal

import torch

from vivavoce.progress import say, say_seldom
from vivavoce.train.scoring import compiled_layers


@dataclass(frozen=True)
class Hardware:
    """The device and precision of both sides."""

    device: Literal["cpu", "cuda"] = "cpu"
    bf16: bool = False
    """bfloat16 under autocast, as trainers do it; equality is checked in float32 first all the same."""
    threads: int | None = 1
    """Threads of torch; None leaves them as they are."""

    def precision(self) -> torch.autocast:
        """The context of a forward pass that is timed."""
        return torch.autocast(self.device, torch.bfloat16, enabled=self.bf16)


Pass = Callable[[], float]
"""One pass over the work of one side; its result is not used."""


@dataclass(frozen=True)
class Timing:
    """Repeated measurements of one side, in seconds: by the clock, and of this process's processors."""

    wall: tuple[float, ...]
    cpu: tuple[float, ...]
    peak_mb: float | None
    """Memory above the use before, MiB: of the device, or of the process if Linux tells."""

    @property
    def seconds(self) -> float:
        """Median by the clock."""
        return median(self.wall)


def ratios(ours: Timing, theirs: Timing, clock: str = "wall") -> tuple[float, float, float]:
    """Their time over ours in neighbouring passes: least, median, greatest."""
    quotients = [b / a for a, b in zip(getattr(ours, clock), getattr(theirs, clock), strict=True)]
    return min(quotients), median(quotients), max(quotients)


def memory_ratio(ours: Timing, theirs: Timing) -> float | None:
    """Our peak over theirs; below 1 we need less."""
    return ours.peak_mb / theirs.peak_mb if ours.peak_mb and theirs.peak_mb else None


def alternate(
    sides: Mapping[str, Pass],
    model: torch.nn.Module,
    device: str,
    repeats: int,
    *,
    warm: bool = True,
    peaks: Collection[str] | None = None,
) -> dict[str, Timing]:
    """Time the sides in turn, ``repeats`` passes of each with an optimiser's update of ``model``; then their memory.

    ``warm``: pass once before, because the first pass of each side pays for what is made once. ``peaks``: the sides
    whose memory is measured; None: all.
    """
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.0)
    for one in sides.values() if warm else ():
        _time_step(one, optimizer, device)
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    for _ in range(repeats):
        for name, one in sides.items():
            times[name].append(_time_step(one, optimizer, device))
            say_seldom(f"  {name}: {times[name][-1][0]:.2f} s, {times[name][-1][1]:.2f} s of processor")
    return {
        name: Timing(
            tuple(t[0] for t in pairs),
            tuple(t[1] for t in pairs),
            _peak(sides[name], model, device) if peaks is None or name in peaks else None,
        )
        for name, pairs in times.items()
    }


@dataclass(frozen=True)
class Best:
    """The fastest of several ways of doing the peer's work."""

    name: str
    one: Pass
    seconds: dict[str, float]
    """Seconds of one pass, by way."""


def fastest(passes: Mapping[str, Pass], *, warm: bool = True, compiling: Sequence[Any] = ()) -> Best:
    """Try each way once to warm up and once for its time, and the best once more with layers compiled.

    Args:
        passes: The ways, by name. One that does not fit the device's memory is out of the race.
        warm: False leaves warming up out.
        compiling: The models whose layers to compile, as our own trainers do on a GPU; none leaves that out.
    """
    seconds = {name: _try_pass(name, one, warm) for name, one in passes.items()}
    name = min(seconds, key=lambda name: seconds[name])
    if not compiling:
        return Best(name, passes[name], seconds)

    def compiled_() -> float:
        with ExitStack() as stack:
            for model in compiling:
                stack.enter_context(compiled_layers(model))
            return passes[name]()

    also = f"{name}, layers compiled"
    seconds[also] = _try_pass(also, compiled_, warm)
    return Best(also, compiled_, seconds) if seconds[also] < seconds[name] else Best(name, passes[name], seconds)


def _try_pass(name: str, one: Pass, warm: bool) -> float:
    try:
        if warm:
            one()
        started = time.perf_counter()
        one()
    except torch.OutOfMemoryError:
        say(f"  {name}: out of memory")
        gc.collect()
        torch.cuda.empty_cache()
        return math.inf
    seconds = time.perf_counter() - started
    say_seldom(f"  {name}: {seconds:.2f} s")
    return seconds


@dataclass(frozen=True)
class Figures:
    """The figures of every comparison."""

    what: str
    ours: Timing
    theirs: Timing
    variant: str
    """The peer's best way, of those that were tried."""
    variants: dict[str, float]
    """Seconds of each, one pass."""
    facts: dict[str, str] = field(kw_only=True)

    def summary(self) -> dict[str, Any]:
        """The figures that a script wants, and everything that was measured."""
        low, middle, high = ratios(self.ours, self.theirs)
        return {
            "what": self.what,
            "ratio": middle,
            "spread": [low, high],
            "peak_memory_ratio": memory_ratio(self.ours, self.theirs),
            **asdict(self),
        }


@dataclass(frozen=True)
class LossComparison(Figures):
    """A comparison of two ways to the same loss and gradients."""

    loss_error: float
    """Relative difference of what both compute: the loss, or the worst hidden state."""
    gradient_error: float | None
    naive: Timing | None = None
    """The naive way, if that is no peer's way."""
    floor: float | None = None
    """Tokens of the peer, unpadded, over distinct tokens."""
    flops: float | None = None
    """Operations that our pass cannot do without."""
    rate: float | None = None
    """Operations a second of this machine's matrix product."""

    @property
    def utilisation(self) -> float | None:
        """Share of the matrix product's rate at which the necessary operations were done."""
        return self.flops / self.ours.seconds / self.rate if self.flops and self.rate else None

    def summary(self) -> dict[str, Any]:
        facts: dict[str, Any] = super().summary() | {"max_rel_grad_diff": self.gradient_error}
        if self.floor:
            facts["of_floor"] = facts["ratio"] / self.floor
        if self.utilisation:
            facts["utilisation"] = self.utilisation
        if self.naive:
            facts["ratio_to_naive"] = ratios(self.ours, self.naive)[1]
            facts["peak_memory_ratio_to_naive"] = memory_ratio(self.ours, self.naive)
        return facts

    def __str__(self) -> str:
        low, middle, high = ratios(self.ours, self.theirs)
        equal = f"equal to {self.loss_error:.1e}"
        if self.gradient_error is not None:
            equal += f", gradients to {self.gradient_error:.1e}"
        lines = [
            f"{self.what}: {middle:.2f}x ({low:.2f} to {high:.2f}) of {self.variant}; {equal}",
            f"  {_time(self.theirs)} against {_time(self.ours)}{_memory(self.theirs, self.ours)}",
        ]
        if self.naive:
            lines.append(f"  holding all logits: {_time(self.naive)}{_memory(self.naive, self.ours)}")
        if self.floor:
            lines.append(f"  tokens: {self.floor:.2f}x fewer")
        if self.flops and self.rate:
            used = f"at {self.utilisation:.0%} of {self.rate / 1e9:,.0f} GFLOP/s"
            lines.append(f"  {self.flops / 1e9:,.0f} GFLOP necessary, {used}")
        tried = ", ".join(f"{name} {_seconds(seconds)}" for name, seconds in self.variants.items())
        lines += [f"  tried: {tried}", "  " + ", ".join(f"{name} {value}" for name, value in self.facts.items())]
        return "\n".join(lines)


def _seconds(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{1000 * seconds:.0f} ms"


def _time(timing: Timing) -> str:
    return f"{_seconds(timing.seconds)} ({_seconds(median(timing.cpu))} of processor)"


def _memory(theirs: Timing, ours: Timing) -> str:
    if not theirs.peak_mb or not ours.peak_mb:
        return ""
    return f"; peak memory {theirs.peak_mb:.0f} against {ours.peak_mb:.0f} MiB"


def gradients(model: torch.nn.Module, one: Pass) -> tuple[float, list[torch.Tensor]]:
    """The value of ``one``, taken as a loss, and the gradients that it leaves in ``model``, which are cleared again."""
    model.zero_grad()
    loss = one()
    grads = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    model.zero_grad()
    return loss, grads


def apart(model: torch.nn.Module, ours: Pass, theirs: Pass, passes: int = 0) -> tuple[float, float]:
    """Relative differences of our loss, and of our worst parameter's gradient, from theirs.

    If so many ``passes`` of each side are to come, it says about how long they take. Raises AssertionError if they
    differ by more than float32 explains: only equal computations may be timed.
    """
    begun = time.perf_counter()
    (wanted, gradients_), (loss, others) = gradients(model, theirs), gradients(model, ours)
    if (left_s := passes * (time.perf_counter() - begun)) > 20:
        say(f"  both sides took {left_s / passes:.1f} s for a pass; {left_s / 60:.1f} minutes are to come, or less")
    worst = max(float((a - b).norm() / a.norm().clamp(min=1e-12)) for a, b in zip(gradients_, others, strict=True))
    error = abs(loss / wanted - 1)
    assert error < 1e-4, f"the loss is {loss}, theirs is {wanted}"
    assert worst < 1e-3, f"a gradient differs from theirs by {worst:.1e}"
    return error, worst


def facts(device: str, *packages: str) -> dict[str, str]:
    """The machine and the versions of ``packages``."""
    machine = torch.cuda.get_device_name() if device == "cuda" else platform.processor() or platform.machine()
    if device == "cpu":
        with suppress(OSError):
            lines = Path("/proc/cpuinfo").read_text().splitlines()
            machine = next((line.split(": ")[1] for line in lines if line.startswith("model name")), machine)
    return {"machine": f"{machine} ({torch.get_num_threads()} threads)", **{name: version(name) for name in packages}}


def _time_step(one: Pass, optimizer: torch.optim.Optimizer, device: str) -> tuple[float, float]:
    gc.collect()
    wall, cpu = time.perf_counter(), time.process_time()
    one()
    optimizer.step()
    optimizer.zero_grad()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - wall, time.process_time() - cpu


def _peak(one: Pass, model: Any, device: str) -> float | None:
    model.zero_grad()
    gc.collect()
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        held = torch.cuda.memory_allocated()
        one()
        return (torch.cuda.max_memory_allocated() - held) / 2**20
    with suppress(OSError):
        _trim()
        Path("/proc/self/clear_refs").write_text("5")  # sets Linux's high-water mark back
        held = _status("VmRSS")
        one()
        return (_status("VmHWM") - held) / 1024
    return None


def _trim() -> None:
    """Give the C library's free memory back, so that one side does not run in the other's."""
    import ctypes

    with suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field))


__all__ = [
    "Best",
    "Figures",
    "Hardware",
    "LossComparison",
    "Pass",
    "Timing",
    "alternate",
    "apart",
    "facts",
    "fastest",
    "gradients",
    "memory_ratio",
    "ratios",
]
