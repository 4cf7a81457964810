"""Distillation on programs, by the shipped recipe: programmers debate, a student learns, every program is run."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

pytest.importorskip("torch")

from tests.shut_in import needs_sandbox

from vivavoce.config import load_recipe
from vivavoce.graph import read_graphs
from vivavoce.methods import debate_opd
from vivavoce.run import open_run
from vivavoce.schoolhouse import weights

RECIPE = Path(__file__).parents[2] / "recipes" / "schoolhouse" / "code_opd.yaml"
SMALL = ["seeds=[0]", "parallel=1", "task.train=40", "task.test=20", "warm.questions=20", "warm.sft.max_steps=5"]
SHORT = ["opd.max_steps=2", "opd.states_per_step=8", "arms=[mt_opd, debate_opd]", "value=false"]


@needs_sandbox
@pytest.mark.skipif(not weights("code/ada").is_dir(), reason="the models are not built: see schoolhouse/README.md")
def test_programmers_debate_and_a_student_learns_from_programs_that_were_run(tmp_path: Path) -> None:
    recipe = load_recipe(RECIPE, [*SMALL, *SHORT])
    assert isinstance(recipe, debate_opd.Options)
    with open_run(tmp_path / "run", recipe) as run:
        results = asyncio.run(debate_opd.distill(recipe, run))
    assert [arm["name"] for arm in results["arms"]] == ["untrained", "student", "mt_opd", "debate_opd"]
    assert all(arm["n"] == 20 and not arm["ungradable"] for arm in results["arms"])
    graphs = list(read_graphs(tmp_path / "run" / "graphs" / "states.jsonl.gz"))
    drafts, revised = ([n for g in graphs for n in g.stated(r)] for r in (0, 1))
    assert len(drafts) == len(revised) == 120
    assert sum(bool(n.correct) for n in revised) > sum(bool(n.correct) for n in drafts) + 8, "the debate helps"
    assert all(n.answer for n in drafts if n.correct), "an answer is what the program returned"
