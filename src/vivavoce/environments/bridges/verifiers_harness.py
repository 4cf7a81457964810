"""A harness for an agent in an environment of verifiers 0.4: the package imports this module by its name.

The package's own harnesses start a program for each episode, which uv installs from the network. This one asks the same
endpoint with the same messages and calls the same tools, in the process that the package is in.
"""

import json
from contextlib import AsyncExitStack

import httpx  # pyright: ignore[reportMissingImports]  (it runs where the package is)
from verifiers.v1.configs.harness import HarnessConfig  # pyright: ignore[reportMissingImports]
from verifiers.v1.dialects.chat import message_to_wire  # pyright: ignore[reportMissingImports]
from verifiers.v1.harness import Harness  # pyright: ignore[reportMissingImports]
from verifiers.v1.harnesses.utils.mcp import call_mcp, connect_mcp  # pyright: ignore[reportMissingImports]
from verifiers.v1.runtimes import ProgramResult  # pyright: ignore[reportMissingImports]


class WordsConfig(HarnessConfig):
    """Has no settings of its own."""


class Words(Harness[WordsConfig]):
    """A conversation with the taskset's tools."""

    APPENDS_SYSTEM_PROMPT = True
    SUPPORTS_MCP = True
    SUPPORTS_RESUME = True
    EXECUTES_CODE = False
    NEEDS_CONTAINER = False

    async def launch(
        self, ctx, trace, runtime, endpoint, secret, mcp_urls, data, tool_interception_url=None
    ):  # the package's signature
        system, prompt = self.resolve_prompt(data)
        messages = [{"role": "system", "content": system}] if system else []
        if isinstance(prompt, str):
            messages.append({"role": "user", "content": prompt})
        else:
            messages += [message_to_wire(message) for message in prompt or ()]
        async with AsyncExitStack() as stack, httpx.AsyncClient(timeout=None) as client:
            servers = {name: {"url": url, "timeout": self.config.tool_timeout} for name, url in mcp_urls.items()}
            tools, dispatch, opened = await connect_mcp({"mcpServers": servers}, stack)
            offered = {"tools": tools} if tools else {}
            while True:
                answer = await client.post(
                    f"{endpoint}/chat/completions",
                    json={"model": ctx.model, "messages": messages, **offered},
                    headers={"Authorization": f"Bearer {secret}"},
                )
                if answer.status_code >= 400:  # a limit of the environment ends an episode so, too
                    return ProgramResult(1, "", answer.text)
                message = answer.json()["choices"][0]["message"]
                messages.append(message)
                if not message.get("tool_calls"):
                    return ProgramResult(0, "", "")
                for call in message["tool_calls"]:
                    name, arguments = call["function"]["name"], call["function"]["arguments"]
                    result = await called(opened, dispatch, name, arguments)
                    messages.append({"role": "tool", "tool_call_id": call["id"], "name": name, "content": result})


async def called(servers, dispatch, name, arguments):
    """A tool's answer; the error if it cannot be called."""
    if name not in dispatch:
        return f"error: unknown tool {name!r}"
    return await call_mcp(servers, dispatch, name, json.loads(arguments or "{}"))


__all__ = ["Words"]
