"""The common parts of chat APIs' answers: the end of a reply, and its tokens.

Providers spell the same things differently, and tell some errors inside an answer that looks good. An answer that is
not known for certain to be a whole reply is not taken for one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal

from vivavoce.agents.faults import Failed
from vivavoce.records import Usage

End = Literal["stop", "length", "filter", "error"]
_ENDS: dict[End, str] = {
    # OpenAI and most servers; Anthropic; TGI, Together; Cohere; xAI, watsonx
    "stop": "stop stop_sequence stop_token end end_turn eos eos_token complete completed done finished tool_calls "
    "tool_call tool_use function_call",
    # OpenAI; Gemini; Mistral; Anthropic; Cohere; others by way of a router
    "length": "length max_tokens max_output_tokens max_completion_tokens max_new_tokens max_length model_length "
    "context_length context_length_exceeded model_context_window_exceeded token_limit incomplete",
    # OpenAI; Gemini; Anthropic; Bedrock; Zhipu
    "filter": "content_filter content_filtered filter safety recitation blocklist prohibited_content spii image_safety "
    "refusal sensitive guardrail_intervened guardrails moderation language",
    # OpenRouter, Mistral, LMDeploy; vLLM and SGLang; DeepSeek; Zhipu; watsonx; Gemini; Anthropic's server tools
    "error": "error abort aborted cancelled canceled insufficient_system_resource network_error timeout time_limit "
    "other malformed_function_call unexpected_tool_call pause_turn load unload",
}
_MEANS: dict[str, End] = {word: end for end, words in _ENDS.items() for word in words.split()}
MISSING = "missing"
NO_MORE: Mapping[str, End] = MappingProxyType({})


def end_of(reason: Any, means: Mapping[str, End] = NO_MORE) -> End | Failed:
    """The way a reply ended, by the ``finish_reason`` or ``stop_reason`` of its API; ``means`` explains further ones.

    Raises Failed for an unknown reason, or none: the reply may be whole, or not.
    """
    given_reason = str(reason).strip() if reason and str(reason).lower() not in ("null", "none") else MISSING
    if (end := means.get(given_reason)) is not None:
        return end
    # "SAFETY", "content-filter", "content_filter: RECITATION", "FinishReason.STOP", "FINISH_REASON_STOP"
    word = re.sub(r"[\s-]+", "_", given_reason.lower()).removeprefix("finishreason.").removeprefix("finish_reason_")
    for one in (word, re.split(r"[:/(]", word)[0].strip("_")):
        if one in _MEANS:
            return _MEANS[one]
    detail = "no finish reason" if given_reason == MISSING else f"the unknown finish reason {given_reason!r}"
    return Failed(
        "malformed",
        f"{detail}: whether the reply is whole is not known. If this endpoint always ends whole replies so, say "
        f"`finish_reasons: {{{given_reason}: stop}}` of its agent",
        True,
    )


def usage_of(answer: Any) -> Usage:
    """The tokens that an answer reports, however odd the rest of it is; zeros if it reports none.

    Thoughts are part of the completion. Some providers count them in the total alone (Gemini, xAI).
    """
    usage = answer.get("usage") if isinstance(answer, dict) else None
    if not isinstance(usage, dict):
        return Usage()
    if "input_tokens" in usage:  # Anthropic, which counts apart what its cache held
        cache_read, cache_written = (
            _number(usage, "cache_read_input_tokens"),
            _number(usage, "cache_creation_input_tokens"),
        )
        return Usage(
            _number(usage, "input_tokens") + cache_read + cache_written, _number(usage, "output_tokens"), cache_read
        )
    prompt, completion = _number(usage, "prompt_tokens"), _number(usage, "completion_tokens")
    total = _number(usage, "total_tokens")
    details = usage.get("prompt_tokens_details")
    cached = _number(details, "cached_tokens") if isinstance(details, dict) else 0
    return Usage(prompt, max(completion, total - prompt if prompt else 0), min(cached, prompt))


def _number(counts: dict[str, Any], key: str) -> int:
    value = counts.get(key)
    if isinstance(value, str) and value.strip().isascii() and value.strip().isdecimal() and len(value) < 16:
        value = int(value)
    known = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e15
    return max(0, int(value)) if known and value is not None else 0


__all__ = ["MISSING", "NO_MORE", "End", "end_of", "usage_of"]
