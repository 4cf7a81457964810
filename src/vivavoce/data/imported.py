"""Graphs of a peer review that others held, as a run or a command learns from them.

Their authors were not asked to mark an answer, so that a grader which guesses nothing reads few of them. Their answers
are therefore read as the release reads them: the marked one, else the last number, letter, yes or no of the text. What
is taught then ends with that answer in the form that tests ask for (:meth:`vivavoce.data.two_task.Lessons.lesson_of`).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from vivavoce.data.fair import STUDENT, read_fair
from vivavoce.errors import DataError
from vivavoce.files import json_lines
from vivavoce.graph import Graph, read_graphs
from vivavoce.records import Node, Problem, digest
from vivavoce.tasks import Task
from vivavoce.tasks.grading import Grader
from vivavoce.tasks.splitting import refuse_overlap

AnswersAs = Literal["marked", "last"]


class Imported(BaseModel):
    """The source of recorded texts, and the way to read them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: Path = Field(description="file of graphs, such as `viva import fair` writes, or a folder of released files")
    teachers: list[str] = Field(min_length=1, description="authors of the texts, by their names in the file")
    student: str = Field(
        default=STUDENT,
        description="the student whose mistakes they explain, by its name in the file",
    )
    answers: AnswersAs = Field(
        default="last",
        description="the answer of a text that marks none: last: its last number, letter, yes or no (released code); "
        "the taught text then ends with it as tests ask for it. marked: none",
    )

    @property
    def fingerprint(self) -> str:
        """Hash of the files' content."""
        files = sorted(self.path.glob("*.json")) if self.path.is_dir() else [self.path]
        return digest([digest(file.read_text("utf-8-sig")) for file in files if file.is_file()])


def import_graphs(source: Imported, task: Task, test: Sequence[Problem] = ()) -> list[Graph]:
    """The graphs, with answers as the task's grader reads them.

    Raises DataError if there are none, they are no peer review, an agent that the recipe does not name wrote them, a
    question is one of ``test``, or the task's grader cannot read the last answer of a text.
    """
    if source.path.is_dir():
        graphs = read_fair(source.path)
    elif source.path.is_file():
        graphs = list(read_graphs(source.path))
    else:
        raise DataError(
            "no such file or folder", str(source.path), "`viva import fair FOLDER --out FILE` writes graphs"
        )
    authors = writers(graphs)
    if not authors:
        raise DataError("there are no rationales in the graphs", str(source.path), "give graphs of a peer review")
    if set(authors) != set(source.teachers):
        what = f"the texts are by {', '.join(authors)}, and not by {', '.join(source.teachers)}"
        raise DataError(what, str(source.path), f"write imported.teachers: [{', '.join(authors)}]")
    if not any(g.answers(agents=[source.student]) for g in graphs):
        students = list(dict.fromkeys(n.agent for g in graphs for n in g.answers()))
        do = f"set imported.student to one of {', '.join(students)}" if students else "give graphs with an exam"
        raise DataError(f"`{source.student}` answered none of the questions", str(source.path), do)
    refuse_overlap([g.problem for g in graphs], test, str(source.path))
    return read_answers(graphs, task) if source.answers == "last" else graphs


def writers(graphs: Sequence[Graph]) -> list[str]:
    """The authors of rationales, in the order of their first."""
    return list(dict.fromkeys(n.agent for g in graphs for n in g.nodes if n.kind == "rationale"))


def read_answers(graphs: Sequence[Graph], task: Task) -> list[Graph]:
    """The same graphs; a rationale without a marked answer has the last one that it names.

    Raises DataError if the task's answers are not such that the last one can be found.
    """
    grader = getattr(task, "grader", None)
    if not isinstance(grader, Grader):
        what = f"the task {task.name} does not say how the last answer of a text is read"
        raise DataError(what, "imported.answers", "set imported.answers: marked")

    def read(n: Node, problem: Problem) -> Node:
        if n.kind != "rationale" or n.absent or n.answer is not None or n.status not in ("ok", "no_answer"):
            return n
        answer = grader.lenient_answer(n.text)
        grade = grader.grade(problem.gold, grader.written(answer)) if answer is not None else None
        if grade is None or grade.answer is None:
            return n
        return replace(n, answer=grade.answer, correct=grade.correct, status="ok")

    return [replace(g, nodes=tuple(read(n, g.problem) for n in g.nodes)) for g in graphs]


def holds_graphs(path: Path) -> bool:
    """Whether the first line of a file is a graph, and not a row to train on."""
    first = next(json_lines(path), None)
    try:
        value: Any = json.loads(first[1]) if first else None
    except ValueError:
        return False
    return isinstance(value, dict) and value.keys() >= {"problem", "nodes"}


__all__ = ["AnswersAs", "Imported", "holds_graphs", "import_graphs", "read_answers", "writers"]
