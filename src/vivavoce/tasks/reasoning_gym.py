"""The data sets of reasoning-gym (arXiv:2505.24760): questions made by program, answers scored by the package itself.

::

    task: {name: reasoning_gym, datasets: [chain_sum, leg_counting], train: 1000, test: 200}

Nothing is downloaded. A question is made from data set, configuration, seed and number alone, so that a recipe makes
the same ones again with the same version of the package. The package runs in a process of its own
(:mod:`vivavoce.tasks.reasoning_worker`), because some of its scorers evaluate a reply as Python.
"""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from vivavoce.agents.replies import spoken
from vivavoce.errors import DataError, MissingDependency
from vivavoce.line_process import LineProcess, Pool
from vivavoce.plugins import near
from vivavoce.records import Grade, Problem, seed_of
from vivavoce.tasks import Task
from vivavoce.tasks.graded import Prose
from vivavoce.tasks.grading import stated_answer
from vivavoce.tasks.samples import Sample
from vivavoce.tasks.splitting import key_of, known_split, question_id

_ANSWER = re.compile(r"<answer>(.*?)</answer>", re.DOTALL | re.IGNORECASE)
_MEMORY = 1 << 30
"""Bytes that scoring one reply may take."""
_SECONDS = 5.0
_AT_ONCE = 2
"""Processes. Each loads the package, which takes some seconds."""
_TRIES = 50
"""The number of repeated questions in a row after which the data set is taken to have no more."""
OFFICIAL: list[dict[str, Any]] = [{"datasets": "all", "train": 0, "test": 212}]
"""Two questions of each data set."""


class Options(BaseModel):
    """The data sets, the number of questions of all together, and how they are made."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    datasets: list[str] | Literal["all"] = Field(
        min_length=1, description="data sets by their names in reasoning-gym, each with an equal share; or all of them"
    )
    train: int = Field(default=1000, ge=0, description="training questions of all data sets together")
    test: int = Field(default=200, ge=0, description="test questions of all data sets together")
    seed: int = Field(default=0, ge=0, description="makes the questions; train and test never share one")
    config: dict[str, dict[str, Any]] = Field(
        default={}, description="configuration by data set, as reasoning-gym's create_dataset takes it: sizes, ranges"
    )
    right_from: float = Field(
        default=1.0, gt=0, le=1, description="score from which an answer counts as right; some scorers give parts of 1"
    )


class _Place(NamedTuple):
    """The source of a question: data set, configuration, seed and number; and an answer that is right."""

    name: str
    config: dict[str, Any]
    seed: int
    number: int
    example: str


@dataclass
class ReasoningGym(Prose):
    """Questions of reasoning-gym as a :class:`~vivavoce.tasks.Task`. A problem's group is its data set.

    ``grade`` waits for another process. The gold answer is empty for data sets that name none, because several answers
    are right.
    """

    options: Options
    name: str = "reasoning_gym"
    answer_format: str = "End with the final answer between <answer> and </answer>, and put nothing else there."
    waits: bool = True
    left_out: list[str] = field(default_factory=list)
    _made: dict[str, list[Problem]] = field(default_factory=dict)
    _places: dict[str, _Place] = field(default_factory=dict)

    def problems(self, split: str) -> list[Problem]:
        """The questions of a split, one data set after the other.

        Raises MissingDependency without the package, DataError if a data set or its configuration is not as the
        package wants it, or has fewer different questions than are asked for.
        """
        known_split(split, self.name)
        if not self._made:
            seen = set[str]()
            for part in ("test", "train"):  # what is tested is not trained on, so it goes first
                self._made[part] = list(self._draw(part, seen))
        return self._made[split]

    def grade(self, problem: Problem, text: str) -> Grade:
        """The package's score of the text between the last ``<answer>`` tags, else behind ``Final answer:``.

        A reply that its scorer cannot take is wrong, with the reason.
        """
        answer = _answer(text)
        if not answer:
            return Grade(None, False, "no_answer")
        place = self._place(problem)
        score = _ask({"score": [place.name, place.config, place.seed, place.number, answer]})
        if isinstance(score, str):
            return Grade(answer, False, reason=score)
        return Grade(answer, score >= self.options.right_from)

    def same(self, problem: Problem, a: str, b: str) -> bool:
        """Whether two answers are equal but for spaces and case."""
        return key_of(a) == key_of(b)

    def samples(self, split: str) -> Iterator[Sample]:
        """Samples for each question: an answer that the package says is right, and the answer to another question of
        the data set (else words that answer nothing).
        """
        problems = self.problems(split)
        for i, problem in enumerate(problems):
            place = self._place(problem)
            right = problem.gold or place.example
            others = (p.gold for p in problems[i + 1 :] + problems[:i] if p.group == problem.group)
            other = next((gold for gold in others if gold and key_of(gold) != key_of(right)), "")
            wrong = tuple(_in_tags(text) for text in (other, "none of these") if text)
            odd = "" if right else "the package gives no answer that is right"
            where = f"reasoning_gym, {place.name}, question {place.number}"
            yield Sample(problem, (_in_tags(right),) if right else (), wrong, where, odd)

    def _draw(self, split: str, seen: set[str]) -> Iterator[Problem]:
        o = self.options
        known: list[str] = _ask({"names": True})
        names = known if o.datasets == "all" else o.datasets
        for name in (*names, *o.config):
            if name not in known:
                raise DataError(f"reasoning-gym has no data set {name!r}{near(name, known)}", "task.datasets")
        total = o.train if split == "train" else o.test
        for i, name in enumerate(names):
            share = total // len(names) + (i < total % len(names))
            yield from self._of(name, share, split, seen)

    def _of(self, name: str, share: int, split: str, seen: set[str]) -> Iterator[Problem]:
        o = self.options
        config = o.config.get(name, _COMPOSITE if name == "composite" else {})
        seed, index, count, repeats = seed_of(o.seed, split, name), 0, 0, 0
        while count < share:
            made = _ask({"make": [name, config, seed, index, share - count]})
            if isinstance(made, dict):
                do = "correct task.config; the package's documentation has the keys of each data set"
                raise DataError(f"reasoning-gym cannot make it: {made['failed']}", f"data set {name}", do)
            for question, gold, example in made:
                key = key_of(question)
                if key in seen:
                    repeats += 1
                    if repeats == _TRIES:
                        what = f"only {count} of {share} questions are different"
                        do = "ask for fewer, or make the data set larger in task.config"
                        raise DataError(what, f"data set {name}, {split}", do)
                else:
                    repeats, count = 0, count + 1
                    seen.add(key)
                    problem = Problem(question_id(self.name, f"{name}\n{question}"), question, gold, name)
                    self._places[problem.id] = _Place(name, config, seed, index, example)
                    yield problem
                index += 1

    def _place(self, problem: Problem) -> _Place:
        if problem.id not in self._places:
            self.problems("test")
        if problem.id not in self._places:
            do = "grade with the task's own options and the version of reasoning-gym that made the question"
            raise DataError("the question is not among those of the task", problem.id, do)
        return self._places[problem.id]


_COMPOSITE: dict[str, Any] = {"datasets": [{"name": "chain_sum"}, {"name": "leg_counting"}]}
"""The configuration of a ``composite`` without one, which the package does not make."""


def _answer(text: str) -> str:
    """The text that a reply gives for its answer; empty if it gives none."""
    final = spoken(text)
    if tagged := _ANSWER.findall(final):
        return tagged[-1].strip()
    return (stated_answer(final) or "").strip()


def _in_tags(answer: str) -> str:
    return f"<answer>{answer}</answer>"


class _Process(LineProcess):
    """One process of the package."""

    def __init__(self) -> None:
        command = [sys.executable, "-B", "-m", "vivavoce.tasks.reasoning_worker", str(_MEMORY), str(_SECONDS)]
        super().__init__(command, PYTHONHASHSEED="0")  # equal seeds make equal questions only if sets have one order
        if not self.says_ready():
            self.close()
            do = f"see what `{sys.executable} -c 'import reasoning_gym'` says; pip install 'vivavoce[reasoning-gym]'"
            raise MissingDependency("reasoning-gym cannot be started", "task", do)


_pool = Pool(_AT_ONCE, _Process)


def _ask(request: dict[str, Any]) -> Any:
    """The answer to a request. Raises MissingDependency without the package."""
    if importlib.util.find_spec("reasoning_gym") is None:
        do = "pip install 'vivavoce[reasoning-gym]'"
        raise MissingDependency("reasoning-gym is not installed", "task", do)
    with _pool.take() as process:
        try:
            return process.ask(request)
        except EOFError:
            return "the process that scores ended" if "score" in request else {"failed": "the process ended"}


def task(options: Options) -> Task:
    """Open the data sets; nothing is made before the task is asked for problems."""
    return ReasoningGym(options)


__all__ = ["OFFICIAL", "Options", "ReasoningGym", "task"]
