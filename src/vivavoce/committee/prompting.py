"""Prompt sets: the templates by which agents are asked, and the patterns that read their stated confidence and score.

A set is a folder with one Markdown template for each thing that an agent can be asked, and a ``set.yaml``. The
templates that it needs depend on the protocol (``Options.templates``). A template is Jinja; a line ``--- system`` or
``--- user`` starts a message. :meth:`vivavoce.committee.wording.Wording.made` lists the values that it may print. The
messages of ``act`` are added to those that an agent had in an episode: a message that renders empty is left out, and a
user's message continues the user's message before it. ``correction`` is the answer that the student learns together
with feedback on its own mistake.

``set.yaml`` names the regular expressions that read a reply: ``confidence``; ``score``, and ``scores`` by kind of text;
``untaught``, the marks and numbers that are meant for the committee, are no part of an answer and are not taught.
``never`` and ``as_end`` are the same for scorers, which score a student's answer token by token: tokens of such talk
inside an answer, and those that begin it after one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import jinja2
import jinja2.meta
import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from vivavoce import plugins
from vivavoce.committee.reading import Statement
from vivavoce.committee.scores import Score, ScoreForm, read_score
from vivavoce.committee.template_check import line_in_template, unknown_value, values_of
from vivavoce.errors import DataError, RecipeError
from vivavoce.files import text_of
from vivavoce.plugins import mistake, near
from vivavoce.records import Quote

Parts = tuple[str | Quote, ...]
"""A message, part by part: text of the template, and quotes."""

# A quote goes through the template between marks that name it, so that whatever the template does with the text
# (filters, conditions, concatenation), what it printed is told by what comes out. The marks are made of control
# characters that no text filter takes for white space or letters; a text that holds them itself is escaped before and
# restored after. They are ASCII, so that the text of a prompt stays one byte a character while it is made.
_OPEN, _CLOSE, _END, _ESCAPE, _DIGIT = "\1", "\2", "\3", "\4", 0x10
_DIGITS = {ord("0") + d: _DIGIT + d for d in range(10)}
_RESERVED = re.compile(f"[{_OPEN}{_CLOSE}{_ESCAPE}]")
_SHIFT = 0xE000
"""The number that is added to a reserved character behind an escape. The sum is a character for private use, and no
filter changes it.
"""


class _Quotes:
    """The texts of one rendering that are quotes, numbered in the order in which they were marked."""

    def __init__(self) -> None:
        self.quotes: list[Quote] = []
        self._numbers: dict[str, int] = {}
        """Each quote, by the number in its marks."""

    def marked(self, value: Any) -> Any:
        """The value as a template gets it: quotes marked, also inside lists and statements."""
        if isinstance(value, Quote):
            return self._mark(value)
        if isinstance(value, str):
            return _escape(value)
        if isinstance(value, Statement):
            return self._statement(value)
        if isinstance(value, (tuple, list)):
            return [self.marked(v) for v in value]
        if isinstance(value, dict):
            return {k: self.marked(v) for k, v in value.items()}
        return value

    def _mark(self, quote: Quote) -> str:
        number = _in_marks(len(self.quotes))
        self._numbers[number] = len(self.quotes)
        self.quotes.append(quote)
        return f"{_OPEN}{number}{_END}{_escape(quote.text)}{_CLOSE}{number}{_END}"

    def _statement(self, s: Statement) -> SimpleNamespace:
        """A statement in the form that templates use: an object, whose attributes Jinja finds at once."""
        return SimpleNamespace(
            kind=s.kind,
            name=_escape(s.name),
            peer=s.peer,
            mine=s.peer == 0,
            text=self._mark(s.text),
            reflection=self._mark(s.reflection) if s.reflection else None,
            critiques=[(_escape(name), self._mark(quote)) for name, quote in s.critiques],
            round=s.round,
        )

    def parts(self, rendered: str) -> Parts:
        """The rendered text, cut into the template's own text and its quotes.

        If a filter cut a mark off, the quote goes to the next mark or to the end of the text.
        """
        parts_read: list[str | Quote] = []
        quoted: int | None = None  # whose text stands here: of the mark before, if it opens, or of the one after
        text, *pieces = rendered.replace(_CLOSE, _OPEN + _CLOSE).split(_OPEN)
        for piece in pieces:
            closes = piece.startswith(_CLOSE)
            number, end, rest = piece[closes:].partition(_END)
            if not end or number not in self._numbers:  # a filter cut the mark itself: it is text
                text += _CLOSE + piece[1:] if closes else _OPEN + piece
                continue
            if quoted is None and closes:
                quoted = self._numbers[number]
            if text:
                parts_read.append(self._part(text, quoted))
            quoted, text = None if closes else self._numbers[number], rest
        if text:
            parts_read.append(self._part(text, quoted))
        return _strip(parts_read)

    def _part(self, text: str, quoted: int | None) -> str | Quote:
        text = _unescape(text)
        if quoted is None:
            return text
        quote = self.quotes[quoted]
        return quote if text == quote.text else Quote(quote.node, text)  # most are printed whole, and share their text


@cache
def _in_marks(number: int) -> str:
    """The number in digits that no filter changes."""
    return str(number).translate(_DIGITS)


def _escape(text: str) -> str:
    if _OPEN not in text and _CLOSE not in text and _ESCAPE not in text:
        return text
    return _RESERVED.sub(lambda m: _ESCAPE + chr(ord(m[0]) + _SHIFT), text)


def _unescape(text: str) -> str:
    return re.sub(f"{_ESCAPE}(.)", lambda m: chr(ord(m[1]) - _SHIFT), text) if _ESCAPE in text else text


def _strip(parts: list[str | Quote]) -> Parts:
    """The parts without white space at the beginning and the end of the whole."""
    for end, strip in ((0, str.lstrip), (-1, str.rstrip)):
        while parts:
            edge = parts[end]
            text = strip(edge if isinstance(edge, str) else edge.text)
            if text:
                if not isinstance(edge, str):
                    text = edge if text == edge.text else Quote(edge.node, text)
                parts[end] = text
                break
            del parts[end]
    return join_parts(parts)


def join_parts(parts: Iterable[str | Quote]) -> Parts:
    """The parts with neighbouring texts of the template put together."""
    merged: list[str | Quote] = []
    for part in parts:
        if merged and isinstance(part, str) and isinstance(merged[-1], str):
            merged[-1] += part
        else:
            merged.append(part)
    return tuple(merged)


class _Reading(BaseModel):
    model_config = ConfigDict(extra="forbid")
    pattern: str
    lowest: float = 0.0
    highest: float = 100.0
    words: dict[str, float] = {}
    """Values of words that the pattern finds, in small letters; without them it finds numbers."""

    @field_validator("pattern")
    @classmethod
    def _finds_one_text(cls, pattern: str) -> str:
        if _compile(pattern).groups > 1:
            raise ValueError("the pattern has several groups: write (?:…) for those that are not the number")
        return pattern

    def of(self, text: str, bounded: bool = True) -> float | None:
        """The last value that the pattern finds, scaled to 0..1; None if there is none.

        ``bounded`` gives None for a number out of range, too.
        """
        matches = re.findall(self.pattern, text)
        if matches and self.words:
            return self.words.get(" ".join(matches[-1].lower().split()))
        value = _number(matches[-1]) if matches else None
        if value is None:
            return None
        if bounded and not self.lowest <= value <= self.highest:
            return None
        return (value - self.lowest) / (self.highest - self.lowest)


class _SetFile(BaseModel):
    model_config = ConfigDict(extra="forbid")
    confidence: _Reading | None = None
    score: _Reading | None = None
    scores: dict[str, _Reading] = {}
    untaught: list[str] = []
    never: list[str] = []
    as_end: list[str] = []

    @field_validator("untaught")
    @classmethod
    def _are_patterns(cls, patterns: list[str]) -> list[str]:
        for pattern in patterns:
            _compile(pattern)
        return patterns


def _compile(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as e:
        raise ValueError(f"{pattern!r} is not a valid regular expression: {e}") from e


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


class PromptSet:
    """One folder of prompts. Raises RecipeError at construction if a template is missing or does not parse."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        env = jinja2.Environment(
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=False,
            autoescape=False,
        )
        do = "a set holds set.yaml and a Markdown file for each template, such as answer.md; see general/"
        self._env, at = env, folder / "set.yaml"
        try:
            self._file = _SetFile.model_validate(yaml.safe_load(text_of(at)) or {})
            self._text = {p.stem: text_of(p) for p in sorted(folder.glob("*.md"))}
        except DataError as e:
            raise RecipeError(f"prompt set cannot be read: {e.what}", e.where, do) from e
        except ValidationError as e:
            mistakes = "; ".join(mistake(one, list(_SetFile.model_fields)) for one in e.errors(include_url=False))
            raise RecipeError(f"prompt set cannot be read: {mistakes}", str(at), "see general/set.yaml") from e
        except yaml.YAMLError as e:
            raise RecipeError(f"prompt set cannot be read: not YAML: {e}", str(at), "quote patterns") from e
        self._parts = {ask: _parts(text, folder / f"{ask}.md") for ask, text in self._text.items()}
        self._templates = {
            ask: [(part.role, self._compile(ask, part)) for part in parts] for ask, parts in self._parts.items()
        }
        self._untaught = [re.compile(p) for p in self._file.untaught]

    def _compile(self, ask: str, part: _Part) -> jinja2.Template:
        try:
            template = self._env.from_string(part.text)
        except jinja2.TemplateSyntaxError as e:
            raise self._wrong(ask, part, e.lineno, f"no template: {e.message}", "correct it; it is Jinja") from e
        template.globals = dict(template.globals)  # Jinja's own chain of maps is copied for every rendering, slowly
        return template

    def _wrong(self, ask: str, part: _Part, line: int, what: str, do: str) -> RecipeError:
        return RecipeError(what, f"{self.folder / ask}.md:{part.line + line - 1}", do)

    def need(self, asks: Iterable[str], more: Iterable[str] = (), tell: Iterable[str] = ()) -> None:
        """Raise RecipeError if a template is missing that a protocol will ask for, or uses a value that it is not
        given. ``more`` are values that the protocol gives beside the usual ones; templates in ``tell`` have to print
        the right answer."""
        asks = list(asks)
        if missing := [f"{a}.md" for a in asks if a not in self._templates]:
            raise RecipeError(f"the prompt set has no {', '.join(missing)}", str(self.folder), "write it; see general/")
        for ask in asks:
            known = values_of(ask, more)
            for part in self._parts[ask]:
                if (unknown := unknown_value(self._env, part.text, known)) is not None:
                    name, line = unknown
                    what = f"the template uses `{name}`, which it is not given{near(name, known)}"
                    raise self._wrong(ask, part, line, what, f"it may use {', '.join(known)}")
        for ask in tell:
            parsed = [self._env.parse(part.text) for part in self._parts[ask]]
            if not any("gold" in jinja2.meta.find_undeclared_variables(one) for one in parsed):
                what = "the template does not print the right answer, which this prompt must show"
                do = f"print `gold` there, as general/{ask}.md does, or set sees_gold: false"
                raise RecipeError(what, str(self.folder / f"{ask}.md"), do)

    def has(self, asks: Iterable[str]) -> bool:
        """Whether the set has all of these templates."""
        return all(ask in self._templates for ask in asks)

    @property
    def silent(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Tokens by which an author talks to the committee only: those inside an answer, and those that begin such talk
        after one.
        """
        return tuple(self._file.never), tuple(self._file.as_end)

    @property
    def fingerprint(self) -> list[str]:
        """A hash of everything that a stage that used this set depends on."""
        return [*self._text.values(), self._file.model_dump_json()]

    def render(self, template: str, **values: Any) -> list[tuple[str, Parts]]:
        """``(role, parts)`` of each message of one call. A value that is a :class:`Quote`, alone or inside lists,
        dictionaries and statements, is found again in the parts wherever the template prints it.

        Raises RecipeError if the set has no such template, or it fails on these values.
        """
        if template not in self._templates:
            self.need([template])
        quotes = _Quotes()
        marked = {name: quotes.marked(value) for name, value in values.items()}
        return [
            (role, quotes.parts(self._render(template, i, marked)))
            for i, (role, _) in enumerate(self._templates[template])
        ]

    def _render(self, ask: str, at: int, values: dict[str, Any]) -> str:
        try:
            return self._templates[ask][at][1].render(**values)
        except Exception as e:  # a template is the user's own program, and may fail in any way
            line, what = line_in_template(e.__traceback__), f"the template fails: {e}"
            raise self._wrong(ask, self._parts[ask][at], line, what, "correct it; it is Jinja") from e

    def confidence(self, text: str) -> float | None:
        """Confidence that the reply states, 0 to 1; beyond the scale it counts as the end of the scale."""
        value = self.stated_confidence(text)
        return None if value is None else min(1.0, max(0.0, value))

    def stated_confidence(self, text: str) -> float | None:
        """The stated confidence without a bound: 10 for an agent that claims 1000 of 100."""
        return self._file.confidence.of(text, bounded=False) if self._file.confidence else None

    def score(self, text: str, kind: str = "critique") -> float | None:
        """The score, 0 to 1, that a text of that kind states: by ``scores`` of set.yaml if it names the kind, else by
        ``score``; None if there is none."""
        reading = self._file.scores.get(kind, self._file.score)
        return reading.of(text) if reading else None

    def review_score(self, text: str, form: ScoreForm) -> Score:
        """The raw score that a review states: by the set's own pattern if it has one, else by ``form``."""
        if self._file.score is None:
            return read_score(text, form)
        reading = self._file.score
        matches = re.findall(reading.pattern, text)
        value = _number(matches[-1]) if matches else None
        if value is None:
            return Score(None, "no_answer")
        fits = reading.lowest <= value <= reading.highest
        return Score(value, "ok") if fits else Score(None, "out_of_range")

    def lesson_of(self, text: str) -> str:
        """The part of a reply that a student learns to write: without talk that is meant for the committee only."""
        for pattern in self._untaught:
            text = pattern.sub("", text)
        return text.strip()


class _Part(NamedTuple):
    """The template of one message, and the line of its file at which it begins."""

    role: str
    text: str
    line: int


def _parts(text: str, file: Path) -> list[_Part]:
    """The templates of a file's messages; cut before rendering, so that no question can start a message.

    Raises RecipeError for a file without messages, and for text before the first.
    """
    marks = list(re.finditer(r"^--- (system|user)[ \t]*\n", text, flags=re.MULTILINE))
    before = re.sub(
        r"\{#.*?#\}", "", text[: marks[0].start()] if marks else text, flags=re.DOTALL
    )  # comments belong to no message
    if before.strip() or not marks:
        what = "the template has no message" if not marks else "text stands before the first message"
        raise RecipeError(what, f"{file}:1", "begin it with a line `--- user` or `--- system`")
    ends = [mark.start() for mark in marks[1:]] + [len(text)]
    return [
        _Part(mark[1], text[mark.end() : end], text.count("\n", 0, mark.end()) + 1)
        for mark, end in zip(marks, ends, strict=True)
    ]


@cache
def prompt_set(name: str) -> PromptSet:
    """The set that a recipe names: a folder beside this file, or a path."""
    known = prompt_sets()
    folder = _OURS / name if name in known else Path(name)
    if not folder.is_dir():
        do = f"known sets: {', '.join(known)}; or give a folder"
        raise RecipeError(f"unknown prompt set `{name}`", "debate.prompts", do)
    return PromptSet(folder)


def prompts_of(task: str, options: Mapping[str, Any], templates: Iterable[str]) -> str:
    """The prompt set for a task's questions if a recipe names none: the one that the task's file names (``PROMPTS``) or
    that is called like the task. It is ``general`` if that set lacks one of the protocol's ``templates``.

    A task that is tested by an exam has the exam's. A task that cannot be loaded is told of elsewhere.
    """
    if isinstance(exam := options.get("exam"), Mapping) and "name" in exam:
        return prompts_of(str(exam["name"]), exam, templates)
    try:
        named = getattr(plugins.load("tasks", task, "task.name"), "PROMPTS", task)
        if named == task and task not in prompt_sets():
            return "general"
        return str(named) if prompt_set(str(named)).has(templates) else "general"
    except RecipeError:
        return "general"


def prompt_sets() -> list[str]:
    """Names of the sets that come with the package."""
    return sorted(path.name for path in _OURS.iterdir() if path.is_dir())


_OURS = Path(__file__).parent / "prompts"
