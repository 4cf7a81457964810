from __future__ import annotations

import dataclasses
from pathlib import Path

from tests.report.whole_run import HOSTILE, answer, debates, small_debate

from vivavoce.graph import Graph
from vivavoce.records import Problem
from vivavoce.report.text import clean
from vivavoce.report.transcript import mark, minds, transcript, turns, votes

GOLDEN = Path(__file__).parent / "golden"


def test_the_transcript_is_as_it_was() -> None:
    assert transcript(small_debate()) + "\n" == (GOLDEN / "transcript.txt").read_text("utf-8")


def test_it_says_who_changed_their_mind_and_which_way() -> None:
    shown = transcript(small_debate())
    changed = shown[shown.index("Who changed their mind") :]
    assert "W→R  ben in round 1: wrong → right (41 → 42)" in changed
    assert "R→W  stu in round 1: right → wrong (42 → 41)" in changed
    assert "ada" not in changed


def test_turns_are_counted_as_the_graph_counts_them() -> None:
    for graph in [small_debate(), *debates(20)]:
        assert [(t.agent, t.round, t.kind) for t in turns(graph)] == graph.transitions()
        assert all(t.kind != "RR" for t in minds(turns(graph)))


def test_every_answer_has_a_mark_in_words() -> None:
    p = Problem("p", "?", "1")
    marks = [mark(answer(p, "a", 0, text)) for text in ("1", "2", None)]
    ungradable = dataclasses.replace(answer(p, "a", 0, "x"), correct=None)
    cut = dataclasses.replace(answer(p, "a", 0, None), status="truncated")
    assert [*marks, mark(ungradable), mark(cut)] == ["right", "wrong", "unparsed", "ungradable", "cut off"]


def test_a_debate_of_one_round_or_none_can_be_shown() -> None:
    p = Problem("p", "?", "1")
    assert "\n  none" in transcript(Graph(p, (answer(p, "ada", 0, "1"),)))
    assert "Question p" in transcript(Graph(p, (), "no_answers"))


def test_votes_are_shown_only_for_weights_that_somebody_gave() -> None:
    p = Problem("p", "?", "1")
    plain = Graph(p, (answer(p, "ada", 0, "1"),))
    assert [how for how, _ in votes(plain, 0)] == ["majority"]
    assert len(votes(small_debate(), 0)) == 4


def test_a_model_cannot_steer_the_terminal_or_turn_the_line_around() -> None:
    (graph,) = debates(1, text=lambda t: f"{t} {HOSTILE}")
    shown = transcript(graph)
    assert not {c for c in shown if not c.isprintable() and c != "\n"}
    assert max(map(len, shown.splitlines())) <= 100


def test_cleaning_keeps_ordinary_text_as_it_is() -> None:
    assert clean("a\tb\r\nc\rd \N{GREEK SMALL LETTER ALPHA}日本") == "a\tb\nc\nd \N{GREEK SMALL LETTER ALPHA}日本"
    assert clean("\x1b[0m\x00\x7f\u202e\ud800") == "␛[0m␀���"
