"""Commands that measure."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vivavoce.cli.shared import PLAIN, AsJson
from vivavoce.cli.tables import print_table
from vivavoce.errors import MissingDependency, RecipeError
from vivavoce.progress import awaited, say

if TYPE_CHECKING:
    from vivavoce.bench.on_policy import Epochs
    from vivavoce.bench.side_by_side import Figures

Repeats = Annotated[int, typer.Option(min=1, help="Passes of each side.")]

app = typer.Typer(**PLAIN, help="Measure vivavoce side by side with other software.")


@app.command("tree-dpo")
def bench_tree_dpo(
    shape: Annotated[list[str], typer.Option(help="RIGHTxWRONG answers of a tree.")] = ["2x2"],
    context: Annotated[int, typer.Option(help="Tokens of the context.")] = 1000,
    answers: Annotated[int, typer.Option(help="Tokens of an answer.")] = 256,
    hidden: Annotated[int, typer.Option(help="Width of the random model.")] = 512,
    layers: Annotated[int, typer.Option(help="Layers of the random model.")] = 2,
    vocabulary: Annotated[int, typer.Option(help="Size of its vocabulary.")] = 4096,
    trees: Annotated[int, typer.Option(help="Trees of the update.")] = 1,
    repeats: Repeats = 3,
    as_json: AsJson = False,
) -> None:
    """Measure the packed T-DPO step against TRL's DPOTrainer, on the same weights and pairs."""
    sizes = [re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", one) for one in shape]
    if not all(sizes):
        raise RecipeError("a shape is RIGHTxWRONG", f"--shape {' '.join(shape)}", "say --shape 2x2")
    with _peer("trl"):
        from vivavoce.bench.models import ModelDimensions
        from vivavoce.bench.tree_dpo import TreeShape, run

    shapes = [TreeShape(int(s[1]), int(s[2]), context, answers) for s in sizes if s]
    size = ModelDimensions.narrow(hidden, layers, vocabulary)
    _tell((run(s, size, trees=trees, repeats=repeats) for s in shapes), as_json)


@app.command("sft")
def bench_sft(repeats: Repeats = 3, as_json: AsJson = False) -> None:
    """The packed SFT step against TRL's SFTTrainer: answers that share their question, and unrelated rows."""
    with _peer("trl"):
        from vivavoce.bench.sft import run

    _tell(run(repeats=repeats), as_json)


@app.command("on-policy")
def bench_on_policy(
    states: Annotated[int, typer.Option(help="States of the step.")] = 8,
    answers: Annotated[int, typer.Option(help="Tokens of an answer.")] = 128,
    vocabulary: Annotated[int, typer.Option(help="Tokens of the vocabulary.")] = 32768,
    transcript: Annotated[int, typer.Option(help="Tokens of the transcript that answers are scored under.")] = 1000,
    repeats: Repeats = 3,
    as_json: AsJson = False,
) -> None:
    """Measure the on-policy step against TRL's DistillationTrainer, with a shared transcript, and whole epochs."""
    with _peer("trl"):
        from vivavoce.bench.models import ModelDimensions
        from vivavoce.bench.on_policy import UpdateShape, run, whole

    shape = UpdateShape(states=states, answer=answers, transcript=transcript)
    epochs = (whole(rollouts=n) for n in (1, 4))
    size = ModelDimensions.narrow(256, 4, vocabulary)
    _tell(chain(run(shape, size, repeats=repeats), epochs), as_json)


@app.command("generate")
def bench_generate(
    debates: Annotated[int, typer.Option(help="Debates in flight at once.")] = 128,
    rounds: Annotated[int, typer.Option(help="Rounds of each.")] = 3,
    answer: Annotated[int, typer.Option(help="Tokens of an answer, median.")] = 48,
    hidden: Annotated[int, typer.Option(help="Width of the random model.")] = 128,
    layers: Annotated[int, typer.Option(help="Layers of the random model.")] = 4,
    repeats: Repeats = 2,
    model: Annotated[str, typer.Option(help="Folder of a real model, or smollm2; none: random weights.")] = "",
    vllm: Annotated[str, typer.Option(help="Python of an environment with vLLM, to measure it too.")] = "",
    as_json: AsJson = False,
) -> None:
    """Measure local generation for many debates at once against `generate` in padded batches, on the same weights.

    With --model, a real model answers questions at once, against `generate`, llama.cpp's server and vLLM, and beside
    two busy processes.
    """
    if model:
        from vivavoce.bench import pretrained

        folder = Path("build/weights/SmolLM2-135M-Instruct" if model == "smollm2" else model)
        made = Path(".venv-vllm/bin/python")
        python = vllm or (str(made) if made.is_file() else None)
        typer.echo(json.dumps(pretrained.run(folder, vllm_python=python), indent=2))
        return
    with awaited("loading transformers"):
        from vivavoce.bench.generate import DebateShape, run
        from vivavoce.bench.models import ModelDimensions

    size = ModelDimensions.narrow(hidden, layers, 4096)
    measured = run(DebateShape(debates=debates, rounds=rounds, answer=answer), size, repeats=repeats)
    typer.echo(json.dumps(measured.summary(), indent=2) if as_json else str(measured))


@app.command("scaling")
def bench_scaling(
    repeats: Repeats = 2,
    minutes: Annotated[
        float | None,
        typer.Option(
            min=0, help="Leave out what has not begun after so many minutes.", show_default="8; with --wide no limit"
        ),
    ] = None,
    wide: Annotated[
        bool, typer.Option("--wide", help="Up to larger values: some twenty minutes on two cores.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Measure how cost grows with the tree's width, context, lengths, vocabulary and number of teachers, with TRL
    beside.
    """
    with _peer("trl"):
        from vivavoce.bench.scaling import HEAD, run

    points, left_out = run(repeats, minutes if minutes is not None or wide else 8, wide)
    if as_json:
        typer.echo(json.dumps([point.summary() for point in points], indent=2))
    else:
        print_table(HEAD, [point.cells for point in points])
    for row in left_out:
        say(f"left out: {row.work.name}, {row.varies} {row.value}")


@app.command("gpu")
def bench_gpu(repeats: Repeats = 5, as_json: AsJson = False) -> None:
    """The same comparisons on a GPU: bfloat16, random weights of Qwen3-0.6B's dimensions; skipped without one."""
    with _peer("trl"):
        from vivavoce.bench.gpu import available, run

    if not available():
        typer.echo("[]" if as_json else "skipped: torch sees no CUDA device here")
        return
    _tell(run(repeats), as_json)


@app.command("debate")
def bench_debate(
    questions: Annotated[int, typer.Option(min=1, help="Questions to debate.")] = 500,
    in_flight: Annotated[int, typer.Option(min=1, help="Debates at once.")] = 500,
    rounds: Annotated[int, typer.Option(min=1, help="Answer rounds.")] = 3,
    teachers: Annotated[int, typer.Option(min=1, help="Agents that debate.")] = 4,
    as_json: AsJson = False,
) -> None:
    """Measure the debate engine's own time and memory, with scripted agents that answer at once."""
    from dataclasses import asdict

    from vivavoce.bench.debate import measure

    measured = measure(questions, in_flight, rounds, teachers)
    typer.echo(json.dumps(asdict(measured), indent=2) if as_json else measured)


@app.command("engine")
def bench_engine(
    distilabel: Annotated[
        Path | None, typer.Option(help="Python of an environment with distilabel[openai], to measure beside ours.")
    ] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Measurements of each kind; the median counts.")] = 3,
    questions: Annotated[
        int, typer.Option(min=0, help="Questions to debate to measure memory; 0: do not measure it.")
    ] = 2000,
    faulty: Annotated[
        bool, typer.Option("--faulty", help="Measure with an endpoint that refuses calls, fails or has limits.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Measure the engine against a server on loopback: its rate against the ideal, its own cost and memory."""
    from vivavoce.bench.debate import EngineCosts
    from vivavoce.bench.engine import engine_rows, faulty_rows, run, run_faulty

    if faulty:
        measured = run_faulty(repeats)
        if as_json:
            typer.echo(json.dumps(measured, indent=2))
        else:
            head = ("endpoint", "calls", "s", "calls/s", "of no faults", "of ideal", "sent again")
            print_table(head, faulty_rows(measured))
        return
    measured = run(distilabel, repeats, questions)
    if as_json:
        typer.echo(json.dumps(measured, indent=2))
        return
    head = ("what", "engine", "calls", "s", "of ideal", "calls/s", "retries", "CPU ms/call", "peak MiB")
    print_table(head, engine_rows(measured))
    if questions:
        typer.echo(EngineCosts(**measured["memory"]))


@app.command("view")
def bench_view(
    questions: Annotated[int, typer.Option(min=100, help="Training questions, and as many test questions.")] = 100_000,
    as_json: AsJson = False,
) -> None:
    """Measure the viewer on a made-up run: time to index, search and show, and the server's memory."""
    from dataclasses import asdict

    from vivavoce.bench.view import run

    measured = run(questions)
    typer.echo(json.dumps(asdict(measured), indent=2) if as_json else measured)


@app.command("sandbox")
def bench_sandbox(
    hostile: Annotated[int, typer.Option(min=1, help="Number of hostile programs, each kind in turn.")] = 1000,
    ordinary: Annotated[int, typer.Option(min=1, help="Number of ordinary programs, to measure speed.")] = 400,
    as_json: AsJson = False,
) -> None:
    """Try the sandbox with hostile programs, of which none may escape or outlive its limit, and measure its speed."""
    from dataclasses import asdict

    from vivavoce.bench.sandbox import run

    result = run(hostile, ordinary)
    typer.echo(json.dumps(asdict(result), indent=2) if as_json else result)
    if result.escaped or result.outlived or result.passed:
        raise typer.Exit(1)


def _tell(compared: Iterable[Figures | Epochs], as_json: bool) -> None:
    """Print each as soon as it is measured: a run that is cut short has minutes behind it."""
    for i, one in enumerate(compared):
        typer.echo(("," if i else "[") + json.dumps(one.summary(), indent=2) if as_json else one)
    if as_json:
        typer.echo("]")


@contextmanager
def _peer(package: str) -> Iterator[None]:
    """Around the import of a benchmark that measures against ``package``, which nothing else here needs."""
    try:
        with awaited(f"loading {package}"):
            yield
    except ModuleNotFoundError as error:
        if error.name != package:
            raise
        what = f"this benchmark measures against {package}, which is not installed"
        raise MissingDependency(what, "viva bench", 'pip install "vivavoce[bench]"') from error
    from datasets import disable_progress_bars

    disable_progress_bars()  # of a trainer for each way that the peer is tried in
    warnings.simplefilter("ignore", FutureWarning)  # of one library to another


__all__ = ["app"]
