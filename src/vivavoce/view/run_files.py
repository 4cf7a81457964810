"""The files of a run that the index reads, and the set of questions that each is about."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from vivavoce.files import file_name
from vivavoce.graph import graph_files
from vivavoce.report.sources import Sources


class RunFile(NamedTuple):
    """A file that the index reads."""

    path: str
    kind: str
    of: str | None
    label: dict[str, Any]


def files_of(run: Path) -> Iterator[RunFile]:
    """The files to read, those first that hold the text of their questions."""
    sources = Sources(run)
    files = [(name, part, _Named(name, sources, first)) for first, (name, part) in _parts(sources)]
    for kind in ("graphs", "evaluations", "episodes", "data"):
        for name, part, named in files:
            before = f"{name}/" if name else ""
            plain = sorted((part.path / kind).rglob("*.jsonl"))
            for file in graph_files(part.path).values() if kind == "graphs" else plain:
                path, stem = file.relative_to(run).as_posix(), file.name.rpartition(".jsonl")[0]
                if kind == "graphs":
                    yield RunFile(path, "graph", "test" if stem == "test" else before + stem, {"stage": before + stem})
                elif kind == "evaluations":
                    also = file.parent.name if file.parent.name != "evaluations" else ""
                    yield RunFile(path, "exam", _of_test(also), named.exam(stem))
                elif kind == "episodes":
                    of, label = named.episode(stem.rpartition("-")[0])
                    yield RunFile(path, "episode", of, label)
                else:
                    yield RunFile(path, "row", None, {"data": before + stem.replace("+", ":")})


def _parts(sources: Sources) -> Iterator[tuple[bool, tuple[str, Sources]]]:
    """The run itself, and the stages of a chain; whether each is the first that may have tested the student."""
    yield True, ("", sources)
    for i, part in enumerate(sources.parts.items()):
        yield not i, part


def _of_test(also: str) -> str:
    return f"test {also}" if also else "test"


def of_tests(of: str) -> bool:
    """Whether a set is of test questions; one of a chain's stage that is called ``testing`` is not."""
    return of == "test" or (of.startswith("test ") and "/" not in of)


class _Named:
    """The names after which the files of a run, or of a stage of a chain, are called. Names in files are those of
    :func:`~vivavoce.files.file_name`, which are told back by trying the possible ones.
    """

    def __init__(self, stage: str, whole: Sources, first: bool) -> None:
        self.stage, self.first = stage, first
        known = [arm["name"] for arm in (whole.results or {}).get("arms", ())]
        own = {arm.removeprefix(f"{stage}."): arm for arm in known}
        seeds = whole.recipe.get("seeds") or [0]
        also = ["", *(whole.recipe.get("also_test") or ())]
        self._arms = {file_name(arm): arm_name for arm, arm_name in own.items()}
        self._episodes = {
            file_name(f"test{':' if name else ''}{name} {arm}-{seed}"): (
                _of_test(name),
                {"arm": arm_name, "seed": seed},
            )
            for name in also
            for arm, arm_name in own.items()
            for seed in seeds
        }

    def exam(self, stem: str) -> dict[str, Any]:
        """The test that a file of answers is of."""
        folder, _, seed = stem.rpartition("-")
        return {"arm": self._arm(folder), "seed": int(seed) if seed.isdigit() else 0}

    def episode(self, stem: str) -> tuple[str, dict[str, Any]]:
        """The set of a file of episodes, and who plays."""
        if stem in self._episodes:
            return self._episodes[stem]
        plain = stem.partition("~")[0]
        if test := re.fullmatch(r"test(?:\+([^-]+))?-(.+)-(\d+)", plain):
            return _of_test(test[1] or ""), {"arm": self._arm(test[2]), "seed": int(test[3])}
        stage = f"{self.stage}/{plain}" if self.stage else plain
        return f"episodes of {stage}", {"stage": stage}

    def _arm(self, name: str) -> str:
        guess = name.replace("+", ":")
        shared = not self.stage or (guess == "student" and self.first)
        return self._arms.get(name, guess if shared else f"{self.stage}.{guess}")


__all__ = ["RunFile", "files_of", "of_tests"]
