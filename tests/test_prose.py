"""The check of prose finds each fault in a sample, and none in plain English."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest

from vivavoce.plugins import load_file

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def prose() -> ModuleType:
    return load_file(ROOT / "tools" / "prose.py", "the test")


def rules(faults: object) -> list[str]:
    return [rule for _, rule, _ in faults]  # type: ignore[attr-defined]


PLAIN = '"""A cap."""\n\n\ndef spend(amount):\n    """Note an amount. Raises ValueError if it is negative."""\n'


def test_plain_english_has_no_fault(prose: ModuleType) -> None:
    assert rules(prose.in_module(PLAIN)) == []
    assert rules(prose.in_page("# A cap\n\nA cap stops calls. It holds for a run.\n\n- It is a number.\n")) == []


def words(number: int) -> str:
    """A sentence of different words."""
    return " ".join(f"word{i}" for i in range(number)) + "."


@pytest.mark.parametrize(
    ("sentence", "rule"),
    [
        ("As keys nobody sees them.", "word"),
        ("Padding is left out, for it teaches nothing.", "word"),
        ("Who waits in one stands in the way of another.", "word"),
        ("The agents who answer are asked again.", "word"),
        ("Ties are decided by lot.", "word"),
        ("Right and wrong are told apart.", "word"),
        ("The address address of the cluster.", "repeated"),
        ("The sum is money, money, money, in the recipe's currency.", "repeated"),
        ("It goes on after you raise them after you raise them.", "repeated"),
        (words(50), "long"),
    ],
)
def test_a_page_and_a_docstring_with_it_are_faulty(prose: ModuleType, sentence: str, rule: str) -> None:
    assert rules(prose.in_page(f"# Title\n\n{sentence} It is so.\n\nIt is so. It is so.\n")) == [rule]
    assert rule in rules(prose.in_module(f'"""A module.\n\n{sentence}\n"""\n'))


@pytest.mark.parametrize("first", ["What a page says.", "Whose answer it is.", "If it fails, None.", "How it is done."])
def test_a_first_line_begins_with_a_verb_or_a_noun(prose: ModuleType, first: str) -> None:
    assert rules(prose.in_module(f'"""{first}"""\n')) == ["first line"]
    assert rules(prose.in_module(f'def _private():\n    """{first}"""\n')) == []


@pytest.mark.parametrize(
    ("text", "faulty"),
    [
        ("Raises DataError where there is none.", True),
        ("None where the file is missing.", True),
        ("The file where rows are.", False),
        ("The line from where it goes on.", False),
        ("Raises DataError, which says where it is.", False),
    ],
)
def test_where_is_for_places(prose: ModuleType, text: str, faulty: bool) -> None:
    assert rules(prose.in_module(f'"""A module. {text}"""\n')) == ["where"] * faulty


def test_the_body_of_a_docstring_is_checked_and_its_examples_are_not(prose: ModuleType) -> None:
    body = "Return it.\n\n    Raises ValueError where there is none.\n\n    >>> nobody(1)\n    'nobody'\n    "
    faults = list(prose.in_module(f'def one():\n    """{body}"""\n'))
    assert [(fault.line, fault.rule) for fault in faults] == [(4, "where")]


def test_a_pronoun_is_no_name(prose: ModuleType) -> None:
    assert rules(prose.in_module("def add(mine):\n    again = mine\n    return again\n")) == ["name", "name"]


@pytest.mark.parametrize("name", ["found", "said", "told", "heard", "who", "_said"])
def test_a_word_that_was_replaced_does_not_come_back_as_a_name(prose: ModuleType, name: str) -> None:
    for source in (f"{name} = 1\n", f"def add({name}): ...\n", f"def {name}(): ...\n", f"for {name} in (): ...\n"):
        assert rules(prose.in_module(source)) == ["name"], source
    assert rules(prose.in_module(f"class Line:\n    {name}: str\n")) == []  # a file may have such a field


@pytest.mark.parametrize("text", ["Who debates.", "None where there is none.", "Ties are broken by lot."])
def test_texts_for_users_are_checked_as_docstrings_are(prose: ModuleType, text: str) -> None:
    assert len(rules(prose.in_module(f"a = Field(default=1, description={text!r})\n"))) == 1
    assert len(rules(prose.in_module(f"a = Option(help={text!r})\n"))) == 1


@pytest.mark.parametrize("name", ["joined", "_parsed"])
def test_a_function_is_not_called_by_a_participle_that_was_replaced(prose: ModuleType, name: str) -> None:
    assert rules(prose.in_module(f"def {name}(): ...\n")) == ["name"]
    assert rules(prose.in_module(f"{name} = 1\n")) == []  # a value may be called so


def test_names_are_checked_in_tests_too(prose: ModuleType) -> None:
    checked = {path.relative_to(ROOT).parts[0] for path in prose.files()}
    assert {"README.md", "docs", "src", "tools", "tests", "schoolhouse", "benchmarks", "real"} <= checked


def test_half_of_a_pages_sentences_are_short(prose: ModuleType) -> None:
    long = words(20)
    assert rules(prose.in_page(f"{long}\n\n{long}\n\nShort.\n")) == ["median"]
    assert rules(prose.in_page(f"{long}\n\n{long}\n\nShort.\n", made=True)) == []


def test_code_tables_and_headings_are_no_prose(prose: ModuleType) -> None:
    page = "# Nobody\n\n    nobody --here\n\n| nobody |\n\n```\nnobody\n```\n\nThe word `nobody` is code.\n"
    assert rules(prose.in_page(page)) == []


def test_faults_are_told_with_their_line(prose: ModuleType) -> None:
    assert [line for line, _, _ in prose.in_page("# Title\n\nA line.\n\nNobody came.\n")] == [5]
    assert [line for line, _, _ in prose.in_module('"""A module.\n\nNobody came.\n"""\n')] == [3]


def test_proselint_is_asked(prose: ModuleType, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Title\n\nIt is very unique, and at this point in time it works.\n", "utf-8")
    assert any("." in rule for rule in rules(prose.by_proselint(page)))


def test_the_tools_are_checked_and_clean(prose: ModuleType) -> None:
    assert prose.main([str(ROOT / "tools"), str(ROOT / "README.md"), str(ROOT / "docs" / "glossary.md")]) == 0
