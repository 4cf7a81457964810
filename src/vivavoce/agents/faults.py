"""The faults of one attempt at an endpoint, and the meaning of each error of a provider.

::

    status, body, headers ──▶ Failed: a reason, the provider's words, whether another attempt may go better, and when

Some providers tell errors in an answer with status 200 (OpenRouter, one-api, LM Studio); they mean the same there.
"""

from __future__ import annotations

import email.utils
import json
import math
import re
import time
from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple

from vivavoce.records import Usage

SETTINGS = ("auth", "account", "not_found", "unreachable")
"""Reasons in the recipe, the key or the account: until that is mended, every call of the agent fails."""
_DETAIL_LENGTH = 300
_OVERLOADED = (503, 529)
_PASSING = (409, 424, 425, 499)  # a conflict; TGI's failed generation; too early; a proxy that gave up
# OpenAI; vLLM; llama.cpp; Anthropic
_OVERLONG = ("context_length", "maximum context length", "exceed_context_size", "prompt is too long")
# OpenAI; Anthropic; OpenRouter, DeepSeek
_UNPAID = ("insufficient_quota", "billing", "credit balance is too low", "insufficient credit", "insufficient balance")
_TURNS = re.compile(
    r"system (?:role|message|prompt|instruction)|developer instruction|\broles? must\b|\balternat(?:e|ing|ion)\b"
    r"|(?:unexpected|unknown|invalid|unsupported) (?:message )?role|\broles? (?:is|are) (?:not )?supported"
    r"|consecutive (?:user|assistant|messages|turns)",
    re.IGNORECASE,
)
# of errors that are told by their kind alone: Anthropic
_STATUS = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "timeout_error": 504,
    "overloaded_error": 529,
}


class Failed(NamedTuple):
    """The fault of one attempt."""

    reason: str
    """One of the reasons of :class:`vivavoce.errors.AgentError`."""
    detail: str
    retryable: bool
    """Another attempt may go better."""
    wait_s: float | None = None
    """Seconds that the server asked to wait; None if it asked for none."""
    usage: Usage = Usage()
    """Tokens that the endpoint counted for it nevertheless."""
    refused: bool = False
    """Whether the endpoint was asked for too much at once: a limit of its rate, or overload."""
    everybody: bool = False
    """Whether any other request would be turned away too, until ``wait_s`` is over."""


def failed_status(status: int, body: bytes, headers: Mapping[str, str]) -> Failed:
    """The fault that an HTTP error means. ``body`` is without the key."""
    code, message = _complaint(body)
    if 300 <= status < 400:
        message = f"it points to {headers.get('location', 'nowhere')}"
    detail = short(f"HTTP {status}{f' {code}' if code else ''}: {message or 'empty body'}")
    wait_s, spent = _retry_after(headers), _is_spent(headers)
    if status == 402 or any(sign in f"{code} {message}".lower() for sign in _UNPAID):
        # an empty account does not fill while we wait
        return Failed("account", detail, False)
    if status == 429:
        return Failed("rate_limit", detail, True, _reset(headers) if wait_s is None else wait_s, Usage(), True, spent)
    if status == 408:
        return Failed("timeout", detail, True, wait_s, refused=True)
    if status == 500 and refuses_turns(message):  # llama.cpp tells so that a chat template has refused
        return Failed("bad_request", detail, False)
    if status in _PASSING or status >= 500:
        return Failed("server", detail, True, wait_s, refused=status in _OVERLOADED)
    if status == 401:
        return Failed("auth", detail, False)
    if "content_filter" in code or "content_policy" in code:
        return Failed("refused", detail, False)
    if status == 403:
        return Failed("forbidden", detail, False)
    if status in (404, 405, 410) or status < 400:
        return Failed("not_found", detail, False)
    if status == 413 or any(sign in detail for sign in _OVERLONG):
        return Failed("overlong", detail, False)
    return Failed("bad_request", detail, False)


def refuses_turns(message: str) -> bool:
    """Whether an error is about the roles of messages: no system text is taken, or turns have to alternate."""
    return _TURNS.search(message) is not None


def failure_inside(answer: Any, usage: Usage | None = None) -> Failed | None:
    """The error that an answer with a good status, or one of its choices, contains; else None.

    ``usage`` is the answer's.
    """
    if not isinstance(answer, dict):
        return None
    error = answer.get("error")
    if not error and (answer.get("object") == "error" or answer.get("type") == "error"):
        error = answer
    if not error:
        return None
    status = _status_of(error)
    failed = failed_status(status, json.dumps({"error": error}).encode(), {})
    return failed._replace(detail=failed.detail.removeprefix(f"HTTP {status}").strip(": "), usage=usage or Usage())


def failed_kind(error: Any) -> Failed:
    """The fault that an error means if only its kind is known, as inside a batch."""
    return failed_status(_status_of(error), json.dumps(error).encode(), {})


def _status_of(error: Any) -> int:
    """The status that an error would have by itself; 500 if it names none."""
    inner = error.get("error") if isinstance(error, dict) else None
    error = inner if isinstance(inner, dict) else error
    if not isinstance(error, dict):
        return 500
    for key in ("code", "status", "status_code", "http_status"):
        status = error.get(key)
        if isinstance(status, int | str) and str(status).isdecimal() and 300 <= int(status) < 600:
            return int(status)
    return next((_STATUS[kind] for kind in (error.get("type"), error.get("code")) if kind in _STATUS), 500)


def short(text: str) -> str:
    """One line, cut if it is longer than an error should be."""
    text = " ".join(text.split())
    return text if len(text) <= _DETAIL_LENGTH else f"{text[:_DETAIL_LENGTH]}…"


def _complaint(body: bytes) -> tuple[str, str]:
    """Code and message out of the body of an error, in the shapes that providers give it."""
    try:
        complaint: Any = json.loads(body)
    except (ValueError, RecursionError):
        return "", body.decode("utf-8", "replace")
    if isinstance(complaint, list) and len(complaint) == 1:  # Gemini
        complaint = complaint[0]
    if isinstance(complaint, dict) and isinstance(complaint.get("error"), dict):
        complaint = complaint["error"]
    if (
        isinstance(complaint, dict) and isinstance(complaint.get("error"), str) and "message" not in complaint
    ):  # Ollama, LM Studio
        return "", complaint["error"]
    if not isinstance(complaint, dict):
        return "", str(complaint or "")
    code = complaint.get("code")
    if not isinstance(code, str):  # some repeat the status there
        code = complaint.get("type") or code
    return str(code or ""), str(complaint.get("message") or complaint.get("detail") or complaint)


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait as the server asks for them: milliseconds, seconds or a date."""
    try:
        if "retry-after-ms" in headers:
            seconds = float(headers["retry-after-ms"]) / 1000
        else:
            seconds = float(headers["retry-after"])
    except KeyError:
        return None
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(headers["retry-after"]).timestamp() - time.time()
        except (KeyError, ValueError):
            return None
    return max(0.0, seconds) if math.isfinite(seconds) else None


def _is_spent(headers: Mapping[str, str]) -> bool:
    """Whether an allowance of the account is used up, as OpenAI, Anthropic and others tell it."""
    return any(_names_remainder(name) and value.strip() == "0" for name, value in headers.items())


def _names_remainder(name: str) -> bool:
    return "ratelimit" in name.lower() and "remaining" in name.lower()


def _reset(headers: Mapping[str, str]) -> float | None:
    """Seconds until the allowance that is used up is renewed: ``6m0s``, seconds, or a date."""
    waits = []
    for name, value in headers.items():
        if not (_names_remainder(name) and value.strip() == "0"):
            continue
        reset = headers.get(re.sub("remaining", "reset", name, flags=re.I), "").strip()
        if parts := re.findall(r"(\d+(?:\.\d+)?)(ms|[hms])", reset):
            waits.append(sum(float(n) * {"h": 3600, "m": 60, "s": 1, "ms": 0.001}[unit] for n, unit in parts))
        elif re.fullmatch(r"\d+(\.\d+)?", reset):
            at = float(reset)
            waits.append(at if at < 1e8 else (at / 1000 if at > 1e11 else at) - time.time())
        elif reset:
            try:
                waits.append(datetime.fromisoformat(reset).timestamp() - time.time())
            except ValueError:
                continue
    return max(0.0, *waits) if waits else None


__all__ = ["SETTINGS", "Failed", "failed_kind", "failed_status", "failure_inside", "refuses_turns", "short"]
