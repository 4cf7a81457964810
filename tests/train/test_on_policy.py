"""On-policy distillation: exact alignment, no leaks, the published loss, every teacher counted, exact resume."""

from __future__ import annotations

import asyncio
import json
import logging
import weakref
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.train.students import Killed, bpe, curve, die_at, equal, messages, tiny_model
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from vivavoce.agents import hf_local, weights
from vivavoce.agents.batch import TokenPrompt
from vivavoce.agents.decode import Decoder
from vivavoce.agents.journal import Journal
from vivavoce.committee.prompting import prompt_set
from vivavoce.committee.wording import Wording
from vivavoce.data.states import Supervision
from vivavoce.data.states import states as supervise
from vivavoce.environments.environment import Action as EnvironmentAction
from vivavoce.environments.episodes import read
from vivavoce.errors import DataError, RecipeError
from vivavoce.graph import Graph
from vivavoce.protocols.state_debate import Options
from vivavoce.records import Completion, Problem, Sampling, State, View, from_json, to_json
from vivavoce.tasks import open_task
from vivavoce.train.counting import informative_factors, of_calls
from vivavoce.train.objective import Objective, OnPolicySettings, Scorer
from vivavoce.train.on_policy import train_on_policy
from vivavoce.train.prepared import Prepared, Updates
from vivavoce.train.rollouts import Drawn, OwnRollouts
from vivavoce.train.scorers import Answer, open_scorer
from vivavoce.train.tokens import answer_ids, context_ids

QUESTIONS = ("Solve: what is 12 + 30?", "Check each step, then answer: 6 * 7", "Ada said 41, Bob said 42.")
NOTES = "Bob said the answer is 42 and not 48. Each step was checked. Nobody believed it."


@pytest.fixture(scope="module")
def words() -> PreTrainedTokenizerFast:
    return bpe()


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory, words: PreTrainedTokenizerFast) -> dict[str, Path]:
    """A student and three teachers; ``wide`` is the first teacher with a padded vocabulary."""
    made = {}
    for i, name in enumerate(("student", "ada", "bob", "cyd")):
        made[name] = tmp_path_factory.mktemp(name)
        tiny_model(seed=i, vocab_size=len(words)).save_pretrained(made[name])
        words.save_pretrained(made[name])
    made["wide"] = tmp_path_factory.mktemp("wide")
    wide = tiny_model(seed=1, vocab_size=len(words))
    wide.resize_token_embeddings(len(words) + 48, mean_resizing=False)
    wide.save_pretrained(made["wide"])
    words.save_pretrained(made["wide"])
    return made


def scorer(folders: dict[str, Path], name: str) -> Scorer:
    return Scorer(name=name, model=str(folders[name]), fingerprint=name)


def settings(folders: dict[str, Path], scorers: Sequence[str] = ("ada",), **changes: Any) -> OnPolicySettings:
    values: dict[str, Any] = {
        "scorers": tuple(scorer(folders, s) for s in scorers),
        "lora": None,
        "learning_rate": 1e-3,
        "max_steps": 4,
        "states_per_step": 2,
        "max_new_tokens": 12,
        "temperature": 1.0,
        "top_p": 1.0,
        "max_length": 300,
        "log_steps": 1,
        "threads": 1,
    }
    return OnPolicySettings(**{**values, **changes})


def states(weights: Sequence[float] = (1.0,), shown: str = "") -> list[State]:
    """One state for each question; what is shown to scorers stands before the question."""
    values = []
    for q in QUESTIONS:
        views = tuple(View(messages(f"{shown} {q}".strip()), w) for w in weights)
        values.append(State(q, messages(q), views, (Completion("42", "n"),)))
    return values


def losses(folder: Path) -> list[float]:
    return [point["loss"] for point in curve(folder)]


@pytest.mark.parametrize("by_token", ["none", "probability", "entropy"])
def test_the_first_loss_and_gradient_are_the_published_formula_on_the_students_own_tokens(
    folders: dict[str, Path], words: PreTrainedTokenizerFast, tmp_path: Path, by_token: Any
) -> None:
    """Eq. 8 written out with whole logits, answer by answer, without packing, chunks or fusion; with the weights of
    answers alone, or with how sure each teacher is of every token."""
    objective = Objective(by_token=by_token, tau_token=0.5)
    how = settings(folders, ("ada", "bob"), max_steps=1, states_per_step=3, rollouts=2, objective=objective)
    given = states((0.7, 0.3), NOTES)
    drawn = _recorded_actions(how, folders, given, tmp_path)
    student, teachers = tiny_model(0, vocab_size=len(words)), [tiny_model(i, vocab_size=len(words)) for i in (1, 2)]
    total = torch.zeros(())
    for action, state in drawn:
        size = len(action.ids)

        def distribution(model: Any, prompt: Any, size: int = size, ids: tuple[int, ...] = action.ids) -> torch.Tensor:
            context = context_ids(words, prompt)
            logits = model(torch.tensor([[*context, *ids]])).logits[0, len(context) - 1 : len(context) - 1 + size]
            return logits.double().softmax(-1)

        q = distribution(student, state.prompt)
        ps = [distribution(t, view.messages).detach() for t, view in zip(teachers, state.views, strict=True)]
        sure = {
            "none": [torch.zeros(size) for _ in ps],
            "probability": [p.max(-1).values for p in ps],
            "entropy": [(p * p.log()).sum(-1) for p in ps],
        }[by_token]
        grown = [v.weight * (s / 0.5).exp() for v, s in zip(state.views, sure, strict=True)]
        for p, weight in zip(ps, grown, strict=True):
            m = (p + q) / 2
            jsd = 0.5 * ((p * (p / m).log()).sum(-1) + (q * (q / m).log()).sum(-1))
            total = total + (weight / sum(grown) * jsd).mean() / len(drawn)
    assert len(drawn) == 6
    total.backward()
    norm = torch.stack([p.grad.norm() for p in student.parameters() if p.grad is not None]).norm()
    [point] = curve(tmp_path / "run")
    assert point["loss"] == pytest.approx(total.item(), rel=1e-4)
    assert point["grad_norm"] == pytest.approx(norm.item(), rel=1e-3)


def _recorded_actions(
    how: OnPolicySettings, folders: dict[str, Path], given: list[State], tmp_path: Path
) -> list[tuple[Answer, State]]:
    """The answers that a training run draws in its first update, caught on the way."""
    from vivavoce.train.on_policy import OnPolicyTrainer

    caught: list[tuple[Answer, State]] = []
    real = OnPolicyTrainer.answers

    def spy(self: Any, model: Any, prepared: Any, places: Any) -> list[Answer]:
        answers = real(self, model, prepared, places)
        caught.extend((a, prepared[a.state].state) for a in answers)
        return answers

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(OnPolicyTrainer, "answers", spy)
        train_on_policy(folders["student"], given, how, tmp_path / "run", seed=0)
    return caught


def test_answers_are_drawn_as_the_settings_say_and_each_by_itself(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: dict[str, Any] = {
        "temperature": 0.7,
        "top_p": 0.9,
        "top_k": 5,
        "repetition_penalty": 1.3,
        "max_new_tokens": 9,
    }
    asked, draw = list[TokenPrompt](), OwnRollouts.draw

    def spy(self: OwnRollouts, model: Any, update: int, wanted: Any) -> list[Drawn]:
        asked.extend(wanted(update))
        return draw(self, model, update, wanted)

    monkeypatch.setattr(OwnRollouts, "draw", spy)
    for seed in (0, 1):
        how = settings(folders, max_steps=2, states_per_step=3, rollouts=2, **drawn)
        train_on_policy(folders["student"], states(), how, tmp_path / str(seed), seed=seed)
    assert {one.sampling for one in asked} == {Sampling(**drawn)}
    assert len(asked) == len({one.seed for one in asked}) == 2 * 2 * 3 * 2, "another draw of a state in every update"


def test_the_students_input_holds_nothing_of_what_its_teachers_are_shown(
    folders: dict[str, Path], words: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    secret = "thence others agreed"
    drawn = _recorded_actions(settings(folders, max_steps=3), folders, states(shown=secret), tmp_path)
    spied: list[list[int]] = []
    from vivavoce.train import on_policy

    real = on_policy.pack

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(on_policy, "pack", lambda rows: spied.extend(list(r.ids) for r in rows) or real(rows))
        train_on_policy(folders["student"], states(shown=secret), settings(folders), tmp_path / "again", seed=0)
    assert drawn
    assert spied
    assert all(secret not in words.decode(ids) for ids in spied)


@pytest.mark.parametrize("kind", ["jsd", "reverse_kl", "forward_kl", "log_ratio"])
def test_identical_teachers_with_one_view_are_one_teacher(folders: dict[str, Path], tmp_path: Path, kind: str) -> None:
    objective = Objective(divergence=kind)  # type: ignore[arg-type]
    one = settings(folders, ("ada",), objective=objective)
    three = settings(folders, ("ada", "ada", "ada"), objective=objective)
    train_on_policy(folders["student"], states((1.0,), NOTES), one, tmp_path / "one", seed=3)
    train_on_policy(folders["student"], states((0.2, 0.5, 0.3), NOTES), three, tmp_path / "three", seed=3)
    assert losses(tmp_path / "three") == pytest.approx(losses(tmp_path / "one"), rel=1e-4)


@pytest.mark.parametrize("lora", [None, {"r": 2}], ids=["all weights", "adapter"])
def test_one_teacher_at_a_time_in_memory_teaches_the_same(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lora: Any
) -> None:
    loaded = list[weakref.ref[Any]]()
    load = weights.load

    def counted(*args: Any) -> Any:
        there = [model for ref in loaded if (model := ref()) is not None]
        whole = [model for model in there if model.model.layers[0].mlp.up_proj.weight.numel()]
        assert not whole, "the one before is gone when the next one is loaded"
        model, tokenizer = load(*args)
        loaded.append(weakref.ref(model))
        return model, tokenizer

    teachers, two = ("ada", "bob"), states((0.5, 0.5), NOTES)
    every = settings(folders, teachers, lora=lora, max_steps=2)
    train_on_policy(folders["student"], two, every, tmp_path / "all", seed=0)
    monkeypatch.setattr(weights, "load", counted)
    one = settings(folders, teachers, lora=lora, max_steps=2, resident="one")
    train_on_policy(folders["student"], two, one, tmp_path / "one", seed=0)
    assert equal(tmp_path / "all", tmp_path / "one")
    assert len(loaded) == 2 * (2 + 2), "to be opened, to be tried, and for each update"
    read = [json.loads((tmp_path / name / "train_result.json").read_text()) for name in ("all", "one")]
    assert read[0]["details"]["teacher_tokens"] == read[1]["details"]["teacher_tokens"] > 0


def test_the_order_of_teachers_changes_nothing(folders: dict[str, Path], tmp_path: Path) -> None:
    train_on_policy(folders["student"], states((0.2, 0.8)), settings(folders, ("ada", "bob")), tmp_path / "a", seed=3)
    train_on_policy(folders["student"], states((0.8, 0.2)), settings(folders, ("bob", "ada")), tmp_path / "b", seed=3)
    assert losses(tmp_path / "a") == pytest.approx(losses(tmp_path / "b"), rel=1e-5)


def test_a_padded_vocabulary_is_cut_to_the_real_one(folders: dict[str, Path], tmp_path: Path) -> None:
    train_on_policy(folders["student"], states(), settings(folders, ("ada",)), tmp_path / "a", seed=3)
    train_on_policy(folders["student"], states(), settings(folders, ("wide",)), tmp_path / "b", seed=3)
    assert losses(tmp_path / "a") == pytest.approx(losses(tmp_path / "b"), rel=1e-5)


def test_a_batch_of_unequal_prompts_scores_as_one_by_one(
    folders: dict[str, Path], words: PreTrainedTokenizerFast
) -> None:
    how = settings(folders)
    opened = open_scorer(how.scorers[0], how)
    opened.prepare(300)
    views = [s.views[0] for s in states(shown=NOTES)]
    answers = [Answer(i % 3, tuple(range(20 + i, 25 + 3 * i))) for i in range(6)]
    together = opened.hidden(views, answers)
    alone = torch.cat([opened.hidden([views[a.state]], [a._replace(state=0)]) for a in answers])
    assert together.shape[0] == sum(len(a.ids) for a in answers)
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)


def test_each_row_predicts_the_token_in_its_place_and_the_last_one_the_end_of_turn(
    folders: dict[str, Path], words: PreTrainedTokenizerFast
) -> None:
    how = settings(folders)
    opened = open_scorer(how.scorers[0], how)
    view = states()[0].views[0]
    ids = tuple(answer_ids(words, "forty-two"))
    logits = opened.logits(opened.hidden([view], [Answer(0, ids)]))
    context = context_ids(words, view.messages)
    whole = opened.model(torch.tensor([[*context, *ids]])).logits[0]
    assert logits.shape == (len(ids), len(words))
    torch.testing.assert_close(logits, whole[len(context) - 1 : -1].detach(), rtol=1e-4, atol=1e-4)


def test_a_view_that_does_not_fit_a_scorer_stops_the_run_before_it_starts(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(DataError, match="scorer ada takes 512 tokens"):
        train_on_policy(folders["student"], states(shown=NOTES * 40), settings(folders), tmp_path / "run", seed=0)
    assert not (tmp_path / "run" / "loss.jsonl").exists()


def test_states_that_do_not_fit_the_student_are_dropped_up_to_the_stated_coverage_only(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    long = [State("long", messages(NOTES * 20), states()[0].views), *states()]
    with pytest.raises(DataError, match="only 3 of 4 states fit"):
        train_on_policy(folders["student"], long, settings(folders), tmp_path / "a", seed=0)
    done = train_on_policy(folders["student"], long, settings(folders, min_coverage=0.7), tmp_path / "b", seed=0)
    assert (done.rows_used, done.rows_dropped) == (3, 1)


def test_views_must_match_the_scorers_and_weigh_one_together(folders: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(DataError, match="for 2 scorers"):
        train_on_policy(folders["student"], states((1.0,)), settings(folders, ("ada", "bob")), tmp_path, seed=0)
    with pytest.raises(DataError, match="weigh"):
        train_on_policy(folders["student"], states((0.5,)), settings(folders), tmp_path, seed=0)
    with pytest.raises(RecipeError, match="no scorer of the student"):
        train_on_policy(folders["student"], states(()), settings(folders, ()), tmp_path, seed=0)


@pytest.mark.parametrize("lora", [None, {"r": 8, "alpha": 16, "targets": ("q_proj", "v_proj", "gate_proj")}])
def test_the_student_moves_towards_its_teacher(folders: dict[str, Path], tmp_path: Path, lora: Any) -> None:
    rate = 5e-2 if lora else 1e-2
    how = settings(folders, lora=lora, max_steps=60, learning_rate=rate, states_per_step=3, rollouts=2)
    done = train_on_policy(folders["student"], states(), how, tmp_path / "run", seed=0)
    before, after = losses(tmp_path / "run")[:3], losses(tmp_path / "run")[-3:]
    assert sum(after) < (0.85 if lora else 0.6) * sum(before)  # an adapter on a random model cannot do as much
    assert done.details["scored_tokens"] == done.details["answer_tokens"] > 0
    assert all(point["coverage"] == 1.0 for point in curve(tmp_path / "run"))
    assert lora or curve(tmp_path / "run")[-1]["agreement/ada"] > curve(tmp_path / "run")[0]["agreement/ada"]


@pytest.mark.parametrize("own", ["frozen", "ema"])
def test_a_killed_run_goes_on_to_the_same_weights_bit_by_bit(
    folders: dict[str, Path], tmp_path: Path, own: str
) -> None:
    me = Scorer(name="me", own=own)  # type: ignore[arg-type]
    how = settings(folders, scorers=(), max_steps=6, save_steps=2, learning_rate=1e-2)
    how = how.model_copy(update={"scorers": (scorer(folders, "ada"), me), "ema_decay": 0.5})
    given = states((0.5, 0.5), NOTES)
    train_on_policy(folders["student"], given, how, tmp_path / "whole", seed=0)
    with pytest.raises(Killed):
        train_on_policy(folders["student"], given, how, tmp_path / "killed", seed=0, progress=die_at(5))
    assert not (tmp_path / "killed" / "train_result.json").exists()
    train_on_policy(folders["student"], given, how, tmp_path / "killed", seed=0)
    assert equal(tmp_path / "whole", tmp_path / "killed")
    assert losses(tmp_path / "whole") == losses(tmp_path / "killed")


def test_a_student_that_scores_itself_under_its_own_prompt_has_nothing_to_learn(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    how = settings(folders, scorers=()).model_copy(update={"scorers": (Scorer(name="me"),)})
    train_on_policy(folders["student"], states(), how, tmp_path / "plain", seed=0)
    assert losses(tmp_path / "plain")[0] == pytest.approx(0.0, abs=1e-6)
    train_on_policy(folders["student"], states(shown=NOTES), how, tmp_path / "shown", seed=0)
    assert losses(tmp_path / "shown")[0] > 1e-4


@pytest.mark.parametrize("lora", [None, {"r": 4, "alpha": 8, "dropout": 0.0}], ids=["full", "lora"])
@pytest.mark.parametrize("bf16", [False, True], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("stored", ["itself", "float32", "bfloat16"])
def test_a_scorer_that_is_the_student_computes_as_it_does_in_any_precision(
    words: PreTrainedTokenizerFast, tmp_path: Path, lora: Any, bf16: bool, stored: str
) -> None:
    """Sure of its tokens, as trained models are: rounding then moves log-probabilities most."""
    model: Any = tiny_model(0, vocab_size=len(words), tie_word_embeddings=False)
    with torch.no_grad():
        model.lm_head.weight.mul_(8)
    kept = model.to(torch.bfloat16 if stored == "bfloat16" else torch.float32)
    kept.save_pretrained(tmp_path / "scorer")
    kept.float().save_pretrained(tmp_path / "student")
    for name in ("student", "scorer"):
        words.save_pretrained(tmp_path / name)
    me = Scorer(name="me") if stored == "itself" else Scorer(name="me", model=str(tmp_path / "scorer"))
    how = settings({}, (), max_steps=1, states_per_step=3, lora=lora, bf16=bf16, on_policy=0.0)
    how = how.model_copy(update={"scorers": (me,), "objective": Objective(divergence="reverse_kl")})
    train_on_policy(tmp_path / "student", states(), how, tmp_path / "run", seed=0)
    (point,) = curve(tmp_path / "run")
    assert point["loss"] == pytest.approx(0.0, abs=1e-9)
    assert point["grad_norm"] == pytest.approx(0.0, abs=1e-4)


def test_recorded_answers_are_learnt_from_in_the_share_that_was_asked_for(
    folders: dict[str, Path], words: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    how = settings(folders, on_policy=0.5, max_steps=20, states_per_step=3)
    drawn = _recorded_actions(how, folders, states(), tmp_path)
    recorded = [a for a, _ in drawn if not a.on_policy]
    assert 15 <= len(recorded) <= 45  # of 60, chance .5: five standard deviations
    assert {a.ids for a in recorded} == {(*words("42").input_ids, words.eos_token_id)}
    none = settings(folders, on_policy=0.0)
    assert all(not a.on_policy for a, _ in _recorded_actions(none, folders, states(), tmp_path / "none"))
    bare = [State(s.problem, s.prompt, s.views) for s in states()]
    with pytest.raises(DataError, match="no recorded answers"):
        train_on_policy(folders["student"], bare, none, tmp_path / "bare", seed=0)


def test_an_answer_is_learnt_from_in_the_tokens_that_were_drawn(
    folders: dict[str, Path], words: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    """From the agent's reply over the journal and an episode's rows to the loss, nothing is cut into tokens again."""
    agent: Any = hf_local.agent("me", hf_local.Options(model=str(folders["student"]), dtype="float32", device="cpu"))
    prompts = [messages(f"{i}: {q}") for i in range(8) for q in QUESTIONS]
    sampling = Sampling(1.5, 1.0, 200)

    async def asked(journal: Journal) -> list[Any]:
        try:
            return await asyncio.gather(*(journal.call(agent, p, sampling, 0) for p in prompts))
        finally:
            await agent.aclose()

    with Journal(tmp_path / "journal.sqlite") as journal:
        first = asyncio.run(asked(journal))
    with Journal(tmp_path / "journal.sqlite") as journal:
        replies = [answered.reply for answered in asyncio.run(asked(journal))]
    assert replies == [answered.reply for answered in first]

    decoder = Decoder(AutoModelForCausalLM.from_pretrained(folders["student"]).eval(), words)
    seeds = {tuple(context_ids(words, p)): p for p in prompts}
    drawn = decoder.draw([TokenPrompt(ids, sampling, 0) for ids in seeds])
    finished = [
        (p, reply, tuple(ids)) for p, reply, ids in zip(prompts, replies, drawn, strict=True) if ids[-1] in decoder.eos
    ]
    second = [tuple(answer_ids(words, reply.text)) == ids for _, reply, ids in finished]
    assert not all(second), "a random model hardly ever draws what a tokenizer would"
    given, wanted = [], list[tuple[int, ...]]()
    for p, reply, ids in finished:
        action = from_json(EnvironmentAction, to_json(read(reply, ())))
        if action.text.strip():
            given.append(State(p[0]["content"], p, (View(p, 1.0),), (Completion(action.text, "n", action.ids),)))
            wanted.append(ids)
    how = settings(folders, on_policy=0.0, max_steps=1, states_per_step=len(given), max_length=400)
    given = [from_json(State, to_json(state)) for state in given]
    assert {a.ids for a, _ in _recorded_actions(how, folders, given, tmp_path)} == set(wanted)

    other = [replace(s, recorded=(replace(s.recorded[0], text="42"),)) for s in given]  # ids of another text
    learnt = {a.ids for a, _ in _recorded_actions(how, folders, other, tmp_path / "other")}
    assert learnt == {tuple(answer_ids(words, "42"))}


def test_calls_alone_may_count_and_answers_without_any_are_refused(
    folders: dict[str, Path], words: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    call = '<tool_call>{"name": "add", "arguments": {}}</tool_call>'
    how = settings(folders, on_policy=0.0, learn_from="calls", max_steps=1, states_per_step=3, rollouts=1)
    plain = states(shown=NOTES)
    with pytest.raises(DataError, match="calls a tool"):
        train_on_policy(folders["student"], plain, how, tmp_path / "none", seed=0)
    recorded = [replace(s, recorded=(Completion(f"Bob said 42. {call} It is so.", "n"),)) for s in plain]
    ids = answer_ids(words, recorded[0].recorded[0].text)
    learnt = [str(words.decode([i])) for i, own in zip(ids, of_calls(words, ids), strict=True) if own]
    assert call in "".join(learnt)
    assert len("".join(learnt)) <= len(call) + 8, "tokens at the edges may hold a letter more"
    done = train_on_policy(folders["student"], recorded, how, tmp_path / "calls", seed=0)
    assert done.details["learnt_tokens"] == 3 * len(learnt) < done.details["answer_tokens"]
    every = how.model_copy(update={"learn_from": "answer"})
    whole = train_on_policy(folders["student"], recorded, every, tmp_path / "all", seed=0)
    assert done.first_loss != pytest.approx(whole.first_loss, rel=3e-4)
    one_talks = [plain[0], *recorded[1:]]
    alone = train_on_policy(folders["student"], one_talks, how, tmp_path / "talks", seed=0)
    two = how.model_copy(update={"states_per_step": 2})
    assert alone.first_loss == pytest.approx(
        train_on_policy(folders["student"], recorded[1:], two, tmp_path / "two", seed=0).first_loss, rel=1e-4
    )


def test_an_update_without_anything_to_learn_from_teaches_nothing_and_is_told(
    folders: dict[str, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    how = settings(folders, learn_from="calls", max_new_tokens=4, weight_decay=0.0, max_steps=3)
    with caplog.at_level(logging.WARNING):
        done = train_on_policy(folders["student"], states(), how, tmp_path / "run", seed=0)
    assert equal(folders["student"], tmp_path / "run")
    assert done.details["empty_updates"] == 3
    assert done.details["learnt_tokens"] == 0
    assert "update 1 has nothing to learn from: no answer calls a tool" in caplog.text
    assert "3 of 3 updates had nothing to learn from" in caplog.text

    call = '<tool_call>{"name": "add", "arguments": {}}</tool_call>'
    part = [replace(s, recorded=(Completion(call if i else "42", "n"),)) for i, s in enumerate(states())]
    now_and_then = settings(folders, learn_from="calls", on_policy=0.0, states_per_step=1, max_steps=3)
    done = train_on_policy(folders["student"], part, now_and_then, tmp_path / "some", seed=0)
    assert done.details["empty_updates"] == 1
    assert sorted("divergence/ada" in point for point in curve(tmp_path / "some")) == [False, True, True]


def test_recorded_answers_are_gone_over_once_however_many_epochs_there_are(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    how = settings(folders, ("ada", "bob"), on_policy=0.0, max_steps=6, save_steps=2)
    given = states((0.5, 0.5), NOTES)
    kept = train_on_policy(folders["student"], given, how, tmp_path / "kept", seed=1)
    second = how.model_copy(update={"score_memory": 0.0})
    fresh = train_on_policy(folders["student"], given, second, tmp_path / "anew", seed=1)
    assert kept.details["teacher_tokens"] < fresh.details["teacher_tokens"] / 3
    assert losses(tmp_path / "kept") == pytest.approx(losses(tmp_path / "anew"), rel=1e-5)
    with pytest.raises(Killed):
        train_on_policy(folders["student"], given, how, tmp_path / "resumed", seed=1, progress=die_at(5))
    train_on_policy(folders["student"], given, how, tmp_path / "resumed", seed=1)
    assert equal(tmp_path / "kept", tmp_path / "resumed")


def test_a_state_that_weighs_twice_counts_as_if_it_were_there_twice(folders: dict[str, Path], tmp_path: Path) -> None:
    def first(given: list[State], name: str) -> float:
        how = settings(folders, max_steps=1, states_per_step=len(given), on_policy=0.0)
        return train_on_policy(folders["student"], given, how, tmp_path / name, seed=1).first_loss

    one, other, _ = states(shown=NOTES)
    twice = first([replace(one, weight=2.0), other], "weighed")
    assert twice == pytest.approx(first([one, one, other], "doubled"), rel=1e-5)
    assert twice != pytest.approx(first([one, other], "once"), rel=1e-3)


def test_states_with_one_prompt_keep_their_own_views_in_one_row(folders: dict[str, Path], tmp_path: Path) -> None:
    """Only views or weights differ: the student sees one prompt and gives one answer."""

    def first(given: list[State], name: str, agents: tuple[str, ...] = ("ada",)) -> float:
        how = settings(folders, agents, max_steps=1, states_per_step=len(given), on_policy=0.0)
        return train_on_policy(folders["student"], given, how, tmp_path / name, seed=1).first_loss

    plain, shown = states()[0], states(shown=NOTES)[0]
    a, b = first([plain], "a"), first([shown], "b")
    assert a != pytest.approx(b, rel=1e-3)
    assert first([plain, shown], "both") == pytest.approx((a + b) / 2, rel=1e-5)
    assert first([shown, plain], "swapped") == pytest.approx((a + b) / 2, rel=1e-5)
    assert first([plain, shown, plain], "again") == pytest.approx((2 * a + b) / 3, rel=1e-5)

    one, other = (replace(plain, views=tuple(View(plain.prompt, w) for w in ws)) for ws in ((1.0, 0.0), (0.0, 1.0)))
    a, b = (first([state], name, ("ada", "bob")) for state, name in ((one, "ada alone"), (other, "bob alone")))
    assert first([one, other], "weights", ("ada", "bob")) == pytest.approx((a + b) / 2, rel=1e-5)


def test_states_of_one_episode_are_learnt_from_side_by_side(folders: dict[str, Path], tmp_path: Path) -> None:
    given = [replace(state, group=f"episode {i % 2}") for i, state in enumerate(states() * 4)]
    prepared = [Prepared(state, [1], []) for state in given]
    steps = Updates(prepared, settings(folders, states_per_step=6), updates=4, seed=3)
    for update in range(4):
        assert len({p.state.group for p in steps[update]["states"]}) == 1


def test_token_and_sequence_means_differ_as_they_should(folders: dict[str, Path], tmp_path: Path) -> None:
    """Answers of 1 and of 12 tokens: the sequence mean counts both alike, the token mean by length."""
    ids = tuple(range(30, 41))
    given = [
        State(q, messages(q), (View(messages(q), 1.0),), (Completion(text, "n"),))
        for q, text in zip(QUESTIONS, ("", str(bpe().decode(list(ids))), ""), strict=True)
    ][:2]
    by_reduction = {}
    for reduction in ("sequence", "token"):
        how = settings(folders, on_policy=0.0, max_steps=1, reduction=reduction)
        train_on_policy(folders["student"], given, how, tmp_path / reduction, seed=0)
        by_reduction[reduction] = losses(tmp_path / reduction)[0]
    alone = []
    for i, state in enumerate(given):
        how = settings(folders, on_policy=0.0, max_steps=1, states_per_step=1)
        train_on_policy(folders["student"], [state], how, tmp_path / f"alone{i}", seed=0)
        alone.append(losses(tmp_path / f"alone{i}")[0])
    sizes = [len(bpe()(s.recorded[0].text).input_ids) + 1 for s in given]
    assert by_reduction["sequence"] == pytest.approx(sum(alone) / 2, rel=1e-4)
    assert by_reduction["token"] == pytest.approx(
        sum(a * n for a, n in zip(alone, sizes, strict=True)) / sum(sizes), rel=1e-4
    )


@pytest.fixture(scope="module")
def other_words() -> PreTrainedTokenizerFast:
    """Byte-level BPE that cuts the same texts into other tokens, with another end of turn."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<stop>", "<user>", "<assistant>"]
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    core.train_from_iterator(["Check the answer: 6 * 7 and 12 + 30 make forty-two."] * 9, trainer)
    template = (
        "{% for m in messages %}{{ '<' + m['role'] + '>' + m['content'] + '<stop>' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<assistant>' }}{% endif %}"
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token="<stop>", pad_token="<stop>", chat_template=template
    )


def test_a_teacher_with_another_tokenizer_teaches_too(
    folders: dict[str, Path], other_words: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    tiny_model(5, vocab_size=len(other_words), pad_token_id=0, eos_token_id=0).save_pretrained(tmp_path / "eve")
    other_words.save_pretrained(tmp_path / "eve")
    folders = {**folders, "eve": tmp_path / "eve"}
    how = settings(folders, ("ada", "eve"), max_steps=40, states_per_step=3, rollouts=2, learning_rate=1e-2)
    done = train_on_policy(folders["student"], states((0.3, 0.7)), how, tmp_path / "run", seed=0)
    values = losses(tmp_path / "run")
    assert sum(values[-5:]) < 0.8 * sum(values[:5])
    assert done.details["scored_tokens"] == done.details["answer_tokens"]
    merged = settings(folders, ("ada", "eve"), objective=Objective(aggregate="arithmetic"))
    with pytest.raises(RecipeError, match="nothing to merge"):
        train_on_policy(folders["student"], states((0.5, 0.5)), merged, tmp_path / "merged", seed=0)
    by_token = settings(folders, ("ada", "eve"), objective=Objective(by_token="entropy"))
    with pytest.raises(RecipeError, match="its tokens are not the student's"):
        train_on_policy(folders["student"], states((0.5, 0.5)), by_token, tmp_path / "by_token", seed=0)


@pytest.mark.parametrize(
    ("template", "end"),
    [
        (
            "<start_of_turn>{{ m.role }}\n{{ m.content }}<end_of_turn>\n{% endfor %}"
            "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}",
            "<end_of_turn>",
        ),
        (
            "<|{{ m.role }}|>\n{{ m.content }}{% endfor %}{% if add_generation_prompt %}<|assistant|>\n{% endif %}",
            "<|user|>",
        ),
    ],
    ids=["gemma", "glm4"],
)
def test_a_teacher_whose_turns_end_with_another_token_than_eos_teaches_to_stop(
    folders: dict[str, Path], words: PreTrainedTokenizerFast, tmp_path: Path, template: str, end: str
) -> None:
    marks = ["<eos>", "<start_of_turn>", "<end_of_turn>", "<|user|>", "<|assistant|>"]
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.train_from_iterator(
        ["The answer is 42."],
        trainers.BpeTrainer(
            special_tokens=marks, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
        ),
    )
    other = PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token="<eos>", pad_token="<eos>", chat_template="{% for m in messages %}" + template
    )
    teacher = tiny_model(5, vocab_size=len(other), pad_token_id=0, eos_token_id=0).train()
    wanted_ids = other("42", add_special_tokens=False).input_ids
    row = torch.tensor([[*context_ids(other, messages(QUESTIONS[0])), *wanted_ids, other.convert_tokens_to_ids(end)]])
    optimiser = torch.optim.Adam(teacher.parameters(), 1e-2)
    for _ in range(20):
        optimiser.zero_grad()
        teacher(input_ids=row, labels=row).loss.backward()
        optimiser.step()
    teacher.save_pretrained(tmp_path / "eve")
    other.save_pretrained(tmp_path / "eve")

    how = settings({**folders, "eve": tmp_path / "eve"}, ("eve",), on_policy=0.0, states_per_step=1)
    how = how.model_copy(update={"max_steps": 30, "learning_rate": 1e-2, "warmup_ratio": 0.0})
    train_on_policy(folders["student"], states()[:1], how, tmp_path / "run", seed=0)
    student = AutoModelForCausalLM.from_pretrained(tmp_path / "run")
    ids = [*context_ids(words, messages(QUESTIONS[0])), *answer_ids(words, "42")]
    assert float(student(input_ids=torch.tensor([ids[:-1]])).logits[0, -1].detach().softmax(-1)[ids[-1]]) > 0.8


@pytest.mark.parametrize("normaliser", ["NFC", "NFKC"])
def test_an_answer_that_a_tokenizer_writes_otherwise_is_left_out_for_its_scorer_and_told(
    folders: dict[str, Path], words: PreTrainedTokenizerFast, tmp_path: Path, normaliser: str, caplog: Any
) -> None:
    """As of Qwen 2 (NFC) and of sentencepiece (NFKC): a character and its composed form are other bytes."""
    composing = bpe()
    composing.backend_tokenizer.normalizer = getattr(normalizers, normaliser)()
    tiny_model(5, vocab_size=len(composing)).save_pretrained(tmp_path / "eve")
    composing.save_pretrained(tmp_path / "eve")
    folders = {**folders, "eve": tmp_path / "eve"}
    odd = "cafe\u0301, 5 \u2126" + (" \ufb01ve" if normaliser == "NFKC" else "")

    def trained(
        texts: Sequence[str], name: str, *agents: str, weights: Sequence[float] = (1.0,), **changes: Any
    ) -> Any:
        given = [
            replace(s, recorded=(Completion(text, "n"),))
            for s, text in zip(states(weights, NOTES), texts, strict=False)
        ]
        how = settings(folders, agents, on_policy=0.0, max_steps=1, states_per_step=len(given), **changes)
        return train_on_policy(folders["student"], given, how, tmp_path / name, seed=0)

    assert trained([odd], "odd", "eve").details["left_out/eve"] == 1
    assert equal(folders["student"], tmp_path / "odd")
    with caplog.at_level(logging.WARNING):
        mixed = trained(["42", odd], "mixed", "eve")
    assert "scorer eve left out 1 of 2 answers: its tokenizer changes their text" in caplog.text
    plain = trained(["42"], "plain", "eve")
    assert mixed.first_loss == pytest.approx(plain.first_loss, rel=1e-5)
    assert mixed.details["left_out/eve"] == 1
    assert plain.details["left_out/eve"] == 0
    assert mixed.details["scored_tokens"] < mixed.details["answer_tokens"]

    both = trained([odd], "both", "ada", "eve", weights=(0.4, 0.6))
    assert both.first_loss == pytest.approx(trained([odd], "ada", "ada").first_loss, rel=1e-5)


@pytest.mark.parametrize("kind", ["jsd", "reverse_kl", "forward_kl", "log_ratio"])
def test_compared_by_bytes_a_teacher_with_the_students_tokenizer_gives_the_exact_loss(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: Any
) -> None:
    from vivavoce.train import opening

    how = settings(folders, ("ada", "bob"), objective=Objective(divergence=kind), rollouts=2, max_steps=3)
    # recorded answers, because what a random model draws need not be how the tokenizer would spell it
    how = how.model_copy(update={"on_policy": 0.0})
    given = [
        State(s.problem, s.prompt, s.views, (Completion("The sum of twelve and thirty is 42.", "n"),))
        for s in states((0.4, 0.6), NOTES)
    ]
    train_on_policy(folders["student"], given, how, tmp_path / "exact", seed=0)
    monkeypatch.setattr(opening, "same_tokenizer", lambda *_: ["as if"])
    train_on_policy(folders["student"], given, how, tmp_path / "bytes", seed=0)
    assert losses(tmp_path / "bytes") == pytest.approx(losses(tmp_path / "exact"), rel=1e-3, abs=1e-6)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")
def test_the_loss_is_that_of_trls_distillation_trainer_on_the_same_tokens(
    folders: dict[str, Path], words: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    from datasets import Dataset
    from trl import DistillationConfig, DistillationTrainer

    text = "Bob said 42. Check each step, then answer"
    state = State("q", messages(QUESTIONS[0]), (View(messages(QUESTIONS[0]), 1.0),), (Completion(text, "n"),))
    prompt = context_ids(words, state.prompt)
    ids = [*words(text).input_ids, words.eos_token_id]
    for beta in (0.0, 0.5, 1.0):
        how = settings(
            folders, max_steps=1, states_per_step=1, on_policy=0.0, reduction="token", objective=Objective(beta=beta)
        )
        train_on_policy(folders["student"], [state], how, tmp_path / f"ours{beta}", seed=0)
        config = DistillationConfig(
            output_dir=str(tmp_path / "trl"),
            beta=beta,
            temperature=1.0,
            use_cpu=True,
            bf16=False,
            activation_checkpointing=False,
            report_to="none",
            per_device_train_batch_size=1,
            max_completion_length=64,
        )
        padded = PreTrainedTokenizerFast.from_pretrained(folders["student"], padding_side="left")
        trainer = DistillationTrainer(
            tiny_model(0, vocab_size=len(words)),
            tiny_model(1, vocab_size=len(words)),
            args=config,
            train_dataset=Dataset.from_list([{"prompt": [dict(m) for m in state.prompt]}]),
            processing_class=padded,
        )
        inputs = {
            "prompt_ids": torch.tensor([prompt]),
            "prompt_mask": torch.ones(1, len(prompt), dtype=torch.long),
            "completion_ids": torch.tensor([ids]),
            "completion_mask": torch.ones(1, len(ids), dtype=torch.long),
        }
        theirs = trainer.compute_loss(trainer.model, inputs, num_items_in_batch=torch.tensor(len(ids)))
        assert losses(tmp_path / f"ours{beta}")[0] == pytest.approx(float(theirs), rel=1e-4), beta


def test_the_most_informative_tokens_alone_count_however_an_update_is_cut_into_rows(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    """The loss is then a mean over the largest divergences of each answer."""
    given = states((0.7, 0.3), NOTES)

    def first(name: str, **changes: Any) -> tuple[float, dict[str, Any]]:
        how = settings(folders, ("ada", "bob"), max_steps=1, states_per_step=3, rollouts=2, **changes)
        done = train_on_policy(folders["student"], given, how, tmp_path / name, seed=0)
        return losses(tmp_path / name)[0], done.details

    whole, score = first("whole")
    most, few = first("few", informative=0.25)
    every = first("every", informative=1.0)
    assert every == (whole, score)
    assert most > 1.03 * whole, "those that tell most are farther from the teachers than the mean"
    assert score["answers"] <= few["learnt_tokens"] <= 0.25 * few["answer_tokens"] + few["answers"]
    assert first("rows", informative=0.25, token_budget=60)[0] == pytest.approx(most, rel=1e-5)
    unsure, _ = first("unsure", informative=0.25, informative_by="entropy")
    assert unsure not in (whole, most)


def test_what_is_kept_of_an_answer_counts_as_much_as_the_whole_of_it() -> None:
    factors, informative = np.array([0.1, 0.0, 0.3, 0.2, 0.4]), np.array([1.0, 9.0, 2.0, 5.0, 4.0])
    kept_factors = informative_factors(factors, informative, [range(3), range(3, 5)], 0.5)
    assert kept_factors.tolist() == pytest.approx([0.0, 0.0, 0.4, 0.6, 0.0]), (
        "a token that does not count is never chosen"
    )
    assert informative_factors(factors, informative, [range(5)], 1e-6).tolist() == pytest.approx([0, 0, 0, 1.0, 0])


def test_a_student_without_a_teacher_only_unlearns_what_it_says(folders: dict[str, Path], tmp_path: Path) -> None:
    alone = [State(s.problem, s.prompt, ()) for s in states()]
    objective = Objective(divergence="fixed_negative", advantage=-0.5)
    how = settings(folders, (), objective=objective, max_steps=3, states_per_step=3)
    done = train_on_policy(folders["student"], alone, how, tmp_path / "alone", seed=0)
    assert done.details["teacher_tokens"] == 0
    assert losses(tmp_path / "alone") == pytest.approx([0.5] * 3)
    assert not equal(folders["student"], tmp_path / "alone")
    with pytest.raises(RecipeError, match="asks no teacher"):
        train_on_policy(folders["student"], states(), settings(folders, objective=objective), tmp_path / "b", seed=0)


def test_one_teacher_without_a_debate_is_plain_on_policy_distillation_bit_for_bit(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    """K = 1, R = 0: supervised as a debate of nobody, and as the published loss of one teacher on plain prompts."""
    graphs = [Graph(Problem(q, q, "42"), ()) for q in QUESTIONS]
    how = Supervision(context="none", weights="uniform")
    wording = Wording(Options(), prompt_set("general"), open_task("gsm8k", {}))
    built, counts = supervise(graphs, how, ["ada"], wording, seed=0)
    plain = [State(g.problem.id, s.prompt, (View(s.prompt, 1.0),)) for g, s in zip(graphs, built, strict=True)]
    assert counts.states == len(QUESTIONS)
    confident, _ = supervise(graphs, Supervision(context="none"), ["ada"], wording, seed=0)
    same = settings(folders, ("ada",), max_length=500, states_per_step=3)
    runs = {"debate of nobody": built, "plain": plain, "confident": confident}
    for name, given in runs.items():
        train_on_policy(folders["student"], given, same, tmp_path / name, seed=3)
    assert equal(tmp_path / "debate of nobody", tmp_path / "plain")
    assert equal(tmp_path / "confident", tmp_path / "plain")
    merged = same.model_copy(update={"objective": Objective(aggregate="max")})
    train_on_policy(folders["student"], plain, merged, tmp_path / "merged", seed=3)
    assert equal(tmp_path / "merged", tmp_path / "plain"), "there is nothing to merge"
