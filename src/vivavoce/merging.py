"""Parts of a run that were asked apart, on other machines say, are brought together in one run directory.

::

    viva run RECIPE --part 1/2 --out a      viva run RECIPE --part 2/2 --out b       on any two machines
    viva merge RUN a b                      viva run RECIPE --out RUN                no call is made again

A part holds a journal. Merged, their calls lie in the journal of the run, which then finds every reply there.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from vivavoce.agents.journal import Journal
from vivavoce.config import what_decides
from vivavoce.errors import DataError, RunBusy, RunConflict
from vivavoce.run import Run, Share, begun_with, changed_keys, manifest_of
from vivavoce.version import __version__


def merge_parts(run: Run, parts: Sequence[Path]) -> int:
    """Take over what the parts of a run have paid for; how many calls that were not there before.

    ``viva run`` in the directory of ``run`` then goes on as if it had asked everything itself. Merging a part again
    changes nothing. Nothing is taken over unless every part can be.

    Raises DataError if a part is missing, is not finished, or is no part at all; RunConflict if one is of another
    recipe, of another version, of another number of parts, there twice in two directories, or at work.
    """
    by_number: dict[int, Path] = {}
    of = None
    for path in parts:
        part = _checked(run, path)
        of = of or part.of
        if part.of != of:
            do = f"merge the {of} parts alone"
            raise RunConflict(f"this is part {part}, and the parts before it are of {of}", str(path), do)
        if part.number in by_number and by_number[part.number].resolve() != path.resolve():
            what = f"part {part} is there twice: {by_number[part.number]} and {path}"
            raise RunConflict(what, str(path), "leave one of them out")
        by_number[part.number] = path
    if missing := [str(Share(i, of)) for i in range(1, (of or 0) + 1) if of and i not in by_number]:
        do = "make them with `viva run RECIPE --part I/N`, or name their directories too"
        raise DataError(f"these parts are missing: {', '.join(missing)}", str(run.path), do)
    merged = 0
    for _, path in sorted(by_number.items()):
        with _held(path), Journal(path / "journal.sqlite", read_only=True) as journal:
            merged += run.journal.merge(journal)
    lenders = [one for path in by_number.values() for one in manifest_of(path).get("lenders", ())]
    if lenders := list(dict.fromkeys([*run.manifest.get("lenders", ()), *lenders])):
        run.note(lenders=lenders)
    return merged


def _checked(run: Run, path: Path) -> Share:
    """The part that lies in a directory, which can be merged into the run."""
    manifest = manifest_of(path)
    if "part" not in manifest:
        raise DataError("this is no part of a run", str(path), "make one with `viva run RECIPE --part I/N`")
    part = Share(*manifest["part"])
    if (by := manifest.get("vivavoce")) != __version__:
        what = f"part {part} was made by vivavoce {by}, and this is {__version__}"
        raise RunConflict(what, str(path), "make and merge all parts with one version")
    made, here = what_decides(begun_with(path, run.recipe) or {}), what_decides(run.recipe.model_dump(mode="json"))
    if changed := changed_keys(made, here):
        what = f"part {part} was made by another recipe; it differs in {', '.join(changed)}"
        raise RunConflict(what, str(path), "merge it by its own recipe, or make it again by this one")
    if not manifest.get("part_done"):
        do = f"`viva run RECIPE --part {part} --out {path}` goes on with it"
        raise DataError(f"part {part} is not finished", str(path), do)
    return part


@contextmanager
def _held(path: Path) -> Iterator[None]:
    """Hold the parts, so that no other process works in them meanwhile."""
    with (path / "run.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as e:
            raise RunBusy("another process is at work in this part", str(path), "wait for it, or stop it") from e
        yield


__all__ = ["merge_parts"]
