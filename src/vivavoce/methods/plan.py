"""What a run will ask for, counted without asking: calls and tokens by stage and agent."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from vivavoce.config import AgentSpec, Recipe
from vivavoce.debate.plan import Planned, calls_per_question
from vivavoce.debate.prompting import prompt_set
from vivavoce.debate.review import ROLES, ReviewRules
from vivavoce.debate.rules import DebateRules
from vivavoce.debate.speaking import Rules, asked
from vivavoce.methods.review_arms import Arm
from vivavoce.records import Problem
from vivavoce.tasks import Task, open_task

_SAMPLE = 50


def plan_debate(recipe: Recipe, rules: DebateRules, attempts: int, students: int) -> list[Planned]:
    """Calls of a debate on the training questions, of the student's later attempts, and of all tests.

    ``students`` is how many trained models sit the test. Later rounds and notes read the most that others can say.
    """
    counted = _Counted(recipe, rules)
    train, test, heard = counted.train, counted.test, sum(t.max_new_tokens for t in recipe.teachers)
    for spec in recipe.teachers:
        least, most = calls_per_question(rules, len(recipe.teachers), "teacher", spec.samples)
        counted.add("debate:train", spec, least * train, most * train, (most - spec.samples) * train * heard)
    spec = recipe.student
    least, most = calls_per_question(rules, len(recipe.teachers), "student", spec.samples)
    counted.add("debate:train", spec, least * train, most * train, (most - spec.samples) * train * heard)
    tries = attempts * train * len(recipe.seeds)
    counted.add("attempts", spec, tries, tries)
    counted.tests(students)
    if recipe.test.committee:
        for spec in recipe.teachers:
            calls = recipe.test.committee_rounds * test
            counted.add("debate:test", spec, calls, calls, (calls - test) * heard)
    return counted.planned


def plan_states(
    recipe: Recipe, rules: DebateRules, tables: Sequence[Sequence[str] | None], students: int, seen: int = 0
) -> list[Planned]:
    """Calls of debates on the student's states, one for each table of debaters (None: all teachers), and of all tests.

    First turns are the same at every table and are paid once. ``seen`` more debates are held by all on an answer of
    the student's. Scoring the student's tokens is no call.
    """
    counted = _Counted(recipe, rules)
    train = counted.train
    for spec in recipe.teachers:
        sizes = [len(t) if t is not None else len(recipe.teachers) for t in tables if t is None or spec.name in t]
        sizes += [len(recipe.teachers) + 1] * seen
        later = (rules.max_rounds - 1) * len(sizes)
        calls = (spec.samples + later) * train if sizes else 0
        turns = sum(sizes) * sum(range(1, rules.max_rounds)) if rules.reads == "all_rounds" else sum(sizes) * later
        counted.add("debate:states", spec, calls, calls, turns * train * spec.max_new_tokens)
    counted.add("debate:states", recipe.student, seen * train, seen * train)
    counted.tests(students)
    return counted.planned


def plan_review(recipe: Recipe, rules: ReviewRules, arms: Sequence[Arm]) -> list[Planned]:
    """Calls of an exam with feedback, rationales and reviews, of later exams, and of all tests.

    How many mistakes the student will make is what the exam is for: least, none; most, every question, with every
    unreadable score asked for again.
    """
    counted = _Counted(recipe, rules)
    train, names = counted.train, [t.name for t in recipe.teachers]
    authors, commenters, reviewers = (rules.named(role, names) for role in ROLES)
    later = sum(arm.exams - 1 for arm in arms) * len(recipe.seeds)
    exams = recipe.student.samples * train * (1 + later)
    counted.add("review:train", recipe.student, exams, exams)
    read = max(recipe.student.max_new_tokens, *(t.max_new_tokens for t in recipe.teachers))
    for spec in recipe.teachers:
        always = 0 if rules.per_question == "mistakes" else 1
        write = rules.rationales * (spec.name in authors)
        explain = int(rules.feedback and spec.name in commenters) * (1 + later)
        peers = [a for a in authors if {"others": a != spec.name, "self": a == spec.name, "all": True}[rules.scope]]
        judge = rules.rationales * len(peers) * (spec.name in reviewers)
        most = (write + explain + judge * (1 + rules.retries)) * train
        least = always * write * train
        counted.add("review:train", spec, least, most, (explain + judge * (1 + rules.retries)) * train * read)
    counted.tests(1 + len(recipe.seeds) * len(arms))
    return counted.planned


class _Counted:
    """A plan in the making. Prompt tokens: those of the plain question (mean of the first 50), and what else is read.

    Completion tokens are ``max_new_tokens`` each. So tokens are upper bounds, and calls are a range.
    """

    def __init__(self, recipe: Recipe, rules: Rules) -> None:
        task = open_task(recipe.task.name, recipe.task.options)
        problems = task.problems("train")
        self.recipe, self.planned = recipe, list[Planned]()
        self.train, self.test = len(problems), len(task.problems("test"))
        self._count, self._prompts, self._rules = _counter(recipe), prompt_set(rules.prompts), rules
        self._plain = self._tokens(task, problems)

    def _tokens(self, task: Task, problems: Sequence[Problem]) -> int:
        shown = [self._prompts.render("answer", **asked(p, self._rules, task)) for p in problems[:_SAMPLE]]
        return sum(self._count(m["content"]) for ms in shown for m in ms) // max(1, len(shown))

    def add(
        self, stage: str, spec: AgentSpec, least: int, most: int, read: int = 0, new_tokens: int | None = None
    ) -> None:
        """Calls of an agent; ``read`` tokens of others' texts stand in all their prompts together."""
        if most:
            new = spec.max_new_tokens if new_tokens is None else new_tokens
            self.planned.append(Planned(stage, spec.name, least, most, most * self._plain + read, most * new))

    def tests(self, students: int) -> None:
        """``students`` models sit the test, and those of the other tasks."""
        calls, new = students * self.test, self.recipe.test.max_new_tokens
        self.add("test", self.recipe.student, calls, calls, 0, new)
        for name, spec in self.recipe.also_test.items():
            task = open_task(spec.name, spec.options)
            problems = task.problems("test")
            calls = students * len(problems)
            longer = calls * (self._tokens(task, problems) - self._plain)
            self.add(f"test:{name}", self.recipe.student, calls, calls, longer, new)


def _counter(recipe: Recipe) -> Callable[[str], int]:
    """Tokens of a text by the student's own tokenizer where it lies on disk, else four characters a token."""
    model = str(recipe.student.options.get("model", ""))
    if model.startswith("schoolhouse:"):
        from vivavoce.schoolhouse import weights

        model = str(weights(model.removeprefix("schoolhouse:")))
    file = Path(model) / "tokenizer.json"
    try:
        from tokenizers import Tokenizer
    except ImportError:
        return lambda text: len(text) // 4
    if not file.is_file() or "model" not in json.loads(file.read_text("utf-8")):
        return lambda text: len(text) // 4
    tokenizer = Tokenizer.from_file(str(file))
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids)
