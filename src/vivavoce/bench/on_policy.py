"""The on-policy step against TRL's DistillationTrainer, and what sharing a transcript saves.

``step``: one teacher without a transcript, the same tokens on both sides: forward and backward of the student, forward
of the teacher, the divergence over the whole vocabulary. Beside TRL stands the naive step, which holds all logits.
``scoring``: several teachers go over n answers to one state, each under a long transcript: the transcript computed
once for all n, against a plain forward pass over every answer with its own transcript.
``epochs``: MAD-OPD on the schoolhouse over several epochs, debates held once, against the cost structure of
the authors' code, which holds one for every answer in the middle of training: teacher tokens and time.
"""

from __future__ import annotations

import asyncio
import math
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from transformers import PreTrainedTokenizerFast, TrainingArguments
from trl import DistillationConfig, DistillationTrainer

from vivavoce.agents import hf_local, weights
from vivavoce.agents.journal import Journal
from vivavoce.bench.models import ModelDimensions, TextSource, random_model, word_tokenizer
from vivavoce.bench.side_by_side import Hardware, LossComparison, Pass, alternate, apart, facts, fastest
from vivavoce.committee.prompting import prompt_set
from vivavoce.committee.table import Member, Setting, hold_all
from vivavoce.data.states import Supervision
from vivavoce.data.states import states as states_of
from vivavoce.progress import say, say_seldom
from vivavoce.protocols import state_debate
from vivavoce.records import Completion, Message, Sampling, State, Usage, View
from vivavoce.tasks import open_task
from vivavoce.train.checkpoint import threads as torch_threads
from vivavoce.train.choosing import choose
from vivavoce.train.objective import Objective, OnPolicySettings, Scorer
from vivavoce.train.on_policy import OnPolicyTrainer, train_on_policy
from vivavoce.train.prepared import Prepared, Updates
from vivavoce.train.scorers import Answer, LocalScorer
from vivavoce.train.tokens import answer_ids, context_ids

_DEFAULT = ModelDimensions.narrow(256, 4, 32768)
_TEACHERS = ("ada", "bob", "cyd")
_OPTIONS = state_debate.Options(prompts="schoolhouse", max_rounds=2, reads="last_round", shuffle="per_agent")
_BETAS = {"forward_kl": 0.0, "jsd": 0.5, "reverse_kl": 1.0}


@dataclass(frozen=True)
class UpdateShape:
    """The step: so many states of so many tokens, one answer of so many tokens to each."""

    states: int = 8
    prompt: int = 64
    answer: int = 128
    rollouts: int = 8
    """Scoring: answers to one state."""
    transcript: int = 1000
    """Scoring: tokens before each of them, prompt included."""
    teachers: int = 2


def run(
    shape: UpdateShape | None = None,
    size: ModelDimensions = _DEFAULT,
    hardware: Hardware | None = None,
    divergences: Sequence[str] = ("reverse_kl", "jsd", "forward_kl"),
    *,
    repeats: int = 3,
    seed: int = 0,
) -> Iterator[LossComparison]:
    """Measure the step under each divergence, then scoring. Raises AssertionError if the sides differ."""
    shape, hardware = shape or UpdateShape(), hardware or Hardware()
    for divergence in divergences:
        yield step(shape, size, divergence, hardware, repeats=repeats, seed=seed)
    yield scoring(shape, size, hardware, repeats=repeats, seed=seed)


# --- the step


def step(
    shape: UpdateShape,
    size: ModelDimensions,
    divergence: str,
    hardware: Hardware | None = None,
    *,
    repeats: int = 3,
    seed: int = 0,
) -> LossComparison:
    """Measure the step under one divergence."""
    hardware = hardware or Hardware()
    with torch_threads(hardware.threads), tempfile.TemporaryDirectory() as folder:
        return _step(shape, size, hardware, divergence, Path(folder), repeats, seed)


def _step(
    shape: UpdateShape,
    size: ModelDimensions,
    hardware: Hardware,
    divergence: str,
    folder: Path,
    repeats: int,
    seed: int,
) -> LossComparison:
    words, device = TextSource(size.vocabulary, seed), hardware.device
    what = f"on-policy step, {divergence}, {shape.states * shape.answer:,} tokens x {size.vocabulary:,}"
    say(f"measuring {what}")
    student, teacher = (random_model(size, device, seed + i) for i in range(2))
    made = [(words.prompt(shape.prompt), words.answer(shape.answer)) for _ in range(shape.states)]
    sides = _Sides(student, teacher, word_tokenizer(size.vocabulary), made, _BETAS[divergence], folder, hardware)
    exact = replace(sides, hardware=replace(hardware, bf16=False))
    apart(student, exact.ours(), exact.naive())
    errors = apart(student, exact.ours(), exact.theirs(1), 6 + 2 * (repeats + 2))  # the naive side costs as much
    if hardware.bf16:
        teacher.to(torch.bfloat16)  # a teacher that is only read is loaded so
    passes = {f"batch {n}": sides.theirs(n) for n in dict.fromkeys((1, 2, 4, shape.states))}
    best = fastest(passes, warm=hardware.bf16, compiling=[student, teacher] if device == "cuda" else [])
    every = {"theirs": best.one, "ours": sides.ours(), "naive": sides.naive()}
    times = alternate(every, student, device, repeats)
    return LossComparison(
        what,
        times["ours"],
        times["theirs"],
        f"TRL's DistillationTrainer, {best.name}",
        best.seconds,
        *errors,
        naive=times["naive"],
        facts=facts(device, "torch", "transformers", "trl"),
    )


@dataclass(frozen=True)
class _Sides:
    """One pass over the same tokens, three ways; each gives the mean loss."""

    student: Any
    teacher: Any
    tokenizer: PreTrainedTokenizerFast
    made: list[tuple[tuple[Message, ...], str]]
    """Prompts and answers."""
    beta: float
    folder: Path
    hardware: Hardware

    def ours(self) -> Pass:
        """The step as it is trained, answers given."""
        states = [State(f"q{i}", p, (View(p, 1.0),), (Completion(a, ""),)) for i, (p, a) in enumerate(self.made)]
        prepared = [
            Prepared(state, context_ids(self.tokenizer, prompt), [tuple(answer_ids(self.tokenizer, answer))])
            for state, (prompt, answer) in zip(states, self.made, strict=True)
        ]
        settings = OnPolicySettings(
            lora=None,
            on_policy=0.0,
            states_per_step=len(states),
            reduction="token",
            objective=Objective(beta=self.beta),
            bf16=self.hardware.bf16,
            compile=self.hardware.bf16,
        )
        scorer = LocalScorer(Scorer(name="teacher"), self.teacher, self.tokenizer, settings)
        scorer.prepare(max(len(p.context) + len(p.recorded[0]) for p in prepared))
        trainer = OnPolicyTrainer(
            self.student,
            TrainingArguments(output_dir=str(self.folder), report_to="none", use_cpu=self.hardware.device == "cpu"),
            steps := Updates(prepared, settings, 3, 0),
            [scorer],
            settings,
            choose(self.student, "auto", 0, settings.compile),
            self.tokenizer,
            0,
        )
        trainer.state.global_step = 2  # an update like any other: the first is logged in detail
        return lambda: float(trainer.training_step(self.student, steps[2]))

    def theirs(self, size: int) -> Pass:
        """TRL's loss, through its public method, on batches of ``size``."""
        prompts, answers = self._tensors()
        config = DistillationConfig(
            output_dir=str(self.folder),
            beta=self.beta,
            temperature=1.0,
            use_cpu=self.hardware.device == "cpu",
            bf16=False,  # autocast is put around its passes here, where the trainer's own loop would put it
            activation_checkpointing=False,
            report_to="none",
            per_device_train_batch_size=size,
            max_completion_length=answers.shape[1],
        )
        rows = Dataset.from_list([{"prompt": [{"role": "user", "content": "w1"}]}])
        self.tokenizer.padding_side = "left"
        trainer = DistillationTrainer(
            self.student, self.teacher, args=config, train_dataset=rows, processing_class=self.tokenizer
        )

        def one() -> float:
            self.student.train()
            total = 0.0
            for p, a in zip(prompts.split(size), answers.split(size), strict=True):
                inputs = {
                    "prompt_ids": p,
                    "prompt_mask": torch.ones_like(p),
                    "completion_ids": a,
                    "completion_mask": torch.ones_like(a),
                }
                with self.hardware.precision():
                    loss = trainer.compute_loss(self.student, inputs, num_items_in_batch=torch.tensor(answers.numel()))
                trainer.accelerator.backward(loss)
                total += float(loss.detach())
            return total

        return one

    def naive(self) -> Pass:
        """The naive step: whole logits of both, and the divergence over them."""
        prompts, answers = self._tensors()
        ids, first, beta = torch.cat([prompts, answers], 1), prompts.shape[1] - 1, self.beta

        def one() -> float:
            with self.hardware.precision():
                s = torch.log_softmax(self.student(ids).logits[:, first:-1].float(), -1)
                with torch.no_grad():
                    t = torch.log_softmax(self.teacher(ids).logits[:, first:-1].float(), -1)
                if beta in (0.0, 1.0):
                    a, b = (s, t) if beta else (t, s)
                    value = (a.exp() * (a - b)).sum(-1)
                else:
                    m = torch.logaddexp(s + math.log(1 - beta), t + math.log(beta))
                    value = beta * (t.exp() * (t - m)).sum(-1) + (1 - beta) * (s.exp() * (s - m)).sum(-1)
            loss = value.mean()
            loss.backward()
            return float(loss.detach())

        return one

    def _tensors(self) -> tuple[Tensor, Tensor]:
        prompts = [context_ids(self.tokenizer, prompt) for prompt, _ in self.made]
        answers = [answer_ids(self.tokenizer, answer) for _, answer in self.made]
        device = self.hardware.device
        return torch.tensor(prompts, device=device), torch.tensor(answers, device=device)


# --- scoring


def scoring(
    shape: UpdateShape, size: ModelDimensions, hardware: Hardware | None = None, *, repeats: int = 3, seed: int = 0
) -> LossComparison:
    """Measure several teachers going over some answers under one transcript."""
    hardware = hardware or Hardware()
    with torch_threads(hardware.threads):
        return _scoring(shape, size, hardware, repeats, seed)


def _scoring(shape: UpdateShape, size: ModelDimensions, hardware: Hardware, repeats: int, seed: int) -> LossComparison:
    tokenizer, words, device = word_tokenizer(size.vocabulary), TextSource(size.vocabulary, seed), hardware.device
    answers_, teachers = f"{shape.rollouts} answers of {shape.answer} tokens", f"{shape.teachers} teachers"
    what = f"scoring {answers_} under {shape.transcript:,}, {teachers}"
    say(f"measuring {what}")
    models = [random_model(size, device, seed + i).eval() for i in range(shape.teachers)]
    settings = OnPolicySettings(lora=None)
    scorers = [LocalScorer(Scorer(name=f"t{i}"), m, tokenizer, settings) for i, m in enumerate(models)]
    views = [View(words.prompt(shape.transcript), 1.0) for _ in scorers]
    answers = [Answer(0, tuple(answer_ids(tokenizer, words.answer(shape.answer)))) for _ in range(shape.rollouts)]
    for scorer in scorers:
        scorer.prepare(shape.transcript + shape.answer)

    def hidden() -> list[Tensor]:
        return [s.hidden([view], answers) for s, view in zip(scorers, views, strict=True)]

    def separately(size: int) -> list[Tensor]:
        logits = []
        for scorer, view in zip(scorers, views, strict=True):
            context = scorer.context(view)
            ids = torch.tensor([[*context, *a.ids] for a in answers], device=device)
            with torch.no_grad():
                parts = [
                    scorer.model.base_model(input_ids=part, use_cache=False).last_hidden_state
                    for part in ids.split(size)
                ]
            logits.append(torch.cat(parts)[:, len(context) - 1 : -1].flatten(0, 1))
        return logits

    error = max(float((a - b).norm() / b.norm()) for a, b in zip(hidden(), separately(1), strict=True))
    assert error < 1e-4, f"hidden states differ by {error:.1e}"
    if hardware.bf16:
        for model in models:
            model.to(torch.bfloat16)
    passes: dict[str, Pass] = {
        f"batch {n}": lambda n=n: float(len(separately(n))) for n in dict.fromkeys((1, 2, 4, shape.rollouts))
    }
    best = fastest(passes, warm=hardware.bf16, compiling=models if device == "cuda" else [])
    sides: dict[str, Pass] = {"theirs": best.one, "ours": lambda: float(len(hidden()))}
    times = alternate(sides, torch.nn.Linear(1, 1), device, repeats)
    each = shape.transcript + shape.answer
    return LossComparison(
        what,
        times["ours"],
        times["theirs"],
        f"each answer with its own transcript, {best.name}",
        best.seconds,
        error,
        None,
        floor=shape.rollouts * each / (shape.transcript + shape.rollouts * shape.answer),
        facts=facts(device, "torch", "transformers", "trl"),
    )


# --- whole training


@dataclass(frozen=True)
class Epochs:
    """MAD-OPD over some epochs: what teachers read and wrote, and how long it took."""

    states: int
    epochs: int
    rollouts: int
    ours: int
    theirs: int
    """Teacher tokens: read and written in debates, read in scoring."""
    our_seconds: float
    their_seconds: float

    def summary(self) -> dict[str, Any]:
        """The figures that a script wants."""
        tokens, seconds = self.theirs / self.ours, self.their_seconds / self.our_seconds
        return {"what": "MAD-OPD, teacher tokens", "ratio": tokens, "ratio_seconds": seconds, **asdict(self)}

    def __str__(self) -> str:
        return (
            f"MAD-OPD, {self.states} states, {self.epochs} epochs, {self.rollouts} answers to each: "
            f"{self.theirs / self.ours:.2f}x fewer teacher tokens than with debates inside the loop\n"
            f"  {self.theirs:,} against {self.ours:,}; {self.their_seconds:.1f} s against {self.our_seconds:.1f} s"
        )


def whole(states: int = 64, epochs: int = 3, rollouts: int = 4, *, threads: int | None = 1, seed: int = 0) -> Epochs:
    """Train the schoolhouse's student both ways. Both use our engine, so that only the structure differs."""
    say(f"measuring MAD-OPD, {states} states, {epochs} epochs, {rollouts} answers to each: debates held once")
    with torch_threads(threads), tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        own_states, debated = _debate_states(Path(folder), states, seed)
        once = time.perf_counter() - started
        scored, seconds = _train(own_states, Path(folder) / "ours", epochs, rollouts, seed, "auto")
        redebated, repeated = 0, 0.0
        for i in range(epochs * rollouts):
            say_seldom(f"  debates inside the loop: {i + 1} of {epochs * rollouts}")
            started = time.perf_counter()
            redebated += _debate_states(Path(folder), states, seed + 1 + i)[1]
            repeated += time.perf_counter() - started
        alone, longer = _train(own_states, Path(folder) / "theirs", epochs, rollouts, seed, "rows")
    return Epochs(states, epochs, rollouts, debated + scored, redebated + alone, once + seconds, repeated + longer)


def _debate_states(folder: Path, count: int, seed: int) -> tuple[list[State], int]:
    """States of the schoolhouse's training questions after a debate of two rounds, and the tokens that it took."""
    task, options, prompts = open_task("schoolhouse", {"train": count}), _OPTIONS, prompt_set("schoolhouse")
    sampling = Sampling(0.3, max_new_tokens=64)
    members = tuple(Member(_teacher(name), "teacher", sampling) for name in _TEACHERS)
    with Journal(folder / f"journal-{seed}.sqlite") as journal:
        setting = Setting(state_debate.run, members, options, prompts, task, journal, seed)
        graphs = asyncio.run(hold_all(task.problems("train"), setting, in_flight=count))
        usage = sum((cost.usage for cost in journal.costs()), Usage())
    return states_of(graphs, Supervision(), _TEACHERS, setting.wording, seed)[0], usage.prompt + usage.completion


def _teacher(name: str) -> Any:
    return hf_local.agent(name, hf_local.Options(model=f"schoolhouse:{name}", dtype="float32"))


def _train(
    states: Sequence[State], out: Path, epochs: int, rollouts: int, seed: int, attention: str
) -> tuple[int, float]:
    """Train the student; teacher tokens of scoring, and seconds."""
    never, as_end = prompt_set("schoolhouse").silent
    settings = OnPolicySettings.model_validate(
        {
            "scorers": [Scorer(name=n, model=str(weights.folder(f"schoolhouse:{n}"))) for n in _TEACHERS],
            "states_per_step": len(states),
            "epochs": epochs,
            "rollouts": rollouts,
            "temperature": 1.0,
            "top_p": 1.0,
            "max_new_tokens": 52,
            "max_length": 256,
            "learning_rate": 1e-3,
            "lora": None,
            "device": "cpu",
            "never": never,
            "as_end": as_end,
            "attention": attention,
        }
    )
    started = time.perf_counter()
    done = train_on_policy(weights.folder("schoolhouse:student"), states, settings, out, seed=seed)
    return done.details["teacher_tokens"], time.perf_counter() - started


__all__ = ["Epochs", "LossComparison", "UpdateShape", "run", "scoring", "step", "whole"]
