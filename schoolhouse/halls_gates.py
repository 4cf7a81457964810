"""Measure the tiny walkers in states that nobody was taught on, and fail if they are not good enough to ship.

`python -m schoolhouse.halls_gates [--weights DIR] [--n 2000]` writes `measured.json` next to the weights,
prints the same numbers, and exits with 1 if a gate fails. Everything is greedy. A state counts where a door has to be
chosen.
"""

import json
import random
import re
import sys
from pathlib import Path
from typing import Any, NamedTuple

from schoolhouse import halls_lessons as lessons
from schoolhouse.gates import area, mean, ship
from schoolhouse.speak import Speaker
from vivavoce.schoolhouse import halls_world as world
from vivavoce.schoolhouse import tokenizer

TEACHERS = tuple(world.STRONG)
_SAID = re.compile(r'"door": (\d)\}.* conf=(\d\d)', re.DOTALL)


class State(NamedTuple):
    """Where a walk stands: what was said and seen, and the doors that are best."""

    text: str
    place: world.Place
    best: tuple[int, ...]


class Draft(NamedTuple):
    """What a teacher proposes."""

    text: str
    door: int | None
    confidence: float


def states(n: int, seed: int) -> list[State]:
    """``n`` states of walks by somebody who is right as often as chance has it, of errands of the test split."""
    rng, drawn = random.Random(f"gates/{seed}"), list[State]()
    while len(drawn) < n:
        errand = world.draw(rng, rng.choice(world.KINDS))
        walk = world.Walk(errand)
        turns = lessons.strolled(rng, walk)
        if not walk.done and walk.told and world.split_of(errand) == "test":
            text = lessons.errand_text(errand) + lessons.history(turns)
            drawn.append(State(text, (walk.hall, walk.room), walk.best()))
    return drawn


def drafts(speaker: Speaker, texts: list[str]) -> list[Draft]:
    """One proposal for each text."""
    replies = speaker.replies([tokenizer.prompt("act", text) for text in texts], max_new_tokens=20)
    matches = [_SAID.search(text) for text in replies]
    return [
        Draft(text, int(m[1]), float(m[2])) if m else Draft(text, None, 0.0)
        for text, m in zip(replies, matches, strict=True)
    ]


def measure(speakers: dict[str, Speaker], n: int, seed: int = 0) -> dict[str, Any]:
    """Each teacher alone and after reading the others, the surest of each round, and the student."""
    asked = states(n, seed)
    first = {name: drafts(speakers[name], [s.text for s in asked]) for name in TEACHERS}
    rng, second = random.Random(f"debate/{seed}"), dict[str, list[Draft]]()
    for me in TEACHERS:
        texts = []
        for i, state in enumerate(asked):
            names = dict(zip([t for t in TEACHERS if t != me], rng.sample(["p1", "p2"], 2), strict=True)) | {me: "me"}
            order = rng.sample(TEACHERS, len(TEACHERS))
            texts.append(state.text + "".join(f"\n{names[t]}: {first[t][i].text}" for t in order))
        second[me] = drafts(speakers[me], texts)

    def right(answers: list[Draft]) -> list[bool]:
        return [d.door in s.best for d, s in zip(answers, asked, strict=True)]

    def surest(of: dict[str, list[Draft]]) -> list[Draft]:
        return [max(rivals, key=lambda d: d.confidence) for rivals in zip(*of.values(), strict=True)]

    result: dict[str, Any] = {"states": n, "teachers": {}}
    for name in TEACHERS:
        known = [s.place in world.taught_rooms(name) for s in asked]
        alone, both = right(first[name]), right(second[name])
        taught, confidences = [float(k) for k in known], [d.confidence for d in first[name]]
        result["teachers"][name] = {
            "alone": mean(alone),
            "of what it was taught": mean([ok for ok, k in zip(alone, known, strict=True) if k]),
            "of the rest": mean([ok for ok, k in zip(alone, known, strict=True) if not k]),
            "after debate": mean(both),
            "auroc said": area(confidences, [bool(t) for t in taught]),
        }
    result["votes"] = {
        "surest draft": mean(right(surest(first))),
        "surest after debate": mean(right(surest(second))),
        "any draft": mean([any(ok) for ok in zip(*(right(d) for d in first.values()), strict=True)]),
    }
    replies = speakers["student"].replies([tokenizer.prompt("act", s.text) for s in asked], max_new_tokens=16)
    doors = [re.search(r'"door": (\d)\}', text) for text in replies]
    result["student"] = mean([m is not None and int(m[1]) in s.best for m, s in zip(doors, asked, strict=True)])
    return result


def gates(measured: dict[str, Any]) -> dict[str, bool]:
    """What has to hold."""
    teachers = measured["teachers"].values()
    best = max(t["alone"] for t in teachers)
    return {
        "teachers know what they were taught (.9)": min(t["of what it was taught"] for t in teachers) > 0.9,
        "teachers know what they know (AUROC .95)": min(t["auroc said"] for t in teachers) > 0.95,
        "the debate beats the best teacher by 15 points": measured["votes"]["surest after debate"] > best + 0.15,
        "every teacher gains 7 points by it": all(t["after debate"] > t["alone"] + 0.07 for t in teachers),
        "the student has much to learn (below .6)": measured["student"] < 0.6,
    }


def measured(weights: Path, n: int) -> dict[str, Any]:
    """All numbers of a folder, and what of it holds."""
    measured = measure({name: Speaker.load(weights / name) for name in world.NAMES}, n)
    return measured | {"gates": gates(measured)}


if __name__ == "__main__":
    sys.exit(ship(__doc__, "weights/halls", 2000, measured, lambda measured: json.dumps(measured, indent=1)))
