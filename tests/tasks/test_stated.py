"""Where a reply states its answer: labels, boxes, what is said after them, and what leaks into a reply."""

import unicodedata

import pytest

from vivavoce.tasks.grading import GRADERS, GraderName

NFC, NFD = (unicodedata.normalize(form, "São Tomé") for form in ("NFC", "NFD"))


@pytest.mark.parametrize(
    ("grader", "reply", "answer"),
    [
        # a sentence about the answer does not hide it
        ("number", "Final answer: 18\n\nThe final answer is correct because I checked.", "18"),
        ("number", "Final answer: 18\n\nThe final answer is in dollars.", "18"),
        ("number", "Final answer: 18. The final answer is exact.", "18"),
        ("number", "So it is \\boxed{18}.\nThe final answer is correct.", "18"),
        ("number", "Final answer: 5\n\nI forgot two. So the final answer is 7.", "7"),
        ("number", "The final answer is 18. I am sure that the final answer is correct.", "18"),
        ("number", "The final answer is 18.\nThe final answer is correct.", "18"),
        ("number", "Final answer: 18\n\nI hope this helps!", "18"),
        ("number", "The answer is 18.\n\nI hope this helps!", "18"),
        ("number", "The answer is 18.\nLet me know if you have other questions.", "18"),
        ("choice", "Final answer: B\n\nNote: the final answer is based on A.", "B"),
        ("choice", "Final answer: B\n\nThe final answer is a net force.", "B"),
        ("text", "Final answer: Paris\n\nThe final answer is correct.", "paris"),
        ("text", "Final answer: Paris. The final answer is correct.", "paris"),
        ("text", "Final answer: Paris. I hope it is correct.", "paris"),
        ("text", "The final answer is Paris.", "paris"),
        ("yes_no", "Final answer: no\n\nThe final answer is true to the text.", "no"),
        ("number", "The answer is 18.\nThe final answer is correct.", "18"),
        ("number", "Final answer: 18\nThe final answer is rounded to 2 decimals.", "18"),
        ("number", "Final answer: 18\nSo the final answer is 18 or 19.", None),
        # several boxes, and what stands beside a box
        ("number", "It is $\\boxed{5}$ or $\\boxed{6}$.", None),
        ("number", "$\\boxed{5}$ and $\\boxed{6}$", None),
        ("number", "From $\\boxed{5}$ to $\\boxed{6}$.", None),
        ("number", "First $\\boxed{5}$. Then $\\boxed{6}$.", "6"),
        ("number", "$\\boxed{5} = \\boxed{5}$", "5"),
        ("number", "$-\\boxed{5}$", None),
        ("number", "minus $\\boxed{5}$", None),
        ("number", "$2\\boxed{5}$", None),
        ("number", "$\\sqrt{\\boxed{16}}$", None),
        ("number", "$\\boxed{5}^2$", None),
        ("number", "$\\boxed{5}$ million", None),
        ("number", "- $\\boxed{5}$", "5"),
        ("number", "It takes at least $\\boxed{5}$ days.", "5"),
        ("number", "$\\boxed{90}^\\circ$", "90"),
        # a hyphen behind the label is a sign, on a line of its own it begins an item
        ("number", "Final answer: - 5", "-5"),
        ("number", "**Final answer:**\n- 5 eggs", "5"),
        # what a server or a model lets leak
        ("text", "Final answer: Paris<|im_end|>", "paris"),
        ("text", "Final answer: Paris</s>", "paris"),
        ("text", "Final answer: Paris<end_of_turn>", "paris"),
        ("text", "Final answer: Paris<|eot_id|>\n", "paris"),
        ("text", "Final answer: Paris<|endoftext|>Human: And of Spain?\nFinal answer: Madrid", "paris"),
        ("text", "Final answer: Paris<|im_end|>\n<|im_start|>user\nThanks!<|im_end|>", "paris"),
        ("text", "Final answer: Paris<\uff5cend\u2581of\u2581sentence\uff5c>", "paris"),
        ("text", "Final answer: Paris [/INST]", "paris"),
        ("text", "<s> Final answer: Paris", "paris"),
        ("text", "<|im_start|>assistant\nFinal answer: Paris<|im_end|>", "paris"),
        ("text", "<|start_header_id|>assistant<|end_header_id|>\n\nFinal answer: Paris", "paris"),
        ("number", "#### 18<|im_end|>", "18"),
        ("choice", "D<|eot_id|>", "D"),
        ("exact", "Final answer: Kelvin</s>", "Kelvin"),
        # what nobody sees
        ("text", "Final answer: \u200bParis", "paris"),
        ("text", "Final answer: Pa\u00adris\u2060", "paris"),
        ("text", "\ufeffFinal answer: Paris", "paris"),
        ("number", "Final answer: \u200e18\u200f", "18"),
        ("choice", "Final answer:\u00a0\u200bB", "B"),
        ("exact", "Final answer: \u200bKelvin", "Kelvin"),
        ("text", f"Final answer: {NFD}", NFC.casefold()),
        ("exact", f"Final answer: {NFD}", NFC),
        ("text", "Final answer: \uff30aris", "paris"),
        ("text", "Final answer: rock \u2018n\u2019 roll", "rock 'n' roll"),
        # the dress of a text is no part of it, its operators are
        ("text", "Final answer: **Paris**", "paris"),
        ("text", "Final answer: _Paris_", "paris"),
        ("text", "Final answer: $\\text{Paris}$", "paris"),
        ("text", "Final answer: 9*2", "9*2"),
        ("text", "Final answer: \u20135", "-5"),
        # yes and no
        ("yes_no", "Final answer: partly true", None),
        ("yes_no", "Final answer: it isn't true", None),
        ("yes_no", "Final answer: I can't say yes", None),
        ("yes_no", "Final answer: yes<|im_end|>", "yes"),
        ("yes_no", "Final answer: **No**", "no"),
    ],
)
def test_the_stated_answer_is_found(grader: GraderName, reply: str, answer: str | None) -> None:
    assert GRADERS[grader].answer(reply) == answer


@pytest.mark.parametrize("grader", ["text", "exact"])
@pytest.mark.parametrize(("gold", "reply"), [(NFC, NFD), (NFD, NFC), ("\u200bSão Tomé", NFC)])
def test_a_gold_answer_and_a_reply_are_compared_as_they_look(grader: GraderName, gold: str, reply: str) -> None:
    assert GRADERS[grader].grade(gold, f"Final answer: {reply}").correct is True


@pytest.mark.parametrize(("gold", "reply"), [("92", "9*2"), ("x2", "x\u00b2"), ("$5", "€5"), ("x < 5", "x \u2264 5")])
def test_texts_that_look_different_stay_different(gold: str, reply: str) -> None:
    assert GRADERS["text"].grade(gold, f"Final answer: {reply}").correct is False
