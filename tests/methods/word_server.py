"""Word problems, and teachers behind a real HTTP endpoint on loopback who solve them: so often right, so talkative.

Its tokens are words and signs; long words are several. What it is asked it answers the same again, by seed where the
temperature is not 0.
"""

from __future__ import annotations

import json
import random
import re
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tests.listening import Handler, Listening

from vivavoce.records import digest

WORDS = [
    "then",
    "we",
    "look",
    "at",
    "what",
    "is",
    "given,",
    "carry",
    "the",
    "sum",
    "over",
    "to",
    "the",
    "next",
    "part",
    "of",
    "it,",
    "and",
    "go",
    "on",
]


class Teacher(NamedTuple):
    right: float
    words: int


class Asked(NamedTuple):
    """One call that was answered."""

    key: str
    model: str
    question: str
    prompt: int
    completion: int


class WordServer(Listening):
    """Serves ``teachers``. ``requests`` counts what was answered, ``spent`` its tokens, ``asked`` holds each call.

    ``frozen`` ignores temperature and seed, ``fickle`` never says the same twice, ``silent`` tells no usage. An answer
    takes ``latency_s``. The list of models tells of ``context`` tokens, if of any; it has the names ``listed``, by
    default the teachers', and there is none if that is empty.
    """

    def __init__(
        self,
        teachers: dict[str, Teacher],
        *,
        frozen: bool = False,
        fickle: bool = False,
        silent: bool = False,
        latency_s: float = 0.0,
        context: int | None = None,
        listed: Sequence[str] | None = None,
    ):
        self.listed = list(teachers) if listed is None else list(listed)
        self.teachers, self.frozen, self.fickle, self.silent = teachers, frozen, fickle, silent
        self.latency_s, self.context = latency_s, context
        self.requests, self.spent = 0, [0, 0]
        self.asked: list[Asked] = []
        self._lock = threading.Lock()
        outer = self

        class Reached(Handler):
            def do_POST(self) -> None:
                asked = json.loads(self.body())
                if not self.path.startswith("/v1/"):
                    self.say({"error": {"message": "not found"}}, 404)
                    return
                status, answer = outer._answer(asked)
                time.sleep(outer.latency_s)
                self.say(answer, status)

            def do_GET(self) -> None:
                if not outer.listed or self.path != "/v1/models":
                    self.say({"error": {"message": "not found"}}, 404)
                    return
                listed = {} if outer.context is None else {"max_model_len": outer.context}
                self.say({"object": "list", "data": [{"id": name, **listed} for name in outer.listed]})

        super().__init__(Reached)

    def _answer(self, asked: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        teacher = self.teachers.get(asked["model"])
        if teacher is None:
            return 404, {"error": {"message": f"no model {asked['model']}", "code": "model_not_found"}}
        with self._lock:
            self.requests += 1
            drawn = asked["seed"] if asked["temperature"] and not self.frozen else 0
            seed = [asked["model"], asked["messages"], drawn, self.requests if self.fickle else 0]
            rng = random.Random(digest(seed))
        text = _reply(asked["messages"][-1]["content"], teacher, rng)
        usage = {
            "prompt_tokens": sum(3 + _tokens(m["content"]) for m in asked["messages"]),
            "completion_tokens": _tokens(text),
        }
        with self._lock:
            self.spent[0] += usage["prompt_tokens"]
            self.spent[1] += usage["completion_tokens"]
            key = digest([asked["model"], asked["messages"], asked["seed"]])
            self.asked.append(Asked(key, asked["model"], _question(asked["messages"]), *usage.values()))
        message = {"role": "assistant", "content": text}
        choice = {"index": 0, "finish_reason": "stop", "message": message}
        usage_part = {} if self.silent else {"usage": usage}
        return 200, {
            "id": "c",
            "object": "chat.completion",
            "created": 1,
            "model": asked["model"],
            "choices": [choice],
            **usage_part,
        }


def _question(messages: list[dict[str, str]]) -> str:
    return re.findall(r"On day (\d+),", messages[-1]["content"])[0] if "On day" in messages[-1]["content"] else ""


def _tokens(text: str) -> int:
    return len(re.findall(r"\w{1,6}|[^\w\s]", text))


def _reply(prompt: str, teacher: Teacher, rng: random.Random) -> str:
    length = max(5, round(rng.gauss(teacher.words, teacher.words / 5)))
    numbers = re.findall(r"has (\d+) \w+ and buys (\d+)", prompt)
    talk = " ".join(rng.choices(WORDS, k=length))
    if not numbers:
        return f"{rng.randrange(10**8)} {talk}"
    gold = sum(map(int, numbers[0]))
    persuaded = "Several experts" in prompt and f"Final answer: {gold}" in prompt
    right = rng.random() < (0.8 if persuaded else teacher.right)
    if "in square brackets" in prompt:
        return f"{talk}. [{rng.randrange(1, 6)}]"
    if "Name the mistakes" in prompt or "do not\nwrite a new answer" in prompt:
        return f"{talk}, and there it goes astray."
    return f"{talk}.\nFinal answer: {gold if right else gold + rng.randrange(1, 3)}"


def write_problems(folder: Path, train: int, test: int) -> dict[str, Any]:
    """A task of word problems, as a recipe names it."""
    rng = random.Random(3)
    names, things = ("Ada", "Bob", "Cyd", "Dora"), ("apples", "books", "coins", "stamps")
    rows = []
    for i in range(train + test):
        name, what, had, more = rng.choice(names), rng.choice(things), rng.randrange(9, 99), rng.randrange(9, 99)
        text = f"On day {i}, {name} has {had} {what} and buys {more} more at the market in the old town."
        rows.append({"question": f"{text} How many {what} are there in the evening?", "answer": str(had + more)})
    for name, part in (("train", rows[:train]), ("test", rows[train:])):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in part))
    return {
        "name": "jsonl",
        "train_path": str(folder / "train.jsonl"),
        "test_path": str(folder / "test.jsonl"),
        "grader": "number",
    }
