"""Budgets of tokens, checked before anything is spent: the tokens of prompts and answers against the contexts of
models.

::

    a question  +  student.max_new_tokens, test.max_new_tokens     within the student's context
    a question  +  a teacher's max_new_tokens                      within its context
    a question  +  opd.max_new_tokens                              within opd.max_length and all contexts
    a question  +  any answer                                      within max_length of sft, dpo, two_task

Questions are known and counted by each model's own tokenizer. The length of a committee's replies is not known: `viva
doctor` estimates the longest calls. A run that could train nothing, or whose models take few of the questions, is
refused.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from vivavoce.agents.chat_template import AS_IT_CAME
from vivavoce.committee.prompting import prompt_set
from vivavoce.committee.wording import Wording
from vivavoce.config import AgentSpec, Recipe
from vivavoce.data.rules import TreeRules
from vivavoce.errors import DataError, RecipeError
from vivavoce.files import object_in
from vivavoce.methods.opad_arms import StepArm
from vivavoce.methods.opd_arms import OnPolicyArm
from vivavoce.methods.token_count import TokenCount, model_folders
from vivavoce.progress import say
from vivavoce.records import Message, Problem
from vivavoce.tasks import open_task
from vivavoce.train.objective import OnPolicyOptions
from vivavoce.train.settings import TrainSettings

ENOUGH = 0.95
"""Share of the questions that must leave room for an answer."""
_SECTIONS = ("sft", "two_task", "dpo", "warm.sft")
Plain = Callable[[Problem], Sequence[Message]]
"""A function that makes the prompt of a question alone."""


@dataclass(frozen=True, slots=True)
class Fit:
    """One budget that is too small: ``failed`` if a run would give little or nothing, else a ``warning``."""

    level: Literal["warning", "failed"]
    what: str
    message: str
    do: str


class TokenLimit(NamedTuple):
    """Tokens of prompt and answer together, and the words for it."""

    tokens: int
    text: str


class _Questions:
    """Questions, whose plain prompts are counted for one model after another.

    Prompts are made again for those that are long, because a million of them would take a gigabyte.
    """

    def __init__(self, problems: Sequence[Problem], plain: Plain) -> None:
        self._problems, self._plain = problems, plain
        self._bytes = array("Q", (sum(len(m["content"].encode()) for m in plain(problem)) for problem in problems))
        self._over = dict[tuple[TokenCount, int], list[int]]()  # several trainings often have the same room

    def __len__(self) -> int:
        return len(self._problems)

    def over(self, count: TokenCount, room: int) -> list[int]:
        """Tokens of the prompts that have more than ``room``."""
        if not self._problems or not count.exact:
            return []
        if (count, room) not in self._over:
            self._over[count, room] = self._count_long(count, room)
        return self._over[count, room]

    def _count_long(self, count: TokenCount, room: int) -> list[int]:
        # No token spells less than a byte, so most need no tokenizer.
        frame = count.messages([{**m, "content": "x"} for m in self._plain(self._problems[0])]) + 2
        long = [p for p, size in zip(self._problems, self._bytes, strict=True) if size + frame > room]
        return [n for n in (count.messages(list(self._plain(p))) for p in long) if n > room]


def budgets(
    recipe: Recipe, train: Sequence[Problem], tests: Mapping[str, Sequence[Problem]], plain: Plain
) -> Iterator[Fit]:
    """Every budget of ``recipe`` that some of the questions break; ``tests`` holds test questions by task."""
    in_training, in_tests = (
        _Questions(train, plain),
        {name: _Questions(problems, plain) for name, problems in tests.items()},
    )
    counts = {spec.name: TokenCount(spec) for spec in recipe.agents}
    student, own = recipe.student, context_of(recipe.student)
    for spec in recipe.agents:
        if (limit := _takes(spec)) and spec is not getattr(recipe, "user", None):
            key, what = f"{spec.name}.max_new_tokens", f"context {spec.name}"
            yield from _room(in_training, counts[spec.name], limit, key, spec.max_new_tokens, what)
    if own is not None:
        limit, new = TokenLimit(own, f"{student.name} takes {own:,} tokens"), recipe.test.max_new_tokens
        key = "test.max_new_tokens"
        for name, questions in in_tests.items():
            yield from _room(questions, counts[student.name], limit, key, new, key, f" of {name}")
    message = max((t.max_new_tokens for t in recipe.teachers), default=0)
    sections = [
        (name, settings, message, "teachers'") for name in _SECTIONS if (settings := _section(recipe, name)) is not None
    ]
    if (opd := _section(recipe, "opd")) is not None and (arms := _arms(recipe)):
        assert isinstance(opd, OnPolicyOptions), opd
        if any(_samples(arm, opd) for arm in arms):
            yield from _on_policy(recipe, opd, in_training, counts[student.name], own)
        else:
            sections.append(("opd", opd, student.max_new_tokens, "the student's"))
    for name, settings, longest, owner in sections:
        limit = _shorter(TokenLimit(settings.max_length, f"{name}.max_length is {settings.max_length:,}"), student, own)
        yield from _rows(in_training, counts[student.name], limit, name, longest, f"{owner} max_new_tokens")
    trees, dpo = getattr(recipe, "trees", None), _section(recipe, "dpo")
    if dpo and isinstance(trees, TreeRules) and trees.context != "none" and trees.context_budget >= dpo.max_length:
        message = f"trees.context_budget is {trees.context_budget:,} and dpo.max_length {dpo.max_length:,}"
        do = "lower the first or raise the second: longer rows are left out"
        yield Fit("warning", "trees.context_budget", f"{message}: the others' texts leave no room for an answer", do)
    shown: int = getattr(recipe.rules, "context_tokens", None) or 0
    for spec in recipe.agents if shown else ():
        if (limit := _takes(spec)) and shown + spec.max_new_tokens >= limit.tokens:
            message = f"debate.context_tokens is {shown:,} and {spec.name}.max_new_tokens {spec.max_new_tokens:,}"
            do = "lower one of the two: otherwise such calls fail or are cut"
            yield Fit("warning", "debate.context_tokens", f"{message}, but {limit.text}", do)


def questions_and_prompts(recipe: Recipe) -> tuple[Sequence[Problem], dict[str, Sequence[Problem]], Plain]:
    """The questions that :func:`budgets` reads beside a recipe: for training and test, with their plain prompts."""
    task = open_task(recipe.task.name, recipe.task.options)
    also = {name: open_task(spec.name, spec.options).problems("test") for name, spec in recipe.also_test.items()}
    wording = Wording(recipe.rules, prompt_set(recipe.rules.prompts), task)
    return recipe.questions(task), {"the test": task.problems("test"), **also}, wording.plain


def require(
    recipe: Recipe,
    train: Sequence[Problem],
    tests: Mapping[str, Sequence[Problem]],
    plain: Plain,
    share: Sequence[Problem] | None = None,
) -> None:
    """Raise RecipeError if a budget fails, with all that do; warn of a budget that only some questions break.

    Raises DataError if there are no questions to train on, or to test: a run would find out when all is paid.
    ``share`` holds the training questions of a part. They alone are counted, since counting a million takes minutes in
    each of its parts, unless they fail: too many of a few may be few of all.
    """
    parts = {"train": train, **{"test" if name == "the test" else f"also_test {name}": p for name, p in tests.items()}}
    if empty := [f"0 {part} questions" for part, problems in parts.items() if not problems]:
        raise DataError(", ".join(empty), "data", "is a limit 0, a file empty?")
    fits = list(budgets(recipe, train if share is None else share, tests, plain))
    if share is not None and any(fit.level == "failed" for fit in fits):
        fits = list(budgets(recipe, train, tests, plain))
    _settle(fits)


def require_room(spec: AgentSpec, questions: Mapping[str, Sequence[Problem]], plain: Plain, key: str, new: int) -> None:
    """Raise RecipeError if few of the questions leave a model room for answers of ``new`` tokens, the value of ``key``.

    For commands that ask one model plain questions; ``questions`` holds them by a name, such as ``the test``.
    """
    if (limit := _takes(spec)) is None:
        return
    count = TokenCount(spec)
    parts = [(f" of {name}" if name else "", _Questions(problems, plain)) for name, problems in questions.items()]
    _settle([fit for of, problems in parts for fit in _room(problems, count, limit, key, new, key, of)])


def _settle(fits: Sequence[Fit]) -> None:
    """Warn of budgets that some questions break; raise RecipeError with all that fail."""
    for fit in fits:
        if fit.level == "warning":
            say(f"{fit.message}: {fit.do}")
    failed = [fit for fit in fits if fit.level == "failed"]
    if failed:
        problem = "\n".join(fit.message for fit in failed)
        raise RecipeError(
            problem, ", ".join(fit.what for fit in failed), "; ".join(dict.fromkeys(f.do for f in failed))
        )


def context_of(spec: AgentSpec) -> int | None:
    """Tokens that a local model, or an adapter's base, can take; None for other models, and for a model that is not
    here.
    """
    folder = (model_folders(spec) or [None])[-1]
    if folder is None or not (folder / "config.json").is_file():
        return None
    config = object_in(folder / "config.json", AS_IT_CAME)
    return config.get("max_position_embeddings") or config.get("text_config", {}).get("max_position_embeddings")


def _takes(spec: AgentSpec) -> TokenLimit | None:
    context = context_of(spec)
    return None if context is None else TokenLimit(context, f"{spec.name} takes {context:,} tokens")


def _shorter(limit: TokenLimit, spec: AgentSpec, context: int | None) -> TokenLimit:
    """The limit, or the model's context if that is shorter."""
    short = context is not None and context < limit.tokens
    return TokenLimit(context, f"{spec.name} takes {context:,} tokens") if short and context else limit


def _room(
    questions: _Questions, count: TokenCount, limit: TokenLimit, key: str, new: int, what: str, of: str = ""
) -> Iterator[Fit]:
    """Whether questions leave room for answers of ``new`` tokens within a model's context."""
    over = questions.over(count, limit.tokens - new)
    if not over:
        return
    level = "failed" if len(over) > (1 - ENOUGH) * len(questions) else "warning"
    message = f"{limit.text}, {key} is {new:,}, and {len(over):,} of {len(questions):,} questions{of} have up to"
    do = f"lower {key}, use a model with a longer context, or leave long questions out"
    yield Fit(level, what, f"{message} {max(over):,} tokens", do)


def _on_policy(
    recipe: Recipe, opd: OnPolicyOptions, questions: _Questions, count: TokenCount, own: int | None
) -> Iterator[Fit]:
    """Whether enough states can be trained on, and scorers take them all."""
    limit = _shorter(TokenLimit(opd.max_length, f"opd.max_length is {opd.max_length:,}"), recipe.student, own)
    new = f"opd.max_new_tokens is {opd.max_new_tokens:,}"
    if over := questions.over(count, limit.tokens - opd.max_new_tokens):
        level = "failed" if len(over) > (1 - opd.min_coverage) * len(questions) else "warning"
        message = (
            f"{limit.text}, {new}, and {len(over):,} of {len(questions):,} questions have up to {max(over):,} tokens"
        )
        do = "raise opd.max_length, lower opd.max_new_tokens, or lower opd.min_coverage knowingly: they are left out"
        yield Fit(level, "opd.max_new_tokens", message, do)
    for spec in recipe.scoring_agents:
        takes = _takes(spec)
        if takes and (over := questions.over(TokenCount(spec), takes.tokens - opd.max_new_tokens)):
            message = f"scorer {takes.text}, {new}, and {len(over):,} of {len(questions):,} questions have up to"
            do = "lower opd.max_new_tokens, or use a scorer with a longer context"
            yield Fit("failed", "opd.max_new_tokens", f"{message} {max(over):,} tokens", do)


def _rows(
    questions: _Questions, count: TokenCount, limit: TokenLimit, section: str, longest: int, longest_of: str
) -> Iterator[Fit]:
    """Whether questions leave room for an answer in training rows, and for the ``longest`` that may be given."""
    key = f"{section}.max_length"
    if over := questions.over(count, limit.tokens - 2):
        level = "failed" if len(over) > (1 - ENOUGH) * len(questions) else "warning"
        message = (
            f"{limit.text}, and {len(over):,} of {len(questions):,} questions alone have up to {max(over):,} tokens"
        )
        yield Fit(level, key, message, f"raise {key}, or use a student with a longer context: such rows are left out")
    elif over := questions.over(count, limit.tokens - longest):
        longest_answer = f"{longest:,} tokens ({longest_of})"
        message = f"{limit.text}, and answers may have {longest_answer} after up to {max(over):,} of a question"
        yield Fit("warning", key, message, f"raise {key}: longer rows are left out")


def _section(recipe: Recipe, name: str) -> TrainSettings | None:
    at: Any = recipe
    for part in name.split("."):
        at = getattr(at, part, None)
    return at


def _arms(recipe: Recipe) -> list[OnPolicyArm | StepArm]:
    """The arms that learn from scorers."""
    ways = (getattr(one, "options", None) for one in getattr(recipe, "wanted", {}).values())
    return [options for options in ways if isinstance(options, OnPolicyArm | StepArm)]


def samples(recipe: Recipe, opd: OnPolicyOptions) -> bool:
    """Whether the student draws new answers in the on-policy training of any arm."""
    return any(_samples(arm, opd) for arm in _arms(recipe))


def _samples(arm: OnPolicyArm | StepArm, opd: OnPolicyOptions) -> bool:
    """Whether the student draws new answers in the training of an arm."""
    if isinstance(arm, StepArm):
        return arm.act_again
    rate = opd.on_policy if arm.on_policy is None else arm.on_policy
    return bool(rate or arm.sees_gold) and not arm.sees_action


__all__ = ["Fit", "budgets", "context_of", "questions_and_prompts", "require", "require_room", "samples"]
