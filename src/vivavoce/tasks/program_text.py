"""The program in a model's reply, by its lines and its fences. No text of a model is parsed in this process.

::

    reply ──▶ chunks: fenced blocks, or lines of code between prose ──▶ the last one that defines the function
                                                                        + those that define what it uses
"""

from __future__ import annotations

import html
import re
import textwrap
from collections.abc import Iterator, Sequence

from vivavoce.agents.fences import FencedBlock, blocks, without_literals
from vivavoce.agents.replies import spoken, without_end

_PYTHON = {"python", "python3", "python2", "py", "py3", "ipython", "jupyter", "sage", "pyi"}
_BLANKS = {**dict.fromkeys("\ufeff\u200b\u200c\u200d\u2060", ""), **dict.fromkeys("\xa0\u2002\u2003\u2007\u202f", " ")}
"""Characters that models write for a blank or for nothing."""
_INDENTATION = re.compile(f"^[ \\t]*[{''.join(_BLANKS)}][ \\t{''.join(_BLANKS)}]*", re.MULTILINE)
_HTML = re.compile(
    r"<pre\b[^>\n]*>\s*(?:<code\b[^>\n]*>)?(.+?)(?:</code>\s*)?</pre>|<code\b[^>\n]*>(.+?)</code>", re.DOTALL
)
_NOTEBOOK = re.compile(
    r"^(?:![a-zA-Z].*|%%?(?:timeit|time|matplotlib|pip|conda|load_ext|config|run|capture|bash|reset|writefile)\b.*)$",
    re.M,
)
"""Lines that only a notebook understands."""
_FUTURE = re.compile(r"^from __future__ import .*\n?", re.MULTILINE)
_HEADER = re.compile(r"(?:if|elif|else|try|except|finally|for|while|with|async\s+for|async\s+with|match|case)\b[^:]*:")
_SCOPE = re.compile(r"(?:async\s+)?(?:def|class)\s+(\w+)")
_TARGET = r"\(?\*?[A-Za-z_][\w.]*(?:\[[^\]\n]*\])?(?:\s*,\s*\*?[A-Za-z_][\w.]*(?:\[[^\]\n]*\])?)*\s*,?\)?"
_ASSIGNMENT = re.compile(rf"({_TARGET})\s*(?::[^=\n]+)?=(?!=)\s*")
_IMPORT = re.compile(r"import\s+(?P<names>\w[\w.]*(?:\s+as\s+\w+)?(?:\s*,\s*\w[\w.]*(?:\s+as\s+\w+)?)*)\s*$")
_FROM = re.compile(r"from\s+[\w.]+\s+import\s+(?P<names>\(?[\w\s,]*\)?|\*)\s*$")
_CODE = re.compile(
    r"import\s+\w[\w.]*(?:\s+as\s+\w+)?(?:\s*,\s*\w[\w.]*(?:\s+as\s+\w+)?)*\s*;?\s*$"
    r"|from\s+[\w.]+\s+import\s*(?:[\w*(]|\\)"
    r"|(?:async\s+)?def\s+\w+\s*[(\[]|class\s+\w+\s*[:(\[]|@\w[\w.]*\s*(?:\(|$)"
    rf"|{_TARGET}\s*(?::\s*[^=\n]+)?(?:[-+*/%@&|^]|//|\*\*|<<|>>)?=(?!=)\s*\S"
    r"|(?:if|elif|while|with|match|for\s.+\sin|except|async\s+for\s.+\sin|async\s+with)\b.*:\s*$|(?:else|try|finally|except)\s*:"
)
"""The beginning of a line of code, at the first column of a program."""
_CALLED = re.compile(r"[A-Za-z_][\w.]*\(.*\)?\s*;?\s*$")
_WORD = re.compile(r"(?<![\w.])[A-Za-z_]\w*")
_INSERTED = re.compile(r"\{([^{}\n]*)\}")
_INLINE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
_STATEMENT = re.compile(r"(?:return\b|yield\b|raise\b)")


def program_in(text: str, name: str, prefix: str = "") -> str | None:
    """The program that defines ``name`` in a reply; None if there is none.

    It is the last fenced block that defines it, else the last lines of code between prose that do. Other blocks come
    before it if they define names that it uses: imports, helpers, constants. Without any, a fenced block or the whole
    reply may continue ``prefix``, the function's head, whose imports and helpers count as written in any case.
    """
    text = _clean(spoken(text))
    fenced = blocks(text)
    chunks = [*_in_fences(fenced)]
    definition = _defining(chunks, name)
    if definition is None:
        loose = _without(text, fenced)
        runs = [*_runs(loose)]
        definition, chunks = _defining(runs, name), [*chunks, *runs]
        if definition is None:
            inline = next((code for code in reversed(_INLINE.findall(loose)) if name in definitions(code)), None)
            return inline + "\n" if inline else _complete(text, [*_in_fences(fenced)], prefix)
    return _with_what_it_uses(definition, chunks, name, prefix)


def definitions(code: str, imported: bool = True) -> set[str]:
    """The names that a program defines at the level of the module: by ``def``, ``class`` or assignment, also under
    ``if`` and ``try``, and by import if ``imported``."""
    return set(_defined_names(code, imported))


def _defined_names(code: str, imports: bool) -> Iterator[str]:
    inside: int | None = None  # indentation of the function or class that the line may stand in
    for line in _logical_lines(without_literals(code)):
        indent = len(line) - len(line.lstrip())
        if inside is not None and indent > inside:
            continue
        inside = None
        statement = line.strip()
        while header := _HEADER.match(statement):
            statement = statement[header.end() :].strip()
        if scope := _SCOPE.match(statement):
            inside = indent
            yield scope[1]
            continue
        for part in statement.split(";"):
            yield from _bound(part.strip(), imports)


def _bound(statement: str, imports: bool) -> Iterator[str]:
    """The names that a simple statement binds."""
    while target := _ASSIGNMENT.match(statement):
        yield from (name for name in re.findall(r"[\w.\[\]]+", target[1]) if name.isidentifier())
        statement = statement[target.end() :]
    if imports and (imported := _IMPORT.match(statement) or _FROM.match(statement)):
        for one in imported["names"].strip("()").split(","):
            if one.strip() and one.strip() != "*":
                yield one.split()[-1].partition(".")[0]


def _logical_lines(code: str) -> Iterator[str]:
    """Lines of code without strings and comments; those inside brackets, and behind a backslash, joined."""
    held, depth = list[str](), 0
    for line in code.split("\n"):
        held.append(line.rstrip("\\ \t"))
        depth = max(0, depth + sum(map(line.count, "([{")) - sum(map(line.count, ")]}")))
        if not depth and not line.endswith("\\"):
            if (whole := " ".join(held)).strip():
                yield whole
            held.clear()
    if (whole := " ".join(held)).strip():
        yield whole


def _clean(text: str) -> str:
    """The text with ordinary ends of lines and indentation, because some models write look-alikes of these
    characters.
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if "```" not in text and "~~~" not in text:
        text = _HTML.sub(lambda match: f"\n```\n{html.unescape(match[1] or match[2])}\n```\n", text)
    return _INDENTATION.sub(lambda match: "".join(_BLANKS.get(c, c) for c in match[0]), text)


def _in_fences(fenced: Sequence[FencedBlock]) -> Iterator[str]:
    """The programs of fenced blocks, in order; also of blocks inside blocks."""
    for block in fenced:
        inner = blocks(block.text) if re.search(r"^[ \t]*(?:```|~~~)", without_literals(block.text), re.M) else []
        if inner and not (block.info in _PYTHON and not any(one.info in _PYTHON for one in inner)):
            yield from _in_fences(inner)
        elif block.text.strip():
            yield _NOTEBOOK.sub("", without_end(_typed_lines(block.text))).rstrip() + "\n"


def _typed_lines(code: str) -> str:
    """The lines that were typed into a session of Python, if the code is one."""
    if not re.search(r"^\s*>>> ", code, re.M) or re.search(r"^(?:def|class|import|from)\b", code, re.M):
        return code
    typed = (line.strip() for line in code.split("\n"))
    return "\n".join(line[4:] for line in typed if line.startswith((">>> ", "... ")))


def _defining(chunks: Sequence[str], name: str) -> str | None:
    """The last chunk that defines a name, if there is one with a body; one that only imports it shows its use."""
    defining = [chunk for chunk in reversed(chunks) if name in definitions(chunk)]
    whole = (chunk for chunk in defining if name in definitions(chunk, imported=False) and not _is_stub(chunk, name))
    return next(whole, defining[0] if defining else None)


def _is_stub(chunk: str, name: str) -> bool:
    """Whether a chunk ends with the head of the function."""
    heads = [*re.finditer(rf"\bdef\s+{re.escape(name)}\b[^\n]{{0,2000}}:", bare := without_literals(chunk))]
    body = bare[heads[-1].end() :].strip() if heads else None
    return body in ("", "...", "pass") or bool(body and re.fullmatch(r"raise NotImplementedError\b.*", body))


def _without(text: str, fenced: Sequence[FencedBlock]) -> str:
    """The text around the fenced blocks; prose takes their place, so that no lines of code run together."""
    pieces, at = list[str](), 0
    for block in fenced:
        pieces += [text[at : block.start], "."]
        at = block.end
    return "".join([*pieces, text[at:]])


def _runs(text: str) -> Iterator[str]:
    """Lines of code that stand together, between lines that can be none."""
    blank = without_literals(text).split("\n")
    run, base, depth = list[str](), 0, 0
    for n, line in enumerate(text.split("\n")):
        indent, code = len(line) - len(line.lstrip()), blank[n].strip()
        bare = line.strip()
        goes_on = bool(run) and (depth > 0 or not bare or not code or indent > base or bare[0] in ")]}#")
        if not goes_on and not (bare and _begins(line, blank, n) and (not run or indent == base)):
            if run and indent == base and _CALLED.match(code):
                goes_on = True
            else:
                if run:
                    yield _trim(run)
                run, depth = [], 0
                if not (bare and _begins(line, blank, n)):
                    continue
        if not run:
            base = indent
        run.append(line)
        depth = max(0, depth + sum(map(code.count, "([{")) - sum(map(code.count, ")]}")))
    if run:
        yield _trim(run)


def _begins(line: str, blank: Sequence[str], n: int) -> bool:
    """Whether a line can begin a piece of code. What opens a body needs one."""
    if not _CODE.match(line.strip()):
        return False
    if not _HEADER.match(blank[n].strip()):
        return True
    below = next((one for one in blank[n + 1 :] if one.strip()), "")
    return len(below) - len(below.lstrip()) > len(line) - len(line.lstrip())


def _trim(run: list[str]) -> str:
    """A piece of code without calls below it, which only show its use."""
    while run and (not run[-1].strip() or (run[-1] == run[-1].lstrip() and _CALLED.match(run[-1]))):
        run.pop()
    return textwrap.dedent("\n".join(run)).rstrip() + "\n"


def _with_what_it_uses(program: str, chunks: Sequence[str], name: str, prefix: str) -> str:
    """The program behind those chunks, and the part of ``prefix`` above the function, that define names that it
    lacks.
    """
    # a block that calls the function at once shows its use; a helper may call it when it is called itself
    others = [chunk for chunk in chunks if chunk is not program and name not in _used_names(_at_once(chunk))]
    head = re.search(rf"^(?:async\s+)?def\s+{re.escape(name)}\b", prefix, re.MULTILINE)
    if head and prefix[: head.start()].strip():
        others = [prefix[: head.start()], *others]
    used, lacks, news = set[int](), _free(program), True
    while news and lacks:
        news = False
        for i in range(len(others) - 1, -1, -1):
            if i not in used and (gives := definitions(others[i])) & lacks:
                used.add(i)
                lacks = (lacks | _free(others[i])) - gives
                news = True
    before = "".join(others[i].rstrip() + "\n\n" for i in sorted(used))
    if before and (future := _FUTURE.findall(program)):  # Python wants them first
        return "".join([*(line.rstrip() + "\n" for line in future), before, _FUTURE.sub("", program).rstrip() + "\n"])
    return before + program.rstrip() + "\n"


def _at_once(code: str) -> str:
    """The lines of code that run when the module does: those outside functions and classes."""
    kept, inside = list[str](), None
    for line in _logical_lines(without_literals(code)):
        indent = len(line) - len(line.lstrip())
        if inside is not None and indent > inside:
            continue
        inside = indent if _SCOPE.match(line.strip()) else None
        if inside is None:
            kept.append(line)
    return "\n".join(kept)


def _used_names(code: str) -> set[str]:
    """The names that occur in code; in its strings only those that an f-string inserts."""
    inserted = (word for part in _INSERTED.findall(code) for word in _WORD.findall(part))
    return {*_WORD.findall(without_literals(code)), *inserted}


def _free(code: str) -> set[str]:
    """The names that code uses and binds nowhere, as far as its lines tell."""
    bare = without_literals(code)
    bound = definitions(code)
    for pattern in (
        r"\b(?:def|class)\s+(\w+)",
        r"\bdef\s+\w+\s*(?:\[[^\]\n]{0,200}\])?\s*\(([^)]{0,2000})",
        r"\blambda\b([^:\n]{0,300}):",
        r"\bfor\b([^:\n]{0,300}?)\bin\b",
        r"\b(?:as|import|global|nonlocal)\b([^:\n]{0,1000})",
        r"([\w, *()]{1,200}?)\s{0,9}(?::[^=\n()]{1,200})?(?<![=!<>])=(?!=)",
        r"(\w+)\s*:=",
    ):
        for names_list in re.findall(pattern, bare):
            bound |= {*_WORD.findall(re.sub(r":[^,]*|=[^,]*", "", names_list))}
    return _used_names(code) - bound


def _complete(text: str, chunks: Sequence[str], prefix: str) -> str | None:
    """The reply as a continuation of the function's head, if it is one."""
    if not prefix:
        return None
    for chunk in chunks:
        body = chunk.lstrip("\n")
        if body[:1] in (" ", "\t"):
            return prefix + body
        if re.search(r"^return\b", without_literals(body), re.M):
            return prefix + textwrap.indent(body, "    ")
    if chunks:
        return None
    kept = list[str]()
    for line in text.lstrip("\n").split("\n"):
        if line.strip() and line == line.lstrip() and line[0] not in "#)]}" and (not kept or not _CODE.match(line)):
            if kept or not _first_of_a_body(text.strip()):
                break
            line = f"    {line}"  # a server took the blanks away with which the reply began
        kept.append(line)
    body = "\n".join(kept).rstrip() + "\n"
    return prefix + body if body[:1] in (" ", "\t") else None


def _first_of_a_body(text: str) -> bool:
    """Whether a text without indentation is the body of a function: code, and what follows it is indented."""
    first, *rest = text.split("\n")
    if _SCOPE.match(first) or not (_STATEMENT.match(first) or _CODE.match(first)):
        return False
    if not rest:
        return bool(re.search(r"[-+*/%()\[\]<>=]", first))
    return next((line for line in rest if line.strip()), "")[:1] in (" ", "\t")


__all__ = ["definitions", "program_in"]
