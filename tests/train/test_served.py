"""Scorers behind a server: the numbers of a local one, N rows for N tokens, and one error where there are none."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.train.students import bpe, cases, curve, messages, metaspace, tiny_model
from tests.vllm_server import VLLMServer

from vivavoce.agents import vllm
from vivavoce.agents.vllm import Position
from vivavoce.errors import AgentError, DataError, RecipeError
from vivavoce.exams.debate_value import likelihood
from vivavoce.records import Completion, State, View
from vivavoce.train.divergences import distillation_loss
from vivavoce.train.objective import Objective, OnPolicySettings, Scorer
from vivavoce.train.on_policy import train_on_policy
from vivavoce.train.scorers import Answer, Marks, open_scorer
from vivavoce.train.served import ServedTargets, merged_loss, open_served

QUESTIONS = ("Solve: what is 12 + 30?", "Check each step, then answer: 6 * 7", "Ada said 41, Bob said 42.")
NOTES = "Bob said the answer is 42 and not 48."
ALL = 400
"""The whole vocabulary."""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    made = {}
    for i, name in enumerate(("student", "ada", "bob")):
        made[name] = tmp_path_factory.mktemp(name)
        tiny_model(seed=i, vocab_size=len(bpe())).save_pretrained(made[name])
        bpe().save_pretrained(made[name])
    made["other"] = tmp_path_factory.mktemp("other")
    metaspace().save_pretrained(made["other"])
    return made


def local(folders: dict[str, Path], name: str) -> Scorer:
    return Scorer(name=name, model=str(folders[name]), fingerprint=name)


def served(folders: dict[str, Path], name: str, server: VLLMServer, top: int = 20, **options: Any) -> Scorer:
    how = vllm.Options(model="m", base_url=server.base_url, top_logprobs=top, backoff_s=0.01, max_retries=1, **options)
    return Scorer(name=name, model=str(folders[name]), fingerprint=name, server=how)


def settings(scorers: Sequence[Scorer], **changes: Any) -> OnPolicySettings:
    values: dict[str, Any] = {
        "scorers": tuple(scorers),
        "lora": None,
        "learning_rate": 1e-3,
        "max_steps": 2,
        "states_per_step": 2,
        "rollouts": 2,
        "max_new_tokens": 12,
        "temperature": 1.0,
        "top_p": 1.0,
        "max_length": 300,
        "log_steps": 1,
        "threads": 1,
    }
    return OnPolicySettings(**{**values, **changes})


def states(*weights: float) -> list[State]:
    return [
        State(q, messages(q), tuple(View(messages(f"{NOTES} {q}"), w) for w in weights), (Completion("42", "n"),))
        for q in QUESTIONS
    ]


VIEWS = [View(messages(f"{NOTES} {q}"), 1.0) for q in QUESTIONS]
ACTIONS = [Answer(0, tuple(bpe()("The sum is 42.")["input_ids"] + [2])), Answer(2, (40, 50, 60)), Answer(0, (7,))]


def test_log_probabilities_over_http_are_those_of_the_local_model(folders: dict[str, Path]) -> None:
    how = settings([])
    near = open_scorer(local(folders, "ada"), how)
    near.prepare(300)
    with VLLMServer(folders["ada"]) as server:
        far = open_served(served(folders, "ada", server), how)
        assert far.limit == near.limit
        assert far.context(VIEWS[0]) == near.context(VIEWS[0])
        torch.testing.assert_close(far.logprobs(VIEWS, ACTIONS), near.logprobs(VIEWS, ACTIONS), atol=1e-4, rtol=0)
    asked = [r for r in server.requests if "prompt_logprobs" in r][1:]
    assert [r["prompt"][-len(a.ids) :] for r, a in zip(sorted(asked, key=str), sorted(ACTIONS, key=str), strict=True)]
    assert sorted(tuple(r["prompt"]) for r in asked) == sorted(
        (*near.context(VIEWS[a.state]), *a.ids) for a in ACTIONS
    ), "the student's exact tokens under the scorer's own context"


@pytest.mark.parametrize("divergence", ["jsd", "reverse_kl", "forward_kl", "log_ratio"])
def test_with_the_whole_vocabulary_training_is_that_with_a_local_scorer(
    folders: dict[str, Path], tmp_path: Path, divergence: Any
) -> None:
    objective = Objective(divergence=divergence)
    one, two = (local(folders, name) for name in ("ada", "bob"))
    near = train_on_policy(
        folders["student"], states(0.7, 0.3), settings([one, two], objective=objective), tmp_path / "near", seed=0
    )
    with VLLMServer(folders["ada"], max_logprobs=ALL) as server:
        how = settings([served(folders, "ada", server, ALL), two], objective=objective)
        far = train_on_policy(folders["student"], states(0.7, 0.3), how, tmp_path / "far", seed=0)
    for a, b in zip(curve(tmp_path / "near"), curve(tmp_path / "far"), strict=True):
        assert b["loss"] == pytest.approx(a["loss"], abs=1e-4)
        for name in ("divergence/ada", "agreement/ada", "weight/ada", "divergence/bob"):
            assert b[name] == pytest.approx(a[name], abs=1e-4)
    assert (near.steps, far.steps) == (2, 2)


MERGED = [
    {"aggregate": "arithmetic"},
    {"aggregate": "geometric", "divergence": "reverse_kl"},
    *(
        {"aggregate": "max", "max_by": by, "divergence": "forward_kl"}
        for by in ("probability", "entropy", "elementwise")
    ),
    {"aggregate": "arithmetic", "divergence": "log_ratio"},
    {"by_token": "entropy", "divergence": "reverse_kl"},
]


@pytest.fixture(scope="module")
def merged_near(folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[[dict[str, str]], Path]:
    """Folder of a training with two local scorers, for each way of merging them."""
    made = dict[str, Path]()

    def near(how: dict[str, str]) -> Path:
        name = "-".join(how.values())
        if name not in made:
            made[name] = tmp_path_factory.mktemp("near")
            scorers = [local(folders, scorer) for scorer in ("ada", "bob")]
            train = settings(scorers, objective=Objective(**how))  # type: ignore[arg-type]
            train_on_policy(folders["student"], states(0.7, 0.3), train, made[name], seed=0)
        return made[name]

    return near


@pytest.mark.parametrize("how", MERGED, ids=lambda how: "-".join(how.values()))
@pytest.mark.parametrize("bob_too", [False, True], ids=["one served", "both served"])
def test_served_scorers_are_merged_as_local_ones_are(
    folders: dict[str, Path], merged_near: Callable[[dict[str, str]], Path], tmp_path: Path, how: Any, bob_too: bool
) -> None:
    objective, given, two = Objective(**how), states(0.7, 0.3), local(folders, "bob")
    with VLLMServer(folders["ada"], max_logprobs=ALL) as ada, VLLMServer(folders["bob"], max_logprobs=ALL) as bob:
        other = served(folders, "bob", bob, ALL) if bob_too else two
        scorers = [served(folders, "ada", ada, ALL), other]
        train_on_policy(folders["student"], given, settings(scorers, objective=objective), tmp_path / "far", seed=0)
    for a, b in zip(curve(merged_near(how)), curve(tmp_path / "far"), strict=True):
        assert b["loss"] == pytest.approx(a["loss"], abs=1e-4)
        assert b["divergence/bob"] == pytest.approx(a["divergence/bob"], abs=1e-4)


@cases
@given(st.integers(1, 40), st.integers(0, 2**20), st.sampled_from(["reverse_kl", "forward_kl", "jsd"]))
def test_of_merged_scorers_who_name_a_part_nobody_seems_farther_away_than_by_the_whole(
    top: int, seed: int, divergence: Any
) -> None:
    """Two that name their likeliest tokens, and one who knows all: a mean of what they share is a coarser mean."""
    generator = torch.Generator().manual_seed(seed)
    ps = [3 * torch.randn(3, 40, generator=generator, dtype=torch.float64) for _ in range(3)]
    q = torch.randn(3, 40, generator=generator, requires_grad=True)
    how, weights = Objective(divergence=divergence, aggregate="arithmetic"), torch.tensor([[0.5, 0.3, 0.2]] * 3)
    sampled = torch.tensor([1, 2, 3])
    probabilities: list[Any] = [ps[0].float()]
    for p in ps[1:]:
        named = [sorted({*row.topk(top).indices.tolist(), int(y)}) for row, y in zip(p, sampled, strict=True)]
        logp = p.log_softmax(-1)
        at = [Position(tuple(ids), tuple(row[ids].tolist())) for ids, row in zip(named, logp, strict=True)]
        probabilities.append(ServedTargets.of(at, 40, Marks()).teacher(np.arange(3), torch.device("cpu")))
    loss = merged_loss(q, probabilities, weights, sampled, how)
    exact = distillation_loss(q, [p.float() for p in ps], weights, sampled, how)
    assert (loss <= exact + 1e-4).all()
    if top == 40:
        torch.testing.assert_close(loss, exact, atol=1e-4, rtol=1e-4)
    (gradient,) = torch.autograd.grad(loss.sum(), q)
    assert gradient.isfinite().all()


def test_with_few_tokens_named_the_loss_is_that_of_those_and_one_bucket(folders: dict[str, Path]) -> None:
    """Written out in float64 from whole distributions, without the code under test."""
    how, top = settings([]), 5
    near = open_scorer(local(folders, "ada"), how)
    near.prepare(300)
    whole = near.logits(near.hidden(VIEWS, ACTIONS)).double().softmax(-1)
    torch.manual_seed(1)
    student = torch.randn(len(whole), near.columns, requires_grad=True)
    sampled = torch.tensor([i for a in ACTIONS for i in a.ids])
    with VLLMServer(folders["ada"]) as server:
        scores = open_served(served(folders, "ada", server, top), how).read(VIEWS, ACTIONS)
    for divergence in ("reverse_kl", "forward_kl", "jsd"):
        loss, best = scores.compare(student, np.arange(len(whole)), sampled, Objective(divergence=divergence))
        assert best.tolist() == whole.argmax(-1).tolist()
        for row in range(len(whole)):
            named = sorted({*whole[row].topk(top).indices.tolist(), int(sampled[row])})
            p, q = (_lumped(d[row], named) for d in (whole, student.detach().double().softmax(-1)))
            m = (p + q) / 2
            wanted = {
                "reverse_kl": (q * (q / p).log()).sum(),
                "forward_kl": (p * (p / q).log()).sum(),
                "jsd": ((p * (p / m).log()).sum() + (q * (q / m).log()).sum()) / 2,
            }[divergence]
            assert float(loss[row].detach()) == pytest.approx(float(wanted), abs=1e-4)
        (gradient,) = torch.autograd.grad(loss.sum(), student)
        assert gradient.isfinite().all()
        assert gradient.abs().sum() > 0.1


def _lumped(whole: torch.Tensor, named: list[int]) -> torch.Tensor:
    kept = whole[named]
    return torch.cat([kept, 1 - kept.sum()[None]])


@cases
@given(st.integers(1, 40), st.integers(0, 2**20), st.booleans())
def test_what_is_told_is_a_distribution_and_never_farther_apart_than_the_whole(
    top: int, seed: int, marks: bool
) -> None:
    generator = torch.Generator().manual_seed(seed)
    p, q = (3 * torch.randn(2, 3, 40, generator=generator, dtype=torch.float64)).unbind(0)
    logp = p.log_softmax(-1)
    positions = [Position(tuple((t := row.topk(top)).indices.tolist()), tuple(t.values.tolist())) for row in logp]
    talk = Marks((5,), (6, 7), 2) if marks else Marks()
    scores = ServedTargets.of(positions, 40, talk)
    teacher, known = scores.teacher(np.arange(3), torch.device("cpu"))
    if not marks:
        assert teacher.exp().sum(-1) == pytest.approx([1, 1, 1], abs=1e-5)
        assert known.sum(1).tolist() == [top] * 3
    sampled = logp.argmax(-1)
    how = Objective(divergence="reverse_kl")
    loss, _ = scores.compare(q, np.arange(3), sampled, how)
    assert loss.isfinite().all()
    if not marks:
        exact = distillation_loss(q, [p], torch.ones(3, 1), sampled, how)
        assert (loss <= exact + 1e-4).all()


def test_what_teachers_say_to_the_committee_alone_is_silenced_as_in_a_local_scorer(folders: dict[str, Path]) -> None:
    how = settings([], never=("?",), as_end=("!", ";"))
    near = open_scorer(local(folders, "ada"), how)
    near.prepare(300)
    with VLLMServer(folders["ada"], max_logprobs=ALL) as server:
        far = open_served(served(folders, "ada", server, ALL), how)
        targets, known = far.read(VIEWS, ACTIONS).teacher(
            np.arange(sum(len(a.ids) for a in ACTIONS)), near.model.device
        )
    wanted = near.logits(near.hidden(VIEWS, ACTIONS)).log_softmax(-1)
    assert known.all()
    torch.testing.assert_close(targets[:, :-1].exp(), wanted.exp(), atol=1e-5, rtol=1e-4)


def test_the_worth_of_a_debate_can_be_told_by_a_served_scorer(folders: dict[str, Path]) -> None:
    items = [(View(messages(q), 1.0), View(messages(f"{NOTES} {q}"), 1.0), "The sum is 42.") for q in QUESTIONS]
    near = likelihood(local(folders, "ada"), items, settings([]))
    with VLLMServer(folders["ada"]) as server:
        far = likelihood(served(folders, "ada", server), items, settings([]))
    assert far["answers"] == 3
    assert far["nll_debate"] == pytest.approx(near["nll_debate"], abs=1e-3)
    assert far["likelier"] == near["likelier"]


def test_a_rest_that_is_lost_in_rounding_is_no_verdict() -> None:
    """What is named sums to a hair more than 1: a student with a tenth elsewhere hears of 1.1 nats, and not of 6."""
    scores = ServedTargets.of([Position((3, 4), (math.log(0.7), math.log(0.3000001)))], 10, Marks())
    q = torch.tensor([[0.0125] * 10]).index_copy(1, torch.tensor([3, 4]), torch.tensor([[0.6, 0.3]])).log()
    loss, _ = scores.compare(q, np.arange(1), torch.tensor([3]), Objective(divergence="reverse_kl"))
    wanted = 0.6 * math.log(0.6 / 0.7) + 0.1 * math.log(0.1 / 1e-6)
    assert float(loss) == pytest.approx(wanted, abs=1e-3)


def _short(choice: dict[str, Any]) -> None:
    choice["prompt_logprobs"].pop()


def _shifted(choice: dict[str, Any]) -> None:
    rows = choice["prompt_logprobs"]
    choice["prompt_logprobs"] = [None, *rows[2:], rows[1]]


def _none(choice: dict[str, Any]) -> None:
    choice["prompt_logprobs"] = None


def _cut(choice: dict[str, Any]) -> None:
    choice["prompt_token_ids"] = choice["prompt_token_ids"][1:]


def _strange(choice: dict[str, Any]) -> None:
    for entry in choice["prompt_logprobs"][1:]:
        next(iter(entry.values()))["logprob"] = math.nan


@pytest.mark.parametrize("change", [_short, _shifted, _none, _cut, _strange], ids=lambda change: change.__name__)
def test_a_server_that_does_not_score_every_token_stops_the_run_before_it_begins(
    folders: dict[str, Path], tmp_path: Path, change: Any
) -> None:
    with VLLMServer(folders["ada"], change=change) as server, pytest.raises(RecipeError, match="does not score"):
        train_on_policy(
            folders["student"], states(1.0), settings([served(folders, "ada", server, 3)]), tmp_path, seed=0
        )
    assert not (tmp_path / "loss.jsonl").exists()


def test_a_server_that_stops_to_score_stops_the_run(folders: dict[str, Path], tmp_path: Path) -> None:
    scored = []

    def change(choice: dict[str, Any]) -> None:
        scored.append(choice)
        if len(scored) > 6:
            _short(choice)

    with VLLMServer(folders["ada"], change=change) as server, pytest.raises(AgentError, match="prompt_logprobs for a"):
        train_on_policy(folders["student"], states(1.0), settings([served(folders, "ada", server)]), tmp_path, seed=0)


def test_more_tokens_than_the_server_gives_is_said_before_the_run(folders: dict[str, Path]) -> None:
    with VLLMServer(folders["ada"]) as server, pytest.raises(RecipeError, match="max allowed: 20") as caught:
        open_served(served(folders, "ada", server, 21), settings([]))
    assert "--max-logprobs" in caught.value.do


def test_another_tokenizer_on_the_server_or_of_the_student_is_said_before_the_run(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    with (
        VLLMServer(folders["ada"], tokenizer=folders["other"]) as server,
        pytest.raises(RecipeError, match="another tokenizer"),
    ):
        open_served(served(folders, "ada", server), settings([]))
    with VLLMServer(folders["ada"], tokenizer=folders["other"]) as server:
        how = settings([served(folders, "other", server)])
        with pytest.raises(RecipeError, match="behind a server and has another tokenizer"):
            train_on_policy(folders["student"], states(1.0), how, tmp_path, seed=0)


@pytest.mark.parametrize("changed", [{"temperature": 2.0}])
def test_an_objective_that_needs_whole_distributions_is_refused(
    folders: dict[str, Path], changed: dict[str, Any]
) -> None:
    with VLLMServer(folders["ada"]) as server:
        spec = served(folders, "ada", server)
        how = settings([spec, local(folders, "bob")], objective=Objective(**changed))
        with pytest.raises(RecipeError, match="behind a server"):
            open_served(spec, how)
        assert not server.requests


def test_probabilities_of_more_than_one_are_an_error() -> None:
    with pytest.raises(DataError, match=r"sum to 1\.4"):
        ServedTargets.of([Position((1, 2), (math.log(0.7), math.log(0.7)))], 10, Marks())
