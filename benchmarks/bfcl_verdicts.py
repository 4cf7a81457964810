"""Compare our verdicts on BFCL's answers with those of bfcl-eval's own checkers, answer by answer.

    python -m venv .venv-bfcl && .venv-bfcl/bin/pip install bfcl-eval==2026.3.23 soundfile
    python benchmarks/bfcl_verdicts.py DATA/bfcl --reference .venv-bfcl/bin/python

Judged are the official answers and mutations of them: of one turn in Java and JavaScript, where their checker reads
source text and ours JSON values, and of several turns. Prints how many verdicts agree, and each that does not.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

LANGUAGES = {"simple_java": "java", "simple_javascript": "javascript"}
MOST = 5
"""So many mutations of a conversation are played, drawn from all."""


def answers(data: Path) -> Iterator[dict[str, Any]]:
    """Answers of one turn, with our verdict on each."""
    from vivavoce.agents.call_text import read_calls
    from vivavoce.files import json_lines
    from vivavoce.tasks import open_task

    for category, language in LANGUAGES.items():
        file = data / f"BFCL_v4_{category}.json"
        task: Any = open_task("bfcl", {"test_path": str(file)})
        rows = {row["id"]: row for row in (json.loads(line) for _, line in json_lines(file))}
        beside = data / "possible_answer" / file.name
        wanted = {row["id"]: row["ground_truth"] for row in (json.loads(line) for _, line in json_lines(beside))}
        for (id_, row), sample in zip(rows.items(), task.samples("test"), strict=True):
            for text in (*sample.right, *sample.wrong):
                calls = [{call.name: call.arguments} for call in read_calls(text)]
                yield {
                    "id": id_,
                    "language": language,
                    "functions": row["function"],
                    "wanted": wanted[id_],
                    "calls": calls,
                    "ours": bool(task.grade(sample.problem, text).correct),
                }


def conversations(data: Path) -> Iterator[dict[str, Any]]:
    """Answers of several turns, with our verdict on each."""
    from vivavoce.environments.bfcl.conversations import CATEGORIES, read_conversations
    from vivavoce.environments.bfcl.several_turns import SeveralTurns
    from vivavoce.files import json_lines
    from vivavoce.tasks.bfcl_turns_checking import faults_of, mutations

    for category in CATEGORIES:
        world = SeveralTurns(read_conversations(data, category))
        name = f"BFCL_v4_multi_turn_{category}.json"
        rows = {row["id"]: row for row in (json.loads(line) for _, line in json_lines(data / name))}
        beside = data / "possible_answer" / name
        wanted = {row["id"]: row["ground_truth"] for row in (json.loads(line) for _, line in json_lines(beside))}
        for talk in world.conversations.values():
            others = list(mutations(talk))
            drawn = random.Random(talk.id).sample(others, min(MOST, len(others)))
            expected = ("expected", [turn.expected for turn in talk.turns])
            for what, calls in (expected, *((one.what, one.calls) for one in drawn)):
                sources = [[_source(call.name, call.arguments) for call in turn] for turn in calls]
                row = {key: rows[talk.id][key] for key in ("id", "initial_config", "involved_classes")}
                case = {"id": talk.id, "what": what, "row": row, "wanted": wanted[talk.id], "said": sources}
                yield {**case, "ours": not faults_of(world, talk, calls)}


def _source(name: str, arguments: dict[str, Any]) -> str:
    return f"{name}({', '.join(f'{key}={value!r}' for key, value in arguments.items())})"


# --- in the environment of bfcl-eval: nothing of ours is imported


def judge(case: dict[str, Any], number: int) -> bool:
    """Return the verdict of bfcl-eval on one case."""
    if "said" in case:
        from bfcl_eval.eval_checker.multi_turn_eval.multi_turn_checker import (  # pyright: ignore
            multi_turn_checker,
        )

        steps = [[turn] if turn else [] for turn in case["said"]]
        return bool(multi_turn_checker(steps, case["wanted"], case["row"], "", f"m{number}")["valid"])
    from bfcl_eval.constants.enums import Language  # pyright: ignore
    from bfcl_eval.eval_checker.ast_eval.ast_checker import ast_checker  # pyright: ignore

    language = case["language"]
    schemas = {f["name"]: f["parameters"]["properties"] for f in case["functions"]}
    calls = [
        {n: {k: literal(v, schemas.get(n, {}).get(k, {}), language) for k, v in given.items()}}
        for call in case["calls"]
        for n, given in call.items()
    ]
    verdict = ast_checker(case["functions"], calls, case["wanted"], Language(language), f"simple_{language}", MODEL)
    return bool(verdict["valid"])


MODEL = "gorilla-openfunctions-v2"
"""A model of theirs that keeps the dots in names."""


def literal(value: Any, schema: dict[str, Any], language: str) -> str:
    """A JSON value as the source text that a model of that language would write for a parameter."""
    kind = schema.get("type", "any")
    if kind == "any" and not isinstance(value, str):
        return _plain(value)
    if kind in ("any", "char") or (language == "java" and kind == "String"):
        return value if isinstance(value, str) else _plain(value)
    if kind == "long" and isinstance(value, int):
        return f"{value}L"
    if kind == "float" and language == "java" and isinstance(value, int | float):
        return f"{value}f"
    if kind == "Bigint" and isinstance(value, int):
        return f"{value}n"
    if kind == "Array" and isinstance(value, list):
        inner = schema.get("items", {}).get("type", "String")
        return f"new {inner}[]{{{', '.join(map(_plain, value))}}}"
    if kind == "ArrayList" and isinstance(value, list):
        inner = schema.get("items", {})
        return f"new ArrayList<String>(Arrays.asList({', '.join(literal(v, inner, language) for v in value)}))"
    if kind == "HashMap" and isinstance(value, dict):
        put = " ".join(f"put({_plain(k)}, {_plain(v)});" for k, v in value.items())
        return f"new HashMap<String, String>() {{{{ {put} }}}}"
    if isinstance(value, str) and kind != "String":
        return value  # a variable
    return _plain(value)


def _plain(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def main() -> int:
    """Ask both, and compare."""
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("data", type=Path, help="the folder of the official files; with --judge a file of cases")
    options.add_argument("--reference", help="a Python that has bfcl-eval")
    options.add_argument("--judge", action="store_true", help=argparse.SUPPRESS)
    asked = options.parse_args()
    if asked.judge:
        for number, line in enumerate(asked.data.read_text("utf-8").split("\n")):
            if line:
                try:
                    print(json.dumps(judge(json.loads(line), number)), flush=True)
                except Exception as error:  # noqa: BLE001  their converters end so on what they do not read
                    print(json.dumps(f"{type(error).__name__}: {error}"), flush=True)
        return 0
    cases = [*answers(asked.data), *conversations(asked.data)]
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl", encoding="utf-8") as file:
        file.write("\n".join(json.dumps(case) for case in cases))
        file.flush()
        command = [asked.reference, __file__, file.name, "--judge"]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    theirs = [json.loads(line) for line in done.stdout.splitlines() if line.startswith(("true", "false", '"'))]
    if len(theirs) != len(cases):
        sys.exit(f"{len(theirs)} verdicts on {len(cases)} answers")
    counted = Counter[tuple[str, str]]()
    for case, their in zip(cases, theirs, strict=True):
        kind = case["id"].rpartition("_")[0] if "said" in case else case["language"]
        same = case["ours"] == their
        counted[kind, "alike" if same else "differ"] += 1
        if not same:
            print(f"{case['id']}: ours {case['ours']}, theirs {their}: {case.get('what') or case['calls']}")
    for (kind, how), n in sorted(counted.items()):
        print(f"{kind}: {n:,} {how}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
