# ruff: noqa: E501 - a case a line
"""Mistakes in a user's own task, backend, method or prompts are told like all others: what, file and line, what to
do.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from vivavoce import cli
from vivavoce.committee.prompting import PromptSet
from vivavoce.errors import RecipeError

HEAD = "from pydantic import BaseModel\nfrom vivavoce.records import Grade, Problem, Reply\nclass Options(BaseModel): pass\n"
TASK = """\
class Mine:
    name = "mine"
    answer_format = "Say it."
    def problems(self, split): return [Problem(f"{split}{i}", f"{split} {i}?", "4") for i in range(3)]
    def grade(self, problem, text): return Grade(text, text == problem.gold)
    def steps(self, text): return [text]
    def first_wrong_step(self, problem, text): raise NotImplementedError
    def probability(self, text, tokens): return 1.0
def task(options): return Mine()
"""
BACKEND = """\
class Mine:
    identity = "mine"
    def __init__(self, name): self.name = name
    async def reply(self, messages, sampling, seed): return Reply("4")
    async def aclose(self): pass
def agent(name, options): return Mine(name)
"""
METHOD = """\
from vivavoce.config import Recipe
class Options(Recipe): pass
async def distill(recipe, run): return {}
def plan(recipe, measured=None): return []
"""
RECIPE = """\
method: {method}
name: x
task: {{name: {task}}}
teachers: [{{name: one, backend: {backend}}}, {{name: two, backend: scripted, replies: ["5"]}}]
student: {{name: pupil, model: "schoolhouse:student"}}
debate: {{prompts: {prompts}, max_rounds: 1}}
"""


@pytest.fixture
def viva(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Runs a command on a recipe with own files; gives its exit code and what it said."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "task.py").write_text(HEAD + TASK)
    (tmp_path / "backend.py").write_text(HEAD + BACKEND)

    def run(*command: str, files: dict[str, str], **named: str) -> tuple[object, str]:
        for name, text in files.items():
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text(text)
        values = {"method": "debate_reflect", "task": "task.py", "backend": "backend.py", "prompts": "schoolhouse"}
        (tmp_path / "r.yaml").write_text(RECIPE.format(**{**values, **named}))
        monkeypatch.setattr(sys, "argv", ["viva", *command])
        with pytest.raises(SystemExit) as end:
            cli.main()
        stderr = capsys.readouterr().err
        return end.value.code, stderr

    return run


def line_of(source: str, word: str) -> int:
    return source[: source.index(word)].count("\n") + 1


@pytest.mark.parametrize(
    ("old", "new", "what", "line", "command"),
    [
        ("return Grade(text, text == problem.gold)", "return text == problem.gold", "not a Grade", "def grade", "run"),
        ("return Grade(text, text", "return Grade(tekst, text", "NameError: name 'tekst'", "def grade", "run"),
        ("return [Problem(", "return 1 / 0 or [Problem(", "ZeroDivisionError", "def problems", "doctor"),
        ("return [Problem(", "return [] or [(", r"not a list of Problem", "def problems", "plan"),
        ('f"{split}{i}"', "split", "two problems have one id", "def problems", "plan"),
        ("def task(options)", "def task()", "`task` does not take what it is called with", "def task", "plan"),
        ("def task(options): return Mine()", "def task(options): return 3", "has no name, answer_format", "def task", "plan"),
        ("    def grade", "    def grate", "has no grade", "def task", "plan"),
        ("def task(options)", "def tusk(options)", "no function `task`", "", "plan"),
        ("class Mine:", "import nowhere\nclass Mine:", "ModuleNotFoundError: No module named 'nowhere'", "import nowhere", "plan"),
        ("class Mine:", "import sys; sys.exit(3)\nclass Mine:", "the file ends the program", "import sys", "plan"),
        ("class Mine:", "class Mine(:", "the file is not Python", "class Mine", "plan"),
    ],
)  # fmt: skip
def test_mistakes_in_an_own_task(viva, old: str, new: str, what: str, line: str, command: str) -> None:
    source = (HEAD + TASK).replace(old, new, 1)
    assert source != HEAD + TASK
    code, stderr = viva(command, "r.yaml", files={"task.py": source})
    assert what in stderr
    assert (f"task.py:{line_of(source, line)}" if line else "task.py") in stderr
    assert (code, "Traceback" in stderr) == (2, False), stderr
    assert stderr[stderr.index("error:") :].count("\n") <= 4


@pytest.mark.parametrize(
    ("old", "new", "what", "line"),
    [
        ('return Reply("4")', 'return "4"', "not a Reply", "async def reply"),
        ('return Reply("4")', 'return {}["x"]', "KeyError: 'x'", "async def reply"),
        ("async def reply", "def reply", "`reply` is not async", "def reply"),
        ("(self, messages, sampling, seed)", "(self, messages)", "`reply` does not take what it is called with", "async def reply"),
        ('    identity = "mine"\n', "", "has no identity", "def agent"),
        ("def agent(name, options): return Mine(name)", "def agent(name): return Mine(name)", "does not take", "def agent"),
    ],
)  # fmt: skip
def test_mistakes_in_an_own_backend(viva, old: str, new: str, what: str, line: str) -> None:
    source = (HEAD + BACKEND).replace(old, new, 1)
    assert source != HEAD + BACKEND
    code, stderr = viva("run", "r.yaml", files={"backend.py": source})
    assert what in stderr
    assert f"backend.py:{line_of(source, line)}" in stderr
    assert (code, "Traceback" in stderr) == (2, False), stderr


@pytest.mark.parametrize(
    ("old", "new", "what", "line", "command"),
    [
        ("def plan", "def plant", "the file defines no function `plan`", "", "plan"),
        ("async def distill", "async def distil", "the file defines no function `distill`", "", "run"),
        ("async def distill", "def distill", "`distill` is not async", "def distill", "run"),
        ("class Options(Recipe)", "class Optiuns(Recipe)", "no pydantic model `Options`", "", "run"),
        ("class Options(Recipe): pass", "from pydantic import BaseModel\nclass Options(BaseModel): pass", "is no Recipe", "", "run"),
        ("return {}", "return {}['x']", "KeyError: 'x'", "async def distill", "run"),
        ("return []", "return missing", "NameError", "def plan", "plan"),
        ("def plan(recipe, measured=None)", "def plan(recipe)", "`plan` does not take", "def plan", "plan"),
        ("return {}", "return None", "`distill` returned no results: arms, n, paired, task are missing", "async def distill", "run"),
    ],
)  # fmt: skip
def test_mistakes_in_an_own_method(viva, old: str, new: str, what: str, line: str, command: str) -> None:
    source = METHOD.replace(old, new, 1)
    assert source != METHOD
    files = {"method.py": source, "r0.yaml": ""}
    code, stderr = viva(command, "r.yaml", "--set", "debate=null", files=files, method="method.py")
    if "Options" not in what and "Recipe" not in what:
        code, stderr = viva(command, "m.yaml", files={"m.yaml": without_debate("method.py")})
    assert what in stderr
    assert (f"method.py:{line_of(source, line)}" if line else "method.py") in stderr
    assert (code, "Traceback" in stderr) == (2, False), stderr


def without_debate(method: str) -> str:
    made = RECIPE.format(method=method, task="task.py", backend="backend.py", prompts="")
    return made[: made.index("debate:")]


def test_a_pilot_that_an_own_method_lacks_is_told(viva) -> None:
    files = {"method.py": METHOD, "m.yaml": without_debate("method.py")}
    code, stderr = viva("plan", "m.yaml", "--pilot", "2", files=files)
    assert (code, "Traceback" in stderr) == (2, False), stderr
    assert "no function `pilot`" in stderr


def test_a_traceback_is_shown_to_whoever_asks(viva) -> None:
    code, stderr = viva(
        "--traceback",
        "doctor",
        "r.yaml",
        files={"task.py": (HEAD + TASK).replace("return [Prob", "return 1 / 0, [Prob")},
    )
    assert (code, "Traceback" in stderr, "ZeroDivisionError" in stderr) == (2, True, True)


# --- prompts


def prompts(folder: Path, **files: str) -> PromptSet:
    folder.mkdir(exist_ok=True)
    (folder / "set.yaml").write_text(files.pop("set", ""))
    for name, text in {"answer": "--- user\n{{ question }}\n", **files}.items():
        (folder / f"{name}.md").write_bytes(text.encode("latin-1"))
    return PromptSet(folder)


@pytest.mark.parametrize(
    ("files", "what", "where"),
    [
        ({"answer": "--- system\nBe brief.\n--- user\n\n{{ qestion }}\n"}, "`qestion`, which it is not given, did you mean `question`", "answer.md:5"),
        ({"answer": "--- user\n{{ statements }}"}, "`statements`, which it is not given", "answer.md:2"),
        ({"answer": "--- user\n{% if question %}\n"}, "no template: Unexpected end of template", "answer.md:2"),
        ({"answer": "--- user\n\n{{ question | nofilter }}\n"}, "No filter named 'nofilter'", "answer.md:3"),
        ({"answer": "{{ question }}\n"}, "the template has no message", "answer.md:1"),
        ({"answer": "Hello\n--- user\n{{ question }}\n"}, "text stands before the first message", "answer.md:1"),
        ({"answer": "--- user\nZoë\n"}, "not UTF-8", "answer.md:2"),
        ({"set": "untaught: ['(']\n"}, "is not a valid regular expression", "set.yaml"),
        ({"set": "confidence: {pattern: '(a)(b)'}\n"}, "several groups", "set.yaml"),
        ({"set": "confidense: {pattern: a}\n"}, "did you mean `confidence`", "set.yaml"),
        ({"set": "a: [\n"}, "not YAML", "set.yaml"),
    ],
)  # fmt: skip
def test_mistakes_in_own_prompts_are_told_before_anything_is_asked(
    tmp_path: Path, files: dict[str, str], what: str, where: str
) -> None:
    with pytest.raises(RecipeError, match=what.replace("(", r"\(")) as error:
        prompts(tmp_path / "own", **files).need(["answer"])
    assert error.value.where.endswith(where)
    assert error.value.do


def test_a_template_that_fails_on_some_values_names_its_line(tmp_path: Path) -> None:
    made = prompts(tmp_path / "own", answer="--- system\nHi.\n--- user\n\n{{ question }}\n{{ question + 1 }}\n")
    made.need(["answer"])
    with pytest.raises(RecipeError, match="the template fails: can only concatenate str") as error:
        made.render("answer", question="?")
    assert error.value.where.endswith("answer.md:6")
    with pytest.raises(RecipeError, match=r"has no debate\.md"):
        made.render("debate", question="?")


def test_optional_values_and_comments_and_crlf_are_no_mistakes(tmp_path: Path) -> None:
    body = "{% if hints is defined %}{{ hints }}{% endif %}{% set a = 1 %}{{ question }}{{ a }}"
    text = f"{{# ours #}}\r\n--- user\r\n{body}\r\n"
    made = prompts(tmp_path / "own", answer=text)
    made.need(["answer"])
    assert made.render("answer", question="?") == [("user", ("?1",))]


def test_a_set_whose_pattern_finds_no_number_reads_none(tmp_path: Path) -> None:
    made = prompts(tmp_path / "own", set="confidence: {pattern: 'Sure: (.*)'}\nscore: {pattern: 'Score: (.*)'}\n")
    assert made.confidence("Sure: very") is None
    assert made.review_score("Score: good", "strict").value is None


@pytest.mark.parametrize("command", ["plan", "doctor", "run"])
def test_a_prompts_folder_without_a_template_is_told_by_every_command(viva, command: str) -> None:
    files = {"own/set.yaml": "", "own/answer.md": "--- user\n{{ question }}\n"}
    code, stderr = viva(
        command, "r.yaml", "--offline" if command == "doctor" else "--set=seed=0", files=files, prompts="own"
    )
    assert code in (1, 2)
    assert "Traceback" not in stderr


def test_a_folder_that_cannot_be_written_is_told(viva, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    code, stderr = viva("run", "r.yaml", "--out", "taken/run", files={})
    assert (code, "Traceback" in stderr) == (2, False), stderr
    assert "taken" in stderr
