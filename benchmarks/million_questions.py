"""What a part of a very large run costs: seconds, bytes of store and memory a question, and the merge of the parts.

Three scripted agents debate in two rounds of replies of about 100 words, so that nothing is waited for but our own
work. Parts are asked one after the other, each by its own `viva run --part`. Prints one line of JSON::

    python benchmarks/million_questions.py --questions 60000 --parts 3      # every part, and their merge
    python benchmarks/million_questions.py --questions 1000000 --parts 500 --asked 1     # one part of a million
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vivavoce.records import Message, Sampling, digest, seed_of

_BEGINNINGS = ("bra", "den", "fil", "gor", "hum", "kel", "lim", "nor", "pos", "tur", "ves", "wim")
WORDS = [f"{a}{b}" for a in _BEGINNINGS for b in ("ing", "er", "at", "on", "el")]
RIGHT = 0.7


def respond(messages: Sequence[Message], sampling: Sampling, seed: int) -> str:
    """A reply of about 100 words that ends in the answer, which is right in most cases."""
    rng = random.Random(seed_of(seed, digest(list(messages))))
    text = " ".join(rng.choices(WORDS, k=rng.randint(80, 110)))
    return f"{text}.\nFinal answer: {4 if rng.random() < RIGHT else rng.randint(5, 9)}"


def recipe(folder: Path, questions: int) -> Path:
    """The recipe, with its questions beside it."""
    with (folder / "questions.jsonl").open("w", encoding="utf-8") as file:
        for i in range(questions):
            text = f"In world {i} a baker has 2 loaves and bakes 2 more before noon. How many loaves has the baker?"
            file.write(json.dumps({"id": f"q{i}", "question": text, "answer": "4"}) + "\n")
    test = {"id": "t", "question": "What is 1 + 3?", "answer": "4"}
    (folder / "test.jsonl").write_text(json.dumps(test) + "\n", "utf-8")
    values = {
        "method": "debate_reflect",
        "name": "million",
        "task": {
            "name": "jsonl",
            "train_path": str(folder / "questions.jsonl"),
            "test_path": str(folder / "test.jsonl"),
            "grader": "number",
        },
        "teachers": [
            {"name": name, "backend": "scripted", "function": f"{Path(__file__).resolve()}:respond"}
            for name in ("ada", "bob", "cyd")
        ],
        "student": {"name": "student", "model": "schoolhouse:student", "dtype": "float32", "max_new_tokens": 8},
        "debate": {"max_rounds": 2, "stop": "cap_only", "student": "never"},
        "test": {"max_new_tokens": 8, "committee": False},
    }
    (folder / "recipe.yaml").write_text(json.dumps(values), "utf-8")
    return folder / "recipe.yaml"


def measured(*words: str | Path) -> dict[str, float]:
    """Run `viva` with these words: its seconds, its processor seconds, and the most memory that it held."""
    begun = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "vivavoce.cli", *map(str, words)], stdout=sys.stderr)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(process.returncode)
    seconds, peak = time.perf_counter() - begun, used.ru_maxrss * 1024 / 2**20
    return {"seconds": seconds, "processor_s": used.ru_utime + used.ru_stime, "peak_mib": peak}


def size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--questions", type=int, default=60_000, help="of the whole run")
    parser.add_argument("--parts", type=int, default=3)
    parser.add_argument("--asked", type=int, help="ask the first so many parts, and merge nothing")
    asked = parser.parse_args()
    result: dict[str, Any] = {"questions": asked.questions, "parts": asked.parts, "asked": []}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        of = recipe(folder, asked.questions)
        parts = [folder / f"part-{i}" for i in range(1, (asked.asked or asked.parts) + 1)]
        for i, part in enumerate(parts, 1):
            costs = measured("run", of, "--part", f"{i}/{asked.parts}", "--out", part)
            each = len(range(i - 1, asked.questions, asked.parts))
            journal, graphs = (size(part / name) if (part / name).is_dir() else 0 for name in ("", "graphs"))
            costs |= {"questions": each, "ms_a_question": 1000 * costs["processor_s"] / each}
            costs |= {"bytes_a_question": journal / each, "of_them_graphs": graphs / each, "load": os.getloadavg()[0]}
            result["asked"].append(costs)
            print(f"part {i}: {json.dumps(costs)}", file=sys.stderr)
        if asked.asked is None:
            result["merge"] = measured("merge", folder / "whole", *parts)
            result["merge"]["bytes"] = size(folder / "whole")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
