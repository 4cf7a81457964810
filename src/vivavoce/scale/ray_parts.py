"""The parts of a run as tasks of a Ray cluster; what they have paid for is merged into the run.

::

    viva run RECIPE, scale: {engine: ray, parts: 8}
      ├─ Ray task 1: part 1/8 ─▶ RUN/parts/1-of-8/journal.sqlite ─┐
      ├─ …            on whatever node has a core free            ├─▶ merge ─▶ RUN ─▶ train, test, report
      └─ Ray task 8: part 8/8 ─▶ RUN/parts/8-of-8/journal.sqlite ─┘

A part writes every call to its own journal, in the run directory, which all nodes must see. If a worker or a node dies,
Ray starts its parts again elsewhere, and they go on from their journals: no completed call is made again.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vivavoce import plugins
from vivavoce.config import Recipe, check_recipe, what_decides
from vivavoce.errors import DataError, MissingDependency, RunBusy, RunConflict, UserError
from vivavoce.merging import open_parts, take_over
from vivavoce.progress import bar, say
from vivavoce.records import digest
from vivavoce.run import PartDone, Run, Share, open_run

_MARK = "seen-by-all"
"""A file of the folder of parts, by which a node tells that it sees the run directory and not one of its own."""
_POLL_S = 1.0
_WAIT_S = 120
"""Seconds that a part, if started again, waits for the process that had it before."""


def ask_elsewhere(run: Run, *, update: bool = False, retry_failed: bool = False, earlier: Sequence[Path] = ()) -> None:
    """Ask all parts of a run on the cluster of its recipe and merge them into it, unless that was done before. The
    replies of ``earlier`` runs are free to every part whose node sees them.

    Errors are those of :func:`ask_in_parts` and :func:`vivavoce.merging.open_parts`.
    """
    depends = digest(what_decides(run.recipe.model_dump(mode="json")))
    if run.manifest.get("merged") == depends and not retry_failed:
        return
    folders = ask_in_parts(run.recipe, run.path, update=update, retry_failed=retry_failed, earlier=earlier)
    with open_parts(run.recipe, folders) as parts:
        say(f"{take_over(run, parts):,} calls of {len(parts)} parts are merged")
    run.note(merged=depends)


def ask_in_parts(
    recipe: Recipe, path: Path, *, update: bool = False, retry_failed: bool = False, earlier: Sequence[Path] = ()
) -> list[Path]:
    """Ask all parts of a run on the cluster that ``recipe.scale`` names; their directories, below ``path``.

    Raises MissingDependency without Ray, RunConflict if the cluster runs another version of Ray or Python, DataError if
    a node does not see the run directory, and whatever a part raises that its user can mend.
    """
    try:
        import ray
        from ray.exceptions import RayError, RayTaskError
    except ImportError as error:
        do = 'pip install "vivavoce[ray]"'
        raise MissingDependency("scale.engine: ray needs the package ray", "scale.engine", do) from error
    assert recipe.scale is not None
    scale, folder = recipe.scale, path.absolute() / "parts"
    folder.mkdir(parents=True, exist_ok=True)
    token = digest([str(folder), os.getpid(), os.urandom(8).hex()])
    (folder / _MARK).write_text(token, "utf-8")
    shares = [Share(i, scale.parts) for i in range(1, scale.parts + 1)]
    folders = [folder / f"{share.number}-of-{share.of}" for share in shares]
    ours = not ray.is_initialized()
    if ours:
        _connect(ray, scale.address)
    try:
        say(f"ray: {scale.parts} parts on {sum(n['Alive'] for n in ray.nodes())} nodes")
        # A part that dies with its worker or node is started again, however often; a part that raises is not.
        task = ray.remote(num_cpus=scale.cpus, max_retries=-1, retry_exceptions=False, scheduling_strategy="SPREAD")
        ask = task(_ask_part)
        values = recipe.model_dump(mode="json")
        flags = {"update": update, "retry_failed": retry_failed}
        here = {"mark": str(folder / _MARK), "token": token, "cwd": str(Path.cwd()), "how": flags}
        here["earlier"] = [str(one.absolute()) for one in earlier]
        waiting = [ask.remote(values, str(f), s.number, s.of, here) for f, s in zip(folders, shares, strict=True)]
        with bar("parts", len(waiting)) as advance:
            while waiting:
                done, waiting = ray.wait(waiting, timeout=_POLL_S)
                ray.get(done)
                advance(len(done))
    except RayTaskError as error:
        if isinstance(error.cause, UserError):
            raise error.cause from None
        raise
    except RayError as error:
        do = "see `ray status`; then give the same command: the parts go on from their journals"
        raise RunConflict(f"the Ray cluster failed: {error}", "scale", do) from error
    finally:
        if ours:
            ray.shutdown()
    return folders


def _connect(ray: Any, address: str | None) -> None:
    try:
        ray.init(
            address=address or os.environ.get("RAY_ADDRESS"),
            include_dashboard=False if address is None and "RAY_ADDRESS" not in os.environ else None,
            log_to_driver=False,
            configure_logging=False,
        )
    except RuntimeError as error:
        if "Version mismatch" in str(error):
            what = " ".join(str(error).split())
            raise RunConflict(what, "scale.address", "install the same versions on all nodes and here") from error
        raise RunConflict(f"cannot reach the Ray cluster: {error}", "scale.address", "see `ray status`") from error
    except (ConnectionError, ValueError) as error:
        raise RunConflict(f"cannot reach the Ray cluster: {error}", "scale.address", "see `ray status`") from error


def _ask_part(values: dict[str, Any], path: str, number: int, of: int, here: dict[str, Any]) -> None:
    """One part, in a process of whatever node Ray chose."""
    mark = Path(here["mark"])
    if not mark.is_file() or mark.read_text("utf-8") != here["token"]:
        node = os.uname().nodename
        do = "put the run on a disk that all nodes share, with --out"
        raise DataError(f"node {node} does not see the run directory", str(mark.parent.parent), do)
    if Path(here["cwd"]).is_dir():
        os.chdir(here["cwd"])  # paths in the recipe are meant from there
    recipe = check_recipe(values, Path(path) / "recipe.yaml")
    method = plugins.load("methods", recipe.method, "method")
    share = Share(number, of)
    end = time.monotonic() + _WAIT_S
    earlier = [run for run in map(Path, here["earlier"]) if (run / "journal.sqlite").is_file()]
    while True:
        try:
            with open_run(Path(path), recipe, share=share, earlier=earlier, **here["how"]) as run:
                try:
                    asyncio.run(method.distill(recipe, run))
                except PartDone:
                    run.note(part_done=True)
            return
        except RunBusy:  # the worker of a node that Ray has given up may take some seconds to die
            if time.monotonic() > end:
                raise
            time.sleep(1)


__all__ = ["ask_in_parts"]
