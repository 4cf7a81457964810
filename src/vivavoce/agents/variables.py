"""Environment variables: their names in recipes, for values that a recipe must not hold, and those that switch."""

from __future__ import annotations

import os
import re
from typing import Annotated

from pydantic import AfterValidator


def _named(name: str) -> str:
    """The name, if it can be a variable's. An API key in its place is refused, and not repeated in the message."""
    looks_random = len(name) >= 20 and re.search(r"[a-z]", name) and re.search(r"[0-9]", name)
    if looks_random or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        raise ValueError(
            "must be the name of an environment variable, such as OPENAI_API_KEY; never a key itself: "
            "export the key under that name, and take it out of the recipe"
        )
    return name


Variable = Annotated[str, AfterValidator(_named)]


def is_on(name: str) -> bool:
    """Whether an environment variable switches something on, as the Hub's libraries read it."""
    return os.environ.get(name, "").upper() in ("1", "ON", "YES", "TRUE")
