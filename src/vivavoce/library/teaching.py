"""Training rows from debates, and students from rows, from Python."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vivavoce import plugins
from vivavoce.agents.weights import folder
from vivavoce.data.acceptance import AcceptRules, decide
from vivavoce.data.examples import examples as examples_of
from vivavoce.data.rules import ExampleRules, TreeRules
from vivavoce.data.states import Supervision
from vivavoce.data.states import states as states_of
from vivavoce.data.trees import Grower, preference_trees
from vivavoce.data.two_task import Lessons, choose_items, feedback_rows, rationale_rows
from vivavoce.errors import RecipeError
from vivavoce.library.running import Run, here
from vivavoce.library.tables import Records
from vivavoce.library.talking import Graphs, Speaker
from vivavoce.protocols.peer_review import Options as ReviewOptions
from vivavoce.records import Example, State, Tree, digest, to_json
from vivavoce.train.jobs import Settings, train_on
from vivavoce.train.objective import OnPolicySettings, local_scorer
from vivavoce.train.settings import SFTSettings, TrainResult, TreeDPOSettings, TwoTaskSettings


class Examples(Records[Example]):
    """Supervised rows."""


class Trees(Records[Tree]):
    """Preference trees."""


class States(Records[State]):
    """States of the student, and the scorers of its answers there."""

    def __init__(self, rows: Sequence[State], scorers: Sequence[Speaker], silent: tuple[tuple[str, ...], ...]) -> None:
        super().__init__(rows)
        self.scorers, self.silent = list(scorers), silent


@dataclass(frozen=True)
class Student:
    """A trained model."""

    path: Path
    """Its folder: ``vv.agent("student", model=student.path)`` answers with it."""
    result: TrainResult

    def __fspath__(self) -> str:
        return str(self.path)

    def __str__(self) -> str:
        return str(self.path)


def examples(
    graphs: Graphs, *, agents: Sequence[str] | None = None, accept: AcceptRules | None = None, **rules: Any
) -> Examples:
    """Supervised rows from debates: right answers, or the winners of a vote (keys of a recipe's ``examples:``).

    A peer review gives the two streams that :func:`two_task` learns: feedback on the student's own mistakes, and the
    rationales that ``accept`` accepts. ``agents`` names the agents whose answers are used; None: all. Raises
    RecipeError for an unknown key.
    """
    if isinstance(graphs.wording.options, ReviewOptions):
        lessons, accepted = Lessons(graphs.wording, graphs.student), accept or AcceptRules(answer_check=True)
        learnt = choose_items(list(graphs), "mistakes", lessons, graphs.seed)
        rationales = rationale_rows(learnt, decide(learnt, accepted, graphs.seed), lessons)
        return Examples([*feedback_rows(graphs, lessons), *rationales])
    take = plugins.check(ExampleRules, rules, "examples")
    names = [*(t.name for t in graphs.teachers), graphs.student] if agents is None else list(agents)
    return Examples(examples_of(graphs, take, names, graphs.wording, graphs.student))


def trees(graphs: Graphs, **rules: Any) -> Trees:
    """Preference trees from debates (keys of a recipe's ``trees:``)."""
    grower = Grower(
        plugins.check(TreeRules, rules, "trees"), graphs.wording, graphs.student, (graphs.student,), graphs.seed
    )
    return Trees(list(preference_trees(graphs, grower)))


def states(graphs: Graphs, scorers: Sequence[Speaker] | None = None, **rules: Any) -> States:
    """States of the student, and what each scorer reads there (keys of an arm of ``debate_opd``).

    ``scorers`` are local models that score the student's tokens; None: the teachers.
    """
    scoring = list(graphs.teachers if scorers is None else scorers)
    if remote := [s.name for s in scoring if s.backend != "hf_local"]:
        raise RecipeError(
            f"`{remote[0]}` cannot score the student's tokens here", "scorers", "name local models (backend hf_local)"
        )
    rules_checked = plugins.check(Supervision, rules, "states")
    states_made, _ = states_of(graphs, rules_checked, [s.name for s in scoring], graphs.wording, graphs.seed)
    return States(states_made, scoring, graphs.wording.prompts.silent)


def sft(model: str | Path | Student, rows: Sequence[Example], **keys: Any) -> Student:
    """Fine-tune a model on supervised rows (keys of ``sft:``, and ``run``, ``out``, ``seed``)."""
    return _train_once("sft", SFTSettings, model, rows, **keys)


def tree_dpo(model: str | Path | Student, rows: Sequence[Tree], **keys: Any) -> Student:
    """T-DPO on preference trees (keys of ``dpo:``, and ``run``, ``out``, ``seed``)."""
    return _train_once("tree_dpo", TreeDPOSettings, model, rows, **keys)


def two_task(model: str | Path | Student, rows: Sequence[Example], **keys: Any) -> Student:
    """Train on feedback and rationales at once (keys of ``two_task:``, and ``run``, ``out``, ``seed``)."""
    return _train_once("two_task", TwoTaskSettings, model, rows, **keys)


def on_policy(model: str | Path | Student, rows: States, **keys: Any) -> Student:
    """On-policy distillation from the states' scorers (keys of ``opd:``, and ``run``, ``out``, ``seed``)."""
    scorers = tuple(local_scorer(speaker.name, speaker.options) for speaker in rows.scorers)
    never, as_end = rows.silent
    settings = {"scorers": scorers, "never": never, "as_end": as_end, **keys}
    return _train_once("on_policy", OnPolicySettings, model, rows, **settings)


def _train_once(
    name: str,
    settings: type[Settings],
    model: str | Path | Student,
    rows: Sequence[Any],
    run: Run | None = None,
    out: str | Path | None = None,
    seed: int = 0,
    **keys: Any,
) -> Student:
    """Train once. The same model on the same rows with the same settings, in the same run, is read back."""
    checked = plugins.check(settings, keys, name)
    if not len(rows):
        raise RecipeError("there are no rows to learn from", name, "check whether the debates hold right answers")
    start = folder(str(model))
    if out is None:
        made_of = [str(start), [to_json(row) for row in rows], checked.model_dump(mode="json"), seed]
        out = (run or here()).path / "models" / f"{name}-{digest(made_of)[:12]}"
    result = train_on(start, list(rows), checked, Path(out), seed)
    return Student(result.path, result)


__all__ = [
    "Examples",
    "States",
    "Student",
    "Trees",
    "examples",
    "on_policy",
    "sft",
    "states",
    "tree_dpo",
    "trees",
    "two_task",
]
