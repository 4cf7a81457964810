"""The questions to begin with: three that the student got wrong before it was taught and right after, and one that it
got right before and wrong after."""

from __future__ import annotations

from typing import NamedTuple

from vivavoce.exams.examine import Judged
from vivavoce.report.comparison import final_arm
from vivavoce.report.sources import Sources

_FIXED, _BROKEN = 3, 1


class BeforeAfter(NamedTuple):
    """One question, answered before and after."""

    kind: str
    """``fixed`` or ``broken``."""
    problem: str
    question: str
    gold: str
    before: Judged
    after: Judged


class Story(NamedTuple):
    """The examples, and how many such questions there are."""

    before: str
    after: str
    examples: list[BeforeAfter]
    fixed: int
    broken: int


def story(sources: Sources) -> Story | None:
    """The examples of a run; None if it has none, or the answers are in no file."""
    results = sources.results or {"arms": [], "paired": []}
    main = final_arm(results, sources.recipe.get("method")) if results["arms"] else None
    if main is None or main == "student":
        return None
    after = {row.problem: row for row in sources.answers(main)}
    pairs = [(row, after[row.problem]) for row in sources.answers("student") if row.problem in after]
    fixed = [pair for pair in pairs if pair[1].correct and not pair[0].correct]
    broken = [pair for pair in pairs if pair[0].correct and not pair[1].correct]
    if not fixed and not broken:
        return None
    questions = sources.questions_of([a.problem for a, _ in (*fixed[:_FIXED], *broken[:_BROKEN])])
    examples = [
        BeforeAfter(kind, a.problem, *questions.get(a.problem, ("", "")), a, b)
        for kind, several in (("fixed", fixed[:_FIXED]), ("broken", broken[:_BROKEN]))
        for a, b in several
    ]
    return Story("student", main, examples, len(fixed), len(broken))


__all__ = ["BeforeAfter", "Story", "story"]
