"""What docs/money.md shows is a recipe."""

import re
from pathlib import Path

import yaml

from vivavoce.config import check_recipe
from vivavoce.protocols import debate_reflect

PAGE = Path(__file__).parent.parent / "docs" / "money.md"


def test_the_recipes_of_the_page_are_recipes() -> None:
    budget, debate = (yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", PAGE.read_text(), re.S))
    rest = {
        "method": "debate_reflect",
        "name": "shown",
        "task": {"name": "schoolhouse"},
        "student": {"name": "student", "model": "schoolhouse:student"},
    }
    recipe = check_recipe({**rest, **budget, **debate}, PAGE)
    assert recipe.teachers[0].price is not None
    assert recipe.teachers[0].budget.money == 10
    assert recipe.budget.question.calls == 40
    assert isinstance(recipe.rules, debate_reflect.Options)
    assert recipe.rules.later_rounds == "if_drafts_disagree"
