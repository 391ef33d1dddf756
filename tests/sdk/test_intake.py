"""Hand-written requests of the documented HTTP API: spans, and evaluations in version 1 of the intake; the SDK sends version 2."""
import json
import time
import urllib.error
import urllib.request

import pytest

import support

APP = "http-app"
TRACE = "0af7651916cd43dd8448eb211c80319c"
# The largest id, the first integer that a double cannot represent, and an id that is not a number.
ROOT, CHAT, SEARCH = "18446744073709551615", "9007199254740993", "search-1"
V1, V2 = ("/api/intake/llm-obs/v1/eval-metric", "/api/intake/llm-obs/v2/eval-metric")
COSTS = {"input_cost": 0.000123, "output_cost": 0.0004, "total_cost": 0.000523}


def post(api, path, body):
    request = urllib.request.Request(api.url + path, json.dumps(body).encode(), {"Content-Type": "application/json", "DD-API-KEY": "none"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return answer.status, answer.read()


def spans_body(start):
    chat = {"kind": "llm", "model_name": "gpt-4.1", "model_provider": "openai", "metadata": {"temperature": 0.5, "stream": True},
            "input": {"messages": [{"role": "system", "content": "You answer."}, {"role": "user", "content": "Reset? ☔"}]},
            "output": {"messages": [{"role": "assistant", "content": "Hold the button."}]}}
    search = {"kind": "retrieval", "input": {"value": "reset"}, "output": {"documents": [{"name": "reset.md", "id": "d1", "text": "Hold.", "score": 0.5}]},
              "error": {"message": "index is stale", "type": "StaleIndex", "stack": "at search"}}
    return {"data": {"type": "span", "attributes": {"ml_app": APP, "session_id": "session-1", "tags": ["env:prod", "service:web"], "spans": [
        {"name": "ask", "span_id": ROOT, "trace_id": TRACE, "parent_id": "undefined", "start_ns": start, "duration": 5_000_000_123, "meta": {"kind": "agent", "input": {"value": "Reset?"}, "output": {"value": "Hold."}}},
        {"name": "chat", "span_id": CHAT, "trace_id": TRACE, "parent_id": ROOT, "start_ns": start + 1, "duration": 1_234_567.0, "tags": ["tier:gold"], "meta": chat,
         "metrics": {"input_tokens": 10, "output_tokens": 5, "total_tokens": 15, "time_to_first_token": 0.25, **COSTS}},
        {"name": "search", "span_id": SEARCH, "trace_id": TRACE, "parent_id": ROOT, "start_ns": start + 2, "duration": 1, "status": "error", "session_id": "session-2", "meta": search}]}}}


@pytest.fixture(scope="module")
def api(home, tmp_path_factory):
    with support.local(home / "intake", tmp_path_factory.mktemp("intake")) as api:
        yield api


@pytest.fixture(scope="module")
def start(api):
    """The start times of the stored spans."""
    start = time.time_ns() - 60_000_000_000
    assert post(api, "/api/intake/llm-obs/v1/trace/spans", spans_body(start)) == (202, b"")
    return start


@pytest.fixture(scope="module")
def tool(api, home):
    return lambda name, **arguments: json.loads(support.over_call(api, home, name, arguments))


@pytest.fixture(scope="module")
def spans(start, tool):
    answer = tool("get_llmobs_span_details", trace_id=TRACE, span_ids=[ROOT, CHAT, SEARCH])
    assert "missing_span_ids" not in answer
    return {span["span_id"]: span for span in answer["spans"]}


def test_ids_and_times_are_unchanged(start, api, spans):
    assert list(spans) == [ROOT, CHAT, SEARCH]
    assert {span["trace_id"] for span in spans.values()} == {TRACE}
    assert spans[ROOT]["parent_id"] == "undefined" and spans[ROOT]["children_ids"] == [CHAT, SEARCH]
    assert [spans[span]["parent_id"] for span in (CHAT, SEARCH)] == [ROOT, ROOT]
    assert {span["start_ms"] for span in spans.values()} == {start // 1_000_000, (start + 2) // 1_000_000}
    assert [spans[span]["duration_ms"] for span in (ROOT, CHAT, SEARCH)] == [5000.0, 1.235, 0.0], "rounded for the reader"
    exact = {span["span_id"]: (span["start_ns"], span["duration"]) for span in support.spans_of(api, APP)}
    assert exact == {ROOT: (start, 5_000_000_123), CHAT: (start + 1, 1_234_567), SEARCH: (start + 2, 1)}


def test_attributes_of_a_span_override_those_of_the_request(spans):
    assert {(span["ml_app"], span["service"]) for span in spans.values()} == {(APP, "web")}
    assert [spans[span]["session_id"] for span in (ROOT, CHAT, SEARCH)] == ["session-1", "session-1", "session-2"]
    assert all("env:prod" in span["tags"] for span in spans.values())
    assert [span for span in spans if "tier:gold" in spans[span]["tags"]] == [CHAT]


def test_kinds_content_and_errors(spans, tool):
    assert [(span["span_kind"], span["status"]) for span in spans.values()] == [("agent", "ok"), ("llm", "ok"), ("retrieval", "error")]
    assert spans[SEARCH]["error"] == {"type": "StaleIndex", "message": "index is stale", "stack": "at search"}
    read = lambda span, field: tool("get_llmobs_span_content", trace_id=TRACE, span_id=span, field=field)["content"]
    assert [(message["role"], message["content"]) for message in read(CHAT, "messages")] == [("system", "You answer."), ("user", "Reset? ☔"), ("assistant", "Hold the button.")]
    assert read(CHAT, "metadata") == {"temperature": 0.5, "stream": True}
    assert read(SEARCH, "documents") == [{"text": "Hold.", "name": "reset.md", "id": "d1", "score": 0.5}]
    assert (read(ROOT, "input"), read(ROOT, "output")) == ("Reset?", "Hold.")


def test_costs_and_tokens_are_exact_everywhere(spans, tool):
    assert spans[CHAT]["metrics"] == {"input_tokens": 10, "output_tokens": 5, "total_tokens": 15, "time_to_first_token": 0.25, **COSTS}
    loop = tool("get_llmobs_agent_loop", trace_id=TRACE)
    assert [turn["total_cost"] for turn in loop["iterations"]] == [0.000523] and loop["totals"]["total_cost"] == 0.000523
    sums = tool("aggregate_llmobs_spans", ml_app=APP, unit="trace", group_by=["env"], measures=["count", "cost.sum", "total_tokens.sum", "failure_rate"])["total"]
    assert (sums["count"], sums["cost.sum"], sums["total_tokens.sum"], sums["failure_rate"]) == (1, 0.000523, 15, 0)


def test_an_incomplete_span_is_named_in_the_error(api):
    with pytest.raises(urllib.error.HTTPError) as refused:
        post(api, "/api/intake/llm-obs/v1/trace/spans", {"data": {"type": "span", "attributes": {"ml_app": APP, "spans": [{"name": "no ids", "start_ns": 1, "duration": 1, "meta": {"kind": "llm"}}]}}})
    assert refused.value.code == 400
    detail = json.load(refused.value)["errors"][0]["detail"]
    assert "span 0" in detail and "_id" in detail


def test_both_versions_of_the_evaluation_intake(start, api, home, tool):
    """Version 1 names the span beside the value, version 2 in `join_on`."""
    now = time.time_ns() // 1_000_000
    about = {"span_id": CHAT, "trace_id": TRACE, "ml_app": APP, "timestamp_ms": now}
    first = [{**about, "label": "v1_score", "metric_type": "score", "score_value": 0.75, "tags": ["judge:v1"]},
             {**about, "label": "v1_tone", "metric_type": "categorical", "categorical_value": "calm"}]
    status, answer = post(api, V1, {"data": {"type": "evaluation_metric", "attributes": {"metrics": first}}})
    data = json.loads(answer)["data"]
    echoed = data["attributes"]["metrics"]
    assert status == 202 and data["type"] == "evaluation_metric"
    assert all(len(metric.pop("id")) == 10 for metric in echoed) and echoed == first
    second = [{"label": "v2_json", "metric_type": "json", "json_value": {"found": 2}, "ml_app": APP, "timestamp_ms": now, "join_on": {"span": {"span_id": CHAT, "trace_id": TRACE}},
               "assessment": "fail", "reasoning": "one is missing"}]
    assert post(api, V2, {"data": {"type": "evaluation_metric", "attributes": {"metrics": second}}})[0] == 202
    span = {"span_id": CHAT, "trace_id": TRACE}
    by_sdk = [{"label": "sdk_ok", "metric_type": "boolean", "value": True, "span": span, "ml_app": APP, "assessment": "pass", "reasoning": "it is there"},
              {"label": "sdk_score", "metric_type": "score", "value": 3, "span_with_tag_value": {"tag_key": "tier", "tag_value": "gold"}, "ml_app": APP}]
    assert support.run_app("evaluate_app.py", "agentless", api, home, by_sdk) == {"submitted": 2}

    [chat] = tool("get_llmobs_span_details", trace_id=TRACE, span_ids=[CHAT])["spans"]
    values = {label: evaluation["value"] for label, evaluation in chat["evaluations"].items()}
    assert values == {"v1_score": 0.75, "v1_tone": "calm", "v2_json": {"found": 2}, "sdk_ok": True, "sdk_score": 3}
    assert (chat["evaluations"]["v2_json"]["assessment"], chat["evaluations"]["sdk_ok"]["reasoning"]) == ("fail", "it is there")
    assert chat["evaluations"]["v1_score"]["tags"] == ["judge:v1"]
    for query in ("@evaluation.v1_score.value:>0.7", "@evaluation.v1_tone.value:calm", "@evaluation.v2_json.value.found:2", "@evaluation.sdk_ok.assessment:pass", "@evaluation.sdk_score.value:3"):
        assert [found["span_id"] for found in tool("search_llmobs_spans", ml_app=APP, query=query)["spans"]] == [CHAT], query


@pytest.mark.parametrize("path", (V1, V2))
def test_an_evaluation_without_a_target_is_refused_in_both_versions(path, api):
    metric = {"label": "lost", "metric_type": "score", "score_value": 1, "ml_app": APP, "timestamp_ms": time.time_ns() // 1_000_000}
    with pytest.raises(urllib.error.HTTPError) as refused:
        post(api, path, {"data": {"type": "evaluation_metric", "attributes": {"metrics": [metric]}}})
    assert refused.value.code == 400
    assert "join_on" in json.load(refused.value)["errors"][0]["detail"]
