"""Judges: models that say whether an answer is good, if no program can.

A :class:`JudgedTask` is a task whose answers a :class:`Jury` grades: in debates, tests and attempts alike, because all
of them grade through :func:`vivavoce.tasks.grade_of`. Each verdict is a call through the journal, under the stage
``judge:STAGE``, so that it is planned, capped, billed and resumed like any other::

    answer ──▶ each judge, (pairwise) in both orders ──▶ verdicts ──▶ mean or majority ──▶ Grade

A verdict that cannot be read decides nothing. If half of the judges or more have none, the answer is ``unjudged``: it
is neither right nor wrong, and nothing is learned from it.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from vivavoce.agents import Agent
from vivavoce.agents.journal import Journal
from vivavoce.agents.replies import spoken
from vivavoce.committee.prompting import PromptSet, prompt_set
from vivavoce.committee.scores import read_score
from vivavoce.errors import RecipeError
from vivavoce.records import GOLD, Grade, Problem, Prompt, Quote, Reply, Sampling, Status, digest, prompt, seed_of
from vivavoce.tasks import Task, grade_of, whole_lines

Order = Literal["", "first", "second"]
"""The place of the judged answer in a pair; empty if it is judged alone."""
KIND = "verdict"
"""Tag of these calls in the journal."""
_CUT: tuple[None, Status] = (None, "truncated")
_PREFERRED = re.compile(r"\[\s*(A|B|tie)\s*\][\s*_`.!]*$", re.IGNORECASE)
CAPPED = "the cap of the question left no room for a verdict"


class Judging(BaseModel):
    """The rules by which answers are judged."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    form: Literal["pointwise", "pairwise"] = Field(
        default="pointwise",
        description="pointwise: each judge scores the answer from 1 to `highest`; pairwise: each compares it with the "
        "gold answer (1: better, 1/2: as good, 0: worse), in both orders",
    )
    rubric: str = Field(default="", description="what a good answer is, in the words that judges are shown")
    highest: int = Field(default=10, ge=2, le=100, description="top of the scale of pointwise scores")
    right_from: float | None = Field(
        default=None,
        description="score from which an answer counts as right; None: 7 tenths of the scale, or as good as the gold "
        "answer",
    )
    decide: Literal["mean", "majority", "all"] = Field(
        default="mean",
        description="how several judges decide: by their mean score, by most of them, or only if all find the answer "
        "right",
    )
    swap: bool = Field(
        default=True, description="pairwise: ask in both orders; a judge that then contradicts itself counts as a tie"
    )
    reference: bool = Field(default=True, description="pointwise: show judges the gold answer, if there is one")
    tries: int = Field(
        default=2,
        ge=1,
        le=5,
        description="calls for one verdict at most, if earlier ones cannot be read and temperature is not 0",
    )
    decides: bool = Field(
        default=True, description="false: the task's own grader decides, and judges are only measured against it"
    )
    prompts: str = Field(
        default="judge", description="folder with pointwise.md and pairwise.md, under committee/prompts or a path"
    )

    @model_validator(mode="after")
    def _on_the_scale(self) -> Self:
        low, high = (1, self.highest) if self.form == "pointwise" else (0, 1)
        if self.right_from is not None and not low < self.right_from <= high:
            raise ValueError(f"right_from must lie above {low} and not above {high}, for {self.form} verdicts")
        return self

    @property
    def threshold(self) -> float:
        """The score from which an answer is right."""
        if self.right_from is not None:
            return self.right_from
        return 0.7 * self.highest if self.form == "pointwise" else 0.5

    @property
    def orders(self) -> tuple[Order, ...]:
        """The orders in which each judge is asked."""
        if self.form == "pointwise":
            return ("",)
        return ("first", "second") if self.swap else ("first",)

    def read(self, reply: Reply, order: Order) -> tuple[float | None, Status]:
        """The value that a reply states: a score, or (pairwise) 1, 1/2 or 0 for the judged answer; None unless the
        status is ok.
        """
        if not reply.text.strip():
            return None, "empty"
        if self.form == "pointwise":
            score = read_score(reply.text, "strict", 1, self.highest)
            value, status = score.value, score.status
        else:
            match = _PREFERRED.search(spoken(reply.text).rstrip())
            first = {"a": 1.0, "b": 0.0, "tie": 0.5}[match[1].lower()] if match else None
            value = first if first is None or order == "first" else 1 - first
            status = "no_answer" if value is None else "ok"
        if reply.cut:  # a 1 may have become 10
            before = replace(reply, text=whole_lines(reply.text), finish="stop")
            return (value, status) if value is not None and self.read(before, order) == (value, status) else _CUT
        return value, status


@dataclass(frozen=True, slots=True)
class Verdict:
    """One judge's verdict on one answer in one order. ``value`` is None unless ``status`` is ok."""

    judge: str
    order: Order
    value: float | None
    status: Status
    reason: str = ""


def values(verdicts: Sequence[Verdict]) -> dict[str, float | None]:
    """The opinion of each judge: the mean over the orders; None if one of them cannot be read.

    A judge that prefers the first answer in both orders, or the second in both, gives a tie.
    """
    means: dict[str, float | None] = {}
    for name in dict.fromkeys(v.judge for v in verdicts):
        own = [v.value for v in verdicts if v.judge == name]
        known = [value for value in own if value is not None]
        means[name] = fmean(known) if len(known) == len(own) else None
    return means


def _readable_scores(verdicts: Sequence[Verdict]) -> list[float]:
    """The opinions that can be read; empty if half of the judges or more have none."""
    by_judge = values(verdicts)
    known = [value for value in by_judge.values() if value is not None]
    return known if 2 * len(known) > len(by_judge) else []


def decide_verdict(verdicts: Sequence[Verdict], rules: Judging) -> bool | None:
    """Whether the answer is right; None if half of the judges or more have no verdict that can be read."""
    known = _readable_scores(verdicts)
    if not known:
        return None
    if rules.decide == "mean":
        return fmean(known) >= rules.threshold
    right = sum(value >= rules.threshold for value in known)
    return right == len(known) if rules.decide == "all" else 2 * right > len(known)


class Jury:
    """Judges that are open for calls. Raises RecipeError if the prompts lack a template.

    Args:
        judges: The agents that judge, with their sampling.
        rules: The rules.
        journal: The journal that every call goes through.
        seed: Other calls' seeds derive from it.
    """

    def __init__(
        self, judges: Sequence[tuple[Agent, Sampling]], rules: Judging, journal: Journal | None, seed: int = 0
    ) -> None:
        assert judges, "a jury needs at least one judge"
        self.judges, self.rules, self.journal, self.seed = tuple(judges), rules, journal, seed
        self.prompts = open_prompts(rules)

    @property
    def depends(self) -> list[Any]:
        """A hash of everything that verdicts depend on, beside the answers."""
        identities = [[agent.identity, agent.name, repr(sampling)] for agent, sampling in self.judges]
        return [identities, self.rules.model_dump(mode="json"), self.prompts.fingerprint, self.seed]

    async def verdicts(self, problem: Problem, text: str, stage: str, gold: bool | None = None) -> list[Verdict]:
        """The judges' verdicts on an answer. ``gold``: whether it is right, if a program knows; for the audit alone."""
        return list(
            await asyncio.gather(
                *(
                    self._ask_judge(agent, sampling, problem, text, order, stage, gold)
                    for agent, sampling in self.judges
                    for order in self.rules.orders
                )
            )
        )

    async def _ask_judge(
        self,
        agent: Agent,
        sampling: Sampling,
        problem: Problem,
        text: str,
        order: Order,
        stage: str,
        gold: bool | None,
    ) -> Verdict:
        assert self.journal is not None, "this jury only plans"
        prompt = judge_prompt(self.prompts, self.rules, problem, text, order)
        target = digest([problem.id, text])[:12]
        value, status, reason = None, "no_answer", ""
        for attempt in range(self.rules.tries if sampling.temperature else 1):
            seed = seed_of(self.seed, problem.id, target, agent.name, KIND, order, attempt)
            tags: dict[str, Any] = {"kind": KIND, "target": target, "order": order, "again": attempt}
            if gold is not None:
                tags["gold"] = int(gold)
            answered = await self.journal.call(
                agent, prompt, sampling, seed, stage=f"judge:{stage}", question=problem.id, **tags
            )
            if answered.reply is None:
                if answered.refused:
                    return Verdict(agent.name, order, None, "over_budget", CAPPED)
                return Verdict(agent.name, order, None, "error", str(answered.error))
            value, status = self.rules.read(answered.reply, order)
            if status == "ok":
                break
            reason = f"{agent.name}: no verdict can be read"
        return Verdict(agent.name, order, value, status, reason)


def open_prompts(rules: Judging) -> PromptSet:
    """The templates by which judges are asked. Raises RecipeError if one is missing or uses what it is not given."""
    prompts = prompt_set(rules.prompts)
    prompts.need([rules.form], ("reference", "rubric", "highest", "other"))
    return prompts


def judge_prompt(prompts: PromptSet, rules: Judging, problem: Problem, text: str, order: Order) -> Prompt:
    """The prompt by which a judge is asked about an answer."""
    answer, gold = Quote(digest(text)[:16], spoken(text)), Quote(GOLD, problem.gold)
    given: dict[str, Any] = {"question": problem.question, "rubric": rules.rubric, "highest": rules.highest}
    if rules.form == "pairwise":
        given |= {"text": answer, "other": gold} if order == "first" else {"text": gold, "other": answer}
    else:
        given |= {"text": answer, "reference": gold if rules.reference and problem.gold else None}
    return prompt(rules.form, (), tuple(prompts.render(rules.form, **given)))


class JudgedTask:
    """A task whose answers a jury grades; all else is the task's own."""

    def __init__(self, task: Task, jury: Jury) -> None:
        self._task, self.jury = task, jury
        self.ruled: Callable[[Problem, str, bool, str], Any] = self._rule

    def __getattr__(self, name: str) -> Any:
        return getattr(self._task, name)

    async def _rule(self, problem: Problem, text: str, cut: bool, stage: str) -> Grade:
        """The grade of a whole reply, which is not empty.

        A reply that was cut is ``truncated``, and no verdict is paid for it. The judged text is the answer that the
        task reads, or the whole reply if it reads none.
        """
        by_task = await grade_of(self._task, problem, text, cut)
        if cut:
            return by_task if not self.jury.rules.decides else Grade(None, False, "truncated")
        known = by_task.correct if by_task.status != "unjudged" else None
        verdicts = await self.jury.verdicts(problem, text, stage, known)
        opinions = _readable_scores(verdicts)
        score = fmean(opinions) if opinions else None
        if not self.jury.rules.decides:
            return replace(by_task, score=score)
        answer = by_task.answer if by_task.answer is not None else spoken(text).strip()
        right = decide_verdict(verdicts, self.jury.rules)
        if right is None:
            why = [v.reason for v in verdicts if v.value is None]
            return Grade(answer, None, "unjudged", CAPPED if CAPPED in why else why[0])
        return Grade(answer, right, score=score)


def need_references(problems: Sequence[Problem], rules: Judging) -> None:
    """Raise RecipeError if answers are to be compared with gold answers that are not there."""
    bare = [p for p in problems if not p.gold] if rules.form == "pairwise" else []
    if bare:
        what = f"judges compare with the gold answer, and {len(bare):,} of {len(problems):,} questions have none"
        raise RecipeError(what, "judge.form", "use form: pointwise, or give every question an answer to compare with")


__all__ = [
    "CAPPED",
    "KIND",
    "JudgedTask",
    "Judging",
    "Jury",
    "Order",
    "Verdict",
    "decide_verdict",
    "judge_prompt",
    "need_references",
    "open_prompts",
    "values",
]
