"""Weights of which each process holds a part (FSDP2): whole if they must be, scorers in parts, equally many passes.

::

    student    accelerate shards it when training begins; the passes of an update go through it together
               Whole: a copy with all weights, out of which a process samples answers without the others
               whole_weights: all of them on the CPU, to save them or to give them to an engine
    scorer     shard: its layers, which are most of it; its head stays at hand, wherever logits are wanted

All processes make every pass through a model in parts: one that has fewer rows makes passes whose result is unused.
"""

from __future__ import annotations

import copy
import os
from functools import cache
from typing import cast

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from transformers.modeling_layers import GradientCheckpointingLayer


def is_sharded() -> bool:
    """Whether training was launched with FSDP: every process holds a part of the weights."""
    return os.environ.get("ACCELERATE_USE_FSDP", "").lower() == "true"


class Whole:
    """A copy of a student with all of its weights, which follows the student's.

    Args:
        student: The student while it is whole still, before training begins.
        dtype: What weights are kept in; None: as the student's.
    """

    def __init__(self, student: torch.nn.Module, dtype: torch.dtype | None) -> None:
        self.model = copy.deepcopy(student).requires_grad_(False).eval()
        if dtype is not None:
            self.model.to(dtype=dtype)
        self._follows = [name for name, value in student.named_parameters() if value.requires_grad]

    @torch.no_grad()
    def follow(self, student: torch.nn.Module) -> None:
        """Take over the weights that are trained. Every process must call it."""
        copied, learnt = dict(self.model.named_parameters()), dict(student.named_parameters())
        for name in self._follows:
            copied[name].copy_(whole(learnt[name]))


def whole_weights(student: torch.nn.Module) -> dict[str, Tensor]:
    """All weights of a student in parts, on the CPU. Every process must call it; the first one alone is given them."""
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

    return cast(
        dict[str, Tensor],
        get_model_state_dict(student, options=StateDictOptions(full_state_dict=True, cpu_offload=True)),
    )


def shard(model: torch.nn.Module) -> None:
    """Have every process keep its part of the layers of a frozen ``model``, and all of the rest."""
    from torch.distributed.fsdp import fully_shard

    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    inside = {parameter for layer in layers for parameter in layer.parameters()}
    rest = {parameter for parameter in model.parameters() if parameter not in inside}
    mesh = _mesh(next(model.parameters()).device.type)
    for layer in layers:
        fully_shard(layer, mesh=mesh, reshard_after_forward=True)
    if layers:  # one root for all of them, so that the next layer's weights are on their way while one computes
        fully_shard(model, mesh=mesh, ignored_params=rest)


@cache
def _mesh(device: str) -> DeviceMesh:
    return dist.init_device_mesh(device, (dist.get_world_size(),))


def most(count: int, device: torch.device) -> int:
    """The largest ``count`` of any process. Every process must call it."""
    greatest = torch.tensor([count], device=device)
    dist.all_reduce(greatest, dist.ReduceOp.MAX)
    return int(greatest)


def whole(value: Tensor) -> Tensor:
    """A weight in parts as a whole, of which every process must ask; another one as it is."""
    from torch.distributed.tensor import DTensor

    return value.full_tensor() if isinstance(value, DTensor) else value


__all__ = ["Whole", "is_sharded", "most", "shard", "whole", "whole_weights"]
