"""States from episodes: the steps to learn from, and the weight of each."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from pydantic import Field

from vivavoce.committee.wording import Wording
from vivavoce.data.states import Supervised, Supervision, states
from vivavoce.environments.environment import Episode
from vivavoce.errors import RecipeError
from vivavoce.graph import Graph
from vivavoce.records import Completion, Problem, State, digest, seed_of
from vivavoce.tasks.acting import situation, was_best


class Stepwise(Supervision):
    """The states of an episode that are learned from, and the debate that is held on them (arXiv:2605.01347, Eqs. 9,
    10).
    """

    states: Literal["student", "gold"] = Field(
        default="student",
        description="states that the student came to itself (paper), or those of reference episodes (authors' code), "
        "in which it is asked what it would do",
    )
    reference: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="share of an iteration's tasks whose reference episode is learnt from, its actions included, in "
        "place of the student's (1 - lambda; paper: 0)",
    )
    debate_at: Literal["step", "start"] = Field(
        default="step",
        description="one debate in each state (paper), or one at the start that serves the whole episode",
    )
    steps: Literal["all", "first_error"] | int = Field(
        default="all",
        description="all steps of an episode (paper), a number of them at random, or the first that was not best, "
        "if the environment knows the best",
    )
    learn_from: Literal["answer", "calls"] | None = Field(
        default=None, description="all tokens of an action, or those of its tool calls alone; None: as `opd` has it"
    )
    over_steps: Literal["sum", "mean"] = Field(
        default="sum",
        description="an episode's steps count one each (paper), or together as one; an update's weights are normed, so "
        "this says how long episodes compare with short ones",
    )


@dataclass
class Visited:
    """A state, and what the student did whenever it came there."""

    problem: Problem
    start: Problem
    """The state at the beginning of an episode that came there."""
    episode: str
    """The first episode that came there."""
    actions: list[Completion] = field(default_factory=list)
    weight: float = 0.0

    def as_problem(self, rules: Stepwise) -> Problem:
        """The state that is debated for this one."""
        return self.start if rules.debate_at == "start" else self.problem


def visited_states(episodes: Sequence[Episode], groups: Mapping[str, str], rules: Stepwise, seed: int) -> list[Visited]:
    """The states to learn from, each once, in order of the first visit.

    Actions that were cut off at their limit, or are empty, are no example of an action and left out. Raises RecipeError
    if the first error is asked for and the environment does not know the best action.
    """
    by_text: dict[str, Visited] = {}
    for i, episode in enumerate(episodes):
        chosen = _choose_steps(episode, rules, random.Random(seed_of(seed, "steps", i, episode.task)))
        nodes = {n.round: n.id for n in episode.nodes() if n.kind == "action"}
        if not chosen:
            continue
        group = groups.get(episode.task, "")
        start = situation(episode, 0, group)
        for step in chosen:
            action, problem = episode.steps[step].action, situation(episode, step, group)
            one = by_text.setdefault(problem.id, Visited(problem, start, f"{episode.task} {i}"))
            one.weight += 1 / len(chosen) if rules.over_steps == "mean" else 1.0
            if rules.states == "student":  # of gold states, what it would do there is yet to be asked
                one.actions.append(Completion(action.text, nodes[step], action.ids))
    return list(by_text.values())


def by_action(seen: Iterable[Visited]) -> list[Visited]:
    """The states once for each different action in them, so that a debate can be held on it.

    The id of such a state names the action; its weight is that of the visits in which the action was taken.
    """
    apart = []
    for one in seen:
        by_text: dict[str, list[Completion]] = {}
        for action in one.actions:
            by_text.setdefault(action.text, []).append(action)
        for text, same in by_text.items():
            problem = replace(one.problem, id=f"{one.problem.id}+{digest(text)[:8]}")
            weight = one.weight * len(same) / len(one.actions)
            apart.append(Visited(problem, one.start, one.episode, same, weight))
    return apart


def _choose_steps(episode: Episode, rules: Stepwise, rng: random.Random) -> list[int]:
    usable = [i for i, s in enumerate(episode.steps) if s.action.status == "ok" and s.action.text.strip()]
    if rules.steps == "all":
        return usable
    if isinstance(rules.steps, int):
        return sorted(rng.sample(usable, min(rules.steps, len(usable))))
    if any(not s.best for s in episode.steps):
        raise RecipeError(
            f"{episode.environment} does not know which actions are best", "steps", "use steps: all, or a number"
        )
    return [i for i in usable if not was_best(episode, i)][:1]


def step_states(
    seen: Iterable[Visited],
    graphs: Mapping[str, Graph],
    rules: Stepwise,
    scorers: Sequence[str],
    wording: Wording,
    seed: int,
) -> tuple[list[State], Supervised]:
    """The rows of one arm: each state with its views, the student's own actions there, and its weight.

    ``graphs`` are the debates by the id of the state; none is needed if nothing of a debate is shown or weighed. A
    view ends with the state: no scorer sees an observation that came later.
    """
    by_id = {one.problem.id: one for one in seen}
    talked = [_debate_on(one, graphs, rules) for one in by_id.values()]
    states_made, counts = states(talked, rules, scorers, wording, seed)

    def whole(state: State) -> State:
        one = by_id[state.problem]
        return replace(state, recorded=tuple(one.actions), weight=one.weight, group=one.episode)

    return [whole(state) for state in states_made], counts


def _debate_on(one: Visited, graphs: Mapping[str, Graph], rules: Stepwise) -> Graph:
    """The debate that serves a state, as a graph of that state."""
    held = graphs.get(one.as_problem(rules).id)
    return replace(held, problem=one.problem) if held else Graph(one.problem, ())


__all__ = ["Stepwise", "Visited", "by_action", "step_states", "visited_states"]
