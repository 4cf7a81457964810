"""The released files of peer review (arXiv:2410.03663) as graphs: mistakes, feedback, rationales, raw scores.

Three lists of records, one file each, with ``_false_``, ``_feedback_`` and ``_rationale_`` in their names::

    {"id": 84, "question": "…", "gold_answer": "19", "student_wrong_pred": "…", "student_wrong_final_answer": "7"}
    … and for every teacher T    "T_feedback": "…"          "T_rationale": ["…", 5, 1],   "correct_rationale": ["…"]

The first record names the teachers. Behind a rationale stand the scores of the others, in the order of the teachers.
Of every text only what was said is kept, and not what its author thought before it (``<think>``). What a reviewer wrote
is lost, so that a review's text is its raw score; which texts were accepted is kept as verdicts
of ``RELEASE``, to be held against what our own rules make of the scores.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from vivavoce.agents.replies import spoken
from vivavoce.committee.scores import on_scale
from vivavoce.data.acceptance import RELEASED, decide, rationales, readable
from vivavoce.data.bounds import figure, figures
from vivavoce.errors import DataError
from vivavoce.graph import Graph
from vivavoce.records import Grade, Node, Problem, node
from vivavoce.tasks.answers import LETTERS
from vivavoce.tasks.benchmark import multiple_choice
from vivavoce.tasks.grading import GRADERS, Grader
from vivavoce.tasks.rows import Row

RELEASE = "release"
STUDENT = "student"
_KINDS = ("false", "feedback", "rationale")
_SHARED = ("question", "gold_answer", "student_wrong_pred", "student_wrong_final_answer", "context", "options")


def read_fair(source: Path | Sequence[Path]) -> list[Graph]:
    """One graph for each mistake, from the folder that holds the three files of one data set, or from the three files.

    A problem's id is the data set's name in the file and the record's number (``svamp/84``). The student's answer has
    the final answer that the release read (its stored text may be cut short); rationales are graded as they stand.

    Raises DataError, with file and record, if a file, record or field is missing or ill-typed, if the files contradict
    each other, if a gold answer is of an unknown kind, or if a text was accepted that no teacher wrote.
    """
    paths = _files(source)
    records = {kind: _records(path) for kind, path in paths.items()}
    name = paths["false"].name.partition("_false_")[0].rpartition("_")[2]
    teachers: list[str] = []
    graphs = []
    for id_, mistake in records["false"].items():
        feedback, rationale = (_same(records[kind], id_, mistake, paths[kind]) for kind in ("feedback", "rationale"))
        teachers = teachers or _teachers(rationale)
        graphs.append(_graph(f"{name}/{id_}", mistake, feedback, rationale, teachers))
    for kind in ("feedback", "rationale"):
        if extra := records[kind].keys() - records["false"].keys():
            where = records[kind][min(extra)].where
            raise DataError(
                f"record {min(extra)} is not among the mistakes of {paths['false'].name}",
                where,
                "check that the files belong to one run",
            )
    return graphs


def _files(source: Path | Sequence[Path]) -> dict[str, Path]:
    paths = [source] if isinstance(source, Path) else list(source)
    if missing := [path for path in paths if not path.exists()]:
        raise DataError("no such file or folder", str(missing[0]), "give the folder of one released data set")
    files = [file for path in paths for file in (sorted(path.glob("*.json")) if path.is_dir() else [path])]
    where = ", ".join(map(str, paths))
    by_kind = {kind: [file for file in files if f"_{kind}_" in file.name] for kind in _KINDS}
    for kind, named in by_kind.items():
        if len(named) != 1:
            what = f"no file with _{kind}_ in its name" if not named else f"several files with _{kind}_ in their names"
            raise DataError(what, where, "give the folder of one released data set, or its three files")
    return {kind: named[0] for kind, named in by_kind.items()}


def _records(path: Path) -> dict[int, Row]:
    try:
        listed = json.loads(path.read_text("utf-8-sig"))
    except OSError as e:
        raise DataError(f"cannot read the file: {e.strerror}", str(path), "check the path") from e
    except (ValueError, RecursionError) as e:
        raise DataError(f"not JSON: {e}", str(path), "check whether the file was cut or edited") from e
    if not isinstance(listed, list) or not listed:
        raise DataError("not a list of records", str(path), "the released files are lists of objects")
    rows = dict[int, Row]()
    for i, value in enumerate(listed, 1):
        where = f"{path}, record {i}"
        if not isinstance(value, dict):
            raise DataError(f"a {type(value).__name__} is not an object", where)
        id_ = value.get("id")
        if not isinstance(id_, int) or isinstance(id_, bool):
            raise DataError(f"the id is {id_!r}, not a whole number", where)
        if id_ in rows:
            raise DataError(f"id {id_} appears twice", f"{where}, and before it {rows[id_].where}")
        rows[id_] = Row(where, value)
    return rows


def _same(records: Mapping[int, Row], id_: int, mistake: Row, path: Path) -> Row:
    if id_ not in records:
        raise DataError(f"record {id_} is missing", str(path), f"it stands in {mistake.where}")
    row = records[id_]
    for field in _SHARED:
        if row.value.get(field) != mistake.value.get(field):
            raise DataError(f"{field!r} differs between the files", f"{row.where}, and {mistake.where}")
    return row


def _teachers(row: Row) -> list[str]:
    fields = [key.removesuffix("_rationale") for key in row.value if key.endswith("_rationale")]
    teachers = [name for name in fields if name and name != "correct"]
    if not teachers:
        raise DataError("no field like 'gpt_rationale'", row.where, "the suffix _rationale tells the teachers")
    return teachers


class _Asked(NamedTuple):
    """The question of a record, its right answer, and the grader that reads answers to it."""

    question: str
    gold: str
    grader: Grader
    options: tuple[str, ...] = ()
    """The texts of lettered options, in order."""

    def grade(self, text: str) -> Grade:
        """A text by the task's grader; of a choice that names no letter, by the option whose text it gives, as the
        release reads it: between the words Answer and Rationale, or anywhere if only one option stands there."""
        grade = self.grader.grade(self.gold, text)
        if grade.answer is not None or not self.options:
            return grade
        part = re.search(r"answer\s*:(.*?)(?:rationale\s*:|\Z)", text, re.IGNORECASE | re.DOTALL)
        letter = self.letter(part[1].strip() if part else text, part is None)
        return grade if letter is None else self.grader.grade(self.gold, letter)

    def letter(self, text: str, alone: bool = False) -> str | None:
        """The answer line of the option whose text stands in ``text``: the first of them, or the one that is alone."""
        words = " ".join(text.split()).casefold()
        there = [i for i, option in enumerate(self.options) if " ".join(option.split()).casefold() in words]
        return self.grader.written(LETTERS[there[0]]) if there and (len(there) == 1 or not alone) else None


_TRUTH = re.compile(r"\s*(true|false|yes|no)\b", re.IGNORECASE)


def _question_of(row: Row) -> _Asked:
    """The question of a record: a number (GSM8K, SVAMP), true or false (StrategyQA: ``True.`` and facts behind it), or
    one of several options (LogiQA: the gold answer is an option's text, its letter, or its index from 0)."""
    question, gold_text = row.text("question"), row.text("gold_answer").strip()
    if "options" in row.value:
        options = row.value["options"]
        if not isinstance(options, list) or not all(isinstance(one, str) and one.strip() for one in options):
            raise DataError("field 'options' is not a list of texts", row.where)
        same = [i for i, one in enumerate(options) if one.strip().casefold() == gold_text.casefold()]
        gold: int | str = same[0] if same else int(gold_text) if gold_text.isdecimal() else gold_text
        made = multiple_choice(row, f"{row.text('context').strip()}\n{question.strip()}", options, gold)
        shown = tuple(dict.fromkeys(one.strip() for one in options))
        return _Asked(made.question, made.gold, GRADERS["choice"], shown)
    if truth := _TRUTH.match(gold_text):
        return _Asked(question, "yes" if truth[1].lower() in ("true", "yes") else "no", GRADERS["yes_no"])
    number = GRADERS["number"].read_gold(gold_text)
    if number is None:
        what = f"the gold answer {gold_text[:60]!r} is neither a number nor true or false, and there are no options"
        raise DataError(what, row.where, "give files of GSM8K, SVAMP, StrategyQA or LogiQA")
    return _Asked(question, number, GRADERS["number"])


def _graph(id_: str, mistake: Row, feedback: Row, rationale: Row, teachers: Sequence[str]) -> Graph:
    prompt = _question_of(mistake)
    problem = Problem(id_, prompt.question, prompt.gold)
    prediction, stored = (_string(mistake, field) for field in ("student_wrong_pred", "student_wrong_final_answer"))
    grade = prompt.grade(prompt.letter(stored) or stored)
    exam = node(
        "answer",
        id_,
        STUDENT,
        0,
        prediction,
        answer=grade.answer,
        correct=grade.correct,
        status=grade.status if prediction.strip() else "empty",
    )
    nodes = [exam]
    for teacher in teachers:
        text = _text_of(feedback, f"{teacher}_feedback")
        nodes.append(_node("critique", id_, teacher, text, saw_gold=True, parents=(exam.id,), target=exam.id))
    scored = {teacher: _rationale_of(rationale, teacher, teachers) for teacher in teachers}
    for teacher, (text, _) in scored.items():
        grade = prompt.grade(text or "")
        rest = {} if not text else {"answer": grade.answer, "correct": grade.correct, "status": grade.status}
        nodes.append(_node("rationale", id_, teacher, text, **rest))
    written = {n.agent: n for n in nodes if n.kind == "rationale"}
    for teacher, (_, scores) in scored.items():
        about = written[teacher].id
        for reviewer, raw in scores.items():
            score = on_scale(raw)
            rest = {"score": score.value, "status": score.status}
            nodes.append(
                _node("review", id_, reviewer, str(raw), saw_gold=True, parents=(about,), target=about, **rest)
            )
    nodes += _verdicts(rationale, id_, written.values())
    return Graph(problem, tuple(nodes), "recorded")


def _node(kind: Any, problem: str, agent: str, text: str | None, **rest: Any) -> Node:
    """A node; null, which the released code writes for a call that failed, becomes a failed call."""
    if text is None:
        return node(kind, problem, agent, 0, "", status="error", error="null in the released file", **rest)
    rest.setdefault("status", "ok" if text.strip() else "empty")
    return node(kind, problem, agent, 0, text, **rest)


def _rationale_of(row: Row, teacher: str, teachers: Sequence[str]) -> tuple[str | None, dict[str, int]]:
    """A rationale and its raw scores by reviewer: the other teachers, in their order."""
    field, others = f"{teacher}_rationale", [name for name in teachers if name != teacher]
    entry = row.value.get(field)
    if not isinstance(entry, list) or len(entry) != 1 + len(others):
        raise DataError(f"field {field!r} is not a list of a text and {len(others)} scores", row.where)
    text, *scores = entry
    if not (text is None or isinstance(text, str)):
        raise DataError(f"the text of {field!r} is {text!r}", row.where)
    text = None if text is None else spoken(text)
    for score in scores:
        if not isinstance(score, int) or isinstance(score, bool):
            raise DataError(f"a score of {field!r} is {score!r}, not a whole number", row.where)
    return text, dict(zip(others, scores, strict=True))


def _verdicts(row: Row, problem: str, written: Iterable[Node]) -> Iterator[Node]:
    """The verdicts of the release. Its accepted texts name no author, so they are matched by their text."""
    accepted = row.value.get("correct_rationale")
    if not isinstance(accepted, list):
        raise DataError("no list of accepted texts in field 'correct_rationale'", row.where)
    texts = ["" if text is None else spoken(text) for text in accepted]
    written = list(written)
    if unknown := [text for text in texts if text not in [n.text for n in written]]:
        raise DataError(
            f"no teacher wrote the accepted text {unknown[0]!r:.80}", row.where, "check whether the file was edited"
        )
    for n in written:
        if n.text in texts:
            yield node("verdict", problem, RELEASE, 0, "accepted", parents=(n.id,), target=n.id, saw_gold=True)


def _string(row: Row, field: str) -> str:
    value = _text_of(row, field)
    if value is None:
        raise DataError(f"field {field!r} is null", row.where)
    return value


def _text_of(row: Row, field: str) -> str | None:
    """The text in ``field``, which may be empty or null."""
    if field not in row.value:
        raise DataError(f"no field {field!r}", row.where, f"the record has: {', '.join(row.value)}")
    value = row.value[field]
    if not (value is None or isinstance(value, str)):
        raise DataError(f"field {field!r} is a {type(value).__name__}, not text", row.where)
    return None if value is None else spoken(value)


@dataclass(frozen=True)
class Flagged:
    """A review whose raw score lies off the scale."""

    problem: str
    author: str
    reviewer: str
    score: str


@dataclass(frozen=True)
class Summary:
    """Counts of the records that were read, and their oddities. Lists hold ids of problems."""

    items: int
    rationales: int
    reviews: int
    valid: int
    accepted: int
    """Rationales that the released rule accepts: mean of the valid scores above 3."""
    covered: int
    """Questions with an accepted rationale."""
    accepted_of: dict[str, int]
    """By author."""
    questions_with: dict[int, int]
    """Number of questions by number of accepted rationales."""
    flagged: list[Flagged]
    suspect: list[str]
    """Mistakes that may be none: the student's text holds the gold number though the question does not."""
    cut: list[str]
    """Student answers whose last number is not the final answer that was read from them, mostly because the release
    cut the text at the first occurrence of that number, such as the 2 of 12."""
    empty: list[str]
    """Empty student answers."""
    mismatches: list[str]
    """Questions in which the released rule accepts other texts than the release did."""


def summary(graphs: Iterable[Graph]) -> Summary:
    """The counts of imported graphs."""
    graphs = list(graphs)
    decisions = decide(graphs, RELEASED)
    accepted = {d.rationale: d for d in decisions if d.verdict == "accepted"}
    per_question = Counter(d.problem for d in accepted.values())
    per_author = Counter(d.author for d in accepted.values())
    reviews = [(g, n) for g in graphs for n in g.nodes if n.kind == "review"]
    exams = [(g.problem, n) for g in graphs for n in g.answers(0, [STUDENT])]
    return Summary(
        len(graphs),
        len(decisions),
        len(reviews),
        sum(readable(n) for _, n in reviews),
        len(accepted),
        len(per_question),
        {author: per_author[author] for author in dict.fromkeys(d.author for d in decisions)},
        dict(sorted(Counter(per_question[g.problem.id] for g in graphs).items(), reverse=True)),
        [
            Flagged(g.problem.id, g.by_id[n.target].agent, n.agent, n.text)
            for g, n in reviews
            if n.target and not readable(n)
        ],
        [problem.id for problem, answer in exams if _suspect(problem, answer)],
        [problem.id for problem, answer in exams if _is_cut(answer)],
        [problem.id for problem, answer in exams if answer.status == "empty"],
        [g.problem.id for g in graphs if _released_authors(g) != {n.id for n in rationales(g) if n.id in accepted}],
    )


def _released_authors(graph: Graph) -> set[str | None]:
    return {n.target for n in graph.nodes if n.kind == "verdict" and n.agent == RELEASE}


def _suspect(problem: Problem, answer: Node) -> bool:
    gold = figure(problem.gold)
    return gold is not None and gold in figures(answer.text) and gold not in figures(problem.question)


def _is_cut(answer: Node) -> bool:
    written, stored = figures(answer.text), figure(answer.answer or "")
    return bool(written) and stored is not None and written[-1] != stored


def summary_text(summary: Summary) -> str:
    """The summary in lines."""
    flagged = "; ".join(f"{f.problem}: {f.reviewer} gave {f.author} {f.score}" for f in summary.flagged)
    return "\n".join(
        [
            f"{summary.items} mistakes, {summary.rationales} rationales, "
            f"{summary.reviews} reviews ({summary.valid} valid)",
            f"off the scale: {flagged or 'none'}",
            f"accepted (mean > 3): {summary.accepted} rationales of {summary.covered} questions; "
            + ", ".join(f"{author} {n}" for author, n in summary.accepted_of.items()),
            "accepted for one question: " + ", ".join(f"{k} in {n}" for k, n in summary.questions_with.items()),
            f"questions in which the release accepted other texts: {_count(summary.mismatches)}",
            f"mistakes that may be none (gold number in the answer, not in the question): {_count(summary.suspect)}",
            f"answers cut short by the release: {_count(summary.cut)}",
            f"empty answers: {_count(summary.empty)}",
        ]
    )


def _count(ids: Sequence[str], most: int = 4) -> str:
    return f"{len(ids)}" + (f" ({', '.join(ids[:most])}{', …' if len(ids) > most else ''})" if ids else "")


__all__ = ["RELEASE", "STUDENT", "Flagged", "Summary", "read_fair", "summary", "summary_text"]
