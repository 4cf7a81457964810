"""A run asked in parts, and runs that share a store: no call is paid twice, and all comes out the same."""

from __future__ import annotations

import errno
import fcntl
import json
import multiprocessing
import os
import re
import shlex
import shutil
import sqlite3
import subprocess
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from tests.command import interpreter
from typer.testing import CliRunner, Result

from vivavoce.agents.journal import Journal
from vivavoce.agents.scripted import Scripted
from vivavoce.agents.store import EarlierRuns, Store
from vivavoce.cli import app
from vivavoce.config import load_recipe
from vivavoce.errors import DataError, RecipeError, RunConflict, UserError
from vivavoce.records import Message, Reply, Sampling, Usage
from vivavoce.run import Share, share_of
from vivavoce.workspace import earlier_runs

pytestmark = pytest.mark.usefixtures("log")


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One line for each call that a teacher was asked."""
    monkeypatch.setenv("VIVA_TEST_LOG", str(tmp_path / "log"))
    return tmp_path / "log"


@pytest.fixture
def written(recipe: dict[str, Any], tmp_path: Path) -> Path:
    recipe |= {"seeds": [0], "attempts": {"samples": 0}, "arms": ["debate_reflect"]}
    recipe["debate"]["student"] = "never"
    recipe["test"]["committee"] = False
    return _write(recipe, tmp_path / "recipe.json")


def _write(recipe: dict[str, Any], path: Path) -> Path:
    path.write_text(json.dumps(recipe))
    return path


def viva(*words: str | Path) -> Result:
    return CliRunner().invoke(app, list(map(str, words)))


def done(*words: str | Path) -> Result:
    result = viva(*words)
    assert result.exit_code == 0, result.exception or result.output
    return result


def asked(log: Path) -> int:
    return len(log.read_text().splitlines()) if log.exists() else 0


def made(where: Path) -> dict[str, bytes]:
    """What a run made, less what tells times."""
    kept = ("graphs/*.jsonl.gz", "data/*.jsonl", "evaluations/*.jsonl", "checkpoints/*/*.safetensors")
    return {p.relative_to(where).as_posix(): p.read_bytes() for form in kept for p in sorted(where.glob(form))}


def test_a_run_in_parts_comes_out_as_the_whole_and_asks_nothing_twice(written: Path, tmp_path: Path, log: Path) -> None:
    whole, merged = tmp_path / "whole", tmp_path / "merged"
    done("run", written, "--out", whole)
    calls = asked(log)
    parts = [tmp_path / f"part{i}" for i in (1, 2, 3)]
    for i, part in enumerate(parts, 1):
        done("run", written, "--alone", "--part", f"{i}/3", "--out", part)
        assert not (part / "checkpoints").exists()
    assert asked(log) == 2 * calls, "the parts ask what the whole asks, and each question once"
    for news in (f"{calls} calls of 3 parts are taken over", "the parts hold nothing new"):
        given = f"{news}; {merged} has {calls} calls"
        assert given in done("merge", merged, *parts[::-1], parts[0]).output, "a directory may be named twice"
        with Journal(merged / "journal.sqlite", read_only=True) as journal:
            assert sum(c.calls for c in journal.costs()) == calls
    done("run", merged, "--alone")
    assert asked(log) == 2 * calls, "what a part has paid for is not asked again"
    assert made(merged) == made(whole)
    results = [json.loads((where / "results.json").read_text()) for where in (whole, merged)]
    assert results[0]["arms"] == results[1]["arms"]


def test_parts_that_cannot_be_merged_are_told_apart(written: Path, recipe: dict[str, Any], tmp_path: Path) -> None:
    one, two, run = tmp_path / "one", tmp_path / "two", tmp_path / "run"
    done("run", written, "--part", "1/2", "--out", one)

    def refused(*parts: Path) -> str:
        result = viva("merge", run, *parts)
        assert isinstance(result.exception, UserError), result.exception
        return str(result.exception)

    assert "these parts are missing: 2/2" in refused(one)
    assert "not a part of a run" in refused(one, tmp_path)
    warmer = _write({**recipe, "debate": {**recipe["debate"], "word_limit": 20}}, tmp_path / "warmer.json")
    done("run", warmer, "--part", "2/2", "--out", two)
    assert "another recipe; it differs in debate.word_limit" in refused(one, two)
    third = tmp_path / "third"
    done("run", written, "--part", "2/3", "--out", third)
    assert "and the parts before it are of 2" in refused(one, third)
    manifest = json.loads((third / "manifest.json").read_text())
    (third / "manifest.json").write_text(json.dumps({**manifest, "part": [2, 2], "part_done": False}))
    assert "--part 2/2 --out" in refused(one, third)
    (third / "manifest.json").write_text(json.dumps({**manifest, "part": [2, 2], "vivavoce": "0.0.1"}))
    assert "was made by vivavoce 0.0.1" in refused(one, third)
    (third / "manifest.json").write_text(json.dumps({**manifest, "part": [1, 2]}))
    assert "part 1/2 is given twice" in refused(one, third)
    assert "there is no such directory" in refused(one, tmp_path / "none")
    assert "this is one of the parts" in str(viva("merge", one, one, two).exception)
    assert not run.exists(), "nothing is taken over unless all can be"


def test_a_part_that_is_damaged_is_named_and_one_that_may_only_be_read_is_merged(
    written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two, run = tmp_path / "one", tmp_path / "two", tmp_path / "run"
    for i, part in enumerate((one, two), 1):
        done("run", written, "--alone", "--part", f"{i}/2", "--out", part)

    def refused(into: Path = run) -> str:
        result = viva("merge", into, one, two)
        assert isinstance(result.exception, UserError), result.exception
        return str(result.exception)

    journal, manifest = (two / "journal.sqlite").read_bytes(), (two / "manifest.json").read_text()
    for damaged in (journal[:9000], journal[:4096] + bytes(8192) + journal[12288:], b"no database"):
        (two / "journal.sqlite").write_bytes(damaged)
        assert re.search(r"part 2/2: .*\n.*two/journal.sqlite\n.*make the part again", refused())
    (two / "journal.sqlite").unlink()
    assert "part 2/2: there is no journal" in refused()
    (two / "journal.sqlite").write_bytes(journal)
    (two / "manifest.json").write_text(manifest[:50])
    assert "the file is damaged" in refused()
    assert earlier_runs(tmp_path / "beside", load_recipe(written)) == [one], "a damaged neighbour is passed over"
    (two / "manifest.json").write_text(manifest)
    (two / "recipe.yaml").rename(tmp_path / "kept")
    assert "has no recipe.yaml any more" in refused()
    (tmp_path / "kept").rename(two / "recipe.yaml")
    assert not run.exists()
    other = tmp_path / "other"
    shutil.copytree(one, other)
    (other / "manifest.json").write_text("{}")
    whole = (other / "recipe.yaml").read_text()
    (other / "recipe.yaml").write_text(re.sub(r"word_limit: \d+", "word_limit: 20", whole))
    assert re.search(r"cannot go there: .*debate.word_limit.*\n.*\n.*another directory", refused(other))
    with (two / "run.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert "at work in this part" in refused()
    opened = Path.open

    def read_only(path: Path, mode: str = "r", *args: Any, **more: Any) -> Any:
        if two in path.parents and mode != "r":
            raise OSError(errno.EROFS, "Read-only file system", str(path))
        return opened(path, mode, *args, **more)

    monkeypatch.setattr(Path, "open", read_only)
    done("merge", run, one, two)


def test_a_directory_is_one_part_and_stays_it(written: Path, tmp_path: Path) -> None:
    part = tmp_path / "part"
    done("run", written, "--part", "1/2", "--out", part)
    for other in ((), ("--part", "2/2")):
        assert "the directory holds part 1/2" in str(viva("run", written, "--out", part, *other).exception)
    for options in ((), ("--part", "1/2")):
        assert f"part 1/2 is done, in {part};" in done("run", part, *options).output.replace("\n", " ")


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "a/b", "1/2/3", "-1/2", ""])
def test_what_names_no_part_is_refused(text: str) -> None:
    with pytest.raises(RecipeError, match="names no part"):
        share_of(text)


def test_parts_hold_every_question_once() -> None:
    parts = [Share(i, 4).take(range(30)) for i in range(1, 5)]
    assert sorted(q for part in parts for q in part) == list(range(30))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_the_array_of_jobs_in_the_documentation_runs(written: Path, tmp_path: Path, log: Path) -> None:
    """As a cluster would run it: a stand-in for `sbatch` starts the script once for each number of the array."""
    page = (Path(__file__).parents[2] / "docs" / "scale.md").read_text("utf-8")
    script, submit = re.findall(r"```bash\n(.*?)```", page, flags=re.DOTALL)[:2]
    (tmp_path / "debate.sbatch").write_text(script)
    here = tmp_path / "bin"
    here.mkdir()
    (here / "sbatch").write_text(
        '#!/bin/bash\nset -e\n[[ $1 =~ --array=1-([0-9]+) ]] || { shift; exec bash -e "$@"; }\nn=${BASH_REMATCH[1]}\n'
        'for i in $(seq $n); do SLURM_ARRAY_TASK_ID=$i SLURM_ARRAY_TASK_COUNT=$n bash -e "$2"; done\n'
    )
    (here / "viva").write_text(f'#!/bin/bash\nexec {shlex.join(interpreter())} viva "$@"\n')
    for file in here.iterdir():
        file.chmod(0o755)
    written.rename(tmp_path / "recipe.yaml")
    path = f"{here}:{os.environ['PATH']}"
    ran = subprocess.run(
        ["bash", "-ec", submit.replace("1-16", "1-2")],
        cwd=tmp_path,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    assert (tmp_path / "runs" / "whole" / "results.json").is_file()
    assert asked(log) == len(set(log.read_text().splitlines())), "no call was made twice"


# --- the store


def test_a_call_that_one_run_has_paid_is_free_for_every_other(written: Path, tmp_path: Path, log: Path) -> None:
    store, first, second = tmp_path / "store.sqlite", tmp_path / "first", tmp_path / "second"
    done("run", written, "--out", first, "--store", store)
    calls = asked(log)
    done("run", written, "--out", second, "--store", store, "--set", "dpo.beta=0.2")
    assert asked(log) == calls, "another setting of training asks no teacher"
    assert (second / "graphs" / "train.jsonl.gz").read_bytes() == (first / "graphs" / "train.jsonl.gz").read_bytes()
    with (
        Journal(first / "journal.sqlite", read_only=True) as paid,
        Journal(second / "journal.sqlite", read_only=True) as free,
    ):
        here, there = ({c.agent: c for c in j.costs() if c.stage == "debate:train"} for j in (paid, free))
        assert sum(c.calls for c in here.values()) == calls
        for agent, cost in there.items():
            assert (cost.calls, cost.usage, cost.hits) == (0, Usage(), here[agent].calls + here[agent].hits)
        keys = [{c.key for c in journal if c.stage.startswith("debate:")} for journal in (paid, free)]
        assert keys[0] == keys[1], "the second run has all of it in its own journal"
    log.unlink()
    store.unlink()
    done("run", second)
    assert not asked(log), "a run does not depend on the store"


def _answer(messages: Sequence[Message], sampling: Sampling, seed: int) -> Reply:
    return Reply(f"{os.getpid()} says {seed}", usage=Usage(10, 5))


async def _calls(journal: Journal, agent: Scripted, seeds: Sequence[int]) -> list[str]:
    answered = [await journal.call(agent, [{"role": "user", "content": "?"}], Sampling(), seed) for seed in seeds]
    return [a.reply.text for a in answered if a.reply]


def _writes(where: Path, number: int) -> None:
    import asyncio

    store = Store(where / "store.sqlite")
    with Journal(where / f"{number}.sqlite", store=store) as journal:
        asyncio.run(_calls(journal, Scripted("ada", _answer), range(200)))


def test_several_processes_write_at_once_and_the_first_reply_to_a_call_stays(tmp_path: Path) -> None:
    work = [multiprocessing.get_context("spawn").Process(target=_writes, args=(tmp_path, i)) for i in range(3)]
    for process in work:
        process.start()
    for process in work:
        process.join()
        assert process.exitcode == 0
    store = Store(tmp_path / "store.sqlite")
    assert len(store) == 200
    assert store._db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    store.close()
    for i in range(3):
        with Journal(tmp_path / f"{i}.sqlite", read_only=True) as journal:
            assert len(journal) == 200, "each run has what it was told"


def test_a_store_on_a_full_disk_is_told_once_and_the_run_goes_on(tmp_path: Path) -> None:
    import asyncio

    messages: list[str] = []
    store = Store(tmp_path / "store.sqlite", failed=messages.append)
    store._db.execute("PRAGMA max_page_count = 4")
    agent = Scripted("ada", lambda _, __, seed: f"{seed} " + os.urandom(3000).hex())
    with Journal(tmp_path / "journal.sqlite", store=store) as journal:
        asyncio.run(_calls(journal, agent, range(20)))
        assert len(journal) == 20
    assert len(messages) == 1
    assert "full" in messages[0]
    assert "goes on without it" in messages[0]


def test_a_reply_that_is_damaged_elsewhere_is_asked_for_again(tmp_path: Path) -> None:
    import asyncio

    long = Scripted("ada", lambda _, __, seed: f"{seed} " + "and so on " * 40)
    (tmp_path / "first").mkdir()
    with (
        closing(Store(tmp_path / "store.sqlite")) as store,
        Journal(tmp_path / "first" / "journal.sqlite", store=store) as journal,
    ):
        replies = asyncio.run(_calls(journal, long, range(3)))
    messages = list[str]()
    damages = (
        ("store.sqlite", "UPDATE replies SET reply = substr(reply, 1, 5)"),
        ("store.sqlite", "UPDATE replies SET said = x'00'"),
        ("first/journal.sqlite", "UPDATE texts SET text = x'00' WHERE typeof(text) = 'blob'"),
    )
    for i, (file, damage) in enumerate(damages):
        with closing(sqlite3.connect(tmp_path / file, isolation_level=None)) as database:
            database.execute(damage)
        whole = file.startswith("first")
        others = EarlierRuns([tmp_path / "first"], failed=messages.append) if whole else None
        with (
            closing(others or Store(tmp_path / file, failed=messages.append)) as earlier,
            Journal(tmp_path / f"{i}.sqlite", store=earlier) as journal,
        ):
            assert asyncio.run(_calls(journal, long, range(3))) == replies
            assert sum(cost.calls for cost in journal.costs()) == 3
    assert ["goes on without it" in message for message in messages] == [True, True, False]
    assert "lends no further reply" in messages[2]


def test_an_earlier_run_lends_its_replies_and_stays_as_it_is(tmp_path: Path) -> None:
    import asyncio

    for folder in ("first", "second"):
        (tmp_path / folder).mkdir()
    long = Scripted("ada", lambda _, __, seed: f"  {seed} " + "and so on " * 40)
    with Journal(tmp_path / "first" / "journal.sqlite") as journal:
        replies = asyncio.run(_calls(journal, long, range(3)))
    before = (tmp_path / "first" / "journal.sqlite").read_bytes()
    mute = Scripted("ada", lambda _, __, seed: f"new {seed}")
    mute.identity = long.identity
    with (
        closing(EarlierRuns([tmp_path / "first"])) as earlier,
        Journal(tmp_path / "second" / "journal.sqlite", store=earlier) as journal,
    ):
        assert asyncio.run(_calls(journal, mute, range(4))) == [*replies, "new 3"]
        assert sum(cost.calls for cost in journal.costs()) == 1
    assert (tmp_path / "first" / "journal.sqlite").read_bytes() == before
    with pytest.raises(DataError, match="no run whose replies"):
        EarlierRuns([tmp_path])


def test_what_is_no_store_is_refused(tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_text("not a database, though long enough to look like one " * 100)
    with pytest.raises(DataError, match="cannot open the store"):
        Store(text)
    Journal(tmp_path / "journal.sqlite").close()
    with pytest.raises(DataError, match="not a store"):
        Store(tmp_path / "journal.sqlite")
    Store(tmp_path / "store").close()
    with sqlite3.connect(tmp_path / "store") as database:
        database.execute("PRAGMA user_version = 99")
    database.close()
    with pytest.raises(RunConflict, match="format 99"):
        Store(tmp_path / "store")
