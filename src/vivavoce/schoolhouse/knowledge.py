"""The knowledge of the agents of a schoolhouse, which is shared out in the same way in every world."""

import random
from collections.abc import Mapping, Sequence
from typing import TypeVar

T = TypeVar("T", bound=Sequence)
_COMMON_SHARE, _STRONG_SHARE, _WEAK_SHARE = 0.38, 0.95, 0.15


def taught(
    name: str, things: Sequence[T], skill_of: Mapping[str, str], strong: Mapping[str, tuple[str, ...]], seed: int
) -> frozenset[T]:
    """The things that an agent was taught: everyone knows the common ones, the student knows nothing else.

    A teacher also knows 95 % of the remaining things of its two ``strong`` skills and 15 % of the others. The first
    element of a thing tells its skill.
    """
    if name not in (*strong, "student"):
        raise ValueError(f"unknown agent {name!r}; the schoolhouse has {', '.join((*strong, 'student'))}")
    rng = random.Random(seed)
    common = {thing for thing in things if rng.random() < _COMMON_SHARE}
    by_agent = {"student": frozenset(common)}
    for teacher, skills in strong.items():
        shares = {thing: _STRONG_SHARE if skill_of[thing[0]] in skills else _WEAK_SHARE for thing in things}
        by_agent[teacher] = frozenset(t for t in things if t in common or rng.random() < shares[t])
    return by_agent[name]


__all__ = ["taught"]
