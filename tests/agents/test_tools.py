"""Tools in an endpoint's own form: offered, called and answered over HTTP, and one form of text everywhere else."""

from __future__ import annotations

import asyncio
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.agents.faulty import FaultyServer, completion

from vivavoce.agents import Agent, open_agent, takes_tools
from vivavoce.agents.call_text import call_spans, read_calls, without_calls, write_call
from vivavoce.agents.called import call_as_text, with_calls
from vivavoce.agents.journal import Answered, Journal, key_of
from vivavoce.agents.scripted import Scripted
from vivavoce.records import Message, Reply, Sampling, Tool, ToolCall, all_storable

ADD = Tool("add", "Add.", {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]})
OFFERED = Sampling(0.0, max_new_tokens=20, tools=(ADD,))
CALLS = [ToolCall("add", {"n": 2}), ToolCall("add", {"n": 3})]
SAID: list[Message] = [
    {"role": "user", "content": "Reach 5."},
    {"role": "assistant", "content": f"Both.\n{write_call(CALLS[0])}\n{write_call(CALLS[1])}"},
    {"role": "tool", "content": "2"},
    {"role": "tool", "content": "5"},
]


def spoken(call: ToolCall, id: str) -> dict[str, Any]:
    return {"id": id, "type": "function", "function": {"name": call.name, "arguments": json.dumps(call.arguments)}}


def endpoint(address: str, **options: Any) -> Agent:
    given = {"model": "m", "base_url": address, "api_key_env": None, "max_retries": 0, **options}
    return open_agent("ada", "openai_chat", given)


def ask(agent: Agent, messages: list[Message], sampling: Sampling = OFFERED) -> Reply:
    async def run() -> Reply:
        try:
            return await agent.reply(messages, sampling, 3)
        finally:
            await agent.aclose()

    return asyncio.run(run())


def test_tools_and_calls_go_out_and_come_back_in_the_endpoints_form(faulty: FaultyServer) -> None:
    faulty.script = [completion(None, "tool_calls", tool_calls=[spoken(CALLS[0], "x"), spoken(CALLS[1], "y")])]
    reply = ask(endpoint(faulty.base_url), SAID)
    assert (read_calls(reply.text), reply.finish) == (CALLS, "stop")
    (body,) = faulty.requests
    assert body["tools"] == [ADD.schema()]
    _, assistant, first, second = body["messages"]
    ids = [call["id"] for call in assistant["tool_calls"]]
    assert assistant == {
        "role": "assistant",
        "content": "Both.",
        "tool_calls": [spoken(call, id) for call, id in zip(CALLS, ids, strict=True)],
    }
    assert (first, second) == (
        {"role": "tool", "tool_call_id": ids[0], "content": "2"},
        {"role": "tool", "tool_call_id": ids[1], "content": "5"},
    )
    assert len(set(ids)) == 2


def test_words_beside_a_call_are_kept(faulty: FaultyServer) -> None:
    faulty.script = [completion("I add.", tool_calls=[spoken(CALLS[0], "x")])]
    reply = ask(endpoint(faulty.base_url), SAID[:1])
    assert reply.text == f"I add.\n{write_call(CALLS[0])}"


def test_without_tools_a_request_is_what_it_was(faulty: FaultyServer) -> None:
    ask(endpoint(faulty.base_url), SAID, Sampling(0.0, max_new_tokens=20))
    assert "tools" not in faulty.requests[0]
    assert faulty.requests[0]["messages"] == SAID


@pytest.mark.parametrize("server", ["served_model", "llama_cpp"])
def test_servers_of_others_take_tools_calls_and_answers(
    server: str, request: pytest.FixtureRequest, tiny_model: Path
) -> None:
    reply = ask(endpoint(request.getfixturevalue(server), model=str(tiny_model)), SAID)
    assert reply.usage.prompt > 0


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ('{"n": 2}', '<tool_call>\n{"name": "add", "arguments": {"n": 2}}\n</tool_call>'),
        ({"n": 2}, '<tool_call>\n{"name": "add", "arguments": {"n": 2}}\n</tool_call>'),
        ("", '<tool_call>\n{"name": "add", "arguments": {}}\n</tool_call>'),
        (None, '<tool_call>\n{"name": "add", "arguments": {}}\n</tool_call>'),
    ],
)
def test_arguments_come_as_text_or_object_or_not_at_all(arguments: Any, text: str) -> None:
    assert call_as_text({"function": {"name": "add", "arguments": arguments}}) == text


def test_arguments_that_are_no_json_are_left_for_the_reader() -> None:
    with pytest.raises(ValueError, match="no JSON"):
        read_calls(call_as_text({"function": {"name": "add", "arguments": '{"n": '}}))


@pytest.mark.parametrize(
    "text",
    [
        "<tool_call>{</tool_call>",  # cannot be read: one answer that says so
        f"{write_call(CALLS[0])}{write_call(CALLS[1])}",  # two calls, one answer
        "No call at all.",
    ],
)
def test_calls_without_an_answer_each_stay_words(text: str) -> None:
    answered: list[Message] = [{"role": "assistant", "content": text}, {"role": "tool", "content": "Error: no"}]
    assert with_calls(answered) == [
        {"role": "assistant", "content": text},
        {"role": "user", "content": "<tool_response>\nError: no\n</tool_response>"},
    ]


def test_ids_differ_over_a_whole_conversation() -> None:
    messages = with_calls([*SAID, *SAID])
    ids = [m["tool_call_id"] for m in messages if m["role"] == "tool"]
    assert len(set(ids)) == 4
    assert [call["id"] for m in messages for call in m.get("tool_calls", ())] == ids


def test_tools_are_part_of_the_journals_key_and_their_absence_changes_no_old_key(tmp_path: Path) -> None:
    agent = Scripted("ada", lambda *_: "4", identity="me")
    plain = '{"messages":[{"content":"?","role":"user"}],"sampling":{"logprobs":false,"max_new_tokens":20,"stop":[],'
    plain += '"temperature":0.0,"top_p":1.0},"seed":3}'
    ask: list[Message] = [{"role": "user", "content": "?"}]
    without = key_of(agent, ask, Sampling(0.0, max_new_tokens=20), 3)
    assert without == hashlib.sha256(f"me\n{plain}".encode()).hexdigest()
    other = Sampling(0.0, max_new_tokens=20, tools=(Tool("add", "Add!", ADD.parameters),))
    assert len({without, key_of(agent, ask, OFFERED, 3), key_of(agent, ask, other, 3)}) == 3


def test_a_call_with_tools_comes_out_of_the_journal_as_it_went_in(faulty: FaultyServer, tmp_path: Path) -> None:
    faulty.script = [completion(None, tool_calls=[spoken(CALLS[0], "x")])]
    agent = endpoint(faulty.base_url)

    async def run() -> tuple[Answered, Answered]:
        with Journal(tmp_path / "journal.sqlite") as journal:
            first = await journal.call(agent, SAID, OFFERED, 3)
            second = await journal.call(agent, SAID, OFFERED, 3)
            assert journal[first.key].sampling == OFFERED
            await agent.aclose()
            return first, second

    first, second = asyncio.run(run())
    assert (first.reply, second.cached, len(faulty.requests)) == (second.reply, True, 1)


def test_an_agent_that_takes_no_tools_is_never_offered_any(tmp_path: Path) -> None:
    agent = Scripted("ada", lambda *_: "4")
    assert not takes_tools(agent)
    assert not takes_tools(endpoint("http://127.0.0.1:9", native_tools=False))

    async def run() -> None:
        with Journal(tmp_path / "journal.sqlite") as journal:
            await journal.call(agent, SAID, OFFERED, 3)

    with pytest.raises(AssertionError, match="describe them in the prompt"):
        asyncio.run(run())


# --- calls survive being text, whatever their arguments hold

_texts = st.text(st.characters(exclude_categories=()), max_size=20)
_marks = st.sampled_from(
    ["</think>", "<think>", "</tool_call>", "<tool_call>", "[/THINK]", "<|im_end|>", '"', "\\", "\n"]
)
_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | _texts
    | st.lists(_marks | _texts).map("".join),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_texts, inner, max_size=3),
    max_leaves=6,
)


@given(st.lists(st.tuples(_texts, st.dictionaries(_texts, _values, max_size=3)), min_size=1, max_size=3))
def test_what_is_written_as_calls_is_read_as_the_same_calls(named: list[tuple[str, dict[str, Any]]]) -> None:
    calls = [ToolCall(*all_storable(list(one))) for one in named]
    text = "\n".join(write_call(ToolCall(*one)) for one in named)
    assert text.encode()
    assert read_calls(text) == calls
    assert read_calls(f"<think>Which?</think>Both.\n{text}") == calls
    assert [text[a:b] for a, b in call_spans(text)] == [write_call(call) for call in calls]
    assert without_calls(f"Both.\n{text}") == "Both."
    native = [{"function": {"name": c.name, "arguments": json.dumps(c.arguments)}} for c in calls]
    assert read_calls("\n".join(map(call_as_text, native))) == calls


@pytest.mark.parametrize("mark", ["</think>", "<think>", "</tool_call>", "<tool_call>", "[/THINK]", "<|im_end|>"])
def test_a_mark_in_an_argument_is_no_mark_in_the_text(mark: str) -> None:
    call = ToolCall("add", {"n": f"a {mark} b"})
    assert mark not in write_call(call).removeprefix("<tool_call>").removesuffix("</tool_call>")
    assert read_calls(write_call(call)) == [call]
    as_models_write = f'<tool_call>\n{{"name": "add", "arguments": {{"n": "a {mark} b"}}}}\n</tool_call>'
    assert read_calls(as_models_write) == [call]
    assert without_calls(f"I add. {as_models_write} Done.") == "I add.  Done."
    assert call_spans(f"I add. {as_models_write}") == [(7, 7 + len(as_models_write))]


@pytest.mark.parametrize(
    ("arguments", "n"),
    [
        (json.dumps(json.dumps({"n": 2})), 2),  # JSON in JSON
        ('{"n": "two\nlines"}', "two\nlines"),  # a line feed as it is
        ('{"n": "\\ud83d"}', "\ufffd"),
        ('{"n": "\\ud83d\\ude00"}', "😀"),
        ('{"n": "a </tool_call> b"}', "a </tool_call> b"),
    ],
)
def test_arguments_as_endpoints_send_them_are_read(arguments: str, n: Any) -> None:
    assert read_calls(call_as_text({"function": {"name": "add", "arguments": arguments}})) == [
        ToolCall("add", {"n": n})
    ]


def test_half_a_surrogate_pair_that_a_model_escapes_is_no_character_of_the_call() -> None:
    text = '<tool_call>{"name": "add", "arguments": {"n": "\\ud83d", "m": "\\ud83d\\ude00"}}</tool_call>'
    assert read_calls(text) == [ToolCall("add", {"n": "\ufffd", "m": "😀"})]


@pytest.mark.parametrize("text", ["<think>{}", "<think>{}</think>No.", "{}\n</think>\nNo.", "[THINK]{}[/THINK]No."])
def test_a_call_that_is_only_thought_of_is_none(text: str) -> None:
    thought = text.format(write_call(CALLS[0]))
    assert read_calls(thought) == call_spans(thought) == []
    assert without_calls(thought) in ("", "No.")


def test_what_equals_nothing_is_no_argument() -> None:
    with pytest.raises(ValueError, match="NaN is no value"):
        read_calls('<tool_call>\n{"name": "f", "arguments": {"a": NaN}}\n</tool_call>')


@pytest.mark.parametrize(
    ("text", "arguments"),
    [('"name": "f"', {}), ('"name": "f", "arguments": null', {}), ('"name": "f", "parameters": {"a": 1}', {"a": 1})],
)
def test_a_call_may_have_no_arguments_or_call_them_parameters(text: str, arguments: dict[str, Any]) -> None:
    assert read_calls(f"<tool_call>{{{text}}}</tool_call>") == [ToolCall("f", arguments)]
