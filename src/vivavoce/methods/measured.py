"""Measured calls of a run: means by stage, agent and question, from its journal."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from statistics import fmean, stdev

import yaml

from vivavoce.agents.journal import Journal, Tally
from vivavoce.committee.rehearsal import Spend
from vivavoce.graph import graph_file
from vivavoce.run import manifest_of, part_folder

_ENOUGH = 5
"""The least number of questions for a mean."""


class Measured:
    """Means of a journal's records.

    Args:
        tallies: The journal's, by question, in the order in which questions were begun.
        finished: The number of questions that a committee has finished, by stage; None: all that were begun.
        trained: Updates and seconds of every model that was trained, by kind of training.
        busy: Calls of each stage, and the seconds during which at least one was under way.
    """

    def __init__(
        self,
        tallies: Iterable[Tally],
        finished: Mapping[str, set[str] | None] = {},
        trained: Iterable[tuple[str, int, float]] = (),
        busy: Mapping[str, tuple[int, float]] = {},
    ) -> None:
        self._busy = dict(busy)
        self._tallies, self._finished, self._trained = list(tallies), dict(finished), list(trained)
        self._questions: dict[str, dict[str, dict[str, Spend]]] = defaultdict(dict)
        self._stages: dict[tuple[str, str], Spend] = defaultdict(Spend)
        self._kinds: dict[tuple[str, str], Spend] = defaultdict(Spend)
        self._models: dict[tuple[str, str], set[str]] = defaultdict(set)
        for t in self._tallies:
            by_agent = self._questions[t.stage].setdefault(t.question, {})
            for spend in (
                by_agent.setdefault(t.agent, Spend()),
                self._stages[t.stage, t.agent],
                self._kinds[t.agent, t.kind],
            ):
                spend.calls += t.calls
                spend.prompt += t.usage.prompt
                spend.completion += t.usage.completion
                spend.cached += t.usage.cached
            self._models[t.stage, t.agent].add(t.identity)
        for stage, through in finished.items():
            if through is not None and stage in self._questions:
                self._questions[stage] = {q: by for q, by in self._questions[stage].items() if q in through}

    def per_question(self, stage: str, agent: str) -> tuple[Spend, Spend] | None:
        """Mean and standard error of an agent's calls and tokens for one question; None if too few were finished."""
        questions = list(self._questions.get(stage, {}).values())
        if len(questions) < _ENOUGH:
            return None
        rows = [by.get(agent, Spend()) for by in questions]
        columns = [[getattr(r, k) for r in rows] for k in ("calls", "prompt", "completion", "cached")]
        return Spend(*map(fmean, columns)), Spend(*(stdev(c) / len(c) ** 0.5 for c in columns))

    def per_call(self, stage: str, agent: str, several: bool) -> Spend | None:
        """The average tokens of one call; with ``several``, only if more than one model answered by that name."""
        spend, models = self._stages.get((stage, agent)), len(self._models.get((stage, agent), ()))
        if not spend or not spend.calls or (several and models < 2):
            return None
        n = spend.calls
        return Spend(1, spend.prompt / n, spend.completion / n, spend.cached / n)

    def seconds(self, stage: str, calls: float) -> float | None:
        """Seconds that so many calls of a stage take, with as many side by side as then; None if it made too few."""
        made, seconds = self._busy.get(stage, (0, 0.0))
        return None if made < _ENOUGH else seconds / made * calls

    def pace(self, kind: str) -> float | None:
        """Seconds of one update of a kind of training, on average; None if there was none."""
        runs = [(updates, seconds) for name, updates, seconds in self._trained if name == kind and updates]
        return sum(s for _, s in runs) / sum(n for n, _ in runs) if runs else None

    def of(self, stage: str) -> Measured:
        """The records of one stage of a chain, as if it had been a run of its own."""
        begin = f"{stage}/"
        tallies = [t._replace(stage=t.stage.removeprefix(begin)) for t in self._tallies if t.stage.startswith(begin)]
        finished = {k.removeprefix(begin): v for k, v in self._finished.items() if k.startswith(begin)}
        busy = {k.removeprefix(begin): v for k, v in self._busy.items() if k.startswith(begin)}
        return Measured(tallies, finished, self._trained, busy)

    def length(self, agent: str, kind: str) -> int | None:
        """Tokens of a reply of that kind, on average."""
        spend = self._kinds.get((agent, kind))
        return max(1, round(spend.completion / spend.calls)) if spend and spend.calls else None


def measured_run(path: Path) -> Measured:
    """The measured calls of the run in ``path`` so far.

    In a stage that is not finished, the questions last begun, as many as may be in flight, count as unfinished. Raises
    DataError if there is no journal.
    """
    with Journal(path / "journal.sqlite", read_only=True) as journal:
        tallies, busy = list(journal.by_question()), journal.busy()
    recipe = path / "recipe.yaml"
    in_flight = yaml.safe_load(recipe.read_text("utf-8"))["in_flight"] if recipe.is_file() else 0
    begun: dict[str, dict[str, None]] = defaultdict(dict)
    for t in tallies:
        begun[t.stage].setdefault(t.question)
    finished: dict[str, set[str] | None] = {}
    for stage, questions in begun.items():
        part, slash, own = stage.rpartition("/")  # of a chain, the stage; of any other run, nothing
        folder = part_folder(path, part) if slash else path
        room, _, name = own.partition(":")
        kept = graph_file(folder, name).relative_to(folder).as_posix()
        if room in ("debate", "review") and kept not in manifest_of(folder).get("stages", {}):
            finished[stage] = set(list(questions)[: max(0, len(questions) - in_flight)])
    return Measured(tallies, finished, list(_trainings(path)), busy)


def _trainings(path: Path) -> Iterator[tuple[str, int, float]]:
    """Kind, updates and seconds of every model that a run has trained, its parts included."""
    for begun in sorted(path.rglob("checkpoints/*/begun.json")):
        result = begun.with_name("train_result.json")
        if result.is_file() and (kind := json.loads(begun.read_text("utf-8")).get("kind")):
            done = json.loads(result.read_text("utf-8"))
            yield kind, done["steps"], done["seconds"]
