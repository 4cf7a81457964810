"""Measure the shipped weights on unseen questions, and fail if they are not good enough to ship.

`python -m schoolhouse.gates [--weights DIR] [--n 2000]` writes `measured.json` next to the weights, prints
the same numbers, and exits with 1 if a gate fails. Everything is greedy, on the bf16 weights as stored.
"""

import argparse
import json
import math
import random
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from schoolhouse.speak import Speaker
from vivavoce import schoolhouse
from vivavoce.schoolhouse import world
from vivavoce.schoolhouse.tokenizer import prompt
from vivavoce.schoolhouse.world import Question
from vivavoce.stats import auroc, mcnemar

TEACHERS = tuple(world.STRONG)
# Raw digit probabilities are overconfident on facts that the model does not know; their fourth power is not.
SHARPEN = 4.0

_SAID = re.compile(r"conf=(\d\d)")
_VERDICT = re.compile(r"([b-h])=\d[^\w\s=]\d=(\d) got (\d) (ok|wrong)")
_SCORE = re.compile(r"score=(\d)")


class Draft(NamedTuple):
    """One teacher's answer to one question, with the two confidences it can be weighted by."""

    text: str
    answer: str | None
    stated: float  # what it wrote after `conf=`, 0 to 100
    probability: float  # product over its result digits of p^4


def drafts(speaker: Speaker, prompts: Sequence[str], batch: int) -> list[Draft]:
    """Answer every prompt greedily and read off both confidences."""
    texts = speaker.replies(prompts, batch=batch)
    out = list[Draft]()
    for text, digits in zip(texts, speaker.result_probabilities(prompts, texts), strict=True):
        match = _SAID.search(text)
        probability = math.prod(p**SHARPEN for p in digits) if digits else 0.05
        out.append(Draft(text, world.answer_of(text), float(match[1]) if match else 50.0, probability))
    return out


def debate_prompts(asked: Sequence[Question], first: dict[str, list[Draft]], me: str, rng: random.Random) -> list[str]:
    """What one teacher reads in the debate: all drafts, in random order, its peers anonymous and numbered at random."""
    out = list[str]()
    for i, question in enumerate(asked):
        peers = [name for name in first if name != me]
        rng.shuffle(peers)
        names = {me: "me", **{peer: f"p{k + 1}" for k, peer in enumerate(peers)}}
        lines = [f"\n{names[name]}: {first[name][i].text}" for name in first]
        rng.shuffle(lines)
        out.append(prompt("debate", question.text + "".join(lines)))
    return out


def vote(ballots: Sequence[Draft], weight: Callable[[Draft], float], largest: bool = False) -> str | None:
    """The answer with the largest summed weight (or the single most confident one); ties go to the first teacher."""
    totals: dict[str | None, float] = {}
    for ballot in ballots:
        before = totals.get(ballot.answer, 0.0)
        totals[ballot.answer] = max(before, weight(ballot)) if largest else before + weight(ballot)
    return max(totals, key=lambda answer: totals[answer])


VOTES: dict[str, tuple[Callable[[Draft], float], bool]] = {
    "majority": (lambda _: 1.0, False),
    "most confident (said)": (lambda d: d.stated, True),
    "weighted (said)": (lambda d: d.stated, False),
    "weighted (probability)": (lambda d: d.probability, False),
}


def mean(values: Sequence[float]) -> float:
    """The mean, NaN if there is nothing to average."""
    return sum(values) / len(values) if values else math.nan


def area(scores: Sequence[float], right: Sequence[bool]) -> float:
    """AUROC to three digits, NaN where all are right or all wrong."""
    value = auroc(scores, right)
    return math.nan if value is None else round(value, 3)


def z(ours: Sequence[bool], theirs: Sequence[bool]) -> float:
    """McNemar's test as a normal deviate, positive where `ours` is right more often."""
    only_ours, only_theirs, _ = mcnemar(ours, theirs)
    return round((only_ours - only_theirs) / math.sqrt(max(1, only_ours + only_theirs)), 1)


def by_kind(asked: Sequence[Question], right: Sequence[bool], kinds: Sequence[str] = world.KINDS) -> dict[str, float]:
    """Accuracy per kind of question and over all."""
    out = {k: mean([r for q, r in zip(asked, right, strict=True) if q.kind == k]) for k in kinds}
    return {k: round(v, 3) for k, v in (out | {"all": mean(right)}).items()}


def measure_debate(speakers: dict[str, Speaker], n: int, seed: int) -> dict[str, Any]:
    """Each teacher alone, votes over drafts, one round of debate, and what the stated confidence is worth."""
    asked = list(world.questions("test", n, seed))
    truth = [str(world.gold(q.text)[-1].value) for q in asked]
    plain = [prompt("solve", q.text) for q in asked]
    first = {name: drafts(speaker, plain, 512) for name, speaker in speakers.items()}
    rng = random.Random(f"debate/{seed}")
    second = {name: drafts(s, debate_prompts(asked, first, name, rng), 256) for name, s in speakers.items()}

    teachers = dict[str, Any]()
    for name, speaker in speakers.items():
        right = [d.answer == t for d, t in zip(first[name], truth, strict=True)]
        forced = speaker.replies(plain, forbid="?")
        marked, unmarked = _mark_accuracy(asked, first[name])
        teachers[name] = {
            "alone": by_kind(asked, right),
            "after debate": by_kind(asked, [d.answer == t for d, t in zip(second[name], truth, strict=True)]),
            "auroc said": area([d.stated for d in first[name]], right),
            "auroc probability": area([d.probability for d in first[name]], right),
            "step accuracy marked": round(marked, 3),
            "step accuracy unmarked": round(unmarked, 3),
            "? forbidden": round(mean([world.answer_of(text) == t for text, t in zip(forced, truth, strict=True)]), 4),
            "? allowed": round(mean(right), 4),
        }

    def outcome(rounds: dict[str, list[Draft]], kind: str) -> list[bool]:
        weight, largest = VOTES[kind]
        ballots = zip(*rounds.values(), strict=True)
        return [vote(b, weight, largest) == t for b, t in zip(ballots, truth, strict=True)]

    best = max(TEACHERS, key=lambda name: teachers[name]["alone"]["all"])
    before = {f"best teacher ({best})": [d.answer == t for d, t in zip(first[best], truth, strict=True)]}
    before |= {f"drafts, {kind}": outcome(first, kind) for kind in VOTES}
    oracle = [any(first[name][i].answer == t for name in TEACHERS) for i, t in enumerate(truth)]
    after = {f"one round, {kind}": outcome(second, kind) for kind in VOTES if "most" not in kind}
    ours = after["one round, weighted (probability)"]
    return {
        "teachers": teachers,
        "votes": {k: by_kind(asked, v) for k, v in (before | {"any draft right": oracle} | after).items()},
        "z of one round, weighted (probability), over": {k: z(ours, v) for k, v in before.items()},
    }


def _mark_accuracy(asked: Sequence[Question], answers: Sequence[Draft]) -> tuple[float, float]:
    """The share of right facts among steps followed by `?`, and among the others."""
    marked, unmarked = list[bool](), list[bool]()
    for draft in answers:
        for part in draft.text.split("; "):
            for step in world.steps_of(part):
                (marked if "?" in part else unmarked).append(step.value == world.apply(*step.fact))
    return mean(marked), mean(unmarked)


def measure_critique(
    speakers: dict[str, Speaker], author: Speaker, n: int, seed: int, marked: bool = False
) -> dict[str, Any]:
    """Each teacher criticises the drafts of an author that samples at temperature 1.

    *detect*: a wrong chain is called wrong; *locate*: at its first wrong step; *false alarm*: a right chain is called
    wrong. By the word `wrong`, and by comparing the two digits that the critic itself wrote.
    """
    asked = list(world.questions("test", n, seed))
    own_replies = author.replies([prompt("solve", q.text) for q in asked], temperature=1.0, seed=seed)
    shown = own_replies if marked else [world.clean(text) for text in own_replies]
    first = [world.check(q.text, text).first_wrong for q, text in zip(asked, own_replies, strict=True)]
    out = dict[str, Any]()
    for name, speaker in speakers.items():
        replies = speaker.replies(
            [prompt("check", f"{q.text}\n{text}") for q, text in zip(asked, shown, strict=True)],
            max_new_tokens=96,
            batch=256,
        )
        words = [next((m[1] for m in _VERDICT.finditer(r) if m[4] == "wrong"), None) for r in replies]
        digits = [next((m[1] for m in _VERDICT.finditer(r) if m[2] != m[3]), None) for r in replies]
        scores = [int(m[1]) if (m := _SCORE.search(r)) else 3 for r in replies]
        out[name] = {}
        for group in ("strong", "weak", "mix"):
            rows = [i for i, q in enumerate(asked) if _group(name, q.kind) == group]
            out[name][group] = {
                "wrong drafts": sum(first[i] is not None for i in rows),
                "right drafts": sum(first[i] is None for i in rows),
                "by word": _finds(words, first, rows),
                "by digits": _finds(digits, first, rows),
                "auroc score": area([scores[i] for i in rows], [first[i] is None for i in rows]),
            }
    return out


def _group(teacher: str, kind: str) -> str:
    return "mix" if kind == "mix" else "strong" if kind in world.STRONG[teacher] else "weak"


def _finds(named: Sequence[str | None], first: Sequence[int | None], rows: Sequence[int]) -> dict[str, float]:
    wrong, right = [i for i in rows if first[i] is not None], [i for i in rows if first[i] is None]
    return {
        "detect": round(mean([named[i] is not None for i in wrong]), 3),
        "locate": round(mean([named[i] == "bcdefgh"[first[i] or 0] for i in wrong]), 3),
        "false alarm": round(mean([named[i] is not None for i in right]), 3),
    }


def measure_student(student: Speaker, n: int, seed: int) -> dict[str, Any]:
    """The untaught student: nearly perfect on the facts it knows, poor on the rest."""
    asked = list(world.questions("test", n, seed))
    replies = student.replies([prompt("solve", q.text) for q in asked])
    rng = random.Random(f"student/{seed}")
    easy = [world.draw(rng, facts=world.taught_facts("student"), split="test").text for _ in range(n)]
    known = student.replies([prompt("solve", text) for text in easy])
    return {
        "all questions": by_kind(asked, [world.check(q.text, t).right for q, t in zip(asked, replies, strict=True)]),
        "known facts": round(mean([world.check(q, t).right for q, t in zip(easy, known, strict=True)]), 4),
    }


def gates(measured: dict[str, Any]) -> dict[str, bool]:
    """Each condition for shipping, and whether it holds."""
    teachers, critique = measured["debate"]["teachers"], measured["critique"]
    gain = measured["debate"]["z of one round, weighted (probability), over"]["drafts, weighted (said)"]
    out = {"debate beats confidence-weighted drafts, z > 3": gain > 3}
    for name, t in teachers.items():
        strong = critique[name]["strong"]
        out |= {
            f"{name}: AUROC of said confidence > .85": t["auroc said"] > 0.85,
            f"{name}: marked steps right < .3": t["step accuracy marked"] < 0.3,
            f"{name}: unmarked steps right > .9": t["step accuracy unmarked"] > 0.9,
            f"{name}: forbidding ? changes accuracy by at most 1 point": abs(t["? forbidden"] - t["? allowed"]) <= 0.01,
            f"{name}: critique locates > .8 of errors in strong skills, by word": strong["by word"]["locate"] > 0.8,
            f"{name}: critique score AUROC >= .85 in strong skills": strong["auroc score"] >= 0.85,
        }
    return out | {"student: known facts >= .98": measured["student"]["known facts"] >= 0.98}


def measure(folder: Path, n: int) -> dict[str, Any]:
    """All measurements, gates included."""
    speakers = {name: Speaker.load(folder / name) for name in TEACHERS}
    student = Speaker.load(folder / "student")
    measured = {
        "questions": n,
        "debate": measure_debate(speakers, n, seed=1),
        "critique": measure_critique(speakers, student, n // 2, seed=2),
        "critique of a marked draft": measure_critique(speakers, speakers["bob"], n // 2, seed=3, marked=True),
        "student": measure_student(student, n // 2, seed=4),
    }
    return measured | {"gates": gates(measured)}


def ship(
    description: str | None,
    weights: str,
    n: int,
    measure: Callable[[Path, int], dict[str, Any]],
    table: Callable[[dict[str, Any]], str],
) -> int:
    """What every committee's gates do when they are run: measure, write it next to the weights, print it, and tell by
    the exit code whether all gates hold.

    Args:
        description: For ``--help``.
        weights: The folder of the package's schoolhouse that is measured unless ``--weights`` says another.
        n: Questions, unless ``--n`` says another number.
        measure: Gives all numbers of a folder, with its ``gates``.
        table: The numbers as text.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, default=Path(schoolhouse.__file__).parent / weights)
    parser.add_argument("--n", type=int, default=n, help="number of unseen questions")
    args = parser.parse_args()
    torch.set_num_threads(1)
    measured = measure(args.weights, args.n)
    (args.weights / "measured.json").write_text(json.dumps(measured, indent=1) + "\n")
    print(table(measured))
    return 0 if all(measured["gates"].values()) else 1


def table(measured: dict[str, Any]) -> str:
    """The measurements as text."""
    lines = [" " * 36 + "".join(f"{k:>7}" for k in (*world.KINDS, "all"))]
    accuracies = {name: t["alone"] for name, t in measured["debate"]["teachers"].items()}
    accuracies |= measured["debate"]["votes"] | {"student": measured["student"]["all questions"]}
    lines += [f"{name:36}" + "".join(f"{v:7.3f}" for v in row.values()) for name, row in accuracies.items()]
    for what in ("critique", "critique of a marked draft"):
        for name, groups in measured[what].items():
            lines += [f"{what}, {name}, {group}: {json.dumps(row)}" for group, row in groups.items()]
    for name, t in measured["debate"]["teachers"].items():
        lines.append(f"{name}: " + json.dumps({k: v for k, v in t.items() if not isinstance(v, dict)}))
    lines.append(json.dumps(measured["debate"]["z of one round, weighted (probability), over"]))
    lines.append(f"student, known facts: {measured['student']['known facts']}")
    lines += [f"{'pass' if ok else 'FAIL'}  {name}" for name, ok in measured["gates"].items()]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(ship(__doc__, "weights", 2000, measure, table))
