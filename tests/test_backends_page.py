"""docs/backends.md: every block is a recipe that loads, and no backend or preset is missing."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from vivavoce import plugins
from vivavoce.agents import open_agent, weights
from vivavoce.agents.openai_chat import Preset
from vivavoce.agents.provider_batches import BatchOptions
from vivavoce.config import AgentSpec, check_recipe

PAGE = (Path(__file__).parent.parent / "docs" / "backends.md").read_text("utf-8")
BLOCKS: list[dict[str, Any]] = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)]
REST: dict[str, Any] = {
    "method": "debate_reflect",
    "task": {"name": "schoolhouse", "train": 4, "test": 4},
    "student": {"name": "student", "model": "schoolhouse:stu"},
}


def agents() -> list[AgentSpec]:
    """All that the page shows."""
    return [AgentSpec(**entry) for block in BLOCKS for entry in [*block["teachers"], *block.get("scorers", [])]]


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block["teachers"][0]["backend"])
def test_a_block_is_a_recipe_whose_agents_open(
    block: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("OPENAI", "GEMINI", "MISTRAL", "OPENROUTER", "ANTHROPIC"):
        monkeypatch.setenv(f"{name}_API_KEY", "k")
    monkeypatch.setenv("TEACHER_URL", "http://localhost:1/v1")
    monkeypatch.setenv("TEACHER_KEY", "k")
    (tmp_path / "model").mkdir()
    # a hub id needs the network; that the options are right does not
    monkeypatch.setattr(weights, "folder", lambda *_, **__: tmp_path / "model")
    recipe = check_recipe({**REST, **block}, Path("docs/backends.md"))
    for spec in [*recipe.teachers, *(getattr(recipe, "scorers", None) or [])]:
        if spec.options.get("quantise"):
            continue  # it asks for bitsandbytes, which lies apart for its own tests
        agent = open_agent(spec.name, spec.backend, spec.options)
        assert agent.name == spec.name


def test_every_backend_is_shown() -> None:
    assert {spec.backend for spec in agents()} == set(plugins.names("agents"))
    for name in plugins.names("agents"):
        assert f"| `{name}` |" in PAGE


def test_every_preset_is_shown() -> None:
    assert {spec.options["preset"] for spec in agents() if "preset" in spec.options} == set(get_args(Preset))


def test_the_keys_and_defaults_of_a_batch_are_those_of_the_code() -> None:
    rows = re.findall(r"^\| (`\w+`(?:, `\w+`)*) \| ([\d,. ]+) \|", PAGE, re.MULTILINE)
    defaults = {
        name: float(value.replace(",", ""))
        for names, values in rows
        for name, value in zip(re.findall(r"`(\w+)`", names), values.split(", "), strict=True)
    }
    assert defaults == {name: field.default for name, field in BatchOptions.model_fields.items()}
