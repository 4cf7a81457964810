"""Answers of chat APIs: how a reply ended, what it took, and which errors hide in an answer that looks good."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from vivavoce.agents.faults import Failed, failed_status, failure_inside
from vivavoce.agents.reading import end_of, usage_of
from vivavoce.records import Usage

ENDS = {
    "stop": [
        "stop",
        "STOP",
        "end_turn",
        "stop_sequence",
        "eos",
        "eos_token",
        "COMPLETE",
        "tool_calls",
        "function_call",
    ],
    "length": ["length", "max_tokens", "MAX_TOKENS", "model_length", "model_context_window_exceeded", "max-tokens"],
    "filter": [
        "content_filter",
        "content-filter",
        "content_filter: RECITATION",
        "SAFETY",
        "PROHIBITED_CONTENT",
        "FinishReason.SAFETY",
        "FINISH_REASON_BLOCKLIST",
        "refusal",
        "sensitive",
    ],
    "error": ["error", "abort", "cancelled", "insufficient_system_resource", "OTHER", "MALFORMED_FUNCTION_CALL"],
}


@pytest.mark.parametrize(("end", "reason"), [(end, reason) for end, reasons in ENDS.items() for reason in reasons])
def test_every_spelling_of_an_end_is_read(end: str, reason: str) -> None:
    assert end_of(reason) == end


@pytest.mark.parametrize("reason", [None, "", "null", "None", "something new", 7, {"type": "stop"}])
def test_an_end_that_nobody_knows_is_no_end(reason: Any) -> None:
    assert isinstance(end_of(reason), Failed)


@pytest.mark.parametrize(
    ("reported", "usage"),
    [
        ({"prompt_tokens": 7, "completion_tokens": 5}, Usage(7, 5)),
        ({"prompt_tokens": 7, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 4}}, Usage(7, 5, 4)),
        ({"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 412}, Usage(7, 405)),
        ({"prompt_tokens": 7, "total_tokens": 12}, Usage(7, 5)),
        ({"prompt_tokens": 7.0, "completion_tokens": None}, Usage(7, 0)),
        ({"prompt_tokens": -3, "completion_tokens": float("nan")}, Usage()),
        ({"prompt_tokens": "7", "prompt_tokens_details": 5}, Usage(7)),
        ({"prompt_tokens": "seven", "completion_tokens": True}, Usage()),
        ({"input_tokens": 7, "cache_read_input_tokens": 20, "cache_creation_input_tokens": 3, "output_tokens": 5},
         Usage(30, 5, 20)),
        (None, Usage()),
        (5, Usage()),
    ],
)  # fmt: skip
def test_tokens_are_counted_as_far_as_they_are_told(reported: Any, usage: Usage) -> None:
    assert usage_of({"usage": reported}) == usage


@pytest.mark.parametrize("answer", [None, [], "text", 5, {}])
def test_no_answer_is_too_odd_to_be_counted(answer: Any) -> None:
    assert usage_of(answer) == Usage()
    assert failure_inside(answer) is None


@pytest.mark.parametrize(
    ("answer", "reason", "retryable", "message"),
    [
        ({"error": {"message": "Insufficient credits", "code": 402}}, "account", False, "402: Insufficient credits"),
        ({"error": {"message": "Rate limit exceeded", "code": 429}}, "rate_limit", True, "Rate limit exceeded"),
        ({"error": {"message": "No auth", "code": "401"}}, "auth", False, "No auth"),
        ({"error": {"type": "overloaded_error", "message": "Overloaded"}}, "server", True, "Overloaded"),
        ({"type": "error", "error": {"type": "not_found_error", "message": "m"}}, "not_found", False, "m"),
        ({"object": "error", "message": "too long: maximum context length is 8", "code": 400}, "overlong", False, "8"),
        ({"error": "model crashed"}, "server", True, "model crashed"),
        ({"error": {"message": "the provider died", "code": 502}, "choices": []}, "server", True, "the provider died"),
        ({"error": {"code": 1234, "message": "odd"}}, "server", True, "odd"),
    ],
)
def test_an_error_inside_a_good_status_means_what_it_says(
    answer: Any, reason: str, retryable: bool, message: str
) -> None:
    failed = failure_inside(answer)
    assert failed is not None
    assert (failed.reason, failed.retryable) == (reason, retryable)
    assert message in failed.detail


def test_no_error_is_seen_in_an_answer_without_one() -> None:
    assert failure_inside({"error": None, "choices": []}) is None
    assert failure_inside({"type": "message", "content": []}) is None


@pytest.mark.parametrize(
    ("headers", "wait_s", "everybody"),
    [
        ({"retry-after": "2"}, 2, False),
        ({"retry-after": "2", "x-ratelimit-remaining-requests": "12"}, 2, False),
        ({"retry-after": "2", "x-ratelimit-remaining-requests": "0"}, 2, True),
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "1m2.5s"}, 62.5, True),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "120ms"}, 0.12, True),
        ({"ratelimit-remaining": "0", "ratelimit-reset": "7"}, 7, True),
        ({"x-ratelimit-remaining": "0"}, None, True),
        ({}, None, False),
    ],
)
def test_whether_a_refusal_is_the_calls_or_everybodys_is_read_from_the_headers(
    headers: dict[str, str], wait_s: float | None, everybody: bool
) -> None:
    failed = failed_status(429, b'{"error": {"message": "slow down"}}', headers)
    assert (failed.refused, failed.wait_s, failed.everybody) == (True, wait_s, everybody)


def test_a_reset_may_be_a_date() -> None:
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 90))
    headers = {"anthropic-ratelimit-requests-remaining": "0", "anthropic-ratelimit-requests-reset": at}
    failed = failed_status(429, json.dumps({"error": {"type": "rate_limit_error", "message": "x"}}).encode(), headers)
    assert failed.everybody
    assert failed.wait_s is not None
    assert 80 < failed.wait_s <= 90
