"""Finds recipes by name: those of this folder, of the package and of a checkout."""

from __future__ import annotations

from pathlib import Path

from vivavoce import plugins
from vivavoce.errors import RecipeError


def recipes() -> dict[str, Path]:
    """The recipes that can be named: those below ``recipes/`` here, and those of the package or of the checkout that it
    runs from.
    """
    by_name: dict[str, Path] = {}
    package = Path(__file__).parent
    checkout = [package.parent.parent / "recipes"] if package.parent.name == "src" else []
    for folder in (Path("recipes"), package / "recipes", *checkout):
        for path in sorted(folder.rglob("*.yaml")):
            by_name.setdefault(path.relative_to(folder).with_suffix("").as_posix(), path)
    return by_name


def find_recipe(name: Path) -> Path:
    """A recipe's file: the path itself, the recipe of a run's folder, or the recipe of that name. A name may leave out
    folders if it is the only such recipe: ``demo`` for ``schoolhouse/demo``. ``recipes/schoolhouse/demo.yaml``, as in a
    checkout, names it too.

    Raises RecipeError, with the known names, if there is none, or several have that name.
    """
    if name.is_file():
        return name
    if (name / "recipe.yaml").is_file():
        return name / "recipe.yaml"
    known, wanted = recipes(), name.as_posix().removeprefix("recipes/").removesuffix(".yaml").removesuffix(".yml")
    if wanted in known:
        return known[wanted]
    alike = [one for one in known if one.rpartition("/")[2] == wanted]
    if len(alike) == 1:
        return known[alike[0]]
    if alike:
        raise RecipeError(f"several recipes are called `{wanted}`", str(name), f"write one of {', '.join(alike)}")
    if name == Path("recipe.yaml"):
        do = "`viva init` writes one; or give a file, a run's folder, or a name that `viva list recipes` shows"
        raise RecipeError("there is no recipe.yaml in this folder", str(Path.cwd()), do)
    if name.is_dir():
        what = "the folder is neither a recipe nor a run"
    else:
        what = (
            f"there is no recipe `{name}`{plugins.near(wanted, [*known, *(one.rpartition('/')[2] for one in known)])}"
        )
    raise RecipeError(what, str(name), "give a file, a run's folder, or a name that `viva list recipes` shows")


__all__ = ["find_recipe", "recipes"]
