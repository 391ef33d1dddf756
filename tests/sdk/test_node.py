"""Clients in Node: the MCP Inspector and the MCP conformance suite, against the product over HTTP."""
import json
import pathlib
import os
import subprocess

import pytest

import support
from test_tools import SEVEN

BIN = support.HERE / "node_modules" / ".bin"


def node(home, *arguments):
    env = support.clean_environment(home)
    env["PATH"] = f"{BIN}{os.pathsep}{env['PATH']}"
    return subprocess.run([str(BIN / arguments[0]), *arguments[1:]], env=env, capture_output=True, text=True, timeout=120, cwd=home)


def inspector(home, mcp, *arguments, era="auto"):
    return node(home, "mcp-inspector", "--cli", "--server-url", mcp.url + "/mcp", "--transport", "http", "--protocol-era", era, "--format", "json", "-q", *arguments)


@pytest.mark.parametrize("era", ["legacy", "auto", "modern"])
def test_inspector_lists_the_tools_and_accepts_their_schemas(era, mcp, home):
    done = inspector(home, mcp, "--method", "tools/list", "--strict", era=era)
    assert done.returncode == 0, done.stderr
    listed = json.loads(done.stdout)
    tools = listed["result"]["tools"] if "result" in listed else listed["tools"]
    assert SEVEN <= {t["name"] for t in tools}


def test_inspector_calls_a_tool(mcp, home, sent):
    app = sent["apm"]
    arguments = {"trace_id": app["traces"]["loop"], "from": app["from"], "to": app["to"]}
    done = inspector(home, mcp, "--method", "tools/call", "--tool-name", "get_llmobs_agent_loop", "--tool-args-json", json.dumps(arguments))
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    content = (answer.get("result") or answer)["content"]
    assert content[0]["text"] == support.over_http(mcp, "get_llmobs_agent_loop", arguments)


def test_inspector_shows_a_tool_error(mcp, home, sent):
    arguments = {"trace_id": "0" * 32, "from": sent["apm"]["from"], "to": sent["apm"]["to"]}
    done = inspector(home, mcp, "--method", "tools/call", "--tool-name", "get_llmobs_trace", "--tool-args-json", json.dumps(arguments))
    assert done.returncode == 5, done.stdout + done.stderr
    assert "no spans found for trace" in done.stdout + done.stderr


# The scenarios for any server; the others call tools that only a test server has.
SCENARIOS = [("server-initialize", "2025-11-25"), ("ping", "2025-11-25"), ("tools-list", "2025-11-25"), ("tools-list", "2026-07-28"),
             ("resources-list", "2025-11-25"), ("resources-list", "2026-07-28"), ("dns-rebinding-protection", "2025-11-25"),
             ("dns-rebinding-protection", "2026-07-28"), ("caching", "2026-07-28"), ("http-header-validation", "2026-07-28")]


BASELINE = pathlib.Path(__file__).with_name("conformance-baseline.yml")


@pytest.mark.parametrize("scenario, revision", SCENARIOS)
def test_conformance(scenario, revision, mcp, home):
    done = node(home, "conformance", "server", "--url", mcp.url + "/mcp", "--scenario", scenario, "--spec-version", revision,
                "--expected-failures", str(BASELINE))
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
