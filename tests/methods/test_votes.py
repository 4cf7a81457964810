"""Votes of a committee that sits the test: none by weights that nobody gave."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from vivavoce.config import check_recipe
from vivavoce.exams.examine import Judged
from vivavoce.graph import Graph
from vivavoce.methods.debating import DebateSession
from vivavoce.records import Problem, node
from vivavoce.tasks import open_task


def votes(recipe: dict[str, Any], **weights: float) -> dict[str, str]:
    """The answer of every vote: ada is alone and sure, bob and cyd agree, before a debate and after it."""
    session = DebateSession.__new__(DebateSession)  # nothing of a run is needed to count votes
    session.recipe, session.task = check_recipe(recipe, Path("test.yaml")), open_task("gsm8k", {})
    answers = []
    for round in (0, 1):
        for name, answer in (("ada", "1"), ("bob", "2"), ("cyd", "2")):
            given: dict[str, Any] = {kind: 0.9 if name == "ada" else w for kind, w in weights.items()}
            answers.append(node("answer", "q", name, round, answer, answer=answer, correct=answer == "1", **given))
    by_arm: dict[str, dict[int, list[Judged]]] = session._votes([Graph(Problem("q", "?", "1"), tuple(answers))])  # type: ignore[assignment]
    return {arm: "".join(str(j.answer) for j in rows[0]) for arm, rows in by_arm.items() if arm.startswith("vote")}


def test_a_vote_has_an_arm_only_if_somebody_gave_the_weights_it_goes_by(
    recipe: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert votes(recipe, confidence=0.4) == {
        "vote:majority": "2",
        "vote:most_confident": "1",
        "vote:confidence": "1",
        "vote:debate": "1",
    }
    assert "left out" not in capsys.readouterr().err
    assert votes(recipe) == {"vote:majority": "2", "vote:debate": "2"}
    stderr = capsys.readouterr().err
    assert "left out, because no agent gave the weights: vote:most_confident, vote:confidence" in stderr
    assert "vote:debate counts each answer as one, because no agent gave a confidence" in stderr


def test_probabilities_weigh_where_every_teacher_gives_them(recipe: dict[str, Any]) -> None:
    recipe["teachers"] = [{**teacher, "logprobs": True} for teacher in recipe["teachers"]]
    cast = votes(recipe, probability=0.4)
    assert cast == {"vote:majority": "2", "vote:probability": "1", "vote:debate": "1"}
