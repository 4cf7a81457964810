"""How many calls a debate will make, before any is made: bounds by its rules, and a rehearsal for what to expect.

The rehearsal *is* the debate, by the same code and with the real prompts, in which nobody is asked: stand-ins give
texts of the expected length that are right as often as expected. So topology, budgets of context and stop rules count
as they will.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, cast

from vivavoce.agents import Agent
from vivavoce.agents.journal import Answered, Journal
from vivavoce.debate.prompting import PromptSet
from vivavoce.debate.review import Panel, examined, reviewed
from vivavoce.debate.rounds import Committee, debate
from vivavoce.debate.rules import DebateRules
from vivavoce.debate.scores import Score
from vivavoce.records import Grade, Message, Problem, Reply, Sampling, Usage
from vivavoce.tasks import Task

Counter = Callable[[str, Sequence[Message]], int]
"""Prompt tokens of an agent's call, by its name."""

_WORD, _RIGHT, _WRONG = "\ue000", "\ue001", "\ue002"  # of a private area, so that no question holds one
_PERSUADED = 0.5
"""Share of wrong answers that turn right where a right one is read (the schoolhouse's teachers: two in three)."""


@dataclass(frozen=True, slots=True)
class Span:
    """A quantity that is not known yet: at least, as expected, at most."""

    least: float
    expected: float
    most: float

    def __add__(self, other: Span) -> Span:
        return Span(self.least + other.least, self.expected + other.expected, self.most + other.most)


@dataclass(frozen=True, slots=True)
class Planned:
    """What one agent will be asked in one stage, and what it costs in the recipe's currency."""

    stage: str
    agent: str
    calls: Span
    prompt_tokens: Span
    completion_tokens: Span
    money: Span
    measured: bool = False
    """The range is that of questions that were put to the committee, two standard errors about their mean; otherwise it
    is all that the rules allow, and what to expect comes from a rehearsal or from the length of single replies."""


@dataclass(slots=True)
class Spend:
    """Calls and tokens of one agent."""

    calls: float = 0
    prompt: float = 0
    completion: float = 0
    cached: float = 0


def calls_per_question(
    rules: DebateRules, teachers: int, role: Literal["teacher", "student"], samples: int
) -> tuple[int, int]:
    """Least and most calls of one member for one question.

    Least: the debate stops after round 0. Most: it goes to the last round, and in every round that is reflected on,
    the member is the one who has most to say: with k of A agents right, a right one criticises A-k and a wrong one
    reflects once (oracle roles); with gold-free roles everyone criticises A-1 and reflects.
    """
    if role == "student" and rules.student == "never":
        return 0, 0
    rounds = 1 if role == "student" and rules.student == "first_round" else rules.max_rounds
    present = teachers + (rules.student != "never")
    reflected = rules.max_rounds - (0 if rules.last_round_reflect else 1)
    targets = 1 if rules.feedback_to == "student_only" else present - 1
    criticises = rules.feedback_from == "all_right" or (rules.feedback_from == "teachers_only" and role == "teacher")
    critiques = targets if criticises and not (rules.feedback_to == "student_only" and role == "student") else 0
    most = samples + rounds - 1
    for r in range(reflected):
        if role == "student" and r >= rounds:
            break
        notes = (critiques, int(rules.reflect))
        most += sum(notes) if rules.roles == "gold_free" else max(notes)
    least = samples + (rounds - 1 if rules.stop == "cap_only" and rules.later_rounds == "always" else 0)
    return least, most


@dataclass(frozen=True)
class Expected:
    """What is thought of the agents: tokens of a reply by name and kind, and the share of right first answers."""

    tokens: Callable[[str, str], int]
    right: Mapping[str, float]


@dataclass
class Absent:
    """An agent that only keeps a seat."""

    name: str
    identity: str = "absent"

    async def reply(self, messages: Sequence[Message], sampling: Sampling, seed: int) -> Reply:
        raise AssertionError(self.name)

    async def aclose(self) -> None: ...


def seat(name: str) -> Agent:
    """An agent that only keeps a seat."""
    return Absent(name)


async def rehearse(
    table: Committee | Panel, problems: Sequence[Problem], who: Expected, count: Counter
) -> dict[str, Spend]:
    """Calls and tokens of each agent for one question, on average over ``problems``, by expectation alone."""
    desk = _Desk(who, count)
    played: Any = replace(
        table,
        journal=cast(Journal, desk),
        task=cast(Task, _Judge(table.task)),
        prompts=cast(PromptSet, _Prompts(table.prompts)),
    )
    for problem in problems:
        if isinstance(played, Panel):
            await reviewed(await examined(problem, played), played)
        else:
            await debate(problem, played)
    n = max(1, len(problems))
    return {name: Spend(s.calls / n, s.prompt / n, s.completion / n) for name, s in desk.spent.items()}


def words(text: str) -> tuple[str, int]:
    """A text without the words that a stand-in made up, and how many those were: each counts as one token."""
    made_up = text.count(_WORD)
    return (text.replace(_WORD, "").replace(_RIGHT, "").replace(_WRONG, ""), made_up) if made_up else (text, 0)


@dataclass
class _Desk:
    """In the place of a journal: no call is made, and each is counted."""

    who: Expected
    count: Counter
    spent: dict[str, Spend] = field(default_factory=dict)
    _right: dict[tuple[str, str], bool] = field(default_factory=dict)

    async def call(
        self, agent: Agent, messages: Sequence[Message], sampling: Sampling, seed: int, **tags: Any
    ) -> Answered:
        name, kind, rng = agent.name, tags["kind"], random.Random(seed)
        n = min(self.who.tokens(name, kind), sampling.max_new_tokens)
        spent = self.spent.setdefault(name, Spend())
        spent.calls += 1
        spent.prompt += self.count(name, messages)
        spent.completion += n
        sign = ""
        if kind in ("answer", "rationale"):
            read = messages[-1]["content"]
            key = (tags["question"], name)
            if _WORD in read and key in self._right:
                right = self._right[key] or (_RIGHT in read and rng.random() < _PERSUADED)
            else:
                right = rng.random() < self.who.right.get(name, 0.7)
            self._right[key] = right
            sign = _RIGHT if right else _WRONG * (1 + rng.randrange(3))  # three ways to be wrong: they may agree
        text = f"{sign}{' '.join([_WORD] * n)}"
        return Answered(f"{name} {seed}", Reply(text, usage=Usage(0, n)))


class _Judge:
    """The task, as far as made-up answers go."""

    def __init__(self, task: Task) -> None:
        self.answer_format = task.answer_format

    def grade(self, problem: Problem, text: str) -> Grade:
        if text.startswith(_RIGHT):
            return Grade(problem.gold, True)
        return Grade(f"wrong {len(text) - len(text.lstrip(_WRONG))}", False)


class _Prompts:
    """The prompts; whatever a stand-in says, its score can be read."""

    def __init__(self, prompts: PromptSet) -> None:
        self.render, self.pose = prompts.render, prompts.pose

    def confidence(self, text: str) -> None: ...

    def score(self, text: str) -> None: ...

    def review_score(self, text: str, form: object) -> Score:
        return Score(3.0, "ok")
