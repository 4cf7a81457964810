"""States of the walkers' reference errands, as questions: what to do next.

Recorded conversations in small, as ToolACE's: a state is what a walker had read and done by then. No environment is
played; an action is right if it is one of the best there.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from vivavoce.environments.environment import Action, Episode, Observation, Step
from vivavoce.records import Problem, digest
from vivavoce.schoolhouse import halls_world as world
from vivavoce.tasks import Task
from vivavoce.tasks.acting import ActingTask, situation
from vivavoce.tasks.schoolhouse_halls import SchoolhouseHalls, opening
from vivavoce.tasks.splitting import known_split

PROMPTS = "schoolhouse_halls"
"""The prompt set in which its questions are asked, if a recipe names no other."""


class Options(BaseModel):
    """The number of states, and their seed."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    train: int = Field(default=1500, ge=0, description="states to train on")
    test: int = Field(default=500, ge=0, description="states to test on")
    seed: int = Field(default=0, description="decides on which errands they lie")


class States(ActingTask):
    """The states as a :class:`~vivavoce.tasks.Task`. A problem's group is the kind of its errand."""

    name = "schoolhouse_states"
    answer_format = SchoolhouseHalls.answer_format

    def __init__(self, options: Options) -> None:
        self.options = options

    def problems(self, split: str) -> list[Problem]:
        """The states along the first errands of the seed, each once, and none of the test in training. Raises DataError
        for a split other than train and test.
        """
        part = known_split(split, self.name)
        wanted = self.options.train if part == "train" else self.options.test
        kept = {digest(list(p.history)) for p in self.problems("test")} if part == "train" else set()
        states: dict[str, Problem] = {}
        for errand in world.errands(part, wanted, self.options.seed):
            walked = reference(errand)
            for step in range(len(walked.steps)):
                one = situation(walked, step, errand.kind)
                if (seen := digest(list(one.history))) not in kept:
                    states.setdefault(seen, one)
            if len(states) >= wanted:
                break
        return list(states.values())[:wanted]


def reference(errand: world.Errand) -> Episode:
    """An errand done by the best actions."""
    walk, steps = world.Walk(errand), list[Step]()
    while not walk.done:
        words, doors, state = world.first_words(walk), walk.best(), f"{walk.leg} {walk.room} {walk.told}"
        best = tuple(world.act(words, door) for door in doors) or (world.act(words, None),)
        seen = walk.go(doors[0]) if doors else walk.look()
        steps.append(Step(Action(best[0]), Observation(({"role": "user", "content": seen},), walk.done), state, best))
    return Episode(States.name, errand.id, 0, "reference", opening(errand), tuple(steps), "done", True)


def task(options: Options) -> Task:
    """Open the states."""
    return States(options)
