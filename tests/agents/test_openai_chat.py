"""Endpoints: every fault of the world ends as a reply after retries or as an AgentError with the right reason."""

from __future__ import annotations

import asyncio
import logging
import time
import traceback
from itertools import pairwise
from typing import Any

import pytest
from tests.agents.faulty import FaultyServer, completion

from vivavoce.agents import open_agent
from vivavoce.agents.faults import failed_status
from vivavoce.agents.journal import Journal
from vivavoce.agents.openai_chat import PRESETS, OpenAIChat, Options
from vivavoce.errors import AgentError, AgentUnusable, MissingKey, RecipeError
from vivavoce.records import Message, Reply, Sampling, Token, Usage

KEY = "sk-very-secret-0123456789"
ASK: list[Message] = [{"role": "user", "content": "What is 2 + 2?"}]
GREEDY = Sampling(temperature=0.0, max_new_tokens=20)


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_KEY", KEY)


def ask(server: FaultyServer, *calls: Sampling, **options: Any) -> tuple[OpenAIChat, list[Reply | AgentError]]:
    """Make the calls side by side; failures are returned."""
    options = {"backoff_s": 0.01, "max_retries": 2, "timeout_s": 30.0, "api_key_env": "TEST_KEY", **options}
    agent = open_agent("ada", "openai_chat", {"model": "m", "base_url": server.base_url, **options})
    assert isinstance(agent, OpenAIChat)

    async def one(sampling: Sampling) -> Reply | AgentError:
        try:
            return await agent.reply(ASK, sampling, 3)
        except AgentError as error:
            return error

    async def run() -> list[Reply | AgentError]:
        try:
            return await asyncio.wait_for(asyncio.gather(*map(one, calls or [GREEDY])), 60)
        finally:
            await agent.aclose()

    return agent, asyncio.run(run())


PASSING = [
    "busy=",
    "busy=0",
    "busy=0.05",
    "busy=Wed, 21 Oct 2015 07:28:00 GMT",
    "busy=soon",
    "status=408",
    "status=409",
    "status=500",
    "status=503",
    "reset",
    "truncated",
    "body={oops",
    "body=",
    "body=[]",
    "body=null",
    'body={"choices": []}',
    'body={"choices": [{"message": {"content": 7}}]}',
    'body={"choices": [{"message": {"content": "x"}}], "usage": 5}',
    'body={"error": "out of memory"}',
    'body={"error": {"message": "slow down", "code": 429}}',
    'body={"object": "error", "message": "overloaded", "code": 503}',
    'body={"choices": [{"finish_reason": "error", "message": {"content": "x"}, "error": {"code": 502}}]}',
    'body={"choices": [{"finish_reason": "abort", "message": {"content": "x"}}]}',
    'body={"choices": [{"finish_reason": "never heard of", "message": {"content": "x"}}]}',
    'body={"choices": [{"finish_reason": null, "message": {"content": "x"}}]}',
    'body={"choices": [{"finish_reason": "stop", "message": {"content": [{"type": "image_url"}]}}]}',
    "body=\x00\x01",
]


@pytest.mark.parametrize("fault", PASSING)
def test_a_passing_fault_is_retried_into_a_reply(faulty: FaultyServer, fault: str) -> None:
    faulty.script = [fault]
    agent, [reply] = ask(faulty)
    assert isinstance(reply, Reply)
    assert (reply.text, reply.finish, reply.model) == ("The answer is 4.", "stop", "served-name")
    assert reply.usage == Usage(7, 5)
    assert agent.attempts == len(faulty.requests) == 2


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("status=408", "timeout"),
        ("status=500", "server"),
        ("reset", "connection"),
        ("truncated", "connection"),
        ("body={oops", "malformed"),
        ("body=", "malformed"),
    ],
)
def test_a_lasting_fault_ends_after_bounded_retries_with_its_reason(
    faulty: FaultyServer, fault: str, reason: str
) -> None:
    faulty.script = [fault] * 50
    _, [error] = ask(faulty)
    assert isinstance(error, AgentError)
    assert error.reason == reason
    assert "3 attempts" in error.detail
    assert len(faulty.requests) == 3
    assert reason != "malformed" or ("its answer is no JSON" if "oops" in fault else "is empty") in error.detail


@pytest.mark.parametrize(("fault", "attempts"), [("body={oops", 3), ("body=[1]", 3), ("status=500", 6)])
def test_who_has_never_given_an_answer_that_can_be_read_is_asked_three_times(
    faulty: FaultyServer, fault: str, attempts: int
) -> None:
    faulty.script = [fault] * 50
    _, [error] = ask(faulty, max_retries=5)
    assert isinstance(error, AgentError)
    assert f"{attempts} attempts" in error.detail


@pytest.mark.parametrize("fault", ["busy=", "status=503", "status=529"])
def test_being_turned_away_is_borne_four_times_as_often(faulty: FaultyServer, fault: str) -> None:
    faulty.script = [fault] * 50
    _, [error] = ask(faulty, backoff_s=0.001)
    assert isinstance(error, AgentError)
    assert "9 attempts" in error.detail
    assert len(faulty.requests) == 9


@pytest.mark.parametrize("fault", ["stall", "trickle"])
def test_an_answer_that_does_not_end_times_out(faulty: FaultyServer, fault: str) -> None:
    faulty.script = [fault] * 2
    started = time.monotonic()
    _, [error] = ask(faulty, timeout_s=0.4, max_retries=1)
    assert isinstance(error, AgentError)
    assert error.reason == "timeout"
    assert time.monotonic() - started < 60


def test_an_empty_answer_is_retried_and_what_it_cost_is_counted(faulty: FaultyServer) -> None:
    faulty.script = [completion(""), completion(None)]
    _, [reply] = ask(faulty)
    assert isinstance(reply, Reply)
    assert (reply.usage, reply.wasted) == (Usage(7, 5), Usage(14, 10))
    faulty.script = [completion("")] * 9
    _, [error] = ask(faulty)
    assert isinstance(error, AgentError)
    assert (error.reason, error.usage) == ("empty", Usage(21, 15))


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (completion(None, refusal="I will not."), "refused"),
        (completion("", "content_filter"), "refused"),
        (completion("", "length"), "empty"),
        ("error=400,content_policy_violation,no", "refused"),
        ("error=400,context_length_exceeded,too long", "overlong"),
        ("error=400,,This model's maximum context length is 8 tokens", "overlong"),
        ("error=429,insufficient_quota,pay", "account"),
        ("error=402,,Insufficient credits", "account"),
        ("error=400,,Your credit balance is too low to access the API", "account"),
        ({"error": {"message": "Insufficient credits", "code": 402}}, "account"),
        ({"error": {"message": "no such key", "code": "401"}}, "auth"),
        ("busy=7200", "rate_limit"),
        ("status=400", "bad_request"),
        ("status=422", "bad_request"),
        ("status=404", "not_found"),
        ("status=405", "not_found"),
        ("redirect=301,https://elsewhere.invalid/v1", "not_found"),
        ("body=<!doctype html><title>Welcome</title>", "not_found"),
        ("status=401", "auth"),
        ("status=403", "forbidden"),
    ],
)
def test_what_waiting_cannot_cure_fails_at_once(faulty: FaultyServer, answer: Any, reason: str) -> None:
    faulty.script = [answer] * 5
    _, [error] = ask(faulty)
    assert isinstance(error, AgentError)
    assert error.reason == reason
    assert len(faulty.requests) == 1


def test_retry_after_is_honoured_by_all_calls_of_the_agent(faulty: FaultyServer) -> None:
    faulty.script = ["busy=0.5"]
    _, replies = ask(faulty, GREEDY, GREEDY, max_concurrency=1)
    assert all(isinstance(reply, Reply) for reply in replies)
    first, second, third = faulty.arrived
    assert second - first >= 0.5
    assert third - first >= 0.5


@pytest.mark.parametrize(
    "answer",
    [
        completion("So far 3 and th", "error"),
        completion("So far 3 and th", "of a kind that nobody knows"),
        completion("So far 3 and th", None),
        {**completion(), "error": {"code": 502, "message": "the provider died"}},
        {**completion(), "choices": [{"message": None}]},
        completion([{"type": "image_url"}]),
    ],
)
def test_an_answer_that_cannot_be_read_fails_and_its_tokens_are_told(faulty: FaultyServer, answer: Any) -> None:
    faulty.script = [answer] * 3
    _, [error] = ask(faulty)
    assert isinstance(error, AgentError)
    assert error.usage == Usage(21, 15)
    assert len(faulty.requests) == 3


def test_the_text_of_a_reply_in_chunks_is_read_without_its_thoughts(faulty: FaultyServer) -> None:
    thought = {"type": "thinking", "thinking": [{"type": "text", "text": "hm, 5?"}], "closed": True}
    chunks = [thought, {"type": "text", "text": "It is 4.\n"}, {"type": "reference", "reference_ids": [1]}]
    faulty.script = [completion([*chunks, {"type": "text", "text": "Final answer: 4"}])]
    _, [reply] = ask(faulty)
    assert isinstance(reply, Reply)
    assert (reply.text, reply.finish) == ("It is 4.\nFinal answer: 4", "stop")
    faulty.script = [completion([thought], "length")]
    _, [error] = ask(faulty)
    assert isinstance(error, AgentError)
    assert error.reason == "empty"


def test_a_recipe_can_say_what_an_unknown_finish_reason_means(faulty: FaultyServer) -> None:
    faulty.script = [completion("yes", None), completion("yes", "fini"), completion("yes", "coupe")]
    means = {"missing": "stop", "fini": "stop", "coupe": "length"}
    _, replies = ask(faulty, *[GREEDY] * 3, finish_reasons=means, max_concurrency=1)
    assert [reply.finish for reply in replies if isinstance(reply, Reply)] == ["stop", "stop", "length"]


def test_missing_usage_is_marked(faulty: FaultyServer, caplog: pytest.LogCaptureFixture) -> None:
    bare = completion()
    del bare["usage"]
    faulty.script = [bare, {**bare, "usage": None}]
    agent, replies = ask(faulty, GREEDY, GREEDY)
    assert [reply.usage for reply in replies if isinstance(reply, Reply)] == [Usage(), Usage()]
    assert agent.unmetered == 2
    assert sum("does not report token usage" in record.message for record in caplog.records) == 1


def test_a_full_address_of_a_call_is_refused_with_the_one_to_write() -> None:
    for end in ("/chat/completions", "/chat/completions/", "/messages"):
        with pytest.raises(RecipeError, match="is added to it") as caught:
            open_agent("ada", "openai_chat", {"model": "m", "api_key_env": None, "base_url": f"http://host/v1{end}"})
        assert "write `base_url: http://host/v1`" in caught.value.do


def test_trouble_is_said_while_it_happens(faulty: FaultyServer, capsys: pytest.CaptureFixture[str]) -> None:
    faulty.script = ["busy=0.01", "busy=0.01", "status=500"]
    ask(faulty, *[GREEDY] * 8, max_concurrency=1)
    stderr = capsys.readouterr().err
    assert stderr.count("ada: ") == 1, "and not for every request"
    assert "1 of the last 1 requests turned away (HTTP 429: slow down)" in stderr


def test_cached_tokens_and_finish_reasons_are_read(faulty: FaultyServer) -> None:
    cut = completion("The answer", "length")
    cut["usage"]["prompt_tokens_details"] = {"cached_tokens": 4}
    faulty.script = [cut]
    _, [reply] = ask(faulty)
    assert isinstance(reply, Reply)
    assert (reply.finish, reply.usage) == ("length", Usage(7, 5, 4))
    faulty.script = [completion("The", "content_filter")]
    _, [reply] = ask(faulty)
    assert isinstance(reply, Reply)
    assert reply.finish == "filter"


def test_a_reply_is_always_text_that_can_be_stored(faulty: FaultyServer) -> None:
    faulty.script = [completion("half a pair: \ud83d")]
    _, [reply] = ask(faulty)
    assert isinstance(reply, Reply)
    assert reply.text.encode() == "half a pair: \ufffd".encode()


def with_logprobs(*tokens: dict[str, Any], text: str) -> dict[str, Any]:
    answer = completion(text)
    answer["choices"][0]["logprobs"] = {"content": list(tokens)}
    return answer


def test_log_probabilities_are_read_where_they_spell_the_text(faulty: FaultyServer) -> None:
    wanted = Sampling(0.7, 0.9, 20, ("STOP",), logprobs=True)
    euro = "€".encode()
    faulty.script = [
        with_logprobs(
            {"token": "1 ", "logprob": -0.5},
            {"token": "\\xe2\\x82", "bytes": list(euro[:2]), "logprob": -1},
            {"token": "\\xac", "bytes": list(euro[2:]), "logprob": -2.0},
            text="1 €",
        )
    ]
    _, [reply] = ask(faulty, wanted)
    assert isinstance(reply, Reply)
    assert reply.tokens == (Token("1 ", -0.5), Token("", -1.0), Token("€", -2.0))
    assert faulty.requests[-1] == {
        "model": "m",
        "messages": ASK,
        "temperature": 0.7,
        "top_p": 0.9,
        "max_tokens": 20,
        "seed": 3,
        "stop": ["STOP"],
        "logprobs": True,
    }
    for odd in (completion(), with_logprobs({"token": "other", "logprob": -1}, text="1"), with_logprobs(text="1")):
        faulty.script = [odd]
        _, [reply] = ask(faulty, wanted)
        assert isinstance(reply, Reply)
        assert reply.tokens is None


def test_an_endpoint_that_rejects_log_probabilities_is_asked_without(faulty: FaultyServer) -> None:
    faulty.script = ["error=422,,unsupported field: logprobs"]
    _, [reply] = ask(faulty, Sampling(logprobs=True))
    assert isinstance(reply, Reply)
    assert ["logprobs" in request for request in faulty.requests] == [True, False]


def test_the_request_can_be_shaped(faulty: FaultyServer) -> None:
    ask(faulty, token_limit="max_completion_tokens", omit=["temperature", "seed"], extra_body={"top_k": 5})
    assert faulty.requests[-1] == {"model": "m", "messages": ASK, "top_p": 1.0, "max_completion_tokens": 20, "top_k": 5}


def test_what_the_protocol_lacks_is_sent_by_the_name_that_the_endpoint_has_for_it(faulty: FaultyServer) -> None:
    few = Sampling(top_k=20, repetition_penalty=1.1)
    for preset in ("vllm", "sglang", "openrouter", "llama_cpp"):
        ask(faulty, few, preset=preset)
    ask(faulty, Sampling(), preset="vllm")
    ask(faulty, few, also_takes={"top_k": "k"})
    ask(faulty, few)
    for sent in faulty.requests[:3]:
        assert (sent["top_k"], sent["repetition_penalty"]) == (20, 1.1)
    assert (faulty.requests[3]["top_k"], faulty.requests[3]["repeat_penalty"]) == (20, 1.1)
    assert not {"top_k", "repetition_penalty"} & set(faulty.requests[4]), "nothing is asked for"
    assert faulty.requests[5]["k"] == 20
    assert not {"top_k", "repetition_penalty"} & set(faulty.requests[6]), "OpenAI rejects what it does not know"


def test_a_vllm_server_without_an_address_is_one_of_this_machine() -> None:
    agent = open_agent("ada", "vllm", {"model": "m"})
    assert agent.identity == "openai:http://localhost:8000/v1:m"
    assert isinstance(agent, OpenAIChat)
    body = agent.body(ASK, Sampling(top_k=20, repetition_penalty=1.1), 0)
    assert (body["top_k"], body["repetition_penalty"]) == (20, 1.1)


def test_a_preset_knows_address_key_and_peculiarities(faulty: FaultyServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, known in PRESETS.items():
        if (variable := known["api_key_env"]) is not None:
            monkeypatch.delenv(variable, raising=False)
            with pytest.raises(MissingKey, match=variable):
                open_agent("ada", "openai_chat", {"model": "m", "preset": name})
            monkeypatch.setenv(variable, KEY)
        agent = open_agent("ada", "openai_chat", {"model": "m", "preset": name})
        assert agent.identity == f"openai:{known['base_url']}:m"
    with pytest.raises(RecipeError, match="preset"):
        open_agent("ada", "openai_chat", {"model": "m", "preset": "opena1"})

    for name in ("mistral", "gemini", "vllm"):  # a server of one's own may be as peculiar as the provider
        ask(faulty, preset=name)
    mistral, gemini, vllm = faulty.requests
    assert (mistral["random_seed"], "seed" in mistral) == (3, False)
    assert not {"seed", "random_seed"} & set(gemini)
    assert vllm["seed"] == 3


def test_what_a_recipe_says_counts_more_than_its_preset(faulty: FaultyServer) -> None:
    ask(faulty, preset="mistral", seed_field="seed", omit=["top_p"])
    assert faulty.requests[-1]["seed"] == 3
    assert "top_p" not in faulty.requests[-1]
    options = Options(model="m", preset="gemini", limits="endpoint", api_key_env=None)
    assert (options.limits, options.api_key_env, options.omit) == ("endpoint", None, ("seed",))


def test_no_more_than_max_concurrency_requests_are_in_flight(faulty: FaultyServer) -> None:
    faulty.script = ["stall"] * 3
    ask(faulty, *[GREEDY] * 6, timeout_s=1.5, max_retries=0, max_concurrency=3)
    assert faulty.arrived[3] - faulty.arrived[0] > 1.0, "the fourth waits until one of the first three timed out"


def test_an_agent_serves_one_event_loop_after_another(faulty: FaultyServer) -> None:
    agent = open_agent("ada", "openai_chat", {"model": "m", "base_url": faulty.base_url, "api_key_env": None})

    async def once() -> Reply:
        try:
            return await agent.reply(ASK, GREEDY, 1)
        finally:
            await agent.aclose()

    assert asyncio.run(once()).text == asyncio.run(once()).text


def test_a_missing_key_is_found_before_anything_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TEST_KEY")
    with pytest.raises(MissingKey, match="TEST_KEY"):
        open_agent("ada", "openai_chat", {"model": "m", "api_key_env": "TEST_KEY"})
    with pytest.raises(MissingKey, match="TEST_URL"):
        open_agent("ada", "openai_chat", {"model": "m", "api_key_env": None, "base_url_env": "TEST_URL"})


def test_an_address_with_a_secret_is_refused() -> None:
    for address in (f"https://user:{KEY}@host/v1", f"https://host/v1?key={KEY}"):
        with pytest.raises(RecipeError, match="password") as caught:
            open_agent("ada", "openai_chat", {"model": "m", "base_url": address, "api_key_env": None})
        assert KEY not in str(caught.value)


@pytest.mark.parametrize("fault", ["status=400", "status=401", "status=500", "reset", "stall", "body=" + KEY])
def test_the_key_appears_nowhere(
    faulty: FaultyServer, fault: str, tmp_path: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    faulty.script = [fault] * 9
    options = {"model": "m", "base_url": faulty.base_url, "api_key_env": "TEST_KEY"}
    options |= {"max_retries": 1, "backoff_s": 0.01, "timeout_s": 0.2 if fault == "stall" else 0.5}
    agent = open_agent("ada", "openai_chat", options)

    async def run() -> str:
        with Journal(tmp_path / "journal.sqlite") as journal:
            try:
                answered: object = await journal.call(agent, ASK, GREEDY, 1)
            except AgentUnusable as unusable:
                answered = "".join(traceback.format_exception(unusable))
        with pytest.raises(AgentError) as caught:
            await agent.reply(ASK, GREEDY, 1)
        await agent.aclose()
        error = caught.value
        assert error.__context__ is None  # no chained error that holds the request
        return "".join(traceback.format_exception(error)) + repr(error) + repr(vars(error)) + repr(answered)

    seen = asyncio.run(run()) + repr(agent) + str(agent) + agent.identity + caplog.text
    assert KEY not in seen
    written = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    assert len(written) > 1000
    assert KEY.encode() not in written


def test_identity_tells_endpoints_and_settings_apart() -> None:
    def identity(**options: Any) -> str:
        return OpenAIChat("a", Options(model="m", **options), "https://host:8000/v1/", None).identity

    assert identity() == "openai:https://host:8000/v1:m"
    assert identity(extra_body={"top_k": 1}) != identity(extra_body={"top_k": 2}) != identity()


SYSTEM: list[Message] = [{"role": "system", "content": "Be short."}, *ASK, {"role": "user", "content": "Quickly."}]


class Strict(FaultyServer):
    """A server whose chat template refuses some conversations."""

    def __init__(self, says: dict[str, str], status: int) -> None:
        super().__init__()
        self.says, self.status = says, status

    def step(self, body: dict[str, Any]) -> str | dict[str, Any]:
        roles = [m["role"] for m in body["messages"]]
        if "system" in roles and "system" in self.says:
            return f"error={self.status},,{self.says['system']}"
        if any(a == b for a, b in pairwise(roles)):
            return f"error={self.status},,{self.says['turns']}"
        return completion()


@pytest.mark.parametrize("status", [400, 422, 500])
@pytest.mark.parametrize(
    ("says", "form"),
    [
        ({"system": "System role not supported", "turns": "Conversation roles must alternate user/assistant"}, 2),
        ({"system": "Developer instruction is not enabled for models/gemma-3-27b-it", "turns": "alternate"}, 2),
        ({"turns": "After the optional system message, conversation roles must alternate user and assistant"}, 1),
        ({"turns": "Only user and assistant roles are supported! consecutive user messages"}, 1),
    ],
)
def test_a_server_that_refuses_roles_is_asked_in_the_form_that_it_takes(
    says: dict[str, str], form: int, status: int
) -> None:
    with Strict(says, status) as server:
        options = {"model": "m", "base_url": server.base_url, "api_key_env": "TEST_KEY", "backoff_s": 0.01}
        agent = open_agent("ada", "openai_chat", options)

        async def run() -> list[Reply]:
            first = [await agent.reply(SYSTEM, GREEDY, seed) for seed in (1, 2)]
            await agent.aclose()
            return first

        assert [reply.text for reply in asyncio.run(run())] == ["The answer is 4."] * 2
    sent = server.requests[-1]["messages"]
    assert len(server.requests) == form + 2, "the second call knows"
    question = "What is 2 + 2?\n\nQuickly."
    assert sent[-1]["content"] == (question if form == 1 else f"Be short.\n\n{question}")


def test_a_form_of_messages_can_be_said_and_is_part_of_the_identity() -> None:
    with FaultyServer() as server:
        plain, _ = ask(server)
        folded, _ = ask(server, turns="no_system")
    assert plain.identity != folded.identity
    assert folded.body(SYSTEM, GREEDY, 1)["messages"] == [
        {"role": "user", "content": "Be short.\n\nWhat is 2 + 2?\n\nQuickly."}
    ]


def test_a_refusal_for_another_reason_is_told_as_it_is() -> None:
    with FaultyServer() as server:
        server.script = ["error=400,,`temperature` must be at most 1"]
        _, (failed,) = ask(server)
    assert isinstance(failed, AgentError)
    assert failed.reason == "bad_request"
    assert len(server.requests) == 1


ODD_BODIES = {
    "nested without end": "[" * 100_000,
    "nested within": '{"choices": ' + "[" * 20_000 + "]" * 20_000 + "}",
    "nothing": "",
    "null": "null",
    "a number": "3",
    "a list": "[]",
    "no choices": '{"choices": null}',
    "a choice that is none": '{"choices": [null]}',
    "a message that is none": '{"choices": [{"message": null, "finish_reason": "stop"}]}',
    "content that is an object": '{"choices": [{"message": {"content": {"text": "hi"}}, "finish_reason": "stop"}]}',
    "content with a picture": '{"choices": [{"message": {"content": [{"type": "image_url"}]}}]}',
    "content with nothing": '{"choices": [{"message": {"content": [null]}, "finish_reason": "stop"}]}',
    "calls that are text": '{"choices": [{"message": {"content": "4", "tool_calls": "x"}, "finish_reason": "stop"}]}',
    "an end that is a list": '{"choices": [{"message": {"content": "4"}, "finish_reason": ["stop"]}]}',
    "an error of a choice": '{"choices": [{"message": {"content": "4"}, "finish_reason": "stop", "error": "boom"}]}',
    "an error without words": '{"error": {"code": 429}}',
    "a stream": "data: {}\n\ndata: [DONE]\n\n",
    "two answers": '{"choices": []}{"choices": []}',
}


@pytest.mark.parametrize("name", ODD_BODIES)
def test_no_body_ends_a_run_and_the_call_is_made_again(name: str) -> None:
    with FaultyServer() as server:
        server.script = [f"body={ODD_BODIES[name]}"]
        _, (reply,) = ask(server)
    assert isinstance(reply, Reply), reply
    assert reply.text == "The answer is 4."
    assert len(server.requests) == 2


def test_the_body_of_an_error_may_be_anything() -> None:
    with FaultyServer() as server:
        server.script = ["error=400,," + "x" * 10_000]
        _, (failed,) = ask(server)
        assert isinstance(failed, AgentError)
    assert failed_status(400, b"[" * 100_000, {}).reason == "bad_request"


@pytest.mark.parametrize("status", [409, 424, 425, 499, 502, 520, 524])
def test_what_a_proxy_or_a_worker_says_in_passing_is_tried_again(status: int) -> None:
    with FaultyServer() as server:
        server.script = [f"status={status}"]
        _, (reply,) = ask(server)
    assert isinstance(reply, Reply)


@pytest.mark.parametrize(
    ("reported", "usage"),
    [
        ({"prompt_tokens": "7", "completion_tokens": "5"}, Usage(7, 5)),
        ({"prompt_tokens": 7.0, "completion_tokens": 5}, Usage(7, 5)),
        ({"prompt_tokens": True, "completion_tokens": True}, Usage()),
        ({"prompt_tokens": -7, "completion_tokens": float("inf")}, Usage()),
        ({"input_tokens": 7, "output_tokens": 5}, Usage(7, 5)),
        ("x", Usage()),
    ],
)
def test_tokens_are_read_however_they_are_told(reported: Any, usage: Usage) -> None:
    with FaultyServer() as server:
        server.script = [{**completion(), "usage": reported}]
        _, (reply,) = ask(server)
    assert isinstance(reply, Reply)
    assert reply.usage == usage
