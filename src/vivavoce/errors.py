"""Every error that vivavoce raises on purpose.

::

    VivaError
    ├── UserError            you must change something; found before anything is spent (exit code 2, no traceback)
    │   ├── RecipeError      (also ValueError)   a recipe or an override is wrong
    │   ├── DataError        (also ValueError)   an input file or row is wrong
    │   ├── MissingKey       (also LookupError)  an API key is not in the environment
    │   ├── MissingDependency(also ImportError)  an optional package is not installed
    │   ├── RunConflict      (also ValueError)   the run directory belongs to another recipe
    │   │   └── RunBusy                          another process is at work in it
    │   ├── Diverged         (also ArithmeticError) a loss or a gradient in training is not a finite number
    │   ├── Mismatched       (also ArithmeticError) an engine and the trainer disagree about the student's weights
    │   ├── BudgetReached                        a cap is reached: all is kept, and goes on when it is raised (code 3)
    │   └── AgentUnusable                        no call of an agent can be answered: all is kept, and goes on
    └── WorldError           the world failed; retried within a bound, then recorded as a node, never a crash
        └── AgentError       (also RuntimeError) a model call failed for good

A third family, *we are wrong*, is a plain ``assert`` that prints the values.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from vivavoce.records import Usage, storable


class VivaError(Exception):
    """Root of all errors raised on purpose."""


class UserError(VivaError):
    """The user must change something. ``what`` is wrong, ``where``, and what to ``do`` about it.

    To add one: subclass it together with the standard type that fits, and keep the three arguments, so that the
    command line prints every error in the same shape and instances stay picklable.
    """

    exit_code = 2

    def __init__(self, what: str, where: str = "", do: str = "") -> None:
        super().__init__(what, where, do)
        self.what, self.where, self.do = what, where, do

    def __str__(self) -> str:
        lines = [self.what]
        if self.where:
            lines.append(f"  where: {self.where}")
        if self.do:
            lines.append(f"  do:    {self.do}")
        return "\n".join(lines)


class RecipeError(UserError, ValueError):
    """A recipe file or a ``--set`` override is wrong; ``where`` holds file and line."""


class DataError(UserError, ValueError):
    """An input file or row cannot be read; ``where`` holds file and row number."""


class MissingKey(UserError, LookupError):
    """The environment variable that should hold an API key is empty."""


class MissingDependency(UserError, ImportError):
    """A package that this feature needs is not installed; ``do`` names the extra to install."""


class RunConflict(UserError, ValueError):
    """The run directory was made by another recipe, or in another way than is asked for now."""


class RunBusy(RunConflict):
    """Another process is at work in the run directory."""


class Diverged(UserError, ArithmeticError):
    """Training met a loss, a gradient or a weight that is not a finite number. Nothing was saved as finished."""


class Mismatched(UserError, ArithmeticError):
    """The engine that serves the student gives other log-probabilities than the trainer, because it serves other
    weights or computes otherwise. Nothing was learned from its answers.
    """


class BudgetReached(UserError):
    """A cap of the recipe is reached. Nothing is lost: raise the cap and give the same command, and it goes on."""

    exit_code = 3


class AgentUnusable(UserError):
    """No call of an agent can be answered: a wrong key, address or model, or no server there. Nothing is lost: correct
    it and give the same command, and it goes on. None of the agent's calls is recorded as failed.
    """


class WorldError(VivaError):
    """A failure outside vivavoce. Work around it and record it."""


class AgentError(WorldError, RuntimeError):
    """A model call failed and will not be tried again.

    ``reason`` is a short stable word (``timeout``, ``rate_limit``, ``refused``, ``empty``, ``malformed``,
    ``connection``, ``server``, ``bad_request``, ``forbidden``, ``overlong``, ``batch``, ``budget``, and those of
    settings: ``auth``, ``account``, ``not_found``, ``unreachable``). ``detail`` is for people and holds no secret.
    ``usage`` is the cost of the failed attempts, as far as the endpoint told it. ``do`` says what the user has to do
    before any call of the agent can succeed; it is empty if only this call failed.
    """

    def __init__(self, reason: str, detail: str = "", usage: Usage | None = None, do: str = "") -> None:
        detail = storable(detail)  # what an endpoint says is written down too
        super().__init__(reason, detail, usage, do)
        self.reason, self.detail, self.usage, self.do = reason, detail, usage or Usage(), do

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}" if self.detail else self.reason


@contextmanager
def told_once() -> Iterator[None]:
    """Let one of several tasks of a group that met the same error tell the user."""
    try:
        yield
    except BaseExceptionGroup as group:
        raise the_one(group) from None


def the_one(error: BaseException) -> BaseException:
    """The error inside a group that the user should read: one that the user can mend, otherwise the first."""
    while isinstance(error, BaseExceptionGroup):
        error = (error.subgroup(UserError) or error).exceptions[0]
    return error
