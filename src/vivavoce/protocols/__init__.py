"""Protocols: one file each says which agent is asked what, in which order.

``protocols/foo.py`` defines ``Options``, a subclass of :class:`vivavoce.committee.wording.Talk`, and ``async def
run(question, table)``, which asks and returns why it ended. The file name is the protocol's name. A path to a Python
file works too, so adding a protocol edits nothing here.
"""

from __future__ import annotations

from types import ModuleType

from vivavoce import plugins
from vivavoce.committee.wording import Talk
from vivavoce.errors import RecipeError


def open_protocol(name: str, where: str = "protocol") -> ModuleType:
    """The module of a protocol: a name, or a path to a Python file such as ``debates/mine.py``.

    Raises RecipeError, naming ``where`` it was asked for, if there is none, or its Options are no protocol options.
    """
    module = plugins.load("protocols", name, where)
    if not issubclass(module.Options, Talk):
        raise RecipeError(
            "the Options of a protocol must be a subclass of vivavoce.committee.wording.Talk",
            name,
            "write `class Options(Talk)`, or `class Options(Discussion)` if agents read each other",
        )
    return module


__all__ = ["open_protocol"]
