"""Environments of packages that cannot live beside us: played in another process, under another Python if need be.

One process serves any number of episodes. One JSON line goes in, one comes out::

    {"begin": {…}}                       {"ready": true}
    {"reset": [episode, task, seed]}     {"messages": [{"role": …, "content": …}], "done": false, "score": null}
    {"step": [episode, text]}            the same; ``score`` once it is done
    {"step": [episode, text, calls]}     of packages with tools, which say ``tools`` too: [{"name": …, "parameters": …}]
    {"close": episode}                   {"closed": true}

An error is ``{"failed": text}``. The programs are in :mod:`vivavoce.environments.bridges`.
"""

from __future__ import annotations

import asyncio
import atexit
import itertools
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vivavoce.agents.call_text import without_calls
from vivavoce.agents.replies import spoken
from vivavoce.environments.environment import Action, Limits, Observation, Tool
from vivavoce.errors import DataError, MissingDependency
from vivavoce.line_process import LineProcess

_FOLDER = Path(__file__).with_name("bridges")
_KEPT = ("PATH", "LANG", "LD_LIBRARY_PATH", "HOME", "TMPDIR", "NLTK_DATA", "HF_HUB_OFFLINE", "PYTHONPATH")
"""The environment variables that a program gets; API keys stay here."""


class Bridge:
    """The process of one package with one configuration. It is started by the first request.

    Args:
        script: A program of ``bridges``, by its name without ``.py``.
        given: Its configuration.
        python: Another Python, in whose environment the package is installed; empty: this one.
        install: How to get the package, for errors.
    """

    def __init__(self, script: str, configuration: Mapping[str, Any], python: str = "", install: str = "") -> None:
        self.script, self._given, self._python, self._install = (
            script,
            dict(configuration),
            python or sys.executable,
            install,
        )
        self._process: LineProcess | None = None
        self._lock, self._numbers = threading.Lock(), itertools.count()

    def episode(self) -> str:
        """A name for one more episode."""
        return f"e{next(self._numbers)}"

    def ask(self, what: str, value: Any) -> dict[str, Any]:
        """The answer to one request.

        Raises MissingDependency if the program cannot start, DataError with its words if the package fails.
        """
        with self._lock:
            if self._process is None:
                self._process = self._start()
            return self._ask_process(self._process, what, value)

    async def answer(self, what: str, value: Any) -> dict[str, Any]:
        """The same without blocking others."""
        return await asyncio.to_thread(self.ask, what, value)

    def close(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        if process is not None:
            process.close()

    def _start(self) -> LineProcess:
        if not Path(self._python).is_file():
            raise MissingDependency(
                f"there is no Python {self._python}",
                "task.python",
                "give the Python of the environment that has the package",
            )
        process = LineProcess([self._python, "-B", str(_FOLDER / f"{self.script}.py")], _KEPT, PYTHONHASHSEED="0")
        atexit.register(self.close)
        answer = self._reply_of(process, "begin", self._given)
        if "ready" not in answer:
            process.close()
            do = f"{self._install}, and name its Python as task.python if that is another environment"
            raise MissingDependency(f"{self.script} cannot start: {answer.get('failed', 'it ended')}", "task", do)
        return process

    def _ask_process(self, process: LineProcess, what: str, value: Any) -> dict[str, Any]:
        answer = self._reply_of(process, what, value)
        if not answer:
            self.close()
            raise DataError(
                f"the process of {self.script} ended", f"{what} {value}", "run its script by hand to see why"
            )
        if "failed" in answer:
            raise DataError(answer["failed"], f"{self.script}, {what}", "see the package's documentation")
        return answer

    def _reply_of(self, process: LineProcess, what: str, value: Any) -> dict[str, Any]:
        try:
            return process.ask({what: value})
        except EOFError:
            return {}


class Bridged:
    """An episode at a time of a bridged package, as an :class:`~vivavoce.environments.environment.Environment`.

    What the agent says, without its thoughts, is its action. Success is a score from ``right_from`` on.
    """

    tools: tuple[Tool, ...] = ()
    tells_tools = True  # there are none

    def __init__(self, name: str, bridge: Bridge, limits: Limits, right_from: float = 1.0) -> None:
        self.name, self.limits = name, limits
        self._bridge, self._right_from = bridge, right_from
        self._episode = bridge.episode()
        self._done: list[Any] = []
        self._score: float | None = None

    async def reset(self, task: str, seed: int) -> Observation:
        """Begin. Raises DataError if there is no such task, MissingDependency without the package."""
        self._done, self._score = [task, seed], None
        return self._observe(await self._bridge.answer("reset", [self._episode, task, seed]))

    async def step(self, action: Action) -> Observation:
        """Say it to the environment."""
        text = spoken(action.text).strip()
        self._done.append(text)
        return self._observe(await self._bridge.answer("step", [self._episode, text]))

    async def leave(self) -> None:
        """Let the package end an episode that a limit ended here."""
        await self._bridge.answer("close", self._episode)

    def state(self) -> Any:
        """The task and all that was done: a package does not tell its state."""
        return list(self._done)

    def succeeded(self) -> bool | None:
        """Whether the score is high enough; None before the end, and if the package gives none."""
        return None if self._score is None else self._score >= self._right_from

    def _observe(self, answer: Mapping[str, Any]) -> Observation:
        self._score = answer.get("score")
        return Observation(tuple(answer["messages"]), bool(answer["done"]))


class BridgedWithTools(Bridged):
    """An episode of a package that may offer tools, and says with each observation which they are.

    A call that cannot be read is answered here, and so is saying nothing, which some packages take for a fault of the
    model's server: the package does not hear of it.
    """

    tells_tools = False

    async def step(self, action: Action) -> Observation:
        """Say it to the environment, or call its tools."""
        if action.malformed:
            return Observation(({"role": "user", "content": f"Error: {action.malformed}"},))
        text = without_calls(spoken(action.text)) if action.calls else spoken(action.text).strip()
        calls = [[call.name, call.arguments] for call in action.calls]
        if not text and not calls:
            return Observation(({"role": "user", "content": "Error: nothing was said"},))
        self._done.append([text, calls])
        return self._observe(await self._bridge.answer("step", [self._episode, text, calls]))

    def _observe(self, answer: Mapping[str, Any]) -> Observation:
        if "tools" in answer:
            self.tools = offered_tools(answer)
        return super()._observe(answer)


def offered_tools(answer: Mapping[str, Any]) -> tuple[Tool, ...]:
    """The tools of an observation as a bridge tells it."""
    none = {"type": "object", "properties": {}}
    return tuple(
        Tool(one["name"], one.get("description") or "", one.get("parameters") or none)
        for one in answer.get("tools", ())
    )


__all__ = ["Bridge", "Bridged", "BridgedWithTools", "offered_tools"]
