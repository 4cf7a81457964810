"""`viva bench generate --model FOLDER` measures what is there, and says what it leaves out."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.serving import save_tiny_model

from vivavoce.bench import pretrained
from vivavoce.errors import RecipeError


def test_a_model_is_measured_and_what_is_not_there_is_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    measured = pretrained.run(save_tiny_model(tmp_path / "tiny", 256), questions=5, new=6)
    assert measured["ratio_generate"] > 0
    assert measured["busy_share"] > 0
    assert measured["ratio_vllm"] is None
    assert measured["ratio_llama"] is None
    printed = capsys.readouterr().err
    for message in (
        "measuring ours",
        "beside two busy processes",
        "measuring generate",
        "vLLM is left out",
        "llama.cpp is",
    ):
        assert message in printed


def test_weights_that_are_not_there_are_named(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="no such weights"):
        pretrained.run(tmp_path / "none")
