"""The viewer on a run of many questions: time to index, to search and to show, and the server's memory.

The run is made up: debates of four agents in two rounds with notes, and six students that sat the test. Every text is
of different words, so that nothing is found because it is common.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vivavoce.exams.examine import Judged
from vivavoce.graph import Graph, graph_file
from vivavoce.graph.packed import pack
from vivavoce.progress import say, say_seldom
from vivavoce.records import Node, Problem, Usage, node, to_json

_ARMS = ("student", "single+ada", "single+ben", "multi_teacher", "debate_reflect_sft", "debate_reflect")
_DIFFERENT = 400
"""Debates that differ in more than their ids."""
_SYLLABLES = [c + v for c in "bdfgklmnprstvz" for v in "aeiou"]


@dataclass(frozen=True, slots=True)
class Seen:
    """The measurements; seconds and MiB."""

    questions: int
    graphs_mib: float
    index_s: float
    index_cpu_s: float
    """Processor time of the server by then, its start and the questions after its progress included."""
    index_mib: float
    table_s: float
    search_rare_s: float
    search_common_s: float
    question_s: float
    peak_mib: float
    paint_s: float | None
    """Seconds from opening the page of questions to its first rows in Chromium; None if Chromium is not here."""
    found_s: float | None
    """Seconds from typing a rare word there to the one question that has it."""

    def __str__(self) -> str:
        painted = "" if self.paint_s is None else f"; in Chromium first rows after {self.paint_s:.2f} s"
        painted += "" if self.found_s is None else f", a typed word found after {self.found_s:.2f} s"
        return (
            f"{self.questions:,} questions ({self.graphs_mib:,.0f} MiB of graphs): indexed in {self.index_s:.1f} s "
            f"({self.index_cpu_s:.1f} s of processor) to {self.index_mib:,.0f} MiB; table {self.table_s:.2f} s, a rare "
            f"word {self.search_rare_s:.3f} s, a common one {self.search_common_s:.2f} s, one question "
            f"{self.question_s:.3f} s{painted}; server at most {self.peak_mib:.0f} MiB"
        )


def run(questions: int) -> Seen:
    """Measure a run of so many training questions, and as many test questions."""
    with tempfile.TemporaryDirectory() as folder:
        say(f"making a run of {questions:,} training and {questions:,} test questions")
        made = _make(Path(folder) / "many", questions)
        graphs = graph_file(made, "train").stat().st_size
        with _serve(made) as (address, process):
            say("the viewer reads it")
            start = time.perf_counter()
            while _get(address, "sets")["sets"] != _whole(questions) or _get(address, "state")["reading"]:
                time.sleep(1.0)
                say_seldom(f"  after {time.perf_counter() - start:.0f} s it still does")
            say("searching, and showing questions")
            indexed, cpu = time.perf_counter() - start, _cpu(process.pid)
            table = _time_request(address, "set/train")
            rare = _time_request(address, f"search/train?q=rareword{questions // 2}")
            common = _time_request(address, "search/train?q=step")
            question = _time_request(address, f"question/train/{questions // 3}")
            painted, figures = _in_browser(address, questions)
            return Seen(
                questions,
                round(graphs / 2**20, 1),
                round(indexed, 2),
                round(cpu, 2),
                round((made / "view.sqlite").stat().st_size / 2**20, 1),
                round(table, 3),
                round(rare, 4),
                round(common, 3),
                round(question, 4),
                round(_peak(process.pid), 1),
                painted,
                figures,
            )


def _whole(n: int) -> list[dict[str, Any]]:
    return [{"key": "train", "n": n}, {"key": "test", "n": n}]


def _make(path: Path, n: int) -> Path:
    for part in ("graphs", "evaluations"):
        (path / part).mkdir(parents=True)
    draw = random.Random(0)
    lines = [_debate(draw).to_json() for _ in range(min(n, _DIFFERENT))]
    with graph_file(path, "train").open("wb") as file:
        for i in range(n):
            line = lines[i % len(lines)].replace("QUESTION-ID", f"q{i:06}").replace("RAREWORD", f"rareword{i}")
            file.write(pack(f"{line}\n".encode()))
    for arm in _ARMS:
        with (path / "evaluations" / f"{arm}-0.jsonl").open("w", encoding="utf-8") as file:
            for i in range(n):
                right = draw.random() < 0.5
                row = Judged(f"t{i:06}", "sum", f"step {i}: {_words(draw, 8)}", "4", right, "ok", Usage(20, 20))
                file.write(to_json(row) + "\n")
    (path / "recipe.yaml").write_text("name: many\nseeds: [0]\nstudent: {name: student}\n")
    (path / "manifest.json").write_text("{}")
    return path


def _words(draw: random.Random, n: int) -> str:
    return " ".join("".join(draw.choices(_SYLLABLES, k=3)) for _ in range(n))


def _debate(draw: random.Random) -> Graph:
    p = Problem("QUESTION-ID", f"What is RAREWORD? {_words(draw, 30)}", "4", draw.choice(["sum", "mul", "bit"]))
    nodes, before = list[Node](), list[Node]()
    for r in range(2):
        now = []
        for agent in ("ada", "ben", "cyd", "student"):
            answer = draw.choice("45")
            text = f"step by step: {_words(draw, 90)} so the answer is {answer}"
            parents = tuple(b.id for b in before)
            more: dict[str, Any] = {"parents": parents, "answer": answer, "correct": answer == "4"}
            now.append(node("answer", p.id, agent, r, text, usage=Usage(200, 120), **more))
        notes = [
            node("critique", p.id, "ada", r, f"look again: {_words(draw, 60)}", parents=(b.id,), target=b.id)
            for b in now
            if not b.correct
        ]
        nodes += [*now, *notes]
        before = [*now, *notes]
    return Graph(p, tuple(nodes))


@contextmanager
def _serve(run_path: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    command = [sys.executable, "-m", "vivavoce.cli", "view", str(run_path), "--no-browser"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            yield process.stderr.readline().split()[0], process
        finally:
            process.terminate()


def _get(address: str, what: str) -> Any:
    with urllib.request.urlopen(f"{address}api/run/many/{what}", timeout=600) as answer:
        return json.load(answer)


def _time_request(address: str, what: str) -> float:
    start = time.perf_counter()
    _get(address, what)
    return time.perf_counter() - start


def _peak(pid: int) -> float:
    """The most memory that a process had, in MiB; NaN if the system does not tell."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return float("nan")
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def _cpu(pid: int) -> float:
    """Seconds of processor time of a process; NaN if the system does not tell."""
    try:
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return float("nan")
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def _in_browser(address: str, n: int) -> tuple[float | None, float | None]:
    """Seconds to the first rows of the page of questions, and from a typed word to the question that has it."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    try:
        from playwright.sync_api import sync_playwright
    except ModuleNotFoundError:
        return None, None
    if chromium is None:
        return None, None
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 860})
        page.goto(address)
        page.wait_for_selector(".run")
        page.goto("about:blank")
        start = time.perf_counter()
        page.goto(f"{address}#/run/many/questions/train")
        page.wait_for_selector(".rows .trow a")
        painted = round(time.perf_counter() - start, 3)
        start = time.perf_counter()
        page.fill(".search", f"rareword{n - 1}")
        while not page.inner_text(".count").startswith("1 of"):
            page.wait_for_timeout(10)
        return painted, round(time.perf_counter() - start, 3)


__all__ = ["Seen", "run"]
