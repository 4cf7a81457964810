"""Measure the tiny programmers on unseen questions, and fail if they are not good enough to ship.

`python -m schoolhouse.code_gates [--weights DIR] [--n 1000]` writes `measured.json` next to the weights,
prints the same numbers, and exits with 1 if a gate fails. Everything is greedy, every answer is run.
"""

import json
import math
import random
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from schoolhouse.gates import VOTES, Draft, area, by_kind, debate_prompts, mean, ship, vote, z
from schoolhouse.speak import Speaker
from vivavoce.schoolhouse import code_world as world
from vivavoce.schoolhouse import tokenizer
from vivavoce.schoolhouse.code_grading import AnswerOutcome, judge_all
from vivavoce.schoolhouse.world import Question

TEACHERS = tuple(world.STRONG)
_SAID = re.compile(r"conf=(\d\d)")


def spelt(words: Sequence[str]) -> list[int]:
    """Which tokens of a reply its author had to know: operators and digits, up to its end."""
    end = words.index("return") if "return" in words else len(words)
    return [i for i in range(end) if len(words[i]) == 1 and words[i] in "-+*%&|^0123456789"]


def drafts(speaker: Speaker, prompts: Sequence[str], asked: Sequence[Question], batch: int) -> list[Draft]:
    """Answer every prompt greedily, run the programs, and read off both confidences."""
    texts = speaker.replies(prompts, batch=batch, max_new_tokens=80)
    probabilities = speaker.result_probabilities(prompts, texts, spelt)
    out = list[Draft]()
    for text, verdict, tokens in zip(texts, judged(asked, texts), probabilities, strict=True):
        match = _SAID.search(text)
        out.append(
            Draft(text, verdict.answer, float(match[1]) if match else 50.0, math.prod(tokens) if tokens else 0.0)
        )
    return out


def judged(asked: Sequence[Question], texts: Sequence[str]) -> list[AnswerOutcome]:
    return judge_all([q.text for q in asked], texts)


def measure_debate(speakers: dict[str, Speaker], n: int, seed: int) -> dict[str, Any]:
    """Each teacher alone, votes over drafts, one round of debate, and what the stated confidence is worth."""
    asked = list(world.questions("test", n, seed))
    plain = [tokenizer.prompt("solve", q.text) for q in asked]
    first = {name: drafts(speaker, plain, asked, 512) for name, speaker in speakers.items()}
    rng = random.Random(f"debate/{seed}")
    second = {name: drafts(s, debate_prompts(asked, first, name, rng), asked, 256) for name, s in speakers.items()}

    def right(drafts_given: Sequence[Draft]) -> list[bool]:
        return [bool(v.right) for v in judged(asked, [d.text for d in drafts_given])]

    teachers = dict[str, Any]()
    for name, own_drafts in first.items():
        known, unknown = _marked(name, asked, own_drafts)
        teachers[name] = {
            "alone": by_kind(asked, right(own_drafts), world.KINDS),
            "after debate": by_kind(asked, right(second[name]), world.KINDS),
            "auroc said": area([d.stated for d in own_drafts], right(own_drafts)),
            "auroc probability": area([d.probability for d in own_drafts], right(own_drafts)),
            "known steps right": round(mean([ok for ok, _ in known]), 3),
            "known steps marked": round(mean([mark for _, mark in known]), 3),
            "unknown steps right": round(mean([ok for ok, _ in unknown]), 3),
            "unknown steps marked": round(mean([mark for _, mark in unknown]), 3),
        }

    def outcome(rounds: dict[str, list[Draft]], kind: str) -> list[bool]:
        weight, largest = VOTES[kind]
        out = list[bool]()
        verdicts = {name: right(round_drafts) for name, round_drafts in rounds.items()}
        for i, ballots in enumerate(zip(*rounds.values(), strict=True)):
            won = vote(ballots, weight, largest)
            out.append(next(verdicts[name][i] for name in rounds if rounds[name][i].answer == won))
        return out

    best = max(TEACHERS, key=lambda name: teachers[name]["alone"]["all"])
    before = {f"best teacher ({best})": right(first[best])}
    before |= {f"drafts, {kind}": outcome(first, kind) for kind in VOTES}
    oracle = [any(ok) for ok in zip(*(right(own_drafts) for own_drafts in first.values()), strict=True)]
    after = {f"one round, {kind}": outcome(second, kind) for kind in VOTES if "most" not in kind}
    ours = after["one round, weighted (probability)"]
    votes = before | {"any draft right": oracle} | after
    return {
        "teachers": teachers,
        "votes": {k: by_kind(asked, v, world.KINDS) for k, v in votes.items()},
        "z of one round, weighted (probability), over": {k: z(ours, v) for k, v in before.items()},
    }


def _marked(
    name: str, asked: Sequence[Question], answers: Sequence[Draft]
) -> tuple[list[tuple[bool, bool]], list[tuple[bool, bool]]]:
    """(right, marked) of the written steps whose function the teacher was taught, and of the others."""
    known, unknown = list[tuple[bool, bool]](), list[tuple[bool, bool]]()
    for question, draft in zip(asked, answers, strict=True):
        gold, calls = world.gold(question.text), world.parse(question.text)
        for (step, mark), wanted, call in zip(world.steps_of(draft.text), gold, calls, strict=False):
            (known if call.function in world.taught_functions(name) else unknown).append((step.means(wanted), mark))
    return known, unknown


def measure_student(student: Speaker, n: int, seed: int) -> dict[str, Any]:
    """The untaught student: nearly perfect on the functions it knows, poor on the rest."""
    asked = list(world.questions("test", n, seed))
    rng = random.Random(f"student/{seed}")
    easy = [world.draw(rng, functions=world.taught_functions("student"), split="test") for _ in range(n)]
    measured = {}
    for what, those in (("all questions", asked), ("known functions", easy)):
        replies = student.replies([tokenizer.prompt("solve", q.text) for q in those])
        measured[what] = [bool(v.right) for v in judged(those, replies)]
    return {
        "all questions": by_kind(asked, measured["all questions"], world.KINDS),
        "known functions": round(mean(measured["known functions"]), 4),
    }


def gates(measured: dict[str, Any]) -> dict[str, bool]:
    """Each condition for shipping, and whether it holds."""
    teachers, votes = measured["debate"]["teachers"], measured["debate"]["votes"]
    student = measured["student"]
    debated, chosen = (votes[kind]["mix"] for kind in ("one round, weighted (probability)", "drafts, weighted (said)"))
    over = measured["debate"]["z of one round, weighted (probability), over"]
    out = {
        "debate beats the best teacher, z > 10": next(v for k, v in over.items() if k.startswith("best")) > 10,
        "debate beats the majority of drafts, z > 3": over["drafts, majority"] > 3,
        "debate beats confidence-weighted drafts by 5 points where skills mix": debated > chosen + 0.05,
        "student: known functions >= .98": student["known functions"] >= 0.98,
    }
    for name, t in teachers.items():
        strong = [t["alone"][skill] for skill in world.STRONG[name]]
        weak = [t["alone"][skill] for skill in world.SKILLS if skill not in world.STRONG[name]]
        out |= {
            f"{name}: every strong skill > .75, every weak one < .45": min(strong) > 0.75 and max(weak) < 0.45,
            f"{name}: better than the student by 10 points": t["alone"]["all"] > student["all questions"]["all"] + 0.1,
            f"{name}: AUROC of said confidence > .85": t["auroc said"] > 0.85,
            f"{name}: known steps right > .95": t["known steps right"] > 0.95,
            f"{name}: known steps marked < .05": t["known steps marked"] < 0.05,
            f"{name}: unknown steps marked > .9": t["unknown steps marked"] > 0.9,
        }
    return out | {"any draft right leaves room: > .8": votes["any draft right"]["all"] > 0.8}


def measure(folder: Path, n: int) -> dict[str, Any]:
    """All measurements, gates included."""
    speakers = {name: Speaker.load(folder / name) for name in TEACHERS}
    measured = {
        "questions": n,
        "debate": measure_debate(speakers, n, seed=1),
        "student": measure_student(Speaker.load(folder / "student"), n // 2, seed=4),
    }
    return measured | {"gates": gates(measured)}


def table(measured: dict[str, Any]) -> str:
    """The measurements as text."""
    lines = [" " * 36 + "".join(f"{k:>7}" for k in (*world.KINDS, "all"))]
    accuracies = {name: t["alone"] for name, t in measured["debate"]["teachers"].items()}
    accuracies |= measured["debate"]["votes"] | {"student": measured["student"]["all questions"]}
    lines += [f"{name:36}" + "".join(f"{v:7.3f}" for v in row.values()) for name, row in accuracies.items()]
    for name, t in measured["debate"]["teachers"].items():
        lines.append(f"{name}: " + json.dumps({k: v for k, v in t.items() if not isinstance(v, dict)}))
    lines.append(json.dumps(measured["debate"]["z of one round, weighted (probability), over"]))
    lines.append(f"student, known functions: {measured['student']['known functions']}")
    return "\n".join([*lines, *(f"{'pass' if ok else 'FAIL'}  {name}" for name, ok in measured["gates"].items())])


if __name__ == "__main__":
    sys.exit(ship(__doc__, "weights/code", 1000, measure, table))
