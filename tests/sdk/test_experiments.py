"""The SDK's experiments against the local control plane."""
import json
import urllib.parse
import urllib.request

import pytest

import support

V2 = "/api/v2/llm-obs"


@pytest.fixture(scope="module")
def api(home, tmp_path_factory):
    with support.local(home / "experiments", tmp_path_factory.mktemp("experiments")) as api:
        yield api


@pytest.fixture(scope="module")
def ran(api, home):
    return support.run_app("experiments_app.py", "agentless", api, home)


def get(api, path, **query):
    url = api.url + path + "?" + urllib.parse.urlencode({k: v for k, v in query.items()})
    with urllib.request.urlopen(url, timeout=30) as answer:
        return json.load(answer)


def test_the_sdk_sees_its_own_work(ran):
    assert (ran["pulled"], ran["filtered"], ran["version"]) == (7, 1, 2)
    assert ran["listed"][1:] == ["baseline"] and ran["listed"][0].startswith("baseline-rerun-")
    assert ran["prompt"] == ["greeting", "v1", "resolve"]
    assert len(ran["rows"]) == 14
    # What the SDK pulls is what it had computed; categories are lower-cased on the way.
    lowered = {span: {k: v.lower() if isinstance(v, str) else v for k, v in row.items()} for span, row in ran["rows"].items()}
    assert ran["pulled_rows"] == lowered


def test_every_metric_is_read_from_v3_in_pages(ran, api):
    spans, summary, cursor = [], [], {}
    while True:
        page = get(api, f"{V2}/v3/experiments/{ran['experiment']}/events", **{"page[limit]": 5}, **cursor)
        spans += page["data"]["attributes"]["spans"]
        summary += page["data"]["attributes"]["summary_metrics"]
        if not page["meta"]["after"]:
            break
        cursor = {"page[cursor]": page["meta"]["after"]}
    assert {s["span_id"] for s in spans} == set(ran["rows"]) and len(spans) == 14
    for span in spans:
        metrics = {m["label"]: m for m in span["eval_metrics"]}
        assert set(metrics) == {"exact", "length", "verdict", "detail", "crashy", "goal-completeness"}
        assert metrics["goal-completeness"]["status"] == "ERROR"
        assert metrics["length"]["score_value"] == ran["rows"][span["span_id"]]["length"]
        assert any(t.startswith("run_iteration:") for t in metrics["exact"]["tags"])
    assert [m["score_value"] for m in summary] == [ran["summary"]["accuracy"]] * 2
    assert {t for s in spans for t in s["tags"] if t.startswith("run_iteration:")} == {"run_iteration:1", "run_iteration:2"}


def test_the_list_says_what_became_of_it(ran, api):
    listed = get(api, f"{V2}/v1/experiments", **{"filter[experiment]": "baseline", "filter[metadata]": '{"tags":["branch:main"]}'})["data"]
    assert [e["id"] for e in listed] == [ran["experiment"]]
    attributes = listed[0]["attributes"]
    assert attributes["status"] == "failed" and "division by zero" in attributes["error"]
    assert attributes["aggregate_data"]["total_spans"] == 14 and attributes["aggregate_data"]["total_errors"] == 2
    assert attributes["aggregate_data"]["total_tokens"] == 12 * 23


def test_large_and_uploaded_datasets(api, home):
    read = support.run_app("datasets_app.py", "agentless", api, home)
    assert read["sizes"] == {"many": 1200, "bulk": 300, "from-csv": 50}
    assert read["half"] == 600 and read["order"] == list(range(1200)) and read["deleted"]
    assert read["versions"] == {"many": 1, "bulk": 1, "from-csv": 1}
    assert read["csv"]["metadata"] == {"topic": "a,b"}
    assert read["csv"]["input_data"]["question"].startswith('What, "exactly",\nis ')
