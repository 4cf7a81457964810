"""The order of training: all rows in every epoch, in an order of the epoch's own and of the seed's."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain

import pytest

from vivavoce.records import State
from vivavoce.train import magdi, prepared, trees, two_task
from vivavoce.train.objective import OnPolicySettings
from vivavoce.train.settings import MAGDiSettings, SFTSettings, TreeDPOSettings, TwoTaskSettings
from vivavoce.train.sft import Plain
from vivavoce.train.supervised import Taught
from vivavoce.train.tokens import ScoredRow

COUNT, SIZE, EPOCHS = 12, 4, 3
ROW = ScoredRow((1, 2, 3), 1)
ROWS = [Taught(f"p{i}", "answer", ROW, 1.0) for i in range(COUNT)]
TREES = [trees.Branching(f"t{i}", f"p{i}", (ROW, ROW), 1, 1.0) for i in range(COUNT)]
TALKS = [magdi.TokenTalk(f"p{i}", (ROW,), ("right",), (), 1.0) for i in range(COUNT)]
STATES = [prepared.Prepared(State(f"p{i}", (), ()), [1], []) for i in range(COUNT)]
UPDATES = COUNT * EPOCHS // SIZE
ORDERS: dict[str, Callable[[int], list[int]]] = {
    "SFT": lambda seed: [*chain(*Plain.of(ROWS, SFTSettings(rows_per_step=SIZE, epochs=EPOCHS), seed).updates)],
    "two tasks": lambda seed: [
        *chain(*two_task.updates(ROWS, TwoTaskSettings(rows_per_step=SIZE, epochs=EPOCHS), seed))
    ],
    "T-DPO": lambda seed: trees.Updates(TREES, TreeDPOSettings(trees_per_step=SIZE), UPDATES, seed).order,
    "MAGDi": lambda seed: magdi.Updates(TALKS, MAGDiSettings(graphs_per_step=SIZE), UPDATES, seed).order,
    "on-policy": lambda seed: prepared.Updates(STATES, OnPolicySettings(states_per_step=SIZE), UPDATES, seed).order,
}


@pytest.mark.parametrize("kind", ORDERS)
def test_every_epoch_and_every_seed_has_all_rows_in_another_order(kind: str) -> None:
    orders = [ORDERS[kind](seed) for seed in (0, 1)]
    epochs = [tuple(order[at : at + COUNT]) for order in orders for at in range(0, COUNT * EPOCHS, COUNT)]
    assert all(sorted(epoch) == list(range(COUNT)) for epoch in epochs)
    assert len(set(epochs)) == 2 * EPOCHS
    assert ORDERS[kind](0) == orders[0], "the same seed, the same order"
