from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from tests.report.whole_run import ARMS, HOSTILE, PAIRS, debates, judged_rows, some_results, write_run

from vivavoce.errors import DataError
from vivavoce.exams.table import results
from vivavoce.graph import write_graphs
from vivavoce.report import embedded, write_report
from vivavoce.report.comparison import p_value, percent
from vivavoce.report.sources import Sources
from vivavoce.view.pages import runs_in

_VOID = {"meta", "link", "br", "img", "line", "circle", "polyline"}


class Page(HTMLParser):
    """What a browser would make of the page: its tags, their attributes, its text; tags must close in order."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.texts: list[str] = []
        self.scripts: list[str] = []
        self.feed(html)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in _VOID:
            assert self.open.pop() == tag, f"</{tag}> closes something else at {self.getpos()}"

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script":
            self.scripts.append(data)
        elif self.open and self.open[-1] != "style":
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())

    @property
    def held(self) -> dict[str, Any]:
        """What the browser of questions shows."""
        return json.loads(self.scripts[0])


def page_of(run: Path) -> Page:
    return Page(write_report(run).read_text("utf-8"))


@pytest.fixture(scope="module")
def page(run: Path) -> Page:
    """The page of a whole run, written once."""
    return page_of(run)


def test_the_page_loads_nothing_and_runs_its_own_script_alone(run: Path) -> None:
    html = write_report(run).read_text("utf-8")
    assert not re.search(r"https?://(?!www.w3.org/2000/svg\b)|[\"'=(]//[a-z0-9.-]+\.[a-z]{2,}/", html)
    assert "@import" not in html
    assert "url(" not in html
    page = Page(html)
    assert not {tag for tag, _ in page.tags} & {"img", "iframe", "object", "embed", "form", "base"}
    for tag, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on")], tag
        assert "src" not in attributes
        assert (attributes.get("href") or "#").startswith(("#", "data:"))
    (policy,) = [a["content"] for _, a in page.tags if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    kinds = [a.get("type") for tag, a in page.tags if tag == "script"]
    assert kinds == ["application/json", None]
    encoded = base64.b64encode(hashlib.sha256(page.scripts[1].encode()).digest()).decode()
    assert policy.partition("script-src ")[2] == f"'sha256-{encoded}'", "no other script may run"


def test_every_arm_seed_and_p_value_is_on_the_page(page: Page) -> None:
    text, figures = page.text, some_results()
    for arm in figures["arms"]:
        assert arm["name"] in text
        assert f"{arm['right']}/{arm['n']}" in text
    for pair in figures["paired"]:
        assert f"{pair['a']} → {pair['b']}" in text
        assert p_value(pair["pooled"]["p"]) in text
        assert all(p_value(s["p"]) in text for s in pair.get("seeds", ()))
    assert all(arm in text for arm in ARMS)
    assert len(PAIRS) == len(figures["paired"])


def test_other_tests_are_on_the_page_beside_what_was_repaired_and_what_regressed(tmp_path: Path) -> None:
    other = some_results(100, seeds=(0,))
    (tmp_path / "results.json").write_text(json.dumps({**some_results(), "also": {"far": other}}))
    page = page_of(tmp_path)
    assert "far: schoolhouse, 100 questions" in page.text
    far = page.text[page.text.index("far: schoolhouse") : page.text.rindex("Accuracy and cost")]
    (pair,) = [p for p in other["paired"] if (p["a"], p["b"]) == ("student", "debate_reflect")]
    row = far[far.index("debate_reflect ") :].split("sft_continued")[0]
    assert f"{percent(pair['repaired'])} {percent(pair['regressed'])} {p_value(pair['p'])}" in row
    assert all(arm["name"] in far for arm in other["arms"])
    main = next(p for p in some_results()["paired"] if p["a"] == "student")
    of = main["pooled"]
    assert f"{of['b_only']} {percent(of['repaired'])} {percent(of['regressed'])}" in page.text
    assert "Other tests" not in page_of_results(tmp_path, some_results()).text


def page_of_results(folder: Path, figures: dict) -> Page:
    (folder / "results.json").write_text(json.dumps(figures))
    return page_of(folder)


def test_what_is_not_significant_is_said_to_be_so(page: Page) -> None:
    text = page.text
    assert "is not shown to differ from sft_continued" in text
    assert "not significant: too few questions to tell less than 3.2 points" in text
    assert "(vote:debate) is better than vote:most_confident, the strongest committee without debate, by 7" in text
    assert "Oracle roles" in text


def test_links_within_the_page_lead_somewhere(page: Page) -> None:
    anchors = {a["id"] for _, a in page.tags if "id" in a}
    links = {str(a["href"])[1:] for tag, a in page.tags if tag == "a"}
    assert links
    assert links <= anchors


def test_what_models_wrote_never_becomes_markup(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", text=lambda t: f"{t} {HOSTILE}", count=12)
    content = json.loads((run / "results.json").read_text())
    content["task"] = content["arms"][0]["name"] = HOSTILE
    (run / "results.json").write_text(json.dumps(content))
    html = write_report(run).read_text("utf-8")
    page = Page(html)
    assert "img" not in {tag for tag, _ in page.tags}
    assert [tag for tag, _ in page.tags].count("script") == 2, "the questions, and what shows them"
    assert "<!-- http" not in html
    nodes = [n for one in page.held["sets"] for q in one["questions"] for d in q["debates"] for n in d["nodes"]]
    assert any(HOSTILE in n["text"] for n in nodes), "nothing of it is lost"
    assert "<script>alert(1)</script> </script><img src=x onerror=alert(2)> {{ 7*7 }} {% raw %}" in page.text
    assert not {c for c in " ".join(page.texts) if not c.isprintable() and c != "\n"} - {"\t"}


def test_all_questions_are_in_the_page_if_they_fit(page: Page) -> None:
    of = {one["set"]["of"]: one for one in page.held["sets"]}
    assert {name: len(one["questions"]) for name, one in of.items()} == {"train": 60, "test": 30}
    assert "All are here" in page.text
    (column,) = [c for c in of["train"]["set"]["columns"] if (c["label"]["agent"], c["label"]["round"]) == ("ben", 0)]
    first = [next(n for n in q["debates"][0]["nodes"] if n["agent"] == "ben") for q in of["train"]["questions"]]
    known = {"right": "R", "wrong": "W", "unparsed": "U", "failed": "E"}
    assert column["letters"] == "".join(known[n["mark"]] for n in first)


def test_questions_that_tell_the_story_are_in_the_page_if_not_all_fit(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = page_of(run).held["sets"]
    monkeypatch.setattr(embedded, "BYTES", 120_000)
    page = page_of(run)
    assert "A sample that tells the story" in page.text
    held = {one["set"]["of"]: one["questions"] for one in page.held["sets"]}
    assert 0 < len(held["train"]) < len(whole[0]["questions"])
    assert sum(len(json.dumps(q)) for several in held.values() for q in several) < 120_000

    turned = {n["turn"]["kind"] for q in held["train"] for n in q["debates"][0]["nodes"] if "turn" in n}
    assert {"WR", "RW"} <= turned, "somebody was brought to a right answer, somebody talked out of one"
    page_of(run)


def test_a_run_without_results_still_has_a_page(tmp_path: Path) -> None:
    page = page_of(write_run(tmp_path / "run", whole=False, count=12))
    assert "has not come to its tests yet" in page.text
    assert "single:ada" in page.text
    assert "Cost ledger" in page.text
    assert len(page.held["sets"][0]["questions"]) == 12


def test_a_run_that_has_just_begun_has_a_page_and_another_folder_has_none(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("{}")
    text = page_of(tmp_path).text
    assert "has not come to its tests yet" in text
    assert "There is no ledger: there is no journal" in text
    (tmp_path / "else").mkdir()
    (tmp_path / "else" / "recipe.yaml").write_text("name: mine\n")
    with pytest.raises(DataError, match="not a run directory"):
        write_report(tmp_path / "else")
    with pytest.raises(DataError, match="there is no run"):
        runs_in([tmp_path / "else"])


def test_a_loss_curve_that_is_being_written_is_shown_as_far_as_it_goes(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("name: r\n")
    folder = tmp_path / "checkpoints" / "multi_teacher-0"
    folder.mkdir(parents=True)
    lines = [json.dumps({"step": s, "loss": loss}) for s, loss in ((1, 2.0), (2, float("nan")), (3, 1.0))]
    (folder / "loss.jsonl").write_text("\n".join([*lines, '{"step": 4, "lo']))
    (folder.parent / "empty-0").mkdir()
    (folder.parent / "empty-0" / "loss.jsonl").write_text("")
    page = page_of(tmp_path)
    assert "still in training" in page.text
    (points,) = [a["points"] for tag, a in page.tags if tag == "polyline"]
    assert points is not None
    assert len(points.split()) == 2


def test_the_ledger_adds_up(page: Page) -> None:
    ledger = page.text[page.text.index("Every model call of the run") :]
    assert "debate:train ada 3 1 1 " in ledger  # of four requests one was asked before and one failed
    assert "all 13 4 4 " in ledger


def test_a_single_seed_and_a_single_arm_are_told_as_what_they_are(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text(json.dumps(some_results(40, seeds=(0,))))
    assert "was trained with one seed" in page_of(tmp_path).text
    (tmp_path / "results.json").write_text(json.dumps(results("t", {"m": {0: judged_rows(4, 2.0, 1)}}, [], 1.0)))
    assert "m 100" in page_of(tmp_path).text


def test_a_debate_without_any_change_is_shown_too(tmp_path: Path) -> None:
    (tmp_path / "graphs").mkdir()
    quiet = [g for g in debates(60) if g.rounds == 1]
    write_graphs(tmp_path / "graphs" / "train.jsonl.gz", quiet)
    text = page_of(tmp_path).text
    assert "No agent answered in two rounds in a row" in text


def test_equal_runs_give_equal_pages(run: Path) -> None:
    assert write_report(run).read_bytes() == write_report(run).read_bytes()


def test_errors_by_step_are_shown_where_students_acted(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    assert "Errors by step" not in page_of(run).text
    content = json.loads((run / "results.json").read_text("utf-8"))
    steps = {"turns": 2.5, "wrong_by_step": [[0, 4], [3, 4]], "wrong_after_best": [1, 8], "wrong_after_wrong": [0, 0]}
    norms = {"mean": 0.02, "greatest": 0.1, "spread": 0.5}
    content |= {"steps": {"student": steps}, "gradient_norms": {"student": norms}}
    (run / "results.json").write_text(json.dumps(content), "utf-8")
    point = {"arm": "debate_reflect", "tokens": 5000, "accuracy": 0.5, "gain": 0.1, "interval95": [0.05, 0.15]}
    content["gain_by_tokens"] = [point | {"texts": 3000, "reviews": 2000}]
    (run / "results.json").write_text(json.dumps(content), "utf-8")
    text = page_of(run).text
    assert re.search(r"Errors by step .* student 0 75.0 12.5 2.5 0.020 ± 0.010", text)
    assert re.search(
        r"and in their reviews.* texts reviews together .*debate_reflect 3,000 2,000 5,000 50.0 \+10.0", text
    )


def test_what_trainings_left_out_stands_on_the_page(tmp_path: Path) -> None:
    where = write_run(tmp_path / "run", count=12)
    content = json.loads((where / "results.json").read_text())
    content["training"] = Sources(where).trainings([arm["name"] for arm in content["arms"]])
    assert content["training"]["single:ada"][0] == {"seed": 0, "steps": 200, "rows_used": 1500, "rows_dropped": 3}
    (where / "results.json").write_text(json.dumps(content))
    assert "debate_reflect, seed 0: 3 of 1,503 rows were longer than max_length" in page_of(where).text
