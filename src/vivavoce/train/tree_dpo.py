"""T-DPO: direct preference optimisation on preference trees, each context and each answer computed once.

    L = sum_trees w(tree) L(tree) / sum_trees w(tree)                     over the trees of one update, on all devices
    L(tree) = mean over right x wrong of -log sigmoid(r(y_w) - r(y_l)),   r(y) = beta log( pi(y|x) / pi_ref(y|x) )

Paper: arXiv:2506.03541; x holds the debate so far, pi_ref is the model that training starts from. A pairwise trainer
runs the context 2CR times for C right and R wrong answers, and again for the reference; here the answers of an update
lie in token tries (see :mod:`vivavoce.train.packing`) and the reference is computed once per answer and kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from transformers import TrainingArguments, set_seed

from vivavoce.errors import DataError
from vivavoce.records import Tree
from vivavoce.train import checkpoint, losses
from vivavoce.train.adapters import add_lora
from vivavoce.train.choosing import choose
from vivavoce.train.packing import Packed
from vivavoce.train.reference import reference_logprobs
from vivavoce.train.rows import check_fit, check_rows
from vivavoce.train.scoring import Method, attending, autocast, logprobs
from vivavoce.train.settings import Progress, TrainResult, TreeDPOSettings
from vivavoce.train.tokens import fitted_settings
from vivavoce.train.trees import Branching, PackedTrees, Updates, branchings
from vivavoce.train.updates import UpdateTrainer


def train_tree_dpo(
    model: str | Path,
    trees: Sequence[Tree],
    settings: TreeDPOSettings,
    out: Path,
    *,
    seed: int,
    reference: str | Path | None = None,
    progress: Progress | None = None,
    source: Path | None = None,
) -> TrainResult:
    """Train ``model`` to prefer right answers to wrong ones and save it in ``out``.

    ``reference`` is another model to stay close to; None takes ``model`` itself, so that the loss starts at exactly
    ln 2 with all margins zero. Trees of weight 0 are not read. ``source``, resuming, finishing and errors are those of
    :func:`vivavoce.train.supervised.train_supervised`.
    """
    out = Path(out)
    check_rows(trees, source)
    counted = sum(tree.weight > 0 for tree in trees)
    if not counted:
        raise DataError("there are no trees to train on", str(out), "a problem needs right and wrong answers")
    set_seed(seed)
    student, tokenizer = checkpoint.open_model(model, settings)
    settings = fitted_settings(settings, student, tokenizer, out)
    used = branchings(tokenizer, trees, settings.max_length, source, settings.template)
    dropped = check_fit(len(used), counted, "trees", settings.max_length, out)
    start = fingerprint = checkpoint.fingerprint(model)
    if reference is not None:
        start = checkpoint.fingerprint(reference)
    key = checkpoint.run_key("tree_dpo", model, settings, seed, [start, [b.content for b in used]])
    if done := checkpoint.finished_result(out, key):
        return done
    out.mkdir(parents=True, exist_ok=True)

    updates = settings.updates(len(used), settings.trees_per_step)
    arguments = checkpoint.arguments(settings, out, seed, updates)
    steps = Updates(used, settings, updates, seed, devices=arguments.world_size)
    if settings.lora:
        student = add_lora(student, settings.lora, dropout=0.0)
    longest = max(len(row.ids) for b in used for row in b.rows)
    with checkpoint.threads(settings.threads):
        cast(torch.nn.Module, student).to(arguments.device)
        method = choose(student, settings.attention, longest, settings.compile)
        other = None
        if reference is not None and start != fingerprint:
            other = cast(torch.nn.Module, checkpoint.open_model(reference, settings)[0]).to(arguments.device)
        answers = reference_logprobs(
            other or student, steps, method, settings.bf16, out / "reference", start, device=arguments.process_index
        )
        del other
        trainer = TreeDPOTrainer(student, arguments, steps, answers, settings, method)
        with attending(student, method):
            seconds = checkpoint.train(trainer, out, key, progress)
    details = {"attention": method.attention, "answers": len(answers), **steps.facts()}
    return checkpoint.finish(
        trainer,
        tokenizer,
        out,
        key,
        rows_used=len(used),
        rows_dropped=dropped,
        seconds=seconds,
        details=details,
    )


def tree_loss(policy: Tensor, reference: Tensor, tree: Branching, settings: TreeDPOSettings) -> tuple[Tensor, float]:
    """One tree's loss, a scalar, and its weight in the mean. Log-probabilities (answers,), right answers first."""
    reward = losses.rewards(policy, reference, settings.beta)
    chosen, rejected = reward[: tree.right], reward[tree.right :]
    lengths = torch.tensor([len(row.completion) for row in tree.rows], device=policy.device)
    means = policy / lengths
    if settings.objective == "listwise":
        loss = losses.listwise(chosen, rejected)
    elif settings.objective == "orpo":
        loss = settings.beta * losses.orpo(means[: tree.right], means[tree.right :]).mean()
    elif settings.objective == "simpo":
        loss = losses.simpo(means[: tree.right], means[tree.right :], settings.beta, settings.gamma).mean()
    elif settings.objective == "kto":
        ratios = policy - reference
        loss = losses.kto(ratios[: tree.right], ratios[tree.right :], settings.beta).mean()
    else:
        loss = losses.dpo(chosen, rejected).mean()
    if settings.nll_weight:
        right = policy[: tree.right]
        loss = loss + settings.nll_weight * losses.nll(right, lengths[: tree.right], settings.nll_average).mean()
    return loss, tree_weight(tree, settings)


def tree_weight(tree: Branching, settings: TreeDPOSettings) -> float:
    """The weight of a tree in the mean: the number of its pairs or (KTO) its answers; or one."""
    if settings.pair_weight != "pair" or settings.objective == "listwise":
        return tree.weight
    return tree.weight * (len(tree.rows) if settings.objective == "kto" else tree.pairs)


class TreeDPOTrainer(UpdateTrainer):
    """transformers' Trainer whose micro-batch is one packed row and whose update is a whole step of trees."""

    def __init__(
        self,
        model: Any,
        arguments: TrainingArguments,
        steps: Updates,
        reference: dict[str, float],
        settings: TreeDPOSettings,
        method: Method,
    ) -> None:
        super().__init__(model, arguments, steps, settings, method)
        self.reference, self.settings = reference, settings

    def update(self, model: torch.nn.Module, inputs: dict[str, Any]) -> Tensor:
        """Forward and backward of every row of one update. The loss is normalised over the rows of all devices."""
        self.learning(model)
        rows: list[PackedTrees] = inputs["rows"]
        weight = float(sum(self.weight(tree) for row in rows for tree in row.trees))
        total, tokens = self.over_all(weight, sum(self.tokens_through(row.packed) for row in rows))
        loss = self.learn(model, [{"row": row} for row in rows], total)
        self.count(tokens)
        return loss

    def named_rows(self, part: Mapping[str, Any]) -> tuple[Packed, list[str]]:
        """A part's packed row, and the name in errors of the tree behind each of its answers."""
        row: PackedTrees = part["row"]
        return row.packed, [tree.name for tree in row.trees for _ in tree.rows]

    def weight(self, tree: Branching) -> float:
        """The weight of ``tree`` in the mean."""
        return tree_weight(tree, self.settings)

    def part_loss(self, model: torch.nn.Module, inputs: Mapping[str, Any]) -> Tensor:
        """The weighted sum of the tree losses of one packed row, not yet divided by the update's weight."""
        row: PackedTrees = inputs["row"]
        with autocast(self.args.device, self.settings.bf16):
            policy = logprobs(model, row.packed, self.method)
        if policy.device.type != "mps":
            policy = policy.double()  # so that sums of ln 2 over many trees are ln 2
        before = policy.new_tensor([self.reference[name] for name in row.names])
        total = policy.new_zeros(())
        for tree, where in row:
            loss, weight = tree_loss(policy[where], before[where], tree, self.settings)
            total = total + weight * loss
            self._count(policy[where].detach(), before[where], tree)
        return total

    def _count(self, policy: Tensor, reference: Tensor, tree: Branching) -> None:
        reward = losses.rewards(policy, reference, self.settings.beta)
        margin = losses.margins(reward[: tree.right], reward[tree.right :])
        chosen, rejected = slice(None, tree.right), slice(tree.right, None)
        figures = [
            margin.mean(),
            (margin > 0).float().mean(),
            reward[chosen].mean(),
            reward[rejected].mean(),
            policy[chosen].mean(),
            policy[rejected].mean(),
            margin.new_ones(()),
        ]
        self._figures.append(torch.stack(figures) * float(tree.weight > 0))

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add rewards, margins and log-probabilities, each a mean over the trees since the last point."""
        if self._figures and "loss" in logs:
            sums = self.accelerator.reduce(torch.stack(self._figures).sum(0), "sum")
            names = (
                "rewards/margins",
                "rewards/accuracies",
                "rewards/chosen",
                "rewards/rejected",
                "logps/chosen",
                "logps/rejected",
            )
            logs.update(zip(names, (sums[:-1] / sums[-1].clamp(min=1)).tolist(), strict=True))
            self._figures.clear()
        super().log(logs, start_time)


__all__ = ["TreeDPOTrainer", "train_tree_dpo", "tree_loss"]
