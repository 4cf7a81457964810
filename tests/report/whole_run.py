"""A run directory made of real records, without a model: debates, evaluations, curves, a journal, a manifest."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml

from vivavoce.agents.journal import Journal
from vivavoce.agents.scripted import Scripted
from vivavoce.errors import AgentError
from vivavoce.exams.arms import Arm
from vivavoce.exams.examine import Judged
from vivavoce.exams.table import results
from vivavoce.files import file_name
from vivavoce.graph import Graph, write_graphs
from vivavoce.records import Node, Problem, Sampling, Usage, node

HOSTILE = (
    "<script>alert(1)</script> </script><img src=x onerror=alert(2)> {{ 7*7 }} {% raw %} "
    "\x1b[31mred\x1b[0m \u202egnorw &amp; \" ' ]]> <!-- http://evil.example/x.js"
)
TEACHERS = ["ada", "ben", "cyd"]
STUDENT = "stu"
SKILLS = ["sum", "mul", "bit", "mix"]


def answer(
    problem: Problem,
    agent: str,
    round: int,
    stated: str | None,
    *,
    text: str = "",
    parents: Sequence[Node] = (),
    **rest: Any,
) -> Node:
    """An answer as the debate writes it."""
    return node(
        "answer",
        problem.id,
        agent,
        round,
        text or f"Step by step, I get {stated}.",
        parents=tuple(n.id for n in parents),
        answer=stated,
        correct=None if stated is None else stated == problem.gold,
        status="no_answer" if stated is None else "ok",
        usage=Usage(80, 20),
        **rest,
    )


def small_debate() -> Graph:
    """Two rounds: ben is talked out of his mistake, stu is talked into one, cyd's call fails, dee says nothing."""
    p = Problem("sums-7", "What is 12 + 30?\nShow every step.", "42", "sum")
    first = [
        answer(p, "ada", 0, "42", text="12 + 30 = 42, so the answer is 42.", confidence=0.9, probability=0.97),
        answer(p, "ben", 0, "41", text="12 + 30 = 41. The answer is 41.", confidence=0.6, probability=0.5),
        node("answer", p.id, "cyd", 0, "", status="error", error="timeout: no reply in 60 s"),
        answer(p, "dee", 0, None, text="I would rather not say."),
        answer(p, "stu", 0, "42", text="The answer is 42.", confidence=0.3, probability=0.4),
        answer(p, "stu", 0, "43", text="The answer is 43.", sample=1),
    ]
    ada, ben = first[0], first[1]
    notes = [
        node(
            "reflection", p.id, "ben", 0, "I may have dropped a carry.", parents=(ben.id,), target=ben.id, saw_gold=True
        ),
        node(
            "critique",
            p.id,
            "ada",
            0,
            "2 + 0 = 2, not 1: look at your last digit again. " * 3,
            parents=(ada.id, ben.id),
            target=ben.id,
            score=2.0,
        ),
    ]
    shown = [*first[:2], first[3], first[4], *notes]
    second = [
        answer(p, "ada", 1, "42", text="Still 42.", parents=shown, confidence=0.95, probability=0.98, saw_gold=True),
        answer(
            p,
            "ben",
            1,
            "42",
            text="Right: the answer is 42.",
            parents=shown,
            confidence=0.8,
            probability=0.9,
            saw_gold=True,
        ),
        answer(
            p, "stu", 1, "41", text="The answer is 41.", parents=shown, confidence=0.5, probability=0.3, saw_gold=True
        ),
    ]
    return Graph(p, (*first, *notes, *second), "cap", oracle_roles=True)


def debates(count: int, seed: int = 0, text: Callable[[str], str] = lambda t: t) -> list[Graph]:
    """Debates of three teachers and a student, drawn at random; graphs as the engine would write them."""
    draw, made = random.Random(seed), list[Graph]()
    for i in range(count):
        p = Problem(
            f"q-{i:04}",
            text(f"Work out problem number {i}: what is the value of the chain?"),
            str(draw.randrange(10)),
            SKILLS[i % 4],
        )
        everyone, nodes, before, alive = [*TEACHERS, STUDENT], list[Node](), list[Node](), list[Node]()
        for r in range(3):
            now = []
            for agent in everyone:
                was = next((n for n in before if n.agent == agent), None)
                chance = 0.55 if was is None else 0.93 if was.correct else 0.45
                stated = p.gold if draw.random() < chance else str(draw.randrange(10))
                if draw.random() < 0.02:
                    now.append(node("answer", p.id, agent, r, "", status="error", error=text("rate_limit: slow down")))
                    continue
                sure = min(0.99, max(0.01, draw.gauss(0.75 if stated == p.gold else 0.4, 0.2)))
                now.append(
                    answer(
                        p,
                        agent,
                        r,
                        None if draw.random() < 0.03 else stated,
                        parents=before,
                        confidence=round(sure, 2),
                        text=text(
                            f"First look at {i}. a={i % 7}+{r}; b=a*2; then the answer is {stated}, agent {agent} "
                            + "because each step follows from the one before. " * draw.randrange(1, 5)
                        ),
                        probability=None if agent == STUDENT else round(sure, 4),
                    )
                )
            nodes += now
            alive = [n for n in now if n.status != "error"]
            if len({n.answer for n in alive}) == 1:
                break
            if r < 2:
                wrong = [n for n in alive if n.correct is False]
                notes = [
                    node(
                        "reflection",
                        p.id,
                        n.agent,
                        r,
                        text("I should check my second step again."),
                        parents=(n.id,),
                        target=n.id,
                        saw_gold=draw.random() < 0.1,
                    )
                    for n in wrong
                ]
                notes += [
                    node(
                        "critique",
                        p.id,
                        c.agent,
                        r,
                        text(
                            f"Your step b is not what it should be, {n.agent}: "
                            "look at a once more before you double it."
                        ),
                        parents=(c.id, n.id),
                        target=n.id,
                    )
                    for n in wrong
                    for c in alive
                    if c.correct
                ]
                nodes += notes
                before = [*alive, *notes]
        made.append(Graph(p, tuple(nodes), "consensus" if len({n.answer for n in alive}) == 1 else "cap", True))
    return made


def judged_rows(n: int, accuracy: float, seed: int, tokens: tuple[int, int] = (60, 40)) -> list[Judged]:
    """Answers to ``n`` test questions; arms of one seed agree on what is hard."""
    hard = random.Random(5)
    luck = random.Random(seed)
    rows = []
    for i in range(n):
        right = 0.7 * hard.random() + 0.3 * luck.random() < accuracy
        unparsed = not right and luck.random() < 0.1
        rows.append(
            Judged(
                f"t-{i}",
                SKILLS[i % 4],
                "",
                None if unparsed else "1",
                None if unparsed else right,
                "no_answer" if unparsed else "ok",
                Usage(*tokens),
            )
        )
    return rows


ARMS = {
    "student": 0.24,
    "single:ada": 0.45,
    "single:ben": 0.5,
    "single:cyd": 0.41,
    "multi_teacher": 0.56,
    "debate_reflect_sft": 0.7,
    "debate_reflect": 0.745,
    "sft_continued": 0.74,
    "teacher:ada": 0.56,
    "teacher:ben": 0.53,
    "teacher:cyd": 0.5,
    "vote:majority": 0.66,
    "vote:most_confident": 0.72,
    "vote:confidence": 0.73,
    "vote:debate": 0.8,
}


def what_it_is(name: str) -> Arm:
    """The facts of an arm of :data:`ARMS`."""
    kind, _, speaker = name.partition(":")
    if kind == "single" or name == "multi_teacher":
        return Arm(name, material="drafts", teacher=speaker or None)
    if kind in ("teacher", "vote"):
        return Arm(name, "debate" if speaker == "debate" else "committee")
    return Arm(name, material="" if name == "student" else "debate")


PAIRS = [
    ("single:ben", "debate_reflect_sft"),
    *((a, "debate_reflect") for a in ("student", "single:ben", "multi_teacher", "debate_reflect_sft", "sft_continued")),
    *((a, "vote:debate") for a in ARMS if a.startswith(("teacher:", "vote:")) and a != "vote:debate"),
]


def some_results(n: int = 400, seeds: Sequence[int] = (0, 1, 2)) -> dict[str, Any]:
    """Results of a whole run, as ``evaluate/table.py`` makes them."""

    def trained(arm: str) -> bool:
        return arm != "student" and not arm.startswith(("teacher:", "vote:"))

    arms = {
        arm: {
            s: judged_rows(
                n,
                accuracy,
                100 * s + i,
                (60, 40) if trained(arm) or arm == "student" else (900, 260) if arm == "vote:debate" else (180, 120),
            )
            for s in (seeds if trained(arm) else seeds[:1])
        }
        for i, (arm, accuracy) in enumerate(ARMS.items())
    }
    facts = {arm: what_it_is(arm) for arm in ARMS}
    return results("schoolhouse", arms, PAIRS, 754.2, facts, best_single="single:ben")


def curve(folder: Path, seed: int, dpo: bool) -> None:
    """A loss curve and its summary, as training leaves them."""
    folder.mkdir(parents=True)
    draw, points = random.Random(seed), []
    for step in range(1, 201, 10):
        loss = (0.69 - step / 800 if dpo else 2.2 * 0.985**step + 0.3) + draw.gauss(0, 0.02)
        ranked = {"rewards/accuracies": min(1, 0.5 + step / 500), "rewards/margins": step / 300} if dpo else {}
        points.append({"loss": loss, "step": step, "learning_rate": 1e-3, "epoch": step / 100, **ranked})
    (folder / "loss.jsonl").write_text("".join(json.dumps(x) + "\n" for x in points))
    (folder / "train_result.json").write_text(
        json.dumps(
            {
                "path": str(folder),
                "steps": 200,
                "first_loss": points[0]["loss"],
                "last_loss": points[-1]["loss"],
                "rows_used": 1500,
                "rows_dropped": 3,
                "tokens_seen": 123456,
                "seconds": 31.4,
                "details": {},
                "key": "k",
            }
        )
    )


async def journal(path: Path) -> None:
    """A few real calls, one of which fails and one of which is asked twice."""

    def respond(messages: Any, sampling: Any, seed: int) -> str:
        if seed == 3:
            raise AgentError("timeout", HOSTILE)
        return "The answer is 4."

    with Journal(path) as calls:
        for name in [*TEACHERS, STUDENT]:
            agent = Scripted(name, respond)
            for seed in (1, 2, 3, 1):
                await calls.call(agent, [{"role": "user", "content": "2 + 2?"}], Sampling(), seed, stage="debate:train")
        await calls.call(Scripted(STUDENT, respond), [{"role": "user", "content": "test"}], Sampling(), 1, stage="test")


def write_run(path: Path, *, text: Callable[[str], str] = lambda t: t, count: int = 60, whole: bool = True) -> Path:
    """A run directory; ``text`` rewrites what models said, and without ``whole`` the run was stopped in training."""
    (path / "graphs").mkdir(parents=True)
    write_graphs(path / "graphs" / "train.jsonl.gz", debates(count, text=text))
    write_graphs(path / "graphs" / "test.jsonl.gz", debates(count // 2, 1, text=text))
    for arm in (
        "single:ada",
        "single:ben",
        "single:cyd",
        "multi_teacher",
        "debate_reflect_sft",
        *(["debate_reflect", "sft_continued"] if whole else []),
    ):
        for seed in (0, 1, 2):
            curve(path / "checkpoints" / f"{file_name(arm)}-{seed}", seed, arm == "debate_reflect")
    asyncio.run(journal(path / "journal.sqlite"))
    (path / "recipe.yaml").write_text(
        yaml.safe_dump(
            {
                "method": "debate_reflect",
                "name": "demo",
                "seed": 0,
                "seeds": [0, 1, 2],
                "task": {"name": "schoolhouse"},
                "teachers": [{"name": t, "backend": "hf_local", "model": f"schoolhouse:{t}"} for t in TEACHERS],
                "student": {"name": STUDENT, "backend": "hf_local", "model": text("schoolhouse:student")},
            },
            sort_keys=False,
        )
    )
    (path / "manifest.json").write_text(
        json.dumps(
            {
                "vivavoce": "0.1.0",
                "recipe": "6f1c" * 16,
                "seed": 0,
                "python": "3.11.4",
                "machine": "Linux-6.1-x86_64",
                "packages": {"torch": "2.7.1", "transformers": "5.10.0"},
                "git": "0123456789ab-dirty",
                "started": "2026-01-31T12:00:00+0000",
                "stages": {"graphs/train.jsonl.gz": "a" * 64},
            }
        )
    )
    if whole:
        (path / "results.json").write_text(json.dumps(some_results()))
    return path
