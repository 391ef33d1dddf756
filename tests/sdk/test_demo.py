"""The demo gives the answers that fixtures/README.md lists."""
import json

import pytest

import support

ANSWERS = json.loads((support.HERE / ".." / ".." / "fixtures" / "demo-answers.json").read_text(encoding="utf-8"))
WEEK = {"from": "now-8d"}


@pytest.fixture(scope="module")
def demo(home):
    with support.running(home / "demo", "demo", "--http", "127.0.0.1:0", "--listen", "127.0.0.1:0", health="/healthz", path="/mcp") as server:
        yield server


def ask(demo, tool, **arguments):
    return json.loads(support.over_http(demo, tool, {**WEEK, **arguments}))


def error_traces(demo, app, start):
    traces, cursor = set(), {}
    while True:
        page = ask(demo, "search_llmobs_spans", query="@status:error", ml_app=app, limit=500, **{"from": start}, **cursor)
        traces |= {s["trace_id"] for s in page["spans"]}
        if not page.get("next_cursor"):
            return traces
        cursor = {"cursor": page["next_cursor"]}


@pytest.mark.parametrize("app", ANSWERS["apps"])
def test_error_traces_per_app(app, demo):
    assert len(error_traces(demo, app, "now-8d")) == ANSWERS["apps"][app]["error_traces"]


@pytest.mark.parametrize("app", ANSWERS["apps"])
def test_the_default_window_has_fresh_data(app, demo):
    page = json.loads(support.over_http(demo, "search_llmobs_spans", {"ml_app": app, "root_spans_only": True}))
    assert page["spans"], "the newest data is minutes old"


@pytest.mark.parametrize("story", ANSWERS["stories"])
def test_each_scenario_is_in_the_data(story, demo):
    expected = ANSWERS["stories"][story]
    trace = ask(demo, "get_llmobs_trace", trace_id=expected["trace_id"])
    assert trace["total_spans"] == expected["spans"]
    errors = ask(demo, "find_llmobs_error_spans", trace_id=expected["trace_id"])
    assert errors["error_count"] == expected["error_spans"]
    origins = {s["span_id"] for s in errors["error_spans"] if s["is_origin"]}
    assert origins == {o["span_id"] for o in expected["origin"]}
    assert {s["span_id"] for s in expected["soft_errors"]} <= {s["span_id"] for s in errors["soft_errors"]}


def test_repeated_calls_are_visible_in_the_agent_loop(demo):
    circle = ANSWERS["identical_tool_calls"][0]
    loop = ask(demo, "get_llmobs_agent_loop", trace_id=circle["trace_id"], max_content_length=200, max_tokens=20000)
    calls = [json.dumps([c["name"], c["arguments"]], sort_keys=True) for i in loop["iterations"] for c in i.get("tool_calls") or []]
    assert max(calls.count(c) for c in calls) == circle["identical_calls"]
