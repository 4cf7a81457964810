"""The states of an on-policy training in tokens, checked, and the order in which updates take them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from torch.utils.data import Dataset

from vivavoce.errors import DataError, RecipeError
from vivavoce.records import Completion, State
from vivavoce.train import checkpoint
from vivavoce.train.alignment import token_bytes
from vivavoce.train.counting import of_calls
from vivavoce.train.objective import OnPolicySettings
from vivavoce.train.tokens import answer_ids, context_ids

logger = logging.getLogger(__name__)


class Prepared(NamedTuple):
    """One state in tokens: the student's prompt, and recorded answers to it."""

    state: State
    context: list[int]
    recorded: list[tuple[int, ...]]

    def longest(self, settings: OnPolicySettings) -> int:
        """Tokens of the longest answer that may be learned from, recorded or sampled."""
        return max([settings.max_new_tokens if settings.on_policy else 0, *map(len, self.recorded)])


def check_views(states: Sequence[State], settings: OnPolicySettings, out: Path) -> None:
    if not states:
        raise DataError("there are no states to train on", str(out), "check the stage that makes them")
    if not settings.scorers and settings.objective.asks_teachers:
        raise RecipeError("no scorer of the student is named", "scorers", "name local models, or the student itself")
    if not settings.objective.asks_teachers and (settings.scorers or settings.informative < 1):
        what = f"{settings.objective.divergence} asks no teacher, so there are no scores and no token tells more"
        raise RecipeError(what, "objective.divergence", "leave out the scorers, and `informative`")
    if settings.on_policy < 1 and not any(state.recorded for state in states):
        raise DataError("there are no recorded answers", "on_policy", "set on_policy: 1, or record some")
    for state in states:
        weights = [view.weight for view in state.views]
        whole = not settings.scorers or abs(sum(weights) - 1) <= 1e-6
        if len(weights) != len(settings.scorers) or min(weights, default=0) < 0 or not whole:
            what = f"the views of problem {state.problem} weigh {weights} for {len(settings.scorers)} scorers"
            raise DataError(what, str(out), "one view for each scorer, weights that sum to 1")


def prepare(tokenizer: Any, states: Sequence[State], settings: OnPolicySettings, out: Path) -> list[Prepared]:
    """The states that fit. Raises DataError if they are so few that training would not follow the recipe."""
    used, sizes = list[Prepared](), list[tuple[int, int]]()
    for state in states:
        where = f"problem {state.problem}"
        context = context_ids(tokenizer, state.prompt, where, settings.template)
        recorded = [_recorded_ids(tokenizer, c, settings) for c in state.recorded]
        prepared = Prepared(state, context, recorded)
        sizes.append((len(context), prepared.longest(settings)))
        if sum(sizes[-1]) <= settings.max_length and (recorded or settings.on_policy):
            used.append(prepared)
    if len(used) < settings.min_coverage * len(states):
        prompt, answer = max(sizes, key=sum)
        what = (
            f"only {len(used)} of {len(states)} states fit: rows have {settings.max_length} tokens (max_length, or the "
            f"student's context), and up to {prompt} of a prompt meet {answer} of an answer (max_new_tokens is "
            f"{settings.max_new_tokens})"
        )
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


def _recorded_ids(tokenizer: Any, answer: Completion, settings: OnPolicySettings) -> tuple[int, ...]:
    """A recorded answer in tokens: the drawn ones, if they are known and spell its text."""
    if answer.ids and b"".join(token_bytes(tokenizer, answer.ids)) == answer.text.encode():
        return answer.ids
    return tuple(answer_ids(tokenizer, answer.text, settings.template))


class Updates(Dataset[dict[str, Any]]):
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
        places = list(whole)[device :: self.devices]
        # the place in the whole run seeds the rollout: another draw each time a state comes round
        return {"states": [self.states[self.order[place]] for place in places], "places": places}


def first_alike(states: Sequence[Prepared]) -> list[int]:
    """Indices, one a state, of the first state with the same prompts of student and scorers."""
    first = dict[tuple[int, ...], list[int]]()
    indices = []
    for i, prepared in enumerate(states):
        same = first.setdefault(tuple(prepared.context), [])
        indices.append(next((j for j in same if states[j].state.views == prepared.state.views), i))
        if indices[-1] == i:
            same.append(i)
    return indices


__all__ = ["Prepared", "Updates", "check_views", "first_alike", "prepare"]
