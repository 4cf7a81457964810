"""The prompts of a recipe as its agents will read them, before anything is paid."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

from vivavoce.config import Recipe
from vivavoce.methods.plan import sketch_question
from vivavoce.records import GOLD, Message, Node, Prompt


@dataclass(frozen=True, slots=True)
class Shown:
    """One prompt of a debate."""

    part: str
    """The stage of a chain; else empty."""
    agent: str
    template: str
    round: int
    messages: tuple[Message, ...]
    """The messages; texts that others will have written stand as ``⟨answer of ada⟩``."""


def prompts(recipe: Recipe, question: str = "", agent: str = "", split: str = "train") -> Iterator[Shown]:
    """The prompts of each agent about one question; of prompts that differ only in their agent, the first.

    ``agent`` alone, if it is given. The last one is that of tests and training rows. Raises DataError if there is no
    such question.
    """
    for name, part in (recipe.parts or {"": recipe}).items():
        graph, plain = sketch_question(part, question, split)
        nodes = {node.id: node for node in graph.nodes}
        seen = set[str]()
        for node in graph.nodes:
            if node.prompt is None or (agent and node.agent != agent):
                continue
            prompt = graph.prompt_of(node)
            messages = tuple(_write_messages(prompt, nodes))
            look = json.dumps([prompt.template, messages])
            if look not in seen:
                seen.add(look)
                yield Shown(name, node.agent, prompt.template, node.round, messages)
        if not agent or agent == part.student.name:
            yield Shown(name, part.student.name, "test", 0, tuple(plain))


def _write_messages(prompt: Prompt, nodes: dict[str, Node]) -> Iterator[Message]:
    """The messages of a prompt, with a name in place of what will be said."""
    for role, parts in prompt.messages:
        content = "".join(p if isinstance(p, str) else _stands_for(p.node, nodes) for p in parts)
        yield {"role": role, "content": content}


def _stands_for(node: str, nodes: dict[str, Node]) -> str:
    if node == GOLD:
        return "⟨the right answer⟩"
    return f"⟨{nodes[node].kind} of {nodes[node].agent}⟩" if node in nodes else "⟨what was said⟩"


def prompt_lines(shown: Iterator[Shown]) -> Iterator[str]:
    """Prompts as text for a terminal."""
    for one in shown:
        if one.template == "test":
            head = f"{one.agent}, in tests and training rows"
        else:
            head = f"{one.agent}, round {one.round}: {one.template}"
        yield f"=== {one.part + ', ' if one.part else ''}{head}"
        for message in one.messages:
            yield f"--- {message['role']}\n{message['content']}"
        yield ""


__all__ = ["Shown", "prompt_lines", "prompts"]
