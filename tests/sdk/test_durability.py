"""Acknowledged data survives `kill -9`."""
import json
import subprocess
import sys
import time
import urllib.request

import pytest

import support


def stored(api, query, start="now-1h"):
    """Ids of all matching spans, page by page, from the documented endpoint."""
    found, cursor = [], None
    while True:
        page = {"limit": 500, **({"cursor": cursor} if cursor else {})}
        body = {"data": {"type": "spans", "attributes": {"filter": {"query": query, "from": start, "to": "now"}, "page": page, "options": {"include_attachments": False}, "sort": "timestamp"}}}
        request = urllib.request.Request(api.url + "/api/v2/llm-obs/v1/spans/events/search", json.dumps(body).encode(), {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            answer = json.load(answer)
        found += [(s["attributes"]["trace_id"], s["attributes"]["span_id"]) for s in answer["data"]]
        cursor = (answer["meta"].get("page") or {}).get("after")
        if not cursor:
            return found


@pytest.mark.parametrize("mode", support.MODES)
def test_acknowledged_spans_exist_once_after_a_kill(mode, tmp_path, home):
    with support.local(home, tmp_path / "store") as api:
        app = support.run_app("agent_app.py", mode, api, home)
        api.kill()
    with support.local(home, tmp_path / "store") as api:
        found = stored(api, f'@ml_app:"{app["app"]}"')
        assert len(found) == len(set(found)) == sum(app["counts"].values())
        assert set(app["spans"].values()) <= {span for _, span in found}
        details = json.loads(support.over_call(api, home, "get_llmobs_span_details", {"trace_id": app["traces"]["loop"], "span_ids": [app["spans"]["root"]], "from": app["from"], "to": app["to"]}))
        assert set(details["spans"][0]["evaluations"]) == {"early", "resolved"}, "evaluations survive too"


def test_a_kill_during_a_write_loses_no_acknowledged_span(tmp_path, home):
    acknowledged = []
    with support.local(home, tmp_path / "store") as api:
        sender = subprocess.Popen([sys.executable, str(support.HERE / "apps" / "stream_app.py"), "100000"], env=support.sdk_environment("agentless", api, home), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        for line in sender.stdout:
            acknowledged.append(line.strip())
            if len(acknowledged) == 30:
                time.sleep(0.005)  # at a random moment of a write
                api.kill()
        sender.wait(60)
    assert len(acknowledged) >= 30
    with support.local(home, tmp_path / "store") as api:
        found = stored(api, '@ml_app:"sdk-agentless"')
        assert len(found) == len(set(found))
        spans = {}
        for trace, span in found:
            spans.setdefault(trace, []).append(span)
        assert {t: len(spans.get(t, [])) for t in acknowledged} == dict.fromkeys(acknowledged, 5)


def test_spans_that_are_sent_twice_exist_once(tmp_path, home):
    """The SDK repeats a request if it received no response."""
    body = json.dumps([{"_dd.stage": "raw", "_dd.tracer_version": "4.16.0", "event_type": "span", "spans": [
        {"trace_id": "6b00ee90000000000000000000000001", "span_id": "77", "parent_id": "undefined", "name": "again", "start_ns": time.time_ns(), "duration": 1000, "status": "ok",
         "tags": ["ml_app:twice"], "meta": {"span": {"kind": "task"}, "input": {"value": "a"}}, "metrics": {}}]}]).encode()
    with support.local(home, tmp_path / "store") as api:
        for path in ("/api/v2/llmobs", "/api/v2/llmobs", "/evp_proxy/v4/api/v2/llmobs"):
            request = urllib.request.Request(api.url + path, body, {"Content-Type": "application/json"})
            with urllib.request.urlopen(request, timeout=10) as answer:
                assert 200 <= answer.status < 300
        assert stored(api, "@ml_app:twice") == [("6b00ee90000000000000000000000001", "77")]
