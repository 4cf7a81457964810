"""What a reader is shown of the round before: the shared information of the debate.

For every agent that answered: its answer, its reflection and the critiques it received. The same function serves the
debate itself and the prompts of preference trees, so that what was trained is what was said.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace

from vivavoce.debate.prompting import Statement
from vivavoce.debate.rules import DebateRules
from vivavoce.graph import Graph
from vivavoce.records import Node, seed_of

Counter = Callable[[str], int]
"""Tokens of a text."""

CUT = " […]"


@dataclass(frozen=True)
class Context:
    """The statements of one round as one reader sees them, and the nodes that they show."""

    statements: tuple[Statement, ...]
    parents: tuple[str, ...]
    saw_gold: bool
    shortened: int = 0
    """How many blocks were cut to fit a budget."""


def shared_information(
    graph: Graph,
    round: int,
    reader: str,
    speakers: tuple[str, ...],
    rules: DebateRules,
    count: Counter | None = None,
    budget: int | None = None,
    *,
    reflections: bool = True,
    feedback: bool = True,
) -> Context:
    """What ``reader`` sees of ``round``: the statements of ``speakers``, shuffled by ``rules.order_seed``.

    Where the rules let all rounds be read, it is every round up to ``round``, under names and in an order that stay, so
    that the text of one round only adds to that of the round before. An agent whose call failed is absent. With a
    ``budget`` in tokens (needs ``count``), blocks are shortened to fit by :func:`fit`. ``reflections`` and ``feedback``
    leave those parts out (the paper's ablations).
    """
    whole = rules.reads == "all_rounds"
    said = graph.stated(0 if whole else round, speakers)
    by_reader = (reader,) if rules.shuffle == "per_agent" else ()
    rng = random.Random(seed_of(rules.order_seed, graph.problem.id, 0 if whole else round, *by_reader))
    rng.shuffle(said)
    others = [n.agent for n in said if n.agent != reader]
    numbers = dict(zip(rng.sample(others, len(others)), range(1, len(others) + 1), strict=True))
    names = {n.agent: f"Agent {i}" if rules.anonymous else n.agent for i, n in enumerate(said, 1)}
    if whole:
        place = {n.agent: i for i, n in enumerate(said)}
        rounds = [graph.stated(r, speakers) for r in range(round + 1)]
        said = [n for turns in rounds for n in sorted(turns, key=lambda n: place.get(n.agent, len(place)))]
    said = [n for n in said if _heard(n.agent, reader, speakers, rules)]
    shown: list[Node] = []
    statements = []
    for n in said:
        reflection, critiques = graph.notes(n)
        reflection = reflection if reflections else None
        critiques = critiques if feedback else []
        shown += [n, *([reflection] if reflection else []), *critiques]
        statements.append(
            Statement(
                names.get(n.agent, "Agent"),
                numbers.get(n.agent, 0),
                n.text,
                _masked(reflection.text, graph, rules) if reflection else None,
                tuple((names.get(c.agent, "Agent"), _masked(c.text, graph, rules)) for c in critiques),
                n.round,
            )
        )
    shortened = 0
    if budget is not None:
        assert count is not None, "a budget needs a token counter"
        statements, shortened = fit(statements, budget, count)
    return Context(tuple(statements), tuple(n.id for n in shown), any(n.saw_gold for n in shown), shortened)


def _heard(speaker: str, reader: str, speakers: tuple[str, ...], rules: DebateRules) -> bool:
    """Whether ``reader`` reads ``speaker``. Who does not sit at the table reads everybody."""
    if rules.topology == "all" or speaker == reader or reader not in speakers:
        return True
    if rules.topology == "star":
        return speakers[0] in (reader, speaker)
    return speakers[(speakers.index(reader) + 1) % len(speakers)] == speaker


def _masked(text: str, graph: Graph, rules: DebateRules) -> str:
    gold = graph.problem.gold
    return text.replace(gold, "[hidden]") if rules.hide_gold_in_context and gold else text


def fit(statements: list[Statement], budget: int, count: Counter) -> tuple[list[Statement], int]:
    """Shorten statements until together they take at most ``budget`` tokens; how many were cut.

    The longest block is cut first, to the length of the next longest or to its fair share; inside a block the
    answer's reasoning goes first, then the notes (arXiv:2506.03541's packing, without its splitting of one context
    over several rows, which gives long debates more weight). A block never vanishes, and the last line of an answer,
    which holds the final answer, stays.
    """
    sizes = [_size(s, count) for s in statements]
    if sum(sizes) <= budget:
        return statements, 0
    cap = _level(sizes, budget)
    fitted = [s if n <= cap else _shorten(s, cap, count) for s, n in zip(statements, sizes, strict=True)]
    return fitted, sum(n > cap for n in sizes)


def _level(sizes: list[int], budget: int) -> int:
    """The largest cap for which the capped sizes sum to at most ``budget``."""
    left, open_ = budget, sorted(sizes)
    while open_ and open_[0] * len(open_) <= left:
        left -= open_.pop(0)
    return left // max(1, len(open_))


def _size(s: Statement, count: Counter) -> int:
    return sum(count(t) for t in (s.text, s.reflection or "", *(t for _, t in s.critiques)))


def _shorten(s: Statement, cap: int, count: Counter) -> Statement:
    notes = _size(s, count) - count(s.text)
    text = _cut_answer(s.text, max(cap - notes, cap // 2), count)
    left = max(0, cap - count(text))
    parts = [s.reflection] if s.reflection else []
    parts += [t for _, t in s.critiques]
    if sum(count(t) for t in parts) > left:
        share = _level([count(t) for t in parts], left)
        parts = [t if count(t) <= share else _cut(t, share, count) for t in parts]
    reflection = parts.pop(0) if s.reflection else None
    return replace(
        s,
        text=text,
        reflection=reflection,
        critiques=tuple((name, t) for (name, _), t in zip(s.critiques, parts, strict=True)),
    )


def _cut_answer(text: str, cap: int, count: Counter) -> str:
    body, newline, last = text.rstrip().rpartition("\n")
    if not newline or count(last) >= cap:
        return _cut(text, cap, count)
    return _cut(body, cap - count(last) - 1, count) + "\n" + last


def _cut(text: str, cap: int, count: Counter) -> str:
    """The longest beginning, in whole words, that takes at most ``cap`` tokens with the sign that it was cut."""
    if count(text) <= cap:
        return text
    words = text.split(" ")
    low, high = 0, len(words)
    while low < high:
        middle = (low + high + 1) // 2
        if count(" ".join(words[:middle]) + CUT) <= cap:
            low = middle
        else:
            high = middle - 1
    return (" ".join(words[:low]) + CUT).strip()


def packs(context: Context, budget: int, count: Counter) -> list[Context]:
    """The context in several parts of at most ``budget`` tokens, as in the authors' code.

    Blocks in order of length are packed greedily; a block alone over the budget is shortened to it. The caller gives
    each part the weight 1/n, so that a long debate does not count more (authors' code: weight 1 each).
    """
    parts: list[list[Statement]] = [[]]
    shortened = used = 0
    for s in sorted(context.statements, key=lambda s: _size(s, count)):
        (s,), cut = fit([s], budget, count)
        shortened += cut
        if parts[-1] and used + _size(s, count) > budget:
            parts.append([])
            used = 0
        parts[-1].append(s)
        used += _size(s, count)
    return [replace(context, statements=tuple(p), shortened=shortened) for p in parts]
