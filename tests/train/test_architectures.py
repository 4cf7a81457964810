"""Whatever the architecture, an update is what a plain pass row by row makes of it, or training refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.train.architectures import ARCHITECTURES, TRAININGS, Update, by_hand, made, plain, save, trained

from vivavoce.errors import DataError, RecipeError

PAGE = Path(__file__).parents[2] / "docs" / "architectures.md"
QUICK = {
    "deepseek_v3",
    "gemma2",
    "llama",
    "llama, dynamic RoPE",
    "mistral, window shorter than rows",
    "opt, dropout 0.1",
    "phi3, longrope, rows beyond the first length",
    "phimoe",
}
pytestmark = pytest.mark.filterwarnings("ignore")  # of models of twenty makers


def documented() -> dict[str, list[str]]:
    """The table of the page: by architecture, the way of each training."""
    lines = [line.split("|") for line in PAGE.read_text("utf-8").splitlines() if line.startswith("| `")]
    return {cells[1].strip().replace("`", ""): [cell.strip() for cell in cells[2:5]] for cells in lines}


def test_the_page_tells_of_every_architecture_that_is_tried() -> None:
    assert list(documented()) == list(ARCHITECTURES)


def off(ours: Update, wanted: Update) -> float:
    """By how much of the whole gradient ours is off."""
    apart = sum(float((ours.gradients[n] - g).pow(2).sum()) for n, g in wanted.gradients.items() if g.any())
    return (apart / sum(float(g.pow(2).sum()) for g in wanted.gradients.values())) ** 0.5


def weight_names(name: str, folder: Path) -> list[str]:
    """How each training goes: packed, rows or refused. Fails if an update is not what it should be."""
    student, teacher = (save(ARCHITECTURES[name](), seed, folder / str(seed)) for seed in (0, 1))
    ways = []
    for training in TRAININGS:
        try:
            ours = trained(training, student, teacher, folder / training)
        except (RecipeError, DataError) as error:
            ways.append("refused" if error.do else "refused without advice")
            continue
        wanted = by_hand(training, student, teacher)
        assert ours.loss == pytest.approx(wanted.loss, rel=1e-4), training
        assert off(ours, wanted) < 1e-3, training
        ways.append(ours.way)
    return ways


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in ARCHITECTURES]
)
def test_an_update_is_what_a_plain_pass_row_by_row_makes_of_it(name: str, tmp_path: Path) -> None:
    assert weight_names(name, tmp_path) == documented()[name]


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (lambda: plain("xglm", d_model=32, ffn_dim=64, num_layers=2, attention_heads=4), "dropout 0.1"),
        (lambda: made("seed_oss"), "residual_dropout 0.1"),
        (lambda: made("phimoe", num_local_experts=4, sliding_window=None, input_jitter_noise=0.2), "in its layers"),
    ],
    ids=["xglm", "seed_oss", "phimoe"],
)
def test_noise_of_the_model_is_off_with_activations_computed_again_too(
    config: Any, reason: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    student = save(config(), 0, tmp_path / "student")
    ours = trained("T-DPO", student, student, tmp_path / "out", gradient_checkpointing=True)
    wanted = by_hand("T-DPO", student, student)
    assert ours.loss == pytest.approx(wanted.loss, rel=1e-5)
    assert off(ours, wanted) < 1e-3
    assert "switched off in training" in caplog.text
    assert reason in caplog.text
