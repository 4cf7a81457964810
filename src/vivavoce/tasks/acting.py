"""The common parts of tasks in which an agent acts: a problem is an episode to be played, or a state of one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from vivavoce.agents import Agent
from vivavoce.agents.call_text import read_calls, without_calls, write_call
from vivavoce.agents.journal import Journal
from vivavoce.environments.environment import Environment, Episode
from vivavoce.records import Grade, Problem, Sampling, Token, ToolCall
from vivavoce.tasks.confidence import geometric_mean


@runtime_checkable
class Acting(Protocol):
    """A :class:`~vivavoce.tasks.Task` whose problems are episodes: their ids are the environment's tasks."""

    def environment(self) -> Environment:
        """A fresh one, in which one episode at a time runs."""
        ...


@runtime_checkable
class Peopled(Acting, Protocol):
    """A task whose environment has a person that a model may play."""

    def peopled(self, user: Agent, sampling: Sampling, journal: Journal) -> Environment:
        """A fresh environment with that person; each call of ``user`` is in the journal."""
        ...


class ActingTask:
    """A task of episodes, without its problems and its environment. One action in its state is graded."""

    def grade(self, problem: Problem, text: str) -> Grade:
        """Whether an action is one of the best in the state that ``problem`` is (:func:`situation`).

        The answer is the calls, by which actions vote, or the words of an action without calls. ``correct`` is None if
        the best action is not known.
        """
        try:
            answer = _canonical(text)
        except ValueError as error:
            return Grade(None, False if problem.gold else None, "no_answer", str(error))
        return Grade(answer or None, answer in problem.gold.split("\n") if problem.gold else None)

    def steps(self, text: str) -> list[str]:
        """An action is one step."""
        return [text]

    def first_wrong_step(self, problem: Problem, text: str) -> int | None:
        """0 if the action is not among the best."""
        return None if self.grade(problem, text).correct else 0

    def worked(self, problem: Problem) -> str:
        """The best action in a state, in the form that agents write; empty if the environment does not know it."""
        best = problem.gold.partition("\n")[0]
        if not best.startswith("[["):
            return best
        return "\n".join(write_call(ToolCall(name, arguments)) for name, arguments in json.loads(best))

    def probability(self, text: str, tokens: Sequence[Token]) -> float:
        """Geometric mean over the tokens."""
        return geometric_mean(tokens)


def situation(episode: Episode, step: int, group: str = "") -> Problem:
    """The state of a step as a problem: what to do next, asked of agents that read what the acting agent had read.

    Equal states are one problem: they have the id of :meth:`Episode.key`.
    """
    history, best = episode.before(step), episode.steps[step].best
    gold = "\n".join(dict.fromkeys(_canonical(text) for text in best))
    return Problem(f"{episode.environment}/{episode.key(step)[:16]}", history[-1]["content"], gold, group, history)


def was_best(episode: Episode, step: int) -> bool:
    """Whether an action is one of the best; the words around its calls do not count."""
    done, best = episode.steps[step].action, episode.steps[step].best
    return not done.malformed and _canonical(done.text) in map(_canonical, best)


def _canonical(text: str) -> str:
    """The calls of an action, or its words, so that equal actions are equal texts."""
    if calls := read_calls(text):
        return json.dumps([[call.name, call.arguments] for call in calls], ensure_ascii=False, sort_keys=True)
    return without_calls(text)


__all__ = ["Acting", "ActingTask", "Peopled", "situation", "was_best"]
