"""A talk with a student: what it is asked with, what it remembers."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path

import pytest
from tests.command import viva

from vivavoce.errors import UserError
from vivavoce.methods.chatting import Chat
from vivavoce.schoolhouse import weights

RECIPE = """\
method: debate_reflect
task: {name: schoolhouse, train: 4, test: 4}
teachers: [{name: one, backend: scripted, replies: ["ans=4"]}]
student: {name: pupil, model: "schoolhouse:student", dtype: float32}
debate: {prompts: schoolhouse}
test: {max_new_tokens: 30}
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a student, which is the teacher cyd: it knows more than an untaught one."""
    path = tmp_path_factory.mktemp("runs") / "demo"
    student = path / "checkpoints" / "debate_reflect-0"
    shutil.copytree(weights("cyd"), student)
    (student / "train_result.json").write_text("{}")
    (path / "recipe.yaml").write_text(RECIPE)
    (path / "manifest.json").write_text('{"started": "2026-01-31T12:00:00+0000"}')
    arms = [{"name": "debate_reflect", "right": 1, "n": 4, "accuracy": 0.25, "seeds": [], "wilson95": [0, 1]}]
    results = {"task": "schoolhouse", "n": 4, "arms": arms, "paired": [], "main": "debate_reflect"}
    (path / "results.json").write_text(json.dumps(results))
    return path


def test_a_student_is_asked_as_its_run_asked_it_and_remembers_until_it_begins_anew(run: Path) -> None:
    async def talk() -> None:
        chat = Chat(str(run))
        assert chat.model == str(run / "checkpoints" / "debate_reflect-0")
        first = await chat.ask("a=4; b=a-5; b?")
        asked = [{"role": "system", "content": "solve"}, {"role": "user", "content": "a=4; b=a-5; b?"}]
        assert chat.history[:2] == asked
        assert "ans=" in first.text
        await chat.ask("a=1; b=a+1; b?")
        assert [m["role"] for m in chat.history] == ["system", "user", "assistant", "user", "assistant"]
        chat.restart()
        assert (await chat.ask("a=4; b=a-5; b?")).text == first.text, "as in the tests, nothing is left to chance"
        await chat.aclose()

    asyncio.run(talk())


def test_a_system_text_of_ones_own_replaces_the_runs_words(run: Path) -> None:
    async def talk() -> None:
        chat = Chat(str(run / "checkpoints" / "debate_reflect-0"), system="be kind", temperature=0.7, max_new_tokens=5)
        reply = await chat.ask("a=4; a?")
        assert not chat.as_asked
        assert [m["role"] for m in chat.history] == ["user", "assistant"]
        assert reply.usage.completion <= 5
        await chat.aclose()

    asyncio.run(talk())


def test_questions_that_are_piped_in_are_answered_one_a_line(run: Path) -> None:
    done = viva("chat", run, input="a=4; b=a-5; b?\n\n/new\na=1; b=a+1; b?\n")
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 2


@pytest.mark.parametrize("where", ["no/such/folder", "empty"])
def test_a_folder_without_a_student_is_refused(tmp_path: Path, where: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="folder"):
        Chat(str(tmp_path / where))
