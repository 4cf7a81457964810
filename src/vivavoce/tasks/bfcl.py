"""Calls of functions, single turn (Berkeley Function-Calling Leaderboard; Patil et al. 2025; Apache-2.0).

Official files: JSON lines with ``question`` and ``function``, a file for each category, and beside them
``possible_answer/`` with the wanted calls. In the categories of irrelevance no call is right, in those of relevance
any; the others are checked by :mod:`vivavoce.tasks.calls`. The schemas are shown in JSON Schema's own types (``object``
for ``dict``, ``number`` for ``float``).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from vivavoce.agents.call_text import FORMAT, read_calls, write_call
from vivavoce.agents.replies import spoken
from vivavoce.environments.bfcl.documents import json_schema
from vivavoce.errors import DataError
from vivavoce.records import Grade, Problem, ToolCall
from vivavoce.tasks import Task
from vivavoce.tasks.benchmark import Benchmark, Official, RowQuestion, SplitPlace
from vivavoce.tasks.calls import Wanted, an_answer, wrong_calls
from vivavoce.tasks.grading import Grader
from vivavoce.tasks.rows import Row, read_rows
from vivavoce.tasks.samples import Sample

CATEGORIES = (
    "simple_python",
    "simple_java",
    "simple_javascript",
    "multiple",
    "parallel",
    "parallel_multiple",
    "irrelevance",
    "live_simple",
    "live_multiple",
    "live_parallel",
    "live_parallel_multiple",
    "live_irrelevance",
    "live_relevance",
)
OFFICIAL = [{"test_path": f"bfcl/BFCL_v4_{category}.json*"} for category in CATEGORIES]
_NONE = "None of the functions fits."


class Options(Official):
    """The source of a category's questions, and how many of them. It is one set: ``path`` cuts it in two."""


class CallCase(NamedTuple):
    """The wanted calls of a row. ``wanted`` None: any call."""

    functions: Sequence[Mapping[str, Any]]
    wanted: Sequence[Wanted] | None


def task(options: Options) -> Task:
    """Open one category, whichever the file is of."""
    cases = dict[str, CallCase]()

    def ask(row: Row) -> RowQuestion:
        functions, wanted = row.value["function"], row.value["wanted"]
        question = _question(row.value["question"], functions)
        if (before := cases.setdefault(question, CallCase(functions, wanted))).wanted != wanted:
            raise DataError(f"the question appears twice, with other calls: {before.wanted}", row.where)
        calls = [ToolCall(functions[0]["name"], {})] if wanted is None else an_answer(functions, wanted)
        return RowQuestion(question, "\n".join(map(write_call, calls)) or _NONE)

    return Calls("bfcl", options, ask, _AS_IT_STANDS, SplitPlace("test"), SplitPlace("test"), rows=_rows, cases=cases)


_AS_IT_STANDS = Grader("exact", "calls", lambda calls: calls, re.compile(r"(?!)"))
"""Stands for the reader of gold answers in :class:`Benchmark`; answers are checked call by call."""


@dataclass
class Calls(Benchmark):
    """A benchmark whose answers are calls."""

    def __post_init__(self) -> None:
        self.answer_format = FORMAT

    def grade(self, problem: Problem, text: str) -> Grade:
        """Whether the calls in the reply are the wanted ones; ``reason`` says what is wrong."""
        case: CallCase = self.case(problem)
        if not spoken(text).strip():
            return Grade(None, False, "no_answer", "nothing is said")
        try:
            calls = read_calls(text)
        except ValueError as error:
            return Grade(None, False, "no_answer", str(error))
        answer = "\n".join(map(write_call, calls)) or _NONE
        if not calls and not case.wanted and (form := _other_form(spoken(text), case.functions)):
            return Grade(None, False, "no_answer", f"a call in another form: {form}")
        if case.wanted is None:
            wrong = "" if calls else "nothing is called"
        else:
            wrong = wrong_calls(case.functions, case.wanted, calls)
        return Grade(answer, not wrong, "ok", wrong)

    def samples(self, split: str) -> Iterator[Sample]:
        """A right answer; without its calls, with one too many, and with every name and argument changed."""
        for entry in self.entries(split):
            case: CallCase = self.case(entry.problem)
            gold = entry.problem.gold
            named = case.functions[0]["name"] if case.functions else "anything"  # one row offers no function
            call = write_call(ToolCall(named, {"no_such_argument": 1}))
            if case.wanted is None:
                wrong = [_NONE]
            elif not case.wanted:
                wrong = [call]
            else:
                mutated = _mutations(case.functions, read_calls(gold))
                wrong = [_NONE, f"{gold}\n{call}", *("\n".join(map(write_call, calls)) for calls in mutated)]
            yield Sample(entry.problem, (gold,), tuple(wrong), entry.where, entry.asked.odd)


_TAGS = re.compile(r"<function[=_]|\[TOOL_CALLS\]|<\|python_tag\|>|<\|?tool_calls?(?:_begin)?\|?>|<｜tool▁call")


def _other_form(text: str, functions: Sequence[Mapping[str, Any]]) -> str:
    """A text in the reply that looks like a call in another form; empty if there is none."""
    if tag := _TAGS.search(text):
        return tag[0]
    for name in {spelling for f in functions for spelling in (f["name"], f["name"].replace(".", "_"))}:
        json_call = re.search(rf'"name"\s*:\s*"{re.escape(name)}"\s*,\s*"(?:arguments|parameters)"', text)
        python_call = re.search(rf"^[ \t`]*\[?{re.escape(name)}\(.*\)\]?[ \t`]*$", text, re.MULTILINE)
        if match := json_call or python_call:
            return match[0].strip()
    return ""


def _mutations(functions: Sequence[Mapping[str, Any]], calls: Sequence[ToolCall]) -> Iterator[list[ToolCall]]:
    required = {f["name"]: f["parameters"].get("required", ()) for f in functions}
    for at, call in enumerate(calls):
        arguments = call.arguments
        others = [ToolCall(f"{call.name}_other", arguments)]
        others += [ToolCall(call.name, {**arguments, argument: "no such value"}) for argument in arguments]
        others += [
            ToolCall(call.name, {k: v for k, v in arguments.items() if k != left}) for left in required[call.name]
        ]
        yield from ([*calls[:at], other, *calls[at + 1 :]] for other in others)


def _rows(path: Path) -> Iterator[Row]:
    """The questions of a category, each with the calls that are ``wanted``: None if any will do."""
    category = path.name.removesuffix(".gz").removesuffix(".json")
    beside = path.parent / "possible_answer" / f"{category}.json"
    wanted: dict[str, Any] = {}
    if not category.endswith("relevance"):
        wanted = {row.text("id"): row.value["ground_truth"] for row in read_rows(beside)}
    for row in read_rows(path):
        none: Any = [] if category.endswith("irrelevance") else None
        if wanted and row.text("id") not in wanted:
            raise DataError(f"{beside.name} has no answer to it", row.where, "give both official files")
        yield Row(row.where, {**row.value, "wanted": wanted.get(row.text("id"), none)})


def _question(turns: Sequence[Sequence[Mapping[str, str]]], functions: Sequence[Mapping[str, Any]]) -> str:
    """The conversation, then the functions on offer, one a line."""
    (messages,) = turns
    alone = len(messages) == 1
    words = messages[0]["content"] if alone else "\n\n".join(f"{m['role'].title()}: {m['content']}" for m in messages)
    offered = (json.dumps(json_schema(function), ensure_ascii=False) for function in functions)
    return "\n".join([words, "", "Functions:", *offered])
