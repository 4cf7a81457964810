"""How many calls a debate will make, before any is made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from vivavoce.debate.rules import DebateRules


@dataclass(frozen=True, slots=True)
class Planned:
    """Calls of one agent in one stage, least to most; tokens at most."""

    stage: str
    agent: str
    least: int
    most: int
    prompt_tokens: int
    completion_tokens: int


def calls_per_question(
    rules: DebateRules, teachers: int, role: Literal["teacher", "student"], samples: int
) -> tuple[int, int]:
    """Least and most calls of one member for one question.

    Least: the debate stops after round 0. Most: it goes to the last round, and in every round that is reflected on,
    the member is the one who has most to say: with k of A agents right, a right one criticises A-k and a wrong one
    reflects once (oracle roles); with gold-free roles everyone criticises A-1 and reflects.
    """
    if role == "student" and rules.student == "never":
        return 0, 0
    rounds = 1 if role == "student" and rules.student == "first_round" else rules.max_rounds
    present = teachers + (rules.student != "never")
    reflected = rules.max_rounds - (0 if rules.last_round_reflect else 1)
    targets = 1 if rules.feedback_to == "student_only" else present - 1
    criticises = rules.feedback_from == "all_right" or (rules.feedback_from == "teachers_only" and role == "teacher")
    critiques = targets if criticises and not (rules.feedback_to == "student_only" and role == "student") else 0
    most = samples + rounds - 1
    for r in range(reflected):
        if role == "student" and r >= rounds:
            break
        notes = (critiques, int(rules.reflect))
        most += sum(notes) if rules.roles == "gold_free" else max(notes)
    least = samples + (rounds - 1 if rules.stop == "cap_only" else 0)
    return least, most
