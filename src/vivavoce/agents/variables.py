"""Names of environment variables, in recipes: for what must not stand in one."""

from __future__ import annotations

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
