"""The seven tools on data that the SDK sent: correct, and equal bytes over stdio, over HTTP and with `call`."""
import json
import math
import re
import time
import urllib.request

import pytest

import support

SEVEN = {"search_llmobs_spans", "get_llmobs_trace", "get_llmobs_span_details", "get_llmobs_span_content",
         "find_llmobs_error_spans", "expand_llmobs_spans", "get_llmobs_agent_loop"}


# Information that is missing if a site returns documented attributes only and that no other endpoint has: by tool, the key that is missing or says less.
DOCUMENTED_GAPS = {
    # The trace of the APM tracer.
    ("search_llmobs_spans", "spans[].apm_trace_id"), ("get_llmobs_span_details", "spans[].apm_trace_id"),
    # Documents are read on request; without that a retrieval does not show whether it found any.
    ("search_llmobs_spans", "spans[].output of retrieval"), ("get_llmobs_trace", "spans[].children[].has_output of retrieval"),
    ("expand_llmobs_spans", "spans[].children[].has_output of retrieval"),
    # The prompt in the registry.
    ("get_llmobs_span_details", "spans[].prompt"),
    # The time of an evaluation, user feedback, and collection errors.
    ("get_llmobs_span_details", "spans[].evaluations.*.timestamp_ms"), ("get_llmobs_span_details", "spans[].feedback"), ("get_llmobs_span_details", "spans[].collection_errors")}


@pytest.fixture(params=support.MODES)
def app(request, sent):
    return sent[request.param]


def window(app):
    return {"from": app["from"], "to": app["to"]}


def on(app, trace, **more):
    return {"trace_id": app["traces"][trace], **window(app), **more}


def nodes(tree):
    """Every node of a tree answer."""
    for node in tree:
        yield node
        yield from nodes(node.get("children") or [])


def by_id(spans):
    return {s["span_id"]: s for s in spans}


def test_the_sdk_finds_an_agent(info):
    assert "/evp_proxy/v2/" in info["endpoints"] and "/v0.4/traces" in info["endpoints"]


def test_search_finds_every_span_of_the_app_and_of_no_other(app, call):
    answer = call("search_llmobs_spans", {"ml_app": app["app"], "limit": 100, **window(app)})
    assert len(answer["spans"]) == sum(app["counts"].values())
    assert {s["ml_app"] for s in answer["spans"]} == {app["app"]}
    starts = [s["start_ms"] for s in answer["spans"]]
    assert starts == sorted(starts, reverse=True), "newest first"
    assert answer.get("next_cursor") is None


def test_search_combines_all_filters(app, call):
    answer = call("search_llmobs_spans", {"query": "@status:ok", "ml_app": app["app"], "tags": {"env": "test"}, "root_spans_only": True, **window(app)})
    assert {s["name"] for s in answer["spans"]} == {"handle_ticket", "ask_manual"}
    session = call("search_llmobs_spans", {"tags": {"session_id": app["session"]}, "root_spans_only": True, **window(app)})
    assert [s["span_id"] for s in session["spans"]] == [app["spans"]["root"]]


def test_search_pages_contain_every_span_once(app, call):
    seen, arguments = [], {"ml_app": app["app"], "limit": 4, **window(app)}
    for _ in range(20):
        page = call("search_llmobs_spans", arguments)
        seen += [s["span_id"] for s in page["spans"]]
        if not page.get("next_cursor"):
            break
        arguments["cursor"] = page["next_cursor"]
    assert len(seen) == len(set(seen)) == sum(app["counts"].values())


def test_an_empty_search_says_why(app, call):
    answer = call("search_llmobs_spans", {"ml_app": app["app"], "span_kind": "embedding", **window(app)})
    assert answer["spans"] == [] and answer["why_empty"]


def test_trace_shows_the_tree(app, call):
    answer = call("get_llmobs_trace", on(app, "loop", include_tree=True))
    assert answer["total_spans"] == app["counts"]["loop"] and answer["tree_depth"] == 3
    assert answer["span_kinds"] == {"workflow": 1, "agent": 1, "llm": 3, "tool": 2}
    assert answer["error_count"] == 0 and answer["has_errors"] is False
    (root,) = answer["spans"]
    assert root["span_id"] == app["spans"]["root"] and root["name"] == "handle_ticket"
    (agent,) = root["children"]
    assert [n["span_id"] for n in agent["children"]] == [app["spans"][k] for k in ("llm_1", "tool_soft", "llm_2", "tool_ok", "llm_3")]


def test_details_contain_evaluations_sent_before_and_after_the_span(app, call):
    ids = app["spans"]
    answer = call("get_llmobs_span_details", on(app, "loop", span_ids=[ids["root"], ids["llm_3"], ids["tool_ok"], "42"]))
    spans = by_id(answer["spans"])
    assert answer["missing_span_ids"] == ["42"]
    root = spans[ids["root"]]
    assert root["evaluations"]["early"]["value"] == 0.25 and root["evaluations"]["early"]["assessment"] == "fail"
    assert root["evaluations"]["resolved"]["value"] is True, "joined by tag"
    assert root["children_ids"] == [ids["agent"]] and root["session_id"] == app["session"] and root["error"] is None
    llm = spans[ids["llm_3"]]
    assert llm["evaluations"]["faithfulness"]["value"] == 0.9 and llm["evaluations"]["faithfulness"]["reasoning"] == "grounded"
    assert llm["llm_info"]["model_name"] == "gpt-4.1" and llm["llm_info"]["total_tokens"] == 120 and llm["metrics"]["cache_read_input_tokens"] == 64
    assert llm["content_info"]["messages"]["count"] == 7
    assert "messages" not in spans[ids["tool_ok"]]["content_info"]


def test_content_applies_the_path_before_it_cuts(app, call):
    llm = on(app, "loop", span_id=app["spans"]["llm_3"], field="messages")
    whole = call("get_llmobs_span_content", llm)
    assert len(whole["content"]) == 7 and whole["content"][0]["role"] == "system"
    last = call("get_llmobs_span_content", {**llm, "path": "$.messages[-1]", "max_tokens": 200})
    assert last["content"]["content"] == "Refunded 49.90 EUR."
    assert last["total_tokens_approx"] == whole["total_tokens_approx"]
    assert [m["role"] for m in call("get_llmobs_span_content", {**llm, "path": "$.[-2:]"})["content"]] == ["tool", "assistant"]
    assert call("get_llmobs_span_content", {**llm, "path": "$[1].content"})["content"] == "Please refund order A-17 🙏"


def test_content_reaches_every_field(app, call):
    documents = call("get_llmobs_span_content", on(app, "rag", span_id=app["spans"]["retrieval"], field="documents", path="$[*].name"))
    assert documents["content"] == ["reset.md", "led.md"]
    metadata = call("get_llmobs_span_content", on(app, "loop", span_id=app["spans"]["root"], field="metadata"))
    assert metadata["content"]["channel"] == "chat"
    output = call("get_llmobs_span_content", on(app, "loop", span_id=app["spans"]["tool_soft"], field="output"))
    assert "order service is read-only" in json.dumps(output["content"])


def test_content_explains_an_invalid_path(app, mcp):
    with pytest.raises(support.ToolFailure) as failure:
        support.over_http(mcp, "get_llmobs_span_content", on(app, "loop", span_id=app["spans"]["llm_1"], field="messages", path="$.messages["))
    error = json.loads(str(failure.value))
    assert error["error"] and error["hint"] and error["example"]


def test_error_spans_separate_origin_from_propagation(app, call):
    answer = call("find_llmobs_error_spans", on(app, "error"))
    ids, spans = app["spans"], by_id(answer["error_spans"])
    assert answer["error_count"] == 3 and set(spans) == {ids["error_root"], ids["error_agent"], ids["error_tool"]}
    origin = spans[ids["error_tool"]]
    assert origin["is_origin"] is True and origin["error"]["message"] == "inventory service timed out for X1"
    assert origin["error"]["type"].endswith("UpstreamTimeout") and "raise UpstreamTimeout" in origin["error"]["stack"]
    assert [spans[ids[k]]["is_origin"] for k in ("error_agent", "error_root")] == [False, False]
    assert len(origin["ancestors"]) == 2
    assert answer["by_kind"]["tool"] == [ids["error_tool"]]


def test_error_spans_show_soft_errors(app, call):
    answer = call("find_llmobs_error_spans", on(app, "loop"))
    assert answer["error_count"] == 0
    (soft,) = answer["soft_errors"]
    assert soft["span_id"] == app["spans"]["tool_soft"] and "isError" in soft["evidence"]["path"] and soft["evidence"]["value"] is True


def test_expand_keeps_the_path_to_matching_spans(app, call):
    answer = call("expand_llmobs_spans", on(app, "loop", span_ids=[app["spans"]["root"]], max_depth=2, filter_kind="tool"))
    shown = {n["span_id"] for n in nodes(answer["spans"])}
    assert {app["spans"]["tool_soft"], app["spans"]["tool_ok"], app["spans"]["agent"]} <= shown
    assert app["spans"]["llm_1"] not in shown


def test_agent_loop_pairs_calls_with_results(app, call):
    answer = call("get_llmobs_agent_loop", on(app, "loop"))
    assert answer["agent_name"] == "refund_agent" and answer["total_iterations"] == 3
    first, second, third = answer["iterations"]
    assert [i["span_id"] for i in (first, second, third)] == [app["spans"][k] for k in ("llm_1", "llm_2", "llm_3")]
    assert [c["name"] for c in first["tool_calls"]] == ["lookup_order"] and "read-only" in json.dumps(first["tool_calls"][0]["result"])
    assert second["tool_calls"][0]["arguments"] == {"order_id": "A-17"} and "refunded" in json.dumps(second["tool_calls"][0]["result"])
    assert not third.get("tool_calls") and third["content"] == "Refunded 49.90 EUR."
    assert [i["input_tokens"] for i in answer["iterations"]] == [100, 100, 100]
    assert [e["role"] for e in answer["timeline"]][:3] == ["system", "user", "assistant"]


def test_span_ids_may_be_an_array_or_text(sent, call):
    app = sent["agentless"]
    ids = [app["spans"]["llm_1"], app["spans"]["llm_2"]]
    answers = [call("get_llmobs_span_details", on(app, "loop", span_ids=form)) for form in (ids, json.dumps(ids), ",".join(ids))]
    assert answers[0] == answers[1] == answers[2] and len(answers[0]["spans"]) == 2


def test_an_unknown_trace_is_a_404(app, mcp):
    with pytest.raises(support.ToolFailure, match="no spans found for trace") as failure:
        support.over_http(mcp, "get_llmobs_trace", {"trace_id": "0" * 32, **window(app)})
    assert json.loads(str(failure.value))["status"] == 404


def test_durations_equal_those_of_the_sdk(app, call):
    (root,) = call("get_llmobs_trace", on(app, "error"))["spans"]
    assert root["status"] == "error" and 0 < root["duration_ms"] < 60_000 and not math.isnan(root["duration_ms"])


def test_a_new_evaluation_is_visible_within_30_seconds(sent, local, mcp):
    """Evaluations come minutes to days after their trace; a cached trace must not hide them."""
    app = sent["evp_v2"]
    arguments = on(app, "loop", span_ids=[app["spans"]["agent"]])
    before = json.loads(support.over_http(mcp, "get_llmobs_span_details", arguments))["spans"][0]
    assert "late" not in (before.get("evaluations") or {})
    metric = {"event_kind": "evaluation", "label": "late", "metric_type": "categorical", "categorical_value": "fine", "ml_app": app["app"], "timestamp_ms": int(time.time() * 1000),
              "join_on": {"span": {"trace_id": app["traces"]["loop"], "span_id": app["spans"]["agent"]}}}
    body = json.dumps({"data": {"type": "evaluation_metric", "attributes": {"metrics": [metric]}}}).encode()
    with urllib.request.urlopen(urllib.request.Request(local.url + "/api/intake/llm-obs/v2/eval-metric", body, {"Content-Type": "application/json"}), timeout=10) as answer:
        assert answer.status == 202
    deadline = time.monotonic() + 31
    while time.monotonic() < deadline:
        after = json.loads(support.over_http(mcp, "get_llmobs_span_details", arguments))["spans"][0]
        if (after.get("evaluations") or {}).get("late", {}).get("value") == "fine":
            return
        time.sleep(1)
    raise AssertionError("not seen within 30 seconds")


def differences(one, other, path=""):
    """The keys in which two answers differ, independent of the position in a list, the depth in a tree and the label of an evaluation; outputs with the span kind."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in one.keys() | other.keys():
            kind = f" of {one['span_kind']}" if key in ("output", "has_output") and "span_kind" in one else ""
            yield from differences(one.get(key), other.get(key), f"{path}.{key}{kind}".lstrip("."))
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for ours, theirs in zip(one, other):
            yield from differences(ours, theirs, path + "[]")
    elif one != other:
        yield re.sub(r"evaluations\.[^.]+", "evaluations.*", re.sub(r"(\.children\[])+", ".children[]", path))


def everything(mcp, traces, window, fields):
    """The answers of the seven tools for all traces. `fields` names the fields to read of each span; spans that are missing in it are added."""
    def ask(tool, **arguments):
        answers.setdefault(tool, []).append(json.loads(support.over_http(mcp, tool, {**arguments, **window})))
        return answers[tool][-1]
    answers = {}
    for trace in traces:
        ids = [span["span_id"] for span in ask("search_llmobs_spans", trace_id=trace, limit=100)["spans"]]
        roots = [span["span_id"] for span in ask("get_llmobs_trace", trace_id=trace, include_tree=True)["spans"]]
        for span in ask("get_llmobs_span_details", trace_id=trace, span_ids=ids, max_tokens=20_000)["spans"]:
            for field in fields.setdefault(span["span_id"], sorted(span["content_info"])):
                ask("get_llmobs_span_content", trace_id=trace, span_id=span["span_id"], field=field)
        ask("find_llmobs_error_spans", trace_id=trace)
        ask("expand_llmobs_spans", trace_id=trace, span_ids=roots, max_depth=5)
        ask("get_llmobs_agent_loop", trace_id=trace)
    return answers


BY_HAND = "5b8efff798038103d269b633813fc60c"


def send_by_hand(api, **more):
    """Sends a run of an experiment's task with a model call that has attributes which the application does not send."""
    span = {"trace_id": BY_HAND, "start_ns": time.time_ns(), "duration": 1000, "tags": ["ml_app:by-hand"]}
    call = {**span, "span_id": "78", "parent_id": "77", "name": "prompted", "status": "error", "collection_errors": ["dropped_io"],
            "meta": {"span": {"kind": "llm"}, "model_name": "m", "input": {"messages": [{"role": "user", "content": "Hi"}], "prompt": {"id": "greeting", "version": "3", "template": "Hi"}},
                     "error": {"message": "cut off", "type": "Cut", "stack": "at model"}, **more}}
    task = {**span, "span_id": "77", "parent_id": "undefined", "name": "task", "status": "ok", "meta": {"span": {"kind": "experiment"}, "input": {"q": 1}, "output": [2], "expected_output": {"a": 3}}}
    body = json.dumps({"_dd.stage": "raw", "event_type": "span", "spans": [task, call]}).encode()
    urllib.request.urlopen(urllib.request.Request(api.url + "/api/v2/llmobs", body, {"Content-Type": "application/json"}), timeout=10).close()


def test_documented_attributes_suffice_except_for_listed_gaps(home, tmp_path):
    """A site may return documented attributes only. On the same data the tools give the same answers, with gaps filled from other endpoints."""
    answers, fields = [], {}
    for flags in ([], ["--documented-only"]):
        start = support.double if flags else support.local
        with start(home / "documented", tmp_path / "store", *flags) as api:
            if not flags:
                apps = [support.run_app("agent_app.py", mode, api, home) for mode in ("agentless", "apm")]
                judged = support.run_app("evaluator_app.py", "agentless", api, home)
                send_by_hand(api)
                traces = [*(trace for app in apps for trace in app["traces"].values()), judged["trace"], BY_HAND]
                window = {"from": apps[0]["from"], "to": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 60))}
            with support.serve_http(home / "documented", api) as mcp:
                answers.append(everything(mcp, traces, window, fields))
    whole, documented = answers
    assert set(whole) == set(documented) == SEVEN and len(whole["get_llmobs_span_content"]) > 50
    # The documented value is text: values of another type, as in experiments, are returned as JSON text.
    raw = {("77", "input"): [{"q": 1}, '{"q":1}'], ("77", "output"): [[2], "[2]"]}
    for place, one in enumerate(answers):
        rows = {(row["span_id"], row["field"]): row for row in one["get_llmobs_span_content"]}
        assert {which: rows.pop(which)["content"] for which in raw} == {which: contents[place] for which, contents in raw.items()}
        one["get_llmobs_span_content"] = list(rows.values())
    assert {(tool, key) for tool in whole for key in differences(whole[tool], documented[tool])} == {(tool, f"[].{key}") for tool, key in DOCUMENTED_GAPS}


def test_expected_output_is_read_from_a_site_with_documented_attributes_only(home, tmp_path):
    with support.double(home / "expected", tmp_path / "store", "--documented-only") as api:
        send_by_hand(api, expected_output={"value": "Hello"})
        read = json.loads(support.over_call(api, home, "get_llmobs_span_content", {"trace_id": BY_HAND, "span_id": "78", "field": "expected_output"}))
    assert read["content"] == {"value": "Hello"}
