"""Datadog's tool list as the Python MCP client sees it, over both transports and both protocol eras."""
import asyncio

import pytest
from mcp import StdioServerParameters
from mcp.client import Client

import support
from test_tools import SEVEN


async def listed(server, mode):
    async with Client(server, mode=mode) as client:
        return (await client.list_tools()).tools


@pytest.mark.parametrize("mode", ["legacy", "auto", "2026-07-28"])
def test_the_seven_tools_are_listed_on_both_transports(mode, mcp, local, home):
    stdio = StdioServerParameters(command=support.BINARY, args=["--api-url", local.url], env=support.clean_environment(home))
    over_http, over_stdio = asyncio.run(listed(mcp.url + "/mcp", mode)), asyncio.run(listed(stdio, mode))
    assert [t.name for t in over_http] == [t.name for t in over_stdio], "fixed order"
    assert SEVEN <= {t.name for t in over_http}
    for tool in over_http:
        if tool.name in SEVEN:
            assert tool.annotations.read_only_hint is True and tool.title and tool.description
            assert "telemetry" in tool.input_schema["properties"] and "telemetry" not in tool.input_schema.get("required", [])


@pytest.mark.parametrize("path", ["/mcp", "/v1/mcp", "/api/unstable/mcp-server/mcp"])
def test_each_path_of_the_hosted_server_is_served(path, mcp):
    assert SEVEN <= {t.name for t in asyncio.run(listed(f"{mcp.url}{path}?toolsets=llmobs", "auto"))}


def test_telemetry_changes_nothing(sent, mcp):
    app = sent["agentless"]
    arguments = {"trace_id": app["traces"]["loop"], "from": app["from"], "to": app["to"]}
    plain = support.over_http(mcp, "get_llmobs_trace", arguments)
    assert support.over_http(mcp, "get_llmobs_trace", {**arguments, "telemetry": {"intent": "skill:test — why"}}) == plain
