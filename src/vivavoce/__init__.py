"""Large language models debate, criticise and review each other's answers; your small model learns from them.

The names below work in scripts and notebooks, without a recipe. Each is loaded when it is first used, so that
``import vivavoce as vv`` is instant and needs no torch::

    task = vv.task("schoolhouse", train=10, test=50)
    committee = [vv.agent(name, f"schoolhouse:{name}", max_new_tokens=64) for name in ("ada", "bob", "cyd")]
    graphs = vv.debate(task, committee, max_rounds=2)
    student = vv.sft("schoolhouse:student", vv.examples(graphs), lora=None)
    print(vv.compare({"before": vv.evaluate("schoolhouse:student", task), "after": vv.evaluate(student, task)}))
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

from vivavoce.version import __version__ as __version__

# OpenMP's threads wait for each other by spinning. If another process holds a core, most of that is waste: local
# decoding beside two busy loops is twice as fast with a short spin, and as fast as before alone. It is read when torch
# is loaded, so it stands here; processes that are started later inherit it, and a value of the user's own counts.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

if TYPE_CHECKING:
    from vivavoce.library.judging import Comparison, Evaluation, compare, evaluate
    from vivavoce.library.running import Run
    from vivavoce.library.talking import Graphs, agent, debate, review, task
    from vivavoce.library.teaching import Student, examples, on_policy, sft, states, tree_dpo, trees, two_task

_FROM = {
    "judging": ("Comparison", "Evaluation", "compare", "evaluate"),
    "running": ("Run",),
    "talking": ("Graphs", "agent", "debate", "review", "task"),
    "teaching": ("Student", "examples", "on_policy", "sft", "states", "tree_dpo", "trees", "two_task"),
}
_HOME = {name: module for module, names in _FROM.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    member = getattr(importlib.import_module(f"vivavoce.library.{_HOME[name]}"), name)
    globals()[name] = member
    return member


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])


__all__ = [
    "Comparison",
    "Evaluation",
    "Graphs",
    "Run",
    "Student",
    "agent",
    "compare",
    "debate",
    "evaluate",
    "examples",
    "on_policy",
    "review",
    "sft",
    "states",
    "task",
    "tree_dpo",
    "trees",
    "two_task",
]
