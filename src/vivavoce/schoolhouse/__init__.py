"""A committee of tiny real causal language models that ships with the package: three teachers and one student.

`weights("ada")` is an ordinary Hugging Face folder; `world` says what the models know and grades what they say.
"""

from pathlib import Path

NAMES = ("ada", "bob", "cyd", "student")


def weights(name: str) -> Path:
    """The folder with the shipped weights of one model: a teacher `ada`, `bob`, `cyd`, or the `student`."""
    if name not in NAMES:
        raise ValueError(f"the schoolhouse has no model {name!r}; choose one of {', '.join(NAMES)}")
    return Path(__file__).parent / "weights" / name
