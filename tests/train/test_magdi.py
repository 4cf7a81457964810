"""MAGDi: its three objectives against the formulas on a graph made by hand, what it teaches, and killed trainings."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.train.students import Killed, die_at, equal, messages, weights
from torch.nn.functional import log_softmax
from transformers import AutoModelForCausalLM

from vivavoce.agents.rendering import rendering
from vivavoce.errors import DataError
from vivavoce.records import Interaction, Stand
from vivavoce.train import checkpoint, magdi
from vivavoce.train import interaction_losses as losses
from vivavoce.train.jobs import kind_of
from vivavoce.train.scoring import Method, attending
from vivavoce.train.settings import MAGDiSettings

QUESTION = "Solve: what is 12 + 30?"
# Two agents in two rounds: the first is right at once, the second falls silent, then is right too.
GRAPH = Interaction(
    QUESTION,
    messages(QUESTION),
    (Stand("It is 42.", "right"), Stand("Ada said 41.", "wrong"), Stand("So 42.", "right"), Stand("", "missing")),
    ((0, 2), (0, 3), (1, 2), (1, 3)),
)
OTHER = Interaction("6 * 7?", messages("6 * 7?"), (Stand("42", "right"), Stand("48", "wrong")), ())
FULL = {"lora": None, "log_steps": 1, "device": "cpu", "adam_eps": 1e-3, "threads": 1}


def settings(**changes: Any) -> MAGDiSettings:
    usual = {"max_steps": 3, "graphs_per_step": 2, "learning_rate": 1e-3, "hidden": 8, "dropout": 0.0}
    return MAGDiSettings.model_validate({**FULL, **usual, **changes})


def by_the_formulas(
    model: Any, tokenizer: Any, reader: losses.EmbeddingReaders, graphs: list[Interaction], o: MAGDiSettings
):
    """The loss of one update, written down from the paper: row by row, without packing, edges in loops."""
    form = rendering(tokenizer, {})
    nll, margins, nodes = torch.zeros(3).unbind()
    tokens = pairs = stands = 0
    for g in graphs:
        context = form.prompt_ids(g.prompt, "")
        embedded, scores = [], []
        for s in g.stands:
            answer = form.answer_ids(s.text, True) if s.label != "missing" else []
            ids = torch.tensor([[*context, *answer]])
            output = model(input_ids=ids, output_hidden_states=True)
            states = output.hidden_states[-1][0]
            weight = torch.arange(1.0, len(states) + 1)
            embedded.append((weight[:, None] * states).sum(0) / weight.sum())
            scores.append(reader.scorer(embedded[-1][None])[0])
            if s.label == "right":
                logps = log_softmax(output.logits[0], -1)
                for t in range(len(context), ids.shape[1]):
                    nll, tokens = nll - logps[t - 1, ids[0, t]], tokens + 1
        n = len(g.stands)
        degree = [1 + sum(b == i for _, b in g.edges) for i in range(n)]

        def convolved(x: list[torch.Tensor], w: torch.nn.Linear, n=n, degree=degree, edges=g.edges):
            made = []
            for to in range(n):
                total = w.weight @ x[to] / degree[to]
                for a, b in edges:
                    if b == to:
                        total = total + w.weight @ x[a] / math.sqrt(degree[a] * degree[to])
                made.append(total + w.bias)
            return made

        hidden = [h.clamp(min=0) for h in convolved(embedded, reader.graph.first)]
        for s, classes in zip(g.stands, convolved(hidden, reader.graph.second), strict=True):
            nodes, stands = nodes - log_softmax(classes, -1)[losses.LABELS.index(s.label)], stands + 1
        for s, score in zip(g.stands, scores, strict=True):
            for r, other in zip(g.stands, scores, strict=True):
                if (s.label, r.label) == ("right", "wrong"):
                    margins, pairs = margins + max(0.0 * score, o.margin - score + other), pairs + 1
    return o.answer_weight * nll / tokens + o.node_weight * nodes / stands + o.margin_weight * margins / pairs


def one_update(student: Path, tmp_path: Path, o: MAGDiSettings, attention: str = "blocks"):
    """The model, its reader, and the gradients that the trainer gives them in one update of both graphs."""
    model, tokenizer = checkpoint.open_model(student, o)
    reader = losses.EmbeddingReaders(model.config.hidden_size, o.hidden, o.dropout)
    model.add_module("interaction_reader", reader)
    talks, _ = magdi._talks(tokenizer, [GRAPH, OTHER], o, tmp_path, None)
    steps = magdi.Updates(talks, o, 1, seed=0)
    arguments = checkpoint.arguments(o, tmp_path, 0, 1)
    method = Method(attention)  # type: ignore[arg-type]
    trainer = magdi.MAGDiTrainer(model, arguments, steps, o, method)
    with attending(model, method):
        loss = trainer.training_step(model, steps[0])
    return model, tokenizer, reader, loss


@pytest.mark.parametrize("attention", ["blocks", "rows"])
@pytest.mark.parametrize("budget", [4096, 16], ids=["together", "graph by graph"])
def test_loss_and_gradients_are_those_of_the_three_formulas(student: Path, tmp_path: Path, attention: str, budget: int):
    o = settings(answer_weight=0.7, node_weight=1.3, margin_weight=0.5, token_budget=budget)
    model, tokenizer, reader, loss = one_update(student, tmp_path, o, attention)
    grads = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    expected = by_the_formulas(model, tokenizer, reader, [GRAPH, OTHER], o)
    expected.backward()
    torch.testing.assert_close(loss, expected.detach(), rtol=1e-5, atol=1e-6)
    wanted = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert set(grads) == set(wanted)
    assert any(name.startswith("interaction_reader.graph") for name in grads)
    for name, gradient in wanted.items():
        torch.testing.assert_close(grads[name], gradient, rtol=1e-3, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize(("detached", "reaches"), [(False, True), (True, False)])
def test_telling_stands_apart_teaches_the_student_unless_it_is_kept_from_it(
    student: Path, tmp_path: Path, detached: bool, reaches: bool
):
    o = settings(answer_weight=0, margin_weight=0, detached=detached)
    model, *_ = one_update(student, tmp_path, o)
    own = [p for name, p in model.named_parameters() if "interaction_reader" not in name]
    assert any(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in own) is reaches
    assert model.interaction_reader.graph.first.weight.grad.abs().sum() > 0


def test_a_graph_convolution_by_hand():
    adjacent = losses.adjacency([(0, 2), (1, 2)], 3)
    third = 1 / math.sqrt(3)
    torch.testing.assert_close(adjacent, torch.tensor([[1.0, 0, 0], [0, 1, 0], [third, third, 1 / 3]]))
    encoder = losses.GraphEncoder(1, 1, 0.0)
    with torch.no_grad():
        encoder.first.weight.fill_(1.0)
        encoder.first.bias.zero_()
        encoder.second.weight.copy_(torch.tensor([[1.0], [2.0], [0.0]]))
        encoder.second.bias.zero_()
        output = encoder(torch.tensor([[1.0], [-3.0], [3.0]]), adjacent)
    hidden = [1.0, 0.0, max(0.0, third * (1 - 3) + 1)]
    second = [hidden[0], hidden[1], third * (hidden[0] + hidden[1]) + hidden[2] / 3]
    torch.testing.assert_close(output, torch.tensor([[h, 2 * h, 0.0] for h in second]))


def test_it_learns_to_answer_and_to_tell_stands_apart_and_saves_an_ordinary_student(student: Path, tmp_path: Path):
    o = settings(max_steps=40, learning_rate=1e-2, adam_eps=1e-8)
    result = magdi.train_magdi(student, [GRAPH, OTHER], o, tmp_path / "a", seed=0)
    first, last = result.history[0], result.history[-1]
    for name in ("answers", "nodes", "margins"):
        assert last[name] < first[name]
    assert last["answers"] < 0.2 * first["answers"]
    assert result.details["right"] == 3
    assert result.details["pairs"] == 3
    assert not [name for name in weights(tmp_path / "a") if "interaction" in name]
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "a")
    assert kind_of(o) == "MAGDi"


@pytest.mark.parametrize("changes", [{}, {"lora": {"r": 4, "alpha": 8}}], ids=["full", "lora"])
def test_a_killed_training_goes_on_to_the_same_weights(student: Path, tmp_path: Path, changes: dict[str, Any]):
    o = settings(max_steps=6, save_steps=2, dropout=0.5, learning_rate=1e-2, adam_eps=1e-8, **changes)
    whole = magdi.train_magdi(student, [GRAPH, OTHER], o, tmp_path / "whole", seed=3)
    with pytest.raises(Killed):
        magdi.train_magdi(student, [GRAPH, OTHER], o, tmp_path / "cut", seed=3, progress=die_at(5))
    second = magdi.train_magdi(student, [GRAPH, OTHER], o, tmp_path / "cut", seed=3)
    assert second.last_loss == whole.last_loss
    assert equal(tmp_path / "cut", tmp_path / "whole")
    stored = json.loads((tmp_path / "cut" / "train_result.json").read_text())
    assert stored["steps"] == 6
    assert magdi.train_magdi(student, [GRAPH, OTHER], o, tmp_path / "cut", seed=3).seconds == second.seconds


@pytest.mark.parametrize(
    ("graphs", "message"),
    [
        ([], "no discussions to train on"),
        ([Interaction("q", messages("q"), (Stand("", "missing"),), ())], "no discussions to train on"),
        ([Interaction("q", messages("q"), (Stand("42", "right"),), ((0, 1),))], r"edge \[0, 1\] leads to no stand"),
        ([Interaction("q", messages("q"), (Stand("42", "right"),), (), float("nan"))], "`weight` is nan"),
    ],
    ids=["none", "all missing", "edge", "weight"],
)
def test_graphs_that_cannot_be_learnt_from_are_named(student: Path, tmp_path: Path, graphs: Any, message: str):
    with pytest.raises(DataError, match=message):
        magdi.train_magdi(student, graphs, settings(), tmp_path / "out", seed=0)


def test_a_student_of_the_rows_alone_is_that_of_sft(student: Path, tmp_path: Path):
    """With the two other weights 0 what is left is the mean over the tokens of right answers."""
    from vivavoce.records import Example
    from vivavoce.train.settings import SFTSettings
    from vivavoce.train.sft import train_sft

    o = settings(max_steps=1, node_weight=0, margin_weight=0, graphs_per_step=1)
    one = magdi.train_magdi(student, [GRAPH], o, tmp_path / "a", seed=0)
    rows = [Example(QUESTION, GRAPH.prompt, text, ()) for text in ("It is 42.", "So 42.")]
    sft = SFTSettings.model_validate({**FULL, "max_steps": 1, "rows_per_step": 2, "learning_rate": 1e-3})
    same = train_sft(student, rows, sft, tmp_path / "b", seed=0)
    assert one.first_loss == pytest.approx(same.first_loss, rel=1e-6)
