"""A run is a directory that can be opened again, by one process at a time, with the same recipe."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from vivavoce.config import Recipe
from vivavoce.errors import RunConflict
from vivavoce.records import Completion
from vivavoce.run import changed_keys, open_run

RECIPE = Recipe.model_validate(
    {"method": "m", "task": {"name": "t", "size": 3}, "student": {"name": "s"}, "teachers": [{"name": "a"}]}
)


def test_a_file_is_made_again_only_when_its_dependencies_change(tmp_path: Path) -> None:
    rows = [Completion("text", "node")]
    path = tmp_path / "data" / "x.jsonl"
    with open_run(tmp_path, RECIPE) as run:
        assert run.kept_rows(path, [1], Completion) is None
        run.keep_rows(path, [1], rows)
    with open_run(tmp_path, RECIPE) as run:
        assert run.kept_rows(path, [1], Completion) == rows
        assert run.kept_rows(path, [2], Completion) is None


def test_a_begun_folder_is_kept_for_the_same_dependencies_and_cleared_for_others(tmp_path: Path) -> None:
    with open_run(tmp_path, RECIPE) as run:
        folder = run.folder("model", [1])
        assert folder is not None
        (folder / "checkpoint").touch()
        assert run.folder("model", [1]) == folder
        assert (folder / "checkpoint").exists()
        run.folder("model", [2])
        assert not (folder / "checkpoint").exists()
        run.finished("model", [2])
        assert run.folder("model", [2]) is None


def test_the_forecast_goes_by_what_finished_questions_cost_and_not_by_what_others_have_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes: list[str] = []

    @contextmanager
    def shown(title: str, total: int) -> Iterator[Callable[..., None]]:
        yield lambda n, note: notes.append(note)

    monkeypatch.setattr("vivavoce.run.bar", shown)
    with open_run(tmp_path, RECIPE) as run:
        account = run.journal.ledger.run
        account.money = 3.0  # of an earlier stage
        with run.counting("questions", 100) as count:
            account.money += 10.0  # forty have begun, and ten of them are done for 0.2 each
            count(10, cost=2.0)
            assert notes[-1].endswith(", about 23.00 after this")
            account.money = 3.0  # all that is done was paid for before
            count(10, cost=2.0)
            assert notes[-1].endswith(", about 19.00 after this")
        assert json.loads((tmp_path / "progress.json").read_text()) == []


def test_how_far_a_count_has_come_is_noted_for_whoever_looks_from_outside(tmp_path: Path) -> None:
    with open_run(tmp_path, RECIPE) as run, run.counting("questions", 9):
        now = json.loads((tmp_path / "progress.json").read_text())
    assert now == [{"title": "questions", "total": 9, "done": 0}]


def test_another_recipe_is_refused_with_the_keys_that_differ_unless_it_is_an_update(tmp_path: Path) -> None:
    other = RECIPE.model_copy(update={"seed": 7, "teachers": [RECIPE.teachers[0].model_copy(update={"top_p": 0.5})]})
    with open_run(tmp_path, RECIPE) as run:
        run.keep(tmp_path / "a", 1, lambda part: part.write_text("made"))
    with (
        pytest.raises(RunConflict, match=r"differs in seed \(0, now 7\), teachers\.0\.top_p \(1\.0, now 0\.5\)"),
        open_run(tmp_path, other),
    ):
        pass
    with open_run(tmp_path, other, update=True) as run:
        assert run.manifest["seed"] == 7


def test_a_run_in_which_nobody_has_answered_yet_takes_a_corrected_recipe(tmp_path: Path) -> None:
    with open_run(tmp_path, RECIPE):
        pass
    with open_run(tmp_path, RECIPE.model_copy(update={"seed": 7})) as run:
        assert run.manifest["seed"] == 7
    assert yaml.safe_load((tmp_path / "recipe.yaml").read_text())["seed"] == 7


def begun_before(path: Path, recipe: Recipe) -> None:
    """A run as the version left it whose limits took the first questions."""
    with open_run(path, recipe) as run:
        run.keep(path / "a", 1, lambda part: part.write_text("made"))
        del run.manifest["reads"]
        run.note()


@pytest.mark.parametrize(
    ("task", "key", "then"),
    [
        ({"name": "gsm8k", "train_limit": 5}, "task.limit_takes", {"limit_takes": "first"}),
        ({"name": "jsonl", "path": "x"}, "task.id_field", {"id_field": None}),
    ],
)
def test_a_run_whose_questions_would_be_others_by_now_is_not_resumed_in_silence(
    tmp_path: Path, task: dict, key: str, then: dict
) -> None:
    recipe = Recipe.model_validate({**RECIPE.model_dump(), "task": task})
    begun_before(tmp_path, recipe)
    with (
        pytest.raises(RunConflict, match=rf"differs in {key}(?s:.*)--set {key}=\w+ goes on"),
        open_run(tmp_path, recipe),
    ):
        pass
    as_then = Recipe.model_validate({**RECIPE.model_dump(), "task": {**task, **then}})
    for _ in range(2):
        with open_run(tmp_path, as_then):
            pass


def test_a_run_without_limits_goes_on_whatever_version_began_it(tmp_path: Path) -> None:
    begun_before(tmp_path, RECIPE)
    with open_run(tmp_path, RECIPE):
        pass


def test_two_processes_cannot_write_one_run(tmp_path: Path) -> None:
    with open_run(tmp_path, RECIPE), pytest.raises(RunConflict, match="another process"), open_run(tmp_path, RECIPE):
        pass


def test_changed_keys_are_named_by_their_path() -> None:
    assert changed_keys({"a": {"b": 1}, "c": [1, 2]}, {"a": {"b": 2}, "c": [1, 3], "d": 0}) == ["a.b", "c.1", "d"]
    assert changed_keys({"a": 1}, {"a": 1, "b": None}) == ["b"], "a key that is left out is at its default, not null"


def test_the_time_of_a_run_is_that_of_all_its_sessions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("vivavoce.run.time.monotonic", lambda: now[0])
    with open_run(tmp_path, RECIPE) as run:
        now[0] += 1620
        assert run.seconds == 1620
    now[0] += 99_999  # nobody is at work
    with open_run(tmp_path, RECIPE) as run:
        now[0] += 1
        assert run.seconds == 1621


def test_a_killed_session_counts_as_far_as_it_was_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("vivavoce.run.time.monotonic", lambda: now[0])
    opened = open_run(tmp_path, RECIPE)
    run = opened.__enter__()
    with run.counting("questions", 3) as advance:
        for _ in range(3):
            now[0] += 50
            advance()
        kept = json.loads((tmp_path / "manifest.json").read_text())["seconds"]
    assert kept == 100
    opened.__exit__(None, None, None)
