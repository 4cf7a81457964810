"""A rehearsal of a protocol, which counts the calls of a debate before any is made.

The rehearsal *is* the debate, by the protocol's own page and with the real prompts, but no agent is asked: stand-ins
give texts of the expected length that are right as often as expected. So stop rules, budgets of context and other
decisions of a protocol count as they will. Its bounds come from the same page, played through by committees in which
all are right, all are wrong, or one differs from the others.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

from vivavoce.agents import Agent
from vivavoce.agents.journal import Answered, Journal
from vivavoce.committee.prompting import Parts, PromptSet
from vivavoce.committee.scores import Score
from vivavoce.committee.table import Setting, hold
from vivavoce.graph import Graph
from vivavoce.records import Grade, Message, Problem, Prompt, Reply, Sampling, Usage
from vivavoce.tasks import Task

CountPrompt = Callable[[str, Sequence[Message]], int]
"""Prompt tokens of an agent's call, by its name."""

JUDGED = ""
"""Stands in place of an agent's name for the answers that judges would be asked about, as calls, with their tokens."""
_WORD, _RIGHT, _WRONG = "\ue000", "\ue001", "\ue002"  # of a private area, so that no question holds one
_PERSUADED = 0.5
"""Share of wrong answers that turn right if a right one is read (the schoolhouse's teachers: two in three)."""
_RANDOM = 16
"""Random committees among those that are played through for the bounds."""


@dataclass(frozen=True, slots=True)
class Span:
    """A quantity that is not known yet: its least, expected and greatest value."""

    least: float
    expected: float
    most: float

    def __add__(self, other: Span) -> Span:
        return Span(self.least + other.least, self.expected + other.expected, self.most + other.most)


@dataclass(frozen=True, slots=True)
class Planned:
    """The calls of one agent in one stage, and their cost in the recipe's currency."""

    stage: str
    agent: str
    calls: Span
    prompt_tokens: Span
    completion_tokens: Span
    money: Span
    measured: bool = False
    """Whether the range was measured, on questions that the committee was asked: two standard errors about their mean.
    Otherwise the range is all that the rules allow, and the expected value comes from a rehearsal or from the length of
    single replies.
    """


@dataclass(slots=True)
class Spend:
    """Calls and tokens of one agent."""

    calls: float = 0
    prompt: float = 0
    completion: float = 0
    cached: float = 0

    def __add__(self, other: Spend) -> Spend:
        return Spend(*(getattr(self, k) + getattr(other, k) for k in ("calls", "prompt", "completion", "cached")))

    def over(self, n: float) -> Spend:
        """The spend of one of ``n`` equal shares."""
        return Spend(self.calls / n, self.prompt / n, self.completion / n, self.cached / n)


Knows = Callable[[str, str, int], bool | None]
"""A function that tells whether an answer is right, by agent, question and how often the agent has answered it; None:
by chance.
"""


@dataclass(frozen=True)
class Expected:
    """The expected behaviour of the agents."""

    tokens: Callable[[str, str], int]
    """Tokens of a reply, by agent and kind of text."""
    right: Mapping[str, float]
    """Share of right first answers, by agent."""
    knows: Knows = lambda *_: None
    agree: bool | None = None
    """The answer of a score to whether all is well (a moderator's verdict, a review's score): yes, no, or None: at
    random.
    """
    readable: bool = True
    """Whether a review's score, and a stated confidence, can be read."""


@dataclass
class Absent:
    """An agent that is never asked, for a place in a rehearsal."""

    name: str
    identity: str = "absent"

    async def reply(self, messages: Sequence[Message], sampling: Sampling, seed: int) -> Reply:
        raise AssertionError(self.name)

    async def aclose(self) -> None: ...


async def rehearse(
    setting: Setting, problems: Sequence[Problem], expected: Expected, count: CountPrompt
) -> dict[str, Spend]:
    """Calls and tokens of each agent for one question, on average over ``problems``, by expectation alone."""
    desk = _Desk(expected, count)
    played = _with_desk(setting, desk)  # opened once, so that random draws differ from question to question
    for problem in problems:
        await hold(problem, played)
    return {name: spend.over(max(1, len(problems))) for name, spend in desk.spent.items()}


async def bounds(
    setting: Setting, problem: Problem, committee: Expected, count: CountPrompt
) -> dict[str, tuple[Spend, Spend]]:
    """The least and the most that one question takes of each agent, of all committees that are played through.

    ``committee`` gives the greatest length of replies. The bounds come from the page, so they hold for any protocol;
    they are the extremes that were found, not a proof.
    """
    spends_by_name: dict[str, list[Spend]] = {**{m.name: [] for m in setting.members}, JUDGED: []}
    for expected in _committees([m.name for m in setting.members], committee):
        desk = _Desk(expected, count)
        await hold(problem, _with_desk(setting, desk))
        for name, spends in spends_by_name.items():
            spends.append(desk.spent.get(name, Spend()))
    fields = ("calls", "prompt", "completion")
    return {
        name: (
            Spend(*(min(getattr(s, k) for s in all_) for k in fields)),
            Spend(*(max(getattr(s, k) for s in all_) for k in fields)),
        )
        for name, all_ in spends_by_name.items()
    }


async def sketch(setting: Setting, problem: Problem, count: CountPrompt) -> Graph:
    """One debate without calls: the first agent that speaks is right, all others are wrong, and texts are empty.

    Its prompts are those of a run, up to the texts of others.
    """
    first = setting.members[0].name
    expected = Expected(lambda name, kind: 1, dict.fromkeys((m.name for m in setting.members), 0.5), agree=False)
    desk = _Desk(replace(expected, knows=lambda agent, question, times: agent == first), count)
    return await hold(problem, _with_desk(setting, desk))


def _committees(names: Sequence[str], expected: Expected) -> Iterator[Expected]:
    """Committees that make a protocol talk as little and as much as it may."""

    def made(knows: Knows, agree: bool, readable: bool) -> Expected:
        return replace(expected, knows=knows, agree=agree, readable=readable)

    for agree, readable in ((True, True), (False, False)):
        yield made(lambda *_: True, agree, readable)
        yield made(lambda *_: False, agree, readable)
        for name in names:
            yield made(lambda a, q, i, name=name: a == name, agree, readable)
            yield made(lambda a, q, i, name=name: a != name, agree, readable)
            yield made(lambda a, q, i, name=name: a == name and i > 0, agree, readable)
    for k in range(_RANDOM):
        rng = random.Random(k)
        drawn: dict[tuple[str, int], bool] = {}
        yield made(lambda a, q, i, rng=rng, drawn=drawn: drawn.setdefault((a, i), rng.random() < 0.5), False, False)


def _with_desk(setting: Setting, desk: _Desk) -> Setting:
    return replace(
        setting,
        journal=cast(Journal, desk),
        task=cast(Task, _Judge(setting.task)),
        prompts=cast(PromptSet, _Prompts(setting.prompts, desk.expected)),
    )


def words(text: str) -> tuple[str, int]:
    """A text without the words that a stand-in made up, and the number of those words: each counts as one token."""
    made_up = text.count(_WORD)
    return (text.replace(_WORD, "").replace(_RIGHT, "").replace(_WRONG, ""), made_up) if made_up else (text, 0)


@dataclass
class _Desk:
    """Takes the place of a journal: it makes no call, and counts each."""

    expected: Expected
    count: CountPrompt
    spent: dict[str, Spend] = field(default_factory=dict)
    _right: dict[tuple[str, str], bool] = field(default_factory=dict)
    _times: dict[tuple[str, str], int] = field(default_factory=dict)

    async def call(self, agent: Agent, prompt: Prompt, sampling: Sampling, seed: int, **tags: Any) -> Answered:
        name, kind, rng = agent.name, tags["kind"], random.Random(seed)
        messages = prompt.chat
        n = min(self.expected.tokens(name, kind), sampling.max_new_tokens)
        self.spent[name] = self.spent.get(name, Spend()) + Spend(1, self.count(name, messages), n)
        sign = ""
        if kind in ("answer", "rationale"):
            self.spent[JUDGED] = self.spent.get(JUDGED, Spend()) + Spend(1, 0, n)
            key = (tags["question"], name)
            times = self._times[key] = self._times.get(key, -1) + 1
            right = self.expected.knows(name, tags["question"], times)
            if right is None:
                last = messages[-1]["content"]
                if _WORD in last and key in self._right:
                    right = self._right[key] or (_RIGHT in last and rng.random() < _PERSUADED)
                else:
                    right = rng.random() < self.expected.right.get(name, 0.7)
                wrong = 1 + rng.randrange(3)  # three ways to be wrong: they may agree
            else:
                wrong = 1 + sorted(self.expected.right).index(name) if name in self.expected.right else 1
            self._right[key] = right
            sign = _RIGHT if right else _WRONG * wrong
        text = f"{sign}{' '.join([_WORD] * n)}"
        return Answered(f"{name} {seed}", Reply(text, usage=Usage(0, n)))


class _Judge:
    """The task, for answers that are made up."""

    def __init__(self, task: Task) -> None:
        self.answer_format = task.answer_format

    def grade(self, problem: Problem, text: str) -> Grade:
        if text.startswith(_RIGHT):
            return Grade(problem.gold, True)
        return Grade(f"wrong {len(text) - len(text.lstrip(_WRONG))}", False)


class _Prompts:
    """The prompts. Score and confidence of a stand-in's reply are as high as expected, whatever the reply is."""

    def __init__(self, prompts: PromptSet, expected: Expected) -> None:
        self._prompts, self._expected, self._rng, self._sure = prompts, expected, random.Random(0), random.Random(1)

    def render(self, template: str, **values: Any) -> list[tuple[str, Parts]]:
        return self._prompts.render(template, **values)

    def confidence(self, text: str) -> float | None:
        if not self._expected.readable:
            return None
        return float(self._sure.random() < 0.5 if self._expected.agree is None else self._expected.agree)

    def score(self, text: str, kind: str) -> float:
        agree = self._rng.random() < 0.5 if self._expected.agree is None else self._expected.agree
        return 1.0 if agree else 0.0

    def review_score(self, text: str, form: object) -> Score:
        return Score(3.0, "ok") if self._expected.readable else Score(None, "no_answer")


__all__ = [
    "JUDGED",
    "Absent",
    "CountPrompt",
    "Expected",
    "Planned",
    "Span",
    "Spend",
    "bounds",
    "rehearse",
    "sketch",
    "words",
]
