"""OpenTelemetry's exporters over HTTP: gzip protobuf with hand-written, OpenInference and OpenLLMetry spans; JSON from Node."""
import json
import subprocess
import sys

import pytest

import support
from test_node import BIN

SOURCES = ("by_hand", "openinference", "openllmetry")
CALL = [{"name": "weather", "arguments": {"city": "Zürich"}, "tool_id": "call_1", "type": "function"}]


@pytest.fixture(scope="module")
def otlp(home, tmp_path_factory):
    """A backend with an OTLP listener, and the ids that were sent to it."""
    with support.local(home, tmp_path_factory.mktemp("otlp"), "--otlp-listen", "127.0.0.1:0") as api:
        port = api.ports()[1]
        for source in SOURCES:
            # One through each listener.
            base = api.url if source == "openinference" else f"http://127.0.0.1:{port}"
            env = support.clean_environment(home)
            env.update(OTLP_ENDPOINT=base + "/v1/traces", TRACELOOP_TELEMETRY="false")
            done = subprocess.run([sys.executable, str(support.HERE / "apps" / "otel_app.py"), source], env=env, capture_output=True, text=True, timeout=60)
            assert done.returncode == 0 and "Failed to export" not in done.stderr, done.stderr
        yield api


@pytest.fixture(scope="module")
def json_sent(otlp, home):
    """The ids that the exporter for Node sent, as JSON with chunked transfer encoding."""
    env = {**support.clean_environment(home), "OTLP_ENDPOINT": otlp.url + "/v1/traces"}
    done = subprocess.run([str(BIN / "node"), str(support.HERE / "apps" / "otel_json_app.js")], env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and not done.stderr, done.stderr
    return json.loads(done.stdout)


def test_spans_written_by_hand(otlp):
    agent, chat, tool = support.spans_of(otlp, "otel-by_hand")
    assert [s["span_kind"] for s in (agent, chat, tool)] == ["agent", "llm", "tool"]
    # Spans of the web server are not stored; parent links lead across them.
    assert agent["parent_id"] == "undefined" and agent["session_id"] == "conv-1"
    assert chat["parent_id"] == tool["parent_id"] == agent["span_id"]
    assert chat["input"]["messages"] == [{"role": "user", "content": "Weather?"}]
    assert chat["output"]["messages"][0]["tool_calls"] == [{**CALL[0], "tool_id": "c1"}]
    assert tool["name"] == "weather" and tool["input"]["value"] == '{"city":"Zürich"}' and tool["metadata"]["tool_call_id"] == "c1"
    assert tool["error"]["type"] == "TimeoutError" and tool["error"]["message"] == "weather service timed out"
    assert tool["span_links"] == [{"span_id": chat["span_id"], "trace_id": chat["trace_id"], "attributes": {"from": "output", "to": "input"}}]
    assert len(agent["trace_id"]) == 32 and agent["span_id"].isdigit()


def test_json_keeps_all_digits_of_ids_and_times(json_sent, otlp):
    spans = {s["span_kind"]: s for s in support.spans_of(otlp, json_sent["app"])}
    assert sorted(spans) == ["agent", "llm", "tool"]
    for kind, key in (("agent", "agent"), ("llm", "chat"), ("tool", "tool")):
        sent, span = json_sent["sent"][key], spans[kind]
        assert (span["trace_id"], span["span_id"]) == (sent["traceId"], str(int(sent["spanId"], 16)))
        assert (span["start_ns"], span["duration"]) == (int(sent["start"]), sent["duration"])
    agent = spans["agent"]
    assert agent["span_id"] == "18364758544493064721" and agent["parent_id"] == "undefined" and agent["session_id"] == "conv-js"
    assert spans["llm"]["parent_id"] == spans["tool"]["parent_id"] == agent["span_id"]
    assert {"service:otel-json", "env:test"} <= set(agent["tags"])


def test_json_is_mapped_as_protobuf_is(json_sent, otlp):
    spans = {s["span_kind"]: s for s in support.spans_of(otlp, json_sent["app"])}
    chat, tool = spans["llm"], spans["tool"]
    assert (chat["name"], chat["model_name"], chat["model_provider"], chat["status"]) == ("chat gpt-4.1", "gpt-4.1-2026", "openai", "ok")
    assert chat["input"]["messages"] == [{"role": "user", "content": "Weather in Zürich? ☔"}]
    assert chat["output"]["messages"][0]["content"] == "Let me look." and chat["output"]["messages"][0]["tool_calls"] == [{**CALL[0], "tool_id": "c1"}]
    assert (chat["metrics"]["input_tokens"], chat["metrics"]["output_tokens"]) == (12, 7)
    assert chat["metadata"]["temperature"] == 0.5 and chat["metadata"]["finish_reasons"] == ["tool_calls"]
    assert (tool["name"], tool["status"], tool["input"]["value"], tool["metadata"]["tool_call_id"]) == ("weather", "error", '{"city":"Zürich"}', "c1")
    assert tool["error"]["type"] == "TypeError" and tool["error"]["message"] == "no such city" and "otel_json_app.js" in tool["error"]["stack"]


@pytest.mark.parametrize("source, tokens", [("openinference", ("prompt_tokens", "completion_tokens")), ("openllmetry", ("input_tokens", "output_tokens"))])
def test_instrumentations(source, tokens, otlp):
    agent, first, second, failed = support.spans_of(otlp, f"otel-{source}")
    assert agent["span_kind"] == "agent" and {s["span_kind"] for s in (first, second, failed)} == {"llm"}
    assert first["model_name"] == "gpt-4.1-2026" and first["model_provider"] == "openai"
    assert first["input"]["messages"] == [{"role": "user", "content": "Weather in Zürich?"}]
    assert first["output"]["messages"][0]["tool_calls"] == CALL
    assert first["tool_definitions"][0]["name"] == "weather" and first["metadata"]["temperature"] == 0.5
    assert [first["metrics"][t] for t in tokens] == [12, 7] and first["metrics"]["total_tokens"] == 19
    results = [r for m in second["input"]["messages"] for r in m.get("tool_results", [])]
    assert [(r["tool_id"], r["result"]) for r in results] == [("call_1", "18")]
    assert second["output"]["messages"][0]["content"] == "18 degrees ☀"
    assert failed["status"] == "error" and "the model is down" in failed["error"]["message"] and failed["error"]["stack"]


def test_the_tools_read_json_spans(json_sent, otlp, home):
    sent = json_sent["sent"]
    loop = json.loads(support.over_call(otlp, home, "get_llmobs_agent_loop", {"trace_id": sent["agent"]["traceId"]}))
    [turn] = loop["iterations"]
    assert turn["span_id"] == str(int(sent["chat"]["spanId"], 16)) and (turn["input_tokens"], turn["output_tokens"]) == (12, 7)
    assert [(call["name"], call["arguments"]) for call in turn["tool_calls"]] == [("weather", {"city": "Zürich"})]


def test_the_agent_loop_is_recognised(otlp, home):
    agent = support.spans_of(otlp, "otel-openllmetry")[0]
    loop = json.loads(support.over_call(otlp, home, "get_llmobs_agent_loop", {"trace_id": agent["trace_id"]}))
    assert len(loop["iterations"]) == 3
