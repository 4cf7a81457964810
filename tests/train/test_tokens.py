"""The boundary between prompt and answer, for byte-level BPE and for sentencepiece-style tokenizers."""

from typing import Any, cast

import pytest
from datasets import Dataset
from tests.train.students import messages
from transformers import PreTrainedTokenizerFast

from vivavoce.errors import DataError
from vivavoce.records import Message
from vivavoce.train.tokens import score_rows

END = {"bpe": "<|im_end|>\n", "metaspace": "</s>"}
CHAT = (Message(role="system", content="Check each step."), *messages("Solve: what is 12 + 30?"))
ANSWERS = ("The sum is 42.", "42", " and not", "Thence the others agreed.", "Zweiundvierzig\n\n42")


def end_of(tokenizer: PreTrainedTokenizerFast) -> str:
    return END["bpe" if "<|im_end|>" in tokenizer.get_vocab() else "metaspace"]


def decoded(tokenizer: PreTrainedTokenizerFast, ids: tuple[int, ...]) -> str:
    text = tokenizer.decode(list(ids))
    assert isinstance(text, str)
    return text


def test_the_scored_tokens_are_the_answer_and_the_end_of_turn(any_tokenizer: PreTrainedTokenizerFast):
    for answer in ANSWERS:
        (row,) = score_rows(any_tokenizer, CHAT, [answer])
        said = decoded(any_tokenizer, row.completion)
        if end_of(any_tokenizer) == "</s>":
            # its template trims the answer, and a straddling token may bring a space or the ": " before it
            assert said.lstrip(": ") == answer.strip() + "</s>"
        else:
            assert said == answer + "<|im_end|>\n"


def test_the_prompt_is_intact(any_tokenizer: PreTrainedTokenizerFast):
    for answer in ANSWERS:
        (row,) = score_rows(any_tokenizer, CHAT, [answer])
        context = decoded(any_tokenizer, row.ids[: row.start])
        assert "Check each step." in context
        assert "Solve: what is 12 + 30?" in context
        assert answer.strip() not in context


def test_a_token_that_straddles_the_boundary_is_scored_in_every_alternative(any_tokenizer: PreTrainedTokenizerFast):
    rows = score_rows(any_tokenizer, CHAT, ANSWERS)
    assert len({row.start for row in rows}) == 1
    assert len({row.ids[: row.start] for row in rows}) == 1
    prompt = any_tokenizer.apply_chat_template(cast(Any, list(CHAT)), add_generation_prompt=True, return_dict=False)
    straddles = rows[0].start < len(prompt)
    assert straddles == (end_of(any_tokenizer) == "</s>"), "the second tokenizer is here to straddle"


def test_an_unfinished_continuation_has_no_end_of_turn(any_tokenizer: PreTrainedTokenizerFast):
    rows = score_rows(
        any_tokenizer, CHAT, [" then 7 = 42", " then 7 = 48"], prefix="Check each step, 6 *", complete=False
    )
    for row, step in zip(rows, ("then 7 = 42", "then 7 = 48"), strict=True):
        assert decoded(any_tokenizer, row.completion).strip() == step
        assert decoded(any_tokenizer, row.ids[: row.start]).rstrip().endswith("Check each step, 6 *")


def test_a_prefix_is_context_also_where_the_answer_is_complete(any_tokenizer: PreTrainedTokenizerFast):
    (row,) = score_rows(any_tokenizer, CHAT, [" the answer is 42."], prefix="So")
    assert decoded(any_tokenizer, row.completion).strip() == "the answer is 42." + end_of(any_tokenizer).strip()


def test_rows_are_what_the_chat_template_tokenises(any_tokenizer: PreTrainedTokenizerFast):
    (row,) = score_rows(any_tokenizer, CHAT, ["The sum is 42."])
    whole = [*CHAT, {"role": "assistant", "content": "The sum is 42."}]
    assert list(row.ids) == any_tokenizer.apply_chat_template(whole, return_dict=False)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")
def test_trl_prepares_the_same_tokens_and_labels(any_tokenizer: PreTrainedTokenizerFast, tmp_path):
    from tests.train.students import tiny_model
    from trl import SFTConfig, SFTTrainer

    rows = [score_rows(any_tokenizer, CHAT, [answer])[0] for answer in ANSWERS]
    data = Dataset.from_list(
        [{"prompt": list(CHAT), "completion": [{"role": "assistant", "content": answer}]} for answer in ANSWERS]
    )
    config = SFTConfig(
        output_dir=str(tmp_path),
        max_length=None,
        completion_only_loss=True,
        report_to="none",
        use_cpu=True,
        activation_checkpointing=False,
    )
    trainer = SFTTrainer(tiny_model(), config, train_dataset=data, processing_class=any_tokenizer)
    prepared = trainer.train_dataset
    assert isinstance(prepared, Dataset)
    assert prepared["input_ids"] == [list(row.ids) for row in rows]
    assert prepared["labels"] == [[-100] * row.start + list(row.completion) for row in rows]


@pytest.mark.parametrize("answers", [[""], ["42", "  \n"]])
def test_an_empty_answer_is_refused(tokenizer: PreTrainedTokenizerFast, answers: list[str]):
    with pytest.raises(DataError, match="is empty"):
        score_rows(tokenizer, CHAT, answers)


def test_a_template_that_loses_the_question_is_refused(tokenizer: PreTrainedTokenizerFast):
    import copy

    broken = copy.deepcopy(tokenizer)
    broken.chat_template = "{{ messages[0]['content'] }}:{% if messages[-1]['role'] == 'assistant' %}x{% endif %}"
    with pytest.raises(DataError, match="loses the user message"):
        score_rows(broken, CHAT, ["42"])
    broken.chat_template = None
    with pytest.raises(DataError, match="no chat template"):
        score_rows(broken, CHAT, ["42"])


def test_a_template_that_rewrites_the_prompt_is_refused(tokenizer: PreTrainedTokenizerFast):
    import copy

    broken = copy.deepcopy(tokenizer)
    broken.chat_template = (
        "{{ messages | length }}{% for message in messages %}{{ message['content'] }}<|im_end|>{% endfor %}"
    )
    with pytest.raises(DataError, match="differently before an answer"):
        score_rows(broken, CHAT, ["42"])
