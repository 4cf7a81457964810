"""Caps of every kind and scope, of runs over HTTP: held by the server's own count, over SIGKILL too, and raised."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from tests.command import python, ran
from tests.methods.priced import PRICE, TEACHERS, priced, talks
from tests.methods.word_server import Asked, WordServer

from vivavoce.agents.budget import Price
from vivavoce.agents.journal import Journal
from vivavoce.errors import BudgetReached
from vivavoce.graph import read_graphs
from vivavoce.records import Usage
from vivavoce.report import write_report

QUESTIONS = 16
SPENT: dict[str, Callable[[Iterable[Asked]], float]] = {
    "money": lambda calls: sum(Price(**PRICE).of(Usage(c.prompt, c.completion)) for c in calls),
    "tokens": lambda calls: sum(c.prompt + c.completion for c in calls),
    "calls": lambda calls: len(list(calls)),
}
"""What a server says of calls, by the kind of a cap."""


class Free(NamedTuple):
    """A run without caps."""

    where: Path
    asked: list[Asked]


@pytest.fixture
def server() -> Iterator[WordServer]:
    with WordServer(TEACHERS, latency_s=0.01) as server:
        yield server


@pytest.fixture
def values(recipe: dict[str, Any], server: WordServer, tmp_path: Path) -> dict[str, Any]:
    values = priced(recipe, server, tmp_path, QUESTIONS, 4)
    teachers = [{**t, "max_new_tokens": 150} for t in values["teachers"]]
    return {**values, "in_flight": 4, "teachers": teachers}


@pytest.fixture
def free(values: dict[str, Any], server: WordServer, tmp_path: Path) -> Free:
    talks(values, tmp_path / "free")
    asked, server.asked = server.asked, []
    return Free(tmp_path / "free", asked)


def capped(values: dict[str, Any], scope: str, caps: dict[str, float]) -> dict[str, Any]:
    if scope == "teacher":
        ada, *others = values["teachers"]
        return {**values, "teachers": [{**ada, "budget": caps}, *others]}
    return {**values, "budget": {scope: caps}}


def same_graphs(a: Path, b: Path) -> bool:
    names = ("train.jsonl.gz", "test.jsonl.gz")
    return all((a / "graphs" / name).read_bytes() == (b / "graphs" / name).read_bytes() for name in names)


def recorded(where: Path) -> int:
    with Journal(where / "journal.sqlite", read_only=True) as journal:
        assert not journal.under_way()
        return len(journal)


@pytest.mark.parametrize("kind", ["money", "tokens", "calls", "seconds"])
@pytest.mark.parametrize("scope", ["run", "teacher"])
def test_a_cap_stops_the_run_cleanly_and_raised_it_goes_on_to_the_same_end(
    values: dict[str, Any], server: WordServer, free: Free, tmp_path: Path, scope: str, kind: str
) -> None:
    def counted(asked: list[Asked]) -> list[Asked]:
        return [c for c in asked if scope == "run" or c.model == "ada"]

    cap = 0.15 if kind == "seconds" else SPENT[kind](counted(free.asked)) / 2
    cap = round(cap) if kind in ("tokens", "calls") else cap
    run = tmp_path / "run"
    with pytest.raises(BudgetReached) as reached:
        talks(capped(values, scope, {kind: cap}), run)
    assert ("`ada`" if scope == "teacher" else "the run") in reached.value.what
    assert 0 < len(server.asked) < len(free.asked)
    if kind != "seconds":
        assert 0.4 * cap < SPENT[kind](counted(server.asked)) <= cap, "by the server's own count"
    assert recorded(run) == len(server.asked), "all that was paid is kept"
    stopped = json.loads((run / "manifest.json").read_text())["stopped"]
    assert stopped["stage"] in ("train questions", "test questions")
    assert stopped["done"] < stopped["of"]
    assert stopped["spent"]["calls"] == len(server.asked)
    assert stopped["left"]["calls"] > 0

    talks(capped(values, scope, {kind: 1e6 if kind == "seconds" else 10 * cap}), run)
    assert Counter(c.key for c in server.asked) == Counter(c.key for c in free.asked), "nothing was asked twice"
    assert same_graphs(run, free.where)
    assert json.loads((run / "manifest.json").read_text())["stopped"] is None


@pytest.mark.parametrize("kind", ["money", "tokens", "calls", "seconds"])
def test_a_cap_of_questions_ends_their_debates_early_and_raised_they_go_on(
    values: dict[str, Any], server: WordServer, free: Free, tmp_path: Path, kind: str
) -> None:
    def by_question(asked: list[Asked]) -> dict[str, list[Asked]]:
        days = {c.question for c in asked}
        return {day: [c for c in asked if c.question == day] for day in days if int(day) < QUESTIONS}

    each = sorted(SPENT.get(kind, len)(calls) for calls in by_question(free.asked).values())
    cap = 0.015 if kind == "seconds" else each[-1] / 2
    cap = round(cap) if kind in ("tokens", "calls") else cap
    run = tmp_path / "run"
    talks(capped(values, "question", {kind: cap}), run)
    if kind != "seconds":
        assert all(SPENT[kind](calls) <= cap for calls in by_question(server.asked).values())
    cut = [g for g in read_graphs(run / "graphs" / "train.jsonl.gz") if g.stopped == "budget"]
    assert cut
    assert recorded(run) == len(server.asked) < len(free.asked)
    assert "the question reached its cap" in write_report(run).read_text("utf-8")

    talks(capped(values, "question", {kind: 1000 * cap}), run)
    repeated = {key for key, n in Counter(c.key for c in server.asked).items() if n > 1}
    assert not repeated
    assert same_graphs(run, free.where)


def test_a_cap_holds_over_kills_by_the_servers_own_count(
    values: dict[str, Any], server: WordServer, free: Free, tmp_path: Path
) -> None:
    """A kill loses the answers that were on their way; what they may have cost stays reserved in later sessions."""
    run, cap = tmp_path / "run", 0.9 * SPENT["money"](free.asked)
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(capped(values, "run", {"money": cap})))
    program = "import sys, yaml; from pathlib import Path; from tests.methods.priced import talks; "
    program += "talks(yaml.safe_load(Path(sys.argv[1]).read_text()), Path(sys.argv[2]))"
    words = "-c", program, tmp_path / "recipe.yaml", run
    for kill_at in (20, 40):
        process = python(*words, output=tmp_path / "log")
        while len(server.asked) < kill_at and process.poll() is None:
            time.sleep(0.001)
        assert process.poll() is None, f"it ended before request {kill_at}: {(tmp_path / 'log').read_text()}"
        process.kill()
        process.wait()
    done = ran(*words)
    assert "BudgetReached" in done.stderr, done.stderr
    time.sleep(0.1)  # answers to nobody
    with Journal(run / "journal.sqlite", read_only=True) as journal:
        kept, cut = len(journal), sum(calls for _, calls, _ in journal.under_way())
        most = sum((usage for *_, usage in journal.under_way()), Usage())
    lost = len(server.asked) - kept
    assert 0 < lost <= cut, "calls that were paid and lost, by the server's count and by the ledger's"
    paid, reserved = SPENT["money"](server.asked), Price(**PRICE).of(most)
    assert paid <= cap
    content = json.loads((run / "manifest.json").read_text())["stopped"]["spent"]["money"]
    with Journal(run / "journal.sqlite", read_only=True) as journal:
        written = sum((cost.usage for cost in journal.costs()), Usage())
    assert content == pytest.approx(Price(**PRICE).of(written) + reserved)
    assert f"{cut} more calls were under way" in write_report(run).read_text("utf-8")

    talked = talks(capped(values, "run", {"money": 10 * cap}), run)
    assert talked["total"]["calls"] == len(free.asked)
    assert sum(n - 1 for n in Counter(c.key for c in server.asked).values()) <= cut, "only what was lost is asked again"
    assert same_graphs(run, free.where)
