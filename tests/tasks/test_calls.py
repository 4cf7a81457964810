from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from vivavoce.records import ToolCall
from vivavoce.tasks.calls import an_answer, wrong_calls

SINGLE = ["simple_python", "simple_java", "simple_javascript", "multiple", "parallel", "parallel_multiple"]
LIVE = ["live_simple", "live_multiple", "live_parallel", "live_parallel_multiple"]
AREA = [{"name": "geo.area", "parameters": {"properties": {}, "required": ["base"]}}]


def rows(path: Path) -> list[dict[str, Any]]:
    content = path.read_bytes()
    return [json.loads(x) for x in (gzip.decompress(content) if path.suffix == ".gz" else content).splitlines()]


def mutated(calls: list[ToolCall], required: dict[str, set[str]]) -> Iterator[list[ToolCall]]:
    yield []
    yield [*calls, calls[0]]
    for i, c in enumerate(calls):
        others = [ToolCall(c.name + "_other", c.arguments), ToolCall(c.name, {**c.arguments, "no_such": 1})]
        others += [ToolCall(c.name, {**c.arguments, k: "no such value"}) for k in c.arguments]
        others += [ToolCall(c.name, {x: v for x, v in c.arguments.items() if x != k}) for k in required[c.name]]
        yield from ([*calls[:i], other, *calls[i + 1 :]] for other in others)


@pytest.mark.parametrize("category", [*SINGLE, *LIVE])
def test_every_official_answer_is_accepted_in_any_order_and_every_mutation_rejected(category: str, bfcl: Path) -> None:
    questions = {r["id"]: r for r in rows(next(bfcl.glob(f"BFCL_v4_{category}.json*")))}
    for row in rows(bfcl / "possible_answer" / f"BFCL_v4_{category}.json"):
        functions = questions[row["id"]]["function"]
        required = {f["name"]: set(f["parameters"].get("required", ())) for f in functions}
        calls = an_answer(functions, row["ground_truth"])
        assert wrong_calls(functions, row["ground_truth"], calls) == "", row["id"]
        assert wrong_calls(functions, row["ground_truth"], calls[::-1]) == "", row["id"]
        for other in mutated(calls, required):
            assert wrong_calls(functions, row["ground_truth"], other), (row["id"], other)


def test_where_no_function_fits_any_call_is_wrong() -> None:
    assert wrong_calls(AREA, [], []) == ""
    assert wrong_calls(AREA, [], [ToolCall("geo.area", {"base": 1})])


@pytest.mark.parametrize(
    ("arguments", "right"),
    [
        ({"base": 2, "unit": "sq. CM"}, True),
        ({"base": 2}, True),
        ({"base": 2.0}, False),
        ({"base": "2"}, False),
        ({"base": True}, False),
        ({"unit": "sq cm"}, False),
    ],
)
def test_types_and_arguments_that_may_be_left_out(arguments: dict[str, Any], right: bool) -> None:
    wanted = [{"geo.area": {"base": [1, 2], "unit": ["sq cm", ""]}}]
    assert (wrong_calls(AREA, wanted, [ToolCall("geo_area", arguments)]) == "") is right


def test_one_call_cannot_stand_for_two_that_were_wanted() -> None:
    wanted = [{"geo.area": {"base": [1, 2]}}, {"geo.area": {"base": [1]}}]
    two, one = ToolCall("geo.area", {"base": 2}), ToolCall("geo.area", {"base": 1})
    assert wrong_calls(AREA, wanted, [one, two]) == "" == wrong_calls(AREA, wanted, [two, one])
    assert wrong_calls(AREA, wanted, [two, two])
