"""On-policy distillation: the student answers, its teachers go over its very tokens, and it moves towards them.

    L = mean over answers of  1/|y| sum_t  sum_k w_k D( p_k(. | view_k, y_<t)  ||  q(. | prompt, y_<t) )

y is drawn from the student q without gradient; a view is what teacher k is shown of the state beyond the student's
prompt, say the transcript of a debate on it. Paper: arXiv:2605.01347, Eq. 8 (MAD-OPD); with a view equal to the prompt
it is plain on-policy distillation. Differs from the release: any number of teachers; exact alignment or an error;
float32 divergences on chunks of the vocabulary projection; answers to one state share its view; transcripts are made
before training and not in it; exact resume.
"""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from transformers import TrainingArguments, set_seed

from vivavoce.agents.batch import Prompt
from vivavoce.agents.call_text import call_spans
from vivavoce.agents.decode import Decoder
from vivavoce.agents.turn_end import end_of_turn
from vivavoce.errors import DataError, RecipeError
from vivavoce.records import Sampling, State, View, digest, seed_of, to_json
from vivavoce.train import checkpoint
from vivavoce.train.alignment import same_tokenizer, token_bytes, trimmed
from vivavoce.train.chunks import chunked_loss
from vivavoce.train.divergences import distillation_loss
from vivavoce.train.foreign import Foreign, Reading
from vivavoce.train.objective import OnPolicySettings
from vivavoce.train.packing import pack
from vivavoce.train.scorers import Action, Average, OpenScorer, check_budget, open_scorer, packed_rows, row
from vivavoce.train.scoring import Method, attending, autocast, bare, choose, chunk_rows, on_predictions
from vivavoce.train.served import Scores, ServedScorer, open_served
from vivavoce.train.settings import Progress, TrainResult
from vivavoce.train.tokens import answer_ids, context_ids, settled
from vivavoce.train.updates import UpdateTrainer

logger = logging.getLogger(__name__)
Seen = Tensor | Reading | Scores
"""What a scorer found: hidden states, its opinion in its own tokens, or what a server told."""


class Prepared(NamedTuple):
    """One state in tokens: what the student is given, and recorded answers to it."""

    state: State
    context: list[int]
    recorded: list[tuple[int, ...]]


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
    settings = settled(settings, tokenizer, out)
    _check_views(states, settings, out)
    used = _prepare(tokenizer, states, settings, out)
    key = checkpoint.run_key("on_policy", model, settings, seed, [digest([to_json(p.state) for p in used])])
    if done := checkpoint.finished(out, key):
        return done
    out.mkdir(parents=True, exist_ok=True)

    updates = settings.max_steps or max(1, math.ceil(len(used) * settings.epochs / settings.states_per_step))
    arguments = TrainingArguments(**checkpoint.arguments(settings, out, seed, updates), per_device_train_batch_size=1)
    checkpoint.check_launch(arguments, settings)
    average = any(spec.own == "ema" and spec.model is None for spec in settings.scorers)
    if checkpoint.sharded() and (settings.on_policy or average):
        what = "a student whose weights are sharded neither samples nor is averaged"
        raise RecipeError(what, "on_policy", "learn from recorded answers alone (on_policy: 0), or launch without FSDP")
    steps = Steps(used, settings, updates, seed, devices=arguments.world_size)
    if settings.lora:
        student = checkpoint.add_lora(student, settings.lora, dropout=0.0)
    scorers = [
        open_served(spec, settings) if spec.server else open_scorer(spec, settings, (student, tokenizer))
        for spec in settings.scorers
    ]
    longest = [check_budget(s, [p.state for p in used], k, settings.max_new_tokens) for k, s in enumerate(scorers)]
    columns, foreign = _vocabularies(student, tokenizer, scorers, settings)
    with checkpoint.threads(settings.threads):
        cast(torch.nn.Module, student).to(arguments.device)
        method = choose(student, settings.attention, settings.max_length, settings.compile)
        for scorer, most in zip(scorers, longest, strict=True):
            if isinstance(scorer, OpenScorer):
                scorer.model.to(arguments.device)
                scorer.prepare(most + settings.max_new_tokens)
        trainer = OnPolicyTrainer(student, arguments, steps, scorers, settings, method, tokenizer, columns, seed)
        trainer.foreign = foreign
        _keep({k: s for k, s in enumerate(scorers) if k not in foreign}, steps, settings)
        for scorer in scorers:
            if isinstance(scorer, OpenScorer) and not scorer.frozen:
                trainer.add_callback(Average(scorer, student, settings.ema_decay))
        seconds = checkpoint.train(trainer, out, key, progress)
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
            **trainer.counted(),
        },
    )


def _check_views(states: Sequence[State], settings: OnPolicySettings, out: Path) -> None:
    if not states:
        raise DataError("there are no states to train on", str(out), "check the stage that makes them")
    if not settings.scorers:
        raise RecipeError("nobody scores the student", "scorers", "name local models, or the student itself")
    if settings.on_policy < 1 and not any(state.recorded for state in states):
        raise DataError("there are no recorded answers", "on_policy", "set on_policy: 1, or record some")
    for state in states:
        weights = [view.weight for view in state.views]
        if len(weights) != len(settings.scorers) or min(weights, default=0) < 0 or abs(sum(weights) - 1) > 1e-6:
            what = f"the views of problem {state.problem} weigh {weights} for {len(settings.scorers)} scorers"
            raise DataError(what, str(out), "one view for each scorer, weights that sum to 1")


def _prepare(tokenizer: Any, states: Sequence[State], settings: OnPolicySettings, out: Path) -> list[Prepared]:
    """The states that fit. Raises DataError where so few do that training would not be what the recipe says."""
    used = []
    for state in states:
        where = f"problem {state.problem}"
        context = context_ids(tokenizer, state.prompt, where, settings.template)
        recorded = [tuple(answer_ids(tokenizer, c.text, settings.template)) for c in state.recorded]
        longest = max([settings.max_new_tokens if settings.on_policy else 0, *map(len, recorded)])
        if len(context) + longest <= settings.max_length and (recorded or settings.on_policy):
            used.append(Prepared(state, context, recorded))
    if len(used) < settings.min_coverage * len(states):
        what = f"only {len(used)} of {len(states)} states fit {settings.max_length} tokens with their answers"
        raise DataError(what, str(out), "raise max_length, lower max_new_tokens, or lower min_coverage knowingly")
    if settings.learn_from == "calls" and not settings.on_policy:
        answers = [ids for prepared in used for ids in prepared.recorded]
        if not any(of_calls(tokenizer, ids).any() for ids in answers):
            what = f"none of the {len(answers)} answers to learn from calls a tool"
            raise DataError(what, str(out), "use learn_from: answer")
    if len(used) < len(states):
        logger.warning(
            "dropped %d of %d states over %d tokens", len(states) - len(used), len(states), settings.max_length
        )
    return used


def _vocabularies(
    student: Any, tokenizer: Any, scorers: Sequence[OpenScorer | ServedScorer], settings: OnPolicySettings
) -> tuple[int, dict[int, Foreign]]:
    """Columns of the vocabulary that student and scorers share, and how scorers of another tokenizer are compared.

    Padding rows of either side are left out, exactly. Raises RecipeError where different vocabularies are to be merged.
    """
    columns = int(bare(student).get_output_embeddings().weight.shape[0])
    end = end_of_turn(tokenizer, settings.template)
    reasons = {
        k: same_tokenizer(tokenizer, s.tokenizer, (end, None if s.marks.end < 0 else s.marks.end))
        for k, s in enumerate(scorers)
    }
    for k, scorer in enumerate(scorers):
        if not reasons[k]:
            columns = trimmed(columns, scorer.columns, tokenizer)
        elif isinstance(scorer, ServedScorer):
            what = f"scorer {scorer.spec.name} is behind a server and has another tokenizer ({reasons[k][0]})"
            raise RecipeError(what, "scorers", "serve a model of the student's family, or score locally")
        elif settings.objective.aggregate != "sum":
            what = f"scorer {scorer.spec.name} has another tokenizer ({reasons[k][0]}): there is nothing to merge with"
            raise RecipeError(what, "objective.aggregate", "use aggregate: sum, or scorers of the student's family")
        else:
            logger.warning("scorer %s has another tokenizer (%s): compared by bytes", scorer.spec.name, reasons[k][0])
    others = {k: s for k, s in enumerate(scorers) if reasons[k] and isinstance(s, OpenScorer)}
    return columns, {k: Foreign.of(s, tokenizer, columns, end) for k, s in others.items()}


def of_calls(tokenizer: Any, ids: Sequence[int]) -> np.ndarray:
    """Which tokens of an answer write its tool calls, tags included: bool, one for each."""
    pieces = token_bytes(tokenizer, ids)
    ends = np.cumsum([len(piece) for piece in pieces])
    found = np.zeros(len(ids), bool)
    for start, stop in call_spans(b"".join(pieces).decode("latin-1")):  # one character a byte; tags are ASCII
        found |= (ends > start) & (ends - [len(piece) for piece in pieces] < stop)
    return found


class Steps(Dataset[dict[str, Any]]):
    """All updates of a run in order. Item ``i`` is the share of device ``i % devices`` in update ``i // devices``."""

    def __init__(
        self, states: Sequence[Prepared], settings: OnPolicySettings, updates: int, seed: int, devices: int = 1
    ) -> None:
        self.states, self.size, self.devices = list(states), settings.states_per_step, devices
        groups = [p.state.group or f"alone {i}" for i, p in enumerate(self.states)]
        self.order = checkpoint.training_order(len(self.states), self.size, updates, seed, groups=groups)

    def __len__(self) -> int:
        return len(self.order) // self.size * self.devices

    def __getitem__(self, item: int) -> dict[str, Any]:
        update, device = divmod(item, self.devices)
        whole = range(update * self.size, (update + 1) * self.size)
        mine = list(whole)[device :: self.devices]
        # the place in the whole run seeds the rollout: another draw each time a state comes round
        return {"states": [self.states[self.order[place]] for place in mine], "places": mine}


def _keep(scorers: Mapping[int, OpenScorer | ServedScorer], steps: Steps, settings: OnPolicySettings) -> None:
    """Have local scorers go over recorded answers that will come round again, where memory is enough to keep that."""
    states = steps.states
    actions = [Action(i, ids, on_policy=False) for i, p in enumerate(states) for ids in dict.fromkeys(p.recorded)]
    if len(steps.order) / steps.devices * settings.rollouts * (1 - settings.on_policy) <= len(actions):
        return
    local = {k: s for k, s in scorers.items() if isinstance(s, OpenScorer) and s.frozen}
    needed = sum(len(a.ids) for a in actions) * sum(s.row_bytes for s in local.values()) / 2**20
    if needed > settings.score_memory:
        what = "teachers go over recorded answers in every epoch: score_memory is %.0f MiB, to keep all takes %.0f"
        logger.warning(what, settings.score_memory, needed)
        return
    for k, scorer in local.items():
        scorer.keep([p.state.views[k] for p in states], actions)


class OnPolicyTrainer(UpdateTrainer):
    """transformers' Trainer whose update samples answers, has them scored and learns from all of them at once."""

    def __init__(
        self,
        model: Any,
        arguments: TrainingArguments,
        steps: Steps,
        scorers: Sequence[OpenScorer | ServedScorer],
        settings: OnPolicySettings,
        method: Method,
        tokenizer: Any,
        columns: int,
        seed: int,
    ) -> None:
        super().__init__(model, arguments, steps, settings, method)
        self.scorers, self.settings, self.columns, self.draws = scorers, settings, columns, seed
        self._decoder, self._tokenizer = Decoder(bare(model), tokenizer), tokenizer
        self._sums: dict[str, Tensor] = {}
        self.foreign: dict[int, Foreign] = {}
        self.totals = dict.fromkeys(("answers", "answer_tokens", "learnt_tokens", "truncated", "scored_tokens"), 0)

    def training_step(
        self, model: torch.nn.Module, inputs: dict[str, Any], num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        """Rollouts, scores, then forward and backward of every packed row of one update."""
        states: list[Prepared] = inputs["states"]
        actions = self.actions(model, states, inputs["places"])
        model.train()
        seen = [self._seen(k, [p.state.views[k] for p in states], actions) for k in range(len(self.scorers))]
        factors = self._factors(states, actions)
        contexts = [p.context for p in states]
        rows = packed_rows(contexts, actions, self.settings.token_budget)
        shared = {"states": states, "actions": actions, "seen": seen, "factors": factors}
        with attending(model, self.method):
            loss = self.learn(model, [{**shared, "some": some} for some in rows])
        if not torch.isfinite(loss):
            raise RuntimeError(f"the loss of update {self.state.global_step + 1} is {float(loss)}")
        tokens = sum(len(contexts[a.state]) + len(a.ids) for a in actions)
        self.count(*self.over_all(tokens))
        return loss

    def counted(self) -> dict[str, int]:
        """The counts so far, of all devices. Every device must call it."""
        return {name: int(n) for name, n in zip(self.totals, self.over_all(*self.totals.values()), strict=True)}

    def _seen(self, k: int, views: Sequence[View], actions: Sequence[Action]) -> Seen:
        """What a scorer found in an update's answers."""
        scorer, other = self.scorers[k], self.foreign.get(k)
        if other is not None:
            return other.read(views, actions)
        if isinstance(scorer, ServedScorer):
            return scorer.read(views, actions, self.columns)
        return scorer.hidden(views, actions)

    def actions(self, model: torch.nn.Module, states: Sequence[Prepared], places: Sequence[int]) -> list[Action]:
        """The answers of an update: the student's own, drawn now, or recorded ones; ``rollouts`` to each state.

        What is drawn depends on the run's seed and the place in it alone, so that a resumed run draws the same.
        """
        how = self.settings
        actions: list[Action | None] = []
        wanted: list[tuple[int, int, int]] = []
        for i, (prepared, place) in enumerate(zip(states, places, strict=True)):
            for sample in range(how.rollouts):
                rng = random.Random(seed_of("mix", self.draws, place, sample))
                if prepared.recorded and rng.random() >= how.on_policy:
                    actions.append(Action(i, rng.choice(prepared.recorded), on_policy=False))
                else:
                    wanted.append((len(actions), i, seed_of("rollout", self.draws, place, sample)))
                    actions.append(None)
        if wanted:
            sampling = Sampling(how.temperature, how.top_p, how.max_new_tokens)
            model.eval()
            prompts = [Prompt(states[i].context, sampling, seed) for _, i, seed in wanted]
            with autocast(self.args.device, how.bf16):
                drawn = self._decoder.draw(prompts)
            for (at, i, _), ids in zip(wanted, drawn, strict=True):
                actions[at] = Action(i, tuple(ids), finished=ids[-1] in self._decoder.eos)
        return [action for action in actions if action is not None]

    def _factors(self, states: Sequence[Prepared], actions: Sequence[Action]) -> np.ndarray:
        """What each token counts in the loss, token after token of the actions; over all devices they sum to 1."""
        learnt = [self._learnt(a.ids) for a in actions]
        sizes = np.array([mask.sum() for mask in learnt])
        counted = sizes if self.settings.reduction == "token" else (sizes > 0).astype(np.int64)
        weights = np.array([states[a.state].state.weight for a in actions])
        mine = torch.tensor(float((weights * counted).sum()), device=self.args.device, dtype=torch.float64)
        whole = float(cast(Tensor, self.accelerator.reduce(mine, "sum")))
        each = weights * counted / sizes.clip(1) / (whole or 1.0)  # an update in which nothing counts teaches nothing
        self.totals["answers"] += len(actions)
        self.totals["answer_tokens"] += sum(len(a.ids) for a in actions)
        self.totals["learnt_tokens"] += int(sizes.sum())
        self.totals["truncated"] += sum(not a.finished for a in actions)
        return np.concatenate([one * mask for one, mask in zip(each, learnt, strict=True)])

    def _learnt(self, ids: Sequence[int]) -> np.ndarray:
        """Which tokens of an answer count: bool, one for each."""
        return np.ones(len(ids), bool) if self.settings.learn_from == "answer" else of_calls(self._tokenizer, ids)

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """The share of one packed row in the update's loss."""
        states, actions, some, factors = (inputs[key] for key in ("states", "actions", "some", "factors"))
        packed = pack([row([p.context for p in states], actions[i]) for i in some])
        ends = np.cumsum([0, *(len(a.ids) for a in actions)])
        where = np.concatenate([np.arange(int(ends[i]), int(ends[i + 1])) for i in some])
        places = np.concatenate(packed.answers)
        first = again = np.arange(len(places))
        if not self.foreign:
            # A token that several answers to one state share is one prediction on either side; it is compared once
            # and counts for all of them. Another tokenizer may cut it differently in each.
            places, first, again = np.unique(places, return_index=True, return_inverse=True)
        counted = np.bincount(again, weights=factors[where], minlength=len(places))
        owner = np.concatenate([np.full(len(actions[i].ids), actions[i].state) for i in some])[first]
        device = self.args.device
        factor = torch.from_numpy(counted).to(device, torch.float32)
        sampled = torch.from_numpy(packed.input_ids[places]).to(device)
        weights = torch.tensor([[v.weight for v in states[i].state.views] for i in owner], device=device)
        mine = torch.from_numpy(first).to(device)

        def loss_of(states: Tensor, top: torch.nn.Module) -> Tensor:
            hidden = states[mine]
            compared = _Compared(self, inputs["seen"], where[first], hidden, top, sampled, weights, factor)
            return chunked_loss(top, hidden, chunk_rows(self.columns, device), compared)

        with autocast(device, self.settings.bf16):
            loss = on_predictions(model, packed, self.method, loss_of)
        self.totals["scored_tokens"] += len(where)
        return (loss, {}) if return_outputs else loss

    @property
    def measuring(self) -> bool:
        """Whether this update will be logged."""
        done = self.state.global_step + 1
        return done % self.args.logging_steps == 0 or done in (1, self.state.max_steps)

    @torch.no_grad()
    def measure(self, student: Tensor, weights: Tensor, factor: Tensor) -> None:
        """Sums for the log: how far the weights spread and how sure the student is."""
        self._add("tokens", factor.sum())
        entropy = -torch.special.xlogy(weights, weights).sum(1)
        self._add("weight_entropy", (entropy * factor).sum())
        self._add("student_entropy", (torch.distributions.Categorical(logits=student.float()).entropy() * factor).sum())

    @torch.no_grad()
    def measure_scorer(self, k: int, apart: Tensor, agreed: Tensor, weight: Tensor, factor: Tensor) -> None:
        """Sums for the log: one scorer's own divergence, agreement with the student's first choice, and weight."""
        name = self.scorers[k].spec.name
        self._add(f"divergence/{name}", (apart * factor).sum())
        self._add(f"agreement/{name}", (agreed * factor).sum())
        self._add(f"weight/{name}", (weight * factor).sum())

    def _add(self, name: str, value: Tensor) -> None:
        self._sums[name] = self._sums.get(name, torch.zeros((), device=value.device)) + value

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add coverage, lengths, and per teacher its divergence, agreement with the student's first choice, weight."""
        if self._sums and "loss" in logs:
            sums = cast(Tensor, self.accelerator.reduce(torch.stack(list(self._sums.values())), "sum"))
            total = float(sums[list(self._sums).index("tokens")])
            logs.update((n, float(v) / total) for n, v in zip(self._sums, sums, strict=True) if n != "tokens")
            self._sums.clear()
            counted = self.counted()
            logs["coverage"] = counted["scored_tokens"] / max(1, counted["answer_tokens"])
            logs["answer_length"] = counted["answer_tokens"] / max(1, counted["answers"])
            logs["truncated"] = counted["truncated"] / max(1, counted["answers"])
        super().log(logs, start_time)


class _Compared:
    """The loss of one packed row's tokens, given the student's logits of a chunk of them."""

    def __init__(
        self,
        trainer: OnPolicyTrainer,
        seen: Sequence[Seen],
        tokens: np.ndarray,
        hidden: Tensor,
        top: torch.nn.Module,
        sampled: Tensor,
        weights: Tensor,
        factor: Tensor,
    ) -> None:
        self.trainer, self.tokens, self.sampled, self.factor = trainer, tokens, sampled, factor
        self.weights = weights
        chosen = torch.from_numpy(tokens).to(sampled.device)
        self.native = [(k, found[chosen]) for k, found in enumerate(seen) if isinstance(found, Tensor)]
        self.foreign = [(k, found) for k, found in enumerate(seen) if isinstance(found, Reading)]
        self.served = [(k, found) for k, found in enumerate(seen) if isinstance(found, Scores)]
        self.ratios = {}
        if self.foreign:
            size, columns = chunk_rows(trainer.columns, hidden.device), trainer.columns
            with torch.no_grad():
                parts = zip(hidden.split(size), sampled.split(size), strict=True)
                logps = [
                    torch.log_softmax(top(h)[:, :columns].float(), -1).gather(1, y[:, None])[:, 0] for h, y in parts
                ]
            self.ratios = {k: found.ratios(torch.cat(logps), tokens, size, columns) for k, found in self.foreign}

    def __call__(self, logits: Tensor, part: slice) -> Tensor:
        trainer, how = self.trainer, self.trainer.settings.objective
        z, sampled, weights, factor = (
            logits[:, : trainer.columns],
            self.sampled[part],
            self.weights[part],
            self.factor[part],
        )
        values = z.new_zeros(len(z), dtype=torch.float32)
        said = [
            (k, cast(OpenScorer, trainer.scorers[k]).logits(hidden[part], trainer.columns)) for k, hidden in self.native
        ]
        if said:
            mine = weights[:, [k for k, _ in said]]
            share = mine.sum(1)
            one = mine / share.clamp(min=1e-12)[:, None]
            values = share * distillation_loss(z, [t for _, t in said], one, sampled, how)
        for k, found in self.served:
            loss, best = found.compared(z, self.tokens[part], sampled, how)
            values = values + weights[:, k] * loss
            if trainer.measuring:
                trainer.measure_scorer(k, loss.detach(), best == z.argmax(-1), weights[:, k], factor)
        for k, found in self.foreign:
            ratio, length = self.ratios[k]
            loss = found.loss(z, sampled, self.tokens[part], ratio[part], length[part], how)
            values = values + weights[:, k] * loss
        if trainer.measuring:
            trainer.measure(z.detach(), weights, factor)
            for k, teacher in said:
                apart = distillation_loss(z.detach(), [teacher], weights.new_ones(len(z), 1), sampled, how)
                trainer.measure_scorer(k, apart, teacher.argmax(-1) == z.argmax(-1), weights[:, k], factor)
        return (values * factor).sum()


__all__ = ["OnPolicyTrainer", "Steps", "of_calls", "train_on_policy"]
