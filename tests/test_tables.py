"""Tables fit the terminal, and no number in them is broken."""

from __future__ import annotations

import pytest

from vivavoce.cli.tables import hung, print_table

HEAD = ("stage", "agent", "calls", "hits", "failures", "prompt", "of it cached", "completion", "USD", "seconds")
ROWS = [
    ("debate:states-seen-0", "claude-sonnet-4-5", *["1,234,567"] * 6, "1,234.56", "148,371.2"),
    ("all", "", *["12,345,678"] * 6, "12,345.67", "1,483,710.2"),
]


@pytest.mark.parametrize("width", [80, 100, 200])
def test_money_is_readable_at_every_width(
    width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    print_table(HEAD, ROWS, ("of it cached", "hits", "failures", "seconds"))
    output = capsys.readouterr().out
    assert max(map(len, output.splitlines())) <= width
    for number in ("1,234.56", "12,345.67", "12,345,678"):
        assert number in output
    assert ("not shown at this width: of it cached, hits" in output) == (width < 200)
    assert ("148,371.2" in output) == (width == 200)


def test_names_are_shown_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("agent", "calls"), [("[red]a[/]", "1")])
    assert "[red]a[/]" in capsys.readouterr().out


def test_a_range_that_does_not_fit_stands_below_its_number(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    head = ("stage", "agent", "calls", "prompt tokens", "completion tokens")
    figures = ("199,520 (29,000–1.16M)", "14.71M (232.0k–461.68M)", "2.99M (29.0k–13.92M)")
    for width in (80, 120):
        monkeypatch.setenv("COLUMNS", str(width))
        print_table(head, [("debate:states", "student", *figures)])
        output = capsys.readouterr().out
        assert max(map(len, output.splitlines())) <= width
        assert all(part in output for one in figures for part in one.split())
        assert "debate:states" in output
        assert (figures[0] in output) == (width == 120)


@pytest.mark.parametrize("width", [60, 80, 200])
def test_names_that_do_not_fit_beside_their_numbers_stand_above_them_whole(
    width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    head = ("stage", "agent", "calls", "prompt tokens", "completion tokens", "USD")
    figures = ("1,198 (0–5,820)", "1.36M (0–15.15M)", "479.2k (0–5.82M)", "8.20 (0.00–96.07)")
    stages = ("debate:train:no_reflection_sft", "look:debate_reflect+reflection")
    rows = [(stage, agent, *figures) for stage in stages for agent in ("gemini", "claude")]
    monkeypatch.setenv("COLUMNS", str(width))
    print_table(head, [*rows, ("all", "", *figures)])
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= width
    for stage in stages:
        assert sum(stage in line for line in lines) == (2 if width == 200 else 1)
    assert sum("gemini" in line for line in lines) == 2
    assert sum("(0–15.15M)" in line for line in lines) == 5
    assert sum(line.split()[0] == "all" for line in lines if line.strip()) == 1


def test_long_lines_hang_from_their_first_in_a_terminal_and_stay_whole_elsewhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = "/a/very/long/path" * 6
    text = f"    warning overlap: 23 questions of test are nearly in the training questions, see {path}"
    monkeypatch.delenv("COLUMNS", raising=False)
    assert hung(text, 4) == text
    monkeypatch.setenv("COLUMNS", "80")
    first, *others = hung(text, 4).splitlines()
    assert len(first) <= 80
    assert first.startswith("    warning")
    assert all(line.startswith("        ") for line in others)
    assert others[-1].strip() == path, "what is copied is not cut"
