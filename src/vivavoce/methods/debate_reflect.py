"""Debate & Reflect: teachers and student debate; SFT on what was right, then T-DPO on right against wrong.

Paper: arXiv:2506.03541. Differs from the authors' code: docs/decisions/0002. Beside the method itself it trains, on
the same questions, what it must be measured against: each single teacher, all teachers without debate (and the best of
their drafts, where the method learns from winners), and the SFT-only student trained on for as long as T-DPO took.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from vivavoce.config import Recipe
from vivavoce.data.examples import examples
from vivavoce.data.rules import ExampleRules, TreeRules
from vivavoce.data.trees import preference_trees
from vivavoce.debate.plan import Planned
from vivavoce.debate.rules import DebateRules
from vivavoce.graph import Graph
from vivavoce.methods.debating import DebateSession
from vivavoce.methods.measured import Measured
from vivavoce.methods.plan import plan_debate
from vivavoce.methods.session import Trained
from vivavoce.run import Run
from vivavoce.train.gate import together
from vivavoce.train.settings import SFTSettings, TreeDPOSettings


class Attempts(BaseModel):
    """Our extension: after SFT the student tries the training questions again, and the trees reject what it still
    gets wrong. Mistakes that only others make, or that it no longer makes, teach it nothing."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    samples: int = Field(default=0, ge=0, description="answers to each training question; 0: none (paper)")
    temperature: float = Field(default=1.0, ge=0)


class Options(Recipe):
    """A recipe of ``method: debate_reflect``."""

    debate: DebateRules = DebateRules()
    examples: ExampleRules = ExampleRules()
    sft: SFTSettings = SFTSettings()
    attempts: Attempts = Attempts()
    trees: TreeRules = TreeRules()
    dpo: TreeDPOSettings = TreeDPOSettings()

    @property
    def rules(self) -> DebateRules:
        return self.debate


async def distill(recipe: Options, run: Run) -> dict[str, Any]:
    """Debate, rows, students, trees, students, tests; returns what ``results.json`` holds."""
    async with DebateSession(recipe, run, recipe.debate) as s:
        graphs = await s.debate(s.task.problems("train"))

        start = s.untrained()
        first = recipe.examples.model_copy(update={"rounds": [0]})
        early = first.model_copy(update={"take": "right"})
        drafts = {f"single:{t}": ([t], early) for t in s.teachers} | {"multi_teacher": (s.teachers, early)}
        if recipe.examples.take != "right":  # choosing pays without a debate too, and must not be credited to it
            drafts["multi_teacher_vote"] = (s.teachers, first)
        taught = _right(s, "debate_reflect_sft", graphs, s.everyone, recipe.examples)

        async def rivals() -> dict[str, Trained]:
            rows = s.with_rows({arm: _right(s, arm, graphs, *how) for arm, how in drafts.items()})
            trained = await s.train({arm: (start, path, recipe.sft) for arm, path in rows.items()})
            await s.sit({"student": start, **trained})
            return trained

        # What a student goes through is one thing after another and fills no two cores: the rest is done beside it.
        *own, others = await together(*(_student(s, recipe, graphs, taught, k) for k in recipe.seeds), rivals())
        arms = {"student": start} | Trained.merged([others, *own])

        tested, also = await s.test(arms), await s.also_test(arms)
        singles = [arm for arm in tested if arm.startswith("single:")]
        best = max(singles, key=lambda arm: s.right(tested[arm]), default=None)
        pairs = [(arm, "debate_reflect_sft") for arm in (best, "multi_teacher_vote") if arm and arm in tested]
        before = ["student", best, "multi_teacher", "multi_teacher_vote", "debate_reflect_sft", "sft_continued"]
        pairs += [(arm, "debate_reflect") for arm in before if arm and arm in tested]
        without = [arm for arm in tested if arm.startswith(("teacher:", "vote:")) and arm != "vote:debate"]
        return s.results(tested, also, pairs + [(arm, "vote:debate") for arm in without], best_single=best)


async def _student(
    s: DebateSession, recipe: Options, graphs: Sequence[Graph], rows: Path, seed: int
) -> dict[str, Trained]:
    """The students of one training seed: SFT on ``rows``, attempts, T-DPO on their trees, SFT for as long, tests."""
    arms = await s.train({"debate_reflect_sft": (s.untrained(), rows, recipe.sft)}, [seed])
    sft = arms["debate_reflect_sft"]
    tried = await s.attempt(graphs, sft, seed, recipe.attempts.samples, recipe.attempts.temperature)
    trees = s.rows(f"trees-{seed}", preference_trees(tried, s.grower(recipe.trees)))
    arms |= await s.train({"debate_reflect": (sft, trees, recipe.dpo)}, [seed])
    as_long = {
        "learning_rate": recipe.dpo.learning_rate,
        "muon": recipe.dpo.muon,
        "max_steps": s.updates(arms["debate_reflect"], seed),
    }
    arms |= await s.train({"sft_continued": (sft, rows, recipe.sft.model_copy(update=as_long))}, [seed])
    await s.sit(arms)
    return arms


def _right(s: DebateSession, arm: str, graphs: Sequence[Graph], agents: Sequence[str], take: ExampleRules) -> Path:
    own = [a for a in agents if take.include_student or a != s.student]
    return s.rows(arm, examples(graphs, take, own, s.rules, s.prompts, s.task))


async def pilot(recipe: Options, run: Run, questions: int) -> None:
    """Ask of the first questions what a run asks of all, so that a plan can go by it; the run pays for none again."""
    async with DebateSession(recipe, run, recipe.debate) as s:
        await s.debate(s.task.problems("train")[:questions])
        if recipe.test.committee:
            await s.debate_test(s.task.problems("test")[:questions])
        await s.sit({"student": s.untrained()}, questions)


def plan(recipe: Options, measured: Measured | None = None) -> list[Planned]:
    """What a run of this recipe will ask for."""
    arms = len(recipe.teachers) + 4 + (recipe.examples.take != "right")  # singles, multi_teacher, SFT, continued, full
    trained = len(recipe.seeds) * arms
    return plan_debate(recipe, recipe.debate, recipe.attempts.samples, 1 + trained, measured)
