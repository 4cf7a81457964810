"""Supervised fine-tuning on right answers.

    L = sum w nll / sum w m    over the rows of one update; w is a row's weight, nll its -log p, m its completion tokens

Paper: arXiv:2506.03541, the SFT stage. Value and gradient are those of TRL's SFTTrainer with ``completion_only_loss``
on conversational prompt-completion rows, with these differences: an over-long row is dropped and not cut, rows may
weigh more or less, and several answers to one question share its prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vivavoce.records import Example
from vivavoce.train.checkpoint import training_order
from vivavoce.train.settings import Progress, SFTSettings, TrainResult
from vivavoce.train.supervised import Taught, train_supervised


def train_sft(
    model: str | Path,
    examples: Sequence[Example],
    settings: SFTSettings,
    out: Path,
    *,
    seed: int,
    progress: Progress | None = None,
    source: Path | None = None,
) -> TrainResult:
    """Fine-tune ``model`` on ``examples`` and save it in ``out``.

    Weights, ``source``, resuming, finishing and errors are those of
    :func:`vivavoce.train.supervised.train_supervised`.
    """
    return train_supervised(
        "sft",
        model,
        examples,
        settings,
        out,
        lambda rows: Plain.of(rows, settings, seed),
        seed=seed,
        progress=progress,
        source=source,
    )


@dataclass(frozen=True)
class Plain:
    """Every row in its turn, in another order each epoch."""

    rows: Sequence[Taught]
    updates: Sequence[Sequence[int]]

    @classmethod
    def of(cls, rows: Sequence[Taught], settings: SFTSettings, seed: int) -> Plain:
        size = settings.rows_per_step
        steps = settings.updates(len(rows), size)
        order = training_order(len(rows), size, steps, seed)
        return cls(rows, [order[u * size : (u + 1) * size] for u in range(steps)])

    def factors(self, update: Sequence[int]) -> list[float]:
        """Weight over the weighted tokens of the update."""
        mass = sum(self.rows[i].weight * self.rows[i].tokens for i in update)
        return [self.rows[i].weight / mass for i in update]

    def facts(self) -> dict[str, int]:
        """Rows that came up."""
        return {"rows_drawn": len({i for update in self.updates for i in update})}


__all__ = ["Plain", "train_sft"]
