"""The index of a run, the server that shows it, and the files of an export, without a browser."""

from __future__ import annotations

import asyncio
import json
import os
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.report.whole_run import debates, write_run
from tests.view.shown_run import shown_run, told_debate

from vivavoce.agents.journal import Journal
from vivavoce.agents.scripted import Scripted
from vivavoce.errors import AgentError, DataError
from vivavoce.exams.examine import Judged
from vivavoce.graph import Graph, write_graphs
from vivavoce.records import Example, Message, Problem, Sampling, Usage, node, to_json
from vivavoce.report.verdicts import seats
from vivavoce.tasks import open_task
from vivavoce.view.export import export_runs
from vivavoce.view.index import Index
from vivavoce.view.pages import Pages, keys_of
from vivavoce.view.place import index_file


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a whole run."""
    return shown_run(tmp_path_factory.mktemp("runs") / "demo", count=30)


def indexed(run: Path) -> Index:
    index = Index(run, run / "view.sqlite")
    index.refresh()
    assert not index.unread
    return index


def graph_of(*texts: str, id: str = "p") -> Graph:
    nodes = (node("answer", id, f"a{i}", 0, text, answer="1", correct=True) for i, text in enumerate(texts))
    return Graph(Problem(id, "?", "1"), tuple(nodes))


def test_the_letters_of_a_set_are_those_of_its_graphs_and_test_answers(run: Path) -> None:
    index = indexed(run)
    assert list(index.sets().items()) == [("train", 31), ("test", 15)]
    known = [seats(g) for g in debates(30)]
    for column in index.columns("train"):
        rows = list(column.letters[:30])
        cells = tuple(column.label.values())
        assert rows == [next((v for k, v in one.items() if tuple(k) == cells), "-") for one in known]
    arms = {(c.label["arm"], c.label["seed"]) for c in index.columns("test") if "arm" in c.label}
    assert arms == {("student", 0), ("single:ada", 0), ("single:ada", 1), ("debate_reflect", 0), ("debate_reflect", 1)}


def test_every_place_leads_to_the_line_that_it_is_about(run: Path) -> None:
    index = indexed(run)
    pages = Pages("demo", run, index).get(["question", "train", "30"])
    assert pages["problem"]["id"] == "hostile/1"
    assert [n["kind"] for n in pages["debates"][0]["nodes"]] == ["answer", "answer", "critique", "answer"]
    assert [row["in"] for row in pages["rows"]] == [["debate_reflect_sft", "multi_teacher"]], "equal rows are told once"
    test = Pages("demo", run, index).get(["question", "test", "3"])
    assert len(test["answers"]) == 5


def test_a_file_is_read_again_only_if_it_has_changed(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", count=6)
    index = indexed(run)
    version = index.version
    assert not index.refresh()
    assert index.version == version
    write_graphs(run / "graphs" / "train.jsonl.gz", [graph_of("a narwhal", id="new")])
    assert index.refresh()
    assert index.search("train", "narwhal") == [index.find("train", "new")]
    assert index.search("train", "chain") == [], "what the file held before is forgotten"
    (run / "graphs" / "train.jsonl.gz").unlink()
    index.refresh()
    assert index.search("train", "narwhal") == []


def test_a_stage_whose_name_begins_like_a_test_is_none(tmp_path: Path) -> None:
    (tmp_path / "graphs").mkdir()
    (tmp_path / "data").mkdir()
    write_graphs(tmp_path / "graphs" / "testing.jsonl.gz", [graph_of("right")])
    row = Example("p", ({"role": "user", "content": "?"},), "right", ("n",))
    (tmp_path / "data" / "sft.jsonl").write_text(to_json(row) + "\n", encoding="utf-8")
    [_, taught] = indexed(tmp_path).places("testing", 0)
    assert taught.label == {"data": "sft"}


def test_words_are_found_in_any_case_script_and_order(tmp_path: Path) -> None:
    (tmp_path / "graphs").mkdir()
    texts = [
        graph_of("The Résumé is long", id="1"),
        graph_of("東京は大きい。", id="2"),
        graph_of("long ago", "a short résumé", id="3"),
    ]
    write_graphs(tmp_path / "graphs" / "train.jsonl.gz", texts)
    index = indexed(tmp_path)
    for query, hits in {
        "resume": [0, 2],
        "LONG résu": [0, 2],
        "lon": [0, 2],
        "lon ago": [],
        "大き": [1],
        "京": [1],
        'short" OR x*': [],
        "-long (": [0, 2],
        "": [],
    }.items():
        assert index.search("train", query) == hits, query


@pytest.mark.parametrize("name", ["train.jsonl.gz", "train.jsonl"])
def test_a_line_that_cannot_be_read_is_told_and_the_others_are_shown(tmp_path: Path, name: str) -> None:
    (tmp_path / "graphs").mkdir()
    file = tmp_path / "graphs" / name
    write_graphs(file, [graph_of("one", id="1"), graph_of("two", id="2")])
    file.write_bytes(file.read_bytes()[:-40])
    index = Index(tmp_path, tmp_path / "view.sqlite")
    index.refresh()
    assert index.sets() == {"train": 1}
    assert "1 lines cannot be read" in index.unread[f"graphs/{name}"]
    assert Pages("x", tmp_path, index).get(["state"])["unread"][0]["file"] == f"graphs/{name}"


def test_calls_of_a_debate_that_is_under_way_are_shown_until_its_graph_is_there(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("name: r\n")

    def respond(messages: object, sampling: object, seed: int) -> str:
        if seed == 2:
            raise AgentError("server", "it broke")
        return "The answer is 4."

    async def ask(seed: int) -> None:
        with Journal(tmp_path / "journal.sqlite") as calls:
            asked = [{"role": "user", "content": f"2 + {seed}?"}]
            agent = Scripted("ada", respond)  # type: ignore[arg-type]
            await calls.call(agent, asked, Sampling(), seed, stage="debate:train", question=f"q{seed}", kind="answer")  # type: ignore[arg-type]

    for seed in (1, 2):
        asyncio.run(ask(seed))
    index = indexed(tmp_path)
    pages = Pages("r", tmp_path, index)
    assert index.sets() == {"train": 2}
    assert index.columns("train")[-1].letters == "LL"
    assert [c["text"] for c in pages.get(["question", "train", "0"])["calls"]] == ["The answer is 4."]
    (failed,) = pages.get(["failures"])
    assert (failed["agent"], failed["problem"], failed["error"]) == ("ada", "q2", "server: it broke")
    asyncio.run(ask(3))
    index.refresh()
    assert index.sets() == {"train": 3}
    (tmp_path / "graphs").mkdir()
    write_graphs(tmp_path / "graphs" / "train.jsonl.gz", [graph_of("4", id=f"q{i}") for i in (1, 2, 3)])
    index.refresh()
    assert pages.get(["question", "train", "0"])["calls"] == []
    assert [c.letters for c in index.columns("train")] == ["RRR"]


def test_the_exact_prompt_of_a_test_answer_is_found_in_the_journal(tmp_path: Path) -> None:
    run = shown_run(tmp_path / "demo", count=4)
    asked: list[Message] = [{"role": "system", "content": "solve"}, {"role": "user", "content": "What is it?"}]

    async def ask(stage: str) -> None:
        with Journal(run / "journal.sqlite") as calls:
            agent = Scripted("stu", lambda *_: "4")
            await calls.call(agent, asked, Sampling(), 5, stage=stage, problem="q-0001", kind="test")

    asyncio.run(ask("part/test"))
    pages = Pages("demo", run, indexed(run))
    assert pages.get(["asked", "test", "1"]) == [["system", "solve"], ["user", "What is it?"]]
    assert pages.get(["asked", "test", "0"]) is None


def test_questions_that_no_file_holds_have_the_text_of_the_runs_task_as_they_come(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("task: {name: schoolhouse, train: 6, test: 2}\n")
    known = open_task("schoolhouse", {"train": 6, "test": 2}).problems("train")
    asked: list[Message] = [{"role": "user", "content": "?"}]

    async def ask(i: int) -> None:
        agent = Scripted("ada", lambda *_: "ans=1")
        with Journal(tmp_path / "journal.sqlite") as calls:
            await calls.call(agent, asked, Sampling(), i, stage="debate:train", question=known[i].id)

    index = Index(tmp_path, tmp_path / "view.sqlite")
    for i in (0, 1):
        asyncio.run(ask(i))
        index.refresh()
    assert index.heads("train", 0, 9) == [(p.question, p.gold) for p in known[:2]]
    assert index.search("train", known[1].question.split(";")[0].replace("=", " ")) != []


def test_test_questions_have_the_text_that_their_answers_were_kept_with(tmp_path: Path) -> None:
    rows = [Judged(f"q{i}", "sums", "ans=4", "4", True, "ok", Usage(1, 1), f"twice {i}?", "4") for i in (0, 1)]
    (tmp_path / "recipe.yaml").write_text("task: {name: svamp, train_path: gone, test_path: gone}\n")
    (tmp_path / "evaluations").mkdir()
    for arm in ("student", "taught"):
        (tmp_path / "evaluations" / f"{arm}-0.jsonl").write_text("".join(to_json(row) + "\n" for row in rows))
    index = Index(tmp_path, tmp_path / "view.sqlite")
    index.refresh()
    assert index.heads("test", 0, 9) == [("twice 0?", "4"), ("twice 1?", "4")]
    assert index.question("test", 1) == Problem("q1", "twice 1?", "4", "sums")
    assert len(index.search("test", "twice")) == 2


def test_runs_of_one_name_have_keys_of_their_own(tmp_path: Path) -> None:
    assert keys_of([tmp_path / "a" / "demo", tmp_path / "b" / "demo"]) == {
        "demo": tmp_path / "a" / "demo",
        "b-demo": tmp_path / "b" / "demo",
    }


def test_the_index_lies_elsewhere_if_the_run_may_not_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert index_file(tmp_path) == tmp_path / "view.sqlite"
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert (tmp_path / "cache") in index_file(tmp_path).parents


def test_an_export_replaces_an_earlier_one_and_nothing_else(run: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(DataError, match="something else"):
        export_runs([run], tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.txt").exists()
    first = export_runs([run], tmp_path / "out")
    assert export_runs([run], tmp_path / "out") == first
    for script in (tmp_path / "out" / "data").rglob("*.js"):
        text = script.read_text("utf-8")
        assert text.startswith("viva.files.give(")
        name, _, value = text.removeprefix("viva.files.give(").removesuffix(");\n").partition(",")
        assert json.loads(name) == script.relative_to(tmp_path / "out" / "data").with_suffix("").as_posix()
        json.loads(value)


@pytest.fixture(scope="module")
def port(run: Path) -> Iterator[int]:
    """The port of a server that shows the run."""
    uvicorn = pytest.importorskip("uvicorn")
    import socket

    from vivavoce.view.server import Viewer, app

    viewer = Viewer([run.parent])
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app(viewer), log_level="error", ws="none"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield listening.getsockname()[1]
    server.should_exit = True
    thread.join(10)
    viewer.close()
    listening.close()


def asked(port: int, path: str, method: str = "GET", host: str | None = None) -> tuple[int, dict[str, str], str]:
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", method=method)
    if host:
        request.add_header("Host", host)
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, dict(answer.headers), answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, dict(error.headers), error.read().decode()


def test_the_server_answers_this_machine_alone_and_changes_nothing(port: int, run: Path) -> None:
    status, headers, text = asked(port, "/")
    assert (status, "script-src 'self'" in headers["content-security-policy"]) == (200, True)
    assert "http://" not in text
    assert asked(port, "/", host="evil.example")[0] == 400, "a name that leads here from the web"
    assert asked(port, "/api/runs", host=f"evil.example:{port}")[0] == 400
    assert asked(port, "/api/runs", host=f"localhost:{port}")[0] == 200
    for method in ("POST", "PUT", "DELETE"):
        assert asked(port, "/api/runs", method)[0] == 405
        assert asked(port, "/api/run/demo/state", method)[0] == 405
    for path in (
        "/static/../server.py",
        "/static/%2e%2e/%2e%2e/run.py",
        "/api/run/..%2f/state",
        "/api/run/demo/question/train/99",
    ):
        assert asked(port, path)[0] == 404, path
    assert asked(port, "/api/run/demo/no-such")[0] == 404


def test_a_text_that_ends_no_script_is_sent_as_json(port: int) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and '"train"' not in asked(port, "/api/run/demo/sets")[2]:
        time.sleep(0.1)
    _, headers, text = asked(port, "/api/run/demo/question/train/30")
    assert headers["content-type"] == "application/json"
    assert headers["x-content-type-options"] == "nosniff"
    assert json.loads(text)["debates"][0]["nodes"][0]["text"] == told_debate().nodes[0].text
