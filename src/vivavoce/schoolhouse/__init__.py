"""Committees of tiny real causal language models that ship with the package: three teachers and one student each.

`weights("ada")` is an ordinary Hugging Face folder; `world` says what the models know and grades what they say.
`weights("code/ada")` is of the committee that writes programs, whose world is `code_world`;
`weights("halls/ada")` of the one that acts, in `halls_world`.
"""

from pathlib import Path

NAMES = ("ada", "bob", "cyd", "student")
SETS = ("code", "halls")
"""Committees beside the first one, each in a folder of its own."""


def weights(name: str) -> Path:
    """The folder with the shipped weights of one model: `ada`, `bob`, `cyd`, `student`, or one of a set: `code/ada`."""
    models = (*NAMES, *(f"{among}/{model}" for among in SETS for model in NAMES))
    if name not in models:
        raise ValueError(f"the schoolhouse has no model {name!r}; choose one of {', '.join(models)}")
    return Path(__file__).parent / "weights" / name
