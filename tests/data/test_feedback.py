"""What feedback offers as the right answer, and what of it is learnt."""

from __future__ import annotations

from pathlib import Path

import pytest

from vivavoce.committee.prompting import prompt_set
from vivavoce.committee.wording import Wording
from vivavoce.data.fair import read_fair
from vivavoce.data.feedback import claims, counts
from vivavoce.data.two_task import Lessons, feedback_rows, gold_rows
from vivavoce.errors import DataError
from vivavoce.graph import Graph
from vivavoce.protocols.peer_review import Options
from vivavoce.records import Problem, node
from vivavoce.tasks import open_task
from vivavoce.tasks.grading import GRADERS


class Own:
    """A task of one grader."""

    def __init__(self, grader: str) -> None:
        self.name, self.grader, self.answer_format = grader, GRADERS[grader], ""  # type: ignore[index]

    def grade(self, problem: Problem, text: str):
        return self.grader.grade(problem.gold, text)


def offers(text: str, gold: str, grader: str = "number") -> tuple[bool, bool]:
    return tuple(claims(node("critique", "p", "ada", 0, text), Problem("p", "?", gold), Own(grader)))  # type: ignore[return-value, arg-type]


@pytest.mark.parametrize(
    ("text", "offered"),
    [
        ("You forgot to carry. The correct answer is 18.", (True, False)),
        ("Therefore, the correct answer for the size of each group is 18, but the other is 3.", (True, False)),
        ("The correct answer should be 13 + 5 = 18 books.", (True, False)),
        ("The right answer is the 20 of before minus 2, which equals 18 grams.", (True, False)),
        ("Count again.\nFinal answer: 18", (True, False)),
        ("The hint is wrong, the correct answer is 22 apples.", (False, True)),
        ("The answer should have been 17, not 18.", (False, True)),
        ("The correct answer is not 5.", (False, False)),
        ("You added 13 and 5 and got 19; look at the last step.", (False, False)),
        ("The correct calculation starts from 20.", (False, False)),
        ("", (False, False)),
    ],
)
def test_what_is_offered_as_the_answer_is_told_from_other_numbers(text: str, offered: tuple[bool, bool]) -> None:
    assert offers(text, "18") == offered


@pytest.mark.parametrize(
    ("text", "gold", "grader", "offered"),
    [
        ("The correct answer is False, since whales are mammals.", "no", "yes_no", (True, False)),
        ("The correct answer is yes.", "no", "yes_no", (False, True)),
        ("The correct option is B.", "B", "choice", (True, False)),
        ("The right choice is (C), as the passage says.", "B", "choice", (False, True)),
        ("You misread the passage.", "B", "choice", (False, False)),
    ],
)
def test_words_and_letters_are_read_too(text: str, gold: str, grader: str, offered: tuple[bool, bool]) -> None:
    assert offers(text, gold, grader) == offered


def test_feedback_of_the_schoolhouse_is_read_by_its_own_grader() -> None:
    task = open_task("schoolhouse", {"train": 1})
    (problem,) = task.problems("train")
    right, wrong = (node("critique", problem.id, "ada", 0, f"ans={digit}; score=1") for digit in (problem.gold, "?"))
    other = node("critique", problem.id, "ada", 0, f"ans={(int(problem.gold) + 1) % 10}; score=1")
    assert [tuple(claims(n, problem, task)) for n in (right, other, wrong)] == [
        (True, False), (False, True), (False, False),
    ]  # fmt: skip


def test_rules_leave_out_what_offers_a_wrong_answer_or_any() -> None:
    task = open_task("gsm8k", {})
    answer = node("answer", "p", "student", 0, "5", answer="5", correct=False)
    texts = ["Look again.", "The correct answer is 4.", "The correct answer is 6."]
    notes = [node("critique", "p", name, 0, text, target=answer.id) for name, text in zip("abc", texts, strict=True)]
    graph = Graph(Problem("p", "2 + 2?", "4"), (answer, *notes))
    lessons = Lessons(Wording(Options(), prompt_set("general"), task), "student")
    kept = {
        rule: [row.completion for row in feedback_rows([graph], lessons, None, rule)]
        for rule in ("all", "consistent", "silent")
    }
    assert kept == {"all": texts, "consistent": texts[:2], "silent": texts[:1]}
    assert counts([graph], task)["c"] == {"texts": 1, "gold": 0, "other": 1}
    (row,) = gold_rows([graph], lessons)
    assert (row.completion, row.source) == ("Final answer: 4", ("gold",))


def test_a_task_without_a_form_for_a_bare_answer_has_no_rows_of_answers() -> None:
    class Silent:
        name, answer_format = "silent", ""

    lessons = Lessons(Wording(Options(), prompt_set("general"), Silent()), "student")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="no form for an answer that stands alone"):
        list(gold_rows([Graph(Problem("p", "?", "4"), ())], lessons))


def test_a_tenth_of_the_published_feedback_offers_a_wrong_answer(fair_svamp: Path) -> None:
    by_agent = counts(read_fair(fair_svamp), open_task("svamp", {}))
    assert {agent: of["texts"] for agent, of in by_agent.items()} == {"gpt": 387, "gemini": 387, "mistral": 387}
    assert 80 < sum(of["other"] for of in by_agent.values()) < 130
    assert 400 < sum(of["gold"] for of in by_agent.values()) < 520
