"""The examples of docs/custom-tasks.md, as a reader who copies them meets them."""

import json
import re
from pathlib import Path

import pytest
import yaml
from tests.command import viva

PAGE = Path(__file__).parents[2] / "docs" / "custom-tasks.md"
RIDDLES = [{"ask": f"What is twice {i}?", "solution": 2 * i, "kind": "doubling"} for i in range(10)]


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """A folder with every file of the page."""
    for name, content in re.findall(r"^`([\w.]+)`\n\n```\w+\n(.*?)^```", PAGE.read_text("utf-8"), re.M | re.S):
        (tmp_path / name).write_text(content, "utf-8")
    (tmp_path / "riddles").mkdir()
    (tmp_path / "riddles" / "all.jsonl").write_text("".join(json.dumps(row) + "\n" for row in RIDDLES), "utf-8")
    return tmp_path


def test_one_yaml_is_a_task(copied: Path) -> None:
    done = viva("doctor", "capitals.yaml", "--offline", cwd=copied)
    assert done.returncode == 0, done.stderr
    assert "data: 2 train questions" in done.stdout
    assert "data: 2 test questions" in done.stdout


def test_its_rows_are_checked_before_anything_is_spent(copied: Path) -> None:
    with (copied / "capitals.jsonl").open("a") as file:
        file.write('{"question": "Which city is it?", "answer": "", "continent": "none"}\n')
    done = viva("doctor", "capitals.yaml", "--offline", cwd=copied)
    assert done.returncode == 1
    assert "capitals.jsonl, row 5" in done.stdout


def test_one_file_is_a_task_and_is_checked_like_those_built_in(copied: Path) -> None:
    done = viva("check-tasks", "--data", ".", "--task", "riddles.py", cwd=copied)
    assert done.returncode == 0, done.stderr
    line = "riddles 10 rows 10 gold accepted 10 wrong rejected (all.jsonl)"
    assert " ".join(done.stdout.split()) == line
    recipe = (copied / "capitals.yaml").read_text("utf-8")
    used = re.search(r"`(task: \{name: riddles\.py.*?\})`", PAGE.read_text("utf-8"))
    assert used
    (copied / "riddles.yaml").write_text(re.sub(r"^task:.*", used[1], recipe, flags=re.M), "utf-8")
    done = viva("doctor", "riddles.yaml", "--offline", cwd=copied)
    assert "data: 8 train questions" in done.stdout, done.stderr
    (copied / "riddles.yaml").write_text(re.sub(r"^task:.*", "task: {name: riddles.py}", recipe, flags=re.M), "utf-8")
    assert "no file of the train split is given" in viva("doctor", "riddles.yaml", "--offline", cwd=copied).stdout


def test_a_task_that_grades_wrong_ends_the_check_with_status_1(copied: Path) -> None:
    (copied / "kind.py").write_text((copied / "riddles.py").read_text("utf-8") + KIND, "utf-8")
    done = viva("check-tasks", "--data", ".", "--task", "kind.py", cwd=copied)
    assert done.returncode == 1
    assert "10 gold accepted       0 wrong rejected" in done.stdout
    assert done.stdout.count("  off: ") == 10


KIND = """

class Kind(Benchmark):
    def grade(self, problem, text):
        from vivavoce.records import Grade
        return Grade("1", True)

def task(options):
    return Kind("kind", options, ask, GRADERS["number"])
"""


def test_a_task_without_a_grader_of_answers_is_checked_as_well(copied: Path) -> None:
    (copied / "code.py").write_text(CODE, "utf-8")
    done = viva("check-tasks", "--data", ".", "--task", "code.py", "--json", cwd=copied)
    assert done.returncode == 0, done.stderr
    (checked,) = json.loads(done.stdout)
    assert (checked["rows"], checked["accepted"], checked["rejected"], checked["odd"]) == (1, 1, 1, ["row 2: no tests"])


CODE = """
from pathlib import Path
from pydantic import BaseModel
from vivavoce.records import Grade, Problem
from vivavoce.tasks.samples import Sample

OFFICIAL = [{"path": "riddles/all.jsonl"}]

class Options(BaseModel):
    path: Path

class Code:
    name, answer_format, left_out = "code", "a function", ["row 2: no tests"]
    def problems(self, split):
        return [Problem("1", "Write double(x).", "x * 2")] if split == "test" else []
    def samples(self, split):
        for problem in self.problems(split):
            yield Sample(problem, right=("return x * 2",), wrong=("return x + 2", ""), where="row 1")
    def grade(self, problem, text):
        return Grade(text, problem.gold in text)

def task(options):
    return Code()
"""


def test_the_pattern_given_to_the_harness_reads_what_our_grader_reads(copied: Path) -> None:
    from vivavoce.tasks.grading import GRADERS

    own = yaml.safe_load((copied / "own.yaml").read_text("utf-8"))
    assert own["doc_to_text"] == "{{question}}\n" + GRADERS["number"].answer_format
    pattern = own["filter_list"][0]["filter"][0]["regex_pattern"]
    for text, answer in (("It is 6.\nFinal answer: 18", "18"), ("Final answer: -2.5.", "-2.5")):
        assert re.findall(pattern, text)[0] == GRADERS["number"].answer(text) == answer
