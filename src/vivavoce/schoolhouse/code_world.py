"""The world that the tiny programmers are examined in: calls to an invented library, written out.

The library has 160 functions, `K3(x, y) = (x op k) op' y`, named by a letter and a digit. A question is a function of
two to four calls; the answer is the body of the same function without the library, in Python:

    def f(a): b=K3(a,2); c=A7(b,a); return c      answered by      b=(a*3)+2; c=(b^5)-a; return c

An answer is graded by running it, so any program that computes the same is right. There are three styles of writing a
step, because programmers who mean the same do not write the same. The functions fall into four skills of four letters.
No agent knows all of them, and `known` says which agent knows which. A new question is a new combination of known
functions.
"""

import operator
import random
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import cache
from typing import Literal, NamedTuple

from vivavoce.schoolhouse.knowledge import taught
from vivavoce.schoolhouse.world import Question, Split, distinct, split_of

Style = Literal["nested", "swapped", "in_two"]

OPERATORS: Mapping[str, Callable[[int, int], int]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "%": operator.mod,
    "&": operator.and_,
    "|": operator.or_,
    "^": operator.xor,
}
SKILLS = {"sum": ("ABCD", "+-"), "mul": ("EFGH", "*%"), "bit": ("JKLM", "&|"), "xor": ("NPQR", "^-")}
"""Letters of a skill's functions, and what their first operator may be."""
SKILL_OF = {letter: skill for skill, (letters, _) in SKILLS.items() for letter in letters}
KINDS = (*SKILLS, "mix")
FUNCTIONS = tuple(f"{letter}{digit}" for letter in SKILL_OF for digit in range(10))
STRONG = {"ada": ("sum", "mul"), "bob": ("mul", "bit"), "cyd": ("bit", "xor")}
STYLES: tuple[Style, ...] = ("nested", "swapped", "in_two")
STYLE_OF: Mapping[str, Style] = {"ada": "nested", "bob": "swapped", "cyd": "in_two", "student": "nested"}
NAMES = (*STRONG, "student")

SHOWN = (3, 8, 31)
"""Arguments on which an answer's results are told: programs that agree on them vote as one."""
HIDDEN = (-7, -1, 0, 1, 2, 5, 6, 9, 12, 20, 77, 1000)
"""Arguments of the hidden tests."""

_VARIABLES = "abcde"
_LENGTHS = (2, 3, 3, 4)
_SECOND = "+-*&|^"
_DISTINCT = 8  # results that a question's function has at least, so that hardly a wrong program is right by luck
_WORLD_SEED = 12  # fixes the library and who knows what; changing it invalidates the shipped weights

_FIRST_, _SECOND_ = r"([-+*%&|^])", r"([-+*&|^])"
_NESTED = re.compile(rf"([b-e])=\(([a-e]){_FIRST_}(\d)\){_SECOND_}(\w)(\?)?")
_SWAPPED = re.compile(rf"([b-e])=(-?)(\w){_SECOND_}\(([a-e]){_FIRST_}(\d)\)(\?)?")
_IN_TWO = re.compile(rf"([b-e])=([a-e]){_FIRST_}(\d); \1{_SECOND_}=(\w)(\?)?")
_CONFIDENCE = re.compile(r" ?conf=\d*\s*$")
_CALL = re.compile(r"([b-e])=([A-Z]\d)\(([a-e]),(\w)\)")


class Body(NamedTuple):
    """A function of the library: `(x first digit) second y`."""

    first: str
    digit: int
    second: str

    def __call__(self, x: int, y: int) -> int:
        return OPERATORS[self.second](OPERATORS[self.first](x, self.digit), y)


class Link(NamedTuple):
    """One step as the question asks for it: `name=function(left,right)`. `right` is a variable or a digit."""

    name: str
    function: str
    left: str
    right: str


class WrittenStep(NamedTuple):
    """One step as a program writes it out."""

    name: str
    left: str
    body: Body
    right: str
    style: Style = "nested"

    def __str__(self) -> str:
        name, left, (first, digit, second), right, style = self
        if style == "nested":
            return f"{name}=({left}{first}{digit}){second}{right}"
        if style == "in_two":
            return f"{name}={left}{first}{digit}; {name}{second}={right}"
        return f"{name}={'-' if second == '-' else ''}{right}{second.replace('-', '+')}({left}{first}{digit})"

    def means(self, other: "WrittenStep") -> bool:
        """Whether both do the same, however they are written."""
        return self[:4] == other[:4]


@cache
def library() -> Mapping[str, Body]:
    """The body of every function."""
    rng = random.Random(f"library/{_WORLD_SEED}")
    return {
        function: Body(rng.choice(SKILLS[SKILL_OF[function[0]]][1]), rng.randrange(2, 10), rng.choice(_SECOND))
        for function in FUNCTIONS
    }


def invented_body(rng: random.Random, function: str) -> Body:
    """The body that an agent without knowledge of a function might take for it."""
    return Body(rng.choice(SKILLS[SKILL_OF[function[0]]][1]), rng.randrange(2, 10), rng.choice(_SECOND))


@cache
def taught_functions(name: str) -> frozenset[str]:
    """The functions that an agent was taught: :func:`vivavoce.schoolhouse.knowledge.taught`."""
    return taught(name, FUNCTIONS, SKILL_OF, STRONG, _WORLD_SEED)


def draw(
    rng: random.Random, kind: str | None = None, functions: Collection[str] | None = None, split: Split = "train"
) -> Question:
    """One random question, of `functions` alone if they are given; with `kind=None` four in ten stay within one
    skill. Its result is never nearly constant.
    """
    allowed = {skill: [f for f in FUNCTIONS if SKILL_OF[f[0]] == skill and (not functions or f in functions)]
               for skill in SKILLS}  # fmt: skip
    while True:
        length = rng.choice(_LENGTHS)
        if kind in SKILLS or (kind is None and rng.random() < 0.4):
            skills = [kind or rng.choice(list(SKILLS))] * length
        else:
            skills = [rng.choice(list(SKILLS)) for _ in range(length)]
        if kind == "mix" and len(set(skills)) == 1:
            continue
        calls = []
        for i, skill in enumerate(skills):
            right = rng.choice(_VARIABLES[:i]) if i and rng.random() < 0.5 else str(rng.randrange(1, 10))
            calls.append(Link(_VARIABLES[i + 1], rng.choice(allowed[skill]), _VARIABLES[i], right))
        text = ask(calls)
        if split_of(text) == split and len(set(results(text, HIDDEN))) >= _DISTINCT:
            return Question(skills[0] if len(set(skills)) == 1 else "mix", text)


def ask(calls: Sequence[Link]) -> str:
    """The text of a question."""
    body = "; ".join(f"{c.name}={c.function}({c.left},{c.right})" for c in calls)
    return f"def f(a): {body}; return {calls[-1].name}"


def questions(split: Split, n: int, seed: int = 0, kinds: Sequence[str] = KINDS) -> Iterator[Question]:
    """`n` distinct questions of one split, the kinds in turn."""
    return distinct(draw, split, n, seed, kinds)


def parse(question: str) -> list[Link]:
    """The calls of a question's text."""
    return [Link(*parts) for parts in _CALL.findall(question)]


def spell(calls: Sequence[Link], body: Callable[[str], Body], style: Style = "nested") -> list[WrittenStep]:
    """The calls written out, each function as `body` has it."""
    return [WrittenStep(c.name, c.left, body(c.function), c.right, style) for c in calls]


def gold(question: str, style: Style = "nested") -> list[WrittenStep]:
    """The right steps."""
    return spell(parse(question), library().__getitem__, style)


def write(steps: Sequence[WrittenStep], marks: Collection[int] = (), confidence: str = "") -> str:
    """An answer as an agent writes it: `?` after the steps it is unsure of, and its confidence if given."""
    body = "; ".join(f"{step}{'?' * (i in marks)}" for i, step in enumerate(steps))
    return f"{body}; return {steps[-1].name}" + (f" conf={confidence}" if confidence else "")


def clean(text: str) -> str:
    """A reply without its unsure marks and its confidence: what is run."""
    return _CONFIDENCE.sub("", text.replace("?", "")).strip()


def steps_of(text: str) -> list[tuple[WrittenStep, bool]]:
    """The steps that a reply wrote in one of the styles, and whether each is marked; other text is skipped."""
    steps = list[tuple[int, WrittenStep, bool]]()
    for m in _NESTED.finditer(text):
        steps.append((m.start(), WrittenStep(m[1], m[2], Body(m[3], int(m[4]), m[5]), m[6], "nested"), bool(m[7])))
    for m in _SWAPPED.finditer(text):
        if m[2] and m[4] != "+":
            continue
        body = Body(m[6], int(m[7]), "-" if m[2] else m[4])
        if m[2] or m[4] != "-":
            steps.append((m.start(), WrittenStep(m[1], m[5], body, m[3], "swapped"), bool(m[8])))
    for m in _IN_TWO.finditer(text):
        steps.append((m.start(), WrittenStep(m[1], m[2], Body(m[3], int(m[4]), m[5]), m[6], "in_two"), bool(m[7])))
    return [(step, marked) for _, step, marked in sorted(steps, key=lambda f: f[0])]


def results(question: str, arguments: Sequence[int]) -> list[int]:
    """The results of the function that a question asks for."""
    steps, out = gold(question), list[int]()
    for argument in arguments:
        values = {"a": argument}
        for step in steps:
            right = int(step.right) if step.right.isdigit() else values[step.right]
            values[step.name] = step.body(values[step.left], right)
        out.append(values[steps[-1].name])
    return out


def program(text: str) -> str | None:
    """The Python program of a reply; None if it never returns anything."""
    body = clean(text)
    return f"def f(a): {body}\n" if re.search(r"\breturn\b", body) else None


def tests(question: str) -> str:
    """Prints the results on the shown arguments, then compares those on the hidden ones."""
    return (
        f"print(*[f(x) for x in {SHOWN}])\n"
        f"assert [f(x) for x in {HIDDEN}] == {results(question, HIDDEN)}, 'another function'"
    )
