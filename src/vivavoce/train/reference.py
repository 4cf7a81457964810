"""The reference's log-probabilities: computed once for every answer, and kept on disk.

They are computed on the same packed rows as in the first epoch, so that policy and reference go through the same
numerics and the loss starts at exactly ln 2.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object

from vivavoce.files import json_lines
from vivavoce.records import digest
from vivavoce.train.scoring import Method, attending, autocast, logprobs
from vivavoce.train.trees import PackedTrees, Updates

logger = logging.getLogger(__name__)


def reference_logprobs(
    model: Any, steps: Updates, method: Method, bf16: bool, folder: Path, fingerprint: str, *, device: int = 0
) -> dict[str, float]:
    """log pi_ref of every answer that ``steps`` will train on, by the answer's name, in nats.

    ``model`` is the reference, or the policy before training, whose fresh adapter changes nothing yet. The file in
    ``folder`` is named by a hash of the reference's ``fingerprint``, the rows and the numerics.
    """
    wanted = list(dict.fromkeys(name for i in steps.order for name in steps.trees[i].names))
    key = digest(
        [
            fingerprint,
            bf16,
            method.attention,
            method.chunked,
            str(next(model.parameters()).device.type),
            steps.budget,
            steps.size,
            steps.devices,
            wanted,
        ]
    )
    file = folder / f"{key[:16]}.jsonl"
    if file.is_file():
        stored = dict(json.loads(line) for _, line in json_lines(file))
        if stored.keys() >= set(wanted):
            logger.info("reference log-probabilities of %d answers read from %s", len(wanted), file)
            return stored
    known = _compute(model, steps, method, bf16, set(wanted), device)
    if steps.devices > 1:
        known = {name: value for part in gather_object([known]) for name, value in part.items()}
    if device == 0:
        folder.mkdir(parents=True, exist_ok=True)
        partial = file.with_suffix(".part")
        partial.write_text("".join(json.dumps([name, value]) + "\n" for name, value in known.items()))
        partial.replace(file)  # a killed pass leaves no half a file
    return known


def _compute(model: Any, steps: Updates, method: Method, bf16: bool, wanted: set[str], device: int) -> dict[str, float]:
    known: dict[str, float] = {}
    training = model.training
    model.eval()
    with torch.no_grad(), attending(model, method):
        for item in range(device, len(steps), steps.devices):
            for row in steps.rows(item):
                known.update(_row(model, row, method, bf16, known))
            if steps.devices == 1 and known.keys() >= wanted:
                break
    model.train(training)
    return known


def _row(model: Any, row: PackedTrees, method: Method, bf16: bool, known: dict[str, float]) -> dict[str, float]:
    missing = [name for name in row.names if name not in known]
    if not missing:
        return {}
    where = next(model.parameters()).device
    with autocast(where, bf16):
        values = logprobs(model, row.packed, method).tolist()
    return {name: value for name, value in zip(row.names, values, strict=True) if name not in known}


__all__ = ["reference_logprobs"]
