"""Check the prose of README, docs and docstrings: proselint, and a small style of our own.

    python tools/prose.py [PATH …]

Prints one line for each fault, ``file:line: rule: text``, and ends with status 1 if there is one.
"""

from __future__ import annotations

import ast
import itertools
import re
import statistics
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
MADE = {"cli.md", "recipe.md"}
"""Pages that are made from the code. They are lists, so their sentences are not measured."""
LONGEST = 45
"""Words of a sentence at most."""
MEDIAN = 18
"""Words of a page's median sentence at most."""
AVOID = {
    r"\b[Nn]obody\b|\b[Ww]hoever\b": "name the thing: `no agent`, `each teacher that`",
    r"(?m)(?:^|[.!;:] )Who\b[^?.|]*\.": "`who` asks a question; write `An agent that …`",
    r"\b(?:agents?|teachers?|students?|models?|judges?|scorers?|requests?|threads?|programs?) who\b": "write `that`",
    r", for (?:it|they|there|that|this|these|its|their|no|none|nothing|neither|each|both) ": "write `because`",
    r"\b[Ll]est\b|\btill\b|\bby lot\b|\btold apart\b": "write it in today's words",
}
"""Words to avoid in all prose, and what to do about each."""
PLACE = re.compile(
    r"(?:and|address|branch|change|column|directory|disk|exactly|files?|folder|from|in|index|is|just|known?|knows|lies|line|machine|"
    r"node|ones?|or|out|pages?|places?|point|position|remembers?|room|said|says?|sees?|shows?|spot|starts?|states?|step|tells?|"
    r"to|token|told|turn|what|world)$"
)
"""Words before a ``where`` that is no ``if``: a place, or what asks for one."""
REPEATED = re.compile(r"\b([A-Za-z’']{2,}(?:,? [A-Za-z’']+){0,7})(?:\s\1|(?:, \1){2})\b(?!`)")
"""A word or phrase that follows itself, as a replacement leaves it that was made twice."""
OPENING = re.compile(
    r"\s*(?:What|Who|Whose|Where|When|Which|Why|How|If|Of|As|For|From|By|At|To|Because|Than|It|They|This|That|These|"
    r"Something|Nothing|Someone|Everybody)\b"
)
"""Words that begin neither a verb phrase nor a noun phrase, so no public docstring begins with one."""
NO_NAMES = {"mine", "yours", "some", "again", "somebody", "it", "them"} | {
    *("found", "said", "told", "heard", "who", "whose", "whom", "sit", "seat", "anew"),
}
"""Pronouns, and words that have been replaced, which are no names. `ours` and `theirs` are the sides of a comparison.

Fields of a class may have such names, because files have them: ``said`` in ``viva doctor --json``.
"""
NO_FUNCTIONS = {
    *("added", "agreed", "allowed", "assigned", "boxed", "bracketed", "charged", "chosen", "cleaned"),
    *("clipped", "closed", "completed", "continued", "converted", "diverged", "escaped", "explained"),
    *("extended", "filled", "fitted", "grouped", "imported", "joined", "merged", "numbered", "offered"),
    *("ordered", "others", "padded", "parsed", "parted", "perturbed", "pooled", "received", "rehearsed"),
    *("renamed", "repeated", "restored", "reviewed", "rounded", "sampled", "scaled", "seen", "sent", "settled"),
    *("streamed", "stripped", "submitted", "tried", "trimmed", "typed", "unasked", "visited", "weighted"),
    *("worded", "wrapped"),
}
"""Participles that have been replaced: a function is named by a verb, or by the noun for its result."""
NAMES_ALONE = ("tests", "schoolhouse", "benchmarks", "real")
"""Folders whose names alone are checked. They talk about faulty texts, so their words are not."""
OFF = {"typography", "annotations", "dates_times", "uncomparables", "lexical_illusions"}
"""Checks of proselint that go against this house: it writes straight quotes, code and tables of figures."""


class Fault(NamedTuple):
    line: int
    rule: str
    text: str


def plain(page: str) -> str:
    """A Markdown page or docstring without code, tables, headings and addresses; every line keeps its number."""
    page = re.sub(r"(?ms)^( *)(```|~~~).*?^\1\2 *$", lambda m: "\n" * m[0].count("\n"), page)
    page = re.sub(r"(?m)^ *>>> .*(?:\n(?! *$).*)*", lambda m: "\n" * m[0].count("\n"), page)
    page = re.sub(r"(?m)^(?:\||#|<| {4,}(?![-*] |\d+\. )\S).*$", "", page)
    page = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", page)
    code = itertools.count(1)  # numbered, so that two words of code are not taken for one that is repeated
    return re.sub(r"``[^`]+``|`[^`\n]+`", lambda _: f"X{next(code)}", page)


def sentences(text: str) -> Iterator[tuple[int, str]]:
    """Each sentence with the number of its line. An item of a list and a paragraph end a sentence."""
    start, held = 1, ""
    for number, line in enumerate([*text.splitlines(), ""], 1):
        item = re.match(r"\s*(?:[-*]|\d+\.) ", line)
        *whole, rest = re.split(r"(?<=[.!?])[*_)\"]*\s+(?=[*_(\"]*[A-Z0-9])", held)
        ended = [*whole, rest] if item or not line.strip() else whole
        yield from ((start, " ".join(s.split())) for s in ended if s.strip())
        held = line if ended == [*whole, rest] or not held.strip() else f"{rest}\n{line}"
        start = number if ended or not held.strip() else start


def length(sentence: str) -> int:
    """The number of words in a sentence."""
    return len(re.findall(r"[\w'’%+−-]*\w[\w'’%+−-]*", sentence))


def in_text(text: str) -> Iterator[Fault]:
    """Faults that a page and a docstring can have alike."""
    for pattern, advice in AVOID.items():
        for match in re.finditer(pattern, text):
            yield Fault(text.count("\n", 0, match.start()) + 1, "word", f"{match[0].strip()!r}: {advice}")
    for match in REPEATED.finditer(text):
        yield Fault(text.count("\n", 0, match.start()) + 1, "repeated", f"{match[0]!r} says a thing twice")
    for line, sentence in sentences(text):
        if length(sentence) > LONGEST:
            yield Fault(line, "long", f"{length(sentence)} words: {sentence[:60]} …")


def where_for_if(text: str) -> Iterator[Fault]:
    """Each ``where`` that follows neither a place nor a word that asks for one: it stands for ``if``."""
    for match in re.finditer(r"(\w+)?[,;:]?\s+where\s+(?=[a-z`X])", text):
        if not PLACE.match((match[1] or "").lower()):
            line = text.count("\n", 0, match.end()) + 1
            yield Fault(line, "where", f"write `if`, or name the place: {' '.join(text[match.start() :].split())[:50]}")


def docstrings(tree: ast.AST) -> Iterator[tuple[int, str, bool]]:
    """The line and text of each docstring, and whether it is that of a public function, class or module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            for statement in node.body:
                text = statement.value if isinstance(statement, ast.Expr) else None
                if isinstance(text, ast.Constant) and isinstance(text.value, str):
                    public = statement is node.body[0] and not getattr(node, "name", "").startswith("_")
                    first, *below = text.value.splitlines()
                    yield text.lineno, "\n".join([first, *textwrap.dedent("\n".join(below)).splitlines()]), public


def help_texts(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """The line and text of each description of a key, and of each help text of the command line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword) and node.arg in ("description", "help"):
            text = node.value
            if isinstance(text, ast.Constant) and isinstance(text.value, str):
                yield text.lineno, text.value


def in_names(tree: ast.AST) -> Iterator[Fault]:
    """Names of variables, arguments and functions that say nothing."""
    fields = {
        id(target)
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
        for statement in node.body
        for target in getattr(statement, "targets", [getattr(statement, "target", None)])
    }
    for node in ast.walk(tree):
        name = None
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            name = node.name
            if name.lstrip("_") in NO_FUNCTIONS:
                yield Fault(node.lineno, "name", f"`{name}` is no verb; name what the function does or returns")
        elif isinstance(node, ast.arg):
            name = node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and id(node) not in fields:
            name = node.id
        if name is not None and name.lstrip("_") in NO_NAMES:
            yield Fault(getattr(node, "lineno", 1), "name", f"`{name}` says nothing; name the thing")


def in_module(source: str) -> Iterator[Fault]:
    """Faults of a Python file: of its docstrings, its texts for users and its names."""
    tree = ast.parse(source)
    for at, text, public in docstrings(tree):
        if public and OPENING.match(text):
            yield Fault(at, "first line", f"begin with a verb or a noun phrase: {text.strip().splitlines()[0][:60]}")
        for fault in [*in_text(plain(text)), *where_for_if(plain(text))]:
            yield fault._replace(line=at + fault.line - 1)
    for at, text in help_texts(tree):  # lists of values are long
        words = [fault for fault in in_text(plain(text)) if fault.rule != "long"]
        yield from (fault._replace(line=at) for fault in [*words, *where_for_if(plain(text))])
    yield from in_names(tree)


def in_page(text: str, made: bool = False) -> Iterator[Fault]:
    """Faults of a Markdown page; of a ``made`` one its words alone are looked at."""
    prose = plain(text)
    yield from (fault for fault in in_text(prose) if not made or fault.rule != "long")
    median = statistics.median([length(s) for _, s in sentences(prose)] or [0])
    if median > MEDIAN and not made:
        yield Fault(1, "median", f"half of the sentences have {median:g} words or more; {MEDIAN} are enough")


def by_proselint(path: Path) -> Iterator[Fault]:
    """Faults that proselint finds in a page, or in the docstrings of a Python file."""
    from proselint.checks import __register__
    from proselint.config import DEFAULT, Config
    from proselint.registry import CheckRegistry
    from proselint.tools import LintFile

    if not CheckRegistry().checks:
        CheckRegistry().register_many(__register__)
    checks = {name: on and name not in OFF for name, on in DEFAULT["checks"].items()}
    config: Config = {"max_errors": DEFAULT["max_errors"], "checks": checks}
    text = path.read_text("utf-8")
    texts = [(1, text)] if path.suffix == ".md" else [doc[:2] for doc in docstrings(ast.parse(text))]
    for at, docstring in texts:
        for result in LintFile(path, plain(docstring)).lint(config):
            # proselint puts an empty line before the text
            yield Fault(at + result.pos[0] - 2, result.check_result.check_path, result.check_result.message)


def faults(path: Path) -> list[Fault]:
    """All faults of one file, by line."""
    text = path.read_text("utf-8")
    if not path.is_relative_to(ROOT) or path.relative_to(ROOT).parts[0] not in NAMES_ALONE:
        own = in_page(text, path.name in MADE) if path.suffix == ".md" else in_module(text)
        return sorted([*own, *by_proselint(path)])
    return sorted(in_names(ast.parse(text)))


def files() -> list[Path]:
    """The pages and modules that are checked."""
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "recipes/README.md", *(ROOT / "docs").rglob("*.md")]
    modules = [f for folder in ("src", "tools", *NAMES_ALONE) for f in sorted((ROOT / folder).rglob("*.py"))]
    return [*sorted(pages), *modules]


def main(paths: list[str]) -> int:
    """Check all files, or those under the paths that are given; print the faults and return the status."""
    under = [Path(p).resolve() for p in paths]
    checked = [f for f in files() if not under or any(f.is_relative_to(p) for p in under)]
    lines = [f"{f.relative_to(ROOT)}:{line}: {rule}: {text}" for f in checked for line, rule, text in faults(f)]
    print(*lines, sep="\n", end="\n" if lines else "")
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
