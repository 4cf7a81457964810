"""The questions that a report holds for its browser: all if they fit, else those that tell the story.

Of debates: those in which an agent went from wrong to right or from right to wrong, or all agreed on a mistake. Of a
test: questions that the student got wrong before it was taught and right after, and the other way round.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from vivavoce.exams.examine import Judged
from vivavoce.files import read_records
from vivavoce.graph import Graph, Stored
from vivavoce.records import Problem, storable
from vivavoce.report.debates import Debated
from vivavoce.report.question import answer_facts, question_facts
from vivavoce.report.sources import Sources
from vivavoce.report.tables import about, head_of, table_of
from vivavoce.report.verdicts import NOTHING, Seat, in_order, letter, seats

BYTES = 5_000_000
"""Bytes of all that a report holds for its browser, at most."""
_OF_TESTS = 0.5
"""Share of the room that test questions may fill before debates take theirs."""
_TURN = (0, 0, 1, 0, 2, 1, 3)
"""Kinds of questions in the order in which they are taken, again and again."""


@dataclass
class _Set:
    """A set of questions of which some are held."""

    of: str
    n: int
    questions: list[dict[str, Any]] = field(default_factory=list)
    letters: dict[Any, list[str]] = field(default_factory=dict)
    tokens: list[int] = field(default_factory=list)

    def add(self, question: dict[str, Any], tokens: int, letters: Mapping[Any, str]) -> None:
        at = len(self.questions)
        self.questions.append(question)
        self.tokens.append(tokens)
        for key, sign in letters.items():
            column = self.letters.setdefault(key, [])
            column.extend([NOTHING] * (at + 1 - len(column)))
            column[at] = sign

    def held(self) -> dict[str, Any]:
        n = len(self.questions)
        seated = in_order([key for key in self.letters if isinstance(key, Seat)])
        keys = [*seated, *(key for key in self.letters if not isinstance(key, Seat))]
        columns = [
            (
                key._asdict() if isinstance(key, Seat) else {"arm": key[0], "seed": key[1]},
                "".join(self.letters[key]).ljust(n, NOTHING),
            )
            for key in keys
        ]
        problems = [q["problem"] for q in self.questions]
        return {
            "set": table_of(self.of, [p["id"] for p in problems], [p["group"] for p in problems], columns, self.tokens),
            "heads": [[head_of(p["question"]), p["gold"]] for p in problems],
            "questions": self.questions,
        }


def browser_data(sources: Sources, debated: Mapping[str, tuple[Stored, Debated]]) -> dict[str, Any] | None:
    """The data of a report's browser; ``debated`` are the debates by their sets. None if there is nothing."""
    room, sets = float(BYTES), list[_Set]()
    tests = _Tests(sources, dict(debated).get("test"))
    if tests.ids:
        sets.append(_fill(_Set("test", len(tests.ids)), tests.ranked(), tests, room * _OF_TESTS))
        room -= _size(sets[0].questions)
    rest = {of: debate for of, debate in debated.items() if of != "test" and len(debate[0])}
    for i, (of, (graphs, counted)) in enumerate(rest.items()):
        source = _Debates(sources, of, graphs)
        sets.insert(0, _fill(_Set(of, len(graphs)), _in_turn(counted.kinds_of_stories), source, room / (len(rest) - i)))
        room -= _size(sets[0].questions)
    kept = [one for one in sets if one.questions]
    if not kept:
        return None
    facts = about(sources, {one.of: len(one.questions) for one in kept})
    return {"about": {**facts, "of": {one.of: one.n for one in kept}}, "sets": [one.held() for one in kept]}


def _size(questions: Sequence[Any]) -> int:
    return sum(len(_json(q)) for q in questions)


def _json(value: Any) -> bytes:
    return storable(json.dumps(value, ensure_ascii=False)).encode()


def _in_turn(kinds: Mapping[int, int]) -> Iterator[int]:
    """Places of questions, kind by kind in turn; ``kinds`` are the kinds by place."""
    queues: dict[int, list[int]] = {}
    for at, kind in reversed(list(kinds.items())):
        queues.setdefault(kind, []).append(at)
    while queues:
        for kind in _TURN:
            if kind in queues:
                yield queues[kind].pop()
                if not queues[kind]:
                    del queues[kind]
        for kind in [k for k in queues if k not in _TURN]:
            yield queues[kind].pop()
            if not queues[kind]:
                del queues[kind]


def _fill(into: _Set, ranked: Iterator[int], source: _Tests | _Debates, room: float) -> _Set:
    """Fill a set with the questions that fit, in their own order."""
    chosen: list[tuple[int, tuple[dict[str, Any], int, Mapping[Any, str]]]] = []
    for at in ranked:
        question = source.question(at)
        room -= len(_json(question[0]))
        if room < 0:
            break
        chosen.append((at, question))
    for _, question in sorted(chosen, key=lambda one: one[0]):
        into.add(*question)
    return into


class _Debates:
    """The debates of a stage."""

    def __init__(self, sources: Sources, of: str, graphs: Stored) -> None:
        self.graphs, self.of, self.task = graphs, of, sources.task

    def question(self, at: int) -> tuple[dict[str, Any], int, Mapping[Any, str]]:
        graph = self.graphs[at]
        shown = {"stage": self.of, **question_facts(graph, self.task)}
        spent = sum(n.usage.prompt + n.usage.completion for n in graph.nodes)
        return _question(shown["problem"], [shown], []), spent, seats(graph)


def _question(problem: Any, debates: list[Any], answers: list[Any]) -> dict[str, Any]:
    return {"problem": problem, "debates": debates, "answers": answers, "episodes": [], "rows": [], "calls": []}


class _Tests:
    """The test questions, with the answers of every arm and seed, and the committee's debates if it had any."""

    def __init__(self, sources: Sources, debated: tuple[Stored, Debated] | None) -> None:
        self.task = sources.task
        self.exams = _exams(sources)
        self.graphs: dict[str, int] = {}
        self._stored = debated[0] if debated else None
        if self._stored is not None:
            self.graphs = {graph.problem.id: at for at, graph in enumerate(self._stored)}
        rows = next(iter(self.exams.values()), [])
        self.ids = [row.problem for row in rows] or list(self.graphs)
        self._groups = {row.problem: row.group for row in rows}
        self._known: dict[str, Problem] = sources.problems("test") if self.ids and not self.graphs else {}
        self._rows = {key: {row.problem: row for row in rows} for key, rows in self.exams.items()}
        self._main = about(sources, {})["main"]

    def _first(self, arm: str | None) -> Mapping[str, Judged]:
        return next((rows for (name, _), rows in self._rows.items() if name == arm), {})

    def ranked(self) -> Iterator[int]:
        before, after = self._first("student"), self._first(self._main)

        def kind(problem: str) -> int:
            a, b = before.get(problem), after.get(problem)
            if a is None or b is None:
                return 3
            return 0 if b.correct and not a.correct else 1 if a.correct and not b.correct else 2 if not b.correct else 3

        return _in_turn({at: kind(problem) for at, problem in enumerate(self.ids)})

    def question(self, at: int) -> tuple[dict[str, Any], int, Mapping[Any, str]]:
        problem, letters = self.ids[at], dict[Any, str]()
        debates, spent = [], 0
        known = self._known.get(problem)
        shown: dict[str, Any] = {
            "id": problem,
            "question": known.question if known else "",
            "gold": known.gold if known else "",
            "group": self._groups.get(problem, ""),
        }
        if self._stored is not None and problem in self.graphs:
            graph: Graph = self._stored[self.graphs[problem]]
            debates = [{"stage": "test", **question_facts(graph, self.task)}]
            shown = debates[0]["problem"]
            letters.update(seats(graph))
            spent = sum(n.usage.prompt + n.usage.completion for n in graph.nodes)
        answers = []
        for (arm, seed), rows in self._rows.items():
            if (row := rows.get(problem)) is not None:
                answers.append({"arm": arm, "seed": seed, **answer_facts(row)})
                letters[arm, seed] = letter(row)
        return _question(shown, debates, answers), spent, letters


def _exams(sources: Sources) -> dict[tuple[str, int], list[Judged]]:
    """The answers of every arm and seed, in the order of the results."""
    answers: dict[tuple[str, int], list[Judged]] = {}
    for arm in (sources.results or {}).get("arms", ()):
        for one in arm["seeds"]:
            file = sources.exam(arm["name"], one["seed"])
            if file is not None:
                answers[arm["name"], one["seed"]] = list(read_records(file, Judged))
    return answers


__all__ = ["BYTES", "browser_data"]
