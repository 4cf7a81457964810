"""A trainer whose batch is one whole update, learnt from part by part.

The public Trainer thinks in batches of equal rows. Here a part is a packed row, parts differ in size, and the loss of
an update is one sum over all of its parts on all devices, so that how it is cut into parts changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils.data import Dataset
from transformers import Trainer, TrainingArguments

from vivavoce.errors import RecipeError
from vivavoce.train.checkpoint import sharded
from vivavoce.train.muon import Muon
from vivavoce.train.packing import pack
from vivavoce.train.scoring import Method, logprobs
from vivavoce.train.settings import TrainSettings
from vivavoce.train.tokens import Scored


class UpdateTrainer(Trainer):
    """transformers' Trainer over a data set whose every item is one device's share of one update.

    A subclass gives ``compute_loss`` for one part, and ``training_step``, which says what the parts are.

    Raises RecipeError where weights are to be sharded and ``method`` takes answers row by row.
    """

    def __init__(
        self, model: Any, arguments: TrainingArguments, steps: Dataset[Any], settings: TrainSettings, method: Method
    ) -> None:
        super().__init__(model=model, args=arguments, train_dataset=steps, data_collator=_only)
        self._how, self.method = settings, method
        if sharded() and method.attention == "rows":
            what = "this model cannot share prefixes, and its weights cannot be sharded then"
            raise RecipeError(what, "attention", "launch without FSDP")

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """AdamW, or Muon where the settings say so."""
        if self.optimizer is None and self._how.muon:
            student = cast(torch.nn.Module, self.model if model is None else model)
            self.optimizer = Muon(student, self._how, self.get_decay_parameter_names(student))
            return self.optimizer
        return super().create_optimizer(model)

    def learn(self, model: torch.nn.Module, parts: Sequence[Mapping[str, Any]], over: float = 1.0) -> Tensor:
        """Forward and backward of every part of one update; its loss on this device, the sum divided by ``over``.

        ``parts`` are the inputs of ``compute_loss``. There is at least one, on every device.
        """
        loss = torch.zeros((), device=self.args.device)
        for _ in range(self._silent(len(parts))):
            with self.accelerator.no_sync(model):
                self.accelerator.backward(0 * logprobs(model, _SHORTEST, self.method).sum())
        for part in parts[:-1]:
            with self.accelerator.no_sync(model):  # devices exchange gradients once per update
                loss = loss + self._backward(model, part, over)
        return loss + self._backward(model, parts[-1], over)

    def _silent(self, parts: int) -> int:
        """How many passes that teach nothing this device adds: where each holds a part of the weights, all have to go
        through the model equally often."""
        if not sharded():
            return 0
        mine = torch.tensor([parts], device=self.args.device)
        return int(cast(Tensor, self.accelerator.gather(mine)).max()) - parts

    def _backward(self, model: torch.nn.Module, part: Mapping[str, Any], over: float) -> Tensor:
        # Data-parallel gradients are averaged over devices, the loss is meant as a sum: hence the factor.
        loss = cast(Tensor, self.compute_loss(model, dict(part))) / over * self.accelerator.num_processes
        self.accelerator.backward(loss)
        return loss.detach()


_SHORTEST = pack([Scored((0, 0), 1)])


def _only(items: list[dict[str, Any]]) -> dict[str, Any]:
    """The collator: an update is put together already."""
    (item,) = items
    return item


__all__ = ["UpdateTrainer"]
