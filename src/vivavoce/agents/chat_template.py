"""Chat templates: messages to the text that a local model reads, in the model's own form.

Jinja runs as in transformers, which a test compares. transformers is not called, because it takes the day from the
clock and cannot be given another.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from vivavoce.errors import DataError, RecipeError
from vivavoce.files import object_in, text_of
from vivavoce.records import Message

if TYPE_CHECKING:
    from jinja2 import Template
    from transformers import PreTrainedTokenizerBase

DAY = "strftime_now"
"""The argument of a chat template for the day, such as 2026-07-31, if it asks for today's date."""
_ASKS_DAY = re.compile(r"\bstrftime_now\b")
_THOUGHT = re.compile(r"([<\[])(\|?)([\w:]*(?:think|thought|reason)\w*)(\|?[>\]])", re.IGNORECASE)
"""The texts that open a thought: ``<think>``, ``[THINK]``, ``<seed:think>``, ``<|START_THINKING|>``."""
_BEGINS = re.compile(r"^(start|begin)_", re.IGNORECASE)
ASKED, SAID = "Qzvasked", "Qzvsaid"
"""Texts that no template writes, so that what it does with a message can be found."""
_FORMS = 3
AS_IT_CAME = "restore this file from the model's download"
"""What to do about a broken file of a model."""
_TEXTLESS = "use an instruction-tuned model, or save a template with its tokenizer"


@dataclass(frozen=True)
class Spoken:
    """The texts around an answer that follows a served prompt."""

    head: str
    """The template's text between the prompt and a plain answer: nothing, a space, a channel, an empty thought.

    If the prompt has opened a thought, it is the text that closes it.
    """
    thought: tuple[str, str] | None
    """The texts that open and close a thought, if this template knows thoughts."""
    opened: str
    """The end of the served prompt, if it opens a thought: ``<think>`` and the white space after it."""
    trims: bool
    """Whether the template takes the white space away around an answer."""

    def answer(self, text: str, complete: bool = True) -> str:
        """The text after the served prompt if the model answers ``text``, or begins to if that is not ``complete``.

        An answer may bring a thought of its own.
        """
        if self.trims:
            text = text.strip() if complete else text.lstrip()
        if self.thought is None:
            return self.head + text
        opening, closing = self.thought
        own = text.lstrip().startswith(opening)
        if self.opened:
            if own:
                return text.lstrip()[len(opening) :].removeprefix(self.opened[len(opening) :])
            return text if closing in text else self.head + text
        if own or closing in text:
            before = self.head.partition(opening)[0]
            return before + (text.lstrip() if own else f"{opening}\n{text}")
        return self.head + text


@dataclass(frozen=True)
class ChatTemplate:
    """A model's chat template with its arguments: messages to text.

    A template that has no system role, or that wants turns to alternate, gets messages in a form that it takes. A
    system text is put before the first turn of the user. Turns of one role that follow each other become one, with a
    blank line between them. A prompt that the template takes is left as it is.
    """

    source: str
    special: Mapping[str, Any]
    """The tokenizer's special tokens by name: ``bos_token`` and others."""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    """Further arguments of the template; ``strftime_now`` is a day."""
    model: str = ""
    """The model's name in errors."""

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase, arguments: Mapping[str, Any] | None = None) -> ChatTemplate:
        """The template of a tokenizer. Raises RecipeError if it has none."""
        source: Any = tokenizer.chat_template
        if isinstance(source, Mapping):
            source = source.get("default")
        model = str(getattr(tokenizer, "name_or_path", "") or "the model")
        if not source:
            raise RecipeError("the tokenizer has no chat template", model, _TEXTLESS)
        return cls(str(source), dict(tokenizer.special_tokens_map), dict(arguments or {}), model)

    @classmethod
    def within(cls, folder: Path, arguments: Mapping[str, Any] | None = None) -> ChatTemplate | None:
        """The template in a model's folder, read without transformers; None if there is none.

        Raises DataError if a file of the folder cannot be read.
        """
        file, settings = folder / "chat_template.jinja", folder / "tokenizer_config.json"
        config = object_in(settings, AS_IT_CAME) if settings.is_file() else {}
        source = text_of(file) if file.is_file() else config.get("chat_template")
        if isinstance(source, list):  # several by name, in older files
            source = next((one["template"] for one in source if one.get("name") == "default"), None)
        if not isinstance(source, str):
            return None
        named = {k: v for k, v in config.items() if k.endswith("_token") and v and not isinstance(v, bool)}
        special = {k: v["content"] if isinstance(v, dict) else v for k, v in named.items()}
        return cls(source, special, dict(arguments or {}), str(folder))

    @property
    def dated(self) -> bool:
        """Whether the prompt holds the day's date."""
        return bool(_ASKS_DAY.search(self.source))

    def prompt(self, messages: Sequence[Message], where: str = "") -> str:
        """The text that the model reads before it answers.

        Raises RecipeError if the template takes no such conversation, DataError if it changes a message's text.
        """
        text = self._render_here(in_form(messages, self.form(messages, where)), where)
        for message in messages:
            # templates may drop the reasoning of earlier answers
            if message["role"] != "assistant" and message["content"].strip() not in text:
                what = f"the chat template of {self.model} changes the {message['role']} message"
                raise DataError(
                    what, where, f"use another template, or leave out the text: {message['content'][:60]!r}"
                )
        return text

    @cached_property
    def spoken(self) -> Spoken:
        """The texts around answers, found by rendering a prompt with an empty one."""
        question: list[Message] = [{"role": "user", "content": ASKED}]
        prompt, spaced = self.prompt(question), f" {SAID} "
        try:
            before = self._render([*question, {"role": "assistant", "content": SAID}], generation=False)
            whole = self._render([*question, {"role": "assistant", "content": spaced}], generation=False)
        except _failures():
            before, whole = "", spaced
        before, trims = before.rpartition(SAID)[0], f"{SAID} {self.after()}" not in whole
        head = before.removeprefix(prompt) if before.startswith(prompt) else ""
        if (opens := _opens(prompt)) is None:
            openings = list(_THOUGHT.finditer(head))
            inside = [(m[0], _closing(m)) for m in openings if _closing(m) in head[m.end() :]]
            return Spoken(head, inside[0] if inside else None, "", trims)
        opening, closing, opened = opens
        if closing not in head:
            _, written, after = before.rpartition(ASKED)[2].rpartition(closing)
            head = closing + after if written else ("\n" if opened.endswith("\n") else "\n\n") + closing + "\n\n"
        return Spoken(head, (opening, closing), opened, trims)

    def after(self, more: Sequence[Message] = ()) -> str:
        """The template's text after an answer that is the last message, or that ``more`` follow; "" if it loses the
        answer or cannot be rendered.
        """
        talk: list[Message] = [{"role": "user", "content": ASKED}, {"role": "assistant", "content": SAID}]
        try:
            _, mark, after = self._render([*talk, *more], generation=False).rpartition(SAID)
        except _failures():
            return ""
        return after if mark else ""

    @cached_property
    def anchor(self) -> str:
        """A served prompt for finding the tokens of an answer behind one."""
        return self.prompt([{"role": "user", "content": ASKED}])

    # --- what a template takes

    @cached_property
    def _forms(self) -> dict[tuple[str, ...], int]:
        return {}

    def form(self, messages: Sequence[Message], where: str = "") -> int:
        """The first form of :func:`in_form` in which the template takes messages of these roles and loses none.

        Raises RecipeError if there is none.
        """
        roles = tuple(message["role"] for message in messages)
        if roles not in self._forms:
            marked: list[Message] = [{"role": role, "content": f"Qzv{i}qzv"} for i, role in enumerate(roles)]
            reasons = list[str]()
            for form in range(_FORMS):
                try:
                    text = self._render(in_form(marked, form))
                except _failures() as error:
                    if line := getattr(error, "lineno", None):
                        what = f"the chat template of {self.model} is not valid Jinja: {error} (line {line})"
                        raise RecipeError(what, where or "chat_template", AS_IT_CAME) from None
                    reasons.append(f"it refuses them: {error}")
                    continue
                lost = [m["role"] for m in marked if m["content"] not in text]
                if not lost:
                    self._forms[roles] = form
                    break
                reasons.append(f"it loses the {lost[0]} message")
            else:
                order = ", ".join(roles)
                what = f"the chat template of {self.model} accepts no conversation of {order}: {reasons[0]}"
                if reasons[-1] != reasons[0]:
                    what += f"; with system texts and turns put together, {reasons[-1]}"
                do = "use a model whose template takes these roles, or put such a template into its folder"
                raise RecipeError(what, where or "chat_template", do)
        return self._forms[roles]

    def _render_here(self, messages: Sequence[Message], where: str) -> str:
        try:
            return self._render(messages)
        except _failures() as error:
            what = f"the chat template of {self.model} refuses the messages: {error}"
            raise DataError(what, where, "leave this conversation out, or use another template") from None

    def _render(self, messages: Sequence[Message], generation: bool = True) -> str:
        variables = {key: value for key, value in self.arguments.items() if key != DAY}
        copies = [dict(message) for message in messages]
        always = {"messages": copies, "tools": None, "documents": None, "add_generation_prompt": generation}
        return _compile(self.source).render({**always, **self.special, **variables, DAY: self._today})

    def _today(self, form: str) -> str:
        return day(self.arguments.get(DAY)).strftime(form)


def encode(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Token ids of rendered text: the template writes the special tokens itself."""
    # verbose=False: a row over model_max_length is our own business
    return list(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])


def day(value: object = None) -> date:
    """The day that a recipe gives; today if it gives none. Raises RecipeError for a value that is no day."""
    if value is None:
        return date.today()
    if isinstance(value, datetime):
        return value.date()
    if isinstance(value, date):
        return value
    try:
        return date.fromisoformat(str(value)[:10])
    except ValueError:
        raise RecipeError(f"`{value}` is not a date", f"chat_template_kwargs.{DAY}", "write it as 2026-07-31") from None


def in_form(messages: Sequence[Message], form: int) -> list[Message]:
    """Messages as they are (0), with turns of one role put together (1), and with system texts put into the user's
    turn (2).
    """
    if form == 0:
        return list(messages)
    made = list[Message]()
    for message in messages:
        role = "user" if form == 2 and message["role"] == "system" else message["role"]
        if made and made[-1]["role"] == role and role != "tool":
            made[-1] = {"role": role, "content": f"{made[-1]['content']}\n\n{message['content']}"}
        else:
            made.append({"role": role, "content": message["content"]})
    return made


def _opens(prompt: str) -> tuple[str, str, str] | None:
    """The texts that open and close a thought, and the end of the prompt, if a prompt ends in an open thought."""
    opening = next(reversed(list(_THOUGHT.finditer(prompt))), None)
    if opening is None or prompt[opening.end() :].strip():
        return None
    return opening[0], _closing(opening), prompt[opening.start() :]


def _closing(opening: re.Match[str]) -> str:
    left, bar, name, right = opening.groups()
    if bar and (other := _BEGINS.sub(lambda m: "END_" if m[0].isupper() else "end_", name)) != name:
        return f"{left}{bar}{other}{right}"
    return f"{left}{bar}/{name}{right}"


def _failures() -> tuple[type[Exception], ...]:
    """The errors that a template may raise while it renders; its code comes with the model."""
    from jinja2 import TemplateError

    return TemplateError, TypeError, ValueError, LookupError, AttributeError, ArithmeticError


@lru_cache(maxsize=64)
def _compile(source: str) -> Template:
    """A template with the filters, functions and tags that transformers gives it."""
    import jinja2
    from jinja2.ext import Extension
    from jinja2.nodes import CallBlock
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """The tag ``{% generation %}``, which marks an assistant's text for masks; here it shows the text."""

        tags = frozenset({"generation"})  # pyright: ignore[reportAssignmentType]

        def parse(self, parser: Any) -> Any:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return CallBlock(self.call_method("_generation"), [], [], body).set_lineno(line)

        def _generation(self, caller: Any) -> str:
            return caller()

    def raise_exception(message: str) -> NoReturn:
        raise jinja2.TemplateError(message)

    def tojson(value: Any, ensure_ascii: bool = False, **options: Any) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, **options)

    env = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, "jinja2.ext.loopcontrols"]
    )
    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    return env.from_string(source)


__all__ = ["ASKED", "AS_IT_CAME", "DAY", "SAID", "ChatTemplate", "Spoken", "day", "encode", "in_form"]
