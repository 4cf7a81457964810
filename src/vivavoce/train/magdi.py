"""MAGDi: learning from discussions as graphs, by three objectives at once.

    L = alpha  sum nll(right answers) / their tokens                                 to write what was right
      + gamma  mean over right x wrong of max(0, margin - s(right) + s(wrong))       to score it above what was wrong
      + beta   mean over stands of cross-entropy(G(stand), right | wrong | missing)  to tell stands apart in the graph

Each mean is over one update, on all devices. G is a graph encoder and s a scorer
(:mod:`vivavoce.train.interaction_losses`). Both read the student's position-weighted mean hidden state over question
and answer, are trained with it and are left behind.

Paper: arXiv:2402.01620. Differs from the authors' code: embeddings are the student's own at that moment, so that all
three objectives teach it (``detached`` is what their code does). Each graph is learned beside its own answers. A
missing stand is read as the question alone, not as a stale answer. Only answers are learned, not questions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from transformers import TrainingArguments, set_seed

from vivavoce.errors import DataError, RecipeError
from vivavoce.records import Interaction
from vivavoce.train import checkpoint
from vivavoce.train import interaction_losses as losses
from vivavoce.train.adapters import add_lora
from vivavoce.train.choosing import choose
from vivavoce.train.packing import Packed, pack, rows_of
from vivavoce.train.rows import check_fit, check_rows, row_name
from vivavoce.train.scoring import Method, attending, autocast, bare, on_texts, token_logprobs
from vivavoce.train.settings import MAGDiSettings, Progress, TrainResult
from vivavoce.train.shards import is_sharded
from vivavoce.train.tokens import ScoredRow, fitted_settings, score_rows
from vivavoce.train.updates import UpdateTrainer

_READER = "interaction_reader"
"""The attribute of the student under which graph encoder and scorer are trained with it."""


@dataclass(frozen=True)
class TokenTalk:
    """One discussion in tokens: a row for each stand that is not missing."""

    problem: str
    rows: tuple[ScoredRow, ...]
    labels: tuple[str, ...]
    """The labels of all stands, missing ones included."""
    edges: tuple[tuple[int, int], ...]
    weight: float
    name: str = ""
    """The discussion's name in errors."""

    @property
    def present(self) -> list[str]:
        """The labels of those stands that have a row."""
        return [label for label in self.labels if label != "missing"]

    @property
    def counts(self) -> Tensor:
        """Tokens of right answers, stands, and pairs of right and wrong, each times the weight."""
        right = [row for row, label in zip(self.rows, self.present, strict=True) if label == "right"]
        pairs = len(right) * (len(self.rows) - len(right))
        terms = [sum(len(row.completion) for row in right), len(self.labels), pairs]
        return self.weight * torch.tensor(terms, dtype=torch.float64)


class PackedTalks(NamedTuple):
    """Some discussions in one packed row."""

    packed: Packed
    talks: tuple[TokenTalk, ...]


def train_magdi(
    model: str | Path,
    discussions: Sequence[Interaction],
    settings: MAGDiSettings,
    out: Path,
    *,
    seed: int,
    progress: Progress | None = None,
    source: Path | None = None,
) -> TrainResult:
    """Train ``model`` on ``discussions`` and save it in ``out``.

    Weights, ``source``, resuming, finishing and errors are those of
    :func:`vivavoce.train.supervised.train_supervised`. Raises RecipeError for a model that does not give its hidden
    states.
    """
    out = Path(out)
    check_rows(discussions, source)
    set_seed(seed)
    student, tokenizer = checkpoint.open_model(model, settings)
    settings = fitted_settings(settings, student, tokenizer, out)
    used, dropped = _talks(tokenizer, discussions, settings, out, source)
    content = [[t.problem, t.rows, t.labels, t.edges, t.weight] for t in used]
    key = checkpoint.run_key("magdi", model, settings, seed, content)
    if done := checkpoint.finished_result(out, key):
        return done
    out.mkdir(parents=True, exist_ok=True)

    updates = settings.updates(len(used), settings.graphs_per_step)
    arguments = checkpoint.arguments(settings, out, seed, updates)
    if is_sharded():
        raise RecipeError(
            "the graph encoder, which reads the student, cannot be sharded", "accelerate launch", "launch without FSDP"
        )
    steps = Updates(used, settings, updates, seed, devices=arguments.world_size)
    if settings.lora:
        student = add_lora(student, settings.lora, settings.lora.dropout)
    with checkpoint.threads(settings.threads):
        longest = max(len(row.ids) for talk in used for row in talk.rows)
        cast(torch.nn.Module, student).to(arguments.device)
        method = choose(student, settings.attention, longest, settings.compile)
        size = bare(student).config.get_text_config().hidden_size
        reader = losses.EmbeddingReaders(size, settings.hidden, settings.dropout).to(arguments.device)
        student.add_module(_READER, reader)
        trainer = MAGDiTrainer(student, arguments, steps, settings, method)
        with attending(student, method):
            seconds = checkpoint.train(trainer, out, key, progress)
        delattr(trainer.accelerator.unwrap_model(trainer.model), _READER)
    return checkpoint.finish(
        trainer,
        tokenizer,
        out,
        key,
        rows_used=len(used),
        rows_dropped=dropped,
        seconds=seconds,
        details={"attention": method.attention, **steps.facts()},
    )


def _talks(
    tokenizer: Any, discussions: Sequence[Interaction], settings: MAGDiSettings, out: Path, source: Path | None
) -> tuple[list[TokenTalk], int]:
    """The discussions that fit and count, in tokens, and how many do not fit."""
    talks = list[TokenTalk]()
    for number, one in enumerate(discussions):
        texts = [stand.text for stand in one.stands if stand.label != "missing"]
        if not one.weight or not texts:
            continue
        where = row_name(one, number, source)
        if wrong := next((e for e in one.edges if not all(0 <= i < len(one.stands) for i in e)), None):
            raise DataError(f"edge {list(wrong)} leads to no stand", where, f"there are {len(one.stands)}, from 0 on")
        rows = score_rows(tokenizer, one.prompt, texts, where=where, template=settings.template)
        labels = tuple(stand.label for stand in one.stands)
        talks.append(TokenTalk(one.problem, tuple(rows), labels, one.edges, one.weight, where))
    if not talks:
        raise DataError("there are no discussions to train on", str(out), "check the stage that makes the rows")
    used = [talk for talk in talks if max(len(row.ids) for row in talk.rows) <= settings.max_length]
    return used, check_fit(len(used), len(talks), "discussions", settings.max_length, out)


class Updates(Dataset[dict[str, Any]]):
    """All updates of a run in order. Item ``i`` is the share of device ``i % devices`` in update ``i // devices``."""

    def __init__(
        self, talks: Sequence[TokenTalk], settings: MAGDiSettings, updates: int, seed: int, devices: int = 1
    ) -> None:
        self.talks, self.budget, self.devices = list(talks), settings.token_budget, devices
        self.size = settings.graphs_per_step
        self.order = checkpoint.training_order(len(talks), self.size, updates, seed)

    def __len__(self) -> int:
        return len(self.order) // self.size * self.devices

    def __getitem__(self, item: int) -> dict[str, Any]:
        update, device = divmod(item, self.devices)
        whole = self.order[update * self.size : (update + 1) * self.size]
        counts = torch.stack([self.talks[i].counts for i in whole]).sum(0)
        talks = [self.talks[i] for i in whole[device :: self.devices]]
        # A device without a discussion must still take part in the exchange of gradients.
        talks = talks or [replace(self.talks[whole[0]], weight=0.0)]
        sizes = [len(pack(talk.rows)) for talk in talks]
        parts = []
        for chosen in rows_of([talk.rows for talk in talks], sizes, self.budget):
            together = tuple(talks[i] for i in chosen)
            parts.append(PackedTalks(pack([row for talk in together for row in talk.rows]), together))
        return {"parts": parts, "counts": counts}

    def facts(self) -> dict[str, int]:
        """Counts for the report: stands by class, pairs of right and wrong."""
        labels = [label for talk in self.talks for label in talk.labels]
        pairs = sum(int(t.present.count("right") * t.present.count("wrong")) for t in self.talks)
        return {**{label: labels.count(label) for label in losses.LABELS}, "pairs": pairs}


class MAGDiTrainer(UpdateTrainer):
    """transformers' Trainer whose update is a whole step of discussions, packed."""

    def __init__(
        self, model: Any, arguments: TrainingArguments, steps: Updates, settings: MAGDiSettings, method: Method
    ) -> None:
        super().__init__(model, arguments, steps, settings, method)
        self.settings = settings

    def update(self, model: torch.nn.Module, inputs: dict[str, Any]) -> Tensor:
        """Forward and backward of every part of one update."""
        self.learning(model)
        getattr(self.accelerator.unwrap_model(model), _READER).train()
        parts: list[PackedTalks] = inputs["parts"]
        loss = self.learn(model, [{"part": part, "counts": inputs["counts"]} for part in parts])
        self.count(*self.over_all(sum(self.tokens_through(p.packed) for p in parts)))
        return loss

    def named_rows(self, part: Mapping[str, Any]) -> tuple[Packed, list[str]]:
        """A part's packed row, and the name in errors of the discussion behind each of its answers."""
        own_part: PackedTalks = part["part"]
        return own_part.packed, [talk.name for talk in own_part.talks for _ in talk.rows]

    def part_loss(self, model: torch.nn.Module, inputs: Mapping[str, Any]) -> Tensor:
        """The share of one part in the update's loss."""
        part: PackedTalks = inputs["part"]
        reader: losses.EmbeddingReaders = getattr(self.accelerator.unwrap_model(model), _READER)
        counts = inputs["counts"].clamp(min=1e-12).tolist()
        ids = [torch.tensor(row.ids, device=self.args.device) for talk in part.talks for row in talk.rows]

        def of(states: Tensor, head: torch.nn.Module, where: list[np.ndarray]) -> Tensor:
            terms, at = states.new_zeros(3, dtype=torch.float32), 0
            for talk in part.talks:
                span = slice(at, at := at + len(talk.rows))
                terms = terms + talk.weight * self._terms(talk, states, head, where[span], ids[span], reader)
            return terms

        with autocast(self.args.device, self.settings.bf16):
            terms = on_texts(model, part.packed, self.method, of)
        o = self.settings
        shares = (o.answer_weight / counts[0], o.node_weight / counts[1], o.margin_weight / counts[2])
        terms = terms * terms.new_tensor(shares)
        self._figures.append(terms.detach())
        return terms.sum()

    def _terms(
        self,
        talk: TokenTalk,
        states: Tensor,
        head: torch.nn.Module,
        where: Sequence[np.ndarray],
        ids: Sequence[Tensor],
        reader: losses.EmbeddingReaders,
    ) -> Tensor:
        """The three sums of one discussion, shape (3,): over tokens of right answers, over stands, over pairs."""
        paths = [torch.from_numpy(path).to(states.device) for path in where]
        right = [label == "right" for label in talk.present]
        nll = states.new_zeros((), dtype=torch.float32)
        for row, path, text, is_right in zip(talk.rows, paths, ids, right, strict=True):
            if is_right:
                nll = nll - token_logprobs(head, states[path[row.start - 1 : -1]], text[row.start :]).sum()
        texts = [losses.position_weighted(states[path].float()) for path in paths]
        question = losses.position_weighted(states[paths[0][: talk.rows[0].start]].float())
        answers = iter(texts)
        stands = torch.stack([question if label == "missing" else next(answers) for label in talk.labels])
        adjacent = losses.adjacency(talk.edges, len(talk.labels)).to(stands.device)
        classes = reader.graph(stands.detach() if self.settings.detached else stands, adjacent)
        scores = reader.scorer(torch.stack(texts))
        sides = torch.tensor(right, device=scores.device)
        margins = losses.margin_losses(scores[sides], scores[~sides], self.settings.margin)
        return torch.stack([nll, losses.node_losses(classes, talk.labels).sum(), margins.sum()])

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        super()._save(output_dir, state_dict)
        reader = getattr(self.accelerator.unwrap_model(self.model), _READER)
        torch.save(reader.state_dict(), Path(output_dir or str(self.args.output_dir)) / f"{_READER}.pt")

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)  # of a LoRA student, the adapter alone
        reader = getattr(self.accelerator.unwrap_model(self.model), _READER)
        reader.load_state_dict(torch.load(Path(resume_from_checkpoint) / f"{_READER}.pt", weights_only=True))

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add each objective's share of the loss."""
        self.add_shares(logs, ("answers", "nodes", "margins"))
        super().log(logs, start_time)


__all__ = ["MAGDiTrainer", "TokenTalk", "Updates", "train_magdi"]
