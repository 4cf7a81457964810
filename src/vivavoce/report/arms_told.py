"""Descriptions of arms, in a line for people who have not read the recipe."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_BASES = {
    "student": "the student as it came",
    "untrained": "the student as it came",
    "single": "a student of {teacher} alone: its right answers, without a debate",
    "single_checked": "a student of {teacher} alone: its rationales with the right answer",
    "multi_teacher": "a student of all teachers' right answers, without a debate",
    "multi_teacher_vote": "a student of the best of the teachers' independent answers, without a debate",
    "debate_reflect_sft": "a student of what was right in the debates (SFT)",
    "debate_reflect": "that student, taught further by preference trees of right and wrong answers (T-DPO)",
    "sft_continued": "that student, with as much further SFT instead of T-DPO",
    "unreviewed": "a student of all rationales, without reviews",
    "reviewed": "a student of the rationales that the reviewers accept",
    "checked": "a student of the rationales with the right answer",
    "checked_and_reviewed": "a student of the rationales that have the right answer and that the reviewers accept",
    "random": "a student of as many rationales, drawn at random",
    "majority": "a student of the rationales whose answer most teachers give",
    "opd": "taught on its own answers by {teacher}, which has not read a debate",
    "mt_opd": "taught on its own answers by all teachers, which have not read a debate",
    "debate_uniform": "taught on its own answers by all teachers with equal weights, which have read the debate",
    "debate_opd": "taught on its own answers by all teachers, which have read the debate",
    "drafts_opd": "taught on its own answers by teachers that have read each other's first answers",
    "sft_debate": "imitates the answers that won the debates, for as many updates",
    "sft_debate_seconds": "imitates the answers that won the debates, for as long",
    "teacher": "{teacher} itself, on its first answers",
    "vote:majority": "the teachers' first answers, each counts as one",
    "vote:most_confident": "the teachers' first answers: the most confident one",
    "vote:confidence": "the teachers' first answers, weighted by their stated confidence",
    "vote:probability": "the teachers' first answers, weighted by the probability of their tokens",
    "vote:debate": "the teachers' answers after the debate",
}
_LEARNT = {
    "drafts": "learnt from teachers that have not read each other",
    "debate": "learnt from debates",
    "review": "learnt from reviewed rationales",
    "gold": "learnt from the right answers themselves",
}


def what_it_is(arm: Mapping[str, Any]) -> str:
    """The line of an arm of the results; empty if nothing is known of it."""
    base, teacher = str(arm.get("base") or ""), arm.get("teacher")
    name = str(arm.get("name", ""))
    text = _BASES.get(base) or _BASES.get(name) or _BASES.get(name.rpartition(".")[2], "")
    if not text and teacher:
        text = f"of {teacher} alone"
    if not text:
        text = _LEARNT.get(str(arm.get("material") or ""), "")
    text = text.replace("{teacher}", str(teacher or name.partition(":")[2] or "one teacher"))
    if text and (start := arm.get("start")) and not text.startswith("that student"):
        text += f"; starts from {start}"
    elif start := arm.get("start"):
        text = text.replace("that student", f"{start}, taught on" if not text else f"{start}", 1)
    if changes := arm.get("changes"):
        text += f"{'; ' if text else ''}with {changes}"
    return text


__all__ = ["what_it_is"]
