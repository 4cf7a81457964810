"""Where fenced blocks begin and end."""

from __future__ import annotations

from vivavoce.agents.fences import blocks, open_triple, without_literals

F = "```"


def test_a_block_inside_a_block_is_part_of_it_and_what_follows_is_not() -> None:
    inner = f"{F}python\nx = 1\n{F}\n"
    text = f"Look:\n{F}markdown\n{inner}{F}\nThen:\n{F}python\ny = 2\n{F}\nDone."
    first, second = blocks(text)
    assert (first.info, first.text) == ("markdown", inner)
    assert (second.info, second.text) == ("python", "y = 2\n")
    assert text[first.start : first.end] == f"{F}markdown\n{inner}{F}"
    assert text[second.start : second.end] == f"{F}python\ny = 2\n{F}"


def test_a_block_that_is_never_closed_reaches_to_the_end() -> None:
    (block,) = blocks(f"a\n~~~\nx\n{F}\ny")
    assert (block.info, block.text, block.end) == ("", f"x\n{F}\ny", 13)


def test_strings_and_comments_of_code_are_blanks_of_the_same_length() -> None:
    code = 'x = \'a#b\'  # it\'s\ny = """c\nd""" + "e\\"f"\nz = 1'
    bare = without_literals(code)
    assert len(bare) == len(code)
    assert [line.split() for line in bare.split("\n")] == [["x", "="], ["y", "="], ["+"], ["z", "=", "1"]]
    assert open_triple("x = '''a") == "'''"
    assert open_triple("x = '''a'''") is None
