"""The viewer in a real browser: what a person finds, and what harmful texts cannot do."""

from __future__ import annotations

import json
import re
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.view.shown_run import shown_run, told_debate

from vivavoce.graph import write_graphs
from vivavoce.report import write_report
from vivavoce.view.export import export_runs

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Dialog, Page

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that is shown."""
    return shown_run(tmp_path_factory.mktemp("runs") / "demo")


@pytest.fixture(scope="module")
def address(run: Path) -> Iterator[str]:
    """Where the viewer answers."""
    uvicorn = pytest.importorskip("uvicorn")
    from vivavoce.view.server import Viewer, app

    viewer = Viewer([run.parent])
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app(viewer), log_level="error", ws="none"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    yield f"http://127.0.0.1:{listening.getsockname()[1]}/"
    server.should_exit = True
    thread.join(10)
    viewer.close()
    listening.close()


@pytest.fixture(scope="module")
def browser(run: Path, address: str) -> Iterator[Browser]:
    """One browser for all tests of this file. It holds the thread's event loop, so that all else that needs one is made
    before it."""
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page in which every error of a script, and every dialog, fails the test."""
    opened = browser.new_page(viewport={"width": 1200, "height": 800})
    wrong: list[str] = []
    opened.set_default_timeout(15_000)
    opened.on("pageerror", lambda error: wrong.append(str(error)))
    opened.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)

    def asked(dialog: Dialog) -> None:
        wrong.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    opened.on("dialog", asked)
    yield opened
    opened.close()
    assert not wrong


def rows(page: Page) -> list[str]:
    """What the rows of the table say, once each has the text of its question; until then it has the id."""
    page.wait_for_selector(".table")
    page.wait_for_selector(".rows .trow a")
    links = page.locator(".rows .trow a")
    deadline = time.monotonic() + 15
    while any(text.startswith("q-") for text in links.all_inner_texts()) and time.monotonic() < deadline:
        page.wait_for_timeout(50)
    return links.all_inner_texts()


def says(page: Page, where: str, what: str | re.Pattern[str]) -> None:
    """Wait until a part of the page says something."""
    from playwright.sync_api import expect

    expect(page.locator(where)).to_contain_text(what, timeout=15_000)


def count(page: Page) -> str:
    return page.inner_text(".count").partition(" questions")[0]


def test_a_question_is_found_by_a_word_of_a_debate_or_of_a_students_answer(page: Page, address: str) -> None:
    page.goto(f"{address}#/run/demo/questions/train")
    says(page, ".count", "61 of 61")
    page.keyboard.press("/")
    page.keyboard.type("womba")
    says(page, ".count", "1 of 61")
    assert page.evaluate("document.activeElement.value") == "womba", "the search keeps the keys"
    page.goto(f"{address}#/run/demo/questions/test?q=quokka")
    says(page, ".count", "1 of 30")


def test_a_filter_stands_in_the_address_and_the_address_opens_the_same_page(page: Page, address: str) -> None:
    page.goto(f"{address}#/run/demo/questions/test")
    page.get_by_role("button", name="student broke").click()
    page.wait_for_selector(".filter.on")
    shown, content = rows(page), count(page)
    assert content == "10 of 30", "every third answer of the student is right, and none of these of the other arm"
    there = page.url
    assert "f=broke" in there
    page.goto("about:blank")
    page.goto(there)
    page.wait_for_selector(".filter.on")
    assert (rows(page), count(page)) == (shown, content)
    page.locator(".rows .trow a").nth(1).click()
    page.wait_for_selector(".whole-question")
    assert "2 of 10 · student broke" in page.inner_text(".qbar")
    first = page.url
    page.keyboard.press("j")
    says(page, ".qbar", "3 of 10")
    page.keyboard.press("k")
    says(page, ".qbar", "2 of 10")
    assert page.url == first
    arms = page.locator(".arms h5 bdi").all_inner_texts()
    assert arms == ["student", "single:ada", "debate_reflect"]


def test_harmful_texts_are_shown_as_texts(page: Page, address: str) -> None:
    page.goto(f"{address}#/run/demo/question/train/hostile~2F1")
    page.wait_for_selector(".whole-question")
    text = page.evaluate("document.getElementById('app').textContent")
    assert page.locator("#app img, #app script, #app iframe, #app i:not(.v), #app bdi b").count() == 0
    assert "<script>alert(1)</script>" in text
    assert "[link](javascript:alert(1))" in text
    assert page.locator("a[href^='javascript']").count() == 0
    assert not re.search("[\u202a-\u202e\u2066-\u2069\x1b]", text), "nothing turns the text around it"
    assert "my own <word>" in text
    folded = page.locator(".folded .said").last
    assert len(folded.text_content() or "") < 5000
    page.get_by_role("button", name=re.compile("show all 1,1..,... characters")).click()
    page.wait_for_selector(".said.whole")
    assert page.evaluate("document.querySelector('.said.whole').textContent.length") > 1_000_000
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_the_exact_prompt_of_an_answer_opens_and_marks_what_it_quotes(page: Page, address: str) -> None:
    page.goto(f"{address}#/run/demo/question/train/hostile~2F1")
    page.wait_for_selector(".whole-question")
    graph = told_debate()
    critique = next(n for n in graph.nodes if n.kind == "critique")
    note = page.locator(f"#n-{critique.id}")
    assert note.locator("xpath=ancestor::article[1]").get_attribute("id") == f"n-{critique.target}", "it stands beneath"
    note.get_by_role("button", name="prompt").click()
    quoted = note.locator(".prompt .said").evaluate("(e) => e.textContent")
    asked = graph.messages_of(critique)[0]["content"]
    assert [w for w in quoted.split() if w.isalnum()] == [w for w in asked.split() if w.isalnum()]
    assert note.locator(".prompt .quote").count() == 2, "an answer, and the right one"
    taken = page.locator(f"#n-{graph.nodes[0].id} > .taken")
    assert "learnt by multi_teacher" in taken.inner_text(), "what came of it"


def test_a_run_at_work_is_shown_as_it_goes_on(page: Page, address: str, run: Path) -> None:
    import fcntl

    with (run / "run.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        (run / "progress.json").write_text(json.dumps([{"title": "train questions", "total": 90, "done": 7}]))
        page.goto(f"{address}#/run/demo/questions/later")
        page.goto(f"{address}#/run/demo/questions/train")
        page.wait_for_selector(".now progress")
        assert "7 of 90" in page.inner_text(".now")
        page.evaluate("scrollTo(0, 40)")
        write_graphs(run / "graphs" / "later.jsonl.gz.part", [told_debate("later/1")])
        (run / "graphs" / "later.jsonl.gz.part").rename(run / "graphs" / "later.jsonl.gz")
        (run / "progress.json").write_text(json.dumps([{"title": "train questions", "total": 90, "done": 88}]))
        says(page, ".now", "88 of 90")
        says(page, "select >> nth=0", "later (1)")
    says(page, ".top .tag", "finished")
    (run / "graphs" / "later.jsonl.gz").unlink()


@pytest.mark.parametrize("width", [390, 1200])
def test_every_page_opens_and_fits_the_width(page: Page, address: str, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    for there in (
        "",
        "run/demo",
        "run/demo/questions/test",
        "run/demo/training",
        "run/demo/costs",
        "compare?runs=demo,demo",
    ):
        page.goto("about:blank")
        page.goto(f"{address}#/{there}")
        page.wait_for_selector("main h1, .overview h1, .table")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), there
        assert page.locator(".warn").count() == 0 or there in ("", "run/demo/costs"), page.locator(
            ".warn"
        ).all_inner_texts()


def test_an_export_opens_from_disk_with_the_same_addresses(page: Page, run: Path, tmp_path: Path) -> None:
    first = export_runs([run], tmp_path / "out")
    page.goto(f"{first.as_uri()}#/run/demo/questions/test?f=broke")
    page.wait_for_selector(".filter.on")
    assert count(page) == "10 of 30"
    page.fill(".search", "quok")
    says(page, ".count", re.compile("^[01] of 30"))
    page.goto("about:blank")
    page.goto(f"{first.as_uri()}#/run/demo/questions/train?q=wombat")
    says(page, ".count", "1 of 61")
    page.locator(".rows .trow a").first.click()
    page.wait_for_selector(".whole-question")
    assert "<script>alert(1)</script>" in page.inner_text("#app")
    for there in ("", "run/demo", "run/demo/training", "run/demo/costs"):
        page.goto("about:blank")
        page.goto(f"{first.as_uri()}#/{there}")
        page.wait_for_selector("main h1, .overview h1")


def test_a_report_opens_from_disk_and_has_its_questions(page: Page, run: Path) -> None:
    page.goto(write_report(run).as_uri())
    page.wait_for_selector("#browser-app .table")
    assert page.locator(".example.fixed").count() == 3
    assert page.locator(".example.broken").count() == 1
    page.get_by_role("button", name="student broke").click()
    page.wait_for_selector(".filter.on")
    assert count(page) == "10 of 30"
    page.goto(f"{(run / 'report.html').as_uri()}#/questions/train?q=wombat")
    says(page, ".count", "1 of 61")
    page.locator(".rows .trow a").first.click()
    page.wait_for_selector(".whole-question")
    assert page.locator("#browser-app img").count() == 0
