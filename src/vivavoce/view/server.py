"""The server of the viewer. It serves this machine only, and changes no file of a run.

It answers requests for ``127.0.0.1`` and ``localhost`` only, so that no page of the web can reach it under another
name. It sends no text as HTML but its own page and the overview, in which texts of models are escaped; a policy lets no
script run but its own.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from vivavoce.errors import UserError
from vivavoce.records import storable
from vivavoce.report.assets import STATIC
from vivavoce.view.index import Index
from vivavoce.view.page import page
from vivavoce.view.pages import Pages, keys_of, runs_in
from vivavoce.view.place import index_file

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_LOOK_S = 1.0
"""Seconds between two looks at the files of a run while its page is open."""
_LEFT_S = 15.0
"""Seconds after the last request in which a run counts as looked at."""


class Viewed:
    """A run that is being looked at: its pages, and a thread that keeps its index up to date."""

    def __init__(self, key: str, run: Path) -> None:
        self.pages = Pages(key, run, Index(run, index_file(run)))
        self._wanted = threading.Event()
        self._last, self._ended = 0.0, False
        threading.Thread(target=self._keep, name=f"index of {key}", daemon=True).start()

    def look(self) -> Pages:
        """The pages; the index is brought up to date meanwhile."""
        self._last = time.monotonic()
        self._wanted.set()
        return self.pages

    def close(self) -> None:
        """End the thread."""
        self._ended = True
        self._wanted.set()

    def _keep(self) -> None:
        while not self._ended:
            self._wanted.wait()
            if self._ended:
                return
            with suppress(OSError):  # the run was moved away: the page says so when it asks
                try:
                    self.pages.index.refresh(end=lambda: self._ended)
                except UserError as error:
                    self.pages.index.unread["the run"] = str(error)
            if time.monotonic() - self._last > _LEFT_S:
                self._wanted.clear()
            time.sleep(_LOOK_S)


class Viewer:
    """All runs that are shown. ``paths`` are run directories, or folders of such; new ones in them are found."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths, self._open = list(paths), dict[str, Viewed]()
        self._lock = threading.Lock()
        runs_in(self.paths)  # a path without a run is told at once

    def run(self, key: str) -> Viewed:
        """A run by its key. Raises KeyError if there is none."""
        with self._lock:
            if key not in self._open:
                self._open[key] = Viewed(key, keys_of(runs_in(self.paths))[key])
            return self._open[key]

    def runs(self) -> list[dict[str, Any]]:
        """All runs, those at work first, then the newest."""
        states = [self.run(key).look().state() for key in keys_of(runs_in(self.paths))]
        newest = sorted(states, key=lambda run: str(run["started"]), reverse=True)
        return sorted(newest, key=lambda run: not run["running"])

    def close(self) -> None:
        """End all threads."""
        for viewed in self._open.values():
            viewed.close()


def app(viewer: Viewer) -> Starlette:
    """The web application."""

    def front(request: Request) -> Response:
        return _respond(page(), "text/html; charset=utf-8")

    def runs(request: Request) -> Response:
        return _json(viewer.runs)

    def run(request: Request) -> Response:
        words = [part.replace("~2F", "/").replace("~7E", "~") for part in request.path_params["what"].split("/")]
        query = dict(request.query_params)
        return _json(lambda: viewer.run(request.path_params["key"]).look().get(words, query))

    routes = [
        Route("/", front, methods=["GET"]),
        Route("/api/runs", runs, methods=["GET"]),
        Route("/api/run/{key}/{what:path}", run, methods=["GET"]),
        Mount("/static", StaticFiles(directory=STATIC)),
    ]
    hosts = Middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost"], www_redirect=False)
    return Starlette(routes=routes, middleware=[hosts])


def _json(ask: Any) -> Response:
    """The result of ``ask`` as JSON; an error that the user can mend, with its text and a status of its own."""
    try:
        content, status = ask(), 200
    except (KeyError, IndexError) as error:
        content, status = {"error": f"there is no {error}"}, 404
    except (UserError, OSError) as error:
        content, status = {"error": str(error)}, 409
    return _respond(storable(json.dumps(content, ensure_ascii=False)), "application/json", status)


def _respond(text: str, kind: str, status: int = 200) -> Response:
    headers = {
        "Content-Security-Policy": _POLICY,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-store",
        "Cross-Origin-Resource-Policy": "same-origin",
    }
    return Response(text, status, headers, kind)


__all__ = ["Viewed", "Viewer", "app"]
