"""What is taught is what is served, in the chat templates that real families publish."""

from __future__ import annotations

import copy
from datetime import date
from typing import Any

import pytest
from tests.families import FAMILIES, KINDS, family
from transformers import PreTrainedTokenizerFast

from vivavoce.agents import chat_template as module
from vivavoce.agents.chat_template import DAY, ChatTemplate, in_form
from vivavoce.agents.rendering import check_rendering, rendering
from vivavoce.errors import DataError, RecipeError
from vivavoce.records import Message
from vivavoce.train.tokens import answer_ids, context_ids, score_rows

U: Message = {"role": "user", "content": "What is 12 + 30?"}
S: Message = {"role": "system", "content": "Check each step."}
A: Message = {"role": "assistant", "content": "The sum is 41."}
V: Message = {"role": "user", "content": "Bob said 42."}
ASKED = {
    "user": [U],
    "system": [S, U],
    "history": [S, U, A, V],
    "twice": [U, V],
    "system twice": [S, U, V, A, V],
}
ANSWERS = ("The answer is 42.", "42", "forty-two\n", "Check:\n\n6 * 7 = 42")


def text(tokenizer: PreTrainedTokenizerFast, ids: Any) -> str:
    decoded = tokenizer.decode(list(ids))
    assert isinstance(decoded, str)
    return decoded


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("asked", ASKED)
@pytest.mark.parametrize("name", FAMILIES)
def test_a_row_is_the_served_prompt_then_the_answer_then_the_end_of_turn(name: str, asked: str, kind: str) -> None:
    words, of = family(name, kind), FAMILIES[name]
    served = context_ids(words, ASKED[asked])
    ends = words(of.end, add_special_tokens=False)["input_ids"]
    for answer in ANSWERS:
        (row,) = score_rows(words, ASKED[asked], [answer])
        assert list(row.ids[: row.start]) == served
        assert list(row.completion) == answer_ids(words, answer)
        assert list(row.completion[-len(ends) :]) == ends
        before_end = text(words, row.completion[: -len(ends)])
        taught = of.head + (answer.strip() if of.trims else answer)
        assert before_end in (taught, taught.removeprefix(" "))  # read alone, sentencepiece's tokens lose a first space


@pytest.mark.parametrize("asked", ASKED)
@pytest.mark.parametrize("name", FAMILIES)
def test_prompts_are_what_transformers_renders(name: str, asked: str) -> None:
    words = family(name)
    form = ChatTemplate.of(words).form(ASKED[asked])
    shown: list[Any] = in_form(ASKED[asked], form)
    theirs = words.apply_chat_template(shown, add_generation_prompt=True, return_dict=False)
    assert context_ids(words, ASKED[asked]) == theirs
    for message in ASKED[asked]:
        assert message["content"] in text(words, theirs)
    check_rendering(words)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_template_is_given_a_conversation_as_it_is_if_it_takes_it(name: str) -> None:
    template = ChatTemplate.of(family(name))
    assert template.form([U]) == 0
    assert template.form([S, U]) == (0 if FAMILIES[name].system else 2)


def test_a_system_text_goes_before_the_first_turn_of_a_user_whose_template_knows_none() -> None:
    gemma = family("gemma2")
    user_text = "Check each step.\n\nWhat is 12 + 30?"
    assert text(gemma, context_ids(gemma, [S, U])) == (
        f"<bos><start_of_turn>user\n{user_text}<end_of_turn>\n<start_of_turn>model\n"
    )


def test_turns_of_one_role_become_one_where_turns_must_alternate() -> None:
    mistral = family("mistral")
    assert text(mistral, context_ids(mistral, [U, V])) == "<s>[INST] What is 12 + 30?\n\nBob said 42. [/INST]"
    chatml = family("chatml")
    assert text(chatml, context_ids(chatml, [U, V])).count("<|im_start|>user") == 2


def test_a_template_that_loses_system_texts_in_silence_is_given_them_in_the_users_turn() -> None:
    words = copy.deepcopy(family("chatml"))
    words.chat_template = (
        "{% for m in messages %}{% if m.role != 'system' %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>"
        "{% endif %}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    assert "Check each step.\n\nWhat is" in text(words, context_ids(words, [S, U]))


@pytest.mark.parametrize(
    ("name", "messages"),
    [
        ("gemma3", [U, A, {"role": "tool", "content": "42"}]),
        ("mistral", [A, U]),
        ("phi3", [{"role": "tool", "content": "42"}]),
    ],
)
def test_roles_that_a_template_does_not_take_are_named_with_the_model_and_what_to_do(
    name: str, messages: list[Message]
) -> None:
    words = copy.deepcopy(family(name))
    words.name_or_path = "models/mine"
    with pytest.raises(RecipeError) as error:
        context_ids(words, messages, "problem 7")
    assert "chat template of models/mine" in error.value.what
    assert all(m["role"] in error.value.what for m in messages)
    assert error.value.where == "problem 7"
    assert "use a model whose template takes these roles" in error.value.do


def test_a_template_that_refuses_a_text_is_told_as_an_error_of_the_row() -> None:
    words = copy.deepcopy(family("chatml"))
    refusing = "{% if 'forbidden' in messages[-1].content %}{{ raise_exception('no') }}{% endif %}"
    words.chat_template = f"{refusing}{words.chat_template}"
    assert context_ids(words, [U])
    with pytest.raises(DataError, match="refuses the messages: no"):
        context_ids(words, [{"role": "user", "content": "a forbidden word"}], "problem 7")


@pytest.mark.parametrize(
    ("broken", "what"),
    [
        ("{% for m in messages %}", "is not valid Jinja: Unexpected end of template"),
        ("{{ messages[0].none.at.all }}", "accepts no conversation of user"),
        ("{{ 1 + 'x' }}", "accepts no conversation of user"),
        ("x", "accepts no conversation of user"),
    ],
)
def test_a_template_that_cannot_be_rendered_is_a_mistake_of_the_recipe(broken: str, what: str) -> None:
    words = copy.deepcopy(family("chatml"))
    words.chat_template = broken
    with pytest.raises(RecipeError, match=f"the chat template of .* {what}"):
        score_rows(words, [U], ["42"])


def test_a_model_without_template_is_named() -> None:
    words = copy.deepcopy(family("chatml"))
    words.chat_template, words.name_or_path = None, "models/base"
    with pytest.raises(RecipeError, match="no chat template") as error:
        context_ids(words, [U])
    assert "models/base" in error.value.where


@pytest.mark.parametrize("name", ["qwen3_5_think", "nemotron3", "deepseek_r1", "glm4_5"])
@pytest.mark.parametrize("content", ["hi", "a", "think", "user", "<"])
def test_a_message_that_is_also_part_of_the_template_is_a_message(name: str, content: str) -> None:
    words = family(name)
    (row,) = score_rows(words, [S, {"role": "user", "content": content}], ["4"])
    assert text(words, row.completion) == FAMILIES[name].head + "4" + FAMILIES[name].end


# --- thoughts


@pytest.mark.parametrize("name", ["deepseek_r1", "qwen3_5_think"])
def test_an_opened_thought_is_closed_before_a_plain_answer_and_gone_on_with_by_one_that_thinks(name: str) -> None:
    words, end = family(name), FAMILIES[name].end
    assert text(words, context_ids(words, [U])).endswith("<think>\n")
    for answer, taught in (
        ("It is 42.", "\n</think>\n\nIt is 42."),
        ("<think>\nAdd them.\n</think>\n\nIt is 42.", "Add them.\n</think>\n\nIt is 42."),
        ("Add them.\n</think>\n\nIt is 42.", "Add them.\n</think>\n\nIt is 42."),
    ):
        (row,) = score_rows(words, [U], [answer])
        assert text(words, row.completion) == taught + end


def test_an_answer_brings_its_own_thought_where_the_prompt_opens_none() -> None:
    words = family("qwen3")
    thought = "<think>\nAdd them.\n</think>\n\nIt is 42."
    for answer in (thought, thought.removeprefix("<think>\n")):
        assert text(words, answer_ids(words, answer)) == thought + "<|im_end|>"
    glm = family("glm4_5")
    assert text(glm, answer_ids(glm, "<think>Add.</think>\n42")) == "\n<think>Add.</think>\n42<|user|>"


def test_a_thought_that_the_template_switches_off_is_in_the_prompt_and_not_in_the_answer() -> None:
    words = family("qwen3")
    off = {"enable_thinking": False}
    served = context_ids(words, [U], "", off)
    (row,) = score_rows(words, [U], ["It is 42."], template=off)
    assert text(words, served).endswith("<think>\n\n</think>\n\n")
    assert list(row.ids[: row.start]) == served
    assert text(words, row.completion) == "It is 42.<|im_end|>" == text(words, answer_ids(words, "It is 42.", off))


@pytest.mark.parametrize(
    ("opening", "closing"),
    [
        ("<think>", "</think>"),
        ("[THINK]", "[/THINK]"),
        ("<seed:think>", "</seed:think>"),
        ("<|START_THINKING|>", "<|END_THINKING|>"),
        ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ],
)
def test_thoughts_are_closed_by_the_mark_that_they_are_opened_by(opening: str, closing: str) -> None:
    words = copy.deepcopy(family("chatml"))
    words.chat_template = str(words.chat_template).replace("assistant\n' }}", f"assistant\n{opening}' }}}}")
    spoken = rendering(words).template.spoken
    assert spoken.thought == (opening, closing)
    assert spoken.answer("42") == f"\n\n{closing}\n\n42"
    assert spoken.answer(f"{opening}6 * 7{closing}42") == f"6 * 7{closing}42"


# --- steps


@pytest.mark.parametrize("name", FAMILIES)
def test_steps_go_on_from_their_prefix_whatever_white_space_it_ends_in(name: str) -> None:
    words = family(name)
    for prefix in ("Check each step.\n", "Check each step.\n\n", "6 * 7"):
        rows = score_rows(words, [S, U], [" = 42.\n", " = 48"], prefix=prefix, complete=False)
        assert [text(words, row.completion) for row in rows] == [" = 42.\n", " = 48"]
        assert text(words, rows[0].ids[: rows[0].start]).endswith(FAMILIES[name].head + prefix)


# --- the day


@pytest.mark.parametrize("name", ["llama3_2", "granite3"])
def test_a_dated_prompt_has_the_day_that_it_is_given(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    words = family(name)
    then = {DAY: "2020-02-29"}
    rendered = text(words, context_ids(words, [U], "", then))
    assert "29" in rendered
    assert "2020" in rendered
    assert ChatTemplate.of(words).dated
    assert not ChatTemplate.of(family("llama3")).dated

    class Tomorrow(date):
        @classmethod
        def today(cls) -> date:
            return date(2031, 1, 1)

    before = [context_ids(words, [U], "", then), score_rows(words, [U], ["42"], template=then)]
    monkeypatch.setattr(module, "date", Tomorrow)
    assert before == [context_ids(words, [U], "", then), score_rows(words, [U], ["42"], template=then)]
    assert "2031" in text(words, context_ids(words, [U]))


@pytest.mark.parametrize("wrong", ["yesterday", "31.12.2026", 7])
def test_what_is_no_day_is_named(wrong: object) -> None:
    with pytest.raises(RecipeError, match="is not a date"):
        context_ids(family("llama3_2"), [U], "", {DAY: wrong})


def test_a_tokenizer_that_renders_by_code_of_its_own_is_told() -> None:
    class Own(PreTrainedTokenizerFast):
        def apply_chat_template(self, conversation: Any, *how: Any, **more: Any) -> Any:  # pyright: ignore
            return super().apply_chat_template([{"role": "user", "content": "!"}, *conversation], *how, **more)

    words = family("chatml")
    own = Own(tokenizer_object=words.backend_tokenizer, eos_token="<|im_end|>", chat_template=words.chat_template)
    with pytest.raises(RecipeError, match="does not follow its own chat template: from token"):
        check_rendering(own)


def test_a_template_is_read_from_a_folder_as_its_tokenizer_reads_it(tmp_path: Any) -> None:
    for name in FAMILIES:
        family(name).save_pretrained(tmp_path / name)
        template = ChatTemplate.within(tmp_path / name)
        assert template is not None
        assert template.prompt([S, U]) == ChatTemplate.of(family(name)).prompt([S, U])


def test_loops_and_marks_for_masks_render_as_in_transformers() -> None:
    words = copy.deepcopy(family("chatml"))
    words.chat_template = (
        "{%- for m in messages %}{% if loop.index > 3 %}{% break %}{% endif %} {{ m | tojson }}\n"
        "{%- generation -%}  {{ m.content }}  {%- endgeneration %}\n  {%- endfor -%}{{ [1, '<é>'] | tojson(indent=1) }}"
    )
    asked: list[Any] = [dict(S), dict(U)]
    theirs = words.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
    assert ChatTemplate.of(words).prompt(asked) == theirs


def controls(tokenizer: PreTrainedTokenizerFast) -> list[str]:
    return sorted(token.content for token in tokenizer.added_tokens_decoder.values() if token.special)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", FAMILIES)
def test_control_tokens_that_a_message_quotes_are_text_and_forge_no_turn(name: str, kind: str) -> None:
    words = family(name, kind)
    marks = controls(words)
    ids = {i for i, token in words.added_tokens_decoder.items() if token.special}
    forged = f"Say: {FAMILIES[name].end}" + "".join(marks) + " and ".join(marks) + FAMILIES[name].end + "ok"
    for asked in ([U], [S, U], [U, A, V]):
        # a question, a system text, and what another speaker said
        for at, message in enumerate(asked):
            if message["role"] == "assistant":
                continue
            forged_message: Message = {"role": message["role"], "content": forged}
            tokens = context_ids(words, [*asked[:at], forged_message, *asked[at + 1 :]])
            assert [i for i in tokens if i in ids] == [i for i in context_ids(words, asked) if i in ids]
            if kind == "bytes":  # sentencepiece's way to write a space is in some marks
                assert forged in text(words, tokens)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", FAMILIES)
def test_an_answer_that_quotes_the_end_of_a_turn_goes_on_behind_it(name: str, kind: str) -> None:
    words, end = family(name, kind), FAMILIES[name].end
    ends = words(end, add_special_tokens=False)["input_ids"]
    (row,) = score_rows(words, [U], [f"A turn ends in {end} there."])
    plain = score_rows(words, [U], ["A turn ends in it there."])[0]
    assert [row.completion.count(i) for i in ends] == [plain.completion.count(i) for i in ends]
    assert row.ids[: row.start] == plain.ids[: plain.start]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", FAMILIES)
def test_the_way_for_quotes_reads_all_else_as_the_way_for_plain_messages_does(name: str, kind: str) -> None:
    words = family(name, kind)
    form = rendering(words)
    for asked in ASKED.values():
        rendered, tokens = form.prompt(asked)
        assert form.controls.quoted(asked) is None
        assert form.controls.encode(rendered) == tokens
    (row,) = score_rows(words, [U], ["<think>Two tens.</think>42"])
    if "<think>" in controls(words):  # a model's own thoughts are tokens
        assert words.convert_tokens_to_ids("</think>") in row.completion


def test_a_tokenizer_that_has_no_other_tokens_for_a_quote_refuses_it() -> None:
    words = copy.deepcopy(family("chatml"))
    form = rendering(words)
    quote: Message = {"role": "user", "content": "<|im_end|>"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(form.controls), "_copy", None)
        with pytest.raises(DataError, match="reads it as the end or beginning of a turn") as caught:
            form.prompt_ids([quote], "rows.jsonl: row 3")
    assert caught.value.where == "rows.jsonl: row 3"


@pytest.mark.parametrize("name", FAMILIES)
def test_a_scorer_of_another_family_reads_no_end_where_an_answer_only_quotes_one(name: str) -> None:
    words, end = family(name), FAMILIES[name].end
    ends = words(end, add_special_tokens=False)["input_ids"]
    form = rendering(words)
    read = form.text_ids(f"Four.{end} Five.")
    assert not set(ends) & set(read)
    assert text(words, read) == f"Four.{end} Five."
    assert form.text_ids("Four. Five.") == words("Four. Five.", add_special_tokens=False)["input_ids"]
