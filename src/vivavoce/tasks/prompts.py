"""Prompts without a right answer, to learn from on-policy, and a test of another task.

::

    {"messages": [{"role": "user", "content": "Write a program that …"}]}
    {"system": "…", "conversations": [{"from": "human", "value": "…"}, {"from": "gpt", "value": "…"}], "domain": "code"}

Each is a state in which the student is to go on: a message list, in whose roles it, debaters and scorers read it. The
shapes are those of OpenThoughts3 and ToolACE as they lie on the Hub, and of the messages that endpoints take. Nothing
of training is graded, so that votes count equal texts and no gold can leak; what the file has as the next turn of the
assistant is kept as the recorded answer (``worked``), for arms that imitate it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from pydantic import BaseModel, ConfigDict, Field

from vivavoce.agents.call_text import CLOSE, OPEN, response
from vivavoce.errors import DataError
from vivavoce.files import kind_of
from vivavoce.records import Grade, Message, Problem, digest
from vivavoce.tasks import Task, open_task
from vivavoce.tasks.characters import blank
from vivavoce.tasks.graded import Prose
from vivavoce.tasks.limits import Limited
from vivavoce.tasks.rows import Row, read_rows
from vivavoce.tasks.splitting import known_split

Role = Literal["system", "user", "assistant"]
_ROLES = {
    "system": "system",
    **dict.fromkeys(("user", "human"), "user"),
    **dict.fromkeys(("assistant", "gpt", "model"), "assistant"),
    "function_call": "call",
    **dict.fromkeys(("tool", "observation", "function_response", "ipython"), "tool"),
}
"""The role of a turn, by the file's name for its author."""
_LISTS = ("messages", "conversations", "prompt")
_TEXTS = ("prompt", "question", "problem", "instruction")


class Exam(BaseModel):
    """The task that students are tested on."""

    model_config = ConfigDict(extra="allow", frozen=True)

    name: str = Field(description="a file of vivavoce/tasks, or a path to one")


NEEDS = "a file of yours"


class Options(Limited):
    """The file of the prompts, a choice of them, and the exam."""

    path: Path = Field(description="file or folder of rows: JSON lines, JSON, CSV or Parquet")
    exam: Exam = Field(description="the task whose test questions are asked, with its options; its training is unused")
    prompt_field: str | None = Field(
        default=None,
        description="field with the message list or the text; None: messages, conversations, prompt, question, problem "
        "or instruction, whichever comes first",
    )
    turns: Literal["first", "last", "all"] = Field(
        default="last",
        description="which turns of the assistant the student takes, having read all before them: the first, the last, "
        "or every one (ToolACE's steps); a conversation that ends with a user is always gone on with",
    )
    where: dict[str, str] = Field(
        default={}, description="rows to take: those whose fields hold these values (OpenThoughts3: domain: code)"
    )
    group_field: str | None = Field(default=None, description="field with a prompt's group, such as its domain")


@dataclass(slots=True)
class Prompts(Prose):
    """A file's prompts to train on, and another task's questions to be tested on."""

    name: str
    answer_format: str
    exam: Task
    train: tuple[Problem, ...]
    recorded: Mapping[str, str]
    """The file's own answer to each problem; empty if it has none."""

    def problems(self, split: str) -> list[Problem]:
        """Prompts without gold to train on; the exam's questions to be tested on."""
        return list(self.train) if known_split(split, self.name) == "train" else self.exam.problems("test")

    def _is_prompt(self, problem: Problem) -> bool:
        return problem.id.startswith("prompts/")

    def grade(self, problem: Problem, text: str) -> Grade:
        """The exam's grade of an answer to its question; of an answer to a prompt, the text itself, neither right nor
        wrong."""
        if self._is_prompt(problem):
            return Grade(text.strip() or None, None, "ok", "the prompt has no right answer")
        return self.exam.grade(problem, text)

    def worked(self, problem: Problem) -> str:
        """The answer that the file has; for a question of the exam, its worked solution."""
        if self._is_prompt(problem):
            return self.recorded.get(problem.id, "")
        worked = getattr(self.exam, "worked", None)
        return worked(problem) if worked else f"The right answer is {problem.gold}."

    def same(self, problem: Problem, a: str, b: str) -> bool:
        """The exam's equality for its questions; equal texts for prompts."""
        same = getattr(self.exam, "same", None)
        return a == b if self._is_prompt(problem) or same is None else same(problem, a, b)

    @property
    def waits(self) -> bool:
        """Whether the exam's grading runs something."""
        return bool(getattr(self.exam, "waits", False))

    def first_wrong_step(self, problem: Problem, text: str) -> int | None:
        """The exam's checker for its questions. Raises NotImplementedError for prompts."""
        if self._is_prompt(problem):
            raise NotImplementedError("a prompt has no right answer")
        return self.exam.first_wrong_step(problem, text)


def task(options: Options) -> Task:
    """Read and check the prompts. Raises DataError, naming file and row, for one that cannot be read."""
    exam = open_task(options.exam.name, dict(options.exam.model_extra or {}))
    problems, recorded, seen = list[Problem](), dict[str, str](), set[str]()
    for row in read_rows(options.path):
        if not all(str(row.get(name)) == value for name, value in options.where.items()):
            continue
        group = str(row.get(options.group_field)) if options.group_field else ""
        for history, answer in _states(row, options):
            id = f"prompts/{digest([list(m.items()) for m in history])[:16]}"
            if id not in seen:  # the same conversation may stand in a file twice: it is one state
                seen.add(id)
                problems.append(Problem(id, history[-1]["content"], "", group, history))
                recorded[id] = answer
    if not problems:
        what = "no row has a prompt that is wanted"
        raise DataError(what, str(options.path), "check task.where, and that conversations have turns of an assistant")
    kept = options.within(problems, "train", lambda p: p)
    return Prompts("prompts", exam.answer_format, exam, tuple(kept), {p.id: recorded[p.id] for p in kept})


def _states(row: Row, o: Options) -> Iterator[tuple[tuple[Message, ...], str]]:
    """The message lists of a row that the student goes on with, and what the file has for its turn."""
    messages = _conversation(row, o)
    turns = [i for i, message in enumerate(messages) if i and message["role"] == "assistant"]
    if messages[-1]["role"] != "assistant":
        turns = [*turns, len(messages)]
    chosen = {"first": turns[:1], "last": turns[-1:], "all": turns}[o.turns]
    for i in chosen:
        if messages[i - 1]["role"] == "user":
            yield tuple(messages[:i]), messages[i]["content"] if i < len(messages) else ""


def _conversation(row: Row, o: Options) -> list[Message]:
    """A row's messages: what a tool answered stands in a user's message, and neighbours of one role are one message."""
    value: Any = row.get(o.prompt_field) if o.prompt_field else _first(row)
    system = row.value.get("system")
    messages: list[Message] = []
    if isinstance(system, str) and not blank(system):
        messages.append({"role": "system", "content": system})
    if isinstance(value, str):
        return [*messages, {"role": "user", "content": value}]
    if not isinstance(value, list) or not value:
        what = f"the prompt is {kind_of(value)}, not a list of messages or a text"
        raise DataError(what, row.where, "name the right field in task.prompt_field")
    for n, turn in enumerate(value, 1):
        role, content = _turn(turn, row.where, n)
        if messages and messages[-1]["role"] == role and role != "system":
            messages[-1] = {"role": role, "content": f"{messages[-1]['content']}\n{content}"}
        else:
            messages.append({"role": role, "content": content})
    if not any(m["role"] == "user" for m in messages):
        raise DataError("the conversation holds no message of a user", row.where, "remove the row")
    return messages


def _first(row: Row) -> Any:
    content = next((row.value[name] for name in _LISTS if isinstance(row.value.get(name), list)), None)
    if content is None:
        content = next((row.value[name] for name in _TEXTS if isinstance(row.value.get(name), str)), None)
    if content is None or (isinstance(content, str) and blank(content)):
        has = f"the row has: {', '.join(row.value)}; name the right one in task.prompt_field"
        raise DataError(f"no field {', '.join(dict.fromkeys((*_LISTS, *_TEXTS)))} holds a prompt", row.where, has)
    return content


def _turn(turn: Any, where: str, n: int) -> tuple[Role, str]:
    """Role and content of one turn. Raises DataError if it has none."""
    author = turn.get("role", turn.get("from")) if isinstance(turn, Mapping) else None
    content = turn.get("content", turn.get("value")) if isinstance(turn, Mapping) else None
    kind = _ROLES.get(str(author))
    if kind is None or not isinstance(content, str):
        what = f"turn {n} has no author and text that can be read (author {author!r})"
        do = f"write role and content, or from and value; authors are {', '.join(_ROLES)}"
        raise DataError(what, where, do)
    if kind == "tool":
        return "user", response(content)
    if kind == "call":
        return "assistant", f"{OPEN}\n{content}\n{CLOSE}"
    return cast(Role, kind), content


__all__ = ["Exam", "Options", "Prompts", "task"]
