"""What the tiny walkers are taught: one function per kind of lesson, as in `lessons.py`.

A lesson is a walk in which somebody goes right or wrong, and what the pupil would do where it ended. Here, too, no
lesson shows one teacher's name or knowledge to another: peers are virtual, and from a room that the pupil does not
know another door is right in each lesson, on which the peers who know it agree. So a pupil learns whose door to take,
and cannot learn the door from it.
"""

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from schoolhouse.lessons import CONFIDENCE_WEIGHT, Lesson, Piece, tens
from vivavoce.schoolhouse import halls_world as world
from vivavoce.schoolhouse.halls_world import GO, GONE, LOOK, Place, Walk, act, errand_text, first_words
from vivavoce.schoolhouse.tokenizer import ASSISTANT, END, USER

DOOR_WEIGHT = 4.0
_SURE, _PERSUADED, _UNSURE = 0.97, 0.85, 0.15


@dataclass(frozen=True)
class Pupil:
    """Whom a lesson is written for: the rooms from which it was taught the ways."""

    rooms: frozenset[Place]


class Turn(NamedTuple):
    """What was done, whether that was best, and what was seen then."""

    place: Place
    thought: str
    door: int | None
    """None: looked at the list."""
    best: bool
    seen: str


def strolled(rng: random.Random, walk: Walk) -> list[Turn]:
    """A walk up to some turn, by somebody who is right as often as chance has it."""
    skill, turns = rng.choice((0.3, 0.6, 0.9, 1.0)), list[Turn]()
    for _ in range(rng.randrange(walk.fewest() + world.SPARE_TURNS)):
        thoughts, place, best = first_words(walk), (walk.hall, walk.room), walk.best()
        if rng.random() < 0.03:  # looks where it need not, or goes where it should look
            door = rng.choice(world.DOORS) if not walk.told else None
        elif not walk.told:
            door = None
        else:
            door = best[0] if rng.random() < skill else rng.choice(world.DOORS)
        seen = walk.look() if door is None else walk.go(door)
        turns.append(Turn(place, thoughts, door, door in best if best else door is None, seen))
        if walk.done:
            break
    return turns


def history(turns: list[Turn]) -> str:
    """The turns of a walk, as a conversation goes on with them."""
    return "".join(f"{ASSISTANT}{act(t.thought, t.door)}{END}{USER}{t.seen}" for t in turns)


def plain(rng: random.Random, pupil: Pupil) -> Lesson:
    """A walk; whatever was best in it, from rooms that the pupil knows, is learnt. What the student says."""
    walk, turns = _walk(rng)
    head, pieces = errand_text(walk.errand), list[Piece]()
    for turn in turns:
        pieces += _spoken_turn(turn, pupil)
        pieces.append((f"{END}{USER}{turn.seen}{ASSISTANT}", 0.0))
    return Lesson("act", head, [*pieces, *_next(walk, pupil, rng)])


def drill(rng: random.Random, pupil: Pupil) -> Lesson:
    """A walk, and what comes next with the confidence; the pupil knows the room."""
    while True:
        walk, turns = _walk(rng)
        if not walk.told or (walk.hall, walk.room) in pupil.rooms:
            break
    return Lesson("act", errand_text(walk.errand) + history(turns), [*_next(walk, pupil, rng), *_confidence(_SURE)])


def unsure(rng: random.Random, pupil: Pupil) -> Lesson:
    """Any room: from one that is not known the door is guessed (untrained), the confidence low (trained)."""
    walk, turns = _walk(rng)
    sure = _SURE if not walk.told or (walk.hall, walk.room) in pupil.rooms else _UNSURE
    return Lesson("act", errand_text(walk.errand) + history(turns), [*_next(walk, pupil, rng), *_confidence(sure)])


def debate(rng: random.Random, pupil: Pupil) -> Lesson:
    """Read one's own draft and those of one to three virtual peers, then say what to do.

    From a known room it is one's own door; from another, that of the peer who is surest; where nobody is sure, one's
    own guess stands.
    """
    walk, turns = _walk(rng)
    while not walk.told and rng.random() < 0.8:  # looking is no matter of debate
        walk, turns = _walk(rng)
    knows_room = (walk.hall, walk.room) in pupil.rooms
    truth = (walk.best()[0] if knows_room else rng.choice(world.DOORS)) if walk.told else None
    others = rng.choices((1, 2, 3), (0.1, 0.8, 0.1))[0]
    known = [knows_room or not walk.told] + [not walk.told or rng.random() < 0.6 for _ in range(others)]
    doors = [truth if knows or truth is None else rng.choice(world.DOORS) for knows in known]
    sure = [_stated(rng, knows) for knows in known]
    names = ["me", *rng.sample([f"p{k + 1}" for k in range(others)], others)]
    order = rng.sample(range(others + 1), others + 1)
    lines = [f"\n{names[j]}: {act(first_words(walk), doors[j])} conf={tens(sure[j])}" for j in order]

    best = max(order, key=lambda j: sure[j])
    if known[0]:
        door, confidence, weight = truth, _SURE, DOOR_WEIGHT
    elif sure[best] > 0.5:
        door, confidence, weight = doors[best], _PERSUADED, DOOR_WEIGHT
    else:
        door, confidence, weight = doors[0], _UNSURE, 0.0
    reply = [*_pieces(first_words(walk), door, weight), *_confidence(confidence)]
    return Lesson("act", errand_text(walk.errand) + history(turns) + "".join(lines), reply)


def _walk(rng: random.Random) -> tuple[Walk, list[Turn]]:
    """A walk that is not at its end."""
    while True:
        walk = Walk(world.draw(rng, rng.choice(world.KINDS)))
        turns = strolled(rng, walk)
        if not walk.done:
            return walk, turns


def _spoken_turn(turn: Turn, pupil: Pupil) -> list[Piece]:
    """A turn of a walk as the pupil would have said it, else untrained."""
    if turn.best and (turn.door is None or turn.place in pupil.rooms):
        return _pieces(turn.thought, turn.door, DOOR_WEIGHT)
    return [(act(turn.thought, turn.door), 0.0)]


def _next(walk: Walk, pupil: Pupil, rng: random.Random) -> list[Piece]:
    if not walk.told:
        return _pieces(first_words(walk), None, 1.0)
    if (walk.hall, walk.room) in pupil.rooms:
        return _pieces(first_words(walk), walk.best()[0], DOOR_WEIGHT)
    return _pieces(first_words(walk), rng.choice(world.DOORS), 0.0)


def _pieces(thought: str, door: int | None, weight: float) -> list[Piece]:
    if door is None:
        return [(f"{thought} ", 1.0), (LOOK, 1.0)]
    return [(f"{thought} ", 1.0), (GO, 1.0), (str(door), weight), (GONE, 1.0)]


def _confidence(sure: float) -> list[Piece]:
    return [(" conf=", 1.0), (tens(sure), CONFIDENCE_WEIGHT)]


def _stated(rng: random.Random, knows: bool) -> float:
    """A confidence that fits, or nearly always does."""
    return rng.choice((0.95, 0.95, 0.85, 0.75)) if knows == (rng.random() < 0.96) else rng.choice((0.05, 0.15, 0.25))


LESSONS = {f.__name__: f for f in (plain, drill, unsure, debate)}


def lesson(rng: random.Random, pupil: Pupil, mixture: Mapping[str, float]) -> Lesson:
    """One lesson whose kind is drawn from a mixture such as `{"drill": .5, "debate": .5}`."""
    kind = rng.choices(list(mixture), list(mixture.values()))[0]
    return LESSONS[kind](rng, pupil)
