"""Starts the viewer's server on a port of this machine."""

from __future__ import annotations

import socket
import threading
import webbrowser
from collections.abc import Callable, Sequence
from pathlib import Path

from vivavoce.errors import DataError, MissingDependency

PORT = 8420
_TRIED = 20
"""Ports that are tried, if none is asked for."""


def serve(paths: Sequence[Path], port: int | None, show: bool, say: Callable[[str], object]) -> None:
    """Serve the pages of runs until Ctrl-C. ``port`` None: the first that is free; ``show``: open a browser.

    Raises DataError if there is no run, or the port is taken; MissingDependency if the server's packages are missing.
    """
    try:
        import uvicorn

        from vivavoce.view.server import Viewer, app
    except ModuleNotFoundError as error:
        if error.name not in ("uvicorn", "starlette"):
            raise
        raise MissingDependency(
            f"the viewer needs {error.name}, which is not installed", "viva view", 'pip install "vivavoce[view]"'
        ) from error
    viewer = Viewer(paths)
    with _bound(port) as listening:
        address = f"http://127.0.0.1:{listening.getsockname()[1]}/"
        say(f"{address}  (Ctrl-C ends it)")
        if show:
            threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()
        server = uvicorn.Server(uvicorn.Config(app(viewer), log_level="warning", access_log=False, ws="none"))
        try:
            server.run(sockets=[listening])
        finally:
            viewer.close()


def _bound(port: int | None) -> socket.socket:
    """A socket on this machine alone."""
    for tried in [port] if port is not None else [*range(PORT, PORT + _TRIED), 0]:
        listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind(("127.0.0.1", tried))
            listening.listen(128)  # now, so that a browser that comes before the server waits for it
        except OSError as error:
            listening.close()
            if port is not None:
                what = f"port {port} cannot be used: {error.strerror}"
                raise DataError(what, "--port", "name another one, or leave it out") from error
        else:
            return listening
    raise AssertionError("port 0 is always free")


__all__ = ["PORT", "serve"]
