"""The program is found however a model dresses it, and none is found where there is none."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vivavoce.tasks.program_text import definitions, program_in

F, T = "```", "~~~"
WHOLE = "def f(x):\n    return x + 1\n"
HEAD = (
    "import math\nfrom typing import List\n\n\ndef twice(x):\n    return 2 * x\n\n\n"
    'def f(x: List[int]) -> int:\n    """Add one."""\n'
)


def indented(text: str, by: str) -> str:
    return "".join(f"{by}{line}" if line.strip() else line for line in text.splitlines(keepends=True))


def fenced(code: str, fence: str = F, info: str = "python") -> str:
    return f"{fence}{info}\n{code}{fence}"


def several(*codes: str) -> str:
    return "\nThen:\n".join(fenced(f"{code.rstrip()}\n") for code in codes)


def given_one(program: str | None) -> Any:
    """What the program makes of 1; these are our own programs."""
    assert program is not None
    space: dict[str, Any] = {}
    exec(program, space)
    return space["f"](1)


DRESSED = {
    # fences
    "indented by three": f"1. The code:\n\n{indented(fenced(WHOLE), '   ')}\n",
    "indented by a tab": f"* The code:\n\n{indented(fenced(WHOLE), chr(9))}\n",
    "behind the number of a list": f"1. {F}python\n{indented(WHOLE, '   ')}   {F}\n2. Done.",
    "indented, and its code is not": f"- Code:\n   {F}python\n{WHOLE}   {F}\n",
    "quoted": "\n".join(f"> {line}" for line in fenced(WHOLE).split("\n")),
    "four backticks": fenced(WHOLE, F + "`"),
    "tildes": fenced(WHOLE, T),
    "four tildes, no language": fenced(WHOLE, T + "~", ""),
    "in a longer fence": f"{F}`\n{fenced(WHOLE)}\n{F}`",
    "in a fence of the same length": f"{F}\n{fenced(WHOLE)}\n{F}",
    "in a fence of markdown": f"{F}markdown\n# It\n{fenced(WHOLE)}\nDone.\n{F}",
    "in tildes": f"{T}\n{fenced(WHOLE)}\n{T}",
    "opened twice": f"{F}python\n{fenced(WHOLE)}\n{F}",
    "never closed": f"{F}python\n{WHOLE}",
    "the one before never closed": f"{F}text\nfoo\n\n{fenced(WHOLE)}\n",
    "python before never closed": f"{F}python\nprint(1\n\n{fenced(WHOLE)}\n",
    "closed behind the code": f"{F}python\n{WHOLE.rstrip()}{F}\nDone.",
    "opened behind words": f"Here it is: {F}python\n{WHOLE}{F}",
    "one line": f"{F}python def f(x): return x + 1 {F}",
    "one line without a language": f"{F}def f(x): return x + 1{F}",
    "braces": f"{F}{{.python .numberLines}}\n{WHOLE}{F}",
    "Python, version 3": fenced(WHOLE, info="Python3"),
    "a title": fenced(WHOLE, info='python title="f.py"'),
    "another language": fenced(WHOLE, info="text"),
    "carriage returns": fenced(WHOLE).replace("\n", "\r\n"),
    "old line ends": fenced(WHOLE).replace("\n", "\r"),
    "no-break blanks": fenced(WHOLE.replace("    ", "\xa0\xa0\xa0\xa0")),
    "a byte order mark": "\ufeff" + WHOLE,
    # what a docstring or a comment shows
    "a fence in a docstring": fenced(f"def f(x):\n    '''\n    {F}\n    f(1)\n    {F}\n    '''\n    return x + 1\n"),
    "a fence in a docstring, two blanks": fenced(
        f'def f(x):\n  """\n  {F}python\n  f(1)\n  {F}\n  """\n  return x + 1\n'
    ),
    "a fence in a comment": fenced(f"# {F}\n{WHOLE}"),
    "a fence in a string": fenced(f"s = '''\n{F}\n'''\n{WHOLE}"),
    "a program in a docstring": fenced(f'"""\ndef f(x):\n    return 0\n"""\n{WHOLE}'),
    # ends
    "end of text": f"{F}python\n{WHOLE}<|endoftext|>",
    "end of turn in the fence": f"{F}python\n{WHOLE}<|im_end|>\n{F}",
    "end of turn behind the fence": f"{fenced(WHOLE)}<|eot_id|>",
    "end of turn without a fence": f"{WHOLE}</s>",
    "a mark of a thought in a string": fenced("def f(x):\n    s = '</think>'\n    return x + 1\n"),
    "a mark of a thought in a string without a fence": "def f(x):\n    s = '</think>'\n    return x + 1\n",
    "behind a thought": f"<think>def f(x): return 0</think>\n{WHOLE}",
    "behind a thought with half a block": f"<think>{F}python\ndef f(x): return 0\n</think>\n\n{fenced(WHOLE)}",
    # prose around code that has no fence
    "a line that begins with from": f"We take each item\nfrom the list and add it:\n\n{WHOLE}",
    "a line that begins with import": f"The\nimport of it is this:\n{WHOLE}",
    "a line that begins with class": f"It is of the\nclass of easy ones.\n{WHOLE}",
    "a line that begins with def": f"def is how it begins.\n{WHOLE}",
    "prose with brackets and quotes": f"It's (as we'll see) easy.\n\n{WHOLE}\nThat's it: f(1) is 2.",
    "prose right below": f"{WHOLE}This adds one.\nfrom this we see it.",
    "a call below": f"{WHOLE}\nf(input())\n",
    "an example below": f"{WHOLE}\n>>> f(1)\n2\n",
    "code in markdown's indentation": f"The code:\n\n{indented(WHOLE, '    ')}\nDone.",
    "a comment above": f"Solution:\n# adds one\n{WHOLE}",
    "a constant above": "Solution:\nONE = 1\n\ndef f(x):\n    return x + ONE\n",
    "imports above, prose between": "import math\n\nNow the function:\n\ndef f(x):\n    return x + math.floor(1.5)\n",
    "a long literal": "T = [\n1,\n2,\n]\n\ndef f(x):\n    return T[x]\n",
    "in single backticks": "It is `f = lambda x: x + 1`.",
    # ways to define
    "annotated": "from typing import Callable\nf: Callable[[int], int] = lambda x: x + 1\n",
    "annotated, in a fence": fenced("f: 'Callable[[int], int]' = lambda x: x + 1\n"),
    "under if": fenced("if True:\n    def f(x):\n        return x + 1\n"),
    "under if, without a fence": "if True:\n    def f(x):\n        return x + 1\n",
    "under try": fenced("try:\n    import nothing_at_all\nexcept ImportError:\n    def f(x):\n        return x + 1\n"),
    "under else, one line": fenced("if False: pass\nelse: f = lambda x: x + 1\n"),
    "decorated": fenced(f"import functools\n\n@functools.lru_cache(maxsize=None)\n{WHOLE}"),
    "decorated, without a fence": f"Here:\nimport functools\n@functools.lru_cache(\n    maxsize=None,\n)\n{WHOLE}",
    "a class": fenced("class f(int):\n    def __new__(cls, x):\n        return x + 1\n"),
    "chained": fenced("g = f = lambda x: x + 1\n"),
    "unpacked": fenced("f, g = (lambda x: x + 1), None\n"),
    "imports around it": fenced("from math import nextafter, ceil\nimport math as g\nf = lambda x: x + 1\n"),
    "a head over several lines": fenced("def f(\n    x,\n    by=1,\n):\n    return x + by\n"),
    "behind a semicolon": fenced("import math; f = lambda x: x + 1\n"),
    # several blocks
    "imports in a block of their own": several("from math import floor", "def f(x):\n    return x + floor(1.5)"),
    "a helper in a later block": several("def f(x):\n    return g(x)", "def g(x):\n    return x + 1"),
    "helpers of helpers": several(
        "import math",
        "def h(x):\n    return math.floor(x)",
        "def g(x):\n    return h(x) + 1",
        "def f(x):\n    return g(x)",
    ),
    "helpers that call it": several(
        "def f(x):\n    return 2 if x == 1 else g(x)", "def g(x):\n    return f(x - 1)", "g = g\nprint(f(1))\ny = 1/0"
    ),
    "an example whose names seem to be used": several(
        "def f(x):\n    match [x]:\n        case [a]:\n            return a + 1", "a = f(1)\nprint(a)"
    ),
    "a first try": several("def f(x): return 0", WHOLE),
    "its use in another block": several(WHOLE, "x = f(1)\nprint(x)\ny = 1/0"),
    "its use by an import": several(WHOLE, "from solution import f\nprint(f(1))"),
    "results that have the names of arguments": several("x = 1/0", WHOLE),
    "its head at the end": several(WHOLE, "def f(x):"),
    "a shell first": f"{F}bash\npip install f\n{F}\n{fenced(WHOLE)}",
    "a session": fenced(">>> def f(x):\n...     return x + 1\n...\n>>> f(1)\n2\n", info="pycon"),
    # what the head above it gives
    "imports of the head": fenced("def f(x: List[int]) -> int:\n    return x + math.floor(1.5)\n"),
    "helpers of the head": fenced("def f(x):\n    return twice(x)\n"),
    "used in an f-string alone": fenced("def f(x):\n    return int(f'{twice(x)}')\n"),
    # going on from the head
    "a body": "    return x + 1\n",
    "a body in a fence": f"{F}python\n    return x + 1\n{F}",
    "a body in an indented fence": f"- So:\n   {F}python\n       return x + 1\n   {F}",
    "a body without its indentation": fenced("return x + 1\n"),
    "a body whose first blanks are lost": "y = x\n    return y + 1\n",
    "a body of one line whose blanks are lost": "return x + 1",
    "a body behind a thought": "<think>easy</think>\n\n    return x + 1\n",
}  # fmt: skip


@pytest.mark.parametrize("reply", DRESSED.values(), ids=DRESSED.keys())
def test_a_right_program_is_found_however_it_is_dressed(reply: str) -> None:
    assert given_one(program_in(reply, "f", HEAD)) == 2


@pytest.mark.parametrize(
    "reply",
    [
        f"<think>{fenced(WHOLE)}",
        f"<think>{fenced(WHOLE)}</think>I do not know.",
        f"{WHOLE}\n</think>\nI do not know.",
        f"[THINK]{WHOLE}",
        "I cannot do that.",
        "from this we see that f = x",
        "The function f(x) returns x + 1.",
        fenced("def g(x):\n    return f(x)\n"),
        fenced("class Solution:\n    def f(self, x):\n        return x + 1\n"),
        fenced("def g():\n    def f(x):\n        return x + 1\n"),
        fenced("# def f(x): return x\n"),
        fenced('"""\ndef f(x):\n    return x\n"""\n'),
        fenced("ff = 1\nf.x = 2\nf[0] = 3\nif f == 1: pass\n"),
        "",
    ],
)
def test_there_is_no_program_where_none_defines_the_function(reply: str) -> None:
    assert program_in(reply, "f", HEAD) is None


def test_what_a_program_does_not_use_is_left_out() -> None:
    other = fenced("def g(x):\n    return 1 / 0\n")
    assert program_in(f"{other}\n{fenced(WHOLE)}", "f", HEAD) == WHOLE
    assert program_in(fenced("def f(g):\n    return g + 1\n") + "\n" + other, "f") == "def f(g):\n    return g + 1\n"


def test_names_are_defined_at_the_level_of_the_module() -> None:
    code = "import a.b, c as d\nfrom e import (\n    g,\n    h as i,\n)\nx: int = 1\ny, *z = 1, 2\nu = v = 3\n"
    code += "class K:\n    w = 1\ndef m(n, o=1):\n    p = 2\nif True:\n    q = 1\nfor r in s: t = 1\n"
    code += "'''\nno = 1\n'''\nwith open(l) as o: pass\nlist[0] = 1\n"
    assert definitions(code) == {"a", "d", "g", "i", "x", "y", "z", "u", "v", "K", "m", "q", "t"}
    assert definitions(code, imported=False) == {"x", "y", "z", "u", "v", "K", "m", "q", "t"}


pieces = st.sampled_from(
    [
        *(WHOLE, F, T, F + "python", "\n", "    ", "# ", '"""', "'", '"', "(", ")", "[", "]", "\\", "def f(", "class"),
        *(">>> ", "> ", "1. ", "import ", "from x", "f = ", "lambda", "if ", ":", "=", "return", "{", "}", "<think>"),
        *("</think>", "<|im_end|>", "`", "it's", "é"),
    ]
)


@given(st.lists(pieces | st.text(max_size=5), max_size=30).map("".join))
def test_any_text_is_looked_through_without_an_error(text: str) -> None:
    for prefix in ("", HEAD):
        program = program_in(text, "f", prefix)
        assert program is None or program.endswith("\n")


HOSTILE = [
    "`",
    '"',
    "(",
    "'\\",
    "\\",
    "<",
    "\t",
    ">",
    "> ",
    "1. ",
    "f, ",
    "[a,",
    "f = ",
    "def f(",
    "if x: ",
    "lambda ",
    "for ",
]
HOSTILE += [
    "import a, ",
    f"{F}python\n",
    f"{F}\ny = 1\n{F}\n",
    '"""\n',
    "<think>",
    "</think>",
    "</think>\n",
    "'</think>' ",
]
HOSTILE += ["<tool_call>", "<|im_end|>", "f(x)\n", WHOLE]


@pytest.mark.parametrize("piece", HOSTILE)
def test_a_hostile_text_does_not_hold_up_the_grading(piece: str) -> None:
    """A text as long as the longest replies takes a moment; looked through again and again, it would take minutes."""
    program_in(piece * (40_000 // len(piece)), "f", HEAD)
    program_in(" " * 40_000 + piece, "f", HEAD)


FURTHER = {
    "attributes behind the fence": f'{F}python title="a.py"\n{WHOLE}{F}',
    "attributes in braces": f"{F}{{.python .numberLines}}\n{WHOLE}{F}",
    "a version": f"{F}python3.11\n{WHOLE}{F}",
    "a quotation": "> " + f"{F}python\n{WHOLE}{F}".replace("\n", "\n> "),
    "ends of lines of an old Mac": fenced(WHOLE).replace("\n", "\r"),
    "a deeper list": indented(fenced(WHOLE), " " * 8).join(["1. a\n    - b\n\n", "\n"]),
    "a page's code": f"<pre><code class='python'>{WHOLE}</code></pre>",
    "a page's escapes": "<code>def f(x):\n    return x + 1 if x &gt; 0 &amp;&amp; 0 else x + 1\n</code>".replace(
        "&amp;&amp;", "and not"
    ),
    "tags of an answer": f"<answer>\n{WHOLE}</answer>",
    "a listing": f"\\begin{{lstlisting}}\n{WHOLE}\\end{{lstlisting}}",
    "a stub behind it that is not implemented": several(WHOLE, "def f(x):\n    raise NotImplementedError('yours')\n"),
    "a stub with a docstring behind it": several(WHOLE, 'def f(x):\n    """Add one."""\n    pass\n'),
    "a helper before an import of what is to come": several(
        "def g(x):\n    return x + 1\n", "from __future__ import annotations\ndef f(x: int) -> int:\n    return g(x)\n"
    ),
    "lines of a notebook": fenced(f"!pip install numpy\n%matplotlib inline\n{WHOLE}%timeit f(1)\n"),
    "a remainder at the first column": fenced("def f(x):\n    return (x + 1 + 5\n% 1)\n"),
    "a def under while": fenced("while True:\n    def f(x):\n        return x + 1\n    break\n"),
    "a built-in under another name": fenced("f = int.__add__ if 0 else (lambda x: x + 1)\n"),
    "an alias": fenced("def add(x):\n    return x + 1\nf = add\n"),
    "two names at once": fenced("f, g = lambda x: x + 1, max\n"),
}


@pytest.mark.parametrize("dress", FURTHER)
def test_a_program_is_found_in_further_dresses(dress: str) -> None:
    assert given_one(program_in(FURTHER[dress], "f", HEAD)) == 2


@pytest.mark.parametrize(
    "text", ["", "Call f.", fenced("print(f(1))\n"), f"{F}javascript\nfunction f(x) {{ return x + 1 }}\n{F}"]
)
def test_what_defines_nothing_is_no_program(text: str) -> None:
    assert program_in(text, "f", HEAD) is None
