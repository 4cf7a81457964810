"""Bars of several students overlap: they share a display until the last of them ends."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from io import StringIO

import pytest
from rich.console import Console

from vivavoce import progress
from vivavoce.errors import DataError, RecipeError, told_once


def test_bars_that_overlap_share_a_display_until_the_last_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    written = StringIO()
    monkeypatch.setattr(progress, "console", Console(force_terminal=True, file=written, width=100))
    first, second = ExitStack(), ExitStack()
    one = first.enter_context(progress.bar("one", 2))
    two = second.enter_context(progress.bar("two", 2))
    (shown,) = progress._open
    one(2)
    first.close()
    two(1)
    assert [task.description for task in shown.tasks] == ["two"], "what is done leaves its place to what is not"
    assert "one" in written.getvalue(), "and stays to be read"
    assert shown.live.is_started, "the second goes on"
    second.close()
    assert not shown.live.is_started
    with progress.bar("later", 1):
        assert progress._open != [shown], "what comes later has a display of its own"


def test_of_many_tasks_that_were_told_the_same_one_tells_the_user() -> None:
    with pytest.raises(RecipeError, match="one"), told_once():
        raise ExceptionGroup("tasks", [ExceptionGroup("inner", [KeyError("x"), RecipeError("one")]), DataError("two")])
    with pytest.raises(KeyError, match="x"), told_once():
        raise ExceptionGroup("tasks", [KeyError("x")])


def test_what_takes_long_is_said_to_be_under_way_and_what_is_quick_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    messages, printed = list[str](), threading.Event()
    monkeypatch.setattr(progress, "say", lambda text: (messages.append(text), printed.set()))
    with progress.awaited("looking"):
        pass
    monkeypatch.setattr(progress, "_SLOW_S", 0.0)
    with progress.awaited("loading"):
        assert printed.wait(30)
    assert messages == ["loading …"]
