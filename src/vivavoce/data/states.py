"""Supervision from debates: for every state of the student, each scorer's prompt and its weight.

A view of the graphs, like every training set: the number of rounds that are shown, the readers, the weights from
confidences, and every control (another question's debate, filler of the same length, the gold answer) cost no model
call.
"""

from __future__ import annotations

import math
import random
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from vivavoce.committee.reading import statements
from vivavoce.committee.votes import vote
from vivavoce.committee.wording import Talk, Wording
from vivavoce.data.hints import answers_alone, right_hint, summary, wrong_hint
from vivavoce.errors import RecipeError
from vivavoce.graph import Graph
from vivavoce.records import Completion, Node, Prompt, Quote, State, View, seed_of
from vivavoce.tasks import Task
from vivavoce.tasks.agreement import classes


class Supervision(BaseModel):
    """The scorers' knowledge of a state, and the weights of their opinions (arXiv:2605.01347 and its controls)."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    context: Literal["transcript", "none", "shuffled", "filler", "gold", "wrong"] = Field(
        default="transcript",
        description="what a scorer reads beyond the student's prompt: the debate (paper), nothing, the debate on "
        "another question, words of no meaning of the same length, the debate as if all had been right, or as if all "
        "had made the same mistake",
    )
    shows: Literal["whole", "last_round", "answers", "summary"] = Field(
        default="whole",
        description="what it reads of the turns: all that debaters read (paper), the last turn of each alone, their "
        "final answers alone; or, in place of the turns, each different final answer of the last round once, with how "
        "many gave it",
    )
    rounds: int | None = Field(
        default=None, ge=1, description="rounds of the debate that are shown; 1: independent answers; None: all"
    )
    shown_to: list[str] | None = Field(default=None, description="scorers that read it; None: all")
    hide_confidence: bool = Field(default=False, description="leave stated confidences and marks out of what is shown")
    weights: Literal["uniform", "confidence", "probability", "calibrated", "agreed", "verified"] = Field(
        default="confidence",
        description="confidence: softmax of what each teacher stated after the last round shown (paper); probability: "
        "of its own probability of that answer (ours); uniform: equal. calibrated: of how often it was right elsewhere "
        "when it stated as much; agreed: of the share of other teachers with its answer; verified: of 1 if right, 0 if "
        "not. calibrated and verified look at gold",
    )
    inflated: list[str] = Field(
        default=[],
        description="scorers that count as if they had stated 100 %, to see what a boaster can do",
    )
    prior: dict[str, float] = Field(
        default={}, description="factors of scorers' weights, by name; 1 for those not named"
    )
    route: dict[str, list[str]] = Field(
        default={},
        description="scorers that alone count on questions of a group (subject, skill), by group; all on other groups",
    )
    tau: float = Field(default=1.0, gt=0, description="τ: temperature of that softmax (paper: 1)")
    missing: Literal["uniform", "mean", "zero", "drop", "ask_again"] = Field(
        default="uniform",
        description="if a teacher stated none: use equal weights for all (authors' code), the others' mean, or 0, or "
        "leave that teacher out. ask_again: the teacher is asked for it once more, in the arm's own debate, which "
        "shares all other calls; if it states none again, all weigh the same",
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
    rules: Supervision,
    scorers: Sequence[str],
    wording: Wording,
    seed: int,
    recorded: Callable[[Graph], Sequence[Node]] = lambda _: (),
    drawn: Callable[[Node], tuple[int, ...]] = lambda _: (),
) -> tuple[list[State], Supervised]:
    """The states of one arm, in the order of ``graphs``, and what was counted on the way.

    The student's prompt is that of every test and holds nothing of the debate. ``recorded`` gives answers to learn
    from off-policy, and ``drawn`` the tokens of one that the student drew itself, if its text would be cut into others;
    ``seed`` draws whose debate is shown in place of another's. Raises RecipeError if more rounds are
    to be shown than were debated.
    """
    longest = max((g.rounds for g in graphs), default=0)
    if rules.context != "none" and rules.rounds is not None and rules.rounds > longest:
        raise RecipeError(
            f"{rules.rounds} rounds should be shown, but only {longest} were debated",
            "rounds",
            "raise debate.max_rounds",
        )
    states_made, counts = [], Supervised()
    others = _other_debates(graphs, seed)
    calibrated = ConfidenceRecord(graphs) if rules.weights == "calibrated" else None
    for g in graphs:
        prompt = tuple(wording.plain(g.problem))
        last = min(rules.rounds or g.rounds, g.rounds) - 1
        views, parents = [], list[str]()
        weights = _weights(g, last, rules, scorers, wording, counts, calibrated)
        for name, weight in zip(scorers, weights or (), strict=bool(weights)):
            messages, shown = prompt, ()
            if rules.context != "none" and (rules.shown_to is None or name in rules.shown_to):
                source = others[g.problem.id] if rules.context == "shuffled" else g
                reads = offered_nodes(source, min(last, source.rounds - 1), wording.options)
                view = _view(source, g, reads, name, rules, wording)
                if view is None:
                    break
                messages, shown = tuple(view.chat), () if rules.context in ("gold", "wrong") else view.quotes
            views.append(View(messages, weight))
            parents += [p for p in shown if p not in parents]
        if len(views) < len(scorers):
            counts.dropped += 1
            continue
        counts.states += 1
        answers = tuple(Completion(wording.lesson_of(n.text), n.id, drawn(n)) for n in recorded(g))
        states_made.append(State(g.problem.id, prompt, tuple(views), answers, tuple(parents)))
    return states_made, counts


def offered_nodes(graph: Graph, round: int, options: Talk) -> list[Node]:
    """The nodes that a speaker after ``round`` is offered: the answers of all rounds so far, or of that round alone
    if the protocol's options say ``reads: last_round``; with the notes on them.
    """
    rounds = [round] if getattr(options, "reads", "all_rounds") == "last_round" else range(round + 1)
    answers = [n for r in rounds for n in graph.stated(r)]
    ids = {n.id for n in answers}
    others = [
        n for n in graph.nodes if n.kind != "answer" and n.round in rounds and (n.target is None or n.target in ids)
    ]
    return [*answers, *others]


def _view(
    source: Graph, graph: Graph, reads: Sequence[Node], reader: str, rules: Supervision, wording: Wording
) -> Prompt | None:
    """The prompt that shows ``reader`` the state of ``graph`` with texts of ``source``, a debate on it or on another.

    None if ``source`` has no texts to show, or there is no hint to give.
    """
    shown = statements(source.problem, reads, reader, wording.options.showing)
    if not shown:
        return None
    if rules.context in ("gold", "wrong"):
        # in the form of the debate, as if all had said it: another form would test how teachers read that
        hint = right_hint(graph, wording) if rules.context == "gold" else wrong_hint(graph, wording)
        if hint is None:
            return None
        shown = [replace(s, text=hint.text, answer=hint.answer, reflection=None, critiques=()) for s in shown]
    elif rules.context == "filler":
        shown = [replace(s, text=Quote(s.text.node, _filler(s.text.text))) for s in shown]
    elif rules.hide_confidence:
        shown = [replace(s, text=Quote(s.text.node, wording.lesson_of(s.text.text))) for s in shown]
    if rules.shows == "last_round":
        shown = [s for s in shown if s.round == max(s.round for s in shown)]
    elif rules.shows != "whole":
        shown = answers_alone(graph.problem, shown, wording)
    if rules.shows == "summary":
        shown = summary(source.problem, shown, wording)
    # a protocol's turn is the template by which it asks for an answer; a prompt of the debate tells it if it does not
    turn = getattr(wording.options, "turn", None) or _turn(source)
    return wording.make(turn, graph.problem, reader, reads, shown=shown, ask_confidence=False, scoring=True)


def _turn(graph: Graph) -> str:
    """The template of the last answers of a debate."""
    last = [n for n in graph.answers(graph.rounds - 1) if n.prompt is not None]
    return graph.prompt_of(last[0]).template if last else "discuss"


def _filler(text: str) -> str:
    pattern = "… "
    return (pattern * len(text))[: len(text)].strip() or pattern


def _other_debates(graphs: Sequence[Graph], seed: int) -> Mapping[str, Graph]:
    """A debate on another question for each question: a seeded ring over all of them."""
    ring = list(graphs)
    random.Random(seed_of(seed, "shuffled debates")).shuffle(ring)
    return {g.problem.id: other for g, other in zip(ring, ring[1:] + ring[:1], strict=True)}


def _weights(
    graph: Graph,
    last: int,
    rules: Supervision,
    scorers: Sequence[str],
    wording: Wording,
    counts: Supervised,
    calibrated: ConfidenceRecord | None,
) -> list[float] | None:
    """Weights of the scorers, which sum to 1, or None if none is left.

    w_k = f_k exp(c_k / tau) / sum_j f_j exp(c_j / tau), c in 0..1 (Eqs. 6 and 7). f is the scorer's prior, or 0 if the
    question's group is routed to others. A scorer that did not debate stated nothing.
    """
    counting = rules.route.get(graph.problem.group, scorers)
    factors = [rules.prior.get(name, 1.0) * (name in counting) for name in scorers]
    if not any(factors):
        return None if scorers else []
    if rules.weights == "uniform":
        return _normalise(factors, counts)
    answers = {n.agent: n for n in graph.stated(last, scorers)}
    stated = [
        1.0 if name in rules.inflated else _stated_weight(answers.get(name), graph, rules, wording, counts, calibrated)
        for name in scorers
    ]
    known = [c for c in stated if c is not None]
    if not known and rules.missing == "drop":
        return None
    if len(known) < len(stated):
        counts.without_confidence += len(stated) - len(known)
        if rules.missing in ("uniform", "ask_again") or not known:
            return _normalise(factors, counts)
        if rules.missing != "drop":
            instead = sum(known) / len(known) if rules.missing == "mean" else 0.0
            stated = [instead if c is None else c for c in stated]
    top = max(known)
    grown = [
        0.0 if c is None else f * math.exp(c / rules.tau - top / rules.tau)
        for c, f in zip(stated, factors, strict=True)
    ]
    return _normalise(grown, counts) if any(grown) else None


def _stated_weight(
    answer: Node | None,
    graph: Graph,
    rules: Supervision,
    wording: Wording,
    counts: Supervised,
    calibrated: ConfidenceRecord | None,
) -> float | None:
    """The weight of a teacher's last answer, 0 to 1, by the arm's rule; None if the rule cannot tell."""
    if answer is None:
        return None
    if rules.weights == "probability":
        return answer.probability
    if rules.weights == "verified":
        return None if answer.correct is None else float(answer.correct)
    if rules.weights == "agreed":
        return _agreement(answer, graph, wording.task)
    if answer.confidence is not None:
        counts.histogram[min(9, int(10 * answer.confidence))] += 1
        counts.beyond_scale += wording.prompts.stated_confidence(answer.text) not in (None, answer.confidence)
    return answer.confidence if calibrated is None else calibrated.of(answer)


def _agreement(answer: Node, graph: Graph, task: Task) -> float | None:
    """The share of the others of that round whose answer is the same."""
    others = [n for n in graph.stated(answer.round) if n.agent != answer.agent]
    if answer.answer is None or not others:
        return None
    own, *labels = classes(task, graph.problem, [answer.answer, *(n.answer for n in others)])
    return sum(key == own for key in labels) / len(labels)


class ConfidenceRecord:
    """Counts how often each teacher was right at each stated confidence: by round, by tenths, on half of the questions.

    A question is weighed by what is known of the other half, so that its own gold answer says nothing of its own
    weights. With (right + 1) / (all + 2), little experience is little trust.
    """

    def __init__(self, graphs: Sequence[Graph]) -> None:
        self._seen: defaultdict[tuple[int, str, int, int], list[int]] = defaultdict(lambda: [0, 0])
        for n in (n for g in graphs for n in g.answers()):
            if n.confidence is not None and n.correct is not None:
                seen = self._seen[_half(n), *_case(n)]
                seen[0] += n.correct
                seen[1] += 1

    def of(self, answer: Node) -> float | None:
        """The share of right answers at an answer's stated confidence, 0 to 1; None if it states none."""
        if answer.confidence is None:
            return None
        right, whole = self._seen.get((1 - _half(answer), *_case(answer)), (0, 0))
        return (right + 1) / (whole + 2)


def _half(n: Node) -> int:
    return seed_of("calibration", n.problem) % 2


def _case(n: Node) -> tuple[str, int, int]:
    return n.agent, n.round, min(9, int(10 * (n.confidence or 0.0)))


def _normalise(grown: list[float], counts: Supervised) -> list[float]:
    """The weights, so that they sum to 1; their entropy is counted."""
    weights = [w / sum(grown) for w in grown]
    counts.weight_entropy -= sum(w * math.log(w) for w in weights if w)
    return weights


def winner(graph: Graph, task: Task, seed: int = 0, speakers: Sequence[str] | None = None) -> list[Node]:
    """The answer that wins the vote after the last round, by probability if it is known, else by stated confidence.

    ``speakers`` are the agents that have a vote; None: all.
    """
    answers = graph.stated(graph.rounds - 1, speakers)
    known = all(n.probability is not None for n in answers)
    won = vote(task, graph.problem, answers, "probability" if known else "confidence", seed)
    return [won] if won else []


__all__ = ["Supervised", "Supervision", "offered_nodes", "states", "winner"]
