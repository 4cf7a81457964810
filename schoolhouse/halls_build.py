"""Train the tiny walkers from nothing: `python -m schoolhouse.build --set halls --out DIR [--seed 0]`.

As the programmers: a base learns to walk where everyone knows the way, then to debate; each teacher continues from it
with its own rooms. Whether a way is known can be seen in the name of the room.
"""

import random
from collections.abc import Mapping
from pathlib import Path

from schoolhouse import halls_lessons
from schoolhouse.halls_lessons import Pupil
from schoolhouse.lessons import Lesson
from schoolhouse.speak import Speaker
from schoolhouse.study import STUDENT_SHAPE, TEACHER_SHAPE, School, Stage, new_model, save, study
from vivavoce.schoolhouse import halls_world as world
from vivavoce.schoolhouse import tokenizer

STUDENT = [Stage("walk", {"plain": 1}, 700)]
BASE = [
    Stage("walk", {"plain": 1}, 700),
    Stage("debate", {"debate": 0.5, "drill": 0.2, "unsure": 0.3}, 900),
]
TEACHER = [Stage("rooms", {"debate": 0.35, "drill": 0.35, "unsure": 0.3}, 1000)]


def school(pupil: Pupil) -> School:
    """Where walkers are taught."""

    def teach(rng: random.Random, mixture: Mapping[str, float]) -> Lesson:
        return halls_lessons.lesson(rng, pupil, mixture)

    return School(tokenizer.HALLS_WORDS, teach, lambda speaker: known_accuracy(speaker, pupil.rooms, 1000))


def known_accuracy(speaker: Speaker, rooms: frozenset[world.Place], n: int, seed: int = 0) -> tuple[float, float]:
    """(all turns, doors) that are best, on turns for which only these rooms have to be known."""
    rng, asked, best = random.Random(f"known/{seed}"), list[str](), list[set[str]]()
    while len(asked) < n:
        made = halls_lessons.drill(rng, Pupil(rooms))
        asked.append(tokenizer.prompt("act", made.user))
        best.append({"".join(text for text, _ in made.reply).partition(" conf=")[0]})
    replies = [text.partition(" conf=")[0].strip() for text in speaker.replies(asked, max_new_tokens=16)]
    met = [text in right for text, right in zip(replies, best, strict=True)]
    doors = [ok for ok, right in zip(met, best, strict=True) if tokenizer.LOOK not in next(iter(right))]
    return sum(met) / n, sum(doors) / max(1, len(doors))


def build(part: str, out: Path, seed: int) -> None:
    """One part: the student, the common ancestor of the teachers, or a teacher."""
    words = tokenizer.tokenizer(tokenizer.HALLS_WORDS)
    if part == "student":
        pupil = Pupil(world.taught_rooms("student"))
        speaker = study(part, Speaker(new_model(STUDENT_SHAPE, seed, words), words), school(pupil), STUDENT, out, seed)
    else:
        pupil = Pupil(world.taught_rooms("student"))
        speaker = Speaker(new_model(TEACHER_SHAPE, seed + 1, words), words)
        speaker = study("base", speaker, school(pupil), BASE, out, seed)
    if part in world.STRONG:
        speaker = study(part, speaker, school(Pupil(world.taught_rooms(part))), TEACHER, out, seed)
    if part != "base":
        save(speaker.model.bfloat16(), out / part, tokenizer.HALLS_WORDS)
