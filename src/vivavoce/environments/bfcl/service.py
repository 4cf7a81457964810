"""The base of a service: a state made from a configuration, and methods that are the functions an agent may call."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, ClassVar, TypeVar

from pydantic_core import to_jsonable_python

from vivavoce.environments.functions import Refused, Toolbox
from vivavoce.records import ToolCall

K = TypeVar("K")
V = TypeVar("V")


class Service(ABC):
    """One of BFCL's classes. Every public method is a function; it raises ``Refused`` for a call that it does not
    accept.

    Attributes that begin with an underscore decide what functions return, and a turn is not judged by them: the current
    directory, how hard a pedal is pressed.
    """

    NAME: ClassVar[str]
    """In ``involved_classes`` and ``initial_config``."""
    DOCUMENT: ClassVar[str]
    """File of its functions' documents."""

    @abstractmethod
    def __init__(self, config: Mapping[str, Any]) -> None:
        """Begin. The configuration is the service's own: it may keep and change what is in it."""


def item_of(items: Mapping[K, V], key: K, what: str) -> V:
    """The item of a key. Raises Refused, with ``what`` it is in words, if there is none."""
    if key not in items:
        raise Refused(f"there is no {what}")
    return items[key]


@cache
def functions_of(service: type[Service]) -> Toolbox[Service]:
    """Its functions."""
    return Toolbox([f for name, f in vars(service).items() if callable(f) and not name.startswith("_")])


def call_service(services: Sequence[Service], call: ToolCall) -> Any:
    """The result of a function of one of the services, as JSON; ``{"error": …}`` if it refuses."""
    for service in services:
        functions = functions_of(type(service))
        if any(tool.name == call.name for tool in functions.tools):
            try:
                return to_jsonable_python(functions.call(service, call))
            except (ValueError, LookupError, ArithmeticError) as error:
                return {"error": str(error)}
    return {"error": f"there is no function {call.name!r}"}


def states_of(services: Sequence[Service]) -> dict[str, dict[str, Any]]:
    """Everything that decides what functions return, service by service."""
    return {service.NAME: to_jsonable_python(vars(service)) for service in services}


def judged_part(states: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """The part of the states by which a turn is judged."""
    return {
        name: {key: value for key, value in state.items() if not key.startswith("_")} for name, state in states.items()
    }


__all__ = ["Refused", "Service", "call_service", "functions_of", "item_of", "judged_part", "states_of"]
