"""Commands that train a model on rows which were made before."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from vivavoce.cli.shared import PLAIN, Overrides
from vivavoce.errors import DataError
from vivavoce.records import Example, State, Tree

app = typer.Typer(**PLAIN, help="Train a model on rows or trees that were exported.")

Model = Annotated[str, typer.Option(help="Model folder, Hub id, or schoolhouse:NAME.")]
Out = Annotated[Path, typer.Option(help="Folder of the trained model.")]


@app.command("sft")
def train_sft_command(
    data: Annotated[Path, typer.Argument(help="Rows as a run keeps them in data/, or as TRL reads them.")],
    model: Model,
    out: Out,
    seed: int = 0,
    set_: Overrides = [],
) -> None:
    """Supervised fine-tuning (keys of `sft:` by --set)."""
    from vivavoce.train.settings import SFTSettings

    _train(data, model, out, seed, set_, SFTSettings, Example)


@app.command("tree-dpo")
def train_tree_dpo_command(
    data: Annotated[Path, typer.Argument(help="Trees as a run keeps them in data/, or pairs as TRL reads them.")],
    model: Model,
    out: Out,
    seed: int = 0,
    set_: Overrides = [],
) -> None:
    """T-DPO on preference trees (keys of `dpo:` by --set)."""
    from vivavoce.train.settings import TreeDPOSettings

    _train(data, model, out, seed, set_, TreeDPOSettings, Tree)


@app.command("two-task")
def train_two_task_command(
    data: Annotated[Path, typer.Argument(help="Rows of both streams, as a run of peer_review keeps them in data/.")],
    model: Model,
    out: Out,
    seed: int = 0,
    set_: Overrides = [],
) -> None:
    """Joint training on feedback and rationales (keys of `two_task:` by --set)."""
    from vivavoce.train.settings import TwoTaskSettings

    _train(data, model, out, seed, set_, TwoTaskSettings, Example)


@app.command("on-policy")
def train_on_policy_command(
    data: Annotated[Path, typer.Argument(help="States, as a run of debate_opd or opad keeps them in data/.")],
    model: Model,
    out: Out,
    seed: int = 0,
    set_: Overrides = [],
) -> None:
    """On-policy distillation (keys of `opd:` by --set, and the scorers: --set "scorers=[{name: ada, model: …}]")."""
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


def _train(data: Path, model: str, out: Path, seed: int, overrides: list[str], settings: Any, kind: Any) -> None:
    from vivavoce.agents.weights import folder
    from vivavoce.config import checked_overrides
    from vivavoce.data.training_rows import several_answers, training_rows
    from vivavoce.progress import say
    from vivavoce.train.checkpoint import leave_launch
    from vivavoce.train.jobs import Job, train_here

    if not data.is_file():
        raise DataError("no such file of rows", str(data), "see data/ in a run, or `viva trees`")
    how = checked_overrides(settings, overrides)
    rows = training_rows(data, kind)  # before a model is looked for or downloaded
    if several := several_answers(rows):
        say(f"{several:,} of {len(rows):,} rows hold several answers: the last of each is learnt, the others are read")
    job = Job(out.name, folder(model), model, data, how, seed)
    done = train_here(job, out)
    leave_launch()
    if done.rows_dropped:
        said = f"{done.rows_dropped:,} of {done.rows_used + done.rows_dropped:,} rows are longer than max_length"
        say(f"{said} ({how.max_length:,} tokens) and were left out")
    typer.echo(
        f"loss {done.first_loss:.4f} -> {done.last_loss:.4f} in {done.steps} updates, {done.seconds:.0f} s; "
        f"model in {done.path}"
    )


__all__ = ["app"]
