"""Debates on a Ray cluster of two nodes: how much faster than on one, and what is lost if a node is killed half-way.

Prints ``{"ratio", "calls_repeated", "graphs_equal", …}``. Nodes are processes of this machine with one core each; the
teachers are an endpoint on loopback of known latency and slots, which counts what it is asked::

    python benchmarks/ray_two_nodes.py --questions 600
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gzip
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import ray
from ray.cluster_utils import Cluster

from vivavoce.bench.loopback import loopback, stats
from vivavoce.config import Recipe, check_recipe
from vivavoce.merging import open_parts, take_over
from vivavoce.methods.debating import DebateSession
from vivavoce.run import open_run
from vivavoce.scale.ray_parts import ask_in_parts


def recipe(address: str, folder: Path, questions: int, parts: int) -> Recipe:
    """Two teachers who debate in two rounds; 64 calls of a part are in flight at once."""
    problems, test = folder / "questions.jsonl", folder / "test.jsonl"
    test.write_text(json.dumps({"id": "t", "question": "What is 1 + 3?", "answer": "4"}) + "\n", "utf-8")
    rows = [{"id": f"q{i}", "question": f"What is 2 + 2, in world {i}?", "answer": "4"} for i in range(questions)]
    problems.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    task = {"name": "jsonl", "train_path": str(problems), "test_path": str(test), "grader": "number"}
    served = {"backend": "openai_chat", "base_url": address, "api_key_env": None, "max_new_tokens": 300}
    values = {
        "method": "debate_reflect",
        "name": "ray",
        "task": task,
        "teachers": [{"name": name, "model": name, **served} for name in ("ada", "bob")],
        "student": {"name": "student", "model": "schoolhouse:student", "dtype": "float32", "max_new_tokens": 8},
        "debate": {"max_rounds": 2, "stop": "cap_only", "student": "never"},
        "test": {"max_new_tokens": 8, "committee": False},
        "in_flight": 32,
        "scale": {"engine": "ray", "parts": parts},
    }
    return check_recipe(values, folder / "recipe.yaml")


@contextlib.contextmanager
def cluster(nodes: int) -> Iterator[Cluster]:
    """A Ray cluster of nodes with one core each, to which this process is connected."""
    head = {"num_cpus": 1, "include_dashboard": False}
    # Ray's own end at exit needs a main thread, and a node that comes back is added by another one.
    made = Cluster(initialize_head=True, head_node_args=head, shutdown_at_exit=False)
    for _ in range(nodes - 1):
        made.add_node(num_cpus=1)
    ray.init(address=made.address, log_to_driver=False, configure_logging=False)
    try:
        yield made
    finally:
        ray.shutdown()
        made.shutdown()


def graphs(of: Recipe, path: Path, parts: list[Path]) -> bytes:
    """The graphs of a run: of what its parts have asked, or of what this process asks."""

    async def hold(run: Any) -> None:
        async with DebateSession(of, run, of.rules) as session:
            await session.debate(session.task.problems("train"))

    with open_run(path, of) as run:
        if parts:
            with open_parts(of, parts) as opened:
                take_over(run, opened)
        asyncio.run(hold(run))
    return gzip.decompress((path / "graphs" / "train.jsonl.gz").read_bytes())


def timed(of: Recipe, path: Path, nodes: int) -> float:
    with cluster(nodes):
        ray.get([ray.remote(num_cpus=1, scheduling_strategy="SPREAD")(_warm).remote() for _ in range(2 * nodes)])
        begun = time.perf_counter()
        ask_in_parts(of, path)
        return time.perf_counter() - begun


def _warm() -> None:
    """Import what a part needs, so that no node is measured by its imports."""

    time.sleep(0.5)


_WRITTEN_S = 0.1
"""Seconds after which a reply that was sent is written down."""


def workers(path: Path) -> list[int]:
    """Processes that are at work in a part of the run, by the journals that they hold open."""
    holding = dict[int, None]()
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        with contextlib.suppress(OSError):
            file = link.readlink()
            if file.name == "journal.sqlite" and file.is_relative_to(path / "parts"):
                holding[int(link.parts[2])] = None
    return list(holding)


def killed(of: Recipe, path: Path, address: str, calls: int, back: bool = False, worker: bool = False) -> list[Path]:
    """The parts of a run one of whose two nodes is killed when half of the calls are answered; ``back`` has a node
    take its place, as one that was started again does. With ``worker`` only the process of one part is killed."""
    with cluster(2) as two:
        victim = next(iter(two.worker_nodes))

        def kill() -> None:
            start = stats(address)["served"]
            while stats(address)["served"] - start < calls / 2:
                time.sleep(0.02)
            if worker:
                time.sleep(_WRITTEN_S)
                os.kill(workers(path)[0], signal.SIGKILL)
                return
            two.remove_node(victim, allow_graceful=False)
            if back:
                two.add_node(num_cpus=1)

        with ThreadPoolExecutor(1) as killer:
            ended = killer.submit(kill)
            parts = ask_in_parts(of, path)
            ended.result()
    return parts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--questions", type=int, default=600)
    parser.add_argument("--parts", type=int, default=8)
    parser.add_argument("--latency-s", type=float, default=0.2)
    parser.add_argument("--slots", type=int, default=256)
    parser.add_argument("--no-speed", action="store_true", help="only kill a node")
    parser.add_argument("--back", action="store_true", help="the node that was killed comes back")
    parser.add_argument("--worker", action="store_true", help="kill the process of one part, not a node")
    asked = parser.parse_args()
    result: dict[str, Any] = {"questions": asked.questions, "parts": asked.parts, "load": os.getloadavg()[0]}
    with tempfile.TemporaryDirectory() as folder:
        where = Path(folder)
        with loopback(asked.latency_s, asked.slots) as address:
            of = recipe(address, where, asked.questions, asked.parts)
            print("one process asks all", file=sys.stderr)
            whole = graphs(of, where / "whole", [])
            calls = stats(address)["served"]
            print(f"one process has asked {calls} calls", file=sys.stderr)
        if not asked.no_speed:
            for nodes in (1, 2):
                print(f"{nodes} nodes ask", file=sys.stderr)
                with loopback(asked.latency_s, asked.slots) as address:
                    result[f"seconds_{nodes}"] = timed(
                        recipe(address, where, asked.questions, asked.parts), where / f"nodes{nodes}", nodes
                    )
                    print(f"{nodes} nodes: {result[f'seconds_{nodes}']:.1f} s", file=sys.stderr)
            result["ratio"] = result["seconds_1"] / result["seconds_2"]
        with loopback(asked.latency_s, asked.slots) as address:
            of = recipe(address, where, asked.questions, asked.parts)
            print("two nodes ask, and something is killed half-way", file=sys.stderr)
            parts = killed(of, where / "killed", address, calls, asked.back, asked.worker)
            result["calls"], result["calls_asked"] = calls, stats(address)["served"]
            result["calls_repeated"] = stats(address)["repeated"]
            merged = graphs(of, where / "merged", parts)
        # the address is part of an agent's identity, and so of keys, which are no part of what was said
        result["graphs_equal"] = without_calls(merged) == without_calls(whole)
    print(json.dumps(result))


def without_calls(lines: bytes) -> list[Any]:
    """Graphs without the keys of their calls."""
    rows = [json.loads(line) for line in lines.splitlines()]
    for graph in rows:
        for node in graph["nodes"]:
            node.pop("call", None)
    return rows


if __name__ == "__main__":
    main()
