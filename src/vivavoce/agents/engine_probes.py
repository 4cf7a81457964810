"""Looks at engines and at this machine: what an engine answers, which processes run, which ports are free."""

from __future__ import annotations

import http.client
import json
import os
import socket
import urllib.error
import urllib.request
from typing import Any


def healthy(url: str, timeout_s: float) -> bool:
    """Whether the engine at ``url`` answers its health check."""
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=timeout_s) as answer:
            return answer.status == 200
    except (OSError, ValueError, http.client.HTTPException):
        return False


def names(url: str, timeout_s: float) -> list[str] | None:
    """The names of the models that the engine at ``url`` serves; None if it does not tell."""
    try:
        with urllib.request.urlopen(f"{url}/v1/models", timeout=timeout_s) as answer:
            return [str(one["id"]) for one in json.load(answer)["data"]]
    except (OSError, ValueError, LookupError, TypeError, http.client.HTTPException):
        return None


def lacks(url: str, path: str, body: Any = None) -> bool:
    """Whether the engine at ``url`` has no such ``path``, whatever it answers to a request there."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url + path, data, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=10.0):
            return False
    except urllib.error.HTTPError as error:
        return error.code == 404 and json.loads(error.read() or b"{}") == {"detail": "Not Found"}
    except (OSError, ValueError, http.client.HTTPException):
        return False


def alive(process: int | None) -> bool:
    """Whether a process of this machine runs; True if it is not known."""
    try:
        if process is not None:
            os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # another user's
        pass
    return True


def free_port() -> int:
    """A port of this machine on which no program listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def listenable(port: int) -> bool:
    """Whether a program can listen on a port of this machine, because no other one does."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def spare_loopback() -> None:
    """Have no proxy of the environment asked for an engine of this machine, which it could not reach."""
    if urllib.request.proxy_bypass("127.0.0.1") or not urllib.request.getproxies():
        return
    spared = [os.environ.get("no_proxy") or os.environ.get("NO_PROXY"), "127.0.0.1"]
    os.environ["no_proxy"] = os.environ["NO_PROXY"] = ",".join(host for host in spared if host)


__all__ = ["alive", "free_port", "healthy", "lacks", "listenable", "names", "spare_loopback"]
