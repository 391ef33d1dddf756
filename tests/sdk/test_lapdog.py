"""The Datadog test agent's `lapdog` records a session of a coding agent and forwards it here."""
import json
import os
import socket
import subprocess
import time
import urllib.request

import msgpack
import pytest

import support

PYTHON = support.HERE / ".venv-lapdog" / "bin" / "python"
SESSION = "lapdog-session"


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@pytest.fixture(scope="module")
def lapdog(local, home, tmp_path_factory):
    port = free_port()
    env = support.clean_environment(home)
    arguments = ["--port", str(port), "--otlp-http-port", str(free_port()), "--otlp-grpc-port", str(free_port()), "--agent-url", local.url]
    directory = tmp_path_factory.mktemp("lapdog")
    with open(directory / "log", "wb") as log:
        process = subprocess.Popen([str(PYTHON), "-m", "lapdog.server", *arguments], cwd=directory, env=env, stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 30
        while True:
            try:
                urllib.request.urlopen(url + "/info", timeout=5).read()
                break
            except OSError:
                assert process.poll() is None and time.monotonic() < deadline, (directory / "log").read_text()
                time.sleep(0.1)
        yield url
    finally:
        process.terminate()
        process.wait(10)
    text = (directory / "log").read_text()
    assert "Failed to forward" not in text and "Error trying to" not in text, text


def post(url, body, **headers):
    data = json.dumps(body).encode() if isinstance(body, dict) else body
    request = urllib.request.Request(url, data, {"Content-Type": "application/json", **headers})
    return urllib.request.urlopen(request, timeout=30).read()


def test_the_agent_is_found_valid(local):
    """The requests that the test agent sends before it forwards data."""
    with urllib.request.urlopen(local.url + "/evp_proxy/v2/api/v1/validate", timeout=10) as answer:
        assert json.load(answer) == {"valid": True}


def test_a_session_of_a_coding_agent(lapdog, local):
    def hook(name, **more):
        post(lapdog + "/claude/hooks", {"session_id": SESSION, "hook_event_name": name, **more})
    hook("SessionStart", model="some-model", cwd=os.sep + "project")
    hook("UserPromptSubmit", prompt="List the files")
    hook("PreToolUse", tool_name="Bash", tool_input={"command": "ls"}, tool_use_id="toolu_1")
    hook("PostToolUse", tool_name="Bash", tool_use_id="toolu_1", tool_response={"stdout": "a.txt"})
    hook("PreToolUse", tool_name="Read", tool_input={"file_path": "b.txt"}, tool_use_id="toolu_2")
    hook("PostToolUseFailure", tool_name="Read", tool_use_id="toolu_2", error="no such file")
    hook("Stop")
    spans = support.spans_of(local, "claude-code")
    assert [(s["span_kind"], s["status"]) for s in spans] == [("agent", "ok"), ("tool", "ok"), ("tool", "error")]
    root, bash, read = spans
    assert root["parent_id"] == "undefined" and {bash["parent_id"], read["parent_id"]} == {root["span_id"]}
    assert all(s["session_id"] == SESSION and "lapdog_forwarded:true" in s["tags"] for s in spans)
    assert bash["metadata"]["tool_id"] == "toolu_1" and read["error"]["message"] == "no such file"


def test_a_running_step_is_updated(lapdog, local):
    """Not compressed: the test agent decompresses bodies and forwards them truncated to the compressed length."""
    def send(path, **span):
        body = msgpack.packb({"_dd.stage": "raw", "event_type": "span", "spans": [{"trace_id": "ab" * 16, "span_id": "77", **span}]})
        post(lapdog + path, body, **{"Content-Type": "application/msgpack"})
    send("/evp_proxy/v2/api/v2/llmobs", name="inference-1", parent_id="undefined", start_ns=time.time_ns(), duration=-1, status="ok",
         tags=["ml_app:steps"], meta={"span": {"kind": "step"}, "input": {"value": "go"}}, metrics={"input_tokens": 3})
    (running,) = support.spans_of(local, "steps")
    assert (running["span_kind"], running["duration"]) == ("step", -1)
    send("/evp_proxy/v2/api/v2/llmobs/update", duration=5_000_000, meta={"output": {"value": "done"}}, metrics={"output_tokens": 4})
    (done,) = support.spans_of(local, "steps")
    assert (done["name"], done["span_kind"], done["duration"]) == ("inference-1", "step", 5_000_000)
    assert done["input"]["value"] == "go" and done["output"]["value"] == "done"
    assert done["metrics"] == {"input_tokens": 3, "output_tokens": 4}


@pytest.fixture(scope="module")
def inferences(lapdog, local):
    """Records a session of an agent that reports each inference: two model calls, a tool in the first. Returns the trace."""
    def hook(name, **more):
        post(lapdog + "/pi/hooks", {"session_id": "steps-session", "hook_event_name": name, **more})
    def usage(tokens):
        return {"input": tokens, "output": 5, "totalTokens": tokens + 5}
    question = {"role": "user", "content": "List the files"}
    call = {"type": "toolCall", "id": "call_1", "name": "bash", "arguments": {"command": "ls"}}
    hook("session_start", model_id="some-model", model_provider="someone", cwd=os.sep + "project")
    hook("agent_start", user_prompt=question["content"])
    hook("turn_start", turn_index=0)
    hook("message_start", system_prompt="You work in a shell.", messages=[question])
    hook("message_end", content=[{"type": "text", "text": "Let me look."}, call], usage=usage(20), stop_reason="toolUse")
    hook("tool_execution_start", tool_name="bash", tool_call_id="call_1", args=json.dumps(call["arguments"]))
    hook("tool_execution_end", tool_name="bash", tool_call_id="call_1", result="a.txt")
    hook("turn_end", turn_index=0)
    hook("turn_start", turn_index=1)
    hook("message_start", system_prompt="You work in a shell.", messages=[question])
    hook("message_end", content=[{"type": "text", "text": "There is a.txt."}], usage=usage(30), stop_reason="stop")
    hook("turn_end", turn_index=1)
    hook("agent_end", messages=[{"role": "assistant", "content": [{"type": "text", "text": "There is a.txt."}]}])
    traces = {span["trace_id"] for span in support.spans_of(local, "pi-coding-agent")}
    assert len(traces) == 1
    return traces.pop()


def tool(local, home, name, **arguments):
    return json.loads(support.over_call(local, home, name, arguments))


def test_steps_are_between_the_agent_and_its_calls(inferences, local, home):
    trace = tool(local, home, "get_llmobs_trace", trace_id=inferences, include_tree=True)
    assert trace["span_kinds"] == {"agent": 1, "step": 2, "llm": 2, "tool": 1}
    [agent] = trace["spans"]
    steps = [(step["name"], step["span_kind"], [child["span_kind"] for child in step["children"]]) for step in agent["children"]]
    assert steps == [("inference-0", "step", ["llm", "tool"]), ("inference-1", "step", ["llm"])]


def test_steps_are_found_and_counted_under_their_name(inferences, local, home):
    for filters in ({"span_kind": "step"}, {"query": "@meta.span.kind:step"}):
        found = tool(local, home, "search_llmobs_spans", trace_id=inferences, **filters)["spans"]
        assert sorted((span["name"], span["span_kind"]) for span in found) == [("inference-0", "step"), ("inference-1", "step")], filters
    groups = tool(local, home, "aggregate_llmobs_spans", ml_app="pi-coding-agent", group_by=["@meta.span.kind"])["groups"]
    assert {group["key"]["@meta.span.kind"]: group["count"] for group in groups} == {"agent": 1, "step": 2, "llm": 2, "tool": 1}
    trace = tool(local, home, "get_llmobs_trace", trace_id=inferences)
    [agent] = trace["spans"]
    expanded = tool(local, home, "expand_llmobs_spans", trace_id=inferences, span_ids=[agent["span_id"]], filter_kind="step")["spans"]
    assert [[child["span_kind"] for child in span["children"]] for span in expanded] == [["step", "step"]]
    [step] = tool(local, home, "get_llmobs_span_details", trace_id=inferences, span_ids=[expanded[0]["children"][0]["span_id"]])["spans"]
    assert (step["span_kind"], step["name"], step["parent_id"], step["session_id"]) == ("step", "inference-0", agent["span_id"], "steps-session")


def test_the_agent_loop_looks_through_steps(inferences, local, home):
    loop = tool(local, home, "get_llmobs_agent_loop", trace_id=inferences)
    first, second = loop["iterations"]
    assert [(call["name"], call["arguments"], call["result"]) for call in first["tool_calls"]] == [("bash", {"command": "ls"}, "a.txt")]
    assert second["content"] == "There is a.txt." and not second["tool_calls"]
    assert [(turn["input_tokens"], turn["output_tokens"]) for turn in (first, second)] == [(20, 5), (30, 5)]
    assert loop["totals"]["input_tokens"] == 50 and loop["totals"]["llm_calls"] == 2 and loop["totals"]["tool_calls"] == 1
