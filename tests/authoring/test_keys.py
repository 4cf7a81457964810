"""The keys of recipes as they are explained: all of them, truly, and in step with the models that check recipes."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from pydantic import BaseModel, ConfigDict, Field
from tests.command import viva

from vivavoce import plugins
from vivavoce.authoring.keys import description, find, keys, sections
from vivavoce.authoring.listing import entries_of, header_of
from vivavoce.authoring.page import page, section_text
from vivavoce.authoring.schema import recipe_schema, schema_text
from vivavoce.config import check_recipe
from vivavoce.errors import RecipeError
from vivavoce.finding import recipes

ROOT = Path(__file__).parent.parent.parent


def test_every_key_of_every_section_has_a_description() -> None:
    bare = {f"{s.title}: {key.name}" for s in sections() for key in keys(s.model) if len(key.description) < 4}
    assert not bare, "write Field(description=...), or a docstring below it"


def test_the_pages_are_in_step_with_the_code() -> None:
    made = runpy.run_path(str(ROOT / "docs" / "make_pages.py"))
    do = "run make docs"
    assert (ROOT / "docs" / "recipe.md").read_text("utf-8") == page(), do
    assert (ROOT / "recipes" / "recipe.schema.json").read_text("utf-8") == schema_text(), do
    assert (ROOT / "recipes" / "README.md").read_text("utf-8") == made["table_of_recipes"](), do


def test_every_command_has_its_help_on_the_page_of_commands() -> None:
    made = runpy.run_path(str(ROOT / "docs" / "make_pages.py"))
    shown = (ROOT / "docs" / "cli.md").read_text("utf-8")
    assert not [c for c in made["commands"]() if f"\n## viva {c}\n" not in shown], "run make docs"


def test_the_page_has_every_key() -> None:
    shown = page()
    missing = {key.name for s in sections() for key in keys(s.model) if f"| `{key.name}` |" not in shown}
    assert not missing


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ("dpo", ["beta: number > 0, default 0.1", "trees_per_step", "debate_reflect"]),
        ("dpo.beta", ["beta: number > 0, default 0.1"]),
        ("beta", ["opd.objective of", "dpo of", "number >= 0, <= 1, default 0.5"]),
        ("sft.lora", ["alpha"]),
        ("teachers", ["temperature: number >= 0, default 0.3"]),
        ("teachers.0.price", ["completion: number >= 0, required"]),
        ("hf_local", ["model: text (not empty), required"]),
        ("jsonl", ["grader: number | choice | yes_no | exact | text | math", "required"]),
        ("debate_reflect", ["method debate_reflect", "protocol debate_reflect", "max_rounds"]),
        ("accept", ["answer_check: true or false, default true"]),  # the recipe's default, not the model's
        ("own_arms", ["states: student | gold"]),
    ],
)
def test_a_section_or_key_is_found_under_the_name_that_a_recipe_gives_it(asked: str, says: list[str]) -> None:
    shown = "\n".join(section_text(*one) for one in find(asked))
    assert all(one in shown for one in says), shown


def test_an_unknown_key_is_told_with_the_nearest_one() -> None:
    with pytest.raises(RecipeError, match="did you mean `temperature`"):
        find("temprature")


def test_keys_of_a_file_of_the_users_are_explained_too(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from pydantic import BaseModel\n"
        "class Options(BaseModel):\n"
        "    '''How many.'''\n"
        "    legs: int = 8\n"
        "    '''Legs of one.'''\n"
        "def task(options): ...\n",
        "utf-8",
    )
    ((section, keys_of_section),) = find(str(tmp_path / "mine.py"))
    assert [(key.name, key.kind, key.default, key.description) for key in keys_of_section] == [
        ("legs", "whole number", "8", "Legs of one.")
    ]
    assert "How many." in section_text(section, keys_of_section)


def test_a_key_that_says_nothing_anew_means_what_it_meant() -> None:
    class Wide(BaseModel):
        model_config = ConfigDict(extra="forbid")
        size: int = Field(default=1, description="in ``mm``; None: any")

    class Narrow(Wide):
        size: int = 2

    assert description(Narrow, "size") == "in `mm`; null: any"


# --- the schema


def validator() -> jsonschema.Draft7Validator:
    schema = recipe_schema()
    jsonschema.Draft7Validator.check_schema(schema)
    return jsonschema.Draft7Validator(schema)


@pytest.fixture(scope="module")
def checks() -> jsonschema.Draft7Validator:
    return validator()


def shipped() -> dict[str, Any]:
    return {name: yaml.safe_load(path.read_text("utf-8")) for name, path in recipes().items()}


def test_every_shipped_recipe_fits_the_schema(checks: jsonschema.Draft7Validator) -> None:
    for name, values in shipped().items():
        assert not list(checks.iter_errors(values)), name


def test_what_the_schema_refuses_a_run_refuses_too(checks: jsonschema.Draft7Validator) -> None:
    wrong = [
        ("demo", ["sft", "lerning_rate"], 1),
        ("demo", ["dpo", "beta"], -1),
        ("demo", ["teachers", 0, "temprature"], 0.3),
        ("demo", ["teachers", 0, "dtype"], "float8"),
        ("demo", ["student", "max_new_tokens"], 0),
        ("demo", ["task", "trian"], 3),
        ("demo", ["debate", "stop"], "never"),
        ("demo", ["debate", "moderator"], "ada"),  # a key of another protocol
        ("demo", ["opd"], {}),  # a section of another method
        ("debate_opd", ["opd", "objective", "divergence"], "kl"),
        ("opad", ["user"], {"name": "x", "temprature": 1}),
    ]
    for name, place, value in wrong:
        values = shipped()[f"schoolhouse/{name}"]
        at = values
        for step in place[:-1]:
            at = at.setdefault(step, {}) if isinstance(at, dict) else at[step]
        at[place[-1]] = value
        assert list(checks.iter_errors(values)), place
        with pytest.raises(RecipeError):
            check_recipe(values, Path("recipe.yaml"))


def test_a_protocol_brings_its_keys_into_the_schema(checks: jsonschema.Draft7Validator) -> None:
    values = shipped()["schoolhouse/demo"]
    values["debate"] = {"protocol": "moderated", "moderator": "ada", "prompts": "general"}
    assert not list(checks.iter_errors(values))
    values["debate"]["stop"] = "consensus"
    assert list(checks.iter_errors(values))


def test_files_of_the_users_own_are_left_to_the_doctor(checks: jsonschema.Draft7Validator) -> None:
    values = shipped()["schoolhouse/demo"]
    values["debate"] = {"protocol": "debates/mine.py", "anything": 1}
    values["task"] = {"name": "mine.py", "path": "x"}
    values["teachers"][0] = {"name": "ada", "backend": "mine.py", "address": "x"}
    assert not list(checks.iter_errors(values))
    assert not list(checks.iter_errors({"method": "mine.py", "whatever": 1}))


def test_every_recipe_names_the_schema_that_lies_above_it() -> None:
    for name, path in recipes().items():
        first = path.read_text("utf-8").splitlines()[0]
        named = path.parent / first.removeprefix("# yaml-language-server: $schema=")
        assert named.resolve() == ROOT / "recipes" / "recipe.schema.json", name


# --- lists


def test_every_list_tells_what_each_thing_is() -> None:
    for room in ("tasks", "agents", "methods", "protocols", "recipes", "prompts"):
        entries = entries_of(room)
        assert entries
        assert all(len(one.about) > 10 for one in entries), room
    assert {one.name for one in entries_of("tasks")} == set(plugins.names("tasks"))


def test_every_recipe_tells_what_it_needs_and_how_long_it_takes() -> None:
    assert all(all(header_of(path)) for path in recipes().values())


def test_the_commands_work_from_anywhere(tmp_path: Path) -> None:
    assert "default 0.1" in viva("keys", "dpo.beta", cwd=tmp_path).stdout
    assert "opd.objective" in viva("keys", cwd=tmp_path).stdout
    assert json.loads(viva("keys", "--schema", cwd=tmp_path).stdout)["$defs"]
    listing = viva("list", "recipes", cwd=tmp_path).stdout
    assert "takes some five minutes" in listing


# --- prompts before paying


def test_prompts_are_shown_as_a_run_would_send_them(tmp_path: Path) -> None:
    done = viva("prompt", "demo", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "=== ada, round 0: answer\n--- system\nsolve\n--- user\na=4; b=a-5; c=b+4; c?" in done.stdout
    assert "=== ada, round 0: critique" in done.stdout
    assert "me: ⟨answer of ada⟩" in done.stdout
    assert "=== student, in tests and training rows" in done.stdout
    assert not list(tmp_path.iterdir()), "nothing is written, nobody is asked"
    alone = json.loads(viva("prompt", "demo", "--agent", "bob", "--question", "3", "--json", cwd=tmp_path).stdout)
    assert {one["agent"] for one in alone} == {"bob"}
    assert viva("prompt", "demo", "--question", "none", cwd=tmp_path).returncode == 2


@pytest.mark.parametrize(
    "name", ["schoolhouse/chain", "schoolhouse/opad", "schoolhouse/peer_review", "schoolhouse/code_opd"]
)
def test_every_method_shows_its_prompts(tmp_path: Path, name: str) -> None:
    done = viva("prompt", name, "--json", "--set", "task.train=5", "--set", "task.test=5", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert {one["agent"] for one in json.loads(done.stdout)} >= {"student"}
