"""Plain Python functions as tools, and an environment made of them.

A world is any object. A tool is a function whose first argument is the world; its other arguments, their types and
its docstring make the schema::

    def add(till: Till, n: int) -> int:
        \"\"\"Add to the sum.

        Args:
            n: How much.
        \"\"\"
        till.sum += n
        return till.sum

    Functions("till", begin, [add], reached=lambda till: till.sum == 5)
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model
from pydantic_core import PydanticSerializationError, to_json, to_jsonable_python

from vivavoce.environments.environment import Action, Limits, Observation, Tool, ToolCall
from vivavoce.records import Message, all_storable

World = TypeVar("World")
_ARGUMENT = re.compile(r"^    (\w+):\s*(.*)$")


class Refused(ValueError):
    """Raised by a tool that refuses a request; the agent is told why."""


class Toolbox(Generic[World]):
    """Functions of a world, as tools.

    A ValueError (so :class:`Refused`), LookupError or ArithmeticError of a function is told to the agent; any other
    error is a bug of the function and is raised.
    """

    def __init__(self, functions: Sequence[Callable[..., Any]]) -> None:
        self._functions = {function.__name__: function for function in functions}
        assert len(self._functions) == len(functions), "two functions have one name"
        self._arguments = {name: _arguments(function) for name, function in self._functions.items()}
        self.tools = tuple(
            Tool(name, _docs_of(function)[0], _schema(self._arguments[name]))
            for name, function in self._functions.items()
        )

    def call(self, world: World, call: ToolCall) -> Any:
        """The result of the function. Raises Refused if there is none of this name, or the arguments do not fit."""
        if call.name not in self._functions:
            raise Refused(f"there is no tool {call.name!r}; there are {', '.join(sorted(self._functions))}")
        try:
            arguments = self._arguments[call.name].model_validate(call.arguments)
        except ValidationError as error:
            wrong = ((".".join(map(str, e["loc"])), e["msg"]) for e in error.errors(include_url=False))
            raise Refused("; ".join(f"{where}: {what}" for where, what in wrong)) from None
        values = {name: getattr(arguments, field) for name, field in _fields(self._functions[call.name])}
        return self._functions[call.name](world, **values)

    def answers(self, world: World, action: Action) -> tuple[Message, ...]:
        """One ``tool`` message for each call of the action, in order; one where the calls could not be read."""
        if action.malformed:
            return (_tool(f"Error: {action.malformed}"),)
        return tuple(_tool(self._answer(world, call)) for call in action.calls)

    def _answer(self, world: World, call: ToolCall) -> str:
        try:
            result = self.call(world, call)
        except (ValueError, LookupError, ArithmeticError) as error:
            return f"Error: {error}"
        if isinstance(result, str):
            return result
        try:
            return to_json(result).decode()
        except PydanticSerializationError:  # half a surrogate pair
            return to_json(all_storable(to_jsonable_python(result))).decode()


class Functions(Generic[World]):
    """A world with tools and a goal, as an :class:`~vivavoce.environments.environment.Environment`.

    An episode ends when the goal is reached, or when the agent says something without calling a tool.

    Args:
        name: Name of the environment.
        begin: A function from a task's id and a seed to the world at first, and the text that the agent is told of it.
        functions: The tools.
        reached: Whether the goal is reached.
        limits: Limits of an episode.
    """

    tells_tools = False

    def __init__(
        self,
        name: str,
        begin: Callable[[str, int], tuple[World, str]],
        functions: Sequence[Callable[..., Any]],
        reached: Callable[[World], bool],
        limits: Limits = Limits(),  # noqa: B008 (frozen)
    ) -> None:
        self.name, self.limits = name, limits
        self._begin, self._reached, self._toolbox = begin, reached, Toolbox[World](functions)
        self.tools = self._toolbox.tools
        self._world: World | None = None

    async def reset(self, task: str, seed: int) -> Observation:
        """Begin the task."""
        self._world, text = self._begin(task, seed)
        return Observation(({"role": "user", "content": text},))

    async def step(self, action: Action) -> Observation:
        """Call the tools."""
        messages = self._toolbox.answers(self._world_now, action)
        return Observation(messages, done=not messages or self._reached(self._world_now))

    def state(self) -> Any:
        """The world as JSON: its fields, if it is an object."""
        return to_jsonable_python(self._world_now, fallback=vars)

    def succeeded(self) -> bool | None:
        """Whether the goal is reached."""
        return self._reached(self._world_now)

    @property
    def _world_now(self) -> World:
        assert self._world is not None, f"{self.name} was not reset"
        return self._world


def _tool(content: str) -> Message:
    return {"role": "tool", "content": content}


def _fields(function: Callable[..., Any]) -> list[tuple[str, str]]:
    """The arguments after the world, and their names in the model, because ``json`` and others are its methods."""
    return [(name, f"argument_{name}") for name in list(inspect.signature(function).parameters)[1:]]


def _arguments(function: Callable[..., Any]) -> type[BaseModel]:
    """A model of the arguments after the world."""
    parameters, hints, descriptions = (
        inspect.signature(function).parameters,
        get_type_hints(function),
        _docs_of(function)[1],
    )
    fields: dict[str, Any] = {}
    for name, field in _fields(function):
        default = ... if parameters[name].default is inspect.Parameter.empty else parameters[name].default
        fields[field] = (hints[name], Field(default, alias=name, description=descriptions.get(name)))
    return create_model(function.__name__, __config__=ConfigDict(extra="forbid"), **fields)


def _docs_of(function: Callable[..., Any]) -> tuple[str, dict[str, str]]:
    """The docstring's text on a function, and on each argument below ``Args:``."""
    text, _, below = (inspect.getdoc(function) or "").partition("\nArgs:\n")
    arguments: dict[str, str] = {}
    name = ""
    for line in below.splitlines():
        if not line.startswith(" "):
            if line:  # another section
                break
        elif match := _ARGUMENT.match(line):
            name = match[1]
            arguments[name] = match[2]
        elif name:
            arguments[name] += " " + line.strip()
    return " ".join(text.split()), arguments


def _schema(arguments: type[BaseModel]) -> dict[str, Any]:
    """The JSON schema without titles and references: some endpoints and templates read neither."""
    whole = arguments.model_json_schema()
    schema = _plain({key: value for key, value in whole.items() if key != "$defs"}, whole.get("$defs", {}))
    return {"properties": {}, **schema}


def _plain(schema: Any, definitions: dict[str, Any]) -> Any:
    if isinstance(schema, list):
        return [_plain(one, definitions) for one in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        definition = definitions[schema["$ref"].rpartition("/")[2]]
        return _plain({**definition, **{k: v for k, v in schema.items() if k != "$ref"}}, definitions)
    # an argument may be called title: then its value is no text
    titles = {key for key, value in schema.items() if key == "title" and isinstance(value, str)}
    return {key: _plain(value, definitions) for key, value in schema.items() if key not in titles}


__all__ = ["Functions", "Refused", "Toolbox"]
