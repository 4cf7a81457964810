"""Checks of backends in a user's own file, so that an error names the place of the mistake."""

from __future__ import annotations

import inspect
from types import ModuleType
from typing import Any

from vivavoce.errors import RecipeError
from vivavoce.plugins import need_call, need_members, place_of, replace_methods
from vivavoce.records import Reply

_MEMBERS = ("name", "identity", "reply", "aclose")


def check_own(agent: Any, module: ModuleType, file: str) -> None:
    """Raise RecipeError if ``agent`` lacks a member; later, if a reply is none."""
    need_members(agent, _MEMBERS, module.agent, file)
    kind = type(agent)
    need_call(agent.reply, 3, "async def reply(self, messages, sampling, seed)", file)

    async def reply(self: Any, *args: Any, **kwargs: Any) -> Reply:
        answered = kind.reply(self, *args, **kwargs)
        if not inspect.isawaitable(answered):
            raise RecipeError("`reply` is not async", place_of(kind.reply, file), "write `async def reply(…)`")
        answer = await answered
        if not isinstance(answer, Reply):
            what = f"`reply` returned {repr(answer)[:60]} (a {type(answer).__name__}), not a Reply"
            raise RecipeError(what, place_of(kind.reply, file), "return Reply(text)")
        return answer

    replace_methods(agent, {"reply": reply})


__all__ = ["check_own"]
