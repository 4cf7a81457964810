"""How a tiny model is taught: a table of stages, and the training loop that goes through them.

Steps, not seconds, and one thread: the same seed on the same machine gives the same weights.
"""

import math
import random
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, cast

import torch
from transformers import GenerationConfig, Qwen3Config, Qwen3ForCausalLM
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from schoolhouse.lessons import Lesson
from schoolhouse.speak import Speaker
from vivavoce.schoolhouse import tokenizer

TOKENS_PER_BATCH = 2048
WARM_UP = 50

# hidden size, layers, heads, key-value heads, feed-forward size: 0.33 M parameters (0.43 M at last) and 0.17 M
TEACHER_SHAPE, STUDENT_SHAPE = (96, 3, 3, 1, 256), (64, 3, 2, 1, 192)


class Stage(NamedTuple):
    """A stretch of training: what is taught in which share, for how many optimiser steps, at which peak rate.

    The rate falls by a cosine to `floor` of its peak.
    """

    name: str
    mixture: Mapping[str, float]
    steps: int
    rate: float = 3e-3
    floor: float = 0.03


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
                line = " ".join(f"{k} {v:.3f}" for k, v in sorted(running.items()))
                print(f"  {stage.name} {step}/{stage.steps} {time.monotonic() - began:.0f}s loss {line}", flush=True)
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
