"""A first recipe: a user's questions, teachers and student, with comments, in a form that `viva doctor` passes."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import yaml

from vivavoce import plugins
from vivavoce.agents.endpoint import http_address
from vivavoce.agents.openai_chat import PRESETS
from vivavoce.config import check_recipe
from vivavoce.errors import RecipeError
from vivavoce.methods.budgets import context_of
from vivavoce.methods.plan import longest_calls

SCHEMA = "recipe.schema.json"
_ANSWER = 1000
"""Tokens of an answer, if every model has room for them."""
_HEARD = 6
"""Answers of that length in the longest prompt of a small committee's debate, and the reply."""
_ROW = 2000
"""Tokens of a training row: the default of sft.max_length."""
_FORMS = (
    "write MODEL@URL, PRESET:MODEL (presets: "
    + ", ".join(PRESETS)
    + "), anthropic:MODEL, scripted:FILE.py:FUNCTION, or "
    "a model folder or Hub id to run here; NAME=… in front names the agent"
)


class First(NamedTuple):
    """A recipe in the making."""

    text: str
    notes: tuple[str, ...]
    """The assumptions, in words."""


def agent(text: str, key_env: str | None = None, taken: Sequence[str] = ()) -> dict[str, Any]:
    """An agent of a recipe, from a few words: ``gpt-4o-mini@https://…``, ``ollama:qwen3``, ``./models/student``.

    ``key_env`` is the environment variable with the key of an endpoint at a URL; None: none if it is on this machine or
    network, else TEACHER_KEY. Raises RecipeError if it is in none of the known forms.
    """
    name, _, rest = text.partition("=") if re.match(r"[\w .-]+=", text) else ("", "", text)
    head, _, tail = rest.partition(":")
    if "@http" in rest:
        model, _, url = rest.partition("@")
        options: dict[str, Any] = {"backend": "openai_chat", "model": model, "base_url": _address(url)}
        options["api_key_env"] = key_env or (None if _local(url) else "TEACHER_KEY")
    elif head in PRESETS and tail:
        model, options = tail, {"backend": "openai_chat", "model": tail, "preset": head}
        options |= {"api_key_env": key_env} if key_env else {}
    elif head == "anthropic" and tail:
        model, options = tail, {"backend": "anthropic_messages", "model": tail}
    elif head == "scripted" and tail:
        model, options = tail.rpartition(":")[2], {"backend": "scripted", "function": tail}
    elif head == "schoolhouse" or "/" in rest or Path(rest).expanduser().is_dir():
        model, options = rest.removeprefix("schoolhouse:"), {"model": rest}
    else:
        raise RecipeError(f"`{text}` names no agent", "viva init", _FORMS)
    if not model:
        raise RecipeError(f"`{text}` names no model", "viva init", _FORMS)
    return {"name": _name(name or model, taken), **options}


def _name(text: str, taken: Sequence[str]) -> str:
    """A short name, unlike those that are ``taken``."""
    base = re.sub(r"[^\w.-]+", "-", text.rstrip("/").rpartition("/")[2]).strip("-.") or "agent"
    name, n = base, 2
    while name in taken:
        name, n = f"{base}-{n}", n + 1
    return name


def _address(url: str) -> str:
    """The address of an endpoint, without what requests add to it, and with the /v1 that nearly all have."""
    parts = http_address(url, "viva init")
    path = re.sub(r"/(chat/)?completions/?$", "", parts.path).rstrip("/")
    return f"{parts.scheme}://{parts.netloc}{path or '/v1'}"


def _local(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_private
    except ValueError:
        return host == "localhost" or "." not in host


def first_recipe(
    task: Mapping[str, Any], teachers: Sequence[str], student: str, method: str, name: str, key_env: str | None = None
) -> First:
    """A commented recipe, checked. Raises RecipeError, naming what is wrong, if it cannot be one."""
    agents: list[dict[str, Any]] = []
    for named in teachers:
        agents.append(agent(named, key_env, [w["name"] for w in agents]))
    learner = agent(student, key_env, [w["name"] for w in agents])
    if learner.get("backend", "hf_local") != "hf_local":
        do = "give a model folder or Hub id to run and train here"
        raise RecipeError(f"`{student}` cannot be trained: its weights are elsewhere", "viva init", do)
    if "=" not in student and "student" not in [w["name"] for w in agents]:
        learner["name"] = "student"
    room, notes = _room(task, agents, learner, method, name)
    text = _recipe_text(_values(task, agents, learner, method, name, room), room)
    check_recipe(yaml.safe_load(text), Path("recipe.yaml"))
    return First(text, tuple(notes))


def _values(
    task: Mapping[str, Any],
    teachers: Sequence[Mapping[str, Any]],
    student: Mapping[str, Any],
    method: str,
    name: str,
    room: TokensLeft,
) -> dict[str, Any]:
    answers = {"max_new_tokens": room.answer}
    return {
        "method": method,
        "name": name,
        "task": dict(task),
        "teachers": [{**one, **answers} for one in teachers],
        "student": {**student, **answers},
        "test": answers,
    }


class TokensLeft(NamedTuple):
    """Tokens that are left for texts, beside the longest question, in the model that reads least."""

    answer: int
    others: int | None
    """Tokens of the student for other agents' texts in a prompt; None: no limit."""
    row: int
    """Prompt and answer of a training row."""


def _room(
    task: Mapping[str, Any], teachers: Sequence[Mapping[str, Any]], student: Mapping[str, Any], method: str, name: str
) -> tuple[TokensLeft, list[str]]:
    """The room for answers, as far as contexts are known here, and what was made smaller for it."""
    recipe = check_recipe(_values(task, teachers, student, method, name, TokensLeft(1, None, 8)), Path("recipe.yaml"))
    longest, notes = longest_calls(recipe), list[str]()
    room = TokensLeft(_ANSWER, None, max(_ROW, longest[recipe.student.name].plain + _ANSWER))
    for spec in recipe.agents:
        context, question_tokens = context_of(spec), longest[spec.name].plain
        if context is None or context >= 2 * question_tokens + _HEARD * _ANSWER:
            continue
        remaining = max(
            0, round(context - 2.2 * question_tokens)
        )  # what debates ask beside the question takes about as much again
        answer = min(room.answer, remaining // 3)
        room = TokensLeft(answer, max(64, min(remaining - answer, room.others or remaining)), min(room.row, context))
        notes.append(f"`{spec.name}` reads {context:,} tokens, so answers have at most {answer:,}")
    if room.answer < 16:
        do = "use a model with a longer context, or leave long questions out"
        raise RecipeError(f"no room is left for an answer: {notes[-1]}", "viva init", do)
    return room, notes


_OUTLINE: dict[str, str] = {
    "debate_reflect": """\
debate:                       # viva keys debate
  max_rounds: 2               # answer rounds, the independent first one included; paper: 4
  word_limit: {words}
  context_tokens: {others}        # of the others' texts, in a prompt; null: no limit
sft: {{epochs: 2, max_length: {length}}}    # fine-tuning on right answers; `lora: null` trains every weight
trees: {{context_budget: {trees}}}   # tokens of the others' texts, in the prompts of trees
dpo: {{epochs: 3, max_length: {length}}}    # then right against wrong, in trees (T-DPO)
""",
    "peer_review": """\
review:                       # viva keys review
  word_limit: {words}
accept: {{answer_check: true}}  # only rationales whose answer is right; viva review sweep shows other rules
two_task: {{epochs: 3, max_length: {length}}}   # paper: 10 epochs
""",
    "debate_opd": """\
debate:                       # viva keys debate
  word_limit: {words}
  context_tokens: {others}        # of the others' texts, in a prompt; null: no limit
opd: {{states_per_step: 8, max_new_tokens: {room}, max_length: {length}}}   # viva keys opd, viva keys opd.objective
""",
}


def _recipe_text(values: Mapping[str, Any], room: TokensLeft) -> str:
    """The recipe as text, with comments."""
    method, task = values["method"], values["task"]
    words, limit = max(20, min(500, room.answer // 2)), "null" if room.others is None else room.others
    backends = dict.fromkeys(one.get("backend", "hf_local") for one in values["teachers"])
    lines = [
        f"# yaml-language-server: $schema={SCHEMA}",
        f"# Written by `viva init`. `viva keys SECTION` explains keys; an editor does too, by {SCHEMA}.",
        "# Next: viva doctor, viva plan, viva prompt, viva run. They take the recipe.yaml of this folder.",
        f"method: {method}",
        f"name: {values['name']}                    # the run goes to runs/{values['name']}",
        "seeds: [0]                    # one student of each arm for each seed; [0, 1, 2] tells luck from gain",
        "",
        f"task:                         # viva keys {task['name']}",
        *(f"  {_yaml({key: value})}" for key, value in task.items()),
        "",
        f"teachers:                     # viva keys teachers, {', '.join(f'viva keys {b}' for b in backends)}",
        *(f"  - {_yaml(one, flow=True)}" for one in values["teachers"]),
        "# To cap money, give each teacher `price: {prompt: 0.15, completion: 0.6}`, of a million tokens, and set",
        "# budget: {run: {money: 5}}",
        f"student: {_yaml(values['student'], flow=True)}",
        "",
        _OUTLINE[method]
        .format(words=words, others=limit, length=room.row, room=room.answer, trees=min(1000, room.others or 1000))
        .rstrip(),
        f"test: {_yaml(values['test'], flow=True)}    # `committee: false` spares the debates of test questions",
    ]
    return "\n".join(lines) + "\n"


def _yaml(value: Mapping[str, Any], flow: bool = False) -> str:
    return yaml.safe_dump(dict(value), default_flow_style=flow, width=1000, sort_keys=False, allow_unicode=True).strip()


def methods() -> list[str]:
    """The methods that a first recipe can have."""
    return [name for name in plugins.names("methods") if name in _OUTLINE]


__all__ = ["SCHEMA", "First", "agent", "first_recipe", "methods"]
