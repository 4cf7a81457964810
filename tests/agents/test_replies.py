"""What of a reply is said and what is only thought, told alike for every backend."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from vivavoce.agents import replies
from vivavoce.agents.anthropic_messages import read as read_message
from vivavoce.agents.journal import Journal
from vivavoce.agents.openai_chat import read as read_completion
from vivavoce.agents.replies import in_chunks, kept_special, opens_thought, split_thought, spoken, without_marks
from vivavoce.agents.scripted import Scripted
from vivavoce.errors import AgentError
from vivavoce.records import Example, Message, Reply, Sampling, Token, Usage, from_json, storable, to_json

FENCE = "```"
CODE = f"{FENCE}python\nprint('</think>')\n{FENCE}"
CALL = '<tool_call>\n{"name": "write", "arguments": {"text": "a </think> b"}}\n</tool_call>'


@pytest.mark.parametrize(
    ("reply", "text", "thought"),
    [
        ("Four.", "Four.", ""),
        ("<think>2 + 2</think>\n\nFour.", "Four.", "2 + 2"),
        ("<think>\n\n</think>\n\nFour.", "Four.", ""),
        ("  \n<think>2 + 2</think> Four.", "Four.", "2 + 2"),
        ("2 + 2\n</think>\n\nFour.", "Four.", "2 + 2"),  # the prompt opened it
        ("<thinking>2 + 2</thinking>Four.", "Four.", "2 + 2"),
        ("<thought>2 + 2</thought>Four.", "Four.", "2 + 2"),
        ("<seed:think>2 + 2</seed:think>Four.", "Four.", "2 + 2"),
        ("[THINK]2 + 2[/THINK]Four.", "Four.", "2 + 2"),
        ("◁think▷2 + 2◁/think▷Four.", "Four.", "2 + 2"),
        ("<|channel>thought\n2 + 2\n<channel|>Four.", "Four.", "2 + 2"),
        ("<|START_THINKING|>2 + 2<|END_THINKING|>Four.", "Four.", "2 + 2"),
        ("<|channel|>analysis<|message|>2 + 2<|end|><|start|>assistant<|channel|>final<|message|>Four.<|return|>",
         "Four.", "2 + 2"),
        ("analysisTwo and two.assistantfinalFour.", "Four.", "Two and two."),
        # never closed
        ("<think>Final answer: 4. But wait", "", "Final answer: 4. But wait"),
        ("[THINK]Final answer: 4", "", "Final answer: 4"),
        ("<|channel|>analysis<|message|>Final answer: 4", "", "Final answer: 4"),
        ("analysisTwo and two", "", "Two and two"),
        ("One moment.\n<think>Final answer: 4", "One moment.\n", "Final answer: 4"),
        ("<think>a</think>\n<think>Final answer: 4", "", "a\n\nFinal answer: 4"),
        # several, and in the middle
        ("<think>a</think><think>b</think>Four.", "Four.", "a\n\nb"),
        ("One moment.\n<think>a</think>\nFour.", "One moment.\nFour.", "a"),
        ("<think>a</think>b</think>Four.", "Four.", "a\n\nb"),
        ("<think>I write <think> first</think>Four.", "Four.", "I write <think> first"),
        ("<|START_THINKING|>a<|END_THINKING|><|START_RESPONSE|>Four.<|END_RESPONSE|>", "Four.", "a"),
        # ends of turns of further families, which a server let through
        *(
            (f"Four.{mark}", "Four.", "")
            for mark in (
                *("<|eot|>", "<|eos|>", "<|end_of_sentence|>", "<seed:eos>", "[|endofturn|]", "[e~[", "[EOS]"),
                *("<|im_end|>[EOS]", "<|end|><|endoftext|>", "<|im_end|>\n<|im_start|>user\nFive?"),
            )
        ),
        # marks that are said
        (CODE, CODE, ""),
        (CALL, CALL, ""),
        ("s = '</think>'\nprint(s)", "s = '</think>'\nprint(s)", ""),
        ("Close it with `</think>`.", "Close it with `</think>`.", ""),
        ('"""\n<think>\n</think>\n"""', '"""\n<think>\n</think>\n"""', ""),
        (f"<think>a</think>{CODE}", CODE, "a"),
        (f"a\n</think>\n{CALL}", CALL, "a"),
        ("It begins with <think> as always. Final answer: 4", "It begins with <think> as always. Final answer: 4", ""),
        # a thought that holds half a block, or a call that it does not make
        (f"<think>{FENCE}python\nx = 1</think>Four.\n{CODE}", f"Four.\n{CODE}", f"{FENCE}python\nx = 1"),
        (f"So:\n{FENCE}python\nx = 1\n</think>\n\n{CODE}", CODE, f"So:\n{FENCE}python\nx = 1"),
        (f"<think>{CALL}</think>Four.", "Four.", CALL),
        # what follows keeps its own indentation
        ("<think>a</think>\n\n    return x", "    return x", "a"),
        # ends of turns that a server let through
        ("Four.<|im_end|>", "Four.", ""),
        ("Four.<|eot_id|>\n", "Four.", ""),
        ("Four.</s>", "Four.", ""),
        ("Four.\n<|im_end|>\n<|im_start|>user\nAnd 3 + 3?", "Four.", ""),
        ("<think>a</think>Four.<|im_end|>", "Four.", "a"),
        ("<s>Five</s>", "<s>Five</s>", ""),
        ("<|im_end|> ends a turn.", "<|im_end|> ends a turn.", ""),
        ("analysis of it: 4", "analysis of it: 4", ""),
        ("analysisResult = 4", "analysisResult = 4", ""),
        ("1 < 2 > 0 [x]", "1 < 2 > 0 [x]", ""),
        ("", "", ""),
    ],
)  # fmt: skip
def test_a_reply_is_parted_into_what_is_said_and_what_is_thought(reply: str, text: str, thought: str) -> None:
    cut = split_thought(reply)
    assert (cut.text, cut.thought) == (text, thought)
    assert spoken(cut.text) == cut.text, "what is said is said when it is looked at again"
    assert "".join(reply[a:b] for a, b in cut.spans) == text


@pytest.mark.parametrize(
    ("prompt", "opened"),
    [
        ("<|im_start|>assistant\n<think>\n", True),
        ("<|im_start|>assistant\n<think>\n\n</think>\n\n", False),
        ("[/INST][THINK]", True),
        ("<|start|>assistant<|channel|>analysis<|message|>", True),
        ("<|im_start|>assistant\n", False),
        ("Write <think> first.<|im_end|>\n<|im_start|>assistant\n", False),
    ],
)
def test_a_prompt_tells_whether_the_reply_begins_inside_a_thought(prompt: str, opened: bool) -> None:
    assert opens_thought(prompt) is opened


@pytest.mark.parametrize(
    ("reply", "text", "thought"),
    [
        ("Final answer: 4. But wait", "", "Final answer: 4. But wait"),
        ("2 + 2</think>Four.", "Four.", "2 + 2"),
        ("2 + 2<|end|><|start|>assistant<|channel|>final<|message|>Four.", "Four.", "2 + 2"),
    ],
)
def test_where_the_prompt_opened_the_thought_a_reply_that_never_closes_it_says_nothing(
    reply: str, text: str, thought: str
) -> None:
    got = without_marks(Reply(reply), opened=True)
    assert (got.text, got.thought) == (text, thought)


def test_a_thought_that_was_told_apart_leaves_the_text_as_it_is() -> None:
    text = "The tag </think> ends a thought."
    assert without_marks(Reply(text, thought="hm")) == Reply(text, thought="hm")
    assert without_marks(Reply("</think>\n\nFour.", thought="hm")).text == "Four."


def test_the_tokens_of_a_reply_are_those_of_what_is_said() -> None:
    tokens = tuple(Token(t, -i / 8) for i, t in enumerate(["<think>", "2 +", " 2", "</think>\n\nFo", "", "ur", "."]))
    got = without_marks(Reply("<think>2 + 2</think>\n\nFour.", tokens=tokens))
    assert got.tokens == (Token("Fo", -3 / 8), Token("", -4 / 8), Token("ur", -5 / 8), Token(".", -6 / 8))
    assert without_marks(Reply("Four.", tokens=(Token("Five.", -1.0),))).tokens is None
    assert without_marks(Reply("Four.", tokens=(Token("Four.", -1.0), Token("", -2.0)))).tokens is not None


def completion(**message: Any) -> dict[str, Any]:
    return {"choices": [{"message": {"role": "assistant", **message}, "finish_reason": "stop"}]}


@pytest.mark.parametrize(
    "message",
    [
        {"content": "Four.", "reasoning_content": "2 + 2"},
        {"content": "Four.", "reasoning": "2 + 2"},
        {"content": "Four.", "reasoning_details": [{"type": "reasoning.text", "text": "2 + 2"}]},
        {"content": "<think>2 + 2</think>Four."},
        {"content": "<think>2 + 2</think>Four.", "reasoning_content": None},
    ],
)
def test_every_way_in_which_endpoints_give_thoughts_comes_to_the_same(message: dict[str, Any]) -> None:
    reply = read_completion(completion(**message))
    assert isinstance(reply, Reply)
    got = without_marks(reply)
    assert (got.text, got.thought) == ("Four.", "2 + 2")


def test_the_thinking_blocks_of_anthropic_come_to_the_same() -> None:
    content = [{"type": "thinking", "thinking": "2 + 2", "signature": "s"}, {"type": "text", "text": "Four."}]
    reply = read_message(
        {"content": content, "stop_reason": "end_turn", "usage": {"input_tokens": 1, "output_tokens": 1}}
    )
    assert isinstance(reply, Reply)
    assert (reply.text, reply.thought) == ("Four.", "2 + 2")


def test_chunks_of_content_are_said_or_thought() -> None:
    thinking = {"type": "thinking", "thinking": [{"type": "text", "text": "2 + 2"}], "closed": True}
    assert in_chunks([thinking, {"type": "text", "text": "Four."}]) == ("Four.", "2 + 2")
    assert (
        in_chunks([{"type": "reasoning", "text": "2 + 2"}, "Four", {"type": "output_text", "text": "."}])[0] == "Four."
    )
    with pytest.raises(TypeError, match="image"):
        in_chunks([{"type": "image"}])


def test_log_probabilities_of_a_thought_that_was_told_apart_are_left_out() -> None:
    answer = completion(content="Four.", reasoning_content="hm")
    tokens = [{"token": t, "logprob": -0.5} for t in ("<think>", "hm", "</think>", "Four", ".")]
    answer["choices"][0]["logprobs"] = {"content": tokens}
    reply = read_completion(answer)
    assert isinstance(reply, Reply)
    assert reply.tokens == (Token("Four", -0.5), Token(".", -0.5))


def test_special_tokens_that_mark_thoughts_are_read() -> None:
    assert kept_special(["[THINK]", "[/THINK]", "</s>", "<|end|>"]) == {"[THINK]", "[/THINK]"}
    assert "<|end|>" in kept_special(["<|channel|>", "<|message|>", "<|end|>"])


def asked(path: Path, reply: Reply, messages: list[Message] | None = None) -> tuple[Reply | None, Reply | None]:
    """What the journal answers, and answers again."""
    agent = Scripted("ada", lambda *_: reply)

    async def run() -> tuple[Reply | None, Reply | None]:
        with Journal(path / "journal.sqlite") as journal:
            given = messages or [Message(role="user", content="?")]
            first = await journal.call(agent, given, Sampling(), 1)
        with Journal(path / "journal.sqlite", read_only=True) as journal:
            return first.reply, (await journal.call(agent, given, Sampling(), 1)).reply

    return asyncio.run(run())


def test_a_journal_keeps_the_thought_apart_for_any_agent(tmp_path: Path) -> None:
    first, second = asked(tmp_path, Reply("<think>2 + 2</think>Four."))
    assert first == second == Reply("Four.", thought="2 + 2")


def test_a_journal_of_before_is_read_as_one_of_today(tmp_path: Path) -> None:
    asked(tmp_path, Reply("x"))
    with Journal(tmp_path / "journal.sqlite") as journal:
        text = "<think>2 + 2</think>Four."
        journal._db.execute("UPDATE texts SET text = ? WHERE id IN (SELECT said FROM calls)", (text,))
        (call,) = journal
        assert call.reply == Reply("Four.", thought="2 + 2")


# --- any text

any_text = st.text(st.characters(exclude_categories=()), max_size=40)  # halves of surrogate pairs too
marks = st.sampled_from(
    [*replies.LITERALS, "<|channel|>analysis<|message|>", "<|end|>", "<|im_end|>", FENCE, "'", '"', "\n", "<tool_call>",
     "</tool_call>", "{", "\\", " ", "a"]
)  # fmt: skip


@given(st.lists(st.one_of(any_text, marks), max_size=12).map("".join), st.booleans())
def test_parting_never_fails_and_keeps_pieces_of_the_reply_in_order(text: str, opened: bool) -> None:
    cut = split_thought(text, opened or None)
    assert "".join(text[a:b] for a, b in cut.spans) == cut.text
    assert all(a <= b for a, b in cut.spans)
    assert list(cut.spans) == sorted(cut.spans)


@given(any_text)
@example("\ud83d\ude00")
@example("a\ud83d")
@example("\ud83d\ud83d\ude00\ude00")
def test_a_storable_text_is_text_and_loses_only_what_is_no_character(text: str) -> None:
    kept = storable(text)
    assert kept.encode().decode() == kept
    assert storable(kept) is kept
    assert kept.replace("\ufffd", "").encode("utf-16-le") in (
        text.replace("\ufffd", "").encode("utf-16-le", "surrogatepass"),
        kept.replace("\ufffd", "").encode("utf-16-le"),
    )
    assert kept == text or any("\ud800" <= c <= "\udfff" for c in text)


def test_halves_that_belong_together_become_their_character() -> None:
    assert storable("\ud83d\ude00!\ud83d") == "😀!\ufffd"


@given(any_text, any_text)
def test_a_row_is_read_as_it_was_written(prompt: str, completion: str) -> None:
    row = Example("q", ({"role": "user", "content": prompt},), completion, ("n",))
    read = from_json(Example, to_json(row).encode())
    assert read.prompt[0]["content"] == storable(prompt)
    assert read.completion == storable(completion)
    assert to_json(read) == to_json(row)


@given(text=any_text, asking=any_text, thought=any_text, token=any_text)
def test_a_journal_gives_back_what_it_was_given(
    tmp_path_factory: pytest.TempPathFactory, text: str, asking: str, thought: str, token: str
) -> None:
    given_ = Reply(text, "length", Usage(1, 2, 3), token, (Token(text, -0.5),), 0.25, thought=thought)
    first, second = asked(tmp_path_factory.mktemp("j"), given_, [Message(role="user", content=asking)])
    assert first == second == without_marks(given_)
    assert first is not None
    assert first.text == storable(first.text)
    if without_marks(given_) == given_:  # nothing in it is a mark of thoughts or of an end
        assert first.text == storable(text)


@given(st.lists(st.sampled_from(["<think>", "</think>", "[THINK]x[/THINK]", "analysisWe", "assistantfinal", "</s>"])))
def test_a_reply_that_was_received_is_not_divided_again(pieces: list[str]) -> None:
    once = without_marks(Reply("".join(pieces)))
    assert without_marks(once) == once


def test_what_an_endpoint_complains_of_can_be_written_down(tmp_path: Path) -> None:
    def respond(*_: object) -> str:
        raise AgentError("refused", "no: \ud83d")

    async def run() -> AgentError | None:
        with Journal(tmp_path / "journal.sqlite") as journal:
            messages = [Message(role="user", content="?")]
            return (await journal.call(Scripted("ada", respond), messages, Sampling(), 1)).error

    error = asyncio.run(run())
    assert error is not None
    assert error.detail == "no: \ufffd"
