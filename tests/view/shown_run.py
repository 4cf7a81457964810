"""A run directory for the viewer: debates with prompts, answers of every arm, rows, texts that would do harm."""

from __future__ import annotations

import json
from pathlib import Path

from tests.report.whole_run import ARMS, HOSTILE, answer, debates, what_it_is, write_run

from vivavoce.exams.examine import Judged
from vivavoce.exams.table import results
from vivavoce.graph import Graph, write_graphs
from vivavoce.records import GOLD, Example, Problem, Quote, Usage, node, prompt, to_json

RIGHT_TO_LEFT = "\u202eevil\u202c \u2067turned\u2069 שלום"
MARKDOWN = "# Title\n[link](javascript:alert(1)) ![x](http://evil.example/x.png) **bold** <b>bold</b>"
LONG = "z" * 30 + " " + "0123456789abcdef " * 65_000
"""A megabyte."""
STUDENTS = ["student", "single:ada", "debate_reflect"]


def told_debate(id: str = "hostile/1") -> Graph:
    """A debate whose second answer was asked with a prompt that quotes the first, and a reviewer's word about it."""
    p = Problem(id, f"What is <i>2 + 2</i>? {HOSTILE}", "4", "<b>group</b>")
    asked = prompt("answer", (), (("system", ("Be brief.",)), ("user", (p.question,))))
    first = answer(p, "ada", 0, "5", text=f"Wombat. {HOSTILE} {MARKDOWN} {RIGHT_TO_LEFT}", prompt=asked.id)
    about = prompt(
        "critique", (first.id,), (("user", ("They say: ", Quote(first.id, first.text), " Gold: ", Quote(GOLD, "4"))),)
    )
    speech = node(
        "critique",
        p.id,
        "ben",
        0,
        f"Look again. {RIGHT_TO_LEFT}",
        parents=(first.id,),
        target=first.id,
        prompt=about.id,
        score=0.5,
        saw_gold=True,
    )
    read = prompt(
        "answer", (first.id, speech.id), (("user", (p.question, "\nOthers: ", Quote(speech.id, speech.text))),)
    )
    second = answer(p, "ada", 1, "4", text=LONG, parents=(speech,), prompt=read.id)
    failed = node("answer", p.id, "cyd", 0, "", status="error", error=f"401 {HOSTILE}")
    return Graph(
        p, (first, failed, speech, second), "my own <word>", prompts={one.id: one for one in (asked, about, read)}
    )


def exam_rows(graphs: list[Graph], arm: int, hostile: bool = False) -> list[Judged]:
    """Answers of an arm to test questions: every third is right, beginning with another one for each arm."""
    rows = []
    for i, g in enumerate(graphs):
        right = (i + arm) % 3 == 0
        text = f"I am arm {arm} and say {i}. {HOSTILE if hostile else ''} {'Quokka.' if i == 7 else ''}"
        rows.append(
            Judged(g.problem.id, g.problem.group, text, g.problem.gold if right else "no", right, "ok", Usage(9, 5))
        )
    return rows


def shown_run(path: Path, count: int = 60) -> Path:
    """The run directory."""
    write_run(path, count=count)
    train, test = [*debates(count), told_debate()], debates(count // 2, 1)
    write_graphs(path / "graphs" / "train.jsonl.gz", train)
    write_graphs(path / "graphs" / "test.jsonl.gz", test)
    (path / "evaluations").mkdir()
    tested = {}
    for k, arm in enumerate(STUDENTS):
        seeds = [0] if arm == "student" else [0, 1]
        tested[arm] = {seed: exam_rows(test, k + seed) for seed in seeds}
        for seed, rows in tested[arm].items():
            file = path / "evaluations" / f"{arm.replace(':', '+')}-{seed}.jsonl"
            file.write_text("".join(to_json(row) + "\n" for row in rows), "utf-8")
    pairs = [("student", "debate_reflect"), ("single:ada", "debate_reflect")]
    figures = results(
        "schoolhouse", tested, pairs, 754.2, {arm: what_it_is(arm) for arm in ARMS}, main="debate_reflect"
    )
    (path / "results.json").write_text(json.dumps(figures), "utf-8")
    (path / "data").mkdir()
    learnt = [
        Example(g.problem.id, ({"role": "user", "content": "?"},), f"Learn {HOSTILE}", (g.nodes[0].id,)) for g in train
    ]
    for name in ("debate_reflect_sft", "multi_teacher"):
        (path / "data" / f"{name}.jsonl").write_text("".join(to_json(row) + "\n" for row in learnt), "utf-8")
    return path
