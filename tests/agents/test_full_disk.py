"""A disk that is really full: a small tmpfs, in a namespace of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

_BEGIN = """
import asyncio, json, os, sys
from pathlib import Path
from vivavoce.agents.journal import Journal
from vivavoce.agents.scripted import Scripted
from vivavoce.agents.store import Store
from vivavoce.errors import UserError
from vivavoce.records import Reply, Sampling, Usage

disk, elsewhere = map(Path, sys.argv[1:])
asked = []

def answer(messages, sampling, seed):
    asked.append(seed)
    return Reply(f"{seed} {os.urandom(2000).hex()}", usage=Usage(10, 5))

agent = Scripted("ada", answer)

async def calls(journal, seeds):
    had = []
    for seed in seeds:
        answered = await journal.call(agent, [{"role": "user", "content": "?"}], Sampling(), seed)
        had.append(answered.reply.text)
    return had

"""


def on_small_disk(tmp_path: Path, script: str, size: str = "400k") -> Any:
    """What the script printed as JSON, run where ``disk`` is a file system of that size; skips where none can be."""
    disk, elsewhere = tmp_path / "disk", tmp_path / "elsewhere"
    disk.mkdir()
    elsewhere.mkdir()
    mount = f"mount -t tmpfs -o size={size} tmpfs '{disk}'"
    if subprocess.run(["unshare", "-rm", "sh", "-c", mount], capture_output=True, check=False).returncode:
        pytest.skip("no file system can be mounted here")
    (tmp_path / "script.py").write_text(_BEGIN + textwrap.dedent(script))
    command = f"{mount} && exec '{sys.executable}' '{tmp_path / 'script.py'}' '{disk}' '{elsewhere}'"
    ran = subprocess.run(["unshare", "-rm", "sh", "-c", command], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="namespaces are Linux's")
def test_a_run_whose_disk_is_full_says_so_and_goes_on_when_there_is_room(tmp_path: Path) -> None:
    made = on_small_disk(
        tmp_path,
        """
        filler = disk / "filler"
        filler.write_bytes(bytes(500_000))
        said, had = "", []
        try:
            with Journal(disk / "journal.sqlite") as journal:
                for seed in range(100):
                    had += asyncio.run(calls(journal, [seed]))
        except UserError as error:
            said = str(error)
        done, before = len(had), len(asked)
        filler.unlink()
        with Journal(disk / "journal.sqlite") as journal:
            again = asyncio.run(calls(journal, range(done + 5)))
        print(json.dumps({"said": said, "done": done, "kept": again[:done] == had, "asked": asked[before:]}))
        """,
        size="800k",
    )
    assert "cannot write the journal" in made["said"]
    assert "full" in made["said"]
    assert "free disk space and give the same command" in made["said"]
    assert made["done"] > 2, made
    assert made["kept"], "no completed call is lost"
    assert made["asked"] == list(range(made["done"], made["done"] + 5)), "nor made again"


@pytest.mark.skipif(sys.platform != "linux", reason="namespaces are Linux's")
def test_a_store_whose_disk_is_full_stops_nobody(tmp_path: Path) -> None:
    made = on_small_disk(
        tmp_path,
        """
        said, room = [], disk / "room"
        room.write_bytes(bytes(100_000))
        store = Store(disk / "store.sqlite", failed=said.append)
        with Journal(elsewhere / "journal.sqlite", store=store) as journal:
            asyncio.run(calls(journal, range(200)))
            rows = len(journal)
        store.close()
        (disk / "filler").write_bytes(bytes(os.statvfs(disk).f_bavail * 4096))
        refused = ""
        try:
            Store(disk / "other.sqlite")
        except UserError as error:
            refused = str(error)
        room.unlink()
        kept = Store(disk / "store.sqlite")
        print(json.dumps({"said": said, "rows": rows, "kept": len(kept), "refused": refused}))
        """,
    )
    assert made["rows"] == 200, "the run's own journal has everything"
    assert len(made["said"]) == 1
    assert "the run goes on without it" in made["said"][0]
    assert 0 < made["kept"] < 200, "what was written before is still there"
    assert "free disk space" in made["refused"], made
