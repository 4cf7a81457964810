"""The documentation: links lead somewhere, blocks of code are what they say, commands and their options are there."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from vivavoce.cli import app

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "recipes" / "README.md"])
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^( *)```(\w*)[^\n]*\n(.*?)^\1```", re.MULTILINE | re.DOTALL)


def called(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def anchors(page: Path) -> set[str]:
    """What a page's headings are called in addresses."""
    heads = re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text("utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).strip().replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES, ids=called)
def test_every_link_leads_somewhere(page: Path) -> None:
    for link in LINK.findall(re.sub(r"`[^`\n]*`", "", FENCE.sub("", page.read_text("utf-8")))):
        if re.match(r"\w+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("page", PAGES, ids=called)
def test_every_file_that_a_page_names_is_there(page: Path) -> None:
    text = FENCE.sub("", page.read_text("utf-8"))
    for name in re.findall(r"`((?:docs|recipes|tests|src|tools)/[\w./-]+\.(?:md|yaml|py|ipynb|json))`", text):
        assert (ROOT / name).is_file(), name


@pytest.mark.parametrize("page", PAGES, ids=called)
def test_every_block_of_code_is_what_it_says(page: Path) -> None:
    for _, language, block in FENCE.findall(page.read_text("utf-8")):
        if language == "yaml":
            yaml.safe_load(block)
        elif language == "json":
            for part in [block] if block.lstrip().startswith("[") else block.strip().splitlines():
                json.loads(part if not block.lstrip().startswith("{\n") else block)
        elif language == "python":
            compile(block, called(page), "exec")


def commands(page: Path) -> Iterator[str]:
    """The commands of `viva` in a page's code, without comments; lines that go on are one."""
    text = re.sub(r"\\\n\s*", " ", page.read_text("utf-8"))
    for line in re.findall(r"^ {4,}(?:\$ )?(viva [^\n]+)$", text, re.MULTILINE):
        yield line.partition("  #")[0].partition(" && ")[0].partition(" | ")[0].strip()


@pytest.mark.parametrize("page", [p for p in PAGES if p.name != "cli.md"], ids=called)
def test_every_command_of_a_page_is_one_and_has_its_options(page: Path) -> None:
    for line in commands(page):
        at: Any = typer.main.get_command(app)
        words = shlex.split(line.replace("…", "x").replace("[", "").replace("]", ""))[1:]
        while words and getattr(at, "commands", None) and words[0] in at.commands:
            at, words = at.commands[words[0]], words[1:]
        if not words or words[0].isupper():
            continue
        assert not getattr(at, "commands", None) or words[0].startswith("-"), f"no such command: {line}"
        known = {option for p in at.params for option in (*p.opts, *p.secondary_opts)} | {"--help", "--traceback"}
        for word in words:
            option = word.partition("=")[0]
            assert not option.startswith("--") or option in known, f"`{option}` is no option of {line}"
