"""The moderator of docs/own-protocol.md: checked, planned, run, killed, resumed and shown, as a reader meets it."""

from __future__ import annotations

import ast
import json
import os
import re
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from tests.command import Program, python, viva
from tests.methods.conftest import student as student

from vivavoce.agents.journal import Journal
from vivavoce.committee.prompting import PromptSet
from vivavoce.config import load_recipe
from vivavoce.errors import RecipeError
from vivavoce.graph import Graph, read_graphs
from vivavoce.methods import debate_reflect
from vivavoce.records import digest
from vivavoce.report.transcript import transcript
from vivavoce.tasks import open_task

PAGE = (Path(__file__).parent.parent / "docs" / "own-protocol.md").read_text("utf-8")
FILES = dict(re.findall(r"^`([\w./]+)`\n\n```\w+\n(.*?)^```", PAGE, re.M | re.S))
LOGGED = '''

def _logged(reply):
    """The reply, once the call stands in the log."""
    import os
    from vivavoce.records import digest

    def answer(messages, sampling, seed):
        with open(os.environ["VIVA_TEST_LOG"], "a") as log:
            log.write(digest([list(messages), seed]) + "\\n")
        return reply(messages, sampling, seed)

    return answer


ada, bob, cyd = map(_logged, (ada, bob, cyd))
'''


def write(folder: Path, **changes: str) -> Path:
    """The folder of a reader who has copied every block of the page; ``changes`` are files that differ."""
    for name, text in {**FILES, **changes}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, "utf-8")
    return folder


@pytest.fixture
def copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return write(tmp_path)


def test_every_block_of_the_page_is_a_file_and_the_moderator_is_short() -> None:
    assert PAGE.count("```") == 2 * len(FILES)
    assert len(FILES["debates/moderator.py"].splitlines()) <= 60
    ast.parse(FILES["debates/moderator.py"])


def test_a_wrong_key_of_the_page_is_told_with_its_line(copied: Path) -> None:
    recipe = FILES["moderated.yaml"].replace("max_rounds: 3", "max_round: 3")
    (copied / "wrong.yaml").write_text(recipe)
    line = recipe.splitlines().index("  max_round: 3") + 1
    with pytest.raises(RecipeError, match="did you mean `max_rounds`") as error:
        load_recipe(Path("wrong.yaml"))
    assert error.value.where == f"wrong.yaml:{line}"


def test_a_template_of_the_pages_own_may_use_what_any_is_given_and_what_the_page_gives(copied: Path) -> None:
    rules = load_recipe(Path("moderated.yaml")).rules
    PromptSet(Path("debates/prompts")).need(rules.templates, rules.values)
    template = copied / "debates" / "prompts" / "moderation.md"
    template.write_text(template.read_text("utf-8").replace("statements", "statement"), "utf-8")
    with pytest.raises(RecipeError, match="did you mean `statements`") as error:
        PromptSet(Path("debates/prompts")).need(rules.templates, rules.values)
    assert error.value.where == "debates/prompts/moderation.md:6"
    with pytest.raises(RecipeError, match="uses `last`"):
        PromptSet(Path("debates/prompts")).need(["moderation"])


def test_the_plan_counts_the_calls_of_the_page(copied: Path) -> None:
    recipe: Any = load_recipe(Path("moderated.yaml"))
    calls = {(p.stage, p.agent): p.calls for p in debate_reflect.plan(recipe)}
    ada, bob = calls["debate:train", "ada"], calls["debate:train", "bob"]
    assert (ada.least, ada.most) == (24 * 2, 24 * 5), "an answer and a summary; at most three answers and two summaries"
    assert (bob.least, bob.most) == (24, 24 * 3)
    assert bob.least < bob.expected < bob.most
    assert {path.name for path in copied.iterdir()} == {"debates", "moderated.yaml"}


def run(folder: Path, out: str, log: Path) -> Program:
    words, env = ("run", "moderated.yaml", "--out", out, "--alone"), {**os.environ, "VIVA_TEST_LOG": str(log)}
    return python("viva", *words, cwd=folder, env=env, output=folder / f"{out}.txt")


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def test_the_moderator_is_run_killed_resumed_and_shown(student: Path, tmp_path: Path) -> None:
    recipe = FILES["moderated.yaml"].replace("schoolhouse:student", str(student))
    recipe = re.sub(r'(function: "[^"]*")', r"\1, latency_s: 0.05", recipe) + "in_flight: 3\n"
    write(tmp_path, **{"moderated.yaml": recipe, "debates/teachers.py": FILES["debates/teachers.py"] + LOGGED})

    process, log, killed = run(tmp_path, "killed", tmp_path / "log"), tmp_path / "log", tmp_path / "killed"
    while len(lines(log)) < 40 and process.poll() is None:
        time.sleep(0.01)
    assert process.poll() is None, (tmp_path / "killed.txt").read_text()
    process.kill()
    process.wait()
    with Journal(killed / "journal.sqlite", read_only=True) as journal:
        completed = {digest([c.messages, c.seed]) for c in journal if c.agent != "student"}
    asked = len(lines(log))
    assert 0 < len(completed) <= asked
    assert not (killed / "graphs" / "train.jsonl.gz").exists(), "it was killed in its debates"

    both = run(tmp_path, "killed", log), run(tmp_path, "whole", tmp_path / "whole.log")
    assert [p.wait(300) for p in both] == [0, 0], (tmp_path / "killed.txt").read_text()
    assert not completed & set(lines(log)[asked:]), "a call that was completed was asked again"
    assert set(lines(log)) == set(lines(tmp_path / "whole.log"))
    for name in ("train", "test"):
        graphs = f"graphs/{name}.jsonl.gz"
        assert (killed / graphs).read_bytes() == (tmp_path / "whole" / graphs).read_bytes()

    graphs = list(read_graphs(killed / "graphs" / "train.jsonl.gz"))
    _is_recorded(graphs)
    _is_shown(graphs, killed, tmp_path)


def _is_recorded(graphs: list[Graph]) -> None:
    assert len(graphs) == 24
    assert set(Counter(g.stopped for g in graphs)) == {"moderator", "cap"}
    for graph in graphs:
        graph.check()
        for n in graph.nodes:
            kinds = Counter(graph.by_id[p].kind for p in n.parents)
            if n.kind == "moderation":
                assert (n.agent, kinds) == ("ada", {"answer": 3})
                assert all(graph.by_id[p].text in graph.messages_of(n)[-1]["content"] for p in n.parents)
                assert (n.score == 1) == (len({graph.by_id[p].answer for p in n.parents}) == 1)
                assert ("One round is left." in graph.messages_of(n)[-1]["content"]) == (n.round == 1)
            elif n.round:
                assert kinds == {"answer": 3, "moderation": 1}
            else:
                assert not kinds


def _is_shown(graphs: list[Graph], run: Path, folder: Path) -> None:
    results = json.loads((run / "results.json").read_text())
    assert {"student", "debate_reflect_sft"} <= {arm["name"] for arm in results["arms"]}
    shown = viva("graph", "show", run)
    assert shown.returncode == 0, shown.stderr
    assert "(moderation) ada: score" in shown.stdout
    assert "The answers given are" in shown.stdout
    task = open_task("schoolhouse", {})
    for graph in graphs:
        text = transcript(graph, task)
        assert all(n.text.splitlines()[0] in text for n in graph.nodes if n.kind == "moderation")
    report = (run / "report.html").read_text("utf-8")
    assert "The answers given are" in report
    assert "moderation" in report
