"""The world that the tiny models are examined in: chains of one-digit operations, graded by program.

There are eight operators, each `(p*x + q*y + c) mod 10` with `p` and `q` coprime to 10, so that every 10x10 table is a
Latin square and answers are uniform. The operators fall into four skills of two. A *fact* is one cell of a table, 800
in all. No agent knows every fact, and `known` says which agent knows which. A question is a chain of two to four steps:

    a=4; b=a-3; c=b*5; c?          answered by          b=4-3=1; c=1*5=9; ans=9

A new question is a new combination of finitely many facts: nothing here tests unseen facts.
"""

import random
import re
import zlib
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import cache
from typing import Literal, NamedTuple

from vivavoce.schoolhouse.knowledge import taught

Split = Literal["train", "test"]
Fact = tuple[str, int, int]

OPERATORS = {
    "+": (1, 1, 0),
    "-": (1, 9, 0),
    "*": (3, 7, 1),
    "^": (7, 9, 4),
    "&": (9, 3, 2),
    "|": (1, 3, 5),
    "/": (7, 1, 6),
    "%": (3, 3, 8),
}
SKILLS = {"sum": "+-", "mul": "*^", "bit": "&|", "div": "/%"}
SKILL_OF = {op: skill for skill, ops in SKILLS.items() for op in ops}
KINDS = (*SKILLS, "mix")
STRONG = {"ada": ("sum", "mul"), "bob": ("mul", "bit"), "cyd": ("bit", "div")}
NAMES = (*STRONG, "student")
FACTS: tuple[Fact, ...] = tuple((op, x, y) for op in OPERATORS for x in range(10) for y in range(10))

_VARIABLES = "abcdefgh"
_LENGTHS = (2, 3, 3, 4)
_WORLD_SEED = 11  # fixes who knows what; changing it invalidates every shipped weight

_STEP = re.compile(r"([b-h])=(\d)([^\w\s=])(\d)=(\d)")
_ANSWER = re.compile(r"ans=(\d)")
_CONFIDENCE = re.compile(r" ?conf=\d+")


class Question(NamedTuple):
    """One question and its kind: a skill if every step belongs to it, otherwise `mix`."""

    kind: str
    text: str


class Link(NamedTuple):
    """One step as the question asks for it: `name = left op right`. `right` is a variable or a digit."""

    name: str
    left: str
    op: str
    right: str


class WrittenStep(NamedTuple):
    """One step as an answer writes it, with digits in the place of variables: `name=left op right=value`."""

    name: str
    left: int
    op: str
    right: int
    value: int

    @property
    def fact(self) -> Fact:
        return self.op, self.left, self.right


class ChainGrade(NamedTuple):
    """Whether the final answer is right, and the index of the first step that departs from the gold chain."""

    right: bool
    first_wrong: int | None


def apply(op: str, x: int, y: int) -> int:
    """The true value of one fact."""
    p, q, c = OPERATORS[op]
    return (p * x + q * y + c) % 10


@cache
def taught_facts(name: str) -> frozenset[Fact]:
    """The facts that an agent was taught: :func:`vivavoce.schoolhouse.knowledge.taught`."""
    return taught(name, FACTS, SKILL_OF, STRONG, _WORLD_SEED)


def split_of(text: str) -> Split:
    """The split of a question, by a hash of its text: no generator can move it to the other one."""
    return "test" if zlib.crc32(text.encode()) % 16 == 0 else "train"


def draw(
    rng: random.Random, kind: str | None = None, facts: Collection[Fact] | None = None, split: Split = "train"
) -> Question:
    """One random question. With `facts`, every step uses one of them, and a skill may be swapped to make that
    possible; with `kind=None` four in ten questions stay within one skill."""
    while True:
        length = rng.choice(_LENGTHS)
        if kind in SKILLS:
            skills = [kind] * length
        elif kind is None and rng.random() < 0.4:
            skills = [rng.choice(list(SKILLS))] * length
        else:
            skills = [rng.choice(list(SKILLS)) for _ in range(length)]
        if kind == "mix" and len(set(skills)) == 1:
            continue
        text = _chain(rng, skills, facts)
        if text is not None and split_of(text) == split:
            return Question(skills[0] if len(set(skills)) == 1 else "mix", text)


def _chain(rng: random.Random, skills: list[str], facts: Collection[Fact] | None) -> str | None:
    values = {"a": rng.randrange(10)}
    parts = [f"a={values['a']}"]
    for i in range(len(skills)):
        left, name = _VARIABLES[i], _VARIABLES[i + 1]
        for attempt in range(60):
            op, right = rng.choice(SKILLS[skills[i]]), str(rng.randrange(10))
            if i and rng.random() < 0.35:
                right = rng.choice(_VARIABLES[:i])
            y = values[right] if right in values else int(right)
            if facts is None or (op, values[left], y) in facts:
                break
            if attempt == 30:
                skills[i] = rng.choice(list(SKILLS))
        else:
            return None
        values[name] = apply(op, values[left], y)
        parts.append(f"{name}={left}{op}{right}")
    return "; ".join([*parts, f"{_VARIABLES[len(skills)]}?"])


def questions(split: Split, n: int, seed: int = 0, kinds: Sequence[str] = KINDS) -> Iterator[Question]:
    """`n` distinct questions of one split, the kinds in turn."""
    return distinct(draw, split, n, seed, kinds)


def distinct(
    draw: Callable[..., Question], split: Split, n: int, seed: int, kinds: Sequence[str]
) -> Iterator[Question]:
    """`n` distinct questions that `draw` makes, the kinds in turn."""
    rng, seen = random.Random(f"{split}/{seed}"), set[str]()
    for i in range(n):
        question = draw(rng, kind=kinds[i % len(kinds)], split=split)
        while question.text in seen:
            question = draw(rng, kind=kinds[i % len(kinds)], split=split)
        seen.add(question.text)
        yield question


def parse(question: str) -> tuple[int, list[Link]]:
    """The starting digit and the links of a question's text."""
    start, *links, _ = question.split("; ")
    return int(start[2]), [Link(part[0], part[2], part[3], part[4]) for part in links]


def evaluate(start: int, links: Sequence[Link], value: Callable[[int, Fact], int]) -> list[WrittenStep]:
    """Walk the chain, letting `value(i, fact)` decide each result; later steps use what was decided."""
    values, steps = {"a": start}, list[WrittenStep]()
    for i, link in enumerate(links):
        x = values[link.left]
        y = int(link.right) if link.right.isdigit() else values[link.right]
        values[link.name] = value(i, (link.op, x, y))
        steps.append(WrittenStep(link.name, x, link.op, y, values[link.name]))
    return steps


def gold(question: str) -> list[WrittenStep]:
    """The right chain."""
    return evaluate(*parse(question), lambda _, fact: apply(*fact))


def write(steps: Sequence[WrittenStep], marks: Collection[int] = (), confidence: str = "") -> str:
    """A chain as an agent writes it: `?` after the digits it is unsure of, and its confidence if given."""
    body = "; ".join(f"{s.name}={s.left}{s.op}{s.right}={s.value}{'?' * (i in marks)}" for i, s in enumerate(steps))
    return f"{body}; ans={steps[-1].value}" + (f" conf={confidence}" if confidence else "")


def clean(text: str) -> str:
    """A reply without its unsure marks and its confidence: the plain chain."""
    return _CONFIDENCE.sub("", text.replace("?", "")).strip()


def steps_of(text: str) -> list[WrittenStep]:
    """The steps that a reply wrote, marks ignored; text that is no step is skipped."""
    return [WrittenStep(name, int(x), op, int(y), int(z)) for name, x, op, y, z in _STEP.findall(clean(text))]


def answer_of(text: str) -> str | None:
    """The digit after `ans=`, or None if the reply never got there."""
    match = _ANSWER.search(text)
    return match[1] if match else None


def check(question: str, text: str) -> ChainGrade:
    """Grade a reply. The answer and the steps are judged apart, since a wrong chain can end on the right digit."""
    right, written = gold(question), steps_of(text)
    first = next((i for i, step in enumerate(right) if i >= len(written) or written[i] != step), None)
    return ChainGrade(answer_of(text) == str(right[-1].value), first)
