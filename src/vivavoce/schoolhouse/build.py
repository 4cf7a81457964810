"""Train the schoolhouse from nothing: `python -m vivavoce.schoolhouse.build --out DIR [--seed 0] [--set code]`.

A base learns to bind operands, then to criticise, then to debate, all on the common facts; each teacher continues
from it with its own facts. The order matters: a base that starts with every role at once never learns to look up an
operand, and comparing two digits (the critic's verdict) is only learnt when it has the stage almost to itself.

Steps, not seconds, and one thread: the same seed on the same machine gives the same weights.
"""

import argparse
import math
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, cast

import torch
from transformers import GenerationConfig, Qwen3Config, Qwen3ForCausalLM
from transformers.models.qwen3.modeling_qwen3 import Qwen3DecoderLayer
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from vivavoce.schoolhouse import lessons, tokenizer, world
from vivavoce.schoolhouse.lessons import Lesson, Pupil
from vivavoce.schoolhouse.speak import Speaker

TOKENS_PER_BATCH = 2048
WARM_UP = 50
OWN_SAMPLES = 4000
# A share of the student's stages after which a sound builder answers this share of known-fact steps.
SHORT, SHORT_STEP_ACCURACY = 0.15, 0.5


class Stage(NamedTuple):
    """A stretch of training: what is taught in which share, for how many optimiser steps, at which peak rate.

    The rate falls by a cosine to `floor` of its peak.
    """

    name: str
    mixture: Mapping[str, float]
    steps: int
    rate: float = 3e-3
    floor: float = 0.03


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

# hidden size, layers, heads, key-value heads, feed-forward size: 0.33 M parameters (0.43 M at last) and 0.17 M
TEACHER_SHAPE, STUDENT_SHAPE = (96, 3, 3, 1, 256), (64, 3, 2, 1, 192)


def new_model(
    shape: tuple[int, int, int, int, int], seed: int, words: PreTrainedTokenizerBase | None = None
) -> Qwen3ForCausalLM:
    """An untrained model of one of the two sizes, for the schoolhouse's own tokenizer where none is given."""
    hidden, layers, heads, kv_heads, feed_forward = shape
    words = words or tokenizer.tokenizer()
    end, pad = words.convert_tokens_to_ids(tokenizer.END), cast(int, words.pad_token_id)
    torch.manual_seed(seed)
    model = Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=len(words),
            hidden_size=hidden,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=kv_heads,
            head_dim=32,
            intermediate_size=feed_forward,
            tie_word_embeddings=True,
            max_position_embeddings=1024,
            pad_token_id=pad,
            eos_token_id=end,
            bos_token_id=None,
        )
    )
    model.generation_config = GenerationConfig(eos_token_id=end, pad_token_id=pad)
    return model


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


class Row(NamedTuple):
    """One lesson as tokens, with the loss weight of each."""

    ids: list[int]
    weights: list[float]


def rows(speaker: Speaker, batch: Sequence[Lesson]) -> list[Row]:
    """Tokenise lessons piece by piece; pieces begin where tokens do, so this equals tokenising the whole text."""
    texts = [text for item in batch for text in (tokenizer.prompt(item.system, item.user), *(t for t, _ in item.reply))]
    encoded = iter(speaker.ids([*texts, tokenizer.END]))
    out = list[Row]()
    end = speaker.ids([tokenizer.END])[0]
    for item in batch:
        ids = list(next(encoded))
        weights = [0.0] * len(ids)
        for _, weight in item.reply:
            piece = next(encoded)
            ids += piece
            weights += [weight] * len(piece)
        out.append(Row(ids + end, [*weights, 1.0]))
    return out


def batches(items: Sequence[Row], rng: random.Random) -> list[list[Row]]:
    """Rows of like length together, about 2048 tokens at a time, in random order."""
    out: list[list[Row]] = [[]]
    for row in sorted(items, key=lambda r: len(r.ids)):
        if out[-1] and len(row.ids) * (len(out[-1]) + 1) > TOKENS_PER_BATCH:
            out.append([])
        out[-1].append(row)
    rng.shuffle(out)
    return out


class School(NamedTuple):
    """Where a model is taught: the words of its tokenizer, how a lesson of a mixture is made, and how often a model is
    right on unseen questions that need only what it was taught (whole answers, steps)."""

    words: Sequence[str]
    teach: Callable[[random.Random, Mapping[str, float]], Lesson]
    known: Callable[[Speaker], tuple[float, float]]


def school(pupil: Pupil) -> School:
    """That of the chains of digits."""

    def teach(rng: random.Random, mixture: Mapping[str, float]) -> Lesson:
        return lessons.lesson(rng, pupil, mixture)

    return School(tokenizer.WORDS, teach, lambda speaker: known_accuracy(speaker, pupil.facts, 300))


def train(speaker: Speaker, school: School, stage: Stage, rng: random.Random) -> None:
    """One stage, in place: AdamW on the weighted cross-entropy of the reply tokens."""
    model, step, began = speaker.model.train(), 0, time.monotonic()
    optimiser = torch.optim.AdamW(model.parameters(), lr=stage.rate, betas=(0.9, 0.98), weight_decay=0.01)
    running: dict[str, float] = {}
    while step < stage.steps:
        for batch in batches(rows(speaker, [school.teach(rng, stage.mixture) for _ in range(1500)]), rng):
            if step == stage.steps:
                break
            cosine = stage.floor + (1 - stage.floor) * 0.5 * (1 + math.cos(math.pi * step / stage.steps))
            for group in optimiser.param_groups:
                group["lr"] = stage.rate * min(1.0, (step + 1) / WARM_UP) * cosine
            loss = weighted_loss(model, batch)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            step += 1
            size = "short" if len(batch[-1].ids) < 70 else "middle" if len(batch[-1].ids) < 125 else "long"
            running[size] = 0.97 * running.get(size, loss.item()) + 0.03 * loss.item()
            if step % 200 == 0:
                told = " ".join(f"{k} {v:.3f}" for k, v in sorted(running.items()))
                print(f"  {stage.name} {step}/{stage.steps} {time.monotonic() - began:.0f}s loss {told}", flush=True)
    model.eval()


def weighted_loss(model: Qwen3ForCausalLM, batch: Sequence[Row]) -> torch.Tensor:
    """Mean cross-entropy of the next token over the reply, each token counted by its weight.

    Padding is on the right and attention is causal, so no mask is needed.
    """
    width = max(len(row.ids) for row in batch)
    ids = torch.tensor([row.ids + [0] * (width - len(row.ids)) for row in batch])  # (B, T)
    weights = torch.tensor([row.weights + [0.0] * (width - len(row.ids)) for row in batch])[:, 1:]
    taught = weights > 0
    hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state[:, :-1]
    losses = torch.nn.functional.cross_entropy(model.lm_head(hidden[taught]), ids[:, 1:][taught], reduction="none")
    return (losses * weights[taught]).sum() / weights[taught].sum()


def measure(speaker: Speaker, pupil: Pupil, n: int, seed: int) -> Pupil:
    """Let the model answer `n` training questions at temperature 1 and grade every step: what does it really know?"""
    rng = random.Random(f"measure/{seed}")
    asked = [world.draw(rng).text for _ in range(n)]
    said = speaker.replies([tokenizer.prompt("solve", q) for q in asked], temperature=1.0, seed=seed)
    tries: dict[world.Fact, list[bool]] = {}
    samples = list[tuple[str, str]]()
    for question, text in zip(asked, said, strict=True):
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
    said = speaker.replies([tokenizer.prompt("solve", q) for q in asked])
    right_steps = total = right = 0
    for question, text in zip(asked, said, strict=True):
        gold, written = world.gold(question), world.steps_of(text)
        right_steps += sum(a == b for a, b in zip(gold, written, strict=False))
        total += len(gold)
        right += world.check(question, text).right
    return right / n, right_steps / total


def save(model: Qwen3ForCausalLM, folder: Path, words: Sequence[str] = tokenizer.WORDS) -> None:
    """Write an ordinary Hugging Face folder, in the model's own precision."""
    model.save_pretrained(folder)
    tokenizer.save(folder, words)


def study(name: str, speaker: Speaker, school: School, stages: Sequence[Stage], out: Path, seed: int) -> Speaker:
    """Run stages in turn, keeping the fp32 weights after each in `OUT/stages`; one that is there is not run again.

    Every stage has its own random stream, so that a resumed build ends in the same weights.
    """
    for stage in stages:
        folder = out / "stages" / f"{name}-{stage.name}"
        if folder.exists():
            speaker = Speaker.load(folder)
            continue
        train(speaker, school, stage, random.Random(f"{name}/{stage.name}/{seed}"))
        answers, steps = school.known(speaker)
        print(f"{name} after {stage.name}: of what it was taught, answers {answers:.3f} steps {steps:.3f}", flush=True)
        save(speaker.model, folder.with_suffix(".part"), school.words)
        folder.with_suffix(".part").rename(folder)
    return speaker


def build_student(out: Path, seed: int, shorten: float = 1.0) -> Speaker:
    """The student: common facts only."""
    speaker = Speaker(new_model(STUDENT_SHAPE, seed), tokenizer.tokenizer())
    stages = [stage._replace(steps=int(stage.steps * shorten)) for stage in STUDENT]
    speaker = study("student", speaker, school(Pupil(world.known("student"))), stages, out, seed)
    save(speaker.model.bfloat16(), out / "student")
    return speaker


def build_base(out: Path, seed: int) -> Speaker:
    """The common ancestor of the teachers: every role, common facts only."""
    speaker = Speaker(new_model(TEACHER_SHAPE, seed + 1), tokenizer.tokenizer())
    return study("base", speaker, school(Pupil(world.known("student"))), BASE, out, seed)


def build_teacher(name: str, out: Path, seed: int) -> Speaker:
    """One teacher, from the finished base: its own facts, then its own measured confidence."""
    pupil = Pupil(world.known(name))
    speaker = study(name, build_base(out, seed), school(pupil), TEACHER_FACTS, out, seed)
    pupil = measure(speaker, pupil, OWN_SAMPLES, seed)
    speaker = study(name, with_one_more_layer(speaker, seed + 2), school(pupil), TEACHER_SELF, out, seed)
    save(speaker.model.bfloat16(), out / name)
    return speaker


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for the four models")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", choices=["chains", "code"], default="chains", help="which models: see README.md")
    parser.add_argument("--only", choices=["base", *world.NAMES], help="one part, to run parts side by side")
    parser.add_argument("--short", action="store_true", help="only part of the student's training, to test the builder")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.short:
        build_student(args.out, args.seed, shorten=SHORT)
        return
    for part in [args.only] if args.only else ["base", *world.NAMES]:
        if args.set == "code":
            from vivavoce.schoolhouse import code_build

            code_build.build(part, args.out, args.seed)
        elif part == "student":
            build_student(args.out, args.seed)
        elif part == "base":
            build_base(args.out, args.seed)
        else:
            build_teacher(part, args.out, args.seed)


if __name__ == "__main__":
    main()
