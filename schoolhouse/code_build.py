"""Train the tiny programmers from nothing: `python -m schoolhouse.build --set code --out DIR [--seed 0]`.

A base learns to copy variables and to recall the common functions, then other styles, then to debate; each teacher
continues from it with its own functions, in its own style. The order matters: with three styles at once the base still
recalled nothing after 1,000 steps, with one it does after 600. Whether a function is known can be seen in its name, so
that a model learns where to doubt without a measurement of itself, which the chains of digits need.
"""

import random
from collections.abc import Mapping
from pathlib import Path

from schoolhouse import code_lessons
from schoolhouse.code_lessons import Pupil
from schoolhouse.lessons import Lesson
from schoolhouse.speak import Speaker
from schoolhouse.study import STUDENT_SHAPE, TEACHER_SHAPE, School, Stage, new_model, save, study
from vivavoce.schoolhouse import code_world as world
from vivavoce.schoolhouse import tokenizer

STUDENT = [Stage("solve", {"plain": 1}, 1000)]
BASE = [
    Stage("solve", {"nested": 1}, 700),
    Stage("styles", {"plain": 1}, 600),
    Stage("debate", {"debate": 0.55, "drill": 0.15, "foreign": 0.1, "unsure": 0.2}, 1200),
]
TEACHER = [
    Stage("functions", {"debate": 0.3, "drill": 0.3, "foreign": 0.15, "unsure": 0.25}, 1200),
]


def school(pupil: Pupil) -> School:
    """Where programmers are taught."""

    def teach(rng: random.Random, mixture: Mapping[str, float]) -> Lesson:
        return code_lessons.lesson(rng, pupil, mixture)

    return School(tokenizer.CODE_WORDS, teach, lambda speaker: known_accuracy(speaker, pupil.functions, 300))


def known_accuracy(speaker: Speaker, functions: frozenset[str], n: int, seed: int = 0) -> tuple[float, float]:
    """(programs, steps) written right, whatever the style, on unseen questions that need only these functions."""
    rng = random.Random(f"known/{seed}")
    asked = [world.draw(rng, functions=functions, split="test").text for _ in range(n)]
    right_steps = total = right = 0
    for question, text in zip(asked, speaker.replies([tokenizer.prompt("solve", q) for q in asked]), strict=True):
        gold, written = world.gold(question), [step for step, _ in world.steps_of(text)]
        met = sum(a.means(b) for a, b in zip(gold, written, strict=False))
        right_steps, total, right = right_steps + met, total + len(gold), right + (met == len(gold) == len(written))
    return right / n, right_steps / total


def build(part: str, out: Path, seed: int) -> None:
    """One part: the student, the common ancestor of the teachers, or a teacher."""
    words = tokenizer.tokenizer(tokenizer.CODE_WORDS)
    if part == "student":
        pupil = Pupil(world.taught_functions("student"), world.STYLE_OF["student"])
        speaker = Speaker(new_model(STUDENT_SHAPE, seed, words), words)
        speaker = study(part, speaker, school(pupil), STUDENT, out, seed)
    else:
        speaker = Speaker(new_model(TEACHER_SHAPE, seed + 1, words), words)
        speaker = study("base", speaker, school(Pupil(world.taught_functions("student"))), BASE, out, seed)
    if part in world.STRONG:
        pupil = Pupil(world.taught_functions(part), world.STYLE_OF[part])
        speaker = study(part, speaker, school(pupil), TEACHER, out, seed)
    if part != "base":
        save(speaker.model.bfloat16(), out / part, tokenizer.CODE_WORDS)
