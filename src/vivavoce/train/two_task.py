"""Joint training of two tasks: to say what is wrong with a mistake, and to answer as a reviewed rationale does.

    L = alpha  sum_F w nll / sum_F w m  +  (1 - alpha)  sum_A w nll / sum_A w m

F and A are the feedback and rationale rows of one update, on all devices; nll is -log p of a row's m target tokens and
w its weight. Paper: arXiv:2410.03663.

Differs from the authors' code: denominators are those of the whole update, so that its split into passes changes
nothing. Padding is never trained on. Over-long rows are left out, not cut. Texts to one prompt (n teachers on one
mistake) share it in one packed row.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from vivavoce.errors import DataError
from vivavoce.records import Example, seed_of
from vivavoce.train import checkpoint
from vivavoce.train.rows import check_rows
from vivavoce.train.settings import Progress, TrainResult, TwoTaskSettings
from vivavoce.train.supervised import Taught, train_supervised
from vivavoce.train.tokens import ScoredRow

FEEDBACK = "feedback"


def train_two_task(
    model: str | Path,
    examples: Sequence[Example],
    settings: TwoTaskSettings,
    out: Path,
    *,
    seed: int,
    progress: Progress | None = None,
    source: Path | None = None,
) -> TrainResult:
    """Train ``model`` on both streams of ``examples`` (``stream`` feedback or answer) and save it in ``out``.

    A stream whose share is 0 is not even read. Weights, ``source``, resuming, finishing and errors are those of
    :func:`vivavoce.train.supervised.train_supervised`.
    """
    check_rows(examples, source)
    share = {True: settings.alpha, False: 1 - settings.alpha}
    wanted = [e if share[e.stream == FEEDBACK] else replace(e, weight=0.0) for e in examples]
    if not any(e.weight for e in wanted):
        raise DataError("there are no rows of a task that counts", str(out), "look at alpha and at the rows' streams")
    return train_supervised(
        "two_task",
        model,
        wanted,
        settings,
        out,
        lambda rows: TwoTasks(rows, settings, updates(rows, settings, seed)),
        seed=seed,
        progress=progress,
        source=source,
        shape=pad_row(settings.max_length) if settings.padding == "learnt" else None,
    )


def pad_row(length: int) -> Callable[[ScoredRow], ScoredRow]:
    """Fills a row up to ``length`` tokens with its last one, the end of turn, as targets.

    The released code pads with that token, gives the padding the label of that token, and masks none of it.
    """

    def fill(row: ScoredRow) -> ScoredRow:
        return row._replace(ids=row.ids + row.ids[-1:] * (length - len(row.ids)))

    return fill


@dataclass(frozen=True)
class TwoTasks:
    """Rows of both streams in every update, each stream's share of the loss by alpha."""

    rows: Sequence[Taught]
    settings: TwoTaskSettings
    updates: Sequence[Sequence[int]]

    def factors(self, update: Sequence[int]) -> list[float]:
        """The factor of -log p of each row of an update."""
        alpha, mean = self.settings.alpha, self.settings.normalisation == "sequence_mean"
        share = {True: alpha, False: 1 - alpha}
        flat = self.settings.pairing == "flat-weighted"
        if self.settings.normalisation == "micro_batch":
            return self._by_micro_batch(update, share)
        mass = dict.fromkeys(share, 0.0)
        for i in range(len(self.rows)) if flat else update:
            row = self.rows[i]
            mass[row.stream == FEEDBACK] += row.weight * (1 if mean else row.tokens)
        scale = len(self.rows) / len(update) if flat else 1.0  # of the mixed stream, an update is a sample
        return [
            scale * share[r.stream == FEEDBACK] * r.weight / mass[r.stream == FEEDBACK] / (r.tokens if mean else 1)
            for r in (self.rows[i] for i in update)
        ]

    def _by_micro_batch(self, update: Sequence[int], share: dict[bool, float]) -> list[float]:
        """The weight of each row if the stream's micro-batches, made in order, count the same whatever their tokens."""
        rows, size = [self.rows[i] for i in update], self.settings.micro_batch
        weights = [0.0] * len(update)
        for kind in share:
            places = [k for k, row in enumerate(rows) if (row.stream == FEEDBACK) == kind]
            batches = [places[i : i + size] for i in range(0, len(places), size)]
            for batch in batches:
                mass = sum(rows[k].weight * rows[k].tokens for k in batch)
                for k in batch:
                    weights[k] = share[kind] * rows[k].weight / mass / len(batches)
        return weights

    def facts(self) -> dict[str, int]:
        """Counts for the report; a row of a paired problem that was never drawn is unused."""
        used = {i for update in self.updates for i in update}
        feedback = [r.stream == FEEDBACK for r in self.rows]
        return {
            "feedback_rows": sum(feedback),
            "answer_rows": len(feedback) - sum(feedback),
            "rows_drawn": len(used),
            "problems": len({self.rows[i].problem for i in used}),
            "updates_with_one_task": sum(len({feedback[i] for i in update}) == 1 for update in self.updates),
        }


def updates(rows: Sequence[Taught], settings: TwoTaskSettings, seed: int) -> list[list[int]]:
    """The rows of every update, as indices, by the recipe's pairing.

    An epoch is over when the longer stream is through (independent), each paired problem, or the mixed stream. Raises
    DataError if rows are to be paired and no problem has both.
    """
    streams = {kind: [i for i, row in enumerate(rows) if (row.stream == FEEDBACK) == kind] for kind in (True, False)}
    if settings.pairing.startswith("paired") and all(streams.values()):
        return _pair(rows, settings, seed)
    sources = [list(range(len(rows)))] if settings.pairing == "flat-weighted" else [s for s in streams.values() if s]
    count = settings.updates(max(len(s) for s in sources), settings.rows_per_step)
    size = settings.rows_per_step
    orders = [
        [source[i] for i in checkpoint.training_order(len(source), size, count, seed_of(seed, k))]
        for k, source in enumerate(sources)
    ]
    return [[i for order in orders for i in order[u * size : (u + 1) * size]] for u in range(count)]


def _pair(rows: Sequence[Taught], settings: TwoTaskSettings, seed: int) -> list[list[int]]:
    by: defaultdict[str, tuple[list[int], list[int]]] = defaultdict(lambda: ([], []))
    for i, row in enumerate(rows):
        by[row.problem][0 if row.stream == FEEDBACK else 1].append(i)
    problems = [problem for problem, both in by.items() if all(both)]
    if not problems:
        raise DataError("no problem has both a feedback and a rationale", "pairing", "use pairing: independent")
    size = settings.rows_per_step
    count = settings.updates(len(problems), size)
    order = checkpoint.training_order(len(problems), size, count, seed)

    def drawn(place: int) -> list[int]:
        problem = problems[order[place]]
        epoch = place // len(problems) if settings.pairing == "paired-resampled" else 0
        draw = random.Random(seed_of(seed, epoch, problem))
        return [draw.choice(side) for side in by[problem]]

    return [[i for place in range(u * size, (u + 1) * size) for i in drawn(place)] for u in range(count)]


__all__ = ["TwoTasks", "train_two_task", "updates"]
