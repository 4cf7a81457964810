"""Prompt sets: how agents are asked, and how their stated confidence and score are read back.

A set is a folder with one Markdown template for each thing that an agent can be asked, and a ``set.yaml``. ``answer``
is always needed but for ``act``; ``debate``, ``reflection`` and ``critique`` for debates; ``discuss`` for debates over
a student's state; ``act`` for debates over an agent's next action: what is added to the messages that the agent had (a
message of nothing is none, and a user's goes on with the user's message before it); ``rationale``, ``feedback``,
``review`` and ``correction`` (what the student is taught to say of its own mistake) for peer review. A template is
Jinja; a line ``--- system`` or ``--- user`` starts a message. ``set.yaml`` names the
regular expressions that read a reply, and those for what a student is not taught (marks and numbers that are said to
the committee, not part of an answer). ``never`` and ``as_end`` are the same for scorers, who go over a student's answer
token by token: tokens of such talk inside an answer, and those that begin it after one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jinja2
import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from vivavoce.debate.scores import Score, ScoreForm, read_score
from vivavoce.debate.template_check import VALUES, line_in_template, unknown_value
from vivavoce.errors import DataError, RecipeError
from vivavoce.files import text_of
from vivavoce.plugins import mistake, near
from vivavoce.records import Message

Ask = Literal[
    "answer", "debate", "discuss", "act", "reflection", "critique", "rationale", "feedback", "review", "correction"
]
DEBATE: tuple[Ask, ...] = ("answer", "debate", "reflection", "critique")
STATE: tuple[Ask, ...] = ("answer", "discuss")
ACT: tuple[Ask, ...] = ("act",)
REVIEW: tuple[Ask, ...] = ("answer", "rationale", "feedback", "review", "correction")


@dataclass(frozen=True)
class Statement:
    """One agent's part of the shared information of a round, as another agent reads it."""

    name: str
    """How the reader sees the speaker: ``Agent 2``, or a name where the rules are not anonymous."""
    peer: int
    """0 for the reader itself, else a random number among the others."""
    text: str
    reflection: str | None
    critiques: tuple[tuple[str, str], ...]
    """``(name of the critic, text)``."""
    round: int = 0

    @property
    def mine(self) -> bool:
        return self.peer == 0


class _Reading(BaseModel):
    model_config = ConfigDict(extra="forbid")
    pattern: str
    lowest: float = 0.0
    highest: float = 100.0

    @field_validator("pattern")
    @classmethod
    def _finds_one_text(cls, pattern: str) -> str:
        if _compiled(pattern).groups > 1:
            raise ValueError("the pattern has several groups: write (?:…) for those that are not the number")
        return pattern

    def of(self, text: str, bounded: bool = True) -> float | None:
        """The last number that the pattern finds, scaled to 0..1; None where there is none.

        ``bounded`` gives None for a number out of range, too.
        """
        found = re.findall(self.pattern, text)
        value = _number(found[-1]) if found else None
        if value is None:
            return None
        if bounded and not self.lowest <= value <= self.highest:
            return None
        return (value - self.lowest) / (self.highest - self.lowest)


class _SetFile(BaseModel):
    model_config = ConfigDict(extra="forbid")
    confidence: _Reading | None = None
    score: _Reading | None = None
    untaught: list[str] = []
    never: list[str] = []
    as_end: list[str] = []

    @field_validator("untaught")
    @classmethod
    def _are_patterns(cls, patterns: list[str]) -> list[str]:
        for pattern in patterns:
            _compiled(pattern)
        return patterns


def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as e:
        raise ValueError(f"{pattern!r} is no regular expression: {e}") from e


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


class PromptSet:
    """One folder of prompts. Raises RecipeError at construction where a template is missing or does not parse."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        env = jinja2.Environment(
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=False,
            autoescape=False,
        )
        do = f"a set holds set.yaml and {', '.join(f'{a}.md' for a in DEBATE)}"
        self._env, at = env, folder / "set.yaml"
        try:
            self._file = _SetFile.model_validate(yaml.safe_load(text_of(at)) or {})
            self._text = {p.stem: text_of(p) for p in sorted(folder.glob("*.md"))}
        except DataError as e:
            raise RecipeError(f"prompt set cannot be read: {e.what}", e.where, do) from e
        except ValidationError as e:
            said = "; ".join(mistake(one, list(_SetFile.model_fields)) for one in e.errors(include_url=False))
            raise RecipeError(f"prompt set cannot be read: {said}", str(at), "see general/set.yaml") from e
        except yaml.YAMLError as e:
            raise RecipeError(f"prompt set cannot be read: not YAML: {e}", str(at), "quote patterns") from e
        self._parts = {ask: _parts(text, folder / f"{ask}.md") for ask, text in self._text.items()}
        self._templates = {
            ask: [(part.role, self._compiled(ask, part)) for part in parts] for ask, parts in self._parts.items()
        }
        self._untaught = [re.compile(p) for p in self._file.untaught]

    def _compiled(self, ask: str, part: _Part) -> jinja2.Template:
        try:
            return self._env.from_string(part.text)
        except jinja2.TemplateSyntaxError as e:
            raise self._wrong(ask, part, e.lineno, f"no template: {e.message}", "correct it; it is Jinja") from e

    def _wrong(self, ask: str, part: _Part, line: int, what: str, do: str) -> RecipeError:
        return RecipeError(what, f"{self.folder / ask}.md:{part.line + line - 1}", do)

    def need(self, asks: Sequence[Ask]) -> None:
        """Raise RecipeError if a template is missing that a method will ask for, or uses a value that it is not
        given."""
        if missing := [f"{a}.md" for a in asks if a not in self._templates]:
            raise RecipeError(f"the prompt set has no {', '.join(missing)}", str(self.folder), "write it; see general/")
        for ask in asks:
            for part in self._parts[ask]:
                if (unknown := unknown_value(self._env, part.text, ask)) is not None:
                    name, line = unknown
                    what = f"the template uses `{name}`, which it is not given{near(name, sorted(VALUES[ask]))}"
                    raise self._wrong(ask, part, line, what, f"it may use {', '.join(sorted(VALUES[ask]))}")

    @property
    def silent(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Tokens by which an author talks to the committee only: inside an answer, and beginning what follows it."""
        return tuple(self._file.never), tuple(self._file.as_end)

    @property
    def fingerprint(self) -> list[str]:
        """What a stage that used this set depends on."""
        return [*self._text.values(), self._file.model_dump_json()]

    def render(self, ask: Ask, **values: Any) -> list[Message]:
        """The messages of one call. Raises RecipeError if there is no such template, or it fails on these values."""
        if ask not in self._templates:
            self.need([ask])
        return [
            {"role": role, "content": self._rendered(ask, i, values)}
            for i, (role, _) in enumerate(self._templates[ask])
        ]

    def _rendered(self, ask: str, at: int, values: dict[str, Any]) -> str:
        try:
            return self._templates[ask][at][1].render(**values).strip()
        except Exception as e:  # a template is the user's own program, and may fail in any way
            line, what = line_in_template(e.__traceback__), f"the template fails: {e}"
            raise self._wrong(ask, self._parts[ask][at], line, what, "correct it; it is Jinja") from e

    def pose(self, ask: Ask, history: Sequence[Message], **values: Any) -> list[Message]:
        """The messages of one call; after those that an agent had, where the question is what it should do next."""
        if not history:
            return self.render(ask, **values)
        messages = list(history)
        for added in self.render(ask, **values):
            if not added["content"]:
                continue
            if messages[-1]["role"] == added["role"]:
                messages[-1] = {**added, "content": f"{messages[-1]['content']}\n{added['content']}"}
            else:
                messages.append(added)
        return messages

    def confidence(self, text: str) -> float | None:
        """Confidence that the reply states, 0 to 1; beyond the scale it counts as the end of the scale."""
        said = self.stated_confidence(text)
        return None if said is None else min(1.0, max(0.0, said))

    def stated_confidence(self, text: str) -> float | None:
        """The same as it was said: whoever claims 1000 of 100 states 10."""
        return self._file.confidence.of(text, bounded=False) if self._file.confidence else None

    def score(self, text: str) -> float | None:
        """Score that a critique or review states, 0 to 1."""
        return self._file.score.of(text) if self._file.score else None

    def review_score(self, text: str, form: ScoreForm) -> Score:
        """Raw score that a review states: by the set's own pattern where it has one, else as ``form`` says."""
        if self._file.score is None:
            return read_score(text, form)
        reading = self._file.score
        found = re.findall(reading.pattern, text)
        value = _number(found[-1]) if found else None
        if value is None:
            return Score(None, "no_answer")
        fits = reading.lowest <= value <= reading.highest
        return Score(value, "ok") if fits else Score(None, "out_of_range")

    def taught(self, text: str) -> str:
        """The reply without what is said to the committee only: what a student learns to write."""
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
    )  # comments are text of nobody
    if before.strip() or not marks:
        what = "the template has no message" if not marks else "there is text before the first message"
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


def prompt_sets() -> list[str]:
    """Names of the sets that come with the package."""
    return sorted(path.name for path in _OURS.iterdir() if path.is_dir())


_OURS = Path(__file__).parent / "prompts"
