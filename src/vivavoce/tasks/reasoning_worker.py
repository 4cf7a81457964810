"""Makes and scores questions of reasoning-gym: a program that :mod:`vivavoce.tasks.reasoning_gym` runs.

Several of the package's scorers evaluate the reply as Python. So each reply is scored in a fork of this process that
may compute and nothing else: it opens no file, socket or process, and a limit on time and memory ends it. One JSON line
with a request comes in, one line goes out::

    {"names": true}                                  ["ab", "acre", …]
    {"make": [name, config, seed, start, count]}     [[question, gold, example], …]
    {"score": [name, config, seed, index, reply]}    0.0 … 1.0, or a text that says why there is no score

An error of the package is ``{"failed": text}``.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import resource
import select
import signal
import sys
import threading
import time
import warnings
from functools import lru_cache
from typing import Any

from vivavoce.sandbox import kernel

_SIZES = (10_000, 1_000, 500, 50)
"""Questions that a data set is told to have: the first size that it takes. A question is made from its index alone, so
that nothing is made in vain; a few data sets bound their size by what they can make."""
_EXAMPLES = ("possible_answer", "example_answer", "example_correct_answer")
"""The field of an entry with an answer that is right, if others are as well and it names none as gold."""


def main(memory: int, seconds: float) -> None:
    """Answer requests until the input ends. A score may take ``seconds``, and ``memory`` bytes more than there are."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what the package prints is no answer
    threading.Thread(target=_die_with_parent, args=(os.getppid(),), daemon=True).start()
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    import reasoning_gym  # noqa: F401  registers the data sets

    print(json.dumps("ready"), file=answers, flush=True)
    for line in sys.stdin:
        ((what, value),) = json.loads(line).items()
        try:
            if what == "score":
                output: Any = _score(value, memory, seconds)
            else:
                output = _make(*value) if what == "make" else _names()
        except Exception as error:  # noqa: BLE001  whatever the package raises on a configuration is told
            output = {"failed": f"{type(error).__name__}: {error}"}
        print(json.dumps(output), file=answers, flush=True)


def _die_with_parent(parent: int) -> None:
    """End this process when its parent has ended, even during work: some data sets take minutes to make."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _names() -> list[str]:
    from reasoning_gym.factory import DATASETS

    return sorted(DATASETS)


def _make(name: str, config: dict[str, Any], seed: int, start: int, count: int) -> list[tuple[str, str, str]]:
    examples, made = [], _data_set(name, json.dumps(config, sort_keys=True), seed)
    for index in range(start, start + count):
        entry = made[index]
        facts = entry["metadata"]
        example = next((facts[key] for key in _EXAMPLES if facts.get(key) is not None), "")
        gold = "" if entry["answer"] is None else str(entry["answer"])
        examples.append((entry["question"], gold, example if isinstance(example, str) else json.dumps(example)))
    return examples


@lru_cache(maxsize=4)  # some hold gigabytes, and questions come data set by data set
def _data_set(name: str, config: str, seed: int) -> Any:
    from reasoning_gym import create_dataset

    options = json.loads(config)
    if name == "composite":
        from reasoning_gym.composite import DatasetSpec

        options["datasets"] = [DatasetSpec(**{"config": {}, "weight": 1.0, **one}) for one in options["datasets"]]
    for size in _SIZES:
        try:
            return create_dataset(name, **{"size": size, **options, "seed": seed})
        except (AssertionError, ValueError):
            if "size" in options or size == _SIZES[-1]:
                raise
    raise AssertionError("the last size raises")


@lru_cache(maxsize=4096)
def _entry(name: str, config: str, seed: int, index: int) -> Any:
    """An entry, for a score. The package's own answer is scored first, because that loads everything that a scorer
    loads late.
    """
    made = _data_set(name, config, seed)
    entry = made[index]
    with contextlib.suppress(Exception):
        made.score_answer(entry["answer"], entry)
    return entry


def _score(request: list[Any], memory: int, seconds: float) -> float | str:
    name, config, seed, index, reply = request
    plain = json.dumps(config, sort_keys=True)
    made, entry = _data_set(name, plain, seed), _entry(name, plain, seed, index)
    reads, writes = os.pipe()
    child = os.fork()
    if child == 0:
        _in_fork(made, entry, reply, writes, memory, seconds)
    os.close(writes)
    written, part, deadline = b"", b" ", time.monotonic() + seconds
    while part and select.select([reads], [], [], max(0.0, deadline - time.monotonic()))[0]:
        written += (part := os.read(reads, 1 << 16))
    os.close(reads)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    if part:
        return f"the scorer gave no score within {seconds:g} s"
    with contextlib.suppress(ValueError):
        return json.loads(written)
    return "the scorer broke down"


def _in_fork(made: Any, entry: Any, reply: str, writes: int, memory: int, seconds: float) -> None:
    """Score in a process that can do nothing else; never returns."""
    try:
        kernel.die_with_parent()
        os.dup2(writes, 3)
        os.closerange(4, 1 << 12)
        used = int(open("/proc/self/statm").read().split()[0]) * os.sysconf("SC_PAGE_SIZE")  # noqa: SIM115, PTH123
        for limit, most in (
            (resource.RLIMIT_AS, used + memory),
            (resource.RLIMIT_CPU, int(seconds) + 1),
            (resource.RLIMIT_FSIZE, 0),
            (resource.RLIMIT_CORE, 0),
        ):
            resource.setrlimit(limit, (most, most))
        kernel.filter_calls(files=False)
    except BaseException:  # noqa: BLE001  no reply may be scored outside
        os._exit(70)
    try:
        score: float | str = float(_own_score(made, entry, reply))
    except BaseException as error:  # noqa: BLE001  whatever a scorer raises on a reply is the outcome
        score = f"the scorer raised {type(error).__name__}"
    os.write(3, json.dumps(score).encode())
    os._exit(0)


def _own_score(made: Any, entry: Any, reply: str) -> float:
    """The package's score, and 0 for wrong replies that two of its scorers accept (reasoning-gym 0.1.25).

    ``game_of_life_halting`` compares ``bool(reply)``, which is true of any text, the word False included; ``puzzle24``
    takes any four numbers that make 24, not those of the question.
    """
    name = entry["metadata"].get("source_dataset")
    if name == "game_of_life_halting" and reply.strip().casefold() != str(entry["answer"]).casefold():
        return 0.0
    if name == "puzzle24":
        import re

        if sorted(map(int, re.findall(r"[0-9]+", reply))) != sorted(entry["metadata"]["numbers"]):
            return 0.0
    return made.score_answer(reply, entry)


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]))
