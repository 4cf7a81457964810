"""The boundary between prompt and answer, for byte-level BPE and for sentencepiece-style tokenizers."""

import copy
from datetime import date, timedelta
from pathlib import Path

import pytest
from datasets import Dataset
from tests.families import family
from tests.train.students import bpe, messages, metaspace, tiny_model
from transformers import PreTrainedTokenizerFast

from vivavoce.agents import chat_template
from vivavoce.errors import DataError
from vivavoce.records import Completion, Example, Message, State, View
from vivavoce.train.objective import OnPolicySettings, Scorer
from vivavoce.train.on_policy import train_on_policy
from vivavoce.train.settings import Progress, SFTSettings, TrainResult
from vivavoce.train.sft import train_sft
from vivavoce.train.tokens import context_ids, score_rows

END = {"bpe": "<|im_end|>", "metaspace": "</s>"}
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
        # read alone, sentencepiece's first token loses its space
        assert decoded(any_tokenizer, row.completion) in [a + end_of(any_tokenizer) for a in (answer, answer.lstrip())]


def test_the_prompt_is_intact(any_tokenizer: PreTrainedTokenizerFast):
    for answer in ANSWERS:
        (row,) = score_rows(any_tokenizer, CHAT, [answer])
        context = decoded(any_tokenizer, row.ids[: row.start])
        assert "Check each step." in context
        assert "Solve: what is 12 + 30?" in context
        assert answer.strip() not in context


def test_no_token_joins_the_served_prompt_and_the_answer():
    words = metaspace()
    words.chat_template = str(words.chat_template).replace(
        "Answer:' }}", "Answer: ' }}"
    )  # the space joins the next word
    served, joined = context_ids(words, CHAT), 0
    for row in score_rows(words, CHAT, ANSWERS):
        assert list(row.ids[: row.start]) == served
        second = list(words(decoded(words, row.ids), add_special_tokens=False)["input_ids"])
        joined += second[: len(served)] != served
    assert joined, "a tokenizer that joins nothing shows nothing"


def test_a_token_that_straddles_the_end_of_a_prefix_is_scored_in_every_alternative(tokenizer: PreTrainedTokenizerFast):
    rows = score_rows(tokenizer, CHAT, ["rty-two", "r 42"], prefix="The sum is fo", complete=False)
    assert len({row.ids[: row.start] for row in rows}) == 1
    assert len({row.ids[row.start] for row in rows}) == 2
    assert [decoded(tokenizer, row.completion) for row in rows] == [" forty-two", " for 42"]


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


def test_rows_are_what_the_chat_template_tokenises(tokenizer: PreTrainedTokenizerFast):
    (row,) = score_rows(tokenizer, CHAT, ["The sum is 42."])
    whole = [*CHAT, {"role": "assistant", "content": "The sum is 42."}]
    assert list(row.ids) == tokenizer.apply_chat_template(whole, return_dict=False)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")
def test_trl_prepares_the_same_tokens_and_labels(tokenizer: PreTrainedTokenizerFast, tmp_path):
    from tests.train.students import tiny_model
    from trl import SFTConfig, SFTTrainer

    rows = [score_rows(tokenizer, CHAT, [answer])[0] for answer in ANSWERS]
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
    trainer = SFTTrainer(tiny_model(), config, train_dataset=data, processing_class=tokenizer)
    prepared = trainer.train_dataset
    assert isinstance(prepared, Dataset)
    assert prepared["input_ids"] == [list(row.ids) for row in rows]
    assert prepared["labels"] == [[-100] * row.start + list(row.completion) for row in rows]


@pytest.mark.parametrize("answers", [[""], ["42", "  \n"]])
def test_an_empty_answer_is_refused(tokenizer: PreTrainedTokenizerFast, answers: list[str]):
    with pytest.raises(DataError, match="is empty"):
        score_rows(tokenizer, CHAT, answers)


def test_a_template_that_rewrites_the_prompt_in_past_turns_is_taught_the_served_prompt(
    tokenizer: PreTrainedTokenizerFast,
):
    rewriting = copy.deepcopy(tokenizer)
    rewriting.chat_template = (
        "{{ messages | length }}{% for message in messages %}{{ message['content'] }}<|im_end|>{% endfor %}"
    )
    (row,) = score_rows(rewriting, CHAT, ["42"])
    assert list(row.ids[: row.start]) == context_ids(rewriting, CHAT)
    assert decoded(rewriting, row.completion) == "42<|im_end|>"


@pytest.mark.parametrize("kind", ["sft", "on_policy"])
def test_a_training_that_is_killed_goes_on_after_midnight(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    words = family("llama3_2")
    student = tmp_path / "student"
    tiny_model(vocab_size=len(words)).save_pretrained(student)
    words.save_pretrained(student)
    how = {"lora": None, "max_steps": 3, "save_steps": 1, "max_length": 400, "device": "cpu", "log_steps": 1}

    def train(out: Path, progress: Progress | None = None) -> TrainResult:
        if kind == "sft":
            rows = [Example(q, messages(q), "It is 42.", ("n",)) for q in ("6 * 7?", "12 + 30?")]
            return train_sft(student, rows, SFTSettings(rows_per_step=2, **how), out, seed=0, progress=progress)
        asked = messages("6 * 7?")
        states = [State("q", asked, (View(asked, 1.0),), (Completion("It is 42.", "n"),))]
        scorers = (Scorer(name="ada", model=str(student)),)
        settings = OnPolicySettings(scorers=scorers, states_per_step=1, on_policy=0.0, max_new_tokens=8, **how)
        return train_on_policy(student, states, settings, out, seed=0, progress=progress)

    class Killed(Exception):
        pass

    def die(step: int, total: int, logs: dict[str, float]) -> None:
        if step == 2:
            raise Killed

    whole = train(tmp_path / "whole")
    with pytest.raises(Killed):
        train(tmp_path / "killed", die)

    class Tomorrow(date):
        @classmethod
        def today(cls) -> date:
            return date.today() + timedelta(days=1)

    monkeypatch.setattr(chat_template, "date", Tomorrow)
    assert train(tmp_path / "killed").last_loss == whole.last_loss
    assert train(tmp_path / "killed").last_loss == whole.last_loss, "finished, it is read back"


def test_a_recorded_answer_longer_than_a_scorer_takes_is_found_before_training(tmp_path: Path):
    words = bpe()
    for name, positions in (("student", 512), ("ada", 64)):
        tiny_model(vocab_size=len(words), max_position_embeddings=positions).save_pretrained(tmp_path / name)
        words.save_pretrained(tmp_path / name)
    asked = messages("6 * 7?")
    states = [State("q", asked, (View(asked, 1.0),), (Completion("So the answer is 42. " * 12, "n"),))]
    scorers = (Scorer(name="ada", model=str(tmp_path / "ada")),)
    how = OnPolicySettings(scorers=scorers, on_policy=0.0, max_new_tokens=8, lora=None, device="cpu")
    with pytest.raises(DataError, match="scorer ada takes 64 tokens, but 1 of 1 states need more"):
        train_on_policy(tmp_path / "student", states, how, tmp_path / "out", seed=0)


def test_rows_are_no_longer_than_the_student_takes(tmp_path: Path):
    words = bpe()
    tiny_model(vocab_size=len(words), max_position_embeddings=64).save_pretrained(tmp_path / "student")
    words.save_pretrained(tmp_path / "student")
    rows = [Example(q, messages(q), "It is 42. " * n, ("n",)) for q, n in (("6 * 7?", 1), ("12 + 30?", 40))]
    settings = SFTSettings(lora=None, max_steps=1, device="cpu")
    assert settings.max_length > 64
    done = train_sft(tmp_path / "student", rows, settings, tmp_path / "out", seed=0)
    assert (done.rows_used, done.rows_dropped) == (1, 1)
