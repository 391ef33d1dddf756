"""Datadog's JavaScript SDK, npm `dd-trace`: flat dotted keys, children sent before their parents, empty sides."""
import json
import subprocess

import pytest

import support
from test_node import BIN

MODES = ("agentless", "agent")


@pytest.fixture(scope="module")
def js(local, home):
    """The ids that the SDK sent, by mode."""
    def send(mode):
        env = support.sdk_environment(mode, local, home)
        env.pop("DD_LLMOBS_AGENTLESS_ENABLED")
        env.pop("DD_APM_TRACING_ENABLED", None)
        env["RECEIVER"] = local.url
        if mode == "agentless":
            env.update(DD_LLMOBS_AGENTLESS_ENABLED="1", DD_SITE="datadoghq.com")
        done = subprocess.run([str(BIN / "node"), str(support.HERE / "apps" / "js_app.js")], env=env, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0 and "Error sending" not in done.stdout + done.stderr, done.stdout + done.stderr
        return json.loads(done.stdout)
    return {mode: send(mode) for mode in MODES}


@pytest.mark.parametrize("mode", MODES)
def test_the_whole_trace_arrives(mode, js, local, home):
    app = js[mode]
    spans = support.spans_of(local, app["app"])
    assert {s["name"]: s["span_kind"] for s in spans} == {"weather_agent": "agent", "chat": "llm", "weather": "tool", "search": "retrieval", "nothing": "task"}
    named = {key: {"traceId": s["trace_id"], "spanId": s["span_id"]} for s in spans for key, sent in app["ids"].items() if sent["spanId"] == s["span_id"]}
    assert named == app["ids"]
    by_name = {s["name"]: s for s in spans}
    root = by_name["weather_agent"]
    assert root["parent_id"] == "undefined" and root["session_id"] == "js-session"
    assert all(s["parent_id"] == root["span_id"] for s in spans if s is not root)
    assert not any("collection_errors" in s for s in spans)
    chat = by_name["chat"]
    assert chat["input"]["messages"] == [{"role": "user", "content": "Weather in Zürich? ☔"}]
    assert chat["output"]["messages"][0]["tool_calls"] == [{"name": "weather", "arguments": {"city": "Zürich"}, "tool_id": "call_1", "type": "function"}]
    assert chat["metrics"] == {"input_tokens": 12, "output_tokens": 7, "total_tokens": 19}
    assert chat["evaluation"]["helpful"]["value"] == 0.25
    tool = by_name["weather"]
    assert tool["status"] == "error" and tool["error"]["message"] == "weather service timed out" and "js_app.js" in tool["error"]["stack"]
    assert by_name["search"]["output"]["documents"] == [{"text": "Take a coat.", "name": "rain.md", "id": "d1", "score": 0.5}]
    assert not by_name["nothing"].get("input") and not by_name["nothing"].get("output")


def test_the_tools_read_the_trace(js, mcp):
    app = js["agent"]
    loop = json.loads(support.over_http(mcp, "find_llmobs_error_spans", {"trace_id": app["ids"]["tool"]["traceId"]}))
    assert loop["error_spans"][0]["span_id"] == app["ids"]["tool"]["spanId"]
