"""A second look at the test: trained students reflect, read their teachers' notes, and answer again.

Paper: arXiv:2506.03541, the study at inference. Tokens are those of all calls for an answer, the teachers' too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from vivavoce.committee.wording import Discussion, Talk
from vivavoce.exams.arms import Arm, Pair
from vivavoce.protocols import look_again

Mode = Literal["reflection", "feedback", "both"]
_READS: dict[Mode, dict[str, bool]] = {
    "reflection": {"reflect": True, "feedback": False},
    "feedback": {"reflect": False, "feedback": True},
    "both": {"reflect": True, "feedback": True},
}


class Looks(BaseModel):
    """The students that look at their answers again, and the texts that they read then."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    arms: list[str] = Field(
        default=[], description="arms whose students look at their answers again, beside answering once; empty: none"
    )
    modes: list[Mode] = Field(
        default=["reflection", "feedback", "both"],
        min_length=1,
        description="reflection: the student reads its own reflection on its answer; feedback: a critique by each "
        "teacher; both",
    )

    @property
    def looked(self) -> Iterator[tuple[str, Mode, str]]:
        """Arm, mode, and what the arm is called after the second look, for each."""
        return ((arm, mode, f"{arm}+{mode}") for arm in self.arms for mode in self.modes)

    @property
    def pairs(self) -> list[Pair]:
        """The pairs of arms that show the gain of a second look."""
        return [(arm, name) for arm, _, name in self.looked]

    def arms_of(self, arms: Mapping[str, Arm]) -> list[Arm]:
        """Descriptions of these arms in a comparison."""
        return [
            Arm(
                name,
                base=f"{arms[arm].base or arm}+{mode}",
                teacher=arms[arm].teacher,
                changes=arms[arm].changes,
                material=arms[arm].material,
                method=arms[arm].method,
                start=arms[arm].start,
            )
            for arm, mode, name in self.looked
            if arm in arms
        ]


def rules(talk: Talk, mode: Mode) -> look_again.Options:
    """The rules of a second look, in the words and with the limits of a recipe's debates."""
    shared = set(Discussion.model_fields) & set(type(talk).model_fields) - {"protocol", "ask_confidence"}
    return look_again.Options.model_validate({key: getattr(talk, key) for key in shared} | _READS[mode])


def check(looks: Looks, names: Sequence[str]) -> None:
    """Raise ValueError if an arm looks again that is not among ``names``."""
    if unknown := [arm for arm in looks.arms if arm not in names]:
        raise ValueError(f"looks: no student is called `{unknown[0]}`; there are {', '.join(names)}")


__all__ = ["Looks", "Mode", "check", "rules"]
