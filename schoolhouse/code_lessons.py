"""What the tiny programmers are taught: one function per kind of lesson, as in `lessons.py`.

Here, too, no lesson shows one teacher's name or knowledge to another: peers are virtual, with strengths and styles
drawn anew, and a function that the pupil does not know does something else in each lesson, on which the peers who
know it agree. So a pupil learns whose step to take over, and cannot learn the function from it.
"""

import random
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from schoolhouse.lessons import CONFIDENCE_WEIGHT, MARK_WEIGHT, Lesson, Piece, tens
from vivavoce.schoolhouse import code_world as world
from vivavoce.schoolhouse.code_world import Body, Link, Style, WrittenStep

SURE, UNSURE = 0.97, 0.1


@dataclass(frozen=True)
class Pupil:
    """Whom a lesson is written for: the functions that it was taught, and its style (None: any, program by program)."""

    functions: frozenset[str]
    style: Style | None = None

    def writes(self, rng: random.Random) -> Style:
        return self.style or rng.choice(world.STYLES)


def nested(rng: random.Random, pupil: Pupil) -> Lesson:
    """Known functions, plain program, in one style: what every base starts from."""
    question = world.draw(rng, functions=pupil.functions).text
    return Lesson("solve", question, [(world.write(world.gold(question)), 1.0)])


def plain(rng: random.Random, pupil: Pupil) -> Lesson:
    """The same in the pupil's style: what the student writes."""
    question = world.draw(rng, functions=pupil.functions).text
    return Lesson("solve", question, [(world.write(world.gold(question, pupil.writes(rng))), 1.0)])


def drill(rng: random.Random, pupil: Pupil) -> Lesson:
    """Known functions, with the confidence."""
    question = world.draw(rng, functions=pupil.functions).text
    steps = world.gold(question, pupil.writes(rng))
    return Lesson("solve", question, _marked(steps, (), SURE ** len(steps)))


def unsure(rng: random.Random, pupil: Pupil) -> Lesson:
    """Any functions: those that are not known are guessed (untrained), then marked (trained)."""
    question = world.draw(rng).text
    bodies = _private(rng, pupil)
    steps = world.spell(calls := world.parse(question), bodies, pupil.writes(rng))
    guessed = {i for i, call in enumerate(calls) if call.function not in pupil.functions}
    confidence = SURE ** (len(steps) - len(guessed)) * UNSURE ** len(guessed)
    return Lesson("solve", question, _marked(steps, guessed, confidence, untrained=guessed))


def foreign(rng: random.Random, pupil: Pupil) -> Lesson:
    """Known functions, in another's style: the first step is read, the others are written.

    A scorer goes over programs that it would not have written so.
    """
    question = world.draw(rng, functions=pupil.functions).text
    steps = world.gold(question, rng.choice(world.STYLES))
    return Lesson("solve", question, _marked(steps, (), SURE ** len(steps), untrained={0}))


def debate(rng: random.Random, pupil: Pupil) -> Lesson:
    """Read one's own draft and those of one to three virtual peers, then write one revised program.

    A known step is written as one's own draft has it. Any other is taken over, style and all, from the first peer who
    has it without a mark, else from the first who has it at all; where nobody has, one's own guess stands, marked.
    """
    question = world.draw(rng).text
    calls, bodies, shared = world.parse(question), _private(rng, pupil), dict[str, Body]()
    peers = rng.choices((1, 2, 3), (0.1, 0.8, 0.1))[0]
    drafts = [_draft(rng, pupil, calls, bodies, shared, me=j == 0) for j in range(peers + 1)]
    order = rng.sample(range(peers + 1), peers + 1)

    steps, doubted, untrained, confidence = list[WrittenStep](), set[int](), set[int](), 1.0
    for i, call in enumerate(calls):
        if call.function in pupil.functions:
            steps.append(drafts[0].steps[i]._replace(body=bodies(call.function)))
            confidence *= SURE
            continue
        having = [d for d in (drafts[j] for j in order) if i in d.right]
        taken = next((d for d in having if i not in d.marks), None)
        if taken:
            confidence *= 0.9
        else:
            doubted.add(i)
            confidence *= 0.3
        if not having:
            untrained.add(i)
        steps.append((taken or (having or drafts)[0]).steps[i])

    names = ["me", *rng.sample([f"p{k + 1}" for k in range(peers)], peers)]
    lines = [f"\n{names[j]}: {world.write(drafts[j].steps, drafts[j].marks, drafts[j].confidence)}" for j in order]
    return Lesson("debate", question + "".join(lines), _marked(steps, doubted, confidence, untrained))


class _Draft(NamedTuple):
    steps: list[WrittenStep]
    marks: set[int]
    right: set[int]  # steps written from knowledge, not by luck
    confidence: str


def _draft(
    rng: random.Random,
    pupil: Pupil,
    calls: Sequence[Link],
    bodies: Callable[[str], Body],
    shared_mistakes: dict[str, Body],
    me: bool,
) -> _Draft:
    strong = {skill: rng.random() < 0.5 for skill in world.SKILLS}
    style = pupil.writes(rng) if me else rng.choice(world.STYLES)
    knows: dict[str, bool] = {}
    steps, marks, right, confidence = list[WrittenStep](), set[int](), set[int](), 1.0
    for i, call in enumerate(calls):
        if me:
            knows[call.function] = call.function in pupil.functions
        elif call.function not in knows:
            knows[call.function] = rng.random() < (0.96 if strong[world.SKILL_OF[call.function[0]]] else 0.45)
        doubt = rng.random() < (0.05 if knows[call.function] else 0.9)  # marks are calibrated but noisy
        confidence *= 0.3 if doubt else 0.95
        if doubt:
            marks.add(i)
        if knows[call.function] and rng.random() < 0.97:
            right.add(i)
            body = bodies(call.function)
        elif rng.random() < 0.35:  # a mistake that several agents share
            body = shared_mistakes.setdefault(call.function, world.invented_body(rng, call.function))
        else:
            body = world.invented_body(rng, call.function)
        steps.append(WrittenStep(call.name, call.left, body, call.right, style))
    return _Draft(steps, marks, right, tens(confidence + rng.gauss(0, 0.06)))


def _marked(
    steps: Sequence[WrittenStep], marks: Collection[int], confidence: float, untrained: Collection[int] = ()
) -> list[Piece]:
    reply = list[Piece]()
    for i, step in enumerate(steps):
        reply.append((str(step), 0.0 if i in untrained else 1.0))
        reply += [("?", MARK_WEIGHT), ("; ", 1.0)] if i in marks else [("; ", MARK_WEIGHT)]
    return [*reply, (f"return {steps[-1].name} conf=", 1.0), (tens(confidence), CONFIDENCE_WEIGHT)]


def _private(rng: random.Random, pupil: Pupil) -> Callable[[str], Body]:
    """What the room holds the functions to be: the real ones where the pupil knows them, invented ones elsewhere."""
    made: dict[str, Body] = {}

    def body(function: str) -> Body:
        if function in pupil.functions:
            return world.library()[function]
        return made.setdefault(function, world.invented_body(rng, function))

    return body


LESSONS = {f.__name__: f for f in (nested, plain, drill, unsure, foreign, debate)}


def lesson(rng: random.Random, pupil: Pupil, mixture: Mapping[str, float]) -> Lesson:
    """One lesson whose kind is drawn from a mixture such as `{"drill": .5, "debate": .5}`."""
    kind = rng.choices(list(mixture), list(mixture.values()))[0]
    return LESSONS[kind](rng, pupil)
