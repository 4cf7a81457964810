"""The wording of prompts: the options that every protocol shares, and the one place that makes prompts.

The debate itself, training rows, scorers' views and tests all get their prompts from :class:`Wording`, so that they
agree.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from vivavoce.committee.prompting import Parts, PromptSet, join_parts
from vivavoce.committee.reading import CountTokens, Showing, Statement, fit, statements
from vivavoce.errors import RecipeError
from vivavoce.records import GOLD, Message, Node, Problem, Prompt, Quote, prompt
from vivavoce.tasks import Task

CONFIDENCE = "confidence"
"""The template by which an agent is asked for its confidence in an answer that it gave, and the kind of its reply."""


class Talk(BaseModel):
    """Options of every protocol. A protocol's own ``Options`` is a subclass with its own keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
    templates: ClassVar[tuple[str, ...]] = ("answer",)
    """Templates that the prompt set must have, checked before anything is spent."""
    values: ClassVar[tuple[str, ...]] = ()
    """Values that the protocol gives to templates beside the usual ones: ``table.ask(..., name=value)``."""

    protocol: str = Field(
        default="", description="who speaks when: a file of vivavoce/protocols, or a path to one; empty: the method's"
    )
    prompts: str = Field(
        default="general",
        description="prompt set: a folder name under committee/prompts, or a path; left out, it is the task's own if "
        "that has what the protocol asks (code, for tasks of programs), else general",
    )
    word_limit: int = Field(
        default=500, ge=1, description="words that prompts allow for an answer or a note (paper: 500)"
    )

    @property
    def wants_confidence(self) -> bool:
        """Whether prompts ask for a stated confidence."""
        return False

    @property
    def asks_confidence_again(self) -> bool:
        """Whether an agent that stated no confidence is asked for it once more."""
        return False

    @property
    def asked_templates(self) -> tuple[str, ...]:
        """The templates that the prompt set must have, by these options."""
        return (*self.templates, CONFIDENCE) if self.asks_confidence_again else self.templates

    @property
    def showing(self) -> Showing:
        """The options of what agents read of each other."""
        return Showing()

    @property
    def context_budget(self) -> int | None:
        """Tokens that the texts of others may take in a prompt; None: any number."""
        return None

    @property
    def score_form(self) -> Literal["strict", "compat"]:
        """The form in which a review's score is read."""
        return "strict"

    @property
    def tells(self) -> tuple[str, ...]:
        """Templates by which agents are told the right answer before they answer."""
        return ()

    @property
    def needs_gold(self) -> bool:
        """Whether correctness, known from gold, decides which agent says what, or when a debate ends."""
        return False

    def for_tests(self, rounds: int) -> Self:
        """The options for test questions: the same, without anything that depends on gold, and with ``rounds`` answer
        rounds.

        Raises RecipeError if the protocol cannot do without gold.
        """
        if self.needs_gold:
            raise RecipeError(
                f"protocol `{self.protocol}` looks at gold, so the committee cannot debate test questions by it",
                "test.committee",
                "set test.committee: false, or give its Options a method `for_tests`",
            )
        return self.model_copy(update={"max_rounds": rounds}) if "max_rounds" in type(self).model_fields else self


class Discussion(Talk):
    """Options of protocols in which agents read each other (arXiv:2506.03541; defaults are the paper's)."""

    topology: Literal["all", "ring", "star"] = Field(
        default="all",
        description="which others a speaker reads: all (paper), the next one in the order of the recipe, or only the "
        "first one, which reads all",
    )
    shuffle: Literal["shared", "per_agent"] = Field(
        default="shared",
        description="order of the speakers in a prompt: one order for all readers (paper), or one for each",
    )
    order_seed: int = Field(default=42, description="seed of that order (authors' code: 42)")
    anonymous: bool = Field(default=True, description="peers appear under numbers, not under their names")
    hide_gold_in_context: bool = Field(
        default=False, description="mask the gold answer if a reflection or a critique quotes it"
    )
    ask_confidence: bool = Field(default=False, description="prompts ask for a stated confidence, and peers read it")
    ask_confidence_again: bool = Field(
        default=False,
        description="who stated no confidence that can be read is asked for it once more, after the answer; one more "
        "call (ours)",
    )
    context_tokens: int | None = Field(
        default=None,
        ge=64,
        description="most tokens of the others' texts in a prompt, counted by the student's tokenizer; the longest are "
        "shortened first, question and instruction never (paper: no limit)",
    )

    @property
    def wants_confidence(self) -> bool:
        return self.ask_confidence

    @property
    def asks_confidence_again(self) -> bool:
        return self.ask_confidence_again and self.ask_confidence

    @property
    def context_budget(self) -> int | None:
        return self.context_tokens

    @property
    def showing(self) -> Showing:
        return Showing(self.shuffle, self.order_seed, self.anonymous, self.topology, self.hide_gold_in_context)


@dataclass(frozen=True)
class Wording:
    """Makes prompts with given options and templates for a task."""

    options: Talk
    prompts: PromptSet
    task: Task
    count: CountTokens | None = None
    """Tokens of a text; needed if a context has a budget."""

    def plain(self, problem: Problem) -> list[Message]:
        """The question as every training row and every test asks it, with nothing of the committee in it.

        A stated confidence is part of the committee's talk, so it is never asked for. In a state of an episode the
        prompt is what the agent had read.
        """
        if problem.history:
            return list(problem.history)
        return self.make("answer", problem, ask_confidence=False).chat

    def make(
        self,
        template: str,
        problem: Problem,
        reader: str = "",
        reads: Sequence[Node] = (),
        *,
        about: Node | None = None,
        own: Node | None = None,
        gold: bool = False,
        shown: Sequence[Statement] | None = None,
        after_history: bool = True,
        **values: Any,
    ) -> Prompt:
        """The prompt by which ``reader`` is asked.

        Args:
            template: A template of the prompt set. It may use ``question``, ``answer_format``, ``word_limit``,
                ``ask_confidence``, ``statements``, ``scoring``, ``text``, ``own``, ``gold``, ``known_wrong`` and the
                values that ``values`` adds or changes.
            reads: Nodes that are offered; :func:`vivavoce.committee.reading.statements` tells which of them are shown,
                and how.
            about: The node that the call is about: ``text`` in the template.
            own: The reader's own answer, if the call is about another agent's: ``own`` in the template.
            gold: Print the right answer, if it is known: ``gold`` in the template, else None.
            shown: Statements to show in place of those of ``reads``.
            after_history: Put the messages behind those of the problem's history, if it has one.

        Raises RecipeError if the prompt set has no such template, or it fails on these values.
        """
        if shown is None:
            shown = statements(problem, reads, reader, self.options.showing)
            if shown and self.options.context_budget is not None:
                shown, _ = self.fit(problem, shown, self.options.context_budget)
        right = self.right(problem) if gold else ""
        fields = {
            "question": problem.question,
            "answer_format": self.task.answer_format,
            "word_limit": self.options.word_limit,
            "ask_confidence": self.options.wants_confidence,
            "statements": shown,
            "scoring": False,
            "text": None if about is None else Quote(about.id, about.text),
            "own": None if own is None else Quote(own.id, own.text),
            "gold": Quote(GOLD, right) if right else None,
            "known_wrong": False,
            **values,
        }
        messages = self.prompts.render(template, **fields)
        if problem.history and after_history:
            messages = _continue_talk(problem.history, messages)
        return prompt(template, tuple(n.id for n in reads), tuple(messages))

    def after(self, asked: Prompt, answer: Node, template: str) -> Prompt:
        """The prompt that goes on with a talk: what its author was ``asked``, the ``answer``, and the template."""
        reply: tuple[str, Parts] = ("assistant", (Quote(answer.id, answer.text),))
        return prompt(template, (answer.id,), (*asked.messages, reply, *self.prompts.render(template)))

    def right(self, problem: Problem) -> str:
        """The right answer in the form that prompts print: in an agent's state, the best action as agents write it. It
        is empty if the task does not know it."""
        worked = getattr(self.task, "worked", None)
        return worked(problem) if worked and problem.history else problem.gold

    def fit(self, problem: Problem, shown: Sequence[Statement], budget: int) -> tuple[list[Statement], int]:
        """The statements within a budget of tokens, and how many were cut: :func:`vivavoce.committee.reading.fit`."""
        assert self.count is not None, "a budget needs a token counter"
        return fit(shown, budget, self.count, self.reads(problem))

    def reads(self, problem: Problem):
        """The final answer that the task reads in a piece of text; None if reading means running a program."""
        waits = getattr(self.task, "waits", False)
        return lambda text: None if waits else self.task.grade(problem, text).answer

    def lesson_of(self, text: str) -> str:
        """The reply in the form that a student learns to write: without talk that is meant for the committee only."""
        return self.prompts.lesson_of(text)


def _continue_talk(history: Iterable[Message], added: Sequence[tuple[str, Parts]]) -> list[tuple[str, Parts]]:
    """The messages that an agent had, followed by the added ones. An empty message is left out; a message of the role
    that spoke last is joined to that message.
    """
    messages: list[tuple[str, Parts]] = [(m["role"], (m["content"],)) for m in history]
    for role, parts in added:
        if not parts:
            continue
        if messages[-1][0] == role:
            messages[-1] = (role, join_parts((*messages[-1][1], "\n", *parts)))
        else:
            messages.append((role, parts))
    return messages


__all__ = ["CONFIDENCE", "Discussion", "Talk", "Wording"]
