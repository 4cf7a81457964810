"""The data of the pages, as plain values: the server sends it, and an export writes it to files.

Data is asked for by a path: ``runs``, or ``run``, the key of a run, a part of it, and further words.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from vivavoce.agents.journal import Call, Journal
from vivavoce.environments.environment import Episode
from vivavoce.errors import DataError, UserError
from vivavoce.exams.examine import Judged
from vivavoce.graph.graph import graph_of
from vivavoce.records import from_json
from vivavoce.report import costs
from vivavoce.report.question import answer_facts, question_facts
from vivavoce.report.report import Debates, overview
from vivavoce.report.sources import Sources, is_run
from vivavoce.report.tables import about, table_of
from vivavoce.tasks import Task
from vivavoce.view.index import Index
from vivavoce.view.state import state

HEADS = 200
"""Questions whose beginnings are asked for at once."""


class Pages:
    """The pages of one run.

    Args:
        key: How addresses call it.
    """

    def __init__(self, key: str, run: Path, index: Index) -> None:
        self.key, self.run, self.index = key, run, index
        self._task: tuple[str, Task | None] | None = None
        self._debates = Debates()
        self._reader: threading.Thread | None = None

    def get(self, what: Sequence[str], query: Mapping[str, str] = {}) -> Any:
        """The data of a path. Raises KeyError if there is no such thing, DataError if it cannot be read."""
        match what:
            case ["state"]:
                return self.state()
            case ["overview"]:
                return self.overview()
            case ["sets"]:
                return self.sets()
            case ["set", of]:
                return self.set(of)
            case ["heads", of, block]:
                return self.index.heads(of, HEADS * int(block), HEADS * (int(block) + 1))
            case ["question", of, at]:
                return self.question(of, int(at))
            case ["asked", of, at]:
                return self.prompts_of(of, int(at))
            case ["find", of, problem]:
                return {"at": self.index.find(of, problem)}
            case ["search", of]:
                return self.index.search(of, query.get("q", ""))
            case ["training"]:
                return self.training()
            case ["costs"]:
                return self.costs()
            case ["failures"]:
                return self.failures()
        raise KeyError("/".join(what))

    def state(self) -> dict[str, Any]:
        """The progress of the run, and of the index."""
        unread = [{"file": file, "why": why} for file, why in sorted(self.index.unread.items())]
        return {
            "key": self.key,
            **state(Sources(self.run)),
            "version": self.index.version,
            "reading": self.index.doing,
            "unread": unread,
        }

    def overview(self) -> dict[str, Any]:
        """The overview; until the debates have been read, without what they did."""
        sources = Sources(self.run)
        whole = self._debates.ready(sources)
        if not whole and (self._reader is None or not self._reader.is_alive()):
            self._reader = threading.Thread(target=self._read_debates, args=(sources,), daemon=True)
            self._reader.start()
        return {"html": overview(sources, self._debates, whole), "whole": whole}

    def _read_debates(self, sources: Sources) -> None:
        try:
            self._debates.of(sources)
        except (UserError, OSError) as error:
            self.index.unread["graphs"] = str(error)

    def sets(self) -> dict[str, Any]:
        """The sets of questions, and what is known of the arms."""
        return about(Sources(self.run), self.index.sets())

    def set(self, of: str) -> dict[str, Any]:
        """A whole set: ids, groups and the letters of its columns."""
        ids, groups = self.index.names(of)
        if not ids:
            raise KeyError(of)
        return table_of(of, ids, groups, self.index.columns(of), self.index.tokens(of))

    def question(self, of: str, at: int) -> dict[str, Any]:
        """The data of one question."""
        problem = self.index.question(of, at)
        if problem is None:
            raise KeyError(f"{of}/{at}")
        content: dict[str, Any] = {
            "at": at,
            "problem": {"id": problem.id, "question": problem.question, "gold": problem.gold, "group": problem.group},
            "debates": [],
            "answers": [],
            "episodes": [],
            "rows": [],
            "calls": [],
        }
        rows: dict[bytes, dict[str, Any]] = {}
        for place in self.index.places(of, at):
            line = self.index.line(place)
            match place.kind:
                case "graph":
                    debate = question_facts(graph_of(line, place.path), self.task)
                    content["debates"].append({**place.label, **debate})
                    content["problem"] = debate["problem"]
                case "exam":
                    content["answers"].append({**place.label, **answer_facts(from_json(Judged, line))})
                case "episode":
                    content["episodes"].append({**place.label, **_episode(from_json(Episode, line))})
                case _:
                    row = rows.setdefault(line, {"in": [], "row": json.loads(line)})
                    row["in"].append(place.label["data"])
        content["rows"] = list(rows.values())
        if calls := self.index.calls(of, at):
            with Journal(self.run / "journal.sqlite", read_only=True) as journal:
                content["calls"] = [_call(call) for call in journal.rows(calls)]
        return content

    def prompts_of(self, of: str, at: int) -> list[list[str]] | None:
        """The messages that students were asked a test question with, from the journal; None if it has none."""
        problem = self.index.question(of, at)
        if problem is None:
            raise KeyError(f"{of}/{at}")
        with suppress(UserError), Journal(self.run / "journal.sqlite", read_only=True) as journal:
            call = journal.first_about(problem.id, of.replace(" ", ":", 1))
            return None if call is None else [[m["role"], m["content"]] for m in call.messages]
        return None

    @property
    def task(self) -> Task | None:
        """The task of the run, opened once for each recipe."""
        recipe = self.run / "recipe.yaml"
        made = str(recipe.stat().st_mtime_ns) if recipe.is_file() else ""
        if self._task is None or self._task[0] != made:
            self._task = made, Sources(self.run).task
        return self._task[1]

    def training(self) -> dict[str, Any]:
        """Curves of all trainings, and the fate of their rows."""
        sources = Sources(self.run)
        return {
            "curves": [
                {"arm": c.arm, "seed": c.seed, "points": _thin(c.points), "result": c.result} for c in sources.curves()
            ]
        }

    def costs(self) -> dict[str, Any]:
        """The ledger by stage and agent."""
        sources = Sources(self.run)
        spent, none = sources.costs()
        return {
            **costs.facts(spent, sources.recipe, sources.lent()),
            "none": none,
            "caps": costs.caps(sources.recipe),
            "under_way": costs.unfinished_calls(sources.under_way(), sources.recipe),
        }

    def failures(self) -> list[dict[str, Any]]:
        """Calls that failed for good, the last ones first, with the place of their question."""
        with suppress(UserError), Journal(self.run / "journal.sqlite", read_only=True) as journal:
            last = journal.rows(self.index.failures()[-500:])
            return [_call(call) for call in reversed(last) if call.reply is None]
        return []


def _thin(points: Sequence[Mapping[str, float]], most: int = 400) -> list[Mapping[str, float]]:
    every = -(-len(points) // most) or 1
    return [*points[:-1:every], *points[-1:]]


def _call(call: Call) -> dict[str, Any]:
    """A call of the journal."""
    return {
        "agent": call.agent,
        "stage": call.stage,
        "kind": str(call.tags.get("kind", "")),
        "problem": str(call.tags.get("problem", "")),
        "text": call.reply.text if call.reply else "",
        "error": str(call.error) if call.error else None,
        "messages": [[m["role"], m["content"]] for m in call.messages],
        "seconds": round(call.latency_s, 2),
        "at": call.created_at,
    }


def _episode(e: Episode) -> dict[str, Any]:
    return {
        "agent": e.agent,
        "ended": e.ended,
        "success": e.success,
        "prompt": [[m["role"], m["content"]] for m in e.prompt],
        "steps": [
            {
                "text": s.action.text,
                "calls": [[c.name, c.arguments] for c in s.action.calls],
                "malformed": s.action.malformed,
                "status": s.action.status,
                "tokens": [s.action.usage.prompt, s.action.usage.completion],
                "seen": [[m["role"], m["content"]] for m in s.observation.messages],
                "best": list(s.best),
            }
            for s in e.steps
        ],
    }


def keys_of(runs: Sequence[Path]) -> dict[str, Path]:
    """A short key for each run: its folder's name, with more of the path if two are called alike."""
    by_key: dict[str, Path] = {}
    for run in runs:
        resolved, key = run.resolve(), run.resolve().name
        for parent in resolved.parents:
            if by_key.get(key, resolved) == resolved:
                break
            key = f"{parent.name}-{key}"
        by_key[key] = resolved
    return by_key


def runs_in(paths: Sequence[Path]) -> list[Path]:
    """The run directories among ``paths`` and right inside them. Raises DataError for a path that has none."""
    folders: list[Path] = []
    for path in paths:
        if is_run(path):
            folders.append(path)
            continue
        inside = [p.parent for p in sorted(path.glob("*/manifest.json"))] if path.is_dir() else []
        if not inside:
            raise DataError(
                "there is no run", str(path), "give the folder that `viva run` made, or one that holds such"
            )
        folders += inside
    return list({p.resolve(): p for p in folders}.values())


__all__ = ["HEADS", "Pages", "keys_of", "runs_in"]
