"""Supervision from debates: for every state of the student, each scorer's prompt and its weight.

A view of the graphs, like every training set: the number of rounds that are shown, the readers, the weights from
confidences, and every control (another question's debate, filler of the same length, the gold answer) cost no model
call.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from vivavoce.committee.reading import statements
from vivavoce.committee.votes import vote
from vivavoce.committee.wording import Talk, Wording
from vivavoce.errors import RecipeError
from vivavoce.graph import Graph
from vivavoce.records import GOLD, Completion, Node, Prompt, Quote, State, View, seed_of
from vivavoce.tasks import Task


class Supervision(BaseModel):
    """The scorers' knowledge of a state, and the weights of their opinions (arXiv:2605.01347 and its controls)."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    context: Literal["transcript", "none", "shuffled", "filler", "gold"] = Field(
        default="transcript",
        description="what a scorer reads beyond the student's prompt: the debate (paper), nothing, the debate on "
        "another question, words of no meaning of the same length, or the debate as if all had been right",
    )
    rounds: int | None = Field(
        default=None, ge=1, description="rounds of the debate that are shown; 1: independent answers; None: all"
    )
    shown_to: list[str] | None = Field(default=None, description="scorers who read it; None: all")
    hide_confidence: bool = Field(default=False, description="leave stated confidences and marks out of what is shown")
    weights: Literal["uniform", "confidence", "probability"] = Field(
        default="confidence",
        description="softmax of what each teacher said after the last round shown (paper), of its own probability of "
        "that answer (ours), or equal",
    )
    tau: float = Field(default=1.0, gt=0, description="τ: temperature of that softmax (paper: 1)")
    missing: Literal["uniform", "mean", "zero", "drop"] = Field(
        default="uniform",
        description="where a teacher stated none: equal weights for all (authors' code), the others' mean, 0, or that "
        "teacher is left out",
    )


@dataclass
class Supervised:
    """Counts over the states of one arm, for the report."""

    states: int = 0
    dropped: int = 0
    """States whose debate has no text to show."""
    without_confidence: int = 0
    """Turns that were to be weighed and stated none."""
    beyond_scale: int = 0
    """Stated confidences outside the scale, counted as its end."""
    histogram: list[int] = field(default_factory=lambda: [0] * 10)
    """Stated confidences by tenths."""
    weight_entropy: float = 0.0
    """Mean over states, in nats; ln K if all K scorers count alike."""

    def facts(self) -> dict[str, Any]:
        """The counts for ``results.json``."""
        return {**asdict(self), "weight_entropy": round(self.weight_entropy / max(1, self.states), 4)}


def states(
    graphs: Sequence[Graph],
    how: Supervision,
    scorers: Sequence[str],
    wording: Wording,
    seed: int,
    recorded: Callable[[Graph], Sequence[Node]] = lambda _: (),
) -> tuple[list[State], Supervised]:
    """The states of one arm, in the order of ``graphs``, and what was counted on the way.

    The student's prompt is that of every test and holds nothing of the debate. ``recorded`` gives answers to learn
    from off-policy; ``seed`` draws whose debate is shown in place of another's. Raises RecipeError if more rounds are
    to be shown than were debated.
    """
    longest = max((g.rounds for g in graphs), default=0)
    if how.context != "none" and how.rounds is not None and how.rounds > longest:
        raise RecipeError(
            f"{how.rounds} rounds are to be shown and {longest} were debated", "rounds", "raise debate.max_rounds"
        )
    found, counts = [], Supervised()
    others = _others(graphs, seed)
    for g in graphs:
        prompt = tuple(wording.plain(g.problem))
        last = min(how.rounds or g.rounds, g.rounds) - 1
        views, parents = [], list[str]()
        weights = _weights(g, last, how, scorers, wording, counts)
        for name, weight in zip(scorers, weights or (), strict=bool(weights)):
            messages, shown = prompt, ()
            if how.context != "none" and (how.shown_to is None or name in how.shown_to):
                source = others[g.problem.id] if how.context == "shuffled" else g
                reads = heard(source, min(last, source.rounds - 1), wording.options)
                view = _view(source, g, reads, name, how, wording)
                if view is None:
                    break
                messages, shown = tuple(view.chat), () if how.context == "gold" else view.quotes
            views.append(View(messages, weight))
            parents += [p for p in shown if p not in parents]
        if len(views) < len(scorers):
            counts.dropped += 1
            continue
        counts.states += 1
        answers = tuple(Completion(wording.taught(n.text), n.id) for n in recorded(g))
        found.append(State(g.problem.id, prompt, tuple(views), answers, tuple(parents)))
    return found, counts


def heard(graph: Graph, round: int, options: Talk) -> list[Node]:
    """The nodes that a speaker after ``round`` is offered: the answers of all rounds so far, or of that round alone
    if the protocol's options say ``reads: last_round``; with the notes on them.
    """
    rounds = [round] if getattr(options, "reads", "all_rounds") == "last_round" else range(round + 1)
    said = [n for r in rounds for n in graph.stated(r)]
    ids = {n.id for n in said}
    others = [
        n for n in graph.nodes if n.kind != "answer" and n.round in rounds and (n.target is None or n.target in ids)
    ]
    return [*said, *others]


def _view(
    source: Graph, graph: Graph, reads: Sequence[Node], reader: str, how: Supervision, wording: Wording
) -> Prompt | None:
    """What ``reader`` is shown on the state of ``graph``: of ``source``, a debate on it or on another one. None if
    nothing was said there."""
    shown = statements(source.problem, reads, reader, wording.options.showing)
    if not shown:
        return None
    if how.context == "gold":
        # in the form of the debate, as if all had said it: another form would test how teachers read that
        worked = getattr(wording.task, "worked", None)
        text = worked(graph.problem) if worked else f"The right answer is {graph.problem.gold}."
        shown = [replace(s, text=Quote(GOLD, text), reflection=None, critiques=()) for s in shown]
    elif how.context == "filler":
        shown = [replace(s, text=Quote(s.text.node, _filler(s.text.text))) for s in shown]
    elif how.hide_confidence:
        shown = [replace(s, text=Quote(s.text.node, wording.taught(s.text.text))) for s in shown]
    # a protocol's turn is the template by which it asks for an answer; a prompt of the debate tells it if it does not
    turn = getattr(wording.options, "turn", None) or _turn(source)
    return wording.made(turn, graph.problem, reader, reads, shown=shown, ask_confidence=False, scoring=True)


def _turn(graph: Graph) -> str:
    """The template of the last answers of a debate."""
    last = [n for n in graph.answers(graph.rounds - 1) if n.prompt is not None]
    return graph.prompt_of(last[0]).template if last else "discuss"


def _filler(text: str) -> str:
    pattern = "… "
    return (pattern * len(text))[: len(text)].strip() or pattern


def _others(graphs: Sequence[Graph], seed: int) -> Mapping[str, Graph]:
    """For every question, the debate on another one: a seeded ring over all of them."""
    ring = list(graphs)
    random.Random(seed_of(seed, "shuffled debates")).shuffle(ring)
    return {g.problem.id: other for g, other in zip(ring, ring[1:] + ring[:1], strict=True)}


def _weights(
    graph: Graph, last: int, how: Supervision, scorers: Sequence[str], wording: Wording, counts: Supervised
) -> list[float] | None:
    """Weights of the scorers, which sum to 1, or None if none is left.

    w_k = exp(c_k / tau) / sum_j exp(c_j / tau), c in 0..1 (Eqs. 6 and 7). A scorer that did not debate stated nothing.
    """
    if how.weights == "uniform":
        return _noted([1 / len(scorers)] * len(scorers), counts)
    said = {n.agent: n for n in graph.stated(last, scorers)}
    stated = [_stated(said.get(name), how, wording, counts) for name in scorers]
    known = [c for c in stated if c is not None]
    if not known and how.missing == "drop":
        return None
    if len(known) < len(stated):
        counts.without_confidence += len(stated) - len(known)
        if how.missing == "uniform" or not known:
            return _noted([1 / len(scorers)] * len(scorers), counts)
        if how.missing != "drop":
            instead = sum(known) / len(known) if how.missing == "mean" else 0.0
            stated = [instead if c is None else c for c in stated]
    grown = [0.0 if c is None else math.exp(c / how.tau - max(known) / how.tau) for c in stated]
    return _noted([w / sum(grown) for w in grown], counts)


def _stated(said: Node | None, how: Supervision, wording: Wording, counts: Supervised) -> float | None:
    if said is None:
        return None
    if how.weights == "probability":
        return said.probability
    if said.confidence is not None:
        counts.histogram[min(9, int(10 * said.confidence))] += 1
        counts.beyond_scale += wording.prompts.stated_confidence(said.text) != said.confidence
    return said.confidence


def _noted(weights: list[float], counts: Supervised) -> list[float]:
    counts.weight_entropy -= sum(w * math.log(w) for w in weights if w)
    return weights


def winner(graph: Graph, task: Task, seed: int = 0) -> list[Node]:
    """The answer that wins the vote after the last round, by probability if it is known, else by stated confidence."""
    said = graph.stated(graph.rounds - 1)
    known = all(n.probability is not None for n in said)
    won = vote(task, graph.problem, said, "probability" if known else "confidence", seed)
    return [won] if won else []


__all__ = ["Supervised", "Supervision", "heard", "states", "winner"]
