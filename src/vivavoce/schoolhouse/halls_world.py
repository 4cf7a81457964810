"""The world that the tiny walkers act in: sixteen halls of six rooms, with invented ways.

A room has nine doors. Two of them are open and lead to other rooms of its hall, the others are locked. An errand is a
room of some hall to be reached, then one of another hall, and so on: a walker that reaches the room of a hall is then
in the room of the same number of the next one. The room to be reached is told by a list that has to be looked at in
each hall.

    at E4         E4>? look()        to 2         E4>2 go(door=3)      at E5        E5>2 go(door=7)      at E2; at K2

A wrong door costs a turn at least, and often leads to a room from which there are further ones to go; turns are few.
The halls fall into four skills of four. No agent knows the way from every room, and `known` says which agent knows
which rooms.
"""

import random
from collections import deque
from collections.abc import Mapping
from functools import cache
from typing import Literal, NamedTuple

from vivavoce.schoolhouse.knowledge import taught

Split = Literal["train", "test"]
Place = tuple[str, int]

SKILLS = {"north": "ABCD", "east": "EFGH", "south": "JKLM", "west": "NPQR"}
SKILL_OF = {hall: skill for skill, halls in SKILLS.items() for hall in halls}
KINDS = (*SKILLS, "mix")
HALLS = tuple(SKILL_OF)
ROOMS = range(1, 7)
DOORS = range(1, 10)
PLACES: tuple[Place, ...] = tuple((hall, room) for hall in HALLS for room in ROOMS)
STRONG = {"ada": ("north", "east"), "bob": ("east", "south"), "cyd": ("south", "west")}
NAMES = (*STRONG, "student")
SPARE_TURNS = 2
"""Turns beyond the fewest that an errand takes."""

_CALL = '<tool_call>\n{"name": "%s", "arguments": {'
GO, GONE, LOOK = _CALL % "go" + '"door": ', "}}\n</tool_call>", _CALL % "look" + "}}\n</tool_call>"
"""A walker's calls of its tools: before and after the door, and the one without an argument."""

_WORLD_SEED = 13  # fixes the doors and who knows what; changing it invalidates the shipped weights
_OPEN = 2


class Errand(NamedTuple):
    """The start of a walk, and the room to be reached in each hall, in order. ``kind`` is the skill of all halls, or
    `mix`.
    """

    kind: str
    start: int
    legs: tuple[Place, ...]

    @property
    def id(self) -> str:
        """The errand as text, and back by :func:`errand`."""
        return f"{self.start}>" + ",".join(f"{hall}{room}" for hall, room in self.legs)


@cache
def doors() -> Mapping[Place, Mapping[int, int]]:
    """The open doors of every place, and the rooms behind them; every room of a hall can be reached from every one."""
    rng = random.Random(f"halls/{_WORLD_SEED}")
    behind_door = dict[Place, Mapping[int, int]]()
    for hall in HALLS:
        ring = rng.sample(list(ROOMS), len(ROOMS))  # one door leads around, so that nobody is ever shut in
        for here, after in zip(ring, ring[1:] + ring[:1], strict=True):
            others = [room for room in ROOMS if room not in (here, after)]
            behind = [after, *rng.sample(others, _OPEN - 1)]
            behind_door[hall, here] = dict(zip(rng.sample(list(DOORS), _OPEN), behind, strict=True))
    return behind_door


@cache
def steps_to(hall: str, goal: int) -> Mapping[int, int]:
    """The fewest doors from each room of a hall to the goal."""
    distances, waiting = {goal: 0}, deque([goal])
    while waiting:
        room = waiting.popleft()
        for before in ROOMS:
            if before not in distances and room in doors()[hall, before].values():
                distances[before] = distances[room] + 1
                waiting.append(before)
    return distances


@cache
def best_doors(hall: str, room: int, goal: int) -> tuple[int, ...]:
    """The doors of a room on a shortest way to the goal, in order."""
    away = steps_to(hall, goal)
    return tuple(sorted(door for door, behind in doors()[hall, room].items() if away[behind] == away[room] - 1))


@cache
def taught_rooms(name: str) -> frozenset[Place]:
    """The rooms from which an agent was taught the ways: :func:`vivavoce.schoolhouse.knowledge.taught`."""
    return taught(name, PLACES, SKILL_OF, STRONG, _WORLD_SEED)


def draw(rng: random.Random, kind: str) -> Errand:
    """One random errand of two or three halls."""
    count = rng.choice((2, 3))
    while True:
        skills = [kind] * count if kind in SKILLS else [rng.choice(list(SKILLS)) for _ in range(count)]
        halls = [rng.choice(SKILLS[skill]) for skill in skills]
        if len(set(halls)) == count and (kind in SKILLS or len(set(skills)) > 1):
            break
    start = room = rng.choice(ROOMS)
    legs = list[Place]()
    for hall in halls:
        room = rng.choice([r for r in ROOMS if r != room])
        legs.append((hall, room))
    return Errand(kind, start, tuple(legs))


def errands(split: Split, n: int, seed: int = 0) -> list[Errand]:
    """``n`` distinct errands of one split, the kinds in turn. No errand is in both splits."""
    rng, by_id = random.Random(f"{split}/{seed}"), dict[str, Errand]()
    while len(by_id) < n:
        drawn = draw(rng, KINDS[len(by_id) % len(KINDS)])
        if split_of(drawn) == split:
            by_id.setdefault(drawn.id, drawn)
    return list(by_id.values())


def split_of(errand: Errand) -> Split:
    """The split of an errand, by its text: no generator can move it to the other one."""
    return "test" if random.Random(errand.id).random() < 1 / 8 else "train"


def errand(id: str) -> Errand:
    """The errand of an id. Raises ValueError if it is none."""
    start, mark, rest = id.partition(">")
    legs = tuple((leg[:1], int(leg[1:])) for leg in rest.split(",") if leg[1:].isdecimal())
    skills = {SKILL_OF.get(hall, "") for hall, _ in legs}
    made = Errand(next(iter(skills)) if len(skills) == 1 else "mix", int(start) if start.isdecimal() else 0, legs)
    if not mark or made.id != id or "" in skills or made.start not in ROOMS or any(r not in ROOMS for _, r in legs):
        raise ValueError(f"{id!r} is no errand: write one as 4>E2,K5")
    return made


class Walk:
    """One errand being run."""

    def __init__(self, errand: Errand) -> None:
        self.errand = errand
        self.leg, self.room, self.told = 0, errand.start, False

    @property
    def done(self) -> bool:
        """Whether the last room is reached."""
        return self.leg == len(self.errand.legs)

    @property
    def hall(self) -> str:
        return self.errand.legs[self.leg][0]

    @property
    def goal(self) -> int:
        return self.errand.legs[self.leg][1]

    @property
    def place(self) -> str:
        return f"{self.hall}{self.room}"

    def look(self) -> str:
        """Look at the list: which room of this hall is to be reached."""
        self.told = True
        return f"to {self.goal}"

    def go(self, door: int) -> str:
        """Try a door; returns the observation."""
        if (behind := doors()[self.hall, self.room].get(door)) is None:
            return "locked"
        self.room = behind
        seen = f"at {self.place}"
        if self.room == self.goal:
            self.leg, self.told = self.leg + 1, False
            seen = f"{seen}; at {self.place}" if not self.done else f"{seen}; end"
        return seen

    def best(self) -> tuple[int, ...]:
        """The doors that lead to the goal fastest; none if the list has to be looked at first."""
        return best_doors(self.hall, self.room, self.goal) if self.told else ()

    def fewest(self) -> int:
        """Turns that the whole errand takes at least."""
        rooms = [self.errand.start, *(room for _, room in self.errand.legs)]
        return sum(1 + steps_to(hall, goal)[room] for room, (hall, goal) in zip(rooms, self.errand.legs, strict=False))


def errand_text(errand: Errand) -> str:
    """The first message to a walker."""
    return f"at {errand.legs[0][0]}{errand.start}"


def first_words(walk: Walk) -> str:
    """A walker's first words: its place, and the room that it is to reach."""
    return f"{walk.place}>{walk.goal if walk.told else '?'}"


def act(thought: str, door: int | None) -> str:
    """An action as text."""
    return f"{thought} {LOOK if door is None else f'{GO}{door}{GONE}'}"
