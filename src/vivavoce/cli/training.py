"""Commands that train a model on rows which were made before."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from vivavoce.cli.shared import PLAIN, Overrides, task_of
from vivavoce.errors import DataError
from vivavoce.records import Example, Interaction, State, Tree

app = typer.Typer(**PLAIN, help="Train a model on rows or trees that were exported.")

Model = Annotated[str, typer.Option(help="Model folder, Hub id, or schoolhouse:NAME.")]
Out = Annotated[Path, typer.Option(help="Folder of the trained model.")]
Arm = Annotated[
    str,
    typer.Option(
        help="For graphs of a peer review: the arm that says what is learnt from them, such as "
        "checked_and_reviewed or reviewed@accept.threshold=4."
    ),
]
OfTask = Annotated[
    str, typer.Option(help="For graphs: the task of the questions; default: the one with which their ids begin.")
]


@app.command("sft")
def train_sft_command(
    data: Annotated[
        Path, typer.Argument(help="Rows as a run keeps them in data/, or as TRL reads them; or graphs of peer review.")
    ],
    model: Model,
    out: Out,
    seed: int = 0,
    arm: Arm = "reviewed",
    task: OfTask = "",
    set_: Overrides = [],
) -> None:
    """Train by supervised fine-tuning (keys of `sft:` by --set). From graphs, learn the accepted rationales."""
    from vivavoce.train.settings import SFTSettings

    _train(data, model, out, seed, set_, SFTSettings, Example, arm, task)


@app.command("tree-dpo")
def train_tree_dpo_command(
    data: Annotated[
        Path,
        typer.Argument(help="Trees as a run keeps them in data/, pairs as TRL reads them, or graphs of peer review."),
    ],
    model: Model,
    out: Out,
    seed: int = 0,
    arm: Arm = "reviewed",
    task: OfTask = "",
    set_: Overrides = [],
) -> None:
    """Train by T-DPO on preference trees (keys of `dpo:` by --set). From graphs, rationales against mistakes."""
    from vivavoce.train.settings import TreeDPOSettings

    _train(data, model, out, seed, set_, TreeDPOSettings, Tree, arm, task)


@app.command("two-task")
def train_two_task_command(
    data: Annotated[
        Path,
        typer.Argument(help="Rows of both streams, as a run of peer_review keeps them in data/; or its graphs."),
    ],
    model: Model,
    out: Out,
    seed: int = 0,
    arm: Arm = "reviewed",
    task: OfTask = "",
    set_: Overrides = [],
) -> None:
    """Train on feedback and rationales together (keys of `two_task:` by --set)."""
    from vivavoce.train.settings import TwoTaskSettings

    _train(data, model, out, seed, set_, TwoTaskSettings, Example, arm, task)


@app.command("magdi")
def train_magdi_command(
    data: Annotated[Path, typer.Argument(help="Discussions, as a run of debate_reflect keeps them in data/.")],
    model: Model,
    out: Out,
    seed: int = 0,
    set_: Overrides = [],
) -> None:
    """Train by MAGDi on discussions as graphs (keys of `magdi:` by --set)."""
    from vivavoce.train.settings import MAGDiSettings

    _train(data, model, out, seed, set_, MAGDiSettings, Interaction)


@app.command("on-policy")
def train_on_policy_command(
    data: Annotated[Path, typer.Argument(help="States, as a run of debate_opd or opad keeps them in data/.")],
    model: Model,
    out: Out,
    seed: int = 0,
    set_: Overrides = [],
) -> None:
    """Train by on-policy distillation (keys of `opd:` by --set, and --set "scorers=[{name: ada, model: …}]")."""
    from vivavoce.train.objective import OnPolicySettings

    _train(data, model, out, seed, set_, OnPolicySettings, State)


@app.command("merge")
def merge_command(
    adapter: Annotated[Path, typer.Argument(help="Folder of a model that was trained with LoRA.")],
    out: Annotated[Path, typer.Option(help="Folder of the whole model.")],
) -> None:
    """Add a LoRA adapter to its base model, in float32, for programs that take whole models only."""
    from vivavoce.train.adapters import merge

    merge(adapter, out)
    typer.echo(f"model in {out}")


def _train(
    data: Path,
    model: str,
    out: Path,
    seed: int,
    overrides: list[str],
    settings: Any,
    kind: Any,
    arm: str = "",
    task: str = "",
) -> None:
    from vivavoce.agents.weights import folder
    from vivavoce.config import checked_overrides
    from vivavoce.data.imported import holds_graphs
    from vivavoce.data.training_rows import several_answers, training_rows
    from vivavoce.progress import say
    from vivavoce.train.checkpoint import leave_launch
    from vivavoce.train.jobs import Job, train_here

    if not data.is_file():
        raise DataError("no such file of rows", str(data), "see data/ in a run, or `viva trees`")
    options = checked_overrides(settings, overrides)
    if arm and holds_graphs(data):
        data = _rows_of_graphs(data, out, options, kind, arm, task, seed)
    rows = training_rows(data, kind)  # before a model is looked for or downloaded
    if several := several_answers(rows):
        say(
            f"{several:,} of {len(rows):,} rows hold several answers: the student learns the last of each and "
            "reads the others"
        )
    job = Job(out.name, folder(model), model, data, options, seed)
    done = train_here(job, out)
    leave_launch()
    typer.echo(
        f"loss {done.first_loss:.4f} -> {done.last_loss:.4f} in {done.steps} updates, {done.seconds:.0f} s; "
        f"model in {done.path}"
    )


def _rows_of_graphs(graphs: Path, out: Path, options: Any, kind: Any, arm: str, task: str, seed: int) -> Path:
    """The rows that an arm makes of graphs, written beside the model that will learn from them."""
    from vivavoce.files import file_name
    from vivavoce.methods.review_rows import rows_of_graphs
    from vivavoce.progress import say
    from vivavoce.records import Tree, to_json
    from vivavoce.train.settings import TwoTaskSettings

    alpha = options.alpha if isinstance(options, TwoTaskSettings) else 0.0
    made = rows_of_graphs(graphs, arm, task_of(task) if task else None, seed, alpha)
    rows: list[Any] = list(made.trees) if kind is Tree else list(made.examples)
    say(f"{made.summary}; {len(rows):,} rows for the arm {arm}")
    path = out.with_name(f"{out.name}.{file_name(arm)}.jsonl")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(to_json(row) + "\n" for row in rows), "utf-8")
    return path


__all__ = ["app"]
