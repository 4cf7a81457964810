"""The common parts of benchmarks: official files or the hub, splits, limits, subjects, and options under a question.

A benchmark's own file says which columns a row has (a function from a row to :class:`RowQuestion`), which grader reads
the answers, and where the hub keeps it. Official data has faults. Each row with a fault is kept, and ``odd`` names it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import Field, model_validator

from vivavoce.agents.variables import is_on
from vivavoce.errors import DataError, MissingDependency
from vivavoce.plugins import near
from vivavoce.records import Problem, digest
from vivavoce.tasks.answers import LETTERS
from vivavoce.tasks.graded import Graded
from vivavoce.tasks.grading import Grader
from vivavoce.tasks.limits import Limited
from vivavoce.tasks.rows import Row, read_rows
from vivavoce.tasks.samples import Sample
from vivavoce.tasks.splitting import key_of, known_split, question_id, refuse_overlap, spelling, split


class Official(Limited):
    """The source of a benchmark's questions, and how many of them: keys of every benchmark's ``Options``."""

    train_path: Path | None = Field(
        default=None, description="official file of the training questions; None: from the Hub"
    )
    test_path: Path | None = Field(default=None, description="official file of the test questions; None: from the Hub")
    path: Path | None = Field(default=None, description="the whole set, cut into train and test, in place of the two")
    train_share: float = Field(default=0.5, ge=0, le=1, description="share of a whole set that is trained on")
    hub_id: str = Field(default="", description="data set of the Hub, read if no file is given")
    hub_revision: str | None = Field(default=None, description="a commit of the hub's data set, to be repeatable")
    overlap: Literal["refuse", "leave_out"] = Field(
        default="refuse", description="what is done with a question of train that is also in test"
    )
    leave_out: Path | None = Field(
        default=None,
        description="questions of this file or folder are asked in neither split: rows with a field `question`, or "
        "graphs; such as texts that a run imports, beside which the rest is a fair test",
    )

    @model_validator(mode="after")
    def _one_source(self) -> Official:
        if self.path is not None and (self.train_path is not None or self.test_path is not None):
            raise ValueError("path excludes train_path and test_path")
        return self


class Subjects(Official):
    """The same options for a benchmark of many subjects."""

    subjects: list[str] | None = Field(default=None, min_length=1, description="these alone; None: all")


class RowQuestion(NamedTuple):
    """The question of a row, with its answers."""

    question: str
    gold: str
    """The right answer as the row has it; the grader reads it. Empty if the row has none: the question is left out."""
    group: str = ""
    solution: str = ""
    """A worked solution that states the gold answer, if the data has one."""
    others: tuple[str, ...] = ()
    """Every other answer on offer, each of them wrong."""
    odd: str = ""
    """The faults of the row itself, and how each was handled."""
    belongs: str = ""
    """The common source of several questions that are no independent observations, for example a passage. Empty:
    none.
    """

    def and_odd(self, odd: str) -> RowQuestion:
        """The same row with one more fault."""
        return self._replace(odd="; ".join(filter(None, (self.odd, odd))))


class SplitPlace(NamedTuple):
    """The place of a split on the hub: its name there, its configurations, and its data set, if that is another."""

    split: str
    configs: tuple[str | None, ...] = (None,)
    hub_id: str | None = None


_TRAIN, _TEST = SplitPlace("train"), SplitPlace("test")


class Entry(NamedTuple):
    """A problem, its row's question, and the row's place."""

    problem: Problem
    asked: RowQuestion
    where: str


@dataclass
class Benchmark(Graded):
    """Questions of official data, as a :class:`~vivavoce.tasks.Task`. Nothing is read before it is asked for."""

    name: str
    options: Official
    ask: Callable[[Row], RowQuestion]
    grader: Grader
    train: SplitPlace = _TRAIN
    test: SplitPlace = _TEST
    """The test split. If it is train's too, it is one set, cut as the options say."""
    rows: Callable[[Path], Iterable[Row]] = read_rows
    """Reads an official file."""
    cases: dict[str, Any] = field(default_factory=dict)
    """What grading needs of a row beside its gold answer, by question; ``ask`` puts it there."""
    answer_format: str = field(init=False)
    left_out: list[str] = field(init=False, default_factory=list)
    """Questions that were read and are asked in neither split: the place of each, and the reason."""
    _all: dict[str, list[Entry]] = field(init=False, default_factory=dict)
    _kept: dict[str, list[Entry]] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.answer_format = self.grader.answer_format

    def problems(self, split: str) -> list[Problem]:
        """The split in its official order; an id is the name and a hash of the question.

        A question that is in a split twice is asked twice, under ids of its own, because the official count has it
        twice. Raises DataError if the data cannot be read, a gold answer is none, or a question is in both splits
        (``overlap: leave_out`` takes it out of train).
        """
        return [entry.problem for entry in self.entries(split)]

    def cluster(self, problem: Problem) -> str:
        """The cluster of a test's problem: itself alone, or all problems about the same passage."""
        return self._belongs.get(problem.id) or problem.id

    @cached_property
    def _belongs(self) -> dict[str, str]:
        return {e.problem.id: digest(e.asked.belongs)[:12] for e in self.entries("test") if e.asked.belongs}

    def samples(self, split: str) -> Iterator[Sample]:
        """Answers that must be graded right and wrong, for every problem of the split."""
        for problem, question, where in self.entries(split):
            right = [self.grader.written(problem.gold), *([question.solution] if question.solution else [])]
            wrong = [self.grader.written(a) for a in question.others or (self.grader.perturb(problem.gold),)]
            yield Sample(problem, tuple(right), tuple(wrong), where, question.odd)

    def entries(self, split: str) -> list[Entry]:
        """The problems of a split with their rows' questions, read once."""
        known_split(split, self.name)
        o = self.options
        if split not in self._kept:
            every = self._every(split)
            if split == "train" and o.overlap == "leave_out":
                every = self._apart(every)
            self._kept[split] = o.within(every, split, lambda entry: entry.problem)
            if len(self._kept) == 2:
                refuse_overlap(self.problems("train"), self.problems("test"), self.name)
        return self._kept[split]

    def case(self, problem: Problem) -> Any:
        """The entry of ``cases`` for a problem. The rows are read first, if this process has not done so."""
        if problem.question not in self.cases:
            for split in ("train", "test"):
                self._every(split)
        return self.cases[problem.question]

    def _every(self, split: str) -> list[Entry]:
        """A split without limits."""
        if split not in self._all:
            self._all[split] = self._not_left_out(self._cut[split] if self._whole else self._read(split))
        return self._all[split]

    def _not_left_out(self, entries: list[Entry]) -> list[Entry]:
        """The entries without the questions that the options leave out."""
        path = self.options.leave_out
        if path is None:
            return entries
        if not path.exists():
            raise DataError("no such file or folder", str(path), "correct task.leave_out")
        keys = {spelling(_question(row)) for row in read_rows(path)}
        self.left_out += [f"{e.where}: stands in {path}" for e in entries if spelling(e.problem.question) in keys]
        return [e for e in entries if spelling(e.problem.question) not in keys]

    @property
    def _whole(self) -> bool:
        o = self.options
        return o.path is not None or (self.train == self.test and o.train_path is None and o.test_path is None)

    @cached_property
    def _cut(self) -> dict[str, list[Entry]]:
        o, every = self.options, self._read("test")
        # a question that appears twice goes to one side
        keys = list(dict.fromkeys(key_of(entry.problem.question) for entry in every))
        train, _ = split(keys, o.train_share, o.seed)
        cut: dict[str, list[Entry]] = {"train": [], "test": []}
        for entry in every:
            cut["train" if key_of(entry.problem.question) in train else "test"].append(entry)
        return cut

    def _apart(self, train: list[Entry]) -> list[Entry]:
        """Train without the questions of test, whatever the limits say."""
        tested = {key_of(entry.problem.question) for entry in self._every("test")}
        shared = [entry.where for entry in train if key_of(entry.problem.question) in tested]
        self.left_out += [f"{where}: a question of train that stands in test, too" for where in shared]
        return [entry for entry in train if entry.where not in shared]

    def _read(self, split: str) -> list[Entry]:
        entries, seen = list[Entry](), dict[str, int]()
        for row in self._rows(split):
            question = self.ask(row)
            if not question.gold and self.grader.name != "judge":
                self.left_out.append(f"{row.where}: {question.odd}")
                continue
            gold = self.grader.canonical(question.gold)
            if gold is None:
                raise DataError(f"no {self.grader.name} in the gold answer {question.gold[:80]!r}", row.where)
            id_ = question_id(self.name, question.question)
            seen[id_] = times = seen.get(id_, 0) + 1
            if times > 1:
                id_, question = f"{id_}-{times}", question.and_odd("stands there before: asked again")
            entries.append(Entry(Problem(id_, question.question, gold, question.group), question, row.where))
        return self._of_subjects(entries)

    def _of_subjects(self, entries: list[Entry]) -> list[Entry]:
        subjects = self.options.subjects if isinstance(self.options, Subjects) else None
        if subjects is None:
            return entries
        known = {_plain(entry.problem.group): entry.problem.group for entry in entries}
        for subject in subjects:
            if _plain(subject) not in known:
                hint = near(subject, sorted(known.values()))
                raise DataError(f"no question of the subject {subject!r}{hint}", self.name, "correct task.subjects")
        wanted = {_plain(subject) for subject in subjects}
        return [entry for entry in entries if _plain(entry.problem.group) in wanted]

    def _rows(self, split: str) -> Iterable[Row]:
        o = self.options
        path = o.path or (o.train_path if split == "train" else o.test_path)
        if path is not None:
            return self.rows(path)
        if not o.hub_id:
            raise DataError(f"no file of the {split} split is given", self.name, f"set path, or {split}_path")
        return _hub_rows(self.name, o, self.train if split == "train" else self.test, split)


def _question(row: Row) -> str:
    """The question of a row, or of a graph."""
    problem = row.value.get("problem")
    return Row(f"{row.where}, problem", problem).text("question") if isinstance(problem, dict) else row.text("question")


def _plain(subject: str) -> str:
    return subject.replace("_", " ").casefold()


def _hub_rows(name: str, o: Official, part: SplitPlace, split: str) -> Iterator[Row]:
    try:
        from datasets import load_dataset, load_from_disk  # heavy, and needed only where no file is given
    except ImportError as error:
        raise MissingDependency(
            f"{name} without a path is downloaded with the package datasets, which is not installed",
            "task",
            "pip install 'vivavoce[train]', or set train_path and test_path",
        ) from error
    hub_id, revision = (part.hub_id, None) if part.hub_id else (o.hub_id, o.hub_revision)
    for config in part.configs:
        try:
            if any((Path(hub_id) / name).is_file() for name in ("dataset_dict.json", "state.json")):
                saved: Any = load_from_disk(hub_id)  # what `save_to_disk` wrote
                rows: Any = saved[part.split] if isinstance(saved, dict) else saved
            else:
                rows = load_dataset(hub_id, config, split=part.split, revision=revision)
        except (OSError, ValueError, RuntimeError, KeyError) as error:  # offline, unknown data set, split or revision
            offline = [key for key in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE") if is_on(key)]
            do = f"unset {offline[0]}, with which nothing is downloaded" if offline else "check the network"
            what = f"cannot load {hub_id} from the hub: {error}"
            raise DataError(what, f"{name}, {split}", f"{do}, or set {split}_path") from error
        for n, row in enumerate(rows, 1):
            yield Row(f"{hub_id}, {config or 'default'}, {part.split}, row {n}", row)


def multiple_choice(
    row: Row, question: str, options: Sequence[object], gold: int | str, group: str = ""
) -> RowQuestion:
    """A question with its options lettered below it; ``gold`` is the index of the right one, or its letter.

    An option that reads like one before it is not offered again: both would be right, and only one graded so.
    """
    texts = [str(option).strip() for option in options]
    index = LETTERS.find(gold.strip().upper()) if isinstance(gold, str) and len(gold.strip()) == 1 else gold
    if not isinstance(index, int) or not 0 <= index < len(texts):
        raise DataError(f"the gold answer {gold!r} is none of {len(texts)} options", row.where)
    offered = list(dict.fromkeys(texts))
    if "" in offered or not 2 <= len(offered) <= len(LETTERS):
        raise DataError(f"no 2 to {len(LETTERS)} options that hold text: {texts}", row.where)
    right = LETTERS[offered.index(texts[index])]
    others = tuple(letter for letter in LETTERS[: len(offered)] if letter != right)
    odd = "" if len(offered) == len(texts) else "two options read the same: offered once"
    return RowQuestion(with_letters(question, offered), right, group, others=others, odd=odd)


def with_letters(question: str, options: Sequence[str]) -> str:
    """The question with ``A. …``, ``B. …`` below it."""
    return "\n".join([question.rstrip(), *(f"{a}. {option}" for a, option in zip(LETTERS, options, strict=False))])


__all__ = ["Benchmark", "Official", "RowQuestion", "SplitPlace", "Subjects", "multiple_choice", "with_letters"]
