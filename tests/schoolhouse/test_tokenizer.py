"""Digits stand alone, any text survives, and a prompt is a prefix of the conversation it opens."""

import pytest

pytest.importorskip("transformers")

from transformers import AutoTokenizer

from vivavoce.schoolhouse import tokenizer as words

CONVERSATION = [
    {"role": "system", "content": "debate"},
    {"role": "user", "content": "a=4; b=a-3; c=b*5; c?\nme: b=4-3=1; c=1*5=7?; ans=7 conf=15\np1: b=4-3=1"},
    {"role": "assistant", "content": "b=4-3=1 got 1 ok; c=1*5=9 got 7 wrong; ans=9; score=2"},
]


@pytest.fixture(scope="module")
def tokenizer():
    return words.tokenizer()


def test_the_vocabulary_is_small_and_building_it_twice_gives_the_same(tokenizer):
    assert len(tokenizer) <= 512
    assert tokenizer.get_vocab() == words.tokenizer().get_vocab()


@pytest.mark.parametrize(
    "text", ["b=4-3=1; c=1*5=7?", "Grüße, 漢字 🙂\n\ttabs", " conf ok  wrong", "", "score reflect"]
)
def test_any_text_survives_encoding(tokenizer, text):
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_digits_and_operators_stand_alone(tokenizer):
    tokens = tokenizer.tokenize("b=4-3=1; c=1^57?; ans=57 conf=95")
    assert all(len(token) == 1 for token in tokens if any(c.isdigit() or c in "=-^?" for c in token))


def test_the_words_of_the_formats_are_one_token_each(tokenizer):
    for word in ("solve", "debate", "check", "reflect", " got", " ok", " wrong", " conf", "ans", "score", "; ", ": "):
        assert len(tokenizer.tokenize(word)) == 1, word


def test_a_prompt_is_a_prefix_of_the_conversation_and_the_turn_ends_in_end(tokenizer):
    opened = tokenizer.apply_chat_template(CONVERSATION[:2], tokenize=False, add_generation_prompt=True)
    whole = tokenizer.apply_chat_template(CONVERSATION, tokenize=False)
    assert opened == words.prompt("debate", CONVERSATION[1]["content"])
    assert whole == opened + CONVERSATION[2]["content"] + "<|end|>"
    prefix, ids = tokenizer(opened)["input_ids"], tokenizer(whole)["input_ids"]
    assert ids[: len(prefix)] == prefix


def test_the_template_marks_the_assistants_tokens(tokenizer):
    made = tokenizer.apply_chat_template(CONVERSATION, return_assistant_tokens_mask=True, return_dict=True)
    taught = [i for i, mask in zip(made["input_ids"], made["assistant_masks"], strict=True) if mask]
    assert tokenizer.decode(taught) == CONVERSATION[2]["content"] + "<|end|>"


def test_a_saved_tokenizer_loads_as_an_ordinary_one(tokenizer, tmp_path):
    words.save(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    text = tokenizer.apply_chat_template(CONVERSATION, tokenize=False)
    assert loaded(text)["input_ids"] == tokenizer(text)["input_ids"]
    assert loaded.apply_chat_template(CONVERSATION, tokenize=False) == text
    assert (loaded.eos_token, loaded.pad_token) == ("<|end|>", "<|pad|>")
