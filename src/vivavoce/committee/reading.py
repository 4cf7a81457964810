"""The texts that an agent reads of others: names, order, notes under the answers that they are about, and shortening to
a context budget.

Debates, preference trees and scorers' views all use :func:`statements`, so that training shows the same texts as the
debate.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from vivavoce.graph.graph import stated
from vivavoce.records import Node, Problem, Quote, seed_of

CountTokens = Callable[[str], int]
"""Tokens of a text."""
Reads = Callable[[str], str | None]
"""The final answer that a text ends with, or None."""

CUT = " […]"
_TAIL = 4
"""Lines, or sentences, at the end of an answer in which its final answer is looked for."""


@dataclass(frozen=True)
class Showing:
    """Options of what agents read of each other."""

    order: Literal["shared", "per_agent"] = "shared"
    order_seed: int = 42
    anonymous: bool = True
    topology: Literal["all", "ring", "star"] = "all"
    hide_gold: bool = False


@dataclass(frozen=True)
class Statement:
    """One agent's text as another agent reads it, with the notes on it."""

    kind: str
    """The kind of the node: ``answer``, or a kind that a protocol of your own names."""
    name: str
    """The speaker's name for the reader: ``Agent 2``, or its real name if names are shown."""
    peer: int
    """0 for the reader itself, else a random number among the others."""
    text: Quote
    reflection: Quote | None
    critiques: tuple[tuple[str, Quote], ...]
    """``(name of the critic, text)``."""
    round: int
    answer: str | None = None
    """The final answer, which stays when the text is shortened."""


def statements(problem: Problem, reads: Sequence[Node], reader: str, how: Showing) -> list[Statement]:
    """The statements that ``reader`` reads of the nodes ``reads``, in an order shuffled by ``how.order_seed``.

    One answer is shown for each agent and round (:func:`vivavoce.graph.graph.stated`). A reflection or critique is
    shown under the answer that it is about, if that is read too. Nodes without text are left out. If several rounds are
    read, names and order stay those of the first, so that the text of one round only adds to that of the round before.
    An agent that does not speak in the first round that is read reads every agent, whatever the topology.
    """
    offer = _offer(reads) if reads else _NOTHING
    if not offer.shown:
        return []
    first, table = offer.first, list(offer.table)
    speakers = tuple(n.agent for n in table)
    by_reader = (reader,) if how.order == "per_agent" else ()
    rng = random.Random(seed_of(how.order_seed, problem.id, first, *by_reader))
    rng.shuffle(table)
    others = [n.agent for n in table if n.agent != reader]
    numbers = dict(zip(rng.sample(others, len(others)), range(1, len(others) + 1), strict=True))
    names = {n.agent: f"Agent {i}" if how.anonymous else n.agent for i, n in enumerate(table, 1)}
    place = {n.agent: i for i, n in enumerate(table)}
    shown = []
    for n, text, reflection, critiques in sorted(offer.shown, key=lambda s: _place(s.node, place)):
        if not _is_shown(n.agent, reader, speakers, how.topology):
            continue
        if how.hide_gold:
            reflection = reflection and Quote(reflection.node, hidden(reflection.text, problem.gold))
            critiques = [(critic, Quote(q.node, hidden(q.text, problem.gold))) for critic, q in critiques]
        shown.append(
            Statement(
                n.kind,
                names.get(n.agent, "Agent" if how.anonymous else n.agent),
                0 if n.agent == reader else numbers.get(n.agent, len(place)),
                text,
                reflection,
                tuple((names.get(critic, "Agent" if how.anonymous else critic), q) for critic, q in critiques),
                n.round,
                n.answer,
            )
        )
    return shown


def _place(n: Node, seats: Mapping[str, int]) -> tuple[int, bool, int]:
    """The place of a node among those that are shown: by round, answers first, then by its author's seat."""
    return n.round, n.kind != "answer", seats.get(n.agent, len(seats))


class _Shown(NamedTuple):
    """A node that is shown, and the notes on it."""

    node: Node
    text: Quote
    reflection: Quote | None
    critiques: list[tuple[str, Quote]]
    """``(critic, text)``."""


class _Offer(NamedTuple):
    """The nodes that are offered to readers, in the form that is the same for all of them."""

    nodes: tuple[Node, ...]
    shown: list[_Shown]
    table: list[Node]
    """Those of the first round that is read."""
    first: int


_NOTHING = _Offer((), [], [], 0)
_latest = _NOTHING


def _offer(reads: Sequence[Node]) -> _Offer:
    """The nodes in the form that is the same for all readers. The members of a committee read the same nodes one after
    the other, so the latest offer is kept.
    """
    global _latest
    kept = _latest
    if len(kept.nodes) == len(reads) and all(a is b for a, b in zip(kept.nodes, reads, strict=True)):
        return kept
    ids = {n.id for n in reads}
    notes: dict[str | None, list[Node]] = {}
    other_nodes = []
    for n in reads:
        if n.kind == "answer" or n.absent:
            continue
        if n.target in ids and n.kind in ("reflection", "critique"):
            notes.setdefault(n.target, []).append(n)
        else:
            other_nodes.append(n)
    answers = stated(n for n in reads if n.kind == "answer")
    shown = []
    for n in (*answers, *other_nodes):
        about = notes.get(n.id, ())
        reflection = next((Quote(m.id, m.text) for m in about if m.kind == "reflection"), None)
        critiques = [(m.agent, Quote(m.id, m.text)) for m in about if m.kind == "critique"]
        shown.append(_Shown(n, Quote(n.id, n.text), reflection, critiques))
    speaking = answers or other_nodes
    first = min((n.round for n in speaking), default=0)
    _latest = made = _Offer(tuple(reads), shown, [n for n in speaking if n.round == first], first)
    return made


def _is_shown(speaker: str, reader: str, speakers: tuple[str, ...], topology: str) -> bool:
    """Whether ``reader`` reads ``speaker``."""
    if topology == "all" or speaker == reader or reader not in speakers:
        return True
    if topology == "star":
        return speakers[0] in (reader, speaker)
    return speakers[(speakers.index(reader) + 1) % len(speakers)] == speaker


def hidden(text: str, gold: str) -> str:
    """The text with the right answer masked wherever it stands by itself: not inside a word or a longer number.

    A number is found with thousands separators too, and a word in capitals or small letters. The answer in other words
    (a half for 0.5) is not found.
    """
    if not gold.strip():
        return text
    pattern = re.escape(gold.strip())
    if re.fullmatch(r"\d{4,}", gold.strip()):
        whole = gold.strip()
        grouped = f"{int(whole):,}".replace(",", "[,\u2009\u202f\u00a0 ]?") if whole == str(int(whole)) else pattern
        pattern = f"(?:{grouped})"
    before = r"(?<![\w])(?<!\d[.,])" if gold.strip()[0].isalnum() else ""
    after = r"(?![\w])(?![.,]\d)" if gold.strip()[-1].isalnum() else ""
    # a letter in capitals is a choice, in small ones it may be a word or a variable
    return re.sub(f"{before}{pattern}{after}", "[hidden]", text, flags=re.IGNORECASE if len(gold.strip()) > 1 else 0)


# --- what is left under a context budget


def fit(
    shown: Sequence[Statement], budget: int, count: CountTokens, reads: Reads = lambda _: None
) -> tuple[list[Statement], int]:
    """The statements, shortened until together they take at most ``budget`` tokens, and the number of those that were
    cut.

    The longest statement is cut first, to the length of the next longest or to its fair share. Inside it the answer's
    reasoning goes first, then the notes (arXiv:2506.03541's packing, without its splitting of one context over several
    rows, which gives long debates more weight). No statement vanishes. The end of an answer, from its final answer on,
    is kept even if it alone is over the budget. ``reads`` gives the final answer of a text.
    """
    sizes = [_size(s, count) for s in shown]
    if sum(sizes) <= budget:
        return list(shown), 0
    cap = _level(sizes, budget)
    fitted = [s if n <= cap else _shorten(s, cap, count, reads) for s, n in zip(shown, sizes, strict=True)]
    return fitted, sum(n > cap for n in sizes)


def packs(
    shown: Sequence[Statement], budget: int, count: CountTokens, reads: Reads = lambda _: None
) -> list[list[Statement]]:
    """The statements in several parts of at most ``budget`` tokens, as in the authors' code of arXiv:2506.03541.

    Statements in order of length are packed greedily; one that alone is over the budget is shortened to it. The caller
    gives each part the weight 1/n, so that a long debate does not count more (authors' code: weight 1 each).
    """
    parts: list[list[Statement]] = [[]]
    used = 0
    for s in sorted(shown, key=lambda s: _size(s, count)):
        (s,), _ = fit([s], budget, count, reads)
        if parts[-1] and used + _size(s, count) > budget:
            parts.append([])
            used = 0
        parts[-1].append(s)
        used += _size(s, count)
    return parts


def _level(sizes: Iterable[int], budget: int) -> int:
    """The largest cap for which the capped sizes sum to at most ``budget``."""
    left, open_ = budget, sorted(sizes)
    while open_ and open_[0] * len(open_) <= left:
        left -= open_.pop(0)
    return left // max(1, len(open_))


def _size(s: Statement, count: CountTokens) -> int:
    notes = [s.reflection] if s.reflection else []
    return sum(count(q.text) for q in (s.text, *notes, *(q for _, q in s.critiques)))


def _shorten(s: Statement, cap: int, count: CountTokens, reads: Reads) -> Statement:
    notes = _size(s, count) - count(s.text.text)
    end = end_of(s.text.text, s.answer, reads)
    text = _cut_to(s.text.text, max(cap - notes, cap // 2), count, end)
    left = max(0, cap - count(text))
    parts = [s.reflection.text] if s.reflection else []
    parts += [q.text for _, q in s.critiques]
    if sum(count(t) for t in parts) > left:
        share = _level([count(t) for t in parts], left)
        parts = [t if count(t) <= share else _cut_to(t, share, count) for t in parts]
    reflection = Quote(s.reflection.node, parts.pop(0)) if s.reflection else None
    return replace(
        s,
        text=Quote(s.text.node, text),
        reflection=reflection,
        critiques=tuple((name, Quote(q.node, t)) for (name, q), t in zip(s.critiques, parts, strict=True)),
    )


def end_of(text: str, answer: str | None, reads: Reads) -> str:
    """The shortest end of an answer, in whole lines or else sentences, that still says its final answer; else the last
    line."""
    text = text.rstrip()
    cuts = [m.end() for m in re.finditer(r"\n", text)][-_TAIL:]
    cuts += [m.end() for m in re.finditer(r"(?<=[.!?;。！？；])\s*", text) if m.end() < len(text)][-_TAIL:]
    for at in sorted(set(cuts), reverse=True):
        if answer is not None and (reads(text[at:]) == answer or answer in text[at:]):
            return text[at:]
    return text[text.rfind("\n") + 1 :] if "\n" in text else ""


def _cut_to(text: str, cap: int, count: CountTokens, end: str = "") -> str:
    """The longest beginning of ``text`` that takes at most ``cap`` tokens with the sign that it was cut and with
    ``end``, which stays whole. It ends between words if there is a space near."""
    if count(text) <= cap:
        return text
    text = text.rstrip()
    body = text[: len(text) - len(end)].rstrip() if end else text
    glue = "\n" if end and text[len(body) : len(text) - len(end)].count("\n") else " " if end else ""

    def made(n: int) -> str:
        kept = body[:n]
        if 0 < n < len(body) and not body[n].isspace() and (space := kept.rfind(" ")) > n - 40 and space > 0:
            kept = kept[:space]
        return (kept.rstrip() + CUT).strip() + glue + end

    low, high = 0, len(body)
    while low < high:
        middle = (low + high + 1) // 2
        if count(made(middle)) <= cap:
            low = middle
        else:
            high = middle - 1
    return made(low)


__all__ = ["CUT", "CountTokens", "Reads", "Showing", "Statement", "end_of", "fit", "hidden", "packs", "statements"]
