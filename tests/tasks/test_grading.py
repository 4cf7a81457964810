"""The answer of a reply is what it states, and equal answers are equal exactly."""

import time
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vivavoce.records import Grade
from vivavoce.tasks.answers import LETTERS
from vivavoce.tasks.grading import GRADERS, stated_answer
from vivavoce.tasks.numbers import alone, canonical, number

NUMBER, CHOICE, YES_NO = GRADERS["number"], GRADERS["choice"], GRADERS["yes_no"]


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        # what the releases of the two methods got wrong
        ("Final answer: 1,000", "1000"),
        ("Final answer: 1/100", "0.01"),
        ("Final answer: 1/200", "0.005"),
        ("Final answer: 0.001", "0.001"),
        ("Final answer: 0.009", "0.009"),
        ("Final answer: 5.0", "5"),
        ("Final answer: E", None),
        ("Final answer: None", None),
        ("", None),
        ("**Final Answer:** 18", "18"),
        ("If I wrote Final answer: 3 here, it would be wrong, since 3 + 4 is 7.\nFinal answer: 7", "7"),
        # where the answer stands
        ("Final answer: 18", "18"),
        ("FINAL ANSWER - 18", "18"),
        ("**Final answer: 18**.", "18"),
        ("- **Final answer**: `18`", "18"),
        ("## Final Answer\n\n**18** eggs", "18"),
        ("Final answer:\n\n$$\n18\n$$", "18"),
        ("Final answer (in dollars): 18", "18"),
        ("So 3 + 4 is 7. Final answer: 7", "7"),
        ("Therefore, the final answer is $18$. I hope it is correct.", "18"),
        ("Final answer: 5\nWait, I forgot two.\nFinal answer: 7", "7"),
        ("Final answer: 7\nAda's final answer is 5 because she forgot two.", "7"),
        ("Final answer: 5\nFinal answer:", None),
        ("the final answer is not 7", None),
        ("<think>Final answer: 3</think>\nFinal answer: 7", "7"),
        ("<think>Final answer: 3</think>\nI cannot say.", None),
        ("She sells <<9*2=18>>18.\n#### 18", "18"),
        ("#### 1,000", "1000"),
        ("#### 18 eggs", "18"),
        ("#### 2 Steps of the plan\nFirst, 5 eggs.\nThen 6.", None),
        ("Final answer: 7\n#### Notes\nNone.", "7"),
        ("#### Final Answer: 7", "7"),
        ("so it is \\boxed{\\$18}", "18"),
        ("\\boxed{5} was Ada's. Final answer: \\boxed{18\\text{ dollars}}", "18"),
        ("\\boxed{18", None),
        ("The answer is 18.", "18"),
        ("**Answer:** 18", "18"),
        ("The answer is 18.\nLet me check that again", None),
        ("2 * 9 = 18\nA: 18", "18"),
        ("18", "18"),
        ("$18 a day.", "18"),
        ("She sold 9 eggs for $2 each.", None),
        # what it is
        ("Final answer: $18", "18"),
        ("Final answer: US$18", "18"),
        ("Final answer: €18.50", "18.5"),
        ("Final answer: 18 dollars.", "18"),
        ("Final answer: She makes $18 per day", "18"),
        ("Final answer: 0018.00", "18"),
        ("Final answer: -5", "-5"),
        ("Final answer: −5", "-5"),
        ("Final answer: -$5", "-5"),
        ("Final answer: $-5", "-5"),
        ("Final answer: -0", "0"),
        ("Final answer: .5", "0.5"),
        ("Final answer: 1/2", "0.5"),
        ("Final answer: 2 1/2", "2.5"),
        ("Final answer: 2/6", "1/3"),
        ("Final answer: \\(\\frac{1}{2}\\)", "0.5"),
        ("Final answer: \\boxed{1{,}000}", "1000"),
        ("Final answer: 1\u202f000", "1000"),
        ("Final answer: 50%", "50"),
        ("Final answer: 50\\%", "50"),
        ("Final answer: 1e3", "1000"),
        ("Final answer: 1e99", "1" + "0" * 99),
        ("Final answer: 1e999999999", None),
        ("Final answer: 1/0", None),
        ("Final answer: 1,00", None),
        ("Final answer: 1.2.3", None),
        ("Final answer: 3 + 4 = 7", "7"),
        ("Final answer: 7 = 3 + 4", "7"),
        ("Final answer: $9 an egg x 2 eggs = $18", "18"),
        ("Final answer: 18 (from x = 9)", "18"),
        ("Final answer: 3 + 4", None),
        ("Final answer: 10^2", None),
        ("Final answer: 7 or 8", None),
        ("Final answer: 5-6", None),
        ("Final answer: 5:30", None),
        ("Final answer: x = 3, y = 4", None),
        ("Final answer: 2 hours and 30 minutes", None),
        ("Final answer: 25% of 80 is 20", None),
        ("Final answer: eighteen", None),
    ],
)
def test_a_stated_number_is_read_and_nothing_else_is(text: str, answer: str | None) -> None:
    assert NUMBER.answer(text) == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("Correct: B", "B"),
        ("The Best choice is D", "D"),
        ("Final answer: Correct: B", "B"),
        ("Final answer: The Best choice is D", "D"),
        ("Final answer: |D", "D"),
        ("**Final Answer:** B", "B"),
        ("(C)", "C"),
        ("**C**", "C"),
        ("C.", "C"),
        ("C) because the sun is hot", "C"),
        ("C", "C"),
        ("\\boxed{\\text{B}}", "B"),
        ("#### B", "B"),
        ("Final answer: A", "A"),
        ("Final answer: (b)", "B"),
        ("Final answer: Option B: the sun", "B"),
        ("Final answer: J", "J"),
        ("Final answer: D, not B", "D"),
        ("Final answer: D (found in B cells)", "D"),
        ("Final answer: I choose (D)", "D"),
        ("Final answer: C ((a) 3.75 C, (b) 2 J)", "C"),
        ("Final answer: D is right, B is wrong", "D"),
        ("Final answer: I think it is C", "C"),
        ("Final answer: A dog", None),
        ("Final answer: a dog", None),
        ("Final answer: I'm unsure", None),
        ("Final answer: A or B", None),
        ("Final answer: B and C", None),
        ("Final answer: not B", None),
        ("Final answer: None", None),
        ("Final answer: Paris", None),
        ("Final answer: K", None),
        ("I think so", None),
        ("Because Ada said B, and Cyd agreed with Bob", None),
        ("Options:\nA: cats\nB: dogs", None),
    ],
)
def test_a_chosen_letter_is_not_a_letter_of_a_word(text: str, answer: str | None) -> None:
    assert CHOICE.answer(text) == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("Final answer: yes", "yes"),
        ("Final answer: No.", "no"),
        ("Final answer: **True**", "yes"),
        ("Final answer: The statement is false", "no"),
        ("No, that is true of others", "no"),
        ("That is true of some.\nFinal answer: no, though it is true of some", "no"),
        ("Final answer: untrue", None),
        ("Final answer: not true", None),
        ("Final answer: I know", None),
        ("Final answer: no one knows", None),
        ("Final answer: yes and no", None),
        ("I know that it is untrue", None),
    ],
)
def test_yes_and_no_are_whole_words(text: str, answer: str | None) -> None:
    assert YES_NO.answer(text) == answer


@pytest.mark.parametrize(
    ("grader", "gold", "text", "right"),
    [
        ("number", "1,000", "Final answer: 1000", True),
        ("number", "1000", "Final answer: 1,000", True),
        ("number", "5", "Final answer: 5.0", True),
        ("number", "0.5", "Final answer: 1/2", True),
        ("number", "1/100", "Final answer: 1/200", False),
        ("number", "0.001", "Final answer: 0.009", False),
        ("number", "0.33", "Final answer: 1/3", False),
        ("number", "50", "Final answer: 50%", True),
        ("number", "0.5", "Final answer: 50%", False),
        ("exact", "Kelvin", "Final answer: **Kelvin**.", True),
        ("exact", "Kelvin", "Final answer: kelvin", False),
        ("exact", "x+1", "so it is \\boxed{x+1}", True),
        ("text", "The Hague", "Final answer: hague.", True),
        ("text", "Lima", "Final answer: “Lima”", True),
        ("text", "Lima", "Final answer: Limassol", False),
    ],
)
def test_equal_answers_are_equal_exactly(grader: str, gold: str, text: str, right: bool) -> None:
    assert GRADERS[grader].grade(gold, text).correct is right  # type: ignore[index]


def test_a_reply_without_an_answer_is_wrong_but_marked_so_that_nobody_learns_from_it() -> None:
    assert NUMBER.grade("18", "I cannot tell.") == Grade(None, False, "no_answer")


def test_a_gold_answer_that_cannot_be_read_leaves_the_grade_open() -> None:
    assert NUMBER.grade("a lot", "Final answer: 18") == Grade("18", None, "ok", "the gold answer cannot be read")


def test_two_empty_answers_are_not_equal() -> None:
    assert all(grader.grade("", "Final answer:").correct is None for grader in GRADERS.values())


def test_the_lenient_answer_is_the_last_one_and_never_the_headline() -> None:
    text = "She eats 3 of 16 eggs, so 13 remain and option B fits, no doubt; is that true? I know"
    assert [NUMBER.lenient_answer(text), CHOICE.lenient_answer(text), YES_NO.lenient_answer(text)] == ["13", "B", "yes"]
    assert [NUMBER.answer(text), CHOICE.answer(text), YES_NO.answer(text)] == [None, None, None]


@pytest.mark.parametrize(
    "text",
    [
        "1" * 1_000_000,
        "Final answer: " + "1" * 1_000_000,
        "Final answer: 1/" + "1" * 1_000_000,
        "\n" * 300_000,
        " " * 300_000,
        "*" * 300_000,
        "(" * 300_000,
        "1," * 150_000,
        "A " * 150_000,
        "no " * 100_000,
        "final answer: " * 20_000,
        "final answer" + " " * 300_000,
        "\\boxed{" * 40_000,
        "#### 1\n" * 40_000,
    ],
    ids=lambda text: repr(text[:15]),
)
def test_a_huge_reply_is_graded_quickly(text: str) -> None:
    start = time.process_time()
    for grader in GRADERS.values():
        grader.grade("5", text)
        grader.lenient_answer(text)
    assert time.process_time() - start < 90  # quadratic work would take many minutes at the least


_PIECES = st.sampled_from(
    ["Final answer:", "**", "#### ", "\\boxed{", "}", "\n", " ", "18", "1,000", "1/2", "/0", "B", "(", ")", "yes", "no",
     "=", "$", "-", "not", "A:", "</think>", "\\frac{1}{2}", "e9", ".", "the answer is "]
)  # fmt: skip


@settings(deadline=None)
@given(st.one_of(st.text(), st.lists(_PIECES).map("".join)), st.text(max_size=8))
def test_no_text_makes_a_grader_raise(text: str, gold: str) -> None:
    for grader in GRADERS.values():
        grade = grader.grade(gold, text)
        assert (grade.status in ("no_answer", "unjudged")) == (grade.answer is None)
        assert (grade.correct is None) == (grade.reason != "")
        assert grade.correct is None or grader.canonical(gold) is not None
        assert grade.answer is not None or grade.correct is not True
        grader.lenient_answer(text)
        stated_answer(text)


@settings(deadline=None)
@given(st.fractions(min_value=-(10**6), max_value=10**6, max_denominator=10**4))
def test_every_number_keeps_its_value_when_written_in_canonical_form(value: Fraction) -> None:
    written = canonical(value)
    assert number(written) == written
    assert alone(written) == value


@settings(deadline=None)
@given(
    st.sampled_from(LETTERS),
    st.sampled_from(["Final answer: {}", "**Final Answer:** ({})", "The answer is {}.", "{}"]),
)
def test_every_letter_is_read_in_every_dress(letter: str, dress: str) -> None:
    assert CHOICE.answer(dress.format(letter)) == letter
    assert CHOICE.grade(CHOICE.perturb(letter), dress.format(letter)).correct is False
