"""Calls through OpenAI's and Anthropic's batches: one batch for one round, nothing submitted twice, nothing lost."""

from __future__ import annotations

import asyncio
import json
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.agents.drive_batch import answers
from tests.agents.providers import Providers, Refuse
from tests.command import Program, python

from vivavoce.agents import open_agent
from vivavoce.agents.journal import Journal
from vivavoce.agents.provider_batches import UNREAD
from vivavoce.committee.prompting import prompt_set
from vivavoce.committee.table import Member, Setting, hold_all
from vivavoce.errors import AgentError, AgentUnusable, RecipeError
from vivavoce.protocols import debate_reflect
from vivavoce.records import Problem, Sampling, Usage
from vivavoce.tasks import open_task

KEY = "sk-very-secret-0123456789"
CALLS = 7
BACKENDS = {"openai_chat": "/v1", "anthropic_messages": ""}
CREATE = {"openai_chat": "POST /v1/batches", "anthropic_messages": "POST /v1/messages/batches"}
LOOK = {"openai_chat": "GET /v1/batches/", "anthropic_messages": "GET /v1/messages/batches/"}
READ = {"openai_chat": "/content", "anthropic_messages": "/results"}
EXPIRED: dict[str, Any] = {
    "openai_chat": {"error": {"code": "batch_expired", "message": "not in time"}},
    "anthropic_messages": {"type": "expired"},
}
REFUSED: dict[str, Any] = {
    "openai_chat": {"response": {"status_code": 400, "body": {"error": {"message": "no", "code": "content_filter"}}}},
    "anthropic_messages": {
        "type": "errored",
        "error": {"type": "error", "error": {"type": "invalid_request_error", "message": "content_filter: no"}},
    },
}


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_KEY", KEY)


@pytest.fixture
def server() -> Iterator[Providers]:
    with Providers() as server:
        yield server


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    return request.param


def options(server: Providers, backend: str, **batch: Any) -> dict[str, Any]:
    return {
        "model": "m",
        "base_url": server.address + BACKENDS[backend],
        "api_key_env": "TEST_KEY",
        "backoff_s": 0.01,
        "max_retries": 1,
        "batch": {"gather_s": 0.1, "poll_s": 0.02, **batch},
    }


def texts(path: Path) -> list[str]:
    with Journal(path, read_only=True) as journal:
        return sorted(call.reply.text for call in journal if call.reply)


RIGHT = [f"Answer to question {n}." for n in range(CALLS)]


def test_calls_of_one_round_are_one_batch_and_journaled_as_any_other(
    server: Providers, backend: str, tmp_path: Path
) -> None:
    path = tmp_path / "journal.sqlite"
    answered = answers(path, backend, options(server, backend), CALLS)
    assert [a.reply.text for a in answered if a.reply] == RIGHT
    assert len(server.created) == 1
    assert texts(path) == RIGHT
    with Journal(path) as journal:
        [cost] = journal.costs()
        assert (cost.agent, cost.stage, cost.calls, cost.failures) == ("ada", "debate", CALLS, 0)
        assert cost.usage.completion == CALLS * {"openai_chat": 3, "anthropic_messages": 5}[backend]
    second = answers(path, backend, options(server, backend), CALLS)
    assert all(a.cached for a in second)
    assert len(server.created) == 1


def test_a_batch_says_what_a_call_by_itself_says(server: Providers, backend: str, tmp_path: Path) -> None:
    def one(batch: bool) -> tuple[Any, ...]:
        given = options(server, backend)
        if not batch:
            del given["batch"]
        [answered] = answers(tmp_path / str(batch), backend, given, 1)
        assert answered.reply is not None
        return answered.key, answered.reply.text, answered.reply.finish, answered.reply.usage, answered.reply.model

    assert one(True) == one(False)
    assert server.bodies[0] == server.bodies[1]


def test_too_many_calls_for_one_batch_are_several(server: Providers, backend: str, tmp_path: Path) -> None:
    answered = answers(tmp_path / "count", backend, options(server, backend, max_requests=3), CALLS)
    assert [a.reply.text for a in answered if a.reply] == RIGHT
    assert len(server.created) == 3
    answered = answers(tmp_path / "size", backend, options(server, backend, max_mb=0.001), CALLS)
    assert [a.reply.text for a in answered if a.reply] == RIGHT
    assert len(server.created) > 4


def killed(
    server: Providers, path: Path, backend: str, moment: str, when: str, then: Callable[[str], None] = lambda what: None
) -> None:
    """Run the calls in a process that is killed at the first request that has ``moment`` in it."""
    process: Program | None = None

    def kill(what: str) -> None:
        if moment in what and process is not None and process.poll() is None:
            process.kill()
            process.wait()
            then(what)

    setattr(server, when, kill)
    words = json.dumps(options(server, backend)), CALLS
    process = python("-m", "tests.agents.drive_batch", path, backend, *words)
    assert process.wait(120) == -signal.SIGKILL
    setattr(server, when, lambda what: None)


@pytest.mark.parametrize("moment", ["made", "looked", "read"])
def test_a_run_that_is_killed_goes_on_with_the_same_batch(
    server: Providers, backend: str, tmp_path: Path, moment: str
) -> None:
    """Killed after the batch was made but before its id was told, between looks, and while results are read."""
    path = tmp_path / "journal.sqlite"
    at = {"made": CREATE[backend], "looked": LOOK[backend], "read": READ[backend]}[moment]
    killed(server, path, backend, at, "after")
    assert texts(path) == []
    answered = answers(path, backend, options(server, backend), CALLS)
    assert [a.reply.text for a in answered if a.reply] == RIGHT
    assert len(server.created) == 1, "submitted once"
    assert server.answered == Counter({f"question {n}": 1 for n in range(CALLS)}), "worked on once"
    with Journal(path) as journal:
        assert journal.costs()[0].calls == CALLS


def test_a_run_that_is_killed_before_the_provider_has_the_batch_submits_it(
    server: Providers, backend: str, tmp_path: Path
) -> None:
    path = tmp_path / "journal.sqlite"

    # the process dies, and the request with it: it is not worked on
    def drop(what: str) -> None:
        raise Refuse(500, "gone")

    killed(server, path, backend, CREATE[backend], "before", drop)
    assert not server.created
    answered = answers(path, backend, options(server, backend), CALLS)
    assert [a.reply.text for a in answered if a.reply] == RIGHT


def test_other_batches_of_the_account_are_left_alone(server: Providers, backend: str, tmp_path: Path) -> None:
    """As large, older and younger: neither is taken for the one whose id was never told."""
    for n in range(3):  # the same questions, asked by another: other journal keys
        given = {**options(server, backend), "extra_body": {"metadata": {"user_id": str(n)}}}
        given = given if backend == "openai_chat" else {**given, "extra_body": {"thinking": {"type": str(n)}}}
        answers(tmp_path / str(n), backend, given, CALLS)
    path = tmp_path / "journal.sqlite"
    killed(server, path, backend, CREATE[backend], "after")
    given = {**options(server, backend), "extra_body": {"thinking": {"type": "x"}}}
    answers(tmp_path / "last", backend, given, CALLS)
    before = len(server.created)
    answered = answers(path, backend, options(server, backend), CALLS)
    assert [a.reply.text for a in answered if a.reply] == RIGHT
    assert len(server.created) == before == 5


def test_an_answer_that_was_lost_is_no_reason_to_submit_again(server: Providers, backend: str, tmp_path: Path) -> None:
    """The batch was made; the answer that says so is an error."""
    lost = [0]

    def lose(what: str) -> None:
        if what == CREATE[backend] and not lost[0]:
            lost[0] += 1
            raise ConnectionResetError

    server.after = lose
    answered = answers(tmp_path / "journal.sqlite", backend, options(server, backend), CALLS)
    assert lost == [1]
    assert [a.reply.text for a in answered if a.reply] == RIGHT
    assert len(server.created) == 1


def test_a_batch_that_never_arrived_is_submitted_again(server: Providers, backend: str, tmp_path: Path) -> None:
    refused = [0]

    def refuse(what: str) -> None:
        if what == CREATE[backend] and refused[0] < 2:
            refused[0] += 1
            raise Refuse(500, "oops", "api_error")

    server.before = refuse
    answered = answers(tmp_path / "journal.sqlite", backend, options(server, backend), CALLS)
    assert [a.reply.text for a in answered if a.reply] == RIGHT
    assert (refused, len(server.created)) == ([2], 1)


def test_a_batch_that_is_turned_away_fails_its_calls(server: Providers, backend: str, tmp_path: Path) -> None:
    def refuse(what: str) -> None:
        if what == CREATE[backend]:
            raise Refuse(400, f"no, {KEY}", "invalid_request_error")

    server.before = refuse
    answered = answers(tmp_path / "journal.sqlite", backend, options(server, backend), CALLS)
    assert {a.error.reason for a in answered if a.error} == {"bad_request"}
    assert not any(KEY in str(a) for a in answered)
    server.before = lambda what: None
    answered = answers(tmp_path / "journal.sqlite", backend, options(server, backend), CALLS, retry_failed=True)
    assert [a.reply.text for a in answered if a.reply] == RIGHT


def test_looks_that_fail_are_followed_by_others(server: Providers, backend: str, tmp_path: Path) -> None:
    server.looks = 4
    chance = random.Random(0)

    def refuse(what: str) -> None:
        if what.startswith(LOOK[backend]) and chance.random() < 0.7:
            raise Refuse(500, "oops", "api_error")

    server.before = refuse
    answered = answers(tmp_path / "journal.sqlite", backend, options(server, backend), CALLS)
    assert [a.reply.text for a in answered if a.reply] == RIGHT
    assert len(server.created) == 1


def test_a_batch_that_cannot_be_read_is_read_by_a_later_run(server: Providers, backend: str, tmp_path: Path) -> None:
    def refuse(what: str) -> None:
        if what.startswith(LOOK[backend]):
            raise Refuse(400, "no such batch", "invalid_request_error")

    server.before = refuse
    path = tmp_path / "journal.sqlite"
    answered = answers(path, backend, options(server, backend), CALLS)
    assert {a.error.reason for a in answered if a.error} == {UNREAD}
    server.before = lambda what: None
    answered = answers(path, backend, options(server, backend), CALLS, retry_failed=True)
    assert [a.reply.text for a in answered if a.reply] == RIGHT
    assert len(server.created) == 1
    assert set(server.answered.values()) == {1}


def test_a_key_that_is_revoked_while_a_batch_is_worked_on_stops_the_run_and_the_batch_is_read_later(
    server: Providers, backend: str, tmp_path: Path
) -> None:
    def refuse(what: str) -> None:
        if what.startswith(LOOK[backend]):
            raise Refuse(401, "revoked", "authentication_error")

    server.before = refuse
    path = tmp_path / "journal.sqlite"
    with pytest.raises(AgentUnusable, match="revoked"):
        answers(path, backend, options(server, backend), CALLS)
    server.before = lambda what: None
    answered = answers(path, backend, options(server, backend), CALLS)
    assert [a.reply.text for a in answered if a.reply] == RIGHT
    assert len(server.created) == 1


def test_a_call_that_expired_goes_into_another_batch_and_the_others_do_not(
    server: Providers, backend: str, tmp_path: Path
) -> None:
    left = ["question 2", "question 5"]

    def outcome(question: str) -> dict[str, Any] | None:
        if question not in left:
            return None
        left.remove(question)
        return EXPIRED[backend]

    server.outcome, server.status = outcome, "expired"
    answered = answers(tmp_path / "journal.sqlite", backend, options(server, backend), CALLS)
    assert [a.reply.text for a in answered if a.reply] == RIGHT
    assert len(server.created) == 2
    assert set(server.answered.values()) == {1}


def test_what_always_fails_fails_after_bounded_batches(server: Providers, backend: str, tmp_path: Path) -> None:
    server.outcome = lambda question: EXPIRED[backend] if question.endswith("2") else None
    answered = answers(tmp_path / "journal.sqlite", backend, options(server, backend, max_retries=1), CALLS)
    [error] = [a.error for a in answered if a.error]
    assert error.reason == "server"
    assert "expired" in error.detail
    assert "2 batches" in error.detail
    assert len(server.created) == 2


def test_a_failure_of_its_own_is_recorded_and_nothing_is_asked_again(
    server: Providers, backend: str, tmp_path: Path
) -> None:
    server.outcome = lambda question: REFUSED[backend] if question.endswith("2") else None
    path = tmp_path / "journal.sqlite"
    answered = answers(path, backend, options(server, backend), CALLS)
    [error] = [a.error for a in answered if a.error]
    assert error.reason == {"openai_chat": "refused", "anthropic_messages": "bad_request"}[backend]
    assert len(server.created) == 1
    assert len(texts(path)) == CALLS - 1
    server.outcome = lambda question: None
    answers(path, backend, options(server, backend), CALLS, retry_failed=True)
    assert (len(server.created), texts(path)) == (2, RIGHT)


def test_a_queue_that_is_full_is_waited_for(server: Providers, tmp_path: Path) -> None:
    server.status = "failed"
    answered = answers(tmp_path / "journal.sqlite", "openai_chat", options(server, "openai_chat"), CALLS)
    assert [a.reply.text for a in answered if a.reply] == RIGHT
    assert len(server.created) == 2


def test_a_caller_that_gives_up_leaves_the_others_their_batch(server: Providers, backend: str, tmp_path: Path) -> None:
    server.looks = 20

    async def go(journal: Journal) -> list[str]:
        agent = open_agent("ada", backend, options(server, backend))
        calls = [
            asyncio.create_task(journal.call(agent, [{"role": "user", "content": f"question {n}"}], Sampling(), n))
            for n in range(3)
        ]
        while not server.created:
            await asyncio.sleep(0.01)
        calls[1].cancel()
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        await agent.aclose()
        return [type(one).__name__ for one in outcomes]

    with Journal(tmp_path / "journal.sqlite") as journal:
        assert asyncio.run(go(journal)) == ["Answered", "CancelledError", "Answered"]
    answers(tmp_path / "journal.sqlite", backend, options(server, backend), 1)
    assert len(server.created) == 1


def test_what_a_thrown_away_answer_cost_is_counted(server: Providers, tmp_path: Path) -> None:
    empty: dict[str, Any] = {
        "response": {
            "status_code": 200,
            "body": {
                "choices": [{"finish_reason": "stop", "message": {"content": ""}}],
                "usage": {"prompt_tokens": 11, "completion_tokens": 1},
            },
        }
    }
    replies = [empty]
    server.outcome = lambda question: replies.pop() if replies else None
    path = tmp_path / "journal.sqlite"
    [answered] = answers(path, "openai_chat", options(server, "openai_chat"), 1)
    assert answered.reply is not None
    assert answered.reply.wasted == Usage(11, 1)
    with Journal(path) as journal:
        assert journal.costs()[0].usage == Usage(11 + len("question 0"), 1 + 3)


def test_a_mistake_in_the_recipe_is_said(backend: str) -> None:
    with pytest.raises(RecipeError, match="gather"):
        open_agent("ada", backend, {"model": "m", "api_key_env": "TEST_KEY", "batch": {"gather": 3}})


def test_the_key_is_neither_in_the_journal_nor_on_the_command_line_nor_in_what_is_said(
    server: Providers, backend: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def refuse(what: str) -> None:
        if what.startswith(LOOK[backend]):
            raise Refuse(400, f"no, {KEY}", "invalid_request_error")

    server.before = refuse
    path = tmp_path / "journal.sqlite"
    answered = answers(path, backend, options(server, backend), CALLS)
    assert all(isinstance(a.error, AgentError) and "***" in a.error.detail for a in answered)
    assert KEY.encode() not in b"".join(file.read_bytes() for file in tmp_path.iterdir())
    printed = capfd.readouterr()
    assert "submitted as batch" in printed.err
    assert KEY not in printed.out + printed.err


def test_waiting_takes_no_time_that_counts(server: Providers, backend: str, tmp_path: Path) -> None:
    """A batch that takes a while is looked at as often as the recipe says, and not more."""
    server.looks = 5
    started = time.monotonic()
    answers(tmp_path / "journal.sqlite", backend, options(server, backend, poll_s=0.2), 2)
    assert time.monotonic() - started >= 0.8
    assert sum(what.startswith(LOOK[backend]) and READ[backend] not in what for what in server.asked) == 5


def test_a_debate_of_many_questions_is_one_batch_for_each_teacher_and_step(server: Providers, tmp_path: Path) -> None:
    """Two teachers at two providers, two rounds: answers, what is said of them, answers again."""
    members = tuple(
        Member(open_agent(backend, backend, options(server, backend, gather_s=0.5)), "teacher", Sampling())
        for backend in BACKENDS
    )
    task = open_task("schoolhouse", {"train": 1, "test": 1})
    problems = [Problem(f"q-{n}", f"What is {n} + 1?", str(n + 1)) for n in range(30)]

    async def hold(journal: Journal) -> int:
        setting = Setting(
            debate_reflect.run,
            members,
            debate_reflect.Options(max_rounds=2, stop="cap_only"),
            prompt_set("general"),
            task,
            journal,
        )
        graphs = await hold_all(problems, setting)
        for member in members:
            await member.agent.aclose()
        return sum(len(graph.nodes) for graph in graphs)

    with Journal(tmp_path / "journal.sqlite") as journal:
        held = asyncio.run(hold(journal))
        assert held == len(journal) == sum(server.answered.values())
    assert held >= 4 * len(problems)
    assert len(server.created) <= 6
    assert len({id[:3] for id in server.created}) == 2
