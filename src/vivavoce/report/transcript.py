"""One debate as text for a terminal: the question, each round, what was said about it, who changed their mind."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import NamedTuple

from vivavoce.committee.votes import VoteBy, vote
from vivavoce.exams.examine import Judged
from vivavoce.graph import Graph
from vivavoce.graph.graph import Transition
from vivavoce.progress import page_width
from vivavoce.records import Node
from vivavoce.report.text import clean
from vivavoce.tasks import Task

STOPPED = {
    "all_correct": "everyone was right",
    "consensus": "everyone gave the same answer",
    "majority_stable": "the majority stayed the same for a round",
    "drafts_agree": "the drafts agreed, and by rule only disagreement is discussed",
    "student_right": "the student was right, and by rule only its mistakes are discussed",
    "cap": "it reached its last round",
    "moderator": "the moderator found that all agree",
    "no_answers": "no agent answered",
    "budget": "the question reached its cap",
    "recorded": "the record ends here",
}
_NOTES = ("reflection", "critique", "rationale", "review")
_NOT_NOTES = ("answer", "action", "observation")
VOTES: dict[VoteBy, str] = {
    "majority": "majority",
    "confidence": "weighted by stated confidence",
    "probability": "weighted by probability",
    "most_confident": "most confident",
}


def why_ended(stopped: str) -> str:
    """The reason why a debate ended, in words; of a protocol of the user's own, the word that it returned."""
    return STOPPED.get(stopped, f"its protocol said `{clean(stopped)}`")


class Change(NamedTuple):
    """An agent's answers in a round and in the round before. Gradable both times."""

    agent: str
    round: int
    before: Node
    after: Node

    @property
    def kind(self) -> Transition:
        return ("R" if self.before.correct else "W") + ("R" if self.after.correct else "W")  # type: ignore[return-value]

    @property
    def changed(self) -> bool:
        """Another answer, or one that is right in other words."""
        return self.before.correct != self.after.correct or self.before.answer != self.after.answer

    @property
    def words(self) -> str:
        return f"{mark(self.before)} → {mark(self.after)}"


def mark(n: Node | Judged) -> str:
    """The outcome of an answer, in one word."""
    if n.status in ("error", "over_budget"):
        return "failed" if n.status == "error" else "not asked"
    if n.correct is not None and n.answer is not None:
        return "right" if n.correct else "wrong"
    return {"truncated": "cut off", "empty": "empty"}.get(n.status, "unparsed" if n.answer is None else "ungradable")


def turns(graph: Graph) -> list[Change]:
    """Every agent from each round to the next, as :meth:`Graph.transitions` counts them, with the answers."""
    turns_made, before = list[Change](), dict[str, Node]()
    for r in range(graph.rounds):
        now = {n.agent: n for n in graph.stated(r)}
        turns_made += [
            Change(agent, r, before[agent], n)
            for agent, n in now.items()
            if agent in before and n.correct is not None and before[agent].correct is not None
        ]
        before = now
    return turns_made


def minds(all_turns: list[Change]) -> list[Change]:
    """The agents that changed their mind: from wrong to right first, then from right to wrong, then to another
    mistake.
    """
    order = ("WR", "RW", "WW")
    return sorted((t for t in all_turns if t.changed and t.kind in order), key=lambda t: (order.index(t.kind), t.round))


def votes(graph: Graph, round: int, task: Task | None = None, seed: int = 0) -> list[tuple[str, Node]]:
    """The winners of a vote over all answers in ``round``, by each weight that any agent gave. Ties are decided by
    seed.

    ``task`` says which answers are the same; without it, equal texts are.
    """
    stated = graph.stated(round)
    sure, likely = (any(getattr(n, w) is not None for n in stated) for w in ("confidence", "probability"))
    usable: dict[VoteBy, bool] = {"majority": True, "confidence": sure, "probability": likely, "most_confident": sure}
    won = {words: vote(task, graph.problem, stated, way, seed) for way, words in VOTES.items() if usable[way]}
    return [(words, winner) for words, winner in won.items() if winner is not None]


def figures(n: Node) -> list[str]:
    """Answer, said confidence and probability of a node, as far as it has them."""
    shown = [] if n.answer is None else [f"answer {clean(n.answer)}"]
    if n.confidence is not None:
        shown.append(f"said {100 * n.confidence:.0f} % sure")
    if n.probability is not None:
        shown.append(f"probability {n.probability:.2f}")
    return shown


def transcript(graph: Graph, task: Task | None = None) -> str:
    """The debate, readable from top to bottom in a terminal."""
    return "\n".join(_lines(graph, task))


def _lines(graph: Graph, task: Task | None) -> Iterator[str]:
    p = graph.problem
    yield f"Question {clean(p.id)}" + (f" ({clean(p.group)})" if p.group else "")
    yield from _indent(p.question, 2)
    yield f"  Right answer: {clean(p.gold)}"
    for r in range(graph.rounds):
        yield from ("", _rule(f"Round {r}" + (", independent answers" if r == 0 else "")))
        yield from _answers(graph, r)
        yield from _notes(graph, r)
    yield from ("", _rule("Who changed their mind"))
    yield from _turns(graph)
    last = graph.rounds - 1
    for title, r in [("Votes over the independent answers", 0), (f"Votes after round {last}", last)][last == 0 :]:
        yield from ("", title)
        yield from [f"  {rule}: {clean(n.answer or '')}, {mark(n)}" for rule, n in votes(graph, r, task)] or ["  none"]
    yield ""
    yield f"The debate ended because {why_ended(graph.stopped)}."
    if graph.oracle_roles:
        note = "Roles, or when to stop, were decided by knowing which agents are right (oracle roles)."
        yield from _indent(note, 0)
    if seen := sum(n.saw_gold for n in graph.nodes):
        note = f"{seen} of {len(graph.nodes)} texts were written with the right answer in view (marked: saw gold)."
        yield from _indent(note, 0)


def _answers(graph: Graph, round: int) -> Iterator[str]:
    stated = {n.agent: n for n in graph.stated(round)}
    for n in graph.nodes:
        if n.kind != "answer" or n.round != round:
            continue
        if n.absent:
            yield f"{_head(n, '')}: {clean(n.error or '')}"
        elif stated[n.agent] is n:
            yield _head(n, "")
            yield from _indent(n.text, 6)
        else:
            yield _head(n, f", sample {n.sample}")


def _head(n: Node, more: str) -> str:
    details = ", ".join([*figures(n), *(["saw gold"] if n.saw_gold else [])])
    return f"  [{mark(n)}] {clean(n.agent)}{more}" + (f": {details}" if details else "")


def _notes(graph: Graph, round: int) -> Iterator[str]:
    for kind in kinds_of_notes(graph):
        for n in graph.nodes:
            if n.kind != kind or n.round != round:
                continue
            about = graph.by_id[n.target].agent if n.target in graph.by_id else None
            speakers = clean(n.agent) if about in (None, n.agent) else f"{clean(n.agent)} → {clean(about or '')}"
            shown = [f"score {n.score:g}"] if n.score is not None else []
            shown += ["saw gold"] if n.saw_gold else []
            shown += [f"{mark(n)}: {clean(n.error or '')}"] if n.absent else []
            yield f"  ({kind}) {speakers}" + (f": {', '.join(shown)}" if shown else "")
            yield from _indent(n.text, 6)


def kinds_of_notes(graph: Graph) -> list[str]:
    """Kinds of all that is no answer, the usual ones first, then those of a protocol's own."""
    return list(dict.fromkeys([*_NOTES, *(n.kind for n in graph.nodes if n.kind not in _NOT_NOTES)]))


def _turns(graph: Graph) -> Iterator[str]:
    changed = minds(turns(graph))
    for t in changed:
        yield (
            f"  {t.kind[0]}→{t.kind[1]}  {clean(t.agent)} in round {t.round}: {t.words} "
            f"({clean(t.before.answer or 'none')} → {clean(t.after.answer or 'none')})"
        )
    if not changed:
        yield "  none"


def _rule(title: str) -> str:
    return f"── {title} " + "─" * max(3, page_width() - 4 - len(title))


def _indent(text: str, indent: int) -> Iterator[str]:
    """A text wrapped to the page, its own line breaks kept."""
    edge = " " * indent
    for line in clean(text).strip().splitlines():
        yield from textwrap.wrap(
            line,
            page_width(),
            initial_indent=edge,
            subsequent_indent=edge,
            tabsize=4,
            replace_whitespace=False,
            drop_whitespace=True,
        ) or [""]


__all__ = ["Change", "figures", "kinds_of_notes", "mark", "minds", "transcript", "turns", "votes", "why_ended"]
