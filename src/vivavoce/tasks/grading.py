r"""The answer that a reply gives, and whether it is right. Its place is found here, its value in ``answers``.

A reply marks its answer: after ``Final answer:`` (with any Markdown around it), on a ``#### x`` line, in ``\boxed{x}``.
The last mark counts, whatever the reasoning before it mentions. Without a mark, the last line may still name the answer
(``The answer is 18.``, ``Correct: B``), or the reply may be nothing but the answer.

There is no fallback guess. A reply that states no answer is wrong, because a reader who wanted an answer has none. But
its status is ``no_answer``, so that a failure of form is never mistaken for a failure of reasoning, and never taught as
one.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

from vivavoce.agents.replies import spoken
from vivavoce.records import Grade
from vivavoce.tasks import answers, mathematics, numbers
from vivavoce.tasks.characters import clean_text

GraderName = Literal["number", "choice", "yes_no", "exact", "text", "math", "judge"]

_LABEL = re.compile(r"final[ \t]{1,3}answer", re.IGNORECASE)
# What may stand between the beginning of the line, or of a sentence, and the label.
_BEFORE_LABEL = re.compile(
    r"(?:^[\s\"'{]*|[.!?;:)\]}][*_\"')]{0,3}[ \t]+)[ \t>#*_`~-]*"
    r"(?:(?:so|thus|hence|therefore|and|then|the|my|our),?[ \t]+){0,3}[*_\"'`]{0,3}$",
    re.IGNORECASE,
)
_AFTER_LABEL = re.compile(
    r"[*_\"'`]{0,3}(?:[ \t]*\([^()\n]{0,60}\))?[*_\"'`]{0,3}[ \t]*"
    r"(?:[:：﹕∶꞉=]|[-–—](?=[ \t])|(?P<verb>(?:is|are|was)\b)(?![ \t]+not\b)(?P<colon>[ \t]*:)?|(?=\r?\n))[*_]{0,3}",
    re.IGNORECASE,
)
# Four hashes are a markdown heading too, so a value must stand alone behind them, unless the line is the last.
_HASHES = re.compile(
    r"^[ \t]*####[ \t]*(?=(?:[-+$€£.]{0,3}[0-9][0-9.,/]*+%?|\(?[A-J]\)?|yes|no|true|false)[. \t]*\r?$)",
    re.MULTILINE | re.IGNORECASE,
)
_NAMED = re.compile(
    r"(?<![\w'])(?:answer|choice|option|correct)[*_]{0,3}[ \t]*(?:is\b[ \t]*:?|:)[*_]{0,3}", re.IGNORECASE
)
_LETTER_LABEL = re.compile(r"^[ \t*_]*A:[*_]{0,3}(?=[ \t])")
_BOX = re.compile(r"\\(?:boxed|fbox)\s*(?:\{|(?=[^\s{]))")
_LONGEST_BOX = 1000
_LABELS, _BOXES = 50, 8
"""The number of last marks that are looked at."""
_NEAR = 40
"""Characters between two boxes that belong together."""
_LISTED = re.compile(
    r"[\s$,;&.]*(?:\\(?:text|mbox|quad|qquad|[,;: ])\s*\{?\s*)*(?:,?\s*(?:and|or))?[\s,;$}&]*(?:\\q?quad\s*)?",
    re.IGNORECASE,
)
_SCALED = r"(?:hundred|thousand|million|billion|trillion|dozen|k|mn|bn)\b"
_CHANGED_BEFORE = re.compile(
    r"(?:[-–−‐‑±√^]|(?:\bnot|n't|n’t)[ \t]+|\b(?:minus|negative)[ \t]+"
    r"|[0-9]|\}\{|\\(?:sqrt(?:\[[^\]]*\])?|pm|mp)[ \t]*\{?"
    r"|[0-9][ \t]*/[ \t]*)\$?\\?[(\[]?$",
    re.IGNORECASE,
)
_CHANGED_AFTER = re.compile(
    rf"[ \t]*(?:\^(?!\s*\{{?\s*\\circ)|!(?=\$)|[0-9]|\\(?:sqrt|pi|pm)(?![a-zA-Z])"
    rf"|\$?[ \t]*(?:\\text\{{)?[ \t]*{_SCALED}|\$?[ \t]*(?:or|to)[ \t]+[-$\\]*[0-9]"
    r"|/[0-9])",
    re.IGNORECASE,
)
_HOPED = re.compile(
    r"(?<=[.!)$\]}])\s+(?:I hope|Hope|Let me know|Please let me know|Feel free|Thanks?|Thank you)\b[^\n]*"
)
_CLOSING = re.compile(
    r"\W*(?:I hope|Hope (?:this|that|it)|(?:Please )?let me know|Feel free|Thanks?\b|Thank you|Good luck)",
    re.IGNORECASE,
)
_TAIL = 100_000
"""The number of characters from the end that are looked at if there is no marker."""


class _Mark(NamedTuple):
    """A place at which a reply marks its answer: a label, a line of hashes, or a sentence that names the final
    answer.
    """

    begin: int
    end: int
    sentence: bool
    """``The final answer is …``: it may give the answer, or say something about it."""


def stated_answer(text: str, reads: Callable[[str], bool] = lambda phrase: True) -> str | None:
    """The text that the reply marks as its final answer: the rest of the line after the last mark, or the inside of the
    box.

    None if the reply has no mark, an empty text if nothing follows the last one. A sentence (``The final answer is
    correct.``) that ``reads`` does not take for an answer is passed over if something is marked before it.
    """
    return _statement(text, reads)[0]


def _statement(text: str, reads: Callable[[str], bool]) -> tuple[str | None, int]:
    """The stated text, and the beginnings of the sentences that were passed over."""
    end, passed_over = len(text), None
    for mark in _marks(text):
        boxed = _last_box(text, mark.begin, end)
        phrase = _line(text, mark.end, end) if boxed is None else boxed
        if boxed is not None or not mark.sentence or reads(phrase):
            return phrase, len(text)
        passed_over = phrase if passed_over is None else passed_over
        end = mark.begin
    boxed = _last_box(text, 0, end)
    if boxed is not None:
        return boxed, len(text)
    if passed_over is not None:
        return passed_over, end
    line = _last_line(text)
    return (line[4:].strip() if line.startswith("####") else None), end


def _marks(text: str) -> Iterator[_Mark]:
    """The marks of the reply, the last one first; no more than a reader would go back to."""
    labels = deque((match.span() for match in _LABEL.finditer(text, _first_label(text))), maxlen=_LABELS)
    hashes = deque((match.span() for match in _HASHES.finditer(text)), maxlen=1) if "####" in text else ()
    marks = [_Mark(begin, end, False) for begin, end in hashes]
    for begin, end in labels:
        start = _line_start(text, begin)
        after, before = _AFTER_LABEL.match(text, end), _BEFORE_LABEL.search(text[start:begin])
        if after and before:
            start += before.start() + (before[0][:1] in tuple(".!?;:)]}"))
            marks.append(_Mark(start, after.end(), bool(after["verb"]) and not after["colon"]))
    return iter(sorted(marks, reverse=True))


def _first_label(text: str) -> int:
    """An index before which no label begins. The pattern by itself takes far longer to pass over the reasoning."""
    if not text.isascii():
        return 0
    at = text.lower().find("final")
    return len(text) if at < 0 else at


def _line_start(text: str, position: int) -> int:
    """The index at which the line of ``position`` begins, at most 80 characters before it."""
    near = max(0, position - 80)
    return max(near, text.rfind("\n", near, position) + 1)


def _line(text: str, start: int, stop: int) -> str:
    """The rest of the line, or the next line that is not empty if a heading leaves the rest of its own empty."""
    for further in range(4):
        end = text.find("\n", start, stop)
        line = _HOPED.sub("", text[start : end if end >= 0 else stop]).strip()
        if line.strip("*_ `$\\[(~") or end < 0:
            # a hyphen begins an item of a list only on a line of its own; behind the label it is a sign
            return re.sub(r"^(?:[-•>]|\*(?!\*))[ \t]+" if further else r"^•[ \t]+", "", line)
        start = end + 1
    return ""


def _last_box(text: str, begin: int, end: int) -> str | None:
    """The content of the last box between two places, with the boxes that are listed with it; None if there is none.

    Empty if something beside it changes its value: a sign before it, a power or ``million`` behind it.
    """
    boxes_found = deque(_BOX.finditer(text, begin, end), maxlen=_BOXES)
    if not boxes_found:
        return None
    contents = [_box(text, boxes_found[-1])]
    start = boxes_found[-1].start()
    if _CHANGED_BEFORE.search(text[_line_start(text, start) : start]):
        return ""
    if _CHANGED_AFTER.match(text, _box_end(text, boxes_found[-1])):
        return ""
    for match in list(boxes_found)[-2::-1]:
        between = text[_box_end(text, match) : start]
        if len(between) > _NEAR or re.search(r"[.!?]\s|=|\n\s*\n", between):
            break
        inside = _box(text, match)
        if inside not in contents:
            if not _LISTED.fullmatch(between):
                return ""
            contents.insert(0, inside)
        start = match.start()
    return ", ".join(contents)


def boxes(text: str) -> list[str]:
    r"""The contents of the ``\boxed{…}`` of a text (``\fbox``, and ``\boxed 2``), in order."""
    return [_box(text, match) for match in _BOX.finditer(text)]


def _box(text: str, match: re.Match[str]) -> str:
    end = _box_end(text, match)
    if not match[0].endswith("{"):  # without braces, the next token alone
        return text[match.end() : end]
    return text[match.end() : end - 1] if end > match.end() else ""


def _box_end(text: str, match: re.Match[str]) -> int:
    """The index behind the box; the beginning of its inside, if it has no end."""
    if not match[0].endswith("{"):
        token = re.compile(r"\\[a-zA-Z]+|.", re.DOTALL).match(text, match.end())
        return token.end() if token else match.end()
    depth = 1
    for i in range(match.end(), min(len(text), match.end() + _LONGEST_BOX)):
        depth += {"{": 1, "}": -1}.get(text[i], 0)
        if depth == 0:
            return i + 1
    return match.end()


def _last_line(text: str) -> str:
    """The last line with a letter or digit in it that is more than a closing phrase."""
    lines = text.rstrip()[-_TAIL:].splitlines()
    return next((line.strip() for line in reversed(lines) if re.search(r"\w", line) and not _CLOSING.match(line)), "")


def _same(gold: str, answer: str) -> bool:
    return gold == answer


@dataclass(frozen=True)
class Grader:
    """One way to compare answers: by their canonical forms, and ``equal`` decides whether two of them are equal."""

    name: GraderName
    asks: str
    """The request for the answer in prompts."""
    canonical: Callable[[str], str | None]
    """The value of a stated answer, None if it holds none."""
    whole: re.Pattern[str]
    """A pattern for a reply of one line that is nothing but its answer."""
    equal: Callable[[str, str], bool | str | None] = _same
    """Whether gold and answer are equal. None if the answer turns out to be none, a reason if it cannot be told."""

    @property
    def answer_format(self) -> str:
        """The sentence for prompts."""
        return f"End with a line that reads 'Final answer: ' followed by {self.asks}."

    def written(self, answer: str) -> str:
        """An answer in the form of ``answer_format``."""
        return f"Final answer: ${answer}$" if self.name == "math" else f"Final answer: {answer}"

    def answer(self, text: str) -> str | None:
        """The answer that the reply states, in canonical form; None if it states none that can be read."""
        text = clean_text(spoken(text))
        phrase, end = _statement(text, self._reads)
        if phrase is not None:
            answer = self.canonical(phrase)
            if answer is not None or end == len(text):
                return answer
            text = text[:end]  # before a sentence about the answer
        last = _last_line(text)[-1000:]
        named = [match.end() for match in _NAMED.finditer(last)]
        if self.name == "number" and not named:  # the form of GSM8K's published model solutions
            named = [match.end() for match in _LETTER_LABEL.finditer(last)]
        if named:
            return self.canonical(last[named[-1] :])
        text = text.strip()
        return self.canonical(text) if "\n" not in text and self.whole.match(text) else None

    def _reads(self, phrase: str) -> bool:
        """Whether the rest of a sentence is an answer and nothing else."""
        bare = phrase.strip().rstrip(".! ")
        if self.name in ("number", "math") and _BEGINS.match(bare):
            return True  # it is meant for one, whether or not it can be read
        return self.whole is not _ANYTHING and self.whole.match(bare) is not None and self.canonical(bare) is not None

    def grade(self, gold: str, text: str) -> Grade:
        """Judge a whole reply against the gold answer. Never raises.

        No readable answer: ``correct`` False, status ``no_answer``. A gold answer that this grader cannot read, or two
        that it cannot compare: ``correct`` None, with the reason. The caller marks truncated and empty replies, because
        it knows how the call ended.
        """
        answer, right = self.answer(text), self.canonical(gold)
        if right is None:
            return Grade(answer, None, "no_answer" if answer is None else "ok", "the gold answer cannot be read")
        verdict = None if answer is None else self.equal(right, answer)
        if verdict is None:
            return Grade(None, False, "no_answer")
        return Grade(answer, None, "ok", verdict) if isinstance(verdict, str) else Grade(answer, verdict)

    def same(self, a: str, b: str) -> bool:
        """Whether two answers of replies, in canonical form, are one answer. Two that cannot be compared are not."""
        return a == b or (self.name == "math" and mathematics.same(a, b))

    def lenient_answer(self, text: str) -> str | None:
        """The last number, letter, yes or no, or line of the reply, whether or not it is offered as the answer.

        For a second column beside the headline accuracy, which never uses it: it credits noise.
        """
        tail = text[-_TAIL:]
        if self.name == "number":
            values = numbers.every(tail)
            return numbers.canonical(values[-1]) if values else None
        if self.name == "choice":
            letters = re.findall(r"(?<![\w'])(?:[B-HJ]|[AI](?!\s+[a-z0-9]))(?![\w'])", tail)
            return letters[-1] if letters else None
        if self.name == "yes_no":
            words = answers.polar(tail)
            return words[-1] if words else None
        return self.canonical(_last_line(tail))

    def read_gold(self, text: str) -> str | None:
        """The canonical gold answer of a data row: a bare value, or a worked solution that states its answer."""
        return self.canonical(text) if stated_answer(text) is None and "\n" not in text.strip() else self.answer(text)

    def perturb(self, gold: str) -> str:
        """A wrong answer that is as close to the gold as this grader can distinguish."""
        if self.name == "number":
            return f"{gold}1" if "." in gold else f"1{gold}" if "/" in gold else str(int(gold) + 1)
        if self.name == "choice":
            return answers.LETTERS[(answers.LETTERS.index(gold) + 1) % len(answers.LETTERS)]
        if self.name == "yes_no":
            return "no" if gold == "yes" else "yes"
        if self.name == "math":
            return mathematics.perturb(gold)
        return f"{gold}x"


class Open(Grader):
    """A grader for questions that judges decide (:mod:`vivavoce.committee.judges`): it reads no answer and compares
    none.

    A gold answer is whatever the data has, or none: judges are shown it for comparison.
    """

    @property
    def answer_format(self) -> str:
        return "Write the answer itself, as you would give it to whoever asked."

    def written(self, answer: str) -> str:
        return answer

    def answer(self, text: str) -> None: ...

    def grade(self, gold: str, text: str) -> Grade:
        """Return a grade without a verdict, because judges give it."""
        return Grade(None, None, "unjudged", "the question needs a judge, and none was asked")

    def lenient_answer(self, text: str) -> None: ...

    def read_gold(self, text: str) -> str:
        return text.strip()


_BEGINS = re.compile(r"[\W_]*(?:[0-9]|\$|\\|(?:about|either|between|approximately|minus|negative)\b)", re.IGNORECASE)
_ANYTHING = re.compile(r".")
_NUMBER = re.compile(r"^\W*(?:US\$)?[0-9][0-9.,/ ]*+\W*(?:[^\W\d]++\W*+){0,4}$")  # and a few words of unit
_CHOICE = re.compile(r"^[^\w\s]*(?:\\text\{)?[A-J](?:[^\w\s']|\s*$)")  # and nothing, or closed off: "C) because"
_YES_NO = re.compile(r"^\W*(?:yes|no|true|false)(?:\W*$|[,.;:!*])", re.IGNORECASE)  # and nothing, or set off: "No, as"
_MATH = re.compile(r"^(?:\$[^$]+\$|[^a-zA-Z]+)$")  # all in dollars, or without a letter
_GRADERS = [
    Grader("number", "the number alone, without units", answers.number, _NUMBER),
    Grader("choice", "the letter of your choice alone", answers.choice, _CHOICE),
    Grader("yes_no", "yes or no", answers.yes_no, _YES_NO),
    Grader("exact", "the answer alone", answers.exact, _ANYTHING),
    Grader("text", "the answer alone, in as few words as possible", answers.words, _ANYTHING),
    Grader("math", "the answer alone, in LaTeX between dollar signs", answers.expression, _MATH, mathematics.equal),
    Open("judge", "the answer", str.strip, _ANYTHING),
]
GRADERS: dict[GraderName, Grader] = {grader.name: grader for grader in _GRADERS}
"""The graders by name. A question of free text has ``text``; ``exact`` keeps case and inner punctuation;
``judge`` leaves it to models."""

__all__ = ["GRADERS", "Grader", "GraderName", "boxes", "stated_answer"]
