"""Parts of a run that were asked apart, on other machines say, are brought together in one run directory.

::

    viva run RECIPE --part 1/2 --out a      viva run RECIPE --part 2/2 --out b       on any two machines
    viva merge RUN a b                      viva run RECIPE --out RUN                no call is made again

A part holds a journal. Merged, their calls lie in the journal of the run, which then finds every reply there.
"""

from __future__ import annotations

import errno
import fcntl
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vivavoce.agents.journal import Journal
from vivavoce.config import Recipe, load_recipe, what_decides
from vivavoce.errors import DataError, RunBusy, RunConflict
from vivavoce.run import Run, Share, changed_keys, first_recipe, manifest_of, share_in
from vivavoce.version import __version__

_MAKE = "make one with `viva run RECIPE --part I/N`"


@dataclass(frozen=True)
class Part:
    """A finished part of a run. No other process works in it, and its journal can be read."""

    path: Path
    manifest: dict[str, Any]
    journal: Journal


def recipe_of_part(path: Path) -> Recipe:
    """The recipe of the run that a part belongs to. Raises DataError if there is no part in that directory."""
    _need_part(path)
    return load_recipe(path / "recipe.yaml")


@contextmanager
def open_parts(recipe: Recipe, paths: Sequence[Path]) -> Iterator[list[Part]]:
    """Open all parts of a run of ``recipe``, in the order of their numbers. A part that is named twice is there once.

    Raises DataError if a part is missing, is not finished, is damaged, or is no part at all; RunConflict if one is of
    another recipe, of another version, of another number of parts, there twice in two directories, or at work.
    """
    by_number, of = dict[int, Path](), 0
    with ExitStack() as stack:
        for path in _different(paths):
            _need_part(path)
            stack.enter_context(_hold(path))
            share = _check_part(recipe, path)
            of = of or share.of
            if share.of != of:
                what = f"this is part {share}, and the parts before it are of {of}"
                raise RunConflict(what, str(path), f"merge the {of} parts of one run, and no others")
            if share.number in by_number:
                what = f"part {share} is given twice: {by_number[share.number]} and {path}"
                raise RunConflict(what, str(path), "leave one of them out")
            by_number[share.number] = path
        if missing := [str(Share(i, of)) for i in range(1, of + 1) if i not in by_number]:
            do = "make them with `viva run RECIPE --part I/N`, or name their directories too"
            raise DataError(f"these parts are missing: {', '.join(missing)}", "", do)
        yield [
            Part(path, manifest_of(path), stack.enter_context(_journal(path, Share(number, of))))
            for number, path in sorted(by_number.items())
        ]


def take_over(run: Run, parts: Sequence[Part]) -> int:
    """Copy what the parts of a run have paid for into its journal; returns how many calls were not there before.

    ``viva run`` in the directory of ``run`` then goes on as if it had asked everything itself. Taking a part over again
    changes nothing.
    """
    merged = sum(run.journal.merge(part.journal) for part in parts)
    lenders = [one for part in parts for one in part.manifest.get("lenders", ())]
    if lenders := list(dict.fromkeys([*run.manifest.get("lenders", ()), *lenders])):
        run.note(lenders=lenders)
    return merged


def _different(paths: Sequence[Path]) -> Iterator[Path]:
    """The paths, without those of a directory that was named before."""
    named = set[Path]()
    for path in paths:
        if (real := path.resolve()) not in named:
            named.add(real)
            yield path


def _need_part(path: Path) -> None:
    """Raise DataError if there is no part in a directory."""
    if not path.is_dir():
        raise DataError("there is no such directory", str(path), _MAKE)
    if share_in(path) is None:
        raise DataError("the directory is not a part of a run", str(path), _MAKE)
    if not (path / "recipe.yaml").is_file():
        raise DataError("this part has no recipe.yaml any more", str(path), f"bring it back, or {_MAKE}")


def _check_part(recipe: Recipe, path: Path) -> Share:
    """The share of the part that lies in a directory, which can be merged into a run of ``recipe``."""
    manifest, part = manifest_of(path), share_in(path)
    assert part is not None, path
    if (by := manifest.get("vivavoce")) != __version__:
        what = f"part {part} was made by vivavoce {by}, and this is {__version__}"
        raise RunConflict(what, str(path), "make and merge all parts with one version")
    made, here = what_decides(first_recipe(path, recipe) or {}), what_decides(recipe.model_dump(mode="json"))
    if changed := changed_keys(made, here):
        what = f"part {part} was made by another recipe; it differs in {', '.join(changed)}"
        raise RunConflict(what, str(path), "merge it by its own recipe, or make it again by this one")
    if not manifest.get("part_done"):
        do = f"`viva run RECIPE --part {part} --out {path}` goes on with it"
        raise DataError(f"part {part} is not finished", str(path), do)
    return part


@contextmanager
def _journal(path: Path, share: Share) -> Iterator[Journal]:
    """The journal of a part, all of whose pages can be read: found out before anything is taken over."""
    file = path / "journal.sqlite"
    do = f"bring the file back, or make the part again: viva run RECIPE --part {share} --out ANOTHER"
    try:
        journal = Journal(file, read_only=True)
    except DataError as error:
        raise DataError(f"part {share}: {error.what}", str(file), do) from error
    with journal:
        if (damage := journal.damage()) is not None:
            raise DataError(f"part {share}: the journal is damaged: {damage}", str(file), do)
        yield journal


@contextmanager
def _hold(path: Path) -> Iterator[None]:
    """Hold a part, so that no other process works in it meanwhile."""
    try:
        lock = (path / "run.lock").open("a")
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        yield  # it may only be read
        return
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as e:
            raise RunBusy("another process is at work in this part", str(path), "wait for it, or stop it") from e
        yield


__all__ = ["Part", "open_parts", "recipe_of_part", "take_over"]
