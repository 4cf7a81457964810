"""What docs/environments.md shows runs, and says what the page says it does."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from vivavoce.tasks.bfcl import CATEGORIES

PAGE = (Path(__file__).parent.parent / "docs" / "environments.md").read_text("utf-8")
SHOWN = re.findall(r"^`(\w+\.py)`\n\n```python\n(.*?)^```\n\n```text\n(.*?)^```", PAGE, re.M | re.S)


@pytest.mark.parametrize(("name", "program", "output"), SHOWN, ids=[name for name, *_ in SHOWN])
def test_the_programs_of_the_page_print_what_it_says(
    name: str, program: str, output: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if name == "shop.py":
        (tmp_path / "tau2").symlink_to(request.getfixturevalue("tau2"))
    if name == "lake.py":
        pytest.importorskip("gymnasium")
    (tmp_path / name).write_text(program, "utf-8")
    done = subprocess.run([sys.executable, name], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout == output, done.stderr


def test_every_program_and_block_of_the_page_is_tried() -> None:
    assert [name for name, *_ in SHOWN] == ["till.py", "lake.py", "shop.py"]
    assert PAGE.count("```") == 4 * len(SHOWN)


def test_the_tasks_that_the_page_calls_odd_are_those_that_the_check_finds(tau2: Path) -> None:
    from vivavoce.tasks.tau2_checking import DOMAINS, check_domain

    named = {
        (domain, number)
        for row in re.findall(r"^\| ((?:retail|airline) [^|]*)\|", PAGE, re.M)
        for domain, numbers in re.findall(r"(retail|airline) ([\d, ]+)", row)
        for number in re.findall(r"\d+", numbers)
    }
    names = set()
    for domain in DOMAINS:
        checked = check_domain(domain, tau2)
        names |= {(domain.folder, re.findall(r"\d+", one)[0]) for one in checked.odd}
    assert named == names


def test_the_official_rows_of_calls_are_as_many_as_the_page_says(bfcl: Path) -> None:
    from vivavoce.tasks.rows import read_rows

    paths = [next(bfcl.glob(f"BFCL_v4_{category}.json*")) for category in CATEGORIES]
    rows = sum(1 for path in paths for _ in read_rows(path))
    assert f"All {rows:,} official rows" in PAGE


def test_the_conversations_and_mutations_are_as_many_as_the_page_says(bfcl: Path) -> None:
    from vivavoce.environments.bfcl.conversations import CATEGORIES, read_conversations
    from vivavoce.tasks.bfcl_turns_checking import mutations

    for category in CATEGORIES:
        rows = read_conversations(bfcl, category).values()
        made = sum(len(list(mutations(talk))) for talk in rows)
        assert f"| {category} | {len(rows)} | {len(rows)} | {made:,} |" in PAGE
