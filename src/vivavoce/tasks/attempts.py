"""Reading attempts that someone recorded: questions, what models answered, and whether that was right.

Two forms of JSON lines are read. A list of attempts, the documented form::

    {"id": "q1", "question": "2 + 2?", "gold": "4", "attempts": [{"agent": "ada", "text": "… #### 4", "correct": true}]}

or one column per agent, as in the model solutions published with GSM8K (``GSM8K_SOLUTIONS``)::

    {"question": "…", "ground_truth": "…\\nA: 4", "6b_finetuning": {"is_correct": true, "solution": "…\\nA: 4"}, …}
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from vivavoce.agents.replies import spoken
from vivavoce.errors import DataError
from vivavoce.records import Problem
from vivavoce.tasks.grading import GRADERS, GraderName
from vivavoce.tasks.rows import Row, read_rows
from vivavoce.tasks.splitting import question_id


@dataclass(frozen=True)
class Fields:
    """The names of a row's fields. The defaults are the documented form."""

    question: str = "question"
    gold: str = "gold"
    id: str | None = "id"
    """None: an id is made from the question."""
    group: str | None = None
    attempts: str | None = "attempts"
    """The list of attempts. None: every column that holds an object with ``text`` is one, by the agent of its name."""
    agent: str = "agent"
    text: str = "text"
    correct: str = "correct"
    grader: GraderName | None = None
    """Reads the gold answer out of a worked solution; None takes it as it stands."""


GSM8K_SOLUTIONS = Fields(
    gold="ground_truth", id=None, attempts=None, text="solution", correct="is_correct", grader="number"
)
"""The form of ``example_model_solutions.jsonl`` in openai/grade-school-math."""


class Attempt(NamedTuple):
    """One recorded answer. ``correct`` is the file's own flag, None if it has none."""

    agent: str
    text: str
    correct: bool | None


class Recorded(NamedTuple):
    """A problem and its recorded answers, in the order of the file."""

    problem: Problem
    attempts: tuple[Attempt, ...]
    where: str
    """File and row."""


def read_attempts(path: Path, fields: Fields = Fields(), name: str = "attempts") -> Iterator[Recorded]:
    """The recorded problems of a ``.jsonl`` or ``.jsonl.gz`` file, one at a time.

    An id made from the question begins with ``name`` and is the one that a task of this name gives to the question, so
    that with ``gsm8k`` the attempts meet the problems of that task.

    Raises DataError, with file and row, if a field is missing or ill-typed, an id or an agent at a question is there
    twice, or the gold answer cannot be read.
    """
    seen = dict[str, str]()
    for row in read_rows(path):
        question, gold = row.text(fields.question), row.text(fields.gold)
        if fields.grader is not None:
            canonical = GRADERS[fields.grader].read_gold(gold)
            if canonical is None:
                raise DataError(f"the grader {fields.grader!r} cannot read the gold answer {gold[-80:]!r}", row.where)
            gold = canonical
        id_ = row.text(fields.id) if fields.id else question_id(name, question)
        if id_ in seen:
            raise DataError(f"{id_!r} appears twice", f"{row.where}, and before it {seen[id_]}")
        seen[id_] = row.where
        group = row.text(fields.group) if fields.group else ""
        attempts = tuple(_attempts(row, fields))
        agents = [attempt.agent for attempt in attempts]
        if len(set(agents)) < len(agents):
            raise DataError(f"an agent appears twice: {', '.join(agents)}", row.where, "give each its own name")
        yield Recorded(Problem(id_, question, gold, group), attempts, row.where)


def _attempts(row: Row, fields: Fields) -> Iterator[Attempt]:
    if fields.attempts is None:
        columns = {k: v for k, v in row.value.items() if isinstance(v, dict) and fields.text in v}
        if not columns:
            raise DataError(f"no column holds an object with {fields.text!r}", row.where)
        for agent, value in columns.items():
            yield _attempt(agent, value, row, fields)
        return
    listed = row.value.get(fields.attempts)
    if not isinstance(listed, list):
        raise DataError(f"no list of attempts in field {fields.attempts!r}", row.where)
    for value in listed:
        agent = value.get(fields.agent) if isinstance(value, dict) else None
        if not isinstance(agent, str) or not agent:
            raise DataError(f"an attempt without the name of its agent in {fields.agent!r}", row.where)
        yield _attempt(agent, value, row, fields)


def _attempt(agent: str, value: Mapping[str, Any], row: Row, fields: Fields) -> Attempt:
    text, correct = value.get(fields.text), value.get(fields.correct)
    if not isinstance(text, str):
        raise DataError(f"the attempt of {agent!r} has no text in {fields.text!r}", row.where)
    if not (correct is None or isinstance(correct, bool)):
        raise DataError(f"the flag {fields.correct!r} of {agent!r} is {correct!r}, not true or false", row.where)
    return Attempt(agent, spoken(text), correct)


__all__ = ["GSM8K_SOLUTIONS", "Attempt", "Fields", "Recorded", "read_attempts"]
