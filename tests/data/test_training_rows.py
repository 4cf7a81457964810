"""Rows to train on are read in our form and in TRL's, and whatever else they hold is told with file and row."""

import json
from pathlib import Path
from typing import Any

import pytest

from vivavoce.data.export import preference_rows, sft_rows, tree_rows, write_rows
from vivavoce.data.training_rows import several_answers, training_rows
from vivavoce.errors import DataError
from vivavoce.records import Completion, Example, Message, State, Tree, View, to_json

ASKED: Message = {"role": "user", "content": "2+2?"}
IN_PARTS: Any = {"role": "user", "content": [{"type": "text", "text": "2+"}, {"type": "text", "text": "2?"}]}
SAID: Message = {"role": "assistant", "content": "4"}
WRONG: Message = {"role": "assistant", "content": "5"}
SYSTEM: Message = {"role": "system", "content": "Be brief."}


def rows(tmp_path: Path, *values: Any) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(value) + "\n" for value in values), "utf-8")
    return path


@pytest.mark.parametrize(
    ("row", "prompt"),
    [
        ({"messages": [ASKED, SAID]}, (ASKED,)),
        ({"messages": [SYSTEM, ASKED, SAID]}, (SYSTEM, ASKED)),
        ({"messages": [ASKED, WRONG, ASKED, SAID]}, (ASKED, WRONG, ASKED)),
        ({"prompt": [ASKED], "completion": [SAID]}, (ASKED,)),
        ({"prompt": [SYSTEM, ASKED], "completion": "4"}, (SYSTEM, ASKED)),
        ({"prompt": "2+2?", "completion": "4"}, (ASKED,)),
        ({"prompt": "2+2?", "completion": [SAID], "extra": {"a": 1}}, (ASKED,)),
        ({"messages": [ASKED, {**SAID, "tool_calls": None}]}, (ASKED,)),
    ],
)
def test_supervised_rows_of_trl_are_read(tmp_path: Path, row: Any, prompt: tuple[Message, ...]) -> None:
    (read,) = training_rows(rows(tmp_path, row), Example)
    assert (read.prompt, read.completion, read.stream, read.weight) == (prompt, "4", "answer", 1.0)
    assert several_answers([read]) == (WRONG in prompt)


@pytest.mark.parametrize(
    ("row", "prompt"),
    [
        ({"prompt": [ASKED], "chosen": [SAID], "rejected": [WRONG]}, (ASKED,)),
        ({"prompt": "2+2?", "chosen": "4", "rejected": "5"}, (ASKED,)),
        ({"prompt": [SYSTEM, ASKED], "chosen": "4", "rejected": [WRONG]}, (SYSTEM, ASKED)),
        ({"chosen": [ASKED, SAID], "rejected": [ASKED, WRONG]}, (ASKED,)),
        ({"prompt": "2+2?", "chosen": [ASKED, SAID], "rejected": [ASKED, WRONG], "score_chosen": 8.0}, (ASKED,)),
        ({"prompt": [IN_PARTS], "chosen": [SAID], "rejected": [WRONG]}, (ASKED,)),
        ({"chosen": [SYSTEM, ASKED, SAID], "rejected": [SYSTEM, ASKED, WRONG]}, (SYSTEM, ASKED)),
    ],
)
def test_preferences_of_trl_are_trees_of_two_answers(tmp_path: Path, row: Any, prompt: tuple[Message, ...]) -> None:
    (tree,) = training_rows(rows(tmp_path, row), Tree)
    assert (tree.prompt, tree.chosen, tree.rejected) == (prompt, (Completion("4", ""),), (Completion("5", ""),))


def test_pairs_of_one_question_share_its_id_and_pairs_have_ids_of_their_own(tmp_path: Path) -> None:
    pairs = [{"prompt": [ASKED], "chosen": "4", "rejected": wrong} for wrong in ("5", "6")]
    first, second, other = training_rows(rows(tmp_path, *pairs, {**pairs[0], "prompt": "3+1?"}), Tree)
    assert first.problem == second.problem != other.problem
    assert len({first.id, second.id, other.id}) == 3


EXAMPLES = [
    Example("p", (SYSTEM, ASKED), "a\u2028b", ("n1",), "feedback", 0.25),
    Example("q", (ASKED,), "4", ("n2", "n3")),
]
TREES = [Tree("t", "p", (ASKED,), (Completion("4", "a"),), (Completion("5", "b"), Completion("6", "c")), weight=1 / 3)]


@pytest.mark.parametrize("form", ["messages", "prompt-completion"])
def test_exported_rows_come_back_as_they_were_with_streams_and_weights(tmp_path: Path, form: Any) -> None:
    path = tmp_path / "out.jsonl"
    assert write_rows(path, sft_rows(EXAMPLES, form)) == 2
    assert training_rows(path, Example) == EXAMPLES


def test_exported_pairs_come_back_with_their_weights_and_sources(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    write_rows(path, preference_rows(TREES))
    read = training_rows(path, Tree)
    assert [(t.problem, t.prompt, t.chosen, t.rejected, t.weight) for t in read] == [
        ("p", (ASKED,), (Completion("4", "a"),), (Completion("5", "b"),), 1 / 3),
        ("p", (ASKED,), (Completion("4", "a"),), (Completion("6", "c"),), 1 / 3),
    ]
    write_rows(path, tree_rows(TREES))
    assert training_rows(path, Tree) == TREES


def test_a_rows_own_form_is_read_as_it_is(tmp_path: Path) -> None:
    state = State("p", (ASKED,), (View((SYSTEM, ASKED), 1.0),), weight=0.5)
    forms: list[tuple[Any, list[Any]]] = [(Example, EXAMPLES), (Tree, TREES), (State, [state])]
    for kind, records in forms:
        path = tmp_path / "own.jsonl"
        path.write_text("\ufeff" + "".join(to_json(r) + "\r\n\r\n" for r in records), "utf-8", newline="")
        assert training_rows(path, kind) == records


OWN = {"problem": "p", "prompt": [ASKED], "completion": "4", "source": ["a"]}
PAIR = {"prompt": [ASKED], "chosen": [SAID], "rejected": [WRONG]}
STATE = {"problem": "p", "prompt": [ASKED], "views": [{"messages": [ASKED], "weight": 1}]}


@pytest.mark.parametrize(
    ("kind", "row", "what"),
    [
        (Example, {**OWN, "weight": float("nan")}, "`weight` is nan"),
        (Example, {**OWN, "weight": -1}, r"`weight` is -1\.0"),
        (Example, {**OWN, "weight": "much"}, "`weight`: must be a number, but this is text"),
        (Example, {"messages": [ASKED, SAID], "weight": "much"}, "`weight` is 'much', not a number"),
        (Example, {"messages": [ASKED, SAID], "weight": float("inf")}, "`weight` is inf"),
        (Tree, {**PAIR, "weight": float("nan")}, "`weight` is nan"),
        (State, {**STATE, "views": [{"messages": [ASKED], "weight": float("nan")}]}, r"`views\.0\.weight` is nan"),
        (Example, {**OWN, "weight": 0}, "every row has weight 0"),
        (Example, {"text": "2+2? 4"}, "the row has 'text'"),
        (Example, {"instruction": "2+2?", "output": "4"}, "the row has 'instruction', 'output'"),
        (Example, PAIR, "`viva train tree-dpo` learns from such rows"),
        (Example, STATE, "`viva train on-policy` learns from such rows"),
        (Tree, OWN, "`viva train sft` learns from such rows"),
        (Tree, {"messages": [ASKED, SAID]}, "`viva train sft` learns from such rows"),
        (State, {"prompt": [ASKED]}, "the row has 'prompt'"),
        (State, {**STATE, "views": 3}, "`views`: must be a list, but this is a number"),
        (Example, {"messages": [{"role": "human", "content": "2+2?"}, SAID]}, "the role 'human'"),
        (Example, {**OWN, "prompt": [{"role": "User", "content": "2+2?"}]}, "the role 'User'"),
        (Tree, {**PAIR, "chosen": [SYSTEM, SAID], "rejected": [ASKED, WRONG]}, "holds messages of system, assistant"),
        (Example, {"messages": [ASKED]}, "ends with a message of 'user'"),
        (Example, {"messages": []}, "`messages` is not a list of messages"),
        (Example, {"messages": "2+2?"}, "`messages` is not a list of messages"),
        (Example, {"messages": [SAID]}, "the prompt is empty"),
        (Example, {"messages": [ASKED, {"role": "assistant"}]}, r"`messages\.1\.content` is None"),
        (Example, {"messages": [ASKED, {"from": "gpt", "value": "4"}]}, r"`messages\.1\.role` is None"),
        (Example, {"messages": [ASKED, {**SAID, "tool_calls": [{"id": 1}]}]}, "has `tool_calls`"),
        (Example, {"messages": [ASKED, {"role": "assistant", "content": [{"type": "text"}]}]}, "not a text"),
        (Example, {"prompt": "2+2?", "completion": ""}, "the answer is empty"),
        (Example, {"prompt": [ASKED], "completion": [SAID, ASKED]}, "`completion` holds messages of assistant, user"),
        (Example, {"prompt": [ASKED], "completion": 4}, "`completion` is not a list of messages"),
        (Tree, {"chosen": "2+2? 4", "rejected": "2+2? 5"}, "there is no `prompt`"),
        (Tree, {**PAIR, "rejected": [SAID]}, "are the same text"),
        (Tree, {"chosen": [ASKED, SAID], "rejected": [ASKED]}, "`rejected` is not a list"),
    ],
)  # fmt: skip
def test_what_cannot_be_learnt_is_told_with_row_and_what_is_expected(
    tmp_path: Path, kind: Any, row: Any, what: str
) -> None:
    path = rows(tmp_path, row)
    with pytest.raises(DataError, match=what) as error:
        training_rows(path, kind)
    assert error.value.where in (f"{path}, row 1", str(path))
    assert error.value.do


def test_the_row_that_is_wrong_is_named(tmp_path: Path) -> None:
    path = rows(tmp_path, OWN, OWN, {**OWN, "prompt": 3})
    with pytest.raises(DataError, match="`prompt`: must be a list") as error:
        training_rows(path, Example)
    assert error.value.where == f"{path}, row 3"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(DataError, match="the line is incomplete: check whether the file was cut"):
        training_rows(path, Example)
    path.write_text("")
    with pytest.raises(DataError, match="holds no rows"):
        training_rows(path, Example)
