"""What a run will ask for, counted without asking: calls and tokens by stage and agent."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from vivavoce.config import AgentSpec, Recipe
from vivavoce.debate.plan import Planned, calls_per_question
from vivavoce.debate.prompting import prompt_set
from vivavoce.debate.rules import DebateRules
from vivavoce.tasks import open_task

_SAMPLE = 50


def plan_debate(recipe: Recipe, rules: DebateRules, attempts: int, students: int) -> list[Planned]:
    """Calls of a debate on the training questions, of the student's later attempts, and of all tests.

    ``students`` is how many trained models sit the test. Prompt tokens are those of the question as round 0 asks it
    (mean of the first 50 questions), and for later rounds and notes of the most that the others can say besides;
    completion tokens are ``max_new_tokens`` each. So tokens are upper bounds, and calls are a range.
    """
    task = open_task(recipe.task.name, recipe.task.options)
    train, test = task.problems("train"), task.problems("test")
    count = _counter(recipe)
    values = {
        "answer_format": task.answer_format,
        "word_limit": rules.word_limit,
        "ask_confidence": rules.ask_confidence,
    }
    shown = [prompt_set(rules.prompts).render("answer", question=p.question, **values) for p in train[:_SAMPLE]]
    plain = sum(count(m["content"]) for ms in shown for m in ms) // max(1, len(shown))
    heard = sum(t.max_new_tokens for t in recipe.teachers)
    planned = []

    def add(stage: str, spec: AgentSpec, least: int, most: int, first: int, new_tokens: int) -> None:
        if most:
            later = max(0, most - first)
            planned.append(Planned(stage, spec.name, least, most, most * plain + later * heard, most * new_tokens))

    for spec in recipe.teachers:
        least, most = calls_per_question(rules, len(recipe.teachers), "teacher", spec.samples)
        add("debate:train", spec, least * len(train), most * len(train), spec.samples * len(train), spec.max_new_tokens)
    student = recipe.student
    least, most = calls_per_question(rules, len(recipe.teachers), "student", student.samples)
    add(
        "debate:train",
        student,
        least * len(train),
        most * len(train),
        student.samples * len(train),
        student.max_new_tokens,
    )
    tries = attempts * len(train) * len(recipe.seeds)
    add("attempts", student, tries, tries, tries, student.max_new_tokens)
    add("test", student, students * len(test), students * len(test), students * len(test), recipe.test.max_new_tokens)
    if recipe.test.committee:
        for spec in recipe.teachers:
            calls = recipe.test.committee_rounds * len(test)
            add("debate:test", spec, calls, calls, len(test), spec.max_new_tokens)
    return planned


def _counter(recipe: Recipe) -> Callable[[str], int]:
    """Tokens of a text by the student's own tokenizer where it lies on disk, else four characters a token."""
    model = str(recipe.student.options.get("model", ""))
    if model.startswith("schoolhouse:"):
        from vivavoce.schoolhouse import weights

        model = str(weights(model.removeprefix("schoolhouse:")))
    file = Path(model) / "tokenizer.json"
    try:
        from tokenizers import Tokenizer
    except ImportError:
        return lambda text: len(text) // 4
    if not file.is_file() or "model" not in json.loads(file.read_text("utf-8")):
        return lambda text: len(text) // 4
    tokenizer = Tokenizer.from_file(str(file))
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids)
