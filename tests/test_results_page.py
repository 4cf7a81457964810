"""docs/make_results.py: verdicts on claims from a run's results, and claims that name arms of their recipe."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from vivavoce.config import load_recipe
from vivavoce.exams.arms import Arm
from vivavoce.exams.examine import Judged
from vivavoce.exams.table import OUTCOMES, outcomes, results
from vivavoce.plugins import load_file
from vivavoce.records import Usage

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def page() -> ModuleType:
    return load_file(ROOT / "docs" / "make_results.py", "the test")


def answers(right: str) -> list[Judged]:
    return [Judged(f"q{i}", "t", "", "1", letter == "R", "ok", Usage()) for i, letter in enumerate(right)]


def run_with(folder: Path, arms: dict[str, dict[int, str]], pairs: list[tuple[str, str]], **facts: Any) -> Path:
    tested = {arm: {seed: answers(text) for seed, text in seeds.items()} for arm, seeds in arms.items()}
    table = results("t", tested, pairs, 1.0, {arm: Arm(arm) for arm in arms}, **facts)
    folder.mkdir()
    (folder / "results.json").write_text(json.dumps(table), "utf-8")
    (folder / OUTCOMES).write_text(json.dumps(outcomes("t", tested)), "utf-8")
    return folder


def test_each_claim_has_a_verdict_with_at_most_three_figures_a_sentence(
    page: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    half, more = "WR" * 200, "RR" * 100 + "WR" * 100
    arms = {"a": {0: half, 1: half}, "b": {0: more, 1: more}, "few": {0: "RR" + half[2:], 1: half}, "same": {0: half}}
    run = run_with(tmp_path / "run", arms, [("a", "b")], best_single="same")
    claims = [
        {"claim": "b teaches more", "over": "a", "arm": "b"},
        {"claim": "a teaches more", "over": "b", "arm": "a", "note": "It was not to be expected."},
        {"claim": "a little", "over": "single:best", "arm": "few"},
        {"claim": "nothing", "over": "a", "arm": "same"},
        {"claim": "who knows", "over": "a", "arm": "untrained"},
    ]
    monkeypatch.setattr(page, "claims_of", lambda _: claims)
    section = page.section_of("any", run)
    first, *verdicts, table = (" ".join(part.split()) for part in section.split("\n\n"))
    assert "400 test questions with 2 training seeds" in first
    assert "all 4 comparisons" in first
    assert verdicts[0].startswith("**B teaches more: holds.** The gain of `b` over `a` is 25.0 points (20.")
    assert verdicts[1].startswith("**A teaches more: does not hold.** The gain of `a` over `b` is −25.0 points (−29.")
    assert verdicts[1].endswith("The other arm is better. It was not to be expected.")
    assert "does not hold" in verdicts[2]
    assert "of `few` over `same`" in verdicts[2]
    assert "A gain of 2 points or more is excluded." in verdicts[2]
    assert verdicts[3].endswith("Both gave right answers to the same questions.")
    assert "cannot be told" in verdicts[4]
    assert "nan" not in section
    assert table.startswith("| arm | right of 400 |")
    few = run_with(tmp_path / "few", {"a": {0: "WWR"}, "b": {0: "RWR"}}, [("a", "b")])
    monkeypatch.setattr(page, "claims_of", lambda _: claims[:1])
    assert "cannot be told" in page.section_of("any", few)
    assert "So few questions can show no gain." in page.section_of("any", few)
    assert page.put("x\n<!-- any -->\nold\n<!-- end of any -->\ny", "any", "new") == (
        "x\n<!-- any -->\n\nnew\n\n<!-- end of any -->\ny"
    )
    assert page.put("no such place", "any", "new") is None


@pytest.mark.parametrize("section", yaml.safe_load((ROOT / "docs" / "claims.yaml").read_text("utf-8")))
def test_every_claim_names_arms_of_its_recipe_and_has_a_place_on_the_page(section: str, page: ModuleType) -> None:
    recipe = load_recipe(ROOT / "recipes" / "schoolhouse" / f"{section}.yaml")
    known = {page.BEST, "self_consistency", *recipe.compared}  # type: ignore[attr-defined]
    for claim in page.claims_of(section):
        assert {claim["over"], claim["arm"]} <= known, claim
    assert page.put((ROOT / "docs" / "results.md").read_text("utf-8"), section, "") is not None
