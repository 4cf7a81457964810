"""Training on given answers, in packed rows, so that texts to one prompt share it.

    L = sum over the rows of one update, on all devices, of  factor(row) * -log p(completion | prompt)

A schedule says which rows make an update and what each counts in it; the two trainings on given answers, plain SFT
(:mod:`vivavoce.train.sft`) and two tasks at once (:mod:`vivavoce.train.two_task`), are two schedules. How an update is
cut into packed rows and devices changes nothing. Rows are unrelated or share their prompt; nothing is ever padded.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, cast

import torch
from torch import Tensor
from torch.utils.data import Dataset
from transformers import TrainingArguments, set_seed

from vivavoce.errors import DataError
from vivavoce.records import Example
from vivavoce.train import checkpoint
from vivavoce.train.adapters import add_lora
from vivavoce.train.choosing import choose
from vivavoce.train.packing import Packed, pack, rows_of
from vivavoce.train.rows import check_fit, check_rows, row_name
from vivavoce.train.scoring import Method, attending, autocast, logprobs
from vivavoce.train.settings import Progress, SupervisedSettings, TrainResult
from vivavoce.train.tokens import ScoredRow, fitted_settings, score_rows
from vivavoce.train.updates import UpdateTrainer


class Taught(NamedTuple):
    """One row in tokens."""

    problem: str
    stream: str
    row: ScoredRow
    weight: float
    name: str = ""
    """The row's name in errors."""

    @property
    def tokens(self) -> int:
        return len(self.row.completion)


class Schedule(Protocol):
    """A schedule of rows: which rows make each update."""

    @property
    def updates(self) -> Sequence[Sequence[int]]:
        """The rows of every update, as indices."""
        ...

    def factors(self, update: Sequence[int]) -> list[float]:
        """The factor of -log p of each row of an update; the whole update is known, whatever device has its rows."""
        ...

    def facts(self) -> dict[str, int]:
        """Counts for the report."""
        ...


class PackedTexts(NamedTuple):
    """A packed row, and the weight of each of its texts in the loss: ``factors`` times -log p, by stream."""

    packed: Packed
    factors: list[float]
    streams: list[str]
    names: list[str]
    """The name in errors of each text's row."""


def train_supervised(
    kind: str,
    model: str | Path,
    examples: Sequence[Example],
    settings: SupervisedSettings,
    out: Path,
    schedule: Callable[[Sequence[Taught]], Schedule],
    *,
    seed: int,
    progress: Progress | None = None,
    source: Path | None = None,
    shape: Callable[[ScoredRow], ScoredRow] | None = None,
) -> TrainResult:
    """Train ``model`` on ``examples`` as ``schedule`` plans it and save it in ``out``, which then loads like any model.

    ``shape`` changes a row after its length was checked. Rows of weight 0 are not read. ``source`` is the file that the
    rows came from, which errors then name. A killed run with ``save_steps`` goes on from its last checkpoint when
    called again with the same arguments, to the same weights bit by bit on a CPU; a finished one returns its result
    without training. Raises DataError if the model, the weight of a row or every row is unusable, RunConflict if
    ``out`` belongs to another run, Diverged if a loss or a gradient is not a finite number; nothing is saved as
    finished then.
    """
    out = Path(out)
    check_rows(examples, source)
    if not any(example.weight for example in examples):
        raise DataError("there are no examples to train on", str(out), "check the stage that makes the rows")
    set_seed(seed)
    student, tokenizer = checkpoint.open_model(model, settings)
    settings = fitted_settings(settings, student, tokenizer, out)
    used, dropped = _rows(tokenizer, examples, settings, out, source)
    if shape is not None:
        used = [taught._replace(row=shape(taught.row)) for taught in used]
    key = checkpoint.run_key(kind, model, settings, seed, [[r.problem, r.stream, r.row, r.weight] for r in used])
    if done := checkpoint.finished_result(out, key):
        return done
    out.mkdir(parents=True, exist_ok=True)

    planned = schedule(used)
    arguments = checkpoint.arguments(settings, out, seed, len(planned.updates))
    steps = Updates(used, planned, settings.token_budget, devices=arguments.world_size)
    if settings.lora:
        student = add_lora(student, settings.lora, settings.lora.dropout)
    with checkpoint.threads(settings.threads):
        cast(torch.nn.Module, student).to(arguments.device)
        method = choose(student, settings.attention, max(len(r.row.ids) for r in used), settings.compile)
        streams = list(dict.fromkeys(r.stream for r in used))
        trainer = SupervisedTrainer(student, arguments, steps, settings, method, streams)
        with attending(student, method):
            seconds = checkpoint.train(trainer, out, key, progress)
    return checkpoint.finish(
        trainer,
        tokenizer,
        out,
        key,
        rows_used=len(used),
        rows_dropped=dropped,
        seconds=seconds,
        details={"attention": method.attention, **planned.facts()},
    )


def _rows(
    tokenizer: Any, examples: Sequence[Example], settings: SupervisedSettings, out: Path, source: Path | None
) -> tuple[list[Taught], int]:
    """The examples that fit and count, in tokens, and how many do not fit."""
    rows = []
    for number, e in enumerate(examples):
        if e.weight:
            name = row_name(e, number, source)
            (row,) = score_rows(tokenizer, e.prompt, [e.completion], where=name, template=settings.template)
            rows.append(Taught(e.problem, e.stream, row, e.weight, name))
    used = [row for row in rows if len(row.row.ids) <= settings.max_length]
    return used, check_fit(len(used), len(rows), "rows", settings.max_length, out)


class Updates(Dataset[dict[str, list[PackedTexts]]]):
    """All updates of a run in order. Item ``i`` is the share of device ``i % devices`` in update ``i // devices``."""

    def __init__(self, rows: Sequence[Taught], schedule: Schedule, budget: int, devices: int = 1) -> None:
        self.rows, self.schedule, self.budget, self.devices = list(rows), schedule, budget, devices

    def __len__(self) -> int:
        return len(self.schedule.updates) * self.devices

    def __getitem__(self, item: int) -> dict[str, list[PackedTexts]]:
        update, device = divmod(item, self.devices)
        whole = self.schedule.updates[update]
        factors = self.schedule.factors(whole)
        # A device without a row must still take part in the exchange of gradients.
        counted = {k: factors[k] for k in range(device, len(whole), self.devices)} or {0: 0.0}
        groups: defaultdict[tuple[int, ...], list[int]] = defaultdict(list)
        for k in counted:
            row = self.rows[whole[k]].row
            groups[row.ids[: row.start]].append(k)
        together = list(groups.values())
        scored = [[self.rows[whole[k]].row for k in group] for group in together]
        parts = []
        for chosen in rows_of(scored, [len(pack(group)) for group in scored], self.budget):
            ks = [k for g in chosen for k in together[g]]
            packed = pack([self.rows[whole[k]].row for k in ks])
            rows = [self.rows[whole[k]] for k in ks]
            parts.append(
                PackedTexts(packed, [counted[k] for k in ks], [r.stream for r in rows], [r.name for r in rows])
            )
        return {"parts": parts}


class SupervisedTrainer(UpdateTrainer):
    """transformers' Trainer whose update is a whole step of rows, packed."""

    def __init__(
        self,
        model: Any,
        arguments: TrainingArguments,
        steps: Updates,
        settings: SupervisedSettings,
        method: Method,
        streams: Sequence[str],
    ) -> None:
        super().__init__(model, arguments, steps, settings, method)
        self.settings, self.streams = settings, list(streams)

    def update(self, model: torch.nn.Module, inputs: dict[str, Any]) -> Tensor:
        """Forward and backward of every packed row of one update."""
        self.learning(model)
        parts: list[PackedTexts] = inputs["parts"]
        loss = self.learn(model, [{"part": part} for part in parts])
        self.count(*self.over_all(sum(self.tokens_through(p.packed) for p in parts)))
        return loss

    def named_rows(self, part: Mapping[str, Any]) -> tuple[Packed, list[str]]:
        """A part's packed row, and the name in errors of the training row behind each of its answers."""
        return part["part"].packed, part["part"].names

    def part_loss(self, model: torch.nn.Module, inputs: Mapping[str, Any]) -> Tensor:
        """The share of one packed row in the update's loss."""
        part: PackedTexts = inputs["part"]
        with autocast(self.args.device, self.settings.bf16):
            values = logprobs(model, part.packed, self.method)
        terms = -values * values.new_tensor(part.factors)
        if len(self.streams) > 1:
            stream_of = torch.tensor([self.streams.index(s) for s in part.streams], device=terms.device)
            self._figures.append(torch.stack([terms[stream_of == k].sum() for k in range(len(self.streams))]).detach())
        return terms.sum()

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add each stream's share of the loss, if there are several."""
        self.add_shares(logs, self.streams)
        super().log(logs, start_time)


__all__ = ["PackedTexts", "Schedule", "SupervisedTrainer", "Taught", "Updates", "train_supervised"]
