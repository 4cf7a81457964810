"""Continuous decoding with a causal language model of transformers, through its public forward.

Hundreds of prompts of different length, temperature, seed and stopping rule are continued together. Each row is its own
experiment: its draws depend on its own seed and step, never on the rows beside it. A row that is done leaves, and a
waiting one takes its place::

    waiting rows ──▶ prefill, shared prefixes once ──▶ ┌ forward ──▶ draw one token per row ──▶ done rows? ┐
        ▲                                              └──────────────── next step ◀───────────────────────┤
        └───────────────────────── enough lines are free ◀────────────────────────────── text, to its caller

Models whose cache is not plain keys and values (sliding windows, state spaces) are decoded a batch at a time: rows
leave, and others join when all have left.

Sampling follows :class:`vivavoce.records.Sampling` alone, in transformers' order: penalty, temperature, top-k, top-p.
Defaults in a model's generation config do not apply, only its end-of-sequence ids do. The chat template's end of turn
ends a row too. Log-probabilities are those of the model, before all of these.
"""

from __future__ import annotations

import inspect
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerBase

from vivavoce.agents.batch import Batch, Lines, TokenPrompt, empty_cache, fill_cache
from vivavoce.agents.drawn import Decoded, TokenReader
from vivavoce.agents.prefixes import BLOCK, Known, Prefixes, chain

logger = logging.getLogger(__name__)

# Stop strings need text, and text needs the host: looking every step would cost more than a tiny model's forward.
# A row runs at most this many tokens too far; they are cut off and not counted.
_LOOK_EVERY = 8
# Rearranging copies the cache; below this share of leaving or joining rows the copy costs more than it saves.
SHARE = 1 / 8
# Tokens, padding included, of one forward over prompts: enough to fill a device, and a bound for its memory.
_PREFILL_TOKENS = 8192


Found = tuple[TokenPrompt, Known | None, int]
"""A prompt, another one that shares its beginning, and the number of shared tokens."""


class Interrupted(Exception):
    """Decoding was stopped from outside."""


class Decoder:
    """Decodes with one model. Not thread-safe.

    Args:
        model: A causal decoder on its device, in evaluation mode.
        tokenizer: Its tokenizer.
        remember: Bytes for beginnings of prompts that are kept from one call to the next while the weights stay the
            same. Prompts that are prefilled together share their beginnings without it.
    """

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, remember: int = 0) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.device = model.device
        self.prefixes = Prefixes(remember)
        self.forwards = self.prefilled = self.reused = 0
        """Forward passes so far; prompt tokens that were computed, and those that were found."""
        self.reader = TokenReader(tokenizer, getattr(model, "generation_config", None))
        self.eos = self.reader.eos
        pad = tokenizer.pad_token_id
        self._pad = cast(int, pad if pad is not None else self.eos[0] if self.eos else 0)
        # the whole prompt's logits would be the largest tensor of all
        keep = "logits_to_keep" in inspect.signature(model.forward).parameters
        self._last_only = {"logits_to_keep": 1} if keep else {}
        self._plain = empty_cache(model)[1]
        if not self._plain:
            logger.info(
                "%s caches more than keys and values: new prompts wait until a batch has ended", type(model).__name__
            )

    def decode(self, prompts: Sequence[TokenPrompt], interrupted: Callable[[], bool] = lambda: False) -> list[Decoded]:
        """Continue every prompt, all of them together; results in the order of ``prompts``.

        Raises :class:`Interrupted` within one step after ``interrupted`` says so.
        """
        decoded = dict[int, Decoded]()

        def finished(prompt: TokenPrompt, ids: list[int], logprobs: list[float]) -> None:
            decoded[cast(int, prompt.tag)] = self.reader.read(prompt.sampling, len(prompt.ids), ids, logprobs)

        self._together(prompts, finished, interrupted)
        return [decoded[i] for i in range(len(prompts))]

    def draw(self, prompts: Sequence[TokenPrompt]) -> list[list[int]]:
        """The exact token ids that each prompt is continued with, its end-of-sequence token included."""
        drawn = dict[int, list[int]]()
        self._together(prompts, lambda prompt, ids, _: drawn.update({cast(int, prompt.tag): ids}), lambda: False)
        return [drawn[i] for i in range(len(prompts))]

    def _together(
        self,
        prompts: Sequence[TokenPrompt],
        finished: Callable[[TokenPrompt, list[int], list[float]], None],
        interrupted: Callable[[], bool],
    ) -> None:
        waiting = [[replace(prompt, tag=i) for i, prompt in enumerate(prompts)]]
        self.stream(lambda _: waiting.pop() if waiting else (), finished, interrupted)

    @torch.inference_mode()
    def stream(
        self,
        newcomers: Callable[[Sequence[TokenPrompt]], Sequence[TokenPrompt]],
        finished: Callable[[TokenPrompt, list[int], list[float]], None],
        interrupted: Callable[[], bool] = lambda: False,
    ) -> None:
        """Continue prompts as they come, until the batch is empty and no request is waiting.

        Args:
            newcomers: Given the prompts under way, returns those that join them now. It is called again and again.
            finished: Called for each prompt with the drawn ids, an end-of-sequence token included, and their
                log-probabilities (meaningless unless ``sampling.logprobs``). Ids may run past a stop string.
            interrupted: Called before each step; :class:`Interrupted` is raised if it returns true.
        """
        eos = torch.tensor(self.eos, device=self.device)
        look_every = 1 if self.device.type == "cpu" else _LOOK_EVERY  # on an accelerator, looking waits for the queue
        batch, live, step = None, list[int](), 0
        while True:
            if not live or (self._plain and step % look_every == 0):
                joining = newcomers([batch.prompts[row] for row in live] if batch else ())
                if joining:
                    parts = self._prefill(joining, eos, interrupted)
                    batch = batch.rearrange(live, parts) if batch and live else parts[0].join(parts[1:])
                    live = self._look(batch, range(len(batch.prompts)), step, finished)
                    continue
            if batch is None or not live:
                return
            if len(live) <= (1 - SHARE) * len(batch.prompts):
                batch = batch.rearrange(live)
                live = list(range(len(live)))
            if interrupted():
                raise Interrupted
            batch.draw(self._forward(*batch.inputs(), batch.cache), eos)
            step += 1
            if step % look_every == 0:
                live = self._look(batch, live, step, finished)

    def _prefill(self, prompts: Sequence[TokenPrompt], eos: Tensor, interrupted: Callable[[], bool]) -> list[Batch]:
        """Compute the parts of prompts that are not cached yet, and draw the first token of each.

        Equal prompts, for example several samples of one, are a single row until they draw. Prompts are computed in
        waves: one that begins like another waits until that one is computed. Inside a wave, prompts with about as much
        to compute share a forward.
        """
        parts, equal = list[Batch](), dict[tuple[int, ...], list[TokenPrompt]]()
        for prompt in prompts:
            equal.setdefault(tuple(prompt.ids), []).append(prompt)
        samples = {id(same[0]): same for same in equal.values()}
        distinct = [same[0] for same in equal.values()]
        hashes = {id(prompt): chain(prompt.ids) if self._plain else [] for prompt in distinct}
        here = Prefixes(math.inf, copies=False)
        waves = self._waves(distinct, hashes)
        for wave in waves:
            pairs = []
            for prompt in wave:
                stores = (store.longest(prompt.ids, hashes[id(prompt)]) for store in (here, self.prefixes))
                pairs.append((prompt, *max(stores, key=lambda one: one[1])))
            for group in self._groups(pairs):
                if interrupted():
                    raise Interrupted
                part = self._prefill_together(group, samples, eos)
                parts.append(part)
                stores = [here] * (wave is not waves[-1]) + [self.prefixes] * (self.prefixes.budget > 0)
                for row, prompt in enumerate(part.prompts) if self._plain else ():
                    for store in stores if id(prompt) in hashes else ():
                        store.add(Known(prompt.ids, part.keys_and_values(row)), hashes[id(prompt)])
        return parts

    def _waves(self, prompts: Sequence[TokenPrompt], hashes: dict[int, list[int]]) -> list[list[TokenPrompt]]:
        """Every prompt behind the one that it shares its longest beginning with, if that is not cached already."""
        seen, waves = dict[int, int](), list[list[TokenPrompt]]()
        for prompt in prompts:
            blocks = hashes[id(prompt)]
            count = next((count for count in range(len(blocks), 0, -1) if blocks[count - 1] in seen), 0)
            known = self.prefixes.longest(prompt.ids, blocks)[1]
            wave = seen[blocks[count - 1]] + 1 if count * BLOCK > known else 0
            for block in blocks:
                seen.setdefault(block, wave)
            waves += [[] for _ in range(wave + 1 - len(waves))]
            waves[wave].append(prompt)
        return waves

    def _groups(self, pairs: list[Found]) -> Iterator[list[Found]]:
        """Prompts that are prefilled in one forward: similar in the tokens to compute, and not too many."""
        if not self._plain:
            yield pairs
            return
        group = list[Found]()
        for one in sorted(pairs, key=lambda one: (len(one[0].ids) - one[2], len(one[0].ids))):
            size = len(one[0].ids) - one[2]
            if group and (
                size * (len(group) + 1) > _PREFILL_TOKENS or size > 2 * (len(group[0][0].ids) - group[0][2]) + BLOCK
            ):
                yield group
                group = []
            group.append(one)
        yield group

    def _prefill_together(self, group: list[Found], samples: dict[int, list[TokenPrompt]], eos: Tensor) -> Batch:
        """Compute the ends of all prompts of a group in one forward, as long for all as for the one with the least
        cached.

        Each then makes room for all its samples.
        """
        prompts = [prompt for prompt, _, _ in group]
        new = max(len(prompt.ids) - known for prompt, _, known in group)
        width = max(len(prompt.ids) for prompt in prompts)
        cache, plain = empty_cache(self.model)
        if width > new:
            fill_cache(cache, [(known, len(prompt.ids) - new) for prompt, known, _ in group], width - new)
        ends = [list(prompt.ids[-new:]) for prompt in prompts]
        ids = torch.tensor([[self._pad] * (new - len(end)) + end for end in ends], device=self.device)
        size = torch.tensor([[len(prompt.ids)] for prompt in prompts], device=self.device)
        columns = torch.arange(width, 0, -1, device=self.device)
        positions = (size - columns[-new:]).clamp(min=0)
        logits = self._forward(ids, (columns <= size).long(), positions, cache)
        owners = [row for row, prompt in enumerate(prompts) for _ in samples[id(prompt)]]
        if len(owners) > len(prompts):
            owner = torch.tensor(owners, device=self.device)
            logits = logits[owner]
            cache.reorder_cache(cast(Any, owner))  # selects rows for every kind of layer
            prompts = [one for prompt in prompts for one in samples[id(prompt)]]
        self.prefilled += sum(map(len, ends))
        self.reused += sum(len(prompt.ids) for prompt in prompts) - sum(map(len, ends))
        batch = Batch(prompts, Lines.of(prompts, self.device), cache, plain)
        batch.draw(logits, eos)
        return batch

    def _look(
        self,
        batch: Batch,
        live: Sequence[int],
        step: int,
        finished: Callable[[TokenPrompt, list[int], list[float]], None],
    ) -> list[int]:
        """Hand over the rows that are done; returns those that go on."""
        done, lengths = batch.lines.done.tolist(), batch.lines.counts.tolist()
        left, ended = list[int](), list[int]()
        for row in live:
            stops = batch.prompts[row].sampling.stop
            over = done[row]
            if not over and stops and step % _LOOK_EVERY == 0:
                over = self._has_stop(stops, batch.lines.drawn[row, : lengths[row]])
            (ended if over else left).append(row)
        if not ended:
            return left
        drawn, logprobs = batch.lines.drawn[ended].tolist(), batch.lines.logprobs[ended].tolist()
        for row, ids, scores in zip(ended, drawn, logprobs, strict=True):
            finished(batch.prompts[row], ids[: lengths[row]], scores[: lengths[row]])
        return left

    def _forward(self, ids: Tensor, mask: Tensor, positions: Tensor, cache: DynamicCache) -> Tensor:
        """Logits of the last position, (rows, vocabulary) in fp32."""
        self.forwards += 1
        out = self.model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            **self._last_only,
        )
        return out.logits[:, -1].float()

    def _has_stop(self, stops: Sequence[str], drawn: Tensor) -> bool:
        """Whether a row's text has one of its stop strings."""
        # a character takes at most four tokens, so an older stop string was seen when we looked before
        tail = drawn[-(2 * _LOOK_EVERY + 4 * max(map(len, stops))) :].tolist()
        if not any(stop in self.reader.text(tail) for stop in stops):
            return False
        whole = self.reader.text(drawn.tolist())
        return any(stop in whole for stop in stops)
