"""Rows in the forms that other trainers read as they are: TRL, and through it LLaMA-Factory and ms-swift."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from vivavoce.data.trees import pairs
from vivavoce.errors import DataError
from vivavoce.records import Example, Tree

SFTForm = Literal["messages", "prompt-completion"]


def sft_rows(rows: Iterable[Example], form: SFTForm = "messages") -> Iterator[dict[str, Any]]:
    """Conversational SFT rows: ``{"messages"}``, or ``{"prompt", "completion"}`` to train on the completion alone."""
    for row in rows:
        said = [{"role": "assistant", "content": row.completion}]
        rest = {"problem": row.problem, "source": list(row.source), "stream": row.stream, "weight": row.weight}
        if form == "messages":
            yield {"messages": [*row.prompt, *said], **rest}
        else:
            yield {"prompt": list(row.prompt), "completion": said, **rest}


def preference_rows(trees: Iterable[Tree]) -> Iterator[dict[str, Any]]:
    """Conversational DPO rows ``{"prompt", "chosen", "rejected"}``, one for each pair of a tree.

    Where a tree branches inside an answer, both answers carry the shared beginning; its log-probability cancels from
    the preference, so that loss and gradients stay those of the tree.

    Raises DataError for a tree whose alternatives do not reach the end of the answer (``span: step``): every trainer
    that reads these rows ends an answer with the end of turn, and would teach the model to stop there.
    """
    for tree in trees:
        if not tree.complete:
            raise DataError(
                "its alternatives are single steps, and rows of whole answers would teach the model to stop after them",
                f"tree {tree.id}",
                "grow the trees with span: rest, or train on them with `viva train tree-dpo`",
            )
        for chosen, rejected in pairs(tree):
            yield {
                "prompt": list(tree.prompt),
                "chosen": [{"role": "assistant", "content": tree.prefix + chosen.text}],
                "rejected": [{"role": "assistant", "content": tree.prefix + rejected.text}],
                "problem": tree.problem,
                "tree": tree.id,
                "source": [chosen.source, rejected.source],
                "weight": tree.weight,
            }


def tree_rows(trees: Iterable[Tree]) -> Iterator[dict[str, Any]]:
    """Our own form: whole trees, with all alternatives and the node that said each."""
    return (asdict(tree) for tree in trees)


def write_rows(path: Path, rows: Iterable[dict[str, Any]]) -> int:
    """Write JSON lines, whole or not at all; how many."""
    part, n = path.with_suffix(path.suffix + ".part"), 0
    path.parent.mkdir(parents=True, exist_ok=True)
    with part.open("w", encoding="utf-8") as f:
        for row in rows:
            f.write(json.dumps(row, ensure_ascii=False) + "\n")
            n += 1
    part.replace(path)
    return n
