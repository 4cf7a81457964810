"""Debates of which a fifth of all requests goes wrong, killed again and again: nothing is lost or paid twice.

What "completed" means: a call is completed when its reply is committed to the journal. The server cannot see that; it
sees answers that it sent whole. Between the two lies a moment, so a kill may cost the answers that were on their way
to the journal: of the few calls that were in flight. Every other answer that was sent is in the ledger, once.
"""

from __future__ import annotations

import hashlib
import random
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest
from tests.agents.faulty import FaultyServer, completion
from tests.command import Program, python

from vivavoce.agents import open_agent
from vivavoce.agents.journal import Call, Journal
from vivavoce.committee.prompting import prompt_set
from vivavoce.committee.table import Member, Setting, hold_all
from vivavoce.graph import read_graphs
from vivavoce.protocols import debate_reflect
from vivavoce.records import Problem, Sampling, Usage, digest
from vivavoce.tasks import open_task

TEACHERS, SLOTS = ("ada", "bob", "cyd"), 16
PASSING = (
    "busy=",
    "busy=0.02",
    "status=500",
    "status=503",
    "reset",
    "truncated",
    "body={oops",
    "body=[]",
    completion(""),
    completion(None),
)


class Endpoint(FaultyServer):
    """Answers as a function of the request; a share of the attempts goes wrong first, by hash of request and attempt.

    One request in fifty is refused and one in ten is answered without usage, whenever it is asked: that is the model,
    not the world. ``sent`` holds, by session of the client, what was sent whole: key of the call and tokens.
    """

    def __init__(self) -> None:
        super().__init__()
        self.begin(0.0)

    def begin(self, faults: float) -> None:
        """Forget what was asked so far. The address stays: it is part of what makes two calls equal."""
        self.requests.clear()
        self.faults, self.session = faults, 0
        self.sent: dict[int, list[tuple[str, Usage, bool]]] = defaultdict(list)
        self.asked: dict[int, Counter[str]] = defaultdict(Counter)
        self.injected: Counter[str] = Counter()
        self._attempts: Counter[str] = Counter()

    def step(self, body: dict[str, Any]) -> str | dict[str, Any]:
        key = key_of(body["model"], body["messages"], body["seed"])
        self.asked[self.session][key] += 1
        self._attempts[key] += 1
        draw = random.Random(f"{key} {self._attempts[key]}")
        if self._attempts[key] <= 3 and draw.random() < self.faults:
            fault = "stall" if draw.random() < 0.05 else draw.choice(PASSING)
            self.injected["empty" if isinstance(fault, dict) else fault] += 1
            return counted(fault, key) if isinstance(fault, dict) else fault
        number = int(key[:8], 16)
        if number % 50 == 0:
            return counted(completion(None, refusal="I would rather not."), key)
        answer = counted(completion(f"{key} says so.\nFinal answer: {4 if number % 2 else 5}"), key)
        if number % 10 == 1:
            del answer["usage"]
        return answer

    def answered(self, body: dict[str, Any], answer: dict[str, Any]) -> None:
        usage = answer.get("usage") or {"prompt_tokens": 0, "completion_tokens": 0}
        good = bool(answer["choices"][0]["message"]["content"])
        key = key_of(body["model"], body["messages"], body["seed"])
        self.sent[self.session].append((key, Usage(usage["prompt_tokens"], usage["completion_tokens"]), good))


def counted(answer: dict[str, Any], key: str) -> dict[str, Any]:
    number = int(hashlib.sha256(key.encode()).hexdigest()[:8], 16)
    return {**answer, "usage": {"prompt_tokens": 100 + number % 900, "completion_tokens": 10 + number % 90}}


def key_of(model: str, messages: Any, seed: int) -> str:
    return digest([model, messages, seed])


def key_in(call: Call) -> str:
    return key_of(call.identity.rpartition(":")[2], call.messages, call.seed)


async def drive(address: str, run: Path, questions: int) -> None:
    """The debate, written to ``graphs.jsonl`` of the run when it is over."""
    rules = debate_reflect.Options(max_rounds=3, stop="cap_only")
    options = {"base_url": address, "api_key_env": None, "max_concurrency": SLOTS, "timeout_s": 4, "backoff_s": 0.02}
    agents = [open_agent(name, "openai_chat", {"model": name, **options}) for name in TEACHERS]
    problems = [Problem(f"q{i}", f"What is 2 + 2, in world {i}?", "4") for i in range(questions)]
    with Journal(run / "journal.sqlite") as journal:
        members = tuple(Member(agent, "teacher", Sampling()) for agent in agents)
        setting = Setting(debate_reflect.run, members, rules, prompt_set("general"), open_task("gsm8k", {}), journal)
        graphs = await hold_all(problems, setting, in_flight=40)
        for agent in agents:
            await agent.aclose()
    graphs.write(run / "graphs.jsonl")


def start(server: FaultyServer, run: Path, questions: int) -> Program:
    run.mkdir(exist_ok=True)
    program = "import asyncio, sys; from pathlib import Path; from tests.methods.test_faults import drive; "
    program += "asyncio.run(drive(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])))"
    return python("-c", program, server.base_url, run, questions)


def committed(run: Path) -> set[str]:
    with Journal(run / "journal.sqlite", read_only=True) as journal:
        return {key_in(call) for call in journal}


@pytest.mark.parametrize(
    ("questions", "kills"), [(24, 3), pytest.param(150, 10, marks=pytest.mark.slow)], ids=["short", "2,000 calls"]
)
def test_faults_and_kills_change_neither_the_result_nor_what_is_paid(
    tmp_path: Path, questions: int, kills: int
) -> None:
    plain, hard = tmp_path / "plain", tmp_path / "hard"
    rng, in_session = random.Random(7), dict[str, int]()
    with Endpoint() as server:
        assert start(server, plain, questions).wait(200) == 0
        calls = len(server.requests)
        assert calls >= 13 * questions
        assert max(server.asked[0].values()) == 1, "without faults, every call is asked for once"

        server.begin(0.2)
        for kill_at in sorted(rng.sample(range(20, int(1.15 * calls)), kills)):
            process = start(server, hard, questions)
            while len(server.requests) < kill_at and process.poll() is None:
                time.sleep(0.002)
            assert process.poll() is None, f"it ended before request {kill_at}"
            process.kill()
            process.wait()
            time.sleep(0.05)  # answers that are being sent to nobody
            if (hard / "journal.sqlite").exists():
                for key in committed(hard):
                    in_session.setdefault(key, server.session)
            server.session += 1
        assert start(server, hard, questions).wait(200) == 0
        for key in committed(hard):
            in_session.setdefault(key, server.session)

    assert (hard / "graphs.jsonl").read_bytes() == (plain / "graphs.jsonl").read_bytes()
    failed = [n.error for g in read_graphs(hard / "graphs.jsonl") for n in g.failures()]
    assert failed
    assert all(error and error.startswith("refused") for error in failed), "what passes was tried until it passed"
    assert len(in_session) == calls

    # no completed call is asked for again, and within a session nothing is answered twice
    for session, keys in server.asked.items():
        assert not [key for key in keys if in_session[key] < session]
    for sent in server.sent.values():
        assert not [key for key, n in Counter(key for key, _, good in sent if good).items() if n > 1]

    # the ledger is what the server counted, but for calls that a kill found under way: those whose turn it was, and
    # those that waited to try again
    lost = Counter(s for s, sent in server.sent.items() for key in {key for key, _, _ in sent} if in_session[key] != s)
    assert server.session not in lost
    assert max(lost.values(), default=0) <= 2 * SLOTS
    kept = sum((usage for s, sent in server.sent.items() for key, usage, _ in sent if in_session[key] == s), Usage())
    with Journal(hard / "journal.sqlite", read_only=True) as journal:
        assert sum((cost.usage for cost in journal.costs()), Usage()) == kept
        assert sum(cost.calls for cost in journal.costs()) == calls
    assert {"empty", "stall", *(f for f in PASSING if isinstance(f, str))} == set(server.injected)
    assert 0.15 < sum(server.injected.values()) / len(server.requests) < 0.25
