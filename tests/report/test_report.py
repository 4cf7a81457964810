from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from tests.report.whole_run import ARMS, HOSTILE, PAIRS, debates, judged_rows, some_results, write_run

from vivavoce.errors import DataError
from vivavoce.exams.table import results
from vivavoce.graph import write_graphs
from vivavoce.report import write_report
from vivavoce.report.comparison import p_value, percent
from vivavoce.report.sources import Sources

_VOID = {"meta", "link", "br", "img", "line", "circle", "polyline"}


class Page(HTMLParser):
    """What a browser would make of the page: its tags, their attributes, its text; tags must close in order."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.texts: list[str] = []
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
        if self.open and self.open[-1] != "style":
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


def page_of(run: Path) -> Page:
    return Page(write_report(run).read_text("utf-8"))


@pytest.fixture(scope="module")
def page(run: Path) -> Page:
    """The page of a whole run, written once."""
    return page_of(run)


def test_the_page_loads_nothing_and_runs_nothing(run: Path) -> None:
    html = write_report(run).read_text("utf-8")
    assert not re.search(r"https?://|//[a-z0-9.-]+\.[a-z]{2,}/", html)
    assert "@import" not in html
    assert "url(" not in html
    page = Page(html)
    assert not {tag for tag, _ in page.tags} & {"script", "img", "iframe", "object", "embed", "form", "base"}
    for tag, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on")], tag
        assert "src" not in attributes
        assert (attributes.get("href") or "#").startswith(("#", "data:"))
    (policy,) = [a["content"] for _, a in page.tags if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy is not None
    assert policy.startswith("default-src 'none'")


def test_every_arm_seed_and_p_value_is_on_the_page(page: Page) -> None:
    text, found = page.text, some_results()
    for arm in found["arms"]:
        assert arm["name"] in text
        assert f"{arm['right']}/{arm['n']}" in text
    for pair in found["paired"]:
        assert f"{pair['a']} → {pair['b']}" in text
        assert p_value(pair["p"]) in text
        assert all(p_value(s["p"]) in text for s in pair.get("seeds", ()))
    assert all(arm in text for arm in ARMS)
    assert len(PAIRS) == len(found["paired"])


def test_other_tests_are_on_the_page_beside_what_was_repaired_and_what_regressed(tmp_path: Path) -> None:
    other = some_results(100, seeds=(0,))
    (tmp_path / "results.json").write_text(json.dumps({**some_results(), "also": {"far": other}}))
    page = page_of(tmp_path)
    assert "far: schoolhouse, 100 questions" in page.text
    far = page.text[page.text.index("far: schoolhouse") : page.text.index("Tokens per question")]
    (pair,) = [p for p in other["paired"] if (p["a"], p["b"]) == ("student", "debate_reflect")]
    row = far[far.index("debate_reflect ") :].split("sft_continued")[0]
    assert f"{percent(pair['repaired'])} {percent(pair['regressed'])} {p_value(pair['p'])}" in row
    assert all(arm["name"] in far for arm in other["arms"])
    main = next(p for p in some_results()["paired"] if p["a"] == "student")
    assert f"{main['b_only']} {percent(main['repaired'])} {percent(main['regressed'])}" in page.text
    assert "Other tests" not in page_of_results(tmp_path, some_results()).text


def page_of_results(folder: Path, found: dict) -> Page:
    (folder / "results.json").write_text(json.dumps(found))
    return page_of(folder)


def test_what_is_not_significant_is_said_to_be_so(page: Page) -> None:
    text = page.text
    assert "is not shown to differ from sft_continued" in text
    assert "is not shown to differ from debate_reflect_sft : +4.2 points, not significant once corrected" in text
    assert "(vote:debate) is better than vote:most_confident, the strongest committee without debate, by 7" in text
    assert "Oracle roles" in text


def test_links_within_the_page_lead_somewhere(page: Page) -> None:
    anchors = {a["id"] for _, a in page.tags if "id" in a}
    links = {str(a["href"])[1:] for tag, a in page.tags if tag == "a"}
    assert links
    assert links <= anchors


def test_what_models_wrote_never_becomes_markup(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", text=lambda t: f"{t} {HOSTILE}", count=12)
    found = json.loads((run / "results.json").read_text())
    found["task"] = found["arms"][0]["name"] = HOSTILE
    (run / "results.json").write_text(json.dumps(found))
    html = write_report(run).read_text("utf-8")
    page = Page(html)
    assert not {tag for tag, _ in page.tags} & {"script", "img"}
    assert "<!-- http" not in html
    assert "<script>alert(1)</script> </script><img src=x onerror=alert(2)> {{ 7*7 }} {% raw %}" in page.text
    assert not {c for c in html if not c.isprintable() and c != "\n"} - {"\t"}


def test_the_debates_to_read_begin_with_a_change_to_right_and_each_has_a_round_and_a_column(page: Page) -> None:
    shown = [a for tag, a in page.tags if tag == "details" and a.get("class") == "debate"]
    assert len(shown) == 12
    assert ["open" in a for a in shown] == [True] + [False] * 11
    reasons = re.findall(r"went from (wrong to right|right to wrong)|(all agreed on a wrong answer)", page.text)
    assert reasons[0][0] == "wrong to right"
    ranks = [("wrong to right", "right to wrong", "").index(r[0]) for r in reasons]
    assert ranks == sorted(ranks)
    assert "✓ right" in page.text
    assert "✗ wrong" in page.text
    assert "ben → " in page.text


def test_a_run_without_results_still_has_a_page(tmp_path: Path) -> None:
    page = page_of(write_run(tmp_path / "run", whole=False, count=12))
    assert "has not come to its tests yet" in page.text
    assert "single:ada" in page.text
    assert "Cost ledger" in page.text
    assert "went from wrong to right" in page.text


def test_a_run_that_has_just_begun_has_a_page_and_another_folder_has_none(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("{}")
    text = page_of(tmp_path).text
    assert "has not come to its tests yet" in text
    assert "There is no ledger: there is no journal" in text
    (tmp_path / "else").mkdir()
    with pytest.raises(DataError, match="no run directory"):
        write_report(tmp_path / "else")


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
    write_graphs(tmp_path / "graphs" / "train.jsonl", quiet)
    text = page_of(tmp_path).text
    assert "nobody crossed between right and wrong" in text
    assert "Nobody answered in two rounds running" in text


def test_equal_runs_give_equal_pages(run: Path) -> None:
    assert write_report(run).read_bytes() == write_report(run).read_bytes()


def test_errors_by_step_are_shown_where_students_acted(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    assert "Errors by step" not in page_of(run).text
    found = json.loads((run / "results.json").read_text("utf-8"))
    steps = {"turns": 2.5, "wrong_by_step": [[0, 4], [3, 4]], "wrong_after_best": [1, 8], "wrong_after_wrong": [0, 0]}
    norms = {"mean": 0.02, "greatest": 0.1, "spread": 0.5}
    found |= {"steps": {"student": steps}, "gradient_norms": {"student": norms}}
    (run / "results.json").write_text(json.dumps(found), "utf-8")
    text = page_of(run).text
    assert re.search(r"Errors by step .* student 0 75.0 12.5 2.5 0.020 ± 0.010", text)


def test_what_trainings_left_out_stands_on_the_page(tmp_path: Path) -> None:
    where = write_run(tmp_path / "run", count=12)
    found = json.loads((where / "results.json").read_text())
    found["training"] = Sources(where).trainings([arm["name"] for arm in found["arms"]])
    assert found["training"]["single:ada"][0] == {"seed": 0, "steps": 200, "rows_used": 1500, "rows_dropped": 3}
    (where / "results.json").write_text(json.dumps(found))
    assert "debate_reflect, seed 0: 3 of 1,503 rows were longer than max_length" in page_of(where).text
