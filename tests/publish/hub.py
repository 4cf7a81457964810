"""A stand-in for the Hub on loopback: it takes repositories and commits, and keeps the files that it is sent."""

from __future__ import annotations

import base64
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self


class _Server(ThreadingHTTPServer):
    request_queue_size = 1024  # by default 5: of connections that come at once some then wait for two minutes


class Hub:
    """Keeps ``files[repository][path]`` and ``made``, what each repository was created with."""

    def __init__(self, status: int = 200) -> None:
        self.files: dict[str, dict[str, bytes]] = {}
        self.made: dict[str, dict[str, Any]] = {}
        self.status = status
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._say({"sha": "0" * 40, "siblings": [], "id": "x/y", "private": True})

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                if hub.status != 200:
                    self._say({"error": "no"}, hub.status)
                elif self.path == "/api/repos/create":
                    asked = json.loads(body)
                    kind = asked.get("type", "model")
                    name = f"{asked.get('organization', 'me')}/{asked['name']}"
                    hub.made[name] = asked
                    prefix = "datasets/" if kind == "dataset" else ""
                    self._say({"url": f"{hub.address}/{prefix}{name}", "name": name})
                elif self.path == "/api/validate-yaml":
                    self._say({"errors": [], "warnings": []})
                elif "/preupload/" in self.path:
                    files = json.loads(body)["files"]
                    self._say({"files": [{**f, "uploadMode": "regular", "shouldIgnore": False} for f in files]})
                elif "/commit/" in self.path:
                    match = re.match(r"/api/(?:models|datasets)/([^/]+/[^/]+)/commit/", self.path)
                    assert match is not None, self.path
                    kept = hub.files.setdefault(match[1], {})
                    for line in body.decode().splitlines():
                        operation = json.loads(line)
                        if operation["key"] == "file":
                            kept[operation["value"]["path"]] = base64.b64decode(operation["value"]["content"])
                    url = f"{hub.address}/{match[1]}/commit/{'1' * 40}"
                    self._say({"success": True, "commitUrl": url, "commitOid": "1" * 40, "hookOutput": ""})
                else:
                    self._say({"error": f"not known: {self.path}"}, 404)

            def _say(self, what: Any, status: int = 200) -> None:
                data = json.dumps(what).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, format: str, *args: object) -> None: ...

        self._server = _Server(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
