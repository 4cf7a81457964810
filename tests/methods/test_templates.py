"""A whole run teaches what it serves: the template's arguments and the day reach every prompt and every row."""

from __future__ import annotations

import asyncio
import shutil
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from tests.families import FOLDER
from transformers import AutoTokenizer

from vivavoce import plugins
from vivavoce.agents import chat_template, hf_local
from vivavoce.agents.chat_template import DAY
from vivavoce.config import check_recipe
from vivavoce.methods.day import on_day
from vivavoce.run import open_run
from vivavoce.train import supervised, trees

SWITCHED = "{{- '<|system|>' + strftime_now('%Y-%m-%d') -}}{%- if terse -%}{{- 'terse' -}}{%- endif -%}"


class Later(date):
    """A clock that has gone on."""

    @classmethod
    def today(cls) -> date:
        return date(2031, 1, 1)


@pytest.fixture
def switched(student: Path, tmp_path: Path) -> Path:
    """A student whose template tells the day and knows a switch."""
    folder = shutil.copytree(student, tmp_path / "switched")
    words = AutoTokenizer.from_pretrained(folder)
    words.chat_template = SWITCHED + words.chat_template
    words.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("method", ["debate_reflect", "peer_review"])
def test_rows_begin_as_the_prompts_that_the_student_is_served(
    recipe: dict[str, Any], switched: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    monkeypatch.setattr(chat_template, "date", Later)
    recipe["student"] |= {"model": str(switched), "chat_template_kwargs": {"terse": True}}
    recipe |= {"method": method, "seeds": [0]}
    if method == "peer_review":
        for key in ("debate", "sft", "attempts", "trees"):
            del recipe[key]
        recipe["student"]["samples"] = 1
        recipe["review"] = {
            "prompts": "schoolhouse",
            "gold_shown": False,
            "classes": ["wrong", "no_answer", "truncated"],
        }
        recipe["two_task"] = {"max_steps": 2, "lora": None, "max_length": 400, "rows_per_step": 4}
        recipe["arms"] = ["unreviewed"]
    served, taught = set[tuple[int, ...]](), list[tuple[int, ...]]()
    render, score = hf_local.HFLocal._render, supervised.score_rows

    def rendered(self: Any, waiting: Any, decoder: Any) -> Any:
        failure = render(self, waiting, decoder)
        served.add(tuple(waiting.prompt.ids))
        return failure

    def scored(*given: Any, **how: Any) -> Any:
        rows = score(*given, **how)
        taught.extend(row.ids[: row.start] for row in rows)
        return rows

    monkeypatch.setattr(hf_local.HFLocal, "_render", rendered)
    monkeypatch.setattr(supervised, "score_rows", scored)
    monkeypatch.setattr(trees, "score_rows", scored)
    checked = check_recipe(recipe, tmp_path / "recipe.yaml")
    with open_run(tmp_path / "run", checked) as run:
        asyncio.run(plugins.load("methods", method, "method").distill(checked, run))
        begun = run.day
    words = AutoTokenizer.from_pretrained(switched)
    assert taught
    assert all(words.decode(list(ids)).startswith(f"<|system|>{begun}terse") for ids in {*served, *taught})
    assert served & set(taught), "training questions are asked too, by the plain prompt"


def test_only_local_models_whose_template_asks_for_the_day_are_told(
    recipe: dict[str, Any], student: Path, switched: Path, tmp_path: Path
) -> None:
    local = {"backend": "hf_local", "dtype": "float32"}
    recipe["teachers"] += [
        {"name": "dan", "model": str(switched), **local},
        {"name": "eve", "model": str(switched), "chat_template_kwargs": {DAY: "2020-02-29"}, **local},
        {"name": "fay", "model": str(student), **local},
    ]
    checked = on_day(check_recipe(recipe, tmp_path / "recipe.yaml"), "2026-07-31")
    given = {spec.name: spec.options.get("chat_template_kwargs") for spec in checked.agents}
    assert given == {
        **dict.fromkeys(("ada", "bob", "cyd", "fay", "student")),
        "dan": {DAY: "2026-07-31"},
        "eve": {DAY: "2020-02-29"},
    }


def test_a_server_is_told_the_day_if_its_template_lies_here_and_takes_one(
    recipe: dict[str, Any], switched: Path, student: Path, tmp_path: Path
) -> None:
    llama = tmp_path / "llama"
    shutil.copytree(student, llama)
    (llama / "chat_template.jinja").write_bytes((FOLDER / "llama3_2.jinja").read_bytes())
    served = {"backend": "vllm", "base_url": "http://127.0.0.1:1/v1"}
    recipe["teachers"] += [
        {"name": "dan", "model": "meta/llama", "tokenizer": str(llama), **served},
        {"name": "eve", "model": str(llama), "chat_template_kwargs": {"date_string": "1 May 2020"}, **served},
        {"name": "fay", "model": str(switched), **served},
        {"name": "gus", "model": "nobody/has-it", **served},
    ]
    checked = on_day(check_recipe(recipe, tmp_path / "recipe.yaml"), "2026-07-31")
    given = {spec.name: spec.options.get("chat_template_kwargs") for spec in checked.agents}
    assert given["dan"] == {"date_string": "31 Jul 2026"}
    assert given["eve"] == {"date_string": "1 May 2020"}
    assert given["fay"] is given["gus"] is None, "no argument of theirs says the day"
