"""Graphs of a run are packed line by line: any gzip reader takes the file, and each graph is read by itself."""

from __future__ import annotations

import asyncio
import gzip
import subprocess
from pathlib import Path
from typing import Any

import pandas
import pytest

from vivavoce.config import check_recipe
from vivavoce.errors import DataError
from vivavoce.graph import Graph, graph_file, graph_files, read_graphs, stored_graphs, write_graphs
from vivavoce.graph.packed import LinePlace, line_places, pack
from vivavoce.graph.stored import gathering
from vivavoce.methods.asking import kept_graphs
from vivavoce.records import Problem, node
from vivavoce.run import open_run

GRAPHS = [
    Graph(
        p := Problem(f"q{i}", f"{i} + 2?", f"{i + 2}"), (node("answer", p.id, "ada", 0, f"It is {i + 2} — é. " * 90),)
    )
    for i in range(3)
]


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    write_graphs(tmp_path / "train.jsonl.gz", GRAPHS)
    return tmp_path / "train.jsonl.gz"


def test_a_packed_file_is_a_gzip_file_for_everybody_and_the_same_each_time(packed: Path, tmp_path: Path) -> None:
    write_graphs(tmp_path / "plain.jsonl", GRAPHS)
    plain = (tmp_path / "plain.jsonl").read_bytes()
    assert gzip.decompress(packed.read_bytes()) == plain
    assert subprocess.run(["zcat", packed], capture_output=True, check=True).stdout == plain
    frame: Any = pandas.read_json(packed, lines=True)
    assert [p["id"] for p in frame.problem] == ["q0", "q1", "q2"]
    assert list(read_graphs(packed)) == GRAPHS
    assert len(packed.read_bytes()) * 5 < len(plain)
    write_graphs(tmp_path / "again.jsonl.gz", GRAPHS)
    assert (tmp_path / "again.jsonl.gz").read_bytes() == packed.read_bytes()


def test_each_graph_is_read_by_itself_packed_or_not_and_gathered_ones_are_written_alike(
    packed: Path, tmp_path: Path
) -> None:
    write_graphs(tmp_path / "plain.jsonl", GRAPHS)
    for file in (packed, tmp_path / "plain.jsonl"):
        kept = stored_graphs(file)
        assert (len(kept), kept[1], kept[-1]) == (3, GRAPHS[1], GRAPHS[2])
    gathered = gathering(3, tmp_path)
    for at in (2, 0, 1):
        gathered.put(at, GRAPHS[at])
    for file in (packed, tmp_path / "plain.jsonl"):
        gathered.write(made := tmp_path / f"made-{file.name}")
        assert made.read_bytes() == file.read_bytes()
    with packed.open("rb") as file:
        lengths = [len(pack((g.to_json() + "\n").encode())) for g in GRAPHS]
        assert list(line_places(file, "x")) == [LinePlace(sum(lengths[:i]), lengths[i]) for i in range(3)]


def test_a_file_that_another_program_packed_or_that_was_cut_is_refused_with_a_sentence(
    packed: Path, tmp_path: Path
) -> None:
    content = packed.read_bytes()
    foreign, cut = tmp_path / "foreign.jsonl.gz", tmp_path / "cut.jsonl.gz"
    foreign.write_bytes(gzip.compress(gzip.decompress(content)))
    assert list(read_graphs(foreign)) == GRAPHS, "as a user's own file it is read"
    with pytest.raises(DataError, match="the line at byte 0 is not packed by itself") as error:
        stored_graphs(foreign)
    assert (error.value.where, error.value.do) == (str(foreign), "unpack the file: gunzip FILE")
    cut.write_bytes(content[:-20])
    kept = stored_graphs(cut)
    assert kept[1] == GRAPHS[1]
    with pytest.raises(DataError, match="cannot be unpacked") as error:
        kept[2]
    assert error.value.where == "graph 3"


def test_a_run_of_an_earlier_version_keeps_its_plain_graphs_and_asks_nothing_again(tmp_path: Path) -> None:
    recipe: Any = check_recipe(
        {
            "method": "debate_reflect",
            "name": "old",
            "task": {"name": "schoolhouse", "train": 3, "test": 1},
            "teachers": [{"name": "ada", "backend": "scripted", "replies": ["4"]}],
            "student": {"name": "student", "model": "schoolhouse:student"},
        },
        tmp_path,
    )

    async def refused(done: object) -> Any:
        raise AssertionError("nothing may be asked")

    with open_run(tmp_path / "run", recipe) as run:
        old = run.path / "graphs" / "train.jsonl"
        run.keep(old, ["x"], lambda part: write_graphs(part, GRAPHS))
        assert graph_files(run.path) == {"train": old}
        assert graph_file(run.path, "test") == run.path / "graphs" / "test.jsonl.gz"
        assert list(asyncio.run(kept_graphs(run, "train", ["x"], [], refused))) == GRAPHS
