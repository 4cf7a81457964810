"""A trainer whose batch is one whole update, learned from part by part.

The public Trainer works with batches of equal rows. Here a part is a packed row, parts differ in size, and the loss of
an update is one sum over all of its parts on all devices, so that the division into parts changes nothing. An update
whose loss or gradient is not a finite number stops the training before it changes a weight.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import torch
from accelerate.utils import gather_object
from torch import Tensor
from torch.utils.data import Dataset
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from vivavoce.errors import Diverged, RecipeError
from vivavoce.train.adapters import activate
from vivavoce.train.muon import Muon
from vivavoce.train.packing import Packed, pack
from vivavoce.train.scoring import Method, autocast, learning, logprobs
from vivavoce.train.settings import TrainSettings
from vivavoce.train.shards import is_sharded
from vivavoce.train.tokens import ScoredRow

_NAMED = 3
"""An error names so many rows at most."""


class UpdateTrainer(Trainer):
    """transformers' Trainer over a data set whose every item is one device's share of one update.

    A subclass gives :meth:`update`, which says what the parts of an update are, and :meth:`part_loss`. Training
    raises Diverged at the first update whose loss or gradient is not a finite number.

    Raises RecipeError if weights are to be sharded and ``method`` takes answers row by row.
    """

    def __init__(
        self, model: Any, arguments: TrainingArguments, steps: Dataset[Any], settings: TrainSettings, method: Method
    ) -> None:
        super().__init__(model=model, args=arguments, train_dataset=steps, data_collator=_only)
        self._how, self.method = settings, method
        if is_sharded() and settings.bf16 and not settings.lora:
            from torch.distributed.fsdp import MixedPrecisionPolicy

            halves = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
            cast(Any, self.accelerator.state.fsdp_plugin).mixed_precision_policy = halves
        self._figures: list[Tensor] = []
        """Figures of the parts since the last point of the log, for a subclass that tells more than the loss."""
        self._parts: Sequence[Mapping[str, Any]] = ()
        self._loss = torch.zeros(())
        self._norm: Any = None
        self._clip: Callable[..., Any] = self.accelerator.clip_grad_norm_
        self.accelerator.clip_grad_norm_ = self._clip_gradients
        self.add_callback(_Stop(self))
        if is_sharded() and method.attention == "rows":
            what = "this model cannot share prefixes, and its weights cannot be sharded then"
            raise RecipeError(what, "attention", "launch without FSDP")

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """AdamW, or Muon if the settings say so."""
        activate(self.accelerator.unwrap_model(self.model))  # after a checkpoint was loaded, and before its use
        if self.optimizer is None and self._how.muon:
            student = cast(torch.nn.Module, self.model if model is None else model)
            self.optimizer = Muon(student, self._how, self.get_decay_parameter_names(student))
            return self.optimizer
        return super().create_optimizer(model)

    def update(self, model: torch.nn.Module, inputs: dict[str, Any]) -> Tensor:
        """Forward and backward of every part of one update, by :meth:`learn`; its loss on this device.

        ``inputs`` is an item of the data set.
        """
        raise NotImplementedError

    def part_loss(self, model: torch.nn.Module, inputs: Mapping[str, Any]) -> Tensor:
        """The loss of one part, a scalar, not yet divided by what :meth:`learn` divides the update's by."""
        raise NotImplementedError

    def training_step(
        self, model: torch.nn.Module, inputs: dict[str, Any], num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        """One update, as transformers calls it."""
        return self.update(model, inputs)

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """The loss of one part, as transformers calls it."""
        loss = self.part_loss(model, inputs)
        return (loss, {}) if return_outputs else loss

    def learn(self, model: torch.nn.Module, parts: Sequence[Mapping[str, Any]], over: float = 1.0) -> Tensor:
        """Forward and backward of every part of one update; its loss on this device, the sum divided by ``over``.

        ``parts`` are the inputs of :meth:`part_loss`. There is at least one, on every device.
        """
        loss = torch.zeros((), device=self.args.device)
        for _ in range(self._silent(len(parts))):
            with self.accelerator.no_sync(model):
                self.accelerator.backward(0 * logprobs(model, _SHORTEST, self.method).sum())
        for part in parts[:-1]:
            with self.accelerator.no_sync(model):  # devices exchange gradients once per update
                loss = loss + self._backward(model, part, over)
        self._parts, self._norm = parts, None
        self._loss = loss + self._backward(model, parts[-1], over)
        return self._loss

    def learning(self, model: torch.nn.Module) -> None:
        """Put ``model`` into training mode, with noise of its own switched off."""
        learning(model, self.method)

    def over_all(self, *numbers: float) -> list[float]:
        """Each of ``numbers`` summed over all devices."""
        if self.accelerator.num_processes == 1:
            return list(numbers)
        sums = torch.tensor(numbers, dtype=torch.float64, device=self.args.device)
        return cast(Tensor, self.accelerator.reduce(sums, "sum")).tolist()

    def tokens_through(self, packed: Packed) -> int:
        """Tokens of a packed row that go through the model: each answer's whole row if it has a row of its own."""
        return packed.unpacked if self.method.attention == "rows" else len(packed)

    def count(self, tokens: float) -> None:
        """Count tokens that went through the model, on all devices together."""
        self.state.num_input_tokens_seen += int(tokens)

    def add_shares(self, logs: dict[str, float], names: Sequence[str]) -> None:
        """Add to ``logs`` the share in the loss of each of the terms that ``_figures`` holds, over all devices."""
        if self._figures and "loss" in logs:
            total = cast(Tensor, self.accelerator.reduce(torch.stack(self._figures).sum(0), "sum")).tolist()
            whole = sum(total) or 1.0
            logs.update((name, logs["loss"] * t / whole) for name, t in zip(names, total, strict=True))
            self._figures.clear()

    def named_rows(self, part: Mapping[str, Any]) -> tuple[Packed, list[str]] | None:
        """A part's packed row, and the name in errors of the training row behind each of its answers; None: not
        known.
        """
        return None

    def check(self) -> None:
        """Raise Diverged if the loss or a gradient of the update that was just learnt is not a finite number.

        Every device raises it together, so that none waits for another.
        """
        norm = self._norm
        if norm is None:  # the gradients were not clipped
            norm = torch.nn.utils.get_total_norm([p.grad for p in self._learning() if p.grad is not None])
        loss, norm = float(self._loss), float(norm)
        if self.over_all(not math.isfinite(loss), not math.isfinite(norm)) != [0, 0]:
            raise self._divergence(loss, norm)

    def check_weights(self) -> None:
        """Raise Diverged if a weight that is trained is not a finite number after the update that was just made."""
        finite = all(bool(p.isfinite().all()) for p in self._learning())
        if self.over_all(not finite) != [0]:
            what = f"weights are not finite after update {self.state.global_step}"
            raise Diverged(what, "learning_rate", "lower it; nothing was saved as finished")

    def _learning(self) -> list[torch.nn.Parameter]:
        return [p for p in cast(torch.nn.Module, self.model).parameters() if p.requires_grad]

    def _clip_gradients(self, *args: Any, **kwargs: Any) -> Any:
        self._norm = self._clip(*args, **kwargs)
        return self._norm

    def _divergence(self, loss: float, norm: float) -> Diverged:
        """The error: the update, and the rows that score as no finite number with the weights as they still are."""
        update = self.state.global_step + 1
        names, bad = self._suspects()
        if self.accelerator.num_processes > 1:
            losses = gather_object([(loss, names, bad)])
            loss = next((one for one, _, _ in losses if not math.isfinite(one)), loss)
            names, bad = ([name for part in losses for name in part[k]] for k in (1, 2))
        what = f"the loss of update {update} is {loss}"
        if math.isfinite(loss):
            what = f"the norm of the gradient of update {update} is {norm}, though its loss is {loss:.4g}"
        if bad and len(bad) == len(names):
            what, suspects = f"{what}: no row of it has a finite score, so the weights have diverged", names
        else:
            suspects = bad or names
        more = f" and {len(suspects) - _NAMED} more" if len(suspects) > _NAMED else ""
        do = "lower learning_rate" if update > 1 else "look at these rows and at the model, or lower learning_rate"
        return Diverged(what, ", ".join(suspects[:_NAMED]) + more, f"{do}; nothing was saved as finished")

    def _suspects(self) -> tuple[list[str], list[str]]:
        """The rows of this device's share of the update, and those that score as no finite number."""
        names: list[str] = []
        bad: list[str] = []
        for part in self._parts:
            named = self.named_rows(part)
            if named is None:
                continue
            packed, of = named
            names += of
            if not is_sharded():  # there every device would have to go through the model
                inner = self.accelerator.unwrap_model(self.model)
                with torch.no_grad(), autocast(self.args.device, self._how.bf16):
                    values = logprobs(cast(torch.nn.Module, inner), packed, self.method)
                bad += [name for name, value in zip(of, values.tolist(), strict=True) if not math.isfinite(value)]
        return list(dict.fromkeys(names)), list(dict.fromkeys(bad))

    def _silent(self, parts: int) -> int:
        """The number of passes that teach nothing that this device adds: if each device holds a part of the weights,
        all have to go through the model equally often.
        """
        if not is_sharded():
            return 0
        count = torch.tensor([parts], device=self.args.device)
        return int(cast(Tensor, self.accelerator.gather(count)).max()) - parts

    def _backward(self, model: torch.nn.Module, part: Mapping[str, Any], over: float) -> Tensor:
        # Data-parallel gradients are averaged over devices, the loss is meant as a sum: hence the factor.
        loss = self.part_loss(model, part) / over * self.accelerator.num_processes
        self.accelerator.backward(loss)
        return loss.detach()


class _Stop(TrainerCallback):
    """Has every update checked before it changes a weight, and the weights before they are kept."""

    def __init__(self, trainer: UpdateTrainer) -> None:
        self.trainer = trainer

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.trainer.check()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if control.should_save or state.global_step >= state.max_steps:
            self.trainer.check_weights()


_SHORTEST = pack([ScoredRow((0, 0), 1)])


def _only(items: list[dict[str, Any]]) -> dict[str, Any]:
    """The collator: an update is put together already."""
    (item,) = items
    return item


__all__ = ["UpdateTrainer"]
