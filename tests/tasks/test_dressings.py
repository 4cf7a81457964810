"""Known answers in dresses that hypothesis makes up: a right one is read, and no other one is taken for it."""

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vivavoce.tasks.answers import LETTERS
from vivavoce.tasks.grading import GRADERS
from vivavoce.tasks.numbers import canonical

LABELS = st.sampled_from(
    [
        "Final answer: {}",
        "**Final answer:** {}",
        "**Final Answer: {}**",
        "Final answer:\n\n{}",
        "So the final answer is {}",
        "9 + 9 is 18, 18 * 2 is 36.\nFinal answer: {}",
        "\\boxed{{{}}}",
        "Thus $x = \\boxed{{{}}}$",
        "The answer is {}",
        "First \\boxed{{7}}.\nNow I see.\nFinal answer: {}",
    ]
)
AFTERWARDS = st.sampled_from(
    [
        "",
        "\n",
        "<|im_end|>",
        "</s>",
        "\n\nI hope this helps!",
        "\n\nThe final answer is correct.",
        "\u200b",
        "\n\nNote: I rounded.",
    ]
)
# larger than every number in the forms below, so that none of them is the value by chance
VALUES = st.one_of(
    st.integers(101, 99999).map(Fraction),
    st.integers(10101, 99999).map(lambda cents: Fraction(cents, 100)),
    st.integers(-9999, -101).map(Fraction),
)
WRITTEN = st.sampled_from(["{}", "${}$", "**{}**", "`{}`", "{}.", "\\({}\\)", "\\text{{{}}}", "({})", '"{}"'])
UNITS = st.sampled_from(
    [
        "{}",
        "{} dollars",
        "{} cm",
        "{}%",
        "${}",
        "{} eggs in all",
        "about {}",
        "{}\\,\\text{{cm}}",
        "= {}",
        "{} km/h",
        "x = {}",
        "{} (see above)",
        "{}, because 4 of them are left",
        "a total of {}",
    ]
)

CHANGES = st.sampled_from(
    [
        ("minus {}", lambda v: -v),
        ("-{}", lambda v: -v),
        ("\u2013{}", lambda v: -v),
        ("\u2212{}", lambda v: -v),
        ("\u2010{}", lambda v: -v),
        ("\uff0d{}", lambda v: -v),
        ("negative {}", lambda v: -v),
        ("-${}", lambda v: -v),
        ("{} million", lambda v: v * 10**6),
        ("{} thousand", lambda v: v * 1000),
        ("${}k", lambda v: v * 1000),
        ("{}k", lambda v: v * 1000),
        ("{} hundred", lambda v: v * 100),
        ("{} billion", lambda v: v * 10**9),
        ("{} dozen", lambda v: v * 12),
        ("{}\u00bd", lambda v: v + Fraction(1, 2)),
        ("{} and a half", lambda v: v + Fraction(1, 2)),
        ("{}\u00b2", lambda v: v * v),
        ("{}^2", lambda v: v * v),
        ("{}**2", lambda v: v * v),
        ("{}!", None),
        ("{}*3", lambda v: v * 3),
        ("{} * 3", lambda v: v * 3),
        ("{}x3", lambda v: v * 3),
        ("{} + 3", lambda v: v + 3),
        ("{} - 3", lambda v: v - 3),
        ("{}/7", lambda v: v / 7),
        ("{}\\sqrt{{2}}", None),
        ("{}\u221a2", None),
        ("\\sqrt{{{}}}", None),
        ("\u221a{}", None),
        ("{}\u03c0", None),
        ("{}\\pi", None),
        ("{}x", None),
        ("{}i", None),
        ("{}\\mathrm{{i}}", None),
        ("{} e", None),
        ("{}th", None),
        ("{} hours 30 minutes", None),
        ("{}h30", None),
        ("{} feet 6 inches", None),
        ("{}:45", None),
        ("{}:3", None),
        ("{} to 3", None),
        ("{} or 3", None),
        ("3 or {}", None),
        ("{}, 3", None),
        ("{}; 3", None),
        ("{}-3", None),
        ("{}\u20133", None),
        ("3-{}", None),
        ("less than {}", None),
        ("at least {}", None),
        ("over {}", None),
        ("not {}", None),
        ("half of {}", lambda v: v / 2),
        ("twice {}", lambda v: v * 2),
        ("{} squared", lambda v: v * v),
        ("{}% of 80", None),
        ("{} mod 7", None),
        ("{}_7", None),
        ("\u00b1{}", None),
        ("\\pm {}", None),
        ("> {}", None),
        ("\u2264 {}", None),
        ("x \u2260 {}", None),
        ("{} \u00d7 10^3", lambda v: v * 1000),
        ("{}e3", lambda v: v * 1000),
        ("{}e-3", lambda v: v / 1000),
        ("{} degrees below zero", lambda v: -v),
        ("one in {}", None),
        ("{} out of 9", None),
        ("5{}", None),
        ("{}5", None),
        ("{} (thousand)", lambda v: v * 1000),
        ("3({})", lambda v: v * 3),
        ("-({})", lambda v: -v),
        ("|{}|", abs),
        ("{} < x", None),
        ("x{}", None),
        ("{} millones", None),
        ("{}\u4e07", lambda v: v * 10**4),
        ("3 {}", None),
        ("{} 3", None),
        ("{} \u00bd", lambda v: v + Fraction(1, 2)),
        *(
            (form, None)
            for form in (
                *("{} pi", "{} \u2030", "{}\u2026", "{}...", "{}\\ldots", "{} per mille", "{} R 3", "{} remainder 3"),
                *(
                    "{}\u00b030'",
                    "{} lb 4 oz",
                    "{} years and 3 months",
                    "{}m 30s",
                    "1/{}",
                    "{}\u207b\u00b9",
                    "{}^{{-1}}",
                ),
                *(
                    "({})^2",
                    "({})(3)",
                    "\\log {}",
                    "ln {}",
                    "\\ln({})",
                    "{} less than 7",
                    "{} divided by 3",
                    "{} base 7",
                ),
                *("{} lakh", "{} crore", "{} gross", "a dozen and {}", "{} (in thousands)", "between {} and 30000"),
                *(
                    "{} +/- 3",
                    "{}+",
                    "up to {}",
                    "nearly {}",
                    "May {}",
                    "{} a.m.",
                    "{}C2",
                    "{} choose 2",
                    "{}\\pmod{{7}}",
                ),
                *(
                    "{}\\mathrm{{M}}",
                    "{} M",
                    "{}\\text{{ million}}",
                    "not \\boxed{{{}}}",
                    "-\\boxed{{{}}}",
                    "\\binom{{{}}}{{2}}",
                ),
            )
        ),
        ("{}\\frac{{1}}{{2}}", lambda v: v + Fraction(1, 2)),
    ]
)
"""Forms that change a number, and what they make of it, if that is one."""

BARE = ("{} M", "{} R 3", "{}\\mathrm{{M}}", "{}\u2026", "{}...")
"""Of these, the forms that say nothing of a number behind its full stop or bracket."""


@settings(deadline=None, max_examples=300)
@given(VALUES, UNITS, WRITTEN, LABELS, AFTERWARDS)
def test_a_dressed_number_is_never_taken_for_another(value, unit, written, label, afterwards) -> None:
    gold = canonical(value)
    reply = label.format(unit.format(written.format(gold))) + afterwards
    number = GRADERS["number"]
    assert number.answer(reply) in (gold, None)
    assert number.grade(number.perturb(gold), reply).correct is False
    if not (label.startswith("The answer") and afterwards.endswith("rounded.")) and value > 0:
        assert number.answer(label.format(gold) + afterwards) == gold


def never_right(grader: str, gold: str, reply: str) -> None:
    assert GRADERS[grader].grade(gold, reply).correct is not True  # type: ignore[index]


@settings(deadline=None, max_examples=300)
@given(VALUES.filter(lambda value: value > 0), CHANGES, WRITTEN, LABELS, AFTERWARDS)
def test_a_changed_number_is_never_right(value, change, written, label, afterwards) -> None:
    form, true = change
    if form in BARE and written != "{}":
        return
    if form in ("{}5", "5{}", "{}\u00bd", "{}e3", "{}e-3") and value.denominator > 1:
        return
    if form == "> {}" and "\n\n" in label:
        return  # a quotation, in markdown
    reply = label.format(form.format(written.format(canonical(value)))) + afterwards
    if true is None or true(value) != value:
        never_right("number", canonical(value), reply)


@settings(deadline=None, max_examples=300)
@given(
    st.sampled_from(LETTERS),
    st.sampled_from(LETTERS),
    st.sampled_from(["{}", "({})", "**{}**", "\\text{{{}}}", "${}$", "{}.", '"{}"', "option {}", "[{}]"]),
    st.sampled_from(
        [
            "",
            ", a net force of 5 N",
            ", i.e. 5 m/s",
            ". The sun",
            ": a dog",
            " because it is hot",
            " (the sun)",
            ", I think",
            ". A dog",
            ", not {other}",
            ": not enough information",
            " since {other} is wrong",
            "; it is a gas",
        ]
    ),
    LABELS,
    AFTERWARDS,
)
def test_a_dressed_letter_is_never_taken_for_another(letter, other, written, phrase, label, afterwards) -> None:
    if letter == other:
        return
    reply = label.format(written.format(letter) + phrase.format(other=other)) + afterwards
    choice = GRADERS["choice"]
    assert choice.answer(reply) in (letter, None)
    never_right("choice", other, reply)


@settings(deadline=None, max_examples=300)
@given(
    st.permutations(LETTERS).map(lambda drawn: drawn[:2]),
    st.sampled_from(
        [
            "{} or {}",
            "{}; {}",
            "{}, {}",
            "{}/{}",
            "{} and {}",
            "either {} or {}",
            "({}) or ({})",
            "{} & {}",
            "{} {}",
            "{}+{}",
            "not {}",
            "It can't be {}",
            "{} is incorrect",
            "{} is wrong",
            "It isn't {}",
            "anything but {}",
            "vitamin {}",
            "{} can't be right",
            "I would rule out {}",
            "{}: incorrect",
            "neither {} nor {}",
            "{} cells",
            "20 {}",
        ]
    ),
    LABELS,
    AFTERWARDS,
)
def test_letters_that_are_not_chosen_are_never_right(letters, phrase, label, afterwards) -> None:
    reply = label.format(phrase.format(*letters)) + afterwards
    for letter in letters:
        never_right("choice", letter, reply)


@settings(deadline=None, max_examples=100)
@given(st.integers(101, 999), CHANGES, LABELS.filter(lambda label: "{{" not in label))
def test_a_changed_number_is_never_right_as_mathematics(value, change, label) -> None:
    pytest.importorskip("math_verify")
    form, true = change
    if (
        form in ("{}:3", "{}% of 80")
        or (form == "> {}" and "\n\n" in label)
        or (true is not None and true(Fraction(value)) == value)
    ):
        return
    never_right("math", str(value), label.format(form.format(value)))
