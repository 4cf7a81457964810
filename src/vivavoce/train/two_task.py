"""Joint training of two tasks: to say what was wrong with a mistake, and to answer as a reviewed rationale does.

    L = alpha  sum_F w nll / sum_F w m  +  (1 - alpha)  sum_A w nll / sum_A w m

F and A are the feedback and rationale rows of one update, on all devices; nll is -log p of a row's m target tokens
and w its weight. Paper: arXiv:2410.03663. Differs from the authors' code: denominators are those of the whole update,
so that its split into passes changes nothing; padding is never trained on; over-long rows are left out, not cut; texts
to one prompt (n teachers on one mistake) share it in one packed row.
"""

from __future__ import annotations

import logging
import math
import random
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from torch.utils.data import Dataset
from transformers import TrainingArguments, set_seed

from vivavoce.errors import DataError
from vivavoce.records import Example, seed_of
from vivavoce.train import checkpoint
from vivavoce.train.packing import Packed, pack, rows_of
from vivavoce.train.scoring import Method, attending, autocast, choose, logprobs
from vivavoce.train.settings import Progress, TrainResult, TwoTaskSettings
from vivavoce.train.tokens import Scored, score_rows
from vivavoce.train.updates import UpdateTrainer

logger = logging.getLogger(__name__)

FEEDBACK = "feedback"


class Taught(NamedTuple):
    """One row in tokens."""

    problem: str
    feedback: bool
    row: Scored
    weight: float

    @property
    def tokens(self) -> int:
        return len(self.row.completion)


class Part(NamedTuple):
    """A packed row, and what each of its texts counts in the loss: ``factors`` times -log p, by task."""

    packed: Packed
    factors: list[float]
    feedback: list[bool]


def train_two_task(
    model: str | Path,
    examples: Sequence[Example],
    settings: TwoTaskSettings,
    out: Path,
    *,
    seed: int,
    progress: Progress | None = None,
) -> TrainResult:
    """Train ``model`` on both streams of ``examples`` (``stream`` feedback or answer) and save it in ``out``.

    A stream whose weight is 0 is not even read. Resuming, finishing and errors are those of
    :func:`vivavoce.train.sft.train_sft`.
    """
    out = Path(out)
    set_seed(seed)
    student, tokenizer = checkpoint.open_model(model, settings)
    wanted = [e for e in examples if (settings.alpha if e.stream == FEEDBACK else 1 - settings.alpha) and e.weight]
    if not wanted:
        raise DataError("there are no rows of a task that counts", str(out), "look at alpha and at the rows' streams")
    rows = [
        Taught(
            e.problem,
            e.stream == FEEDBACK,
            score_rows(tokenizer, e.prompt, [e.completion], where=f"problem {e.problem}")[0],
            e.weight,
        )
        for e in wanted
    ]
    used = [row for row in rows if len(row.row.ids) <= settings.max_length]
    dropped = len(rows) - len(used)
    if dropped:
        logger.warning("dropped %d of %d rows longer than %d tokens", dropped, len(rows), settings.max_length)
    if not used:
        what = f"all {dropped} rows are longer than {settings.max_length} tokens"
        raise DataError(what, str(out), "raise max_length")
    key = checkpoint.run_key(
        "two_task", model, settings, seed, [[r.problem, r.feedback, r.row, r.weight] for r in used]
    )
    if done := checkpoint.finished(out, key):
        return done
    out.mkdir(parents=True, exist_ok=True)

    order = updates(used, settings, seed)
    arguments = TrainingArguments(
        **checkpoint.arguments(settings, out, seed, len(order)), per_device_train_batch_size=1
    )
    checkpoint.check_launch(arguments)
    steps = Steps(used, order, settings, devices=arguments.world_size)
    if settings.lora:
        student = checkpoint.add_lora(student, settings.lora, settings.lora.dropout)
    with checkpoint.threads(settings.threads):
        cast(torch.nn.Module, student).to(arguments.device)
        method = choose(student, settings.attention, max(len(r.row.ids) for r in used))
        trainer = TwoTaskTrainer(student, arguments, steps, settings, method)
        trainer.add_callback(checkpoint.Curve(out / "loss.jsonl", progress))
        started = time.perf_counter()
        with attending(student, method):
            checkpoint.train(trainer, out, key)
        seconds = time.perf_counter() - started
    return checkpoint.finish(
        trainer,
        tokenizer,
        out,
        key,
        rows_used=len(used),
        rows_dropped=dropped,
        tokens_seen=int(trainer.state.num_input_tokens_seen),
        seconds=seconds,
        details={"attention": method.attention, **steps.facts()},
    )


def updates(rows: Sequence[Taught], settings: TwoTaskSettings, seed: int) -> list[list[int]]:
    """The rows of every update, as indices, by the recipe's pairing.

    An epoch is over when the longer stream is through (independent), each paired problem, or the mixed stream.
    Raises DataError where rows are to be paired and no problem has both.
    """
    streams = {kind: [i for i, row in enumerate(rows) if row.feedback == kind] for kind in (True, False)}
    if settings.pairing.startswith("paired") and all(streams.values()):
        return _paired(rows, settings, seed)
    sources = [list(range(len(rows)))] if settings.pairing == "flat-weighted" else [s for s in streams.values() if s]
    count = _count(max(len(s) for s in sources), settings)
    size = settings.rows_per_step
    orders = [
        [source[i] for i in checkpoint.training_order(len(source), size, count, seed_of(seed, k))]
        for k, source in enumerate(sources)
    ]
    return [[i for order in orders for i in order[u * size : (u + 1) * size]] for u in range(count)]


def _paired(rows: Sequence[Taught], settings: TwoTaskSettings, seed: int) -> list[list[int]]:
    by: defaultdict[str, tuple[list[int], list[int]]] = defaultdict(lambda: ([], []))
    for i, row in enumerate(rows):
        by[row.problem][0 if row.feedback else 1].append(i)
    problems = [problem for problem, both in by.items() if all(both)]
    if not problems:
        raise DataError("no problem has both a feedback and a rationale", "pairing", "use pairing: independent")
    count, size = _count(len(problems), settings), settings.rows_per_step
    order = checkpoint.training_order(len(problems), size, count, seed)

    def drawn(place: int) -> list[int]:
        problem = problems[order[place]]
        epoch = place // len(problems) if settings.pairing == "paired-resampled" else 0
        draw = random.Random(seed_of(seed, epoch, problem))
        return [draw.choice(side) for side in by[problem]]

    return [[i for place in range(u * size, (u + 1) * size) for i in drawn(place)] for u in range(count)]


def _count(rows: int, settings: TwoTaskSettings) -> int:
    return settings.max_steps or max(1, math.ceil(rows * settings.epochs / settings.rows_per_step))


class Steps(Dataset[dict[str, list[Part]]]):
    """All updates of a run in order. Item ``i`` is the share of device ``i % devices`` in update ``i // devices``."""

    def __init__(
        self, rows: Sequence[Taught], order: Sequence[Sequence[int]], settings: TwoTaskSettings, devices: int = 1
    ) -> None:
        self.rows, self.order, self.settings, self.devices = list(rows), order, settings, devices

    def __len__(self) -> int:
        return len(self.order) * self.devices

    def __getitem__(self, item: int) -> dict[str, list[Part]]:
        update, device = divmod(item, self.devices)
        whole = self.order[update]
        factors = self._factors(whole)
        mine = list(range(len(whole)))[device :: self.devices]
        # A device without a row must still take part in the exchange of gradients.
        counted = {k: factors[k] for k in mine} or {0: 0.0}
        groups: defaultdict[tuple[int, ...], list[int]] = defaultdict(list)
        for k in counted:
            row = self.rows[whole[k]].row
            groups[row.ids[: row.start]].append(k)
        together = list(groups.values())
        scored = [[self.rows[whole[k]].row for k in group] for group in together]
        parts = []
        for some in rows_of(scored, [len(pack(group)) for group in scored], self.settings.token_budget):
            ks = [k for g in some for k in together[g]]
            packed = pack([self.rows[whole[k]].row for k in ks])
            parts.append(Part(packed, [counted[k] for k in ks], [self.rows[whole[k]].feedback for k in ks]))
        return {"parts": parts}

    def _factors(self, whole: Sequence[int]) -> list[float]:
        """What -log p of each row of an update counts; the whole update's rows are known, whatever device has them."""
        alpha, mean = self.settings.alpha, self.settings.normalisation == "sequence_mean"
        share = {True: alpha, False: 1 - alpha}
        flat = self.settings.pairing == "flat-weighted"
        over = range(len(self.rows)) if flat else whole
        mass = dict.fromkeys(share, 0.0)
        for i in over:
            mass[self.rows[i].feedback] += self.rows[i].weight * (1 if mean else self.rows[i].tokens)
        scale = len(self.rows) / len(whole) if flat else 1.0  # of the mixed stream, an update is a sample
        return [
            scale * share[r.feedback] * r.weight / mass[r.feedback] / (r.tokens if mean else 1)
            for r in (self.rows[i] for i in whole)
        ]

    def facts(self) -> dict[str, int]:
        """Counts for the report; a row of a paired problem that was never drawn is unused."""
        used = {i for update in self.order for i in update}
        return {
            "feedback_rows": sum(r.feedback for r in self.rows),
            "answer_rows": sum(not r.feedback for r in self.rows),
            "rows_drawn": len(used),
            "problems": len({self.rows[i].problem for i in used}),
            "updates_with_one_task": sum(len({self.rows[i].feedback for i in update}) == 1 for update in self.order),
        }


class TwoTaskTrainer(UpdateTrainer):
    """transformers' Trainer whose update is a whole step of both streams, in packed rows."""

    def __init__(
        self, model: Any, arguments: TrainingArguments, steps: Steps, settings: TwoTaskSettings, method: Method
    ) -> None:
        super().__init__(model, arguments, steps)
        self.settings, self.method = settings, method
        self._sums: list[Tensor] = []

    def training_step(
        self, model: torch.nn.Module, inputs: dict[str, Any], num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        """Forward and backward of every packed row of one update."""
        model.train()
        parts: list[Part] = inputs["parts"]
        loss = self.learn(model, [{"part": part} for part in parts])
        self.state.num_input_tokens_seen += sum(len(p.packed) for p in parts) * self.accelerator.num_processes
        return loss

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """The share of one packed row in the update's loss."""
        part: Part = inputs["part"]
        with autocast(self.args.device, self.settings.bf16):
            values = logprobs(model, part.packed, self.method)
        terms = -values * values.new_tensor(part.factors)
        feedback = torch.tensor(part.feedback, device=terms.device)
        self._sums.append(torch.stack([terms[feedback].sum(), terms[~feedback].sum()]).detach())
        return (terms.sum(), {"logprobs": values}) if return_outputs else terms.sum()

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the two terms of the loss, weighted by alpha as they stand in it."""
        if self._sums and "loss" in logs:
            total = cast(Tensor, self.accelerator.reduce(torch.stack(self._sums).sum(0), "sum")).tolist()
            both = sum(total) or 1.0
            logs.update(zip(("feedback", "rationale"), (logs["loss"] * t / both for t in total), strict=True))
            self._sums.clear()
        super().log(logs, start_time)


__all__ = ["Steps", "Taught", "TwoTaskTrainer", "train_two_task", "updates"]
