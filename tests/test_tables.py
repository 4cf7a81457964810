"""Tables fit the terminal, and no number in them is broken."""

from __future__ import annotations

import pytest

from vivavoce.cli.tables import print_table

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
    said = capsys.readouterr().out
    assert max(map(len, said.splitlines())) <= width
    for number in ("1,234.56", "12,345.67", "12,345,678"):
        assert number in said
    assert ("not shown at this width: of it cached, hits" in said) == (width < 200)
    assert ("148,371.2" in said) == (width == 200)


def test_names_are_shown_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("agent", "calls"), [("[red]a[/]", "1")])
    assert "[red]a[/]" in capsys.readouterr().out
