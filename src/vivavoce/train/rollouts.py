"""The samplers of the student's answers in on-policy training: the trainer itself, or the engine that serves the
student.

::

    update u     weights after u updates ──▶ engine (an adapter of its own name, or all weights)
                 it draws for the updates u … u + n that were not drawn yet              n: `staleness`
                 the trainer learns from what was drawn for u                             with weights of u - n

With ``staleness`` 0 every answer is that of the weights that learn from it. An engine that dies is started again by the
run that owns it. It is given the weights again, and lost answers are drawn again from their seeds.
"""

from __future__ import annotations

import asyncio
import shutil
import threading
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar, cast

import numpy as np
import torch
from accelerate.utils import broadcast_object_list
from torch import Tensor
from transformers import PreTrainedTokenizerBase, TrainingArguments

from vivavoce.agents import vllm
from vivavoce.agents.attached import Attached, Drawn, Server
from vivavoce.agents.batch import TokenPrompt
from vivavoce.agents.decode import Decoder
from vivavoce.agents.served import adapter_name
from vivavoce.errors import AgentError, AgentUnusable, Mismatched, RecipeError, VivaError
from vivavoce.train import adapters
from vivavoce.train.objective import OnPolicySettings, ServedStudent
from vivavoce.train.scoring import autocast, bare
from vivavoce.train.shards import Whole, is_sharded, whole_weights

_PROBED = 4
"""The number of answers of an update whose log-probabilities are asked for again if earlier weights drew them."""
T = TypeVar("T")


class UpdatePrompts(Protocol):
    """The prompts of an update, by its number: those of this process, or of another one."""

    def __call__(self, of: int, device: int | None = None, /) -> Sequence[TokenPrompt]: ...


class Rollouts(Protocol):
    """Samples the answers of an update."""

    def draw(self, model: Any, update: int, wanted: UpdatePrompts) -> list[Drawn]:
        """The student's answers to the prompts of ``update``, in their order. Every process calls it."""
        ...

    def probe(self, update: int, prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]]) -> list[Drawn]:
        """Log-probabilities of the first few answers by the newest weights, for answers that earlier ones drew."""
        ...

    def close(self) -> None:
        """Free all resources."""
        ...


class OwnRollouts:
    """The trainer's own model samples, in this process; out of a whole copy, if this process holds but a part of it."""

    def __init__(self, model: Any, tokenizer: PreTrainedTokenizerBase, settings: OnPolicySettings) -> None:
        dtype = torch.bfloat16 if settings.bf16 and not settings.lora else None
        self._whole = Whole(model, dtype) if is_sharded() and settings.on_policy else None
        self._decoder = Decoder(bare(model if self._whole is None else self._whole.model), tokenizer)
        self._bf16 = settings.bf16

    def draw(self, model: Any, update: int, wanted: UpdatePrompts) -> list[Drawn]:
        """The answers, as :class:`Rollouts` says, without log-probabilities."""
        if self._whole is not None:
            self._whole.follow(model)
        prompts = wanted(update)
        if not prompts:
            return []
        model.eval()
        with autocast(self._decoder.device, self._bf16):
            return [Drawn(ids, []) for ids in self._decoder.draw(prompts)]

    def probe(self, update: int, prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]]) -> list[Drawn]:
        """Return nothing, because the weights that drew are those that learn."""
        return []

    def close(self) -> None:
        """Do nothing: no resource is held."""


class _Version(NamedTuple):
    """The student's weights after some updates, in a form that an engine can load."""

    folder: Path
    adapter: str | None
    """Its name; None for whole weights."""


class ServedRollouts:
    """The engine that serves the student samples; its weights follow the trainer's.

    Attributes:
        asked_again: Answers that were drawn once more because the engine had died.
    """

    def __init__(
        self, served: ServedStudent, ends: Sequence[int], settings: OnPolicySettings, out: Path, updates: int
    ) -> None:
        self._served, self._ends, self._settings = served, list(ends), settings
        self._out, self._updates = out / "served", updates
        self._attached = Attached(served.name, served.serve, served.state)
        self._versions: dict[int, _Version] = {}
        self._drawing: dict[int, tuple[int, Future[list[Drawn]]]] = {}
        """The version that draws for each update, and its draws."""
        self._given = set[tuple[int, int]]()
        """Engines, by generation, and the versions that they serve. An engine serves one version of whole weights."""
        self._giving = asyncio.Lock()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="vivavoce-rollouts", daemon=True)
        self._thread.start()

    @property
    def asked_again(self) -> int:
        """Calls that were asked once more because the engine had died."""
        return self._attached.asked_again

    def draw(self, model: Any, update: int, wanted: UpdatePrompts) -> list[Drawn]:
        """The answers, as :class:`Rollouts` says, with the engine's log-probabilities.

        Raises RecipeError if the engine does not take the weights, AgentUnusable if an answer cannot be had.
        """
        return self.draw_by(None, model, update, wanted)

    def draw_by(
        self,
        weights: Mapping[str, Tensor] | None,
        model: Any,
        update: int,
        wanted: Callable[[int], Sequence[TokenPrompt]],
    ) -> list[Drawn]:
        """Draw as :meth:`draw` does, with all ``weights`` of a ``model`` of which this process holds but a part."""
        if not self._settings.lora:  # an engine has one set of whole weights: what it draws must be done before
            for _, drawing in self._drawing.values():
                drawing.exception()
        self._versions[update] = self._write(model, update, weights)
        last = min(update + self._settings.staleness, self._updates - 1)
        for later in range(update, last + 1):
            if later not in self._drawing:
                self._drawing[later] = update, self._start(self._draw(update, wanted(later)))
        version, drawing = self._drawing[update]
        drawn = drawing.result()
        del self._drawing[update]
        needed = {update, *(v for v, _ in self._drawing.values())}
        for old in sorted(set(self._versions) - needed):
            self._forget(self._versions.pop(old))
        return drawn if version == update else [Drawn(one.ids, []) for one in drawn]

    def probe(self, update: int, prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]]) -> list[Drawn]:
        """Log-probabilities of the first few answers by the newest weights, for answers that earlier ones drew."""
        probed = list(zip(prompts, answers, strict=True))[:_PROBED]
        return self._start(self._score(update, probed)).result()

    def close(self) -> None:
        """Let go of the engine, and delete the files that were written for it."""
        for version in self._versions.values():
            self._forget(version)
        self._start(self._attached.aclose()).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        shutil.rmtree(self._out, ignore_errors=True)

    def _start(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def _write(self, model: Any, update: int, weights: Mapping[str, Tensor] | None) -> _Version:
        """Write the student's weights as they are, under a path that no other update has."""
        folder = self._out / str(update)
        folder.mkdir(parents=True, exist_ok=True)
        if self._settings.lora:
            adapters.save(getattr(model, "module", model), folder, weights)
            return _Version(folder, adapter_name(folder))
        inner = cast(Any, bare(model))
        dtype = torch.bfloat16 if self._settings.bf16 else torch.float32
        held = inner.state_dict() if weights is None else weights
        inner.save_pretrained(folder, state_dict={name: v.detach().to("cpu", dtype) for name, v in held.items()})
        return _Version(folder, None)

    async def _draw(self, update: int, prompts: Sequence[TokenPrompt]) -> list[Drawn]:
        version = self._versions[update]

        async def one(prompt: TokenPrompt) -> Drawn:
            async def attempt(server: Server) -> Drawn:
                await self._give(server, update, version)
                return await server.draw(prompt.ids, prompt.sampling, prompt.seed, self._ends, version.adapter)

            return await self._attached.ask(attempt)

        with _Refusals():
            return list(await asyncio.gather(*map(one, prompts)))

    async def _give(self, server: Server, update: int, version: _Version) -> None:
        """Have the engine serve a version, unless it does already."""
        async with self._giving:
            if version.adapter is None and self._given != {(server.generation, update)}:
                await server.replace(version.folder)
                self._given = {(server.generation, update)}
            elif version.adapter is not None and (server.generation, update) not in self._given:
                await server.load(version.adapter, version.folder)
                self._given.add((server.generation, update))

    async def _score(self, update: int, answers: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[Drawn]:
        version = self._versions[update]

        async def one(prompt: Sequence[int], ids: Sequence[int]) -> Drawn:
            async def attempt(server: Server) -> Drawn:
                await self._give(server, update, version)
                options = vllm.Options(model=version.adapter or await server.own_name(), base_url=f"{server.url}/v1")
                scorer = vllm.VLLM(self._served.name, options, f"{server.url}/v1", server.key)
                try:
                    positions = await scorer.score([*prompt, *ids], len(prompt))
                finally:
                    await scorer.aclose()
                top_tokens = (dict(zip(at.ids, at.logprobs, strict=True)) for at in positions)
                return Drawn(list(ids), [at[token] for at, token in zip(top_tokens, ids, strict=True)])

            return await self._attached.ask(attempt)

        with _Refusals():
            return list(await asyncio.gather(*(one(prompt, ids) for prompt, ids in answers)))

    def _forget(self, version: _Version) -> None:
        """Delete the files that were written for the engine, and have it forget an adapter."""

        async def unload(name: str) -> None:
            await (await self._attached.server()).unload(name)

        if version.adapter is not None:
            self._start(unload(version.adapter)).exception()  # nothing depends on it
        shutil.rmtree(version.folder, ignore_errors=True)


class SharedRollouts:
    """Draws answers in several processes: one asks the engine for all of them, because an engine serves one student."""

    def __init__(self, served: ServedRollouts | None, processes: int, rank: int) -> None:
        self._served, self._processes, self._rank = served, processes, rank

    def draw(self, model: Any, update: int, wanted: UpdatePrompts) -> list[Drawn]:
        """Draw as :class:`Rollouts` says. Every process raises what the engine refuses."""
        weights = whole_weights(getattr(model, "module", model)) if is_sharded() else None
        outcome: list[Any] = [None]
        if self._served is not None:

            def of_all(of: int) -> list[TokenPrompt]:
                return [prompt for k in range(self._processes) for prompt in wanted(of, k)]

            try:
                outcome = [self._served.draw_by(weights, model, update, of_all)]
            except VivaError as error:
                outcome = [error]
        broadcast_object_list(outcome)
        if isinstance(outcome[0], VivaError):
            raise outcome[0]
        before = sum(len(wanted(update, k)) for k in range(self._rank))
        return outcome[0][before : before + len(wanted(update))]

    def probe(self, update: int, prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]]) -> list[Drawn]:
        """Log-probabilities of the first few answers of the process that asks; of those of others nothing."""
        return [] if self._served is None else self._served.probe(update, prompts, answers)

    def close(self) -> None:
        """Let go of the engine."""
        if self._served is not None:
            self._served.close()


class EngineCheck:
    """Whether the student's engine gives its answers the log-probabilities that the trainer gives them.

    Attributes:
        apart: Nats a token between the two in the last update that was compared, absolute and on average.
    """

    def __init__(self, served: ServedStudent | None) -> None:
        self._served, self.apart = served, cast("float | None", None)
        self._logprobs, self._sum, self._tokens = np.zeros(0), 0.0, 0

    def begin(self, logprobs: Sequence[Sequence[float]]) -> None:
        """Begin an update with the engine's log-probability of each token of each answer, NaN if it gave none."""
        self._logprobs, self._sum, self._tokens = np.array([v for one in logprobs for v in one]), 0.0, 0

    @torch.no_grad()
    def add(self, z: Tensor, tokens: np.ndarray, sampled: Tensor) -> None:
        """Compare some ``tokens``, numbered over all answers, with the trainer's logits ``z`` (n, V) of ``sampled``."""
        if self._served is None:
            return
        known = np.flatnonzero(~np.isnan(self._logprobs[tokens]))
        if not len(known):
            return
        at = torch.from_numpy(known).to(z.device)
        computed = torch.log_softmax(z[at].float(), -1).gather(1, sampled[at, None])[:, 0]
        theirs = torch.from_numpy(self._logprobs[tokens[known]]).to(z.device, torch.float32)
        self._sum += float((computed - theirs).abs().sum())
        self._tokens += len(known)

    def check(self, update: int) -> None:
        """Raise Mismatched if the two are too far apart; called before anything is learned."""
        if self._served is None or not self._tokens:
            return
        self.apart, most = self._sum / self._tokens, self._served.serve.max_mismatch
        if self.apart <= most:
            return
        what = (
            f"the student's engine and the trainer are {self.apart:.3f} nats a token apart in update {update} "
            f"(mean over {self._tokens:,} tokens); {most:g} is allowed"
        )
        do = (
            "serve the student's own weights, in the type that it trains in (bf16: true goes with dtype: bfloat16); if "
            "the two only round differently, raise it"
        )
        raise Mismatched(what, "student.serve.max_mismatch", do)


class _Refusals:
    """Turns the error of an engine that refuses weights or a call, or gives no answer, into one that the user can
    mend."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, _: object) -> None:
        if isinstance(error, AgentError) and error.reason in ("not_found", "bad_request", "forbidden", "auth"):
            do = (
                "check that it accepts adapters of this rank on these modules (--enable-lora, "
                "--max-lora-rank) and updates (VLLM_ALLOW_RUNTIME_LORA_UPDATING, VLLM_SERVER_DEV_MODE), as "
                "an engine that the run starts does"
            )
            raise RecipeError(f"the student's engine refuses: {error.detail}", "student.serve", do) from None
        if isinstance(error, AgentError):
            do = "look into its log; then give the same command: training goes on from its last checkpoint"
            raise AgentUnusable(f"the student's engine gives no answer: {error}", "student.serve", do) from None


def rollouts(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    settings: OnPolicySettings,
    out: Path,
    updates: int,
    launched: TrainingArguments | None = None,
) -> Rollouts:
    """The sampler that the settings ask for, in each of the processes that train; None: there is one."""
    if settings.served is None or not settings.on_policy:
        return OwnRollouts(model, tokenizer, settings)
    ends = Decoder(bare(model), tokenizer).eos
    processes, rank = (launched.world_size, launched.process_index) if launched is not None else (1, 0)
    asks = ServedRollouts(settings.served, ends, settings, out, updates) if rank == 0 else None
    return asks if asks is not None and processes == 1 else SharedRollouts(asks, processes, rank)


__all__ = ["EngineCheck", "OwnRollouts", "Rollouts", "ServedRollouts", "SharedRollouts", "UpdatePrompts", "rollouts"]
