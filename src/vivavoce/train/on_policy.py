"""On-policy distillation: the student answers, its teachers score the same tokens, and it moves towards their opinions.

    L = mean over answers of  1/|y| sum_t  sum_k w_k D( p_k(. | view_k, y_<t)  ||  q(. | prompt, y_<t) )

y is drawn from the student q without gradient. A view is teacher k's prompt in the state, beyond the student's prompt,
for example with the transcript of a debate on it. Paper: arXiv:2605.01347, Eq. 8 (MAD-OPD); with a view equal to the
prompt it is plain on-policy distillation. Differs from the release: any number of teachers; exact alignment or an
error; float32 divergences on chunks of the vocabulary projection; answers to one state share its view; transcripts are
made before training and not in it; exact resume.
"""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from transformers import TrainingArguments, set_seed

from vivavoce.agents.batch import TokenPrompt
from vivavoce.agents.drawn import TokenReader
from vivavoce.records import Sampling, State, digest, seed_of, to_json
from vivavoce.train import checkpoint
from vivavoce.train.adapters import add_lora
from vivavoce.train.choosing import choose
from vivavoce.train.chunks import chunked_loss
from vivavoce.train.counting import informative_factors, of_calls
from vivavoce.train.divergences import by_token, distillation_loss, sureness
from vivavoce.train.foreign import ForeignScorer, ForeignTargets
from vivavoce.train.objective import OnPolicySettings
from vivavoce.train.opening import keep_scores, open_scorers
from vivavoce.train.packing import pack
from vivavoce.train.prepared import Prepared, Updates, check_views, first_alike, prepare
from vivavoce.train.rollouts import EngineCheck, OwnRollouts, Rollouts, rollouts
from vivavoce.train.scorers import (
    Answer,
    Average,
    LocalScorer,
    LocalTargets,
    OpenScorer,
    Targets,
    check_budget,
    packed_rows,
    row,
)
from vivavoce.train.scoring import Method, attending, autocast, bare, chunk_rows, on_predictions
from vivavoce.train.served import ServedScorer, ServedTargets, merged_loss
from vivavoce.train.settings import Progress, TrainResult
from vivavoce.train.tokens import fitted_settings
from vivavoce.train.updates import UpdateTrainer

logger = logging.getLogger(__name__)
_LEFT_OUT = "left_out/"
"""The beginning of the names of counts of answers that a scorer could not read."""


def train_on_policy(
    model: str | Path,
    states: Sequence[State],
    settings: OnPolicySettings,
    out: Path,
    *,
    seed: int,
    progress: Progress | None = None,
) -> TrainResult:
    """Distil ``settings.scorers`` into ``model`` on ``states`` and save it in ``out``.

    Checked before anything is trained: tokenizers, lengths, weights, and that enough states can be scored. Resuming,
    finishing and other errors are those of :func:`vivavoce.train.supervised.train_supervised`.
    """
    out = Path(out)
    set_seed(seed)
    student, tokenizer = checkpoint.open_model(model, settings)
    settings = fitted_settings(settings, student, tokenizer, out)
    check_views(states, settings, out)
    used = prepare(tokenizer, states, settings, out)
    key = checkpoint.run_key("on_policy", model, settings, seed, [digest([to_json(p.state) for p in used])])
    if done := checkpoint.finished_result(out, key):
        return done
    out.mkdir(parents=True, exist_ok=True)

    updates = settings.updates(len(used), settings.states_per_step)
    arguments = checkpoint.arguments(settings, out, seed, updates)
    steps = Updates(used, settings, updates, seed, devices=arguments.world_size)
    if settings.lora:
        student = add_lora(student, settings.lora, dropout=0.0)
    scorers = open_scorers(student, tokenizer, settings)
    answers = [p.longest(settings) for p in used]
    longest = [check_budget(s, [p.state for p in used], k, answers) for k, s in enumerate(scorers)]
    with ExitStack() as open_until_trained, checkpoint.threads(settings.threads):
        cast(torch.nn.Module, student).to(arguments.device)
        drawn = settings.max_new_tokens if settings.on_policy else 0
        most = max(len(p.context) + max([drawn, *map(len, p.recorded)]) for p in used)
        method = choose(student, settings.attention, most, settings.compile)
        for scorer, most in zip(scorers, longest, strict=True):
            scorer.prepare(most, arguments.device)
        sampler = rollouts(student, tokenizer, settings, out, updates, arguments)
        open_until_trained.callback(sampler.close)
        trainer = OnPolicyTrainer(student, arguments, steps, scorers, settings, method, tokenizer, seed, sampler)
        keep_scores(scorers, steps, settings)
        for scorer in scorers:
            if isinstance(scorer, LocalScorer) and not scorer.frozen:
                trainer.add_callback(Average(scorer, student, settings.ema_decay))
        seconds = checkpoint.train(trainer, out, key, progress)
    counted = trainer.counted()
    if counted["empty_updates"]:
        logger.warning("%d of %d updates had nothing to learn from", counted["empty_updates"], updates)
    for name, count in counted.items():
        if count and name.startswith(_LEFT_OUT):
            label, of = name.removeprefix(_LEFT_OUT), counted["answers"]
            logger.warning("scorer %s left out %d of %d answers: its tokenizer changes their text", label, count, of)
    return checkpoint.finish(
        trainer,
        tokenizer,
        out,
        key,
        rows_used=len(used),
        rows_dropped=len(states) - len(used),
        seconds=seconds,
        details={
            "attention": method.attention,
            "scorers": [s.name for s in settings.scorers],
            "teacher_tokens": int(*trainer.over_all(sum(s.tokens for s in scorers))),
            **counted,
        },
    )


class OnPolicyTrainer(UpdateTrainer):
    """transformers' Trainer whose update samples answers, has them scored and learns from all of them at once."""

    def __init__(
        self,
        model: Any,
        arguments: TrainingArguments,
        steps: Updates,
        scorers: Sequence[OpenScorer],
        settings: OnPolicySettings,
        method: Method,
        tokenizer: Any,
        seed: int,
        sampler: Rollouts | None = None,
    ) -> None:
        super().__init__(model, arguments, steps, settings, method)
        self.scorers, self.settings, self.draws = scorers, settings, seed
        self.columns = max(tokenizer.get_vocab().values()) + 1
        self._tokenizer = tokenizer
        self.sampler = sampler or OwnRollouts(model, tokenizer, settings)
        self._eos = frozenset(TokenReader(tokenizer, getattr(bare(model), "generation_config", None)).eos)
        self._steps, self.agreement = steps, EngineCheck(settings.served)
        self._sums: dict[str, Tensor] = {}
        counts = ("answers", "answer_tokens", "learnt_tokens", "truncated", "scored_tokens", "empty_updates")
        foreign = [_LEFT_OUT + s.spec.name for s in scorers if isinstance(s, ForeignScorer)]
        self.totals = dict.fromkeys([*counts, *foreign], 0)

    def update(self, model: torch.nn.Module, inputs: dict[str, Any]) -> Tensor:
        """Rollouts, scores, then forward and backward of every packed row of one update."""
        states: list[Prepared] = inputs["states"]
        answers = self.answers(model, states, inputs["places"])
        self.learning(model)
        targets = self._read(states, answers)
        shares = self._shares(states, answers, targets)
        contexts = [p.context for p in states]
        rows = packed_rows(contexts, answers, self.settings.token_budget)
        shared = {
            "contexts": contexts,
            "alike": first_alike(states),
            "answers": answers,
            "targets": targets,
            "shares": shares,
            "factors": self._factors(states, answers, shares.sum(1) > 0),
        }
        self.agreement.begin([a.logprobs or [math.nan] * len(a.ids) for a in answers])
        with attending(model, self.method):
            loss = self.learn(model, [{**shared, "chosen": chosen} for chosen in rows])
        if not torch.isfinite(loss):
            raise RuntimeError(f"the loss of update {self.state.global_step + 1} is {float(loss)}")
        self.agreement.check(self.state.global_step + 1)
        tokens = sum(len(contexts[a.state]) + len(a.ids) for a in answers)
        self.count(*self.over_all(tokens))
        return loss

    def _read(self, states: Sequence[Prepared], answers: Sequence[Answer]) -> list[Targets]:
        """The scorers' opinions of the answers of an update; servers are asked while local ones compute."""
        views = [[p.state.views[k] for p in states] for k in range(len(self.scorers))]
        with ThreadPoolExecutor(max(1, len(self.scorers)), "vivavoce-scorers") as pool:
            futures = {
                k: pool.submit(s.read, views[k], answers)
                for k, s in enumerate(self.scorers)
                if isinstance(s, ServedScorer)
            }
            local = {k: s.read(views[k], answers) for k, s in enumerate(self.scorers) if k not in futures}
            return [futures[k].result() if k in futures else local[k] for k in range(len(self.scorers))]

    def counted(self) -> dict[str, int]:
        """The counts so far, of all devices. Every device must call it."""
        return {name: int(n) for name, n in zip(self.totals, self.over_all(*self.totals.values()), strict=True)}

    def answers(self, model: torch.nn.Module, states: Sequence[Prepared], places: Sequence[int]) -> list[Answer]:
        """The answers of an update: the student's own, drawn now, or recorded ones; ``rollouts`` to each state.

        Draws depend on the run's seed and the place in it alone, so that a resumed run draws the same.
        """
        update = self.state.global_step
        answers, wanted = self._pending(states, places)

        def prompts(of: int, device: int | None = None) -> list[TokenPrompt]:
            devices = self._steps.devices
            later = self._steps[of * devices + (self.args.process_index if device is None else device)]
            return [prompt for _, prompt in self._pending(later["states"], later["places"])[1]]

        drawn = self.sampler.draw(model, update, prompts)
        for (at, _), one in zip(wanted, drawn, strict=True):
            state, ids = answers[at].state, tuple(one.ids)
            answers[at] = Answer(state, ids, finished=ids[-1] in self._eos, logprobs=tuple(one.logprobs))
        if self.settings.served is not None and drawn and not drawn[0].logprobs:
            drawn_here = [(at, prompt.ids, answers[at].ids) for at, prompt in wanted]
            probed = self.sampler.probe(update, [p for _, p, _ in drawn_here], [ids for _, _, ids in drawn_here])
            for (at, _, _), one in zip(drawn_here, probed, strict=False):
                answers[at] = answers[at]._replace(logprobs=tuple(one.logprobs))
        return answers

    def _pending(
        self, states: Sequence[Prepared], places: Sequence[int]
    ) -> tuple[list[Answer], list[tuple[int, TokenPrompt]]]:
        """The answers of an update, empty if they have yet to be drawn; and those, by index, as prompts."""
        settings = self.settings
        sampling = Sampling(
            settings.temperature,
            settings.top_p,
            settings.max_new_tokens,
            top_k=settings.top_k,
            repetition_penalty=settings.repetition_penalty,
        )
        answers, wanted = list[Answer](), list[tuple[int, TokenPrompt]]()
        for i, (prepared, place) in enumerate(zip(states, places, strict=True)):
            for sample in range(settings.rollouts):
                rng = random.Random(seed_of("mix", self.draws, place, sample))
                if prepared.recorded and rng.random() >= settings.on_policy:
                    answers.append(Answer(i, rng.choice(prepared.recorded), on_policy=False))
                else:
                    seed = seed_of("rollout", self.draws, place, sample)
                    wanted.append((len(answers), TokenPrompt(prepared.context, sampling, seed)))
                    answers.append(Answer(i, ()))
        return answers, wanted

    def _shares(
        self, states: Sequence[Prepared], answers: Sequence[Answer], by_scorer: Sequence[Targets]
    ) -> np.ndarray:
        """The weight of each scorer's opinion of each answer, shape (answers, scorers).

        They are the weights of the state's views. If a scorer cannot read an answer, the others share its weight.
        Without scorers there is one column of ones.
        """
        if not by_scorer:
            return np.ones((len(answers), 1))
        shares = np.array([[view.weight for view in states[a.state].state.views] for a in answers])
        for k, targets in enumerate(by_scorer):
            if unread := sorted(targets.left_out):
                self.totals[_LEFT_OUT + self.scorers[k].spec.name] += len(unread)
                shares[unread, k] = 0
        rest = shares.sum(1, keepdims=True)
        incomplete = sorted(set[int]().union(*(targets.left_out for targets in by_scorer)))
        shares[incomplete] /= np.where(rest > 0, rest, 1)[incomplete]
        return shares

    def _factors(self, states: Sequence[Prepared], answers: Sequence[Answer], readable: np.ndarray) -> np.ndarray:
        """The weight of each token in the loss, token after token of the answers; over all devices they sum to 1.

        An answer counts if a scorer can read it (``readable``) and if it has tokens to learn from.
        """
        learnt = [self._learnt(a.ids) & can_read for a, can_read in zip(answers, readable, strict=True)]
        sizes = np.array([mask.sum() for mask in learnt])
        counted = sizes if self.settings.reduction == "token" else (sizes > 0).astype(np.int64)
        weights = np.array([states[a.state].state.weight for a in answers])
        total = torch.tensor(float((weights * counted).sum()), device=self.args.device, dtype=torch.float64)
        whole = float(cast(Tensor, self.accelerator.reduce(total, "sum")))
        if not whole and self.accelerator.is_main_process:  # every device sees the same
            if not self.totals["empty_updates"]:
                why = (
                    "no answer calls a tool" if self.settings.learn_from == "calls" else "no scorer can read an answer"
                )
                logger.warning("update %d has nothing to learn from: %s", self.state.global_step + 1, why)
            self.totals["empty_updates"] += 1
        each = weights * counted / sizes.clip(1) / (whole or 1.0)  # an update in which nothing counts teaches nothing
        self.totals["answers"] += len(answers)
        self.totals["answer_tokens"] += sum(len(a.ids) for a in answers)
        self.totals["learnt_tokens"] += int(sizes.sum())
        self.totals["truncated"] += sum(not a.finished for a in answers)
        return np.concatenate([one * mask for one, mask in zip(each, learnt, strict=True)])

    def _learnt(self, ids: Sequence[int]) -> np.ndarray:
        """Whether each token of an answer counts: bool, one for each."""
        return np.ones(len(ids), bool) if self.settings.learn_from == "answer" else of_calls(self._tokenizer, ids)

    def part_loss(self, model: torch.nn.Module, inputs: Mapping[str, Any]) -> Tensor:
        """The share of one packed row in the update's loss."""
        contexts, answers, chosen, by_scorer = (inputs[key] for key in ("contexts", "answers", "chosen", "targets"))
        device, parts = self.args.device, [t for t in by_scorer if not isinstance(t, LocalTargets)]
        packed = pack([row(contexts, answers[i]) for i in chosen])
        ends = np.cumsum([0, *(len(a.ids) for a in answers)])
        tokens = np.concatenate([np.arange(int(ends[i]), int(ends[i + 1])) for i in chosen])
        owner = np.repeat(chosen, [len(answers[i].ids) for i in chosen])
        places = np.concatenate(packed.answers)
        first = inverse = np.arange(len(places))
        if not any(isinstance(t, ForeignTargets) for t in parts):
            # A token that several answers share is one prediction if their states show the same to the scorers; it is
            # compared once and counts for all of them. A foreign tokenizer may cut it differently in each.
            shown = np.array([inputs["alike"][answers[i].state] for i in chosen]).repeat(np.diff(ends)[chosen])
            _, first, inverse = np.unique(places * len(contexts) + shown, return_index=True, return_inverse=True)
        factors = inputs["factors"][tokens]
        weights = torch.from_numpy(inputs["shares"][owner[first]]).to(device, torch.float32)
        sampled = torch.from_numpy(packed.input_ids[places[first]]).to(device)
        distinct, tokens = torch.from_numpy(first).to(device), tokens[first]
        counts = [range(int(a), int(b)) for a, b in pairwise(np.cumsum([0, *np.diff(ends)[chosen]]))]

        def loss_of(states: Tensor, top: torch.nn.Module) -> Tensor:
            hidden, size = states[distinct], chunk_rows(self.columns, device)

            @cache
            @torch.no_grad()
            def log_q() -> Tensor:
                pairs = zip(hidden.split(size), sampled.split(size), strict=True)
                logits = ((top(h)[:, : self.columns], y) for h, y in pairs)
                return torch.cat([torch.log_softmax(z.float(), -1).gather(1, y[:, None])[:, 0] for z, y in logits])

            for targets in parts:
                targets.begin(tokens, log_q)
            counted = factors
            if self.settings.informative < 1:
                with torch.no_grad():
                    divergences = [
                        self._telling(
                            top(hidden[part])[:, : self.columns], by_scorer, tokens[part], sampled[part], weights[part]
                        )
                        for part in (slice(start, start + size) for start in range(0, len(hidden), size))
                    ]
                counted = informative_factors(
                    factors, torch.cat(divergences).cpu().numpy()[inverse], counts, self.settings.informative
                )
                self.totals["learnt_tokens"] += int((counted > 0).sum()) - int((factors > 0).sum())
            merged = np.bincount(inverse, weights=counted, minlength=len(first))
            factor = torch.from_numpy(merged).to(device, torch.float32)

            def of(logits: Tensor, part: slice) -> Tensor:
                z = logits[:, : self.columns]
                values = self._compare(z, by_scorer, tokens[part], sampled[part], weights[part], factor[part])
                return (values * factor[part]).sum()

            return chunked_loss(top, hidden, size, of)

        with autocast(device, self.settings.bf16):
            loss = on_predictions(model, packed, self.method, loss_of)
        self.totals["scored_tokens"] += int(inputs["shares"][owner].any(1).sum())
        return loss

    def _telling(
        self, z: Tensor, targets: Sequence[Targets], tokens: np.ndarray, sampled: Tensor, weights: Tensor
    ) -> Tensor:
        """The information of some tokens, shape (n,), in nats: the distance of the teachers from the student there,
        or the entropy of the student."""
        if self.settings.informative_by == "entropy":
            return torch.distributions.Categorical(logits=z.float()).entropy()
        weights = self._at_tokens(z, targets, tokens, weights)
        return self._apart(z, targets, tokens, sampled, weights, measured=False)[0]

    def _compare(
        self,
        z: Tensor,
        targets: Sequence[Targets],
        tokens: np.ndarray,
        sampled: Tensor,
        weights: Tensor,
        factor: Tensor,
    ) -> Tensor:
        """sum_k w_k D_k at some tokens, shape (n,), from the student's logits (n, V) and the weights (n, K)."""
        self.agreement.add(z, tokens, sampled)
        weights = self._at_tokens(z, targets, tokens, weights)
        values, apart = self._apart(z, targets, tokens, sampled, weights, self.measuring)
        if self.measuring:
            self._measure(z.detach(), apart, weights, factor)
        return values

    @torch.no_grad()
    def _at_tokens(self, z: Tensor, targets: Sequence[Targets], tokens: np.ndarray, weights: Tensor) -> Tensor:
        """The scorers' weights at some tokens, shape (n, K): those of the answer, or with how sure each is there.

        Of a served scorer all that it did not name counts as one token.
        """
        objective = self.settings.objective
        if objective.by_token == "none" or len(targets) < 2:
            return weights
        positions = [
            t.logits(tokens) if isinstance(t, LocalTargets) else cast(ServedTargets, t).teacher(tokens, z.device)[0]
            for t in targets
        ]
        sure = torch.stack([sureness(one, objective) for one in positions], -1)
        return by_token(weights, sure, objective)

    def _apart(
        self,
        z: Tensor,
        by_scorer: Sequence[Targets],
        tokens: np.ndarray,
        sampled: Tensor,
        weights: Tensor,
        measured: bool,
    ) -> tuple[Tensor, dict[int, tuple[Tensor, Tensor | None]]]:
        """The result of :meth:`_compare`; and, if ``measured``, each scorer's divergence and its likeliest tokens."""
        objective, one = self.settings.objective, weights.new_ones(len(z), 1)
        apart = dict[int, tuple[Tensor, Tensor | None]]()
        if not by_scorer:
            return distillation_loss(z, [], one, sampled, objective), apart
        # Scorers that know a whole distribution over the student's tokens are compared at once: merged, or fused.
        whole = {k: targets.logits(tokens) for k, targets in enumerate(by_scorer) if isinstance(targets, LocalTargets)}
        merged = objective.aggregate != "sum" and any(isinstance(t, ServedTargets) for t in by_scorer)
        share = weights[:, list(whole)].sum(1)
        values = z.new_zeros(len(z), dtype=torch.float32)
        if merged:
            teachers = [
                t.teacher(tokens, z.device) if isinstance(t, ServedTargets) else whole[k]
                for k, t in enumerate(by_scorer)
            ]
            share = weights.sum(1)
            values = share * merged_loss(z, teachers, weights / share.clamp(min=1e-12)[:, None], sampled, objective)
        elif whole:
            normed = weights[:, list(whole)] / share.clamp(min=1e-12)[:, None]
            values = share * distillation_loss(z, list(whole.values()), normed, sampled, objective)
        for k, targets in enumerate(by_scorer):
            if not isinstance(targets, LocalTargets) and (measured or not merged):
                apart[k] = targets.compare(z.detach() if merged else z, tokens, sampled, objective)
                values = values if merged else values + weights[:, k] * apart[k][0]
        if measured:
            for k, logits in whole.items():
                apart[k] = distillation_loss(z.detach(), [logits], one, sampled, objective), logits.argmax(-1)
        return values, apart

    @property
    def measuring(self) -> bool:
        """Whether this update will be logged."""
        done = self.state.global_step + 1
        return done % self.args.logging_steps == 0 or done in (1, self.state.max_steps)

    @torch.no_grad()
    def _measure(
        self, z: Tensor, apart: Mapping[int, tuple[Tensor, Tensor | None]], weights: Tensor, factor: Tensor
    ) -> None:
        """Sums for the log: the spread of the weights and the certainty of the student; for each scorer its
        divergence, its weight, and how often its likeliest token is the student's.
        """
        self._add("tokens", factor.sum())
        self._add("weight_entropy", (-torch.special.xlogy(weights, weights).sum(1) * factor).sum())
        self._add("student_entropy", (torch.distributions.Categorical(logits=z.float()).entropy() * factor).sum())
        for k, (loss, best) in apart.items():
            name = self.scorers[k].spec.name
            self._add(f"divergence/{name}", (loss.detach() * factor).sum())
            self._add(f"weight/{name}", (weights[:, k] * factor).sum())
            if best is not None:
                self._add(f"agreement/{name}", ((best == z.argmax(-1)) * factor).sum())

    def _add(self, name: str, value: Tensor) -> None:
        self._sums[name] = self._sums.get(name, torch.zeros((), device=value.device)) + value

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add coverage, lengths, and per teacher its divergence, agreement with the student's first choice, weight."""
        if self._sums and "loss" in logs:
            sums = cast(Tensor, self.accelerator.reduce(torch.stack(list(self._sums.values())), "sum"))
            total = float(sums[list(self._sums).index("tokens")])
            if total:  # else nothing was to be learnt from
                logs.update((n, float(v) / total) for n, v in zip(self._sums, sums, strict=True) if n != "tokens")
            self._sums.clear()
            counted = self.counted()
            logs["coverage"] = counted["scored_tokens"] / max(1, counted["answer_tokens"])
            logs["answer_length"] = counted["answer_tokens"] / max(1, counted["answers"])
            logs["truncated"] = counted["truncated"] / max(1, counted["answers"])
            if self.agreement.apart is not None:
                logs["served_mismatch"] = self.agreement.apart
        super().log(logs, start_time)


__all__ = ["OnPolicyTrainer", "train_on_policy"]
