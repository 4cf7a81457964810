"""A run is a directory: resolved recipe, manifest, journal, graphs, rows, checkpoints, evaluations, report.

::

    runs/demo/
      recipe.yaml      as resolved            manifest.json   versions, seeds, times, fingerprints of stages
      journal.sqlite   every model call       graphs/*.jsonl.gz  data/*.jsonl  checkpoints/*/  evaluations/*.jsonl
      results.json     the table              report.html     the same for people
      progress.json    what is counted now    view.sqlite     the index of `viva view`, made when it is looked at
      stages/*/        of a chain: each stage, as a run of its own but for the journal

Every stage writes its result whole, under a fingerprint of what it depends on. Started again, a run does only what is
missing: finished stages are read back, calls come from the journal, training goes on from its last checkpoint.
"""

from __future__ import annotations

import fcntl
import importlib.metadata
import json
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import yaml
from pydantic import ValidationError

from vivavoce.agents.budget import money
from vivavoce.agents.journal import Answered, Journal
from vivavoce.agents.store import EarlierRuns, Replies, Store
from vivavoce.config import Recipe, what_decides
from vivavoce.errors import DataError, RecipeError, RunBusy, RunConflict, told_once
from vivavoce.files import file_name, read_records
from vivavoce.graph import Graph
from vivavoce.progress import bar, say
from vivavoce.records import digest, to_json
from vivavoce.trackers import RunDescription, Trackers, open_trackers
from vivavoce.version import __version__

T = TypeVar("T")
_REPORTED = ("torch", "transformers", "peft", "accelerate", "datasets", "aiohttp", "pydantic")


_NOTE_S = 60
"""Seconds after which the time of a session is noted again, so that a kill loses no more of it."""
_SHOWN_S = 1.0
"""Seconds between two notes of how far a count has come."""


@dataclass(frozen=True)
class Share:
    """One of several equal parts of a run's questions, asked in a run directory of its own: part ``number`` of ``of``.

    Question k, counted from 0, belongs to part k mod ``of`` + 1, so that all parts get similar questions.
    """

    number: int
    of: int

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    def take(self, questions: Sequence[T]) -> list[T]:
        """The questions of this part, in their order."""
        return list(questions[self.number - 1 :: self.of])


def share_of(text: str) -> Share:
    """The part that a text such as ``2/8`` names. Raises RecipeError if it names none."""
    number, _, of = text.partition("/")
    if not (number.isdecimal() and of.isdecimal() and 1 <= int(number) <= int(of)):
        raise RecipeError(f"`{text}` names no part", "--part", "write I/N with I from 1 to N, such as 2/8")
    return Share(int(number), int(of))


def share_in(path: Path) -> Share | None:
    """The part that a run directory holds; None if it holds a whole run, or nothing yet."""
    part = manifest_of(path).get("part")
    return Share(*part) if part else None


class PartDone(Exception):
    """A part of a run has asked everything that can be asked before the parts are merged."""


@dataclass
class Standing:
    """The progress of a run: its recipe, and what it has finished."""

    title: str
    total: int
    done: int = 0


class Run:
    """An open run directory. Made by :func:`open_run`; its journal is the one choke point of all model calls."""

    def __init__(
        self,
        path: Path,
        recipe: Recipe,
        journal: Journal,
        whole: Run | None = None,
        trackers: Trackers = Trackers(),  # noqa: B008 (empty)
        share: Share | None = None,
    ) -> None:
        self._trackers, self.share = trackers, share
        self.path, self.recipe, self.journal, self._whole = path, recipe, journal, whole or self
        self.manifest = manifest_of(path)
        self.standing: Standing | None = None
        self._counted: dict[str, Standing] = {}
        self._shown = 0.0
        self._before: float = self.manifest.get("seconds", 0.0)
        self._begun = self._noted = time.monotonic()

    @property
    def seconds(self) -> float:
        """Seconds that the run has taken by now, over all its sessions. Of a killed session the last noted seconds
        count.
        """
        return self._before + time.monotonic() - self._begun

    def part(self, name: str, recipe: Recipe) -> Run:
        """A stage of this run, as a run of its own in ``stages/NAME``, by a recipe of its own.

        Its calls go to the journal of the whole; their stages begin with ``NAME/`` there.
        """
        path = part_folder(self.path, name)
        part = Run(path, recipe, cast(Journal, _Under(self.journal, name)), self._whole, share=self.share)
        _write_recipe(part)
        part.note(started=self.manifest["started"])
        return part

    def track(self, series: str, figures: Mapping[str, Any], step: int) -> None:
        """Tell the recipe's trackers figures of one step of a series. A stage's series begin with its name."""
        whole = self._whole
        within = "" if whole is self else f"{self.path.name}/"
        whole._trackers.log(f"{within}{series}", figures, step)

    @contextmanager
    def counting(self, title: str, total: int) -> Iterator[Callable[..., None]]:
        """A progress bar with what is spent by now, and what will be at its end. Call it with the number of finished
        items.

        The forecast uses the cost of the finished items, if it is told (``cost``): many items are under way at once,
        and what is spent on those by now says little.
        """
        at = self._whole.standing = Standing(title, total)
        self._whole._counted[title] = at
        self._whole._show(force=True)
        ledger = self.journal.ledger
        before = ledger.run.money
        with bar(title, total) as advance:
            finished = 0.0

            def count(n: int = 1, cost: float | None = None) -> None:
                nonlocal finished
                at.done += n
                finished += cost or 0.0
                self._whole._show()
                if time.monotonic() - self._noted > _NOTE_S:
                    self.note()
                spent, note = ledger.run.money, ledger.summary
                if (each := finished / at.done or (spent - before) / at.done) and 0.05 * total < at.done < total:
                    remaining = each * (total - at.done)
                    begun = max(0.0, spent - before - (finished or spent - before))  # on those that are under way
                    note += f", about {money(spent + remaining - min(begun, remaining))} after this"
                advance(n, note)
                if at.done % max(1, total // 50) == 0 or at.done == total:
                    self.track("spend", {"money": spent, "tokens": ledger.run.tokens}, ledger.run.calls)

            try:
                with told_once():
                    yield count
            finally:
                self._whole._counted.pop(title, None)
                self._whole._show(force=True)

    def cost(self, graph: Graph) -> float:
        """The cost of a graph's calls, at the prices of the recipe."""
        return sum(self.journal.ledger.cost(n.agent, n.usage) for n in graph.nodes)

    def _show(self, force: bool = False) -> None:
        """Write the current counts to a file for a viewer, once a second at most."""
        if not force and time.monotonic() - self._shown < _SHOWN_S:
            return
        self._shown = time.monotonic()
        now = [{"title": one.title, "total": one.total, "done": one.done} for one in self._counted.values()]
        self.write(self.path / "progress.json", json.dumps(now, ensure_ascii=False) + "\n")

    def cached(self, path: Path, depends: Any) -> Path | None:
        """``path``, a file of this run, if it is there and was made from equal dependencies."""
        name = path.relative_to(self.path).as_posix()
        return path if path.exists() and self._stages.get(name) == digest(depends) else None

    def keep(self, path: Path, depends: Any, write: Callable[[Path], object]) -> None:
        """Make a file of this run, whole or not at all, and remember what it depends on."""
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(path.name + ".part")
        write(part)
        part.replace(path)
        self._record(path.relative_to(self.path).as_posix(), depends)

    def kept_rows(self, path: Path, depends: Any, kind: type[T]) -> list[T] | None:
        """The records of a file that :meth:`keep_rows` wrote for equal dependencies, or None."""
        if self.cached(path, depends) is None:
            return None
        return list(read_records(path, kind))

    def keep_rows(self, path: Path, depends: Any, rows: Iterable[Any]) -> None:
        """Write records, one a line."""
        text = "".join(to_json(row) + "\n" for row in rows)
        self.keep(path, depends, lambda part: part.write_text(text, "utf-8"))

    def folder(self, name: str, depends: Any, **facts: Any) -> Path | None:
        """The folder ``checkpoints/<name>`` if it still has to be made; None if it is finished for ``depends``.

        A folder that was begun for the same dependencies is left as it is, so that training goes on from its
        checkpoints; one of other dependencies is cleared. Call :meth:`finished` when it is done. ``facts`` are noted in
        its ``begun.json``.
        """
        path = self.path / "checkpoints" / name
        if path.exists() and self._stages.get(f"checkpoints/{name}") == digest(depends):
            return None
        begun = path / "begun.json"
        if path.exists() and (_read_json(begun) or {}).get("depends") != digest(depends):
            shutil.rmtree(path)
        path.mkdir(parents=True, exist_ok=True)
        self.write(begun, json.dumps({"depends": digest(depends), **facts}))
        return path

    def finished(self, name: str, depends: Any) -> None:
        """Note that the folder ``checkpoints/<name>`` is whole."""
        self._record(f"checkpoints/{name}", depends)

    def write(self, path: Path, text: str) -> None:
        """Write a file whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(path.name + ".part")
        part.write_text(text, "utf-8")
        part.replace(path)

    def note(self, **facts: Any) -> None:
        """Put facts into the manifest."""
        self._noted = time.monotonic()
        self.manifest.update(facts, seconds=round(self.seconds, 1))
        self.write(self.path / "manifest.json", json.dumps(self.manifest, indent=2, ensure_ascii=False) + "\n")

    @property
    def day(self) -> str:
        """The day on which the run was begun, as 2026-07-31."""
        return str(self.manifest["started"])[:10]

    @property
    def _stages(self) -> dict[str, str]:
        return self.manifest.get("stages", {})

    def _record(self, name: str, depends: Any) -> None:
        self.note(stages={**self._stages, name: digest(depends)})


class _Under:
    """A journal in which the stages of a part of a run begin with the part's name. All else is that of the whole."""

    def __init__(self, journal: Journal, name: str) -> None:
        self._journal, self._name = journal, name

    async def call(self, *args: Any, stage: str = "", **tags: Any) -> Answered:
        return await self._journal.call(*args, stage=f"{self._name}/{stage}", **tags)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._journal, name)


def manifest_of(path: Path) -> dict[str, Any]:
    """The manifest of a run directory: versions, times, finished stages. Empty if nothing has begun there."""
    return _read_json(path / "manifest.json") or {}


def part_folder(path: Path, name: str) -> Path:
    """The folder of a part of the run in ``path``."""
    return path / "stages" / file_name(name)


def _write_recipe(run: Run) -> None:
    plain = run.recipe.model_dump(mode="json")
    run.write(run.path / "recipe.yaml", yaml.safe_dump(plain, sort_keys=False, allow_unicode=True))


@contextmanager
def open_run(
    path: Path,
    recipe: Recipe,
    *,
    update: bool = False,
    retry_failed: bool = False,
    store: Path | None = None,
    earlier: Sequence[Path] = (),
    share: Share | None = None,
) -> Iterator[Run]:
    """Open a run directory for ``recipe``, new or begun; only one process may at a time.

    ``store`` is a file of replies that all runs of a workspace share (:class:`vivavoce.agents.store.Store`), or the
    folder of an earlier run, whose replies are free. Without it those of ``earlier`` runs are, as far as they can be
    read. With ``share`` the run asks only this part of its questions.

    Raises RunConflict if another process has it open, or if it was begun with another recipe and ``update`` is false:
    the error names the keys that differ. With ``update``, everything that depends on those keys is done again and the
    rest is kept. Paid calls are never paid again.
    """
    path.mkdir(parents=True, exist_ok=True)
    with (path / "run.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as e:
            raise RunBusy("another process is at work in this run", str(path), "wait for it, or stop it") from e
        lock.truncate(0)
        lock.write(platform.node())  # other machines that see the disk must not read the journal meanwhile
        lock.flush()
        new = recipe.model_dump(mode="json")
        old = first_recipe(path, recipe) or new
        both = what_decides(old), what_decides(new)
        if changed_keys(*_unheard(path, *both)):
            changed = changed_keys(*both)
            if not update:
                do = "choose another --out (beside this run, where what it has paid for is free), or give --update to "
                do += "redo what depends on these keys"
                if as_before := [
                    f"--set {key}={_EARLIER[key.rpartition('.')[2]]}" for key in changed if _unsaid(key, new)
                ]:
                    do += f"; {' '.join(as_before)} goes on as the version did that began the run"
                raise RunConflict(
                    f"the run was begun with another recipe; it differs in {told_changes(*both)}", str(path), do
                )
            say(f"recipe changed in {told_changes(*both)}: what depends on it is done again")
        _need_share(path, share)
        ledger = recipe.ledger(share.of if share else 1)
        trackers = open_trackers(recipe.track, RunDescription(path, new))

        def lent(lender: Path) -> None:
            lenders = run.manifest.get("lenders", [])
            if str(lender) not in lenders:
                run.note(lenders=[*lenders, str(lender)])
            say(
                f"{lender} has paid for some of these calls: its replies are used and not paid again (--alone "
                "asks anew)"
            )

        with (
            _replies(store, earlier, lent) as below,
            Journal(path / "journal.sqlite", retry_failed=retry_failed, ledger=ledger, store=below) as journal,
        ):
            run = Run(path, recipe, journal, trackers=trackers, share=share)
            _write_recipe(run)
            run.note(
                vivavoce=__version__,
                recipe=digest(new),
                reads=_READS,
                seed=recipe.seed,
                python=sys.version.split()[0],
                machine=platform.platform(),
                packages=_versions(),
                git=_commit(),
                **({"part": [share.number, share.of], "part_done": False} if share else {}),
                started=run.manifest.get("started", time.strftime("%Y-%m-%dT%H:%M:%S%z")),
            )
            try:
                yield run
            finally:
                trackers.close()
                run.note()


@contextmanager
def _replies(store: Path | None, earlier: Sequence[Path], lent: Callable[[Path], object]) -> Iterator[Replies | None]:
    """The replies of other runs that a run may take."""
    if store is None and not earlier:
        yield None
    elif store is None:
        with closing(EarlierRuns(earlier, lent, say)) as runs:
            yield runs
    else:
        with closing(EarlierRuns([store], lent) if store.is_dir() else Store(store, failed=say)) as replies:
            yield replies


def _need_share(path: Path, share: Share | None) -> None:
    """Raise RunConflict if the directory was begun as a whole run and is to be a part now, or as another part."""
    begun = share_in(path)
    if not manifest_of(path) or begun == share:
        return
    holds, wanted = (f"part {one}" if one else "a whole run" for one in (begun, share))
    do = f"give --part {begun}, or choose another --out" if begun else "choose another --out for the part"
    raise RunConflict(f"the directory holds {holds}, not {wanted}", str(path), do)


_READS = 2
"""The version of reading a task's options. 2: a limit draws questions, and a user's `id` is used. 1: neither."""
_EARLIER = {"limit_takes": "first", "id_field": "null"}
"""The options of tasks, new in 2, that read as 1 did."""


def first_recipe(path: Path, recipe: Recipe) -> dict[str, Any] | None:
    """The recipe that a run was begun with. Keys that came with a later version have their defaults.

    Options of tasks whose meaning has changed keep their old meaning, so that a run goes on with the questions that it
    has paid for, or says that it cannot.
    """
    if not (path / "recipe.yaml").exists():
        return None
    old = yaml.safe_load((path / "recipe.yaml").read_text("utf-8"))
    with suppress(ValidationError):
        old = type(recipe).model_validate(old).model_dump(mode="json")
    manifest = manifest_of(path)
    if manifest and manifest.get("reads", 1) < 2:
        for task in (old.get("task", {}), *old.get("also_test", {}).values()):
            if task.get("train_limit") or task.get("test_limit"):
                task.setdefault("limit_takes", "first")
            if task.get("name") == "jsonl":
                task.setdefault("id_field", None)
    return old


def _unsaid(key: str, recipe: dict[str, Any]) -> bool:
    """Whether ``key`` is an option whose meaning has changed, and ``recipe`` leaves it to its default."""
    *path, last = key.split(".")
    at: Any = recipe
    for step in path:
        at = at.get(step, {}) if isinstance(at, dict) else {}
    return last in _EARLIER and last not in at


_ABSENT = object()


def _unheard(path: Path, old: dict[str, Any], new: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Both recipes without the teachers that have answered nothing yet, in a run that has finished nothing yet; nothing
    of them if no agent has answered.

    What is left out may be corrected, because nothing depends on it yet: for example a model that the endpoint does not
    know, or the student of a run that was refused.
    """
    if manifest_of(path).get("stages") or not (path / "journal.sqlite").exists():
        return old, new
    with Journal(path / "journal.sqlite", read_only=True) as journal:
        answered = {cost.agent for cost in journal.costs() if cost.calls > cost.failures}
    if not answered:
        return {}, {}

    def known(recipe: dict[str, Any]) -> dict[str, Any]:
        return {**recipe, "teachers": [t for t in recipe.get("teachers", ()) if t.get("name") in answered]}

    return known(old), known(new)


def changed_keys(old: Any, new: Any, at: str = "") -> list[str]:
    """Dotted names of the keys in which two recipes differ. A key that one of them lacks differs from null."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = list(dict.fromkeys([*old, *new]))
        pairs = [(old.get(k, _ABSENT), new.get(k, _ABSENT), f"{at}.{k}" if at else k) for k in keys]
        return [changed for pair in pairs for changed in changed_keys(*pair)]
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        return [c for i, (o, n) in enumerate(zip(old, new, strict=True)) for c in changed_keys(o, n, f"{at}.{i}")]
    return [] if old == new else [at]


def told_changes(old: Any, new: Any) -> str:
    """The keys in which two recipes differ, each with its old and its new value: ``seed (0, now 1)``."""

    def value(of: Any, key: str) -> str:
        for step in key.split("."):
            if isinstance(of, dict) and step in of:
                of = of[step]
            elif isinstance(of, list) and step.isdecimal() and int(step) < len(of):
                of = of[int(step)]
            else:
                return "not set"
        text = yaml.safe_dump(of, default_flow_style=True, width=10_000, allow_unicode=True)
        text = text.removesuffix("...\n").strip()
        return text if len(text) <= 60 else f"{text[:57]}…"

    return ", ".join(f"{key} ({value(old, key)}, now {value(new, key)})" for key in changed_keys(old, new))


def _versions() -> dict[str, str]:
    versions = {}
    for package in _REPORTED:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def _commit() -> str | None:
    """The commit of the folder that the run was started in, marked if files differ from it."""
    try:
        out = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"],
            capture_output=True,
            text=True,
            timeout=5,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return out.stdout.strip()


def _read_json(path: Path) -> Any:
    if not path.exists():
        return None
    try:
        return json.loads(path.read_text("utf-8"))
    except ValueError as error:
        do = "bring the file back from a copy, or choose another folder"
        raise DataError(f"the file is damaged: {error}", str(path), do) from error
