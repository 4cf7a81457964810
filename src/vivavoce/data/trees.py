"""Preference trees: under one context, ways to go on that were right and ways that were wrong.

``branch: answer`` is the published tree: root (instruction, question, shared information), children the right and
wrong answers of one round. ``branch: step`` is our own extension: answers to one question are merged step by step,
and a tree stands wherever right and wrong ones part. Whole answers share most of their tokens, so that a whole-answer
pair mostly pushes shared steps up and down at once; a step pair is about the one step that differs.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field, replace

from vivavoce.committee.reading import packs, statements
from vivavoce.committee.wording import Wording
from vivavoce.data.rules import TreeRules
from vivavoce.graph import Graph
from vivavoce.records import Completion, Message, Node, Prompt, Tree, digest, seed_of


@dataclass(frozen=True)
class Grower:
    """The rules and texts with which trees are grown. ``student`` is the agent that reads the context of a tree."""

    rules: TreeRules
    wording: Wording
    student: str
    own: Collection[str]
    """Names under which the student's own answers stand in the graphs (its later attempts have another name)."""
    seed: int = 0


def preference_trees(graphs: Iterable[Graph], grower: Grower) -> Iterator[Tree]:
    """The trees of every graph, in order. Every completion names the node that said it."""
    for graph in graphs:
        trees = list(_step_trees(graph, grower) if grower.rules.branch == "step" else _answer_trees(graph, grower))
        for tree in trees:
            share = len(trees) if grower.rules.weight == "per_question" else 1
            yield replace(tree, weight=tree.weight / share)


def pairs(tree: Tree) -> Iterator[tuple[Completion, Completion]]:
    """Every (chosen, rejected) of the tree: k right and m wrong give k*m."""
    return ((c, r) for c in tree.chosen for r in tree.rejected)


# --- trees that branch at the answer, as published


def _answer_trees(graph: Graph, g: Grower) -> Iterator[Tree]:
    for r in range(graph.rounds):
        if g.rules.rounds is not None and r not in g.rules.rounds:
            continue
        right, wrong = _sides(graph, r, g)
        chosen, rejected = _cap_pairs(_completions(right, g), _completions(wrong, g), graph, r, g)
        if not chosen or not rejected:
            continue
        contexts = list(_prompts(graph, r, g))
        for i, prompt in enumerate(contexts):
            yield Tree(
                _tree_id(graph, r, i, chosen, rejected),
                graph.problem.id,
                tuple(prompt),
                chosen,
                rejected,
                round=r,
                weight=1 / len(contexts),
            )


def _sides(graph: Graph, round: int, g: Grower) -> tuple[list[Node], list[Node]]:
    """Right and wrong answers of a round, as the pairing rule admits them. Ungradable ones are on no side."""
    answers = graph.answers(round)
    right = [n for n in answers if n.correct and n.answer is not None]
    wrong = [
        n
        for n in answers
        if n.correct is False
        and n.status not in ("empty", "truncated")
        and (n.answer is not None or not g.rules.rejected_must_parse)
    ]
    if g.rules.pairing == "student_rejected_only":
        wrong = [n for n in wrong if n.agent in g.own]
    elif g.rules.pairing == "transition_only":
        was_right = {n.agent: n.correct for n in graph.stated(round - 1)} if round else {}
        right = [n for n in right if was_right.get(n.agent) is False]
        wrong = [n for n in wrong if n.agent in was_right]
    return right, wrong


def _completions(nodes: Iterable[Node], g: Grower) -> tuple[Completion, ...]:
    first: dict[str, str] = {}
    for n in nodes:
        first.setdefault(g.wording.lesson_of(n.text), n.id)
    return tuple(Completion(text, source) for text, source in first.items())


def _cap_pairs(
    chosen: tuple[Completion, ...], rejected: tuple[Completion, ...], graph: Graph, round: int, g: Grower
) -> tuple[tuple[Completion, ...], tuple[Completion, ...]]:
    """At most ``max_pairs`` pairs: drop completions at random from the longer side until they fit."""
    most, rng = g.rules.max_pairs, random.Random(seed_of(g.seed, graph.problem.id, round, "pairs"))
    sides = [list(chosen), list(rejected)]
    while most is not None and len(sides[0]) * len(sides[1]) > most:
        longer = sides[0] if len(sides[0]) >= len(sides[1]) else sides[1]
        longer.pop(rng.randrange(len(longer)))
    return tuple(sides[0]), tuple(sides[1])


def _prompts(graph: Graph, round: int, g: Grower) -> Iterator[list[Message]]:
    """The context of a round as the student reads it: one prompt, or one for each pack.

    It is the prompt that the student was asked with. A new one is made, from what that prompt offered, only if the
    rules of the trees want another one: without notes, within a budget, without a word about confidence; or if the
    student did not speak in this round. Question and instruction are always whole.
    """
    prompt = None if round == 0 or g.rules.context == "none" else _prompt_of_round(graph, round, g.student)
    if prompt is None:
        yield g.wording.plain(graph.problem)
        return
    reads, options = _offered_nodes(graph, prompt, g.rules), g.wording.options
    shown = statements(graph.problem, reads, g.student, options.showing)
    if g.rules.context == "packed":
        assert g.wording.count is not None, "packs need a token counter"
        parts = packs(shown, g.rules.context_budget, g.wording.count, g.wording.reads(graph.problem))
    else:
        shown, cut = g.wording.fit(graph.problem, shown, g.rules.context_budget)
        own = next((n for n in graph.answers(round, [g.student]) if n.prompt == prompt.id), None)
        whole = len(reads) == len(prompt.reads) and not cut and options.context_budget is None
        if own is not None and whole and not options.wants_confidence:
            yield prompt.chat
            return
        parts = [shown]
    for part in parts:
        yield g.wording.make(prompt.template, graph.problem, g.student, reads, shown=part, ask_confidence=False).chat


def _prompt_of_round(graph: Graph, round: int, student: str) -> Prompt | None:
    """The prompt by which the student was asked in a round or, if it was not, one by which another agent was."""
    answers = [n for n in graph.nodes if n.kind == "answer" and n.round == round and n.call is not None]
    answers = answers or [n for n in graph.nodes if n.kind == "answer" and n.round == round]
    return graph.prompt_of(next((n for n in answers if n.agent == student), answers[0])) if answers else None


def _offered_nodes(graph: Graph, prompt: Prompt, rules: TreeRules) -> list[Node]:
    """What a prompt offered, less the kinds of notes that the trees leave out."""
    left_out = {kind for kind, kept in (("reflection", rules.reflections), ("critique", rules.feedback)) if not kept}
    return [n for n in (graph.by_id[i] for i in prompt.reads) if n.kind not in left_out]


def _tree_id(graph: Graph, *content: object) -> str:
    flat = [[c.text for c in x] if isinstance(x, tuple) else x for x in content]
    return digest([graph.problem.id, *flat])[:16]


# --- trees that branch where right and wrong steps part (our extension)


@dataclass
class _Step:
    """A step of the merged answers: what follows it, and the answers that go through it."""

    right: list[Node] = field(default_factory=list)
    wrong: list[Node] = field(default_factory=list)
    bad: list[Node] = field(default_factory=list)
    """Answers whose first wrong step, by the task's checker, is this one."""
    rest: dict[str, str] = field(default_factory=dict)
    """Node id to the text from this step on."""
    next: defaultdict[str, _Step] = field(default_factory=lambda: defaultdict(_Step))


def _step_trees(graph: Graph, g: Grower) -> Iterator[Tree]:
    root = _Step()
    checked = g.rules.checked
    for n in graph.answers():
        if n.correct is None or n.answer is None or (g.rules.rounds is not None and n.round not in g.rules.rounds):
            continue
        text = g.wording.lesson_of(n.text)
        try:
            first_wrong = g.wording.task.first_wrong_step(graph.problem, text) if checked else None
        except NotImplementedError:
            checked, first_wrong = False, None
        if checked and first_wrong is None and not n.correct:
            continue  # every step right and the end wrong: the checker cannot say where it went astray
        at, steps = root, g.wording.task.steps(text)
        for i, step in enumerate(steps):
            at = at.next[step]
            at.rest[n.id] = "".join(steps[i:])
            if checked and i == first_wrong:
                at.bad.append(n)
                break  # what follows a wrong step says nothing
            (at.right if checked or n.correct else at.wrong).append(n)
    prompt = tuple(g.wording.plain(graph.problem))
    yield from _branchings(root, "", prompt, graph, g)


def _branchings(at: _Step, prefix: str, prompt: tuple[Message, ...], graph: Graph, g: Grower) -> Iterator[Tree]:
    """Depth first: a tree here if right and wrong part here, then wherever right answers go on.

    A step is right if the checker passed it. Without a checker it is right if every answer through it ends right, and
    wrong if every one ends wrong. A step through which both go is neither here: they part further down.
    """
    chosen, rejected = [], []
    for step, child in at.next.items():
        wrong = child.bad or (child.wrong if not child.right else [])
        if g.rules.pairing == "student_rejected_only":
            wrong = [n for n in wrong if n.agent in g.own]
        if child.right and not child.wrong and not child.bad:
            chosen.append(_completion(step, child, child.right[0], g))
        elif wrong:
            rejected.append(_completion(step, child, wrong[0], g))
    kept = _cap_pairs(tuple(chosen), tuple(rejected), graph, len(prefix), g)
    if kept[0] and kept[1]:
        yield Tree(
            _tree_id(graph, prefix, *kept),
            graph.problem.id,
            prompt,
            *kept,
            prefix=prefix,
            complete=g.rules.span == "rest",
        )
    for step, child in at.next.items():
        if child.right:
            yield from _branchings(child, prefix + step, prompt, graph, g)


def _completion(step: str, child: _Step, source: Node, g: Grower) -> Completion:
    return Completion(step if g.rules.span == "step" else child.rest[source.id], source.id)
