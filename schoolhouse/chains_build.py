"""Train the models that answer chains of digits from nothing: `python -m schoolhouse.build --out DIR [--seed 0]`.

A base learns to bind operands, then to criticise, then to debate, all on the common facts; each teacher continues
from it with its own facts. The order matters: a base that starts with every role at once never learns to look up an
operand, and comparing two digits (the critic's verdict) is only learnt when it has the stage almost to itself.
"""

import random
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import cast

import torch
from transformers.models.qwen3.modeling_qwen3 import Qwen3DecoderLayer

from schoolhouse import lessons
from schoolhouse.lessons import Lesson, Pupil
from schoolhouse.speak import Speaker
from schoolhouse.study import STUDENT_SHAPE, TEACHER_SHAPE, School, Stage, new_model, save, study
from vivavoce.schoolhouse import tokenizer, world

OWN_SAMPLES = 4000
# A share of the student's stages after which a sound builder answers this share of known-fact steps.
SHORT, SHORT_STEP_ACCURACY = 0.15, 0.5


STUDENT = [Stage("solve", {"plain": 0.75, "bind": 0.25}, 5000)]
BASE = [
    Stage("solve", {"plain": 1}, 2000),
    Stage("criticise", {"critique": 0.60, "reflect": 0.05, "plain": 0.15, "unsure": 0.20}, 3000),
    Stage("debate", {"debate": 0.45, "critique": 0.20, "reflect": 0.05, "drill": 0.15, "unsure": 0.15}, 4600),
]
TEACHER_FACTS = [
    Stage(
        "facts",
        {"hard_drill": 0.45, "unsure": 0.12, "debate": 0.25, "critique": 0.14, "reflect": 0.04},
        900,
        floor=0.35,
    ),
]
# Between the two lists the teacher answers 4000 questions, its accuracy on each fact is measured, and it gets a layer.
TEACHER_SELF = [
    Stage("self", {"own": 0.45, "hard_drill": 0.10, "debate": 0.28, "critique": 0.13, "reflect": 0.04}, 2200),
    Stage("settle", {"own": 0.30, "hard_drill": 0.06, "debate": 0.48, "critique": 0.12, "reflect": 0.04}, 1000, 2e-3),
]


def with_one_more_layer(speaker: Speaker, seed: int) -> Speaker:
    """The same model with a layer on top that does nothing yet.

    Whether a fact is known shows in the distribution of its digit, and that is there only after the last layer, where
    no later token can attend to it. So three layers never learnt to mark what they do not know; the fourth reads it.
    """
    hidden, layers, heads, kv_heads, feed_forward = TEACHER_SHAPE
    model = new_model((hidden, layers + 1, heads, kv_heads, feed_forward), seed)
    model.load_state_dict(speaker.model.state_dict(), strict=False)
    added = cast(Qwen3DecoderLayer, model.model.layers[-1])
    torch.nn.init.zeros_(added.self_attn.o_proj.weight)
    torch.nn.init.zeros_(added.mlp.down_proj.weight)
    return Speaker(model, speaker.tokenizer)


def school(pupil: Pupil) -> School:
    """That of the chains of digits."""

    def teach(rng: random.Random, mixture: Mapping[str, float]) -> Lesson:
        return lessons.lesson(rng, pupil, mixture)

    return School(tokenizer.WORDS, teach, lambda speaker: known_accuracy(speaker, pupil.facts, 300))


def measure(speaker: Speaker, pupil: Pupil, n: int, seed: int) -> Pupil:
    """Let the model answer `n` training questions at temperature 1 and grade every step: what does it really know?"""
    rng = random.Random(f"measure/{seed}")
    asked = [world.draw(rng).text for _ in range(n)]
    replies = speaker.replies([tokenizer.prompt("solve", q) for q in asked], temperature=1.0, seed=seed)
    tries: dict[world.Fact, list[bool]] = {}
    samples = list[tuple[str, str]]()
    for question, text in zip(asked, replies, strict=True):
        steps, links = world.steps_of(text), world.parse(question)[1]
        for step in steps:
            tries.setdefault(step.fact, []).append(step.value == world.apply(*step.fact))
        if world.answer_of(text) and [s.name for s in steps] == [link.name for link in links]:
            samples.append((question, text))
    accuracy = {fact: (sum(t) + 0.3) / (len(t) + 0.6) for fact, t in tries.items()}
    return replace(pupil, accuracy=accuracy, samples=samples)


def known_accuracy(speaker: Speaker, facts: frozenset[world.Fact], n: int, seed: int = 0) -> tuple[float, float]:
    """(chains, steps) answered right on unseen questions that need only these facts."""
    rng = random.Random(f"known/{seed}")
    asked = [world.draw(rng, facts=facts, split="test").text for _ in range(n)]
    replies = speaker.replies([tokenizer.prompt("solve", q) for q in asked])
    right_steps = total = right = 0
    for question, text in zip(asked, replies, strict=True):
        gold, written = world.gold(question), world.steps_of(text)
        right_steps += sum(a == b for a, b in zip(gold, written, strict=False))
        total += len(gold)
        right += world.check(question, text).right
    return right / n, right_steps / total


def build_student(out: Path, seed: int, shorten: float = 1.0) -> Speaker:
    """The student: common facts only."""
    speaker = Speaker(new_model(STUDENT_SHAPE, seed), tokenizer.tokenizer())
    stages = [stage._replace(steps=int(stage.steps * shorten)) for stage in STUDENT]
    speaker = study("student", speaker, school(Pupil(world.taught_facts("student"))), stages, out, seed)
    save(speaker.model.bfloat16(), out / "student")
    return speaker


def build_base(out: Path, seed: int) -> Speaker:
    """The common ancestor of the teachers: every role, common facts only."""
    speaker = Speaker(new_model(TEACHER_SHAPE, seed + 1), tokenizer.tokenizer())
    return study("base", speaker, school(Pupil(world.taught_facts("student"))), BASE, out, seed)


def build_teacher(name: str, out: Path, seed: int) -> Speaker:
    """One teacher, from the finished base: its own facts, then its own measured confidence."""
    pupil = Pupil(world.taught_facts(name))
    speaker = study(name, build_base(out, seed), school(pupil), TEACHER_FACTS, out, seed)
    pupil = measure(speaker, pupil, OWN_SAMPLES, seed)
    speaker = study(name, with_one_more_layer(speaker, seed + 2), school(pupil), TEACHER_SELF, out, seed)
    save(speaker.model.bfloat16(), out / name)
    return speaker


def build(part: str, out: Path, seed: int) -> None:
    """One part: the student, the common ancestor of the teachers, or a teacher."""
    if part == "student":
        build_student(out, seed)
    elif part == "base":
        build_base(out, seed)
    else:
        build_teacher(part, out, seed)
