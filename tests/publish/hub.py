"""A stand-in for the Hub on loopback: it takes repositories and commits, and keeps the files that it is sent."""

from __future__ import annotations

import base64
import json
import re
from typing import Any

from tests.listening import Handler, Listening


class Hub(Listening):
    """Keeps ``files[repository][path]`` and ``made``, what each repository was created with."""

    def __init__(self, status: int = 200) -> None:
        self.files: dict[str, dict[str, bytes]] = {}
        self.made: dict[str, dict[str, Any]] = {}
        self.status = status
        hub = self

        class Asked(Handler):
            def do_GET(self) -> None:
                self.say({"sha": "0" * 40, "siblings": [], "id": "x/y", "private": True})

            def do_POST(self) -> None:
                body = self.body()
                if hub.status != 200:
                    self.say({"error": "no"}, hub.status)
                elif self.path == "/api/repos/create":
                    asked = json.loads(body)
                    kind = asked.get("type", "model")
                    name = f"{asked.get('organization', 'me')}/{asked['name']}"
                    hub.made[name] = asked
                    prefix = "datasets/" if kind == "dataset" else ""
                    self.say({"url": f"{hub.address}/{prefix}{name}", "name": name})
                elif self.path == "/api/validate-yaml":
                    self.say({"errors": [], "warnings": []})
                elif "/preupload/" in self.path:
                    files = json.loads(body)["files"]
                    self.say({"files": [{**f, "uploadMode": "regular", "shouldIgnore": False} for f in files]})
                elif "/commit/" in self.path:
                    match = re.match(r"/api/(?:models|datasets)/([^/]+/[^/]+)/commit/", self.path)
                    assert match is not None, self.path
                    kept = hub.files.setdefault(match[1], {})
                    for line in body.decode().splitlines():
                        operation = json.loads(line)
                        if operation["key"] == "file":
                            kept[operation["value"]["path"]] = base64.b64decode(operation["value"]["content"])
                    url = f"{hub.address}/{match[1]}/commit/{'1' * 40}"
                    self.say({"success": True, "commitUrl": url, "commitOid": "1" * 40, "hookOutput": ""})
                else:
                    self.say({"error": f"not known: {self.path}"}, 404)

        super().__init__(Asked)
