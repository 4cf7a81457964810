"""The shipped walkers know the ways that they were taught, know what they do not know, and are helped by a debate."""

import json

import pytest

pytest.importorskip("torch")

from schoolhouse import halls_gates as gate
from schoolhouse.speak import Speaker
from vivavoce.schoolhouse import NAMES, weights

pytestmark = pytest.mark.skipif(
    not weights("halls/ada").is_dir(), reason="the models are not built: see schoolhouse/README.md"
)


def test_the_weights_that_ship_passed_their_gates() -> None:
    measured = json.loads((weights("halls/ada").parent / "measured.json").read_text())
    assert all(measured["gates"].values()), [name for name, ok in measured["gates"].items() if not ok]


@pytest.mark.slow
def test_they_do_so_on_other_states_too() -> None:
    measured = gate.measure({name: Speaker.load(weights(f"halls/{name}")) for name in NAMES}, 400, seed=1)
    gates = gate.gates(measured)
    assert all(gates.values()), measured
