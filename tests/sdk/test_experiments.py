"""The SDK's experiments against the local backend. `apps/experiments_app.py` uses Datadog's SDK and contains nothing specific to this
project: it runs unchanged, and every number of the experiment tools equals what pandas computes from the results that the SDK has at the end."""
import hashlib
import json
import re
import urllib.parse
import urllib.request

import pandas as pd
import pytest

import experiment_checks
import support
from expected import Compared, Told
from experiment_checks import events, pages

V2 = "/api/v2/llm-obs"
NAMES = ("baseline", "candidate", "rerun")
DIMENSIONS = ("region", "difficulty", "reviewed", "run_iteration", "error_type")
LABELS = ["breakdown", "broken-judge", "class_eval", "crashy", "exact_match", "goal-completeness", "length_score", "multi-precision", "multi-recall", "verdict"]
PROJECT = "geo-project"


@pytest.fixture(scope="module")
def api(home, tmp_path_factory):
    with support.local(home / "experiments", tmp_path_factory.mktemp("experiments")) as api:
        yield api


@pytest.fixture(scope="module")
def ran(api, home):
    return support.run_app("experiments_told.py", "agentless", api, home)


@pytest.fixture(scope="module")
def told(ran):
    now, first = ({record["id"]: record["tags"] for record in records} for records in (ran["records"], ran["filtered"]["records"]))
    # The copies of spans that a re-run posts do not have the tags of their records.
    tags = {"baseline": now, "candidate": first, "rerun": {}}
    return {name: Told(experiment, tags[name]) for name, experiment in ran["experiments"].items()}


@pytest.fixture(scope="module")
def ask(api, home):
    with support.serve_http(home / "experiments", api) as mcp:
        yield lambda tool, **arguments: json.loads(support.over_http(mcp, tool, arguments))


def get(api, path, **query):
    url = api.url + path + "?" + urllib.parse.urlencode({k: v for k, v in query.items()})
    with urllib.request.urlopen(url, timeout=30) as answer:
        return json.load(answer)


def test_the_program_is_the_published_one():
    app = (support.HERE / "apps" / "experiments_app.py").read_bytes()
    assert hashlib.sha256(app).hexdigest() == "075f811764bce0c4db405a1ae68007a4ba948a242bd230174fb7b18db09f46b3"


def test_the_app_runs_unchanged(home, tmp_path):
    """Only the environment directs it to the backend. It succeeds and prints what it prints with a correct server."""
    with support.local(home / "unchanged", tmp_path / "store") as api:
        lines = support.printed_by("experiments_app.py", "agentless", api, home).splitlines()
        project = get(api, f"{V2}/v1/projects", **{"filter[name]": PROJECT})["data"][0]["id"]
        ask = lambda tool, **arguments: json.loads(support.over_call(api, home, tool, arguments))
        listed = {row["experiment"]: row for row in ask("list_llmobs_experiments", project_id=project)["experiments"]}
        [dataset] = ask("list_llmobs_datasets", project_id=project)["datasets"]
        drafts = {row["eval_name"]: row for row in ask("list_llmobs_evals_by_ml_app", ml_app="capital-bot")["evaluators"]}
        [prompt] = get(api, f"{V2}/v1/prompts")["data"]
    baseline, candidate = listed.pop("capitals-baseline"), listed.pop("capitals-candidate")
    [(rerun, attributes)] = listed.items()
    assert re.fullmatch(r"capitals-baseline-rerun-\d+", rerun) and attributes["parent_experiment_id"] == baseline["id"]
    assert all(re.fullmatch(row["experiment"] + r"-\d+", row["name"]) for row in (baseline, candidate))
    links = [f"{name}-{provider}" for name in ("faithful-bool", "quality-score", "tone-cat") for provider in ("openai", "anthropic")]
    assert lines == [
        f"dataset {dataset['id']} 7 1",
        "pulled 7",
        "filtered 1",
        f"experiment {baseline['id']} https://app.datadoghq.com/llm/experiments/{baseline['id']} 2 7",
        f"listed {[(candidate['name'], 'capitals-candidate'), (baseline['name'], 'capitals-baseline')]}",
        "pulled experiment rows 14",
        "rerun ok",
        "get_spans 0",
        *(str({"ui_url": f"https://app.datadoghq.com/llm/evaluations/custom?evalName={name}&applicationName=capital-bot"}) for name in links),
        "ManagedPrompt(id='greeting', version='v1', label=None, source='resolve')"]
    assert dataset["current_version"] == 2 and sorted(drafts) == sorted(links) and not any(row["enabled"] for row in drafts.values())
    assert [prompt["attributes"][key] for key in ("prompt_id", "title", "description", "num_versions")] == ["greeting", "Greeting", "d", 1]


def test_the_sdk_reads_back_its_results(ran):
    assert (len(ran["records"]), ran["version"], len(ran["filtered"]["records"]), ran["filtered"]["version"]) == (7, 2, 1, 1)
    assert ran["listed"] == [ran["experiments"][name]["id"] for name in ("candidate", "baseline")], "the newest first"
    assert ran["prompt"] == [{"role": "system", "content": "You greet {{user}}."}]
    # The SDK reads back what it computed; it sends categories in lower case.
    computed, pulled = ({row["event"]: row for row in one["rows"]} for one in (ran["experiments"]["baseline"], ran["pulled"]))
    assert computed.keys() == pulled.keys() and len(pulled) == 14
    for event, row in pulled.items():
        ours = computed[event]
        assert [row[key] for key in ("trace", "record", "error_type", "input", "expected_output")] == [ours[key] for key in ("trace", "record", "error_type", "input", "expected_output")]
        assert row["output"] == (ours["output"] if not ours["error_type"] else {})
        assert {label: e["value"] for label, e in row["evaluations"].items()} == {label: experiment_checks.stored(e) for label, e in ours["evaluations"].items()}


def test_the_dataset_in_both_of_its_versions(ran, ask):
    """The seven records after the program changed one, tagged one, deleted one and appended one."""
    where = {"project_id": ran["project"], "dataset_id": ran["dataset"]}
    now = {row["input"]["question"].split(" of ")[1].rstrip("?"): row for row in pages(ask, "get_llmobs_dataset_records", "records", **where)}
    assert {country: row["expected_output"] for country, row in now.items()} == {
        "France": "Paris, France", "Chad": {"answer": "N'Djamena"}, "Nauru": {"answer": "Yaren"}, "Japan": "Tokyo", "Boom": {"answer": "error"}, "Italy": "Rome", "Kenya": "Nairobi"}
    assert sorted(now["Chad"]["tags"]) == ["difficulty:hard", "region:africa", "reviewed:true"] and now["Kenya"]["tags"] == ["region:africa"]
    assert now["Italy"]["metadata"] == {"difficulty": "easy", "idx": 6}
    assert {row["id"]: row["expected_output"] for row in now.values()} == {row["id"]: row["expected_output"] for row in ran["records"]}
    first = {row["input"]["question"]: row for row in pages(ask, "get_llmobs_dataset_records", "records", dataset_version=1, **where)}
    assert len(first) == 7 and "Capital of Peru?" in first and "Capital of Kenya?" not in first
    assert first["Capital of France?"]["expected_output"] == "Paris" and sorted(first["Capital of Chad?"]["tags"]) == ["difficulty:hard", "region:africa"]
    [african] = pages(ask, "get_llmobs_dataset_records", "records", dataset_version=1, tags=["region:africa"], **where)
    assert african == first["Capital of Chad?"] and african["id"] == ran["filtered"]["records"][0]["id"]


def test_the_expected_tasks_and_evaluators_failed(told):
    base = told["baseline"]
    assert base.labels() == LABELS and told["rerun"].labels() == ["exact_match", "verdict"]
    assert (len(base.events), len(told["candidate"].events), len(told["rerun"].events)) == (14, 1, 12)
    assert base.events["error_type"].dropna().tolist() == ["builtins.TimeoutError"] * 2
    failed = base.metrics[base.metrics["evaluator_failed"]].groupby("label").size().to_dict()
    assert failed == {"broken-judge": 14, "crashy": 2, "goal-completeness": 14}, "the backend has no model to judge with"


@pytest.mark.parametrize("include_failed", (False, True))
@pytest.mark.parametrize("name", NAMES)
def test_summary(name, include_failed, told, ask):
    one = told[name]
    summary = experiment_checks.summary(ask, one, include_failed)
    answered = int((~one.events["failed"]).sum())
    used = {key: n for key, n in summary["usage"].items() if key.endswith("_tokens")}
    assert used == ({} if name == "rerun" else {"input_tokens": 20 * answered, "output_tokens": 3 * answered, "total_tokens": 23 * answered})
    assert {"baseline": {"region", "difficulty", "branch", "team"}, "candidate": {"region", "difficulty"}, "rerun": {"dataset_record_id"}}[name] <= set(summary["available_dimensions"])


@pytest.mark.parametrize("name", NAMES)
def test_metric_values_overall_and_by_every_dimension(name, told, ask):
    experiment_checks.metric_values(ask, told[name], DIMENSIONS)


@pytest.mark.parametrize("name", NAMES)
def test_dimension_values(name, told, ask):
    experiment_checks.dimension_values(ask, told[name], DIMENSIONS)


@pytest.mark.parametrize("name", NAMES)
def test_every_event_alone_and_in_the_list(name, told, ask):
    experiment_checks.listed_events(ask, told[name])
    for row in told[name].rows:
        experiment_checks.event(ask, told[name], row)


def test_filters_and_sorting(told, ask):
    one = told["baseline"]
    for dimension in ("region", "difficulty", "run_iteration"):
        for value, rows in one.events.groupby(dimension):
            found = events(ask, one, filter_dimension_key=dimension, filter_dimension_value=value)
            assert {row["id"] for row in found} == set(rows["event"])
    wrong = one.metrics[(one.metrics["label"] == "verdict") & (one.metrics["value"] == "wrong")]
    assert {row["id"] for row in events(ask, one, filter_metric_label="verdict", filter_metric_value="wrong")} == set(wrong["event"])
    lengths = [row["metrics"]["length_score"] for row in events(ask, one, sort_by_metric_label="length_score", sort_direction="desc")]
    assert lengths == sorted(one.metrics[one.metrics["label"] == "length_score"]["value"], reverse=True)


def test_lists(ran, told, ask, api):
    assert [row["name"] for row in pages(ask, "list_llmobs_projects", "projects") if row["id"] == ran["project"]] == [PROJECT]
    listed = pages(ask, "list_llmobs_experiments", "experiments", project_id=ran["project"])
    assert [row["id"] for row in listed] == [told[name].id for name in ("rerun", "candidate", "baseline")], "the newest first"
    rerun, candidate, baseline = listed
    assert (baseline["status"], baseline["run_count"], baseline["dataset_version"], baseline["description"]) == ("failed", 2, 2, "baseline")
    assert baseline["config"] == {"model": "gpt-4o", "temperature": 0, "prompt_version": 3, "nested": {"top_p": 1}}
    assert sorted(baseline["error"].split("; ")) == [
        "broken-judge (NO_MODEL): the local backend has no model to evaluate with", "builtins.TimeoutError: model timed out",
        "crashy (ZeroDivisionError): division by zero in evaluator", "goal-completeness (NO_MODEL): the local backend has no model to evaluate with"]
    assert (candidate["status"], candidate["run_count"], candidate["dataset_version"]) == ("completed", 1, 1)
    assert (rerun["status"], rerun["parent_experiment_id"], rerun["config"]) == ("completed", baseline["id"], {"evaluators": ["exact_match", "verdict"]})
    [tagged] = get(api, f"{V2}/v1/experiments", **{"filter[experiment]": "capitals-baseline", "filter[metadata]": '{"tags":["branch:main"]}'})["data"]
    sums = tagged["attributes"]["aggregate_data"]
    assert tagged["id"] == baseline["id"]
    assert (sums["total_spans"], sums["total_errors"], sums["total_tokens"]) == (14, 2, 12 * 23)


def test_a_comparison_over_one_common_record(told, ask):
    base, cand = told["baseline"], told["candidate"]
    answer = ask("compare_llmobs_experiments", baseline_experiment_id=base.id, candidate_experiment_id=cand.id)
    records, before, after = Compared(base, cand, "exact_match").means()
    [row] = answer["metrics"]
    assert (row["metric_label"], row["records"], row["baseline"], row["candidate"], row["verdict"]) == ("exact_match", records, before, after, "too few records")
    assert answer["paired_records"] == records == 1 and answer["only_in_baseline"]["records"] == base.events["dataset_record_id"].nunique() - 1
    assert answer["metrics_only_in_baseline"] == [label for label in LABELS if label != "exact_match"]
    assert [answer["usage_per_run"][key]["difference"] for key in ("input_tokens", "output_tokens")] == [0, 0]


def test_a_rerun_against_its_original(told, ask):
    """The same evaluators on the same outputs: no record differs."""
    base, rerun = told["baseline"], told["rerun"]
    answer = ask("compare_llmobs_experiments", baseline_experiment_id=base.id, candidate_experiment_id=rerun.id)
    assert answer["paired_records"] == 6 and answer["total_flips"] == 0 and answer["only_in_baseline"]["records"] == 1
    rows = {row["metric_label"]: row for row in answer["metrics"]}
    assert sorted(rows) == ["exact_match", "verdict"]
    passed = base.metrics[(base.metrics["label"] == "exact_match") & ~base.metrics["failed"]]["value"].astype(float).mean()
    for row in rows.values():
        assert (row["records"], row["difference"], row["verdict"]) == (6, 0, "no clear change")
        assert row["baseline"] == row["candidate"] == pytest.approx(passed, rel=1e-9)
    values = pd.Series([row["evaluations"]["verdict"]["value"].lower() for row in rerun.rows]).value_counts()
    assert {value: sides["candidate"] for value, sides in rows["verdict"]["runs_by_value"].items()} == values.to_dict()


def test_every_metric_is_read_from_v3_in_pages(ran, told, api):
    spans, summary, cursor = [], [], {}
    while True:
        page = get(api, f"{V2}/v3/experiments/{told['baseline'].id}/events", **{"page[limit]": 5}, **cursor)
        spans += page["data"]["attributes"]["spans"]
        summary += page["data"]["attributes"]["summary_metrics"]
        if not page["meta"]["after"]:
            break
        cursor = {"page[cursor]": page["meta"]["after"]}
    rows = {row["event"]: row for row in ran["experiments"]["baseline"]["rows"]}
    assert {s["span_id"] for s in spans} == set(rows) and len(spans) == 14
    for span in spans:
        metrics = {m["label"]: m for m in span["eval_metrics"]}
        assert sorted(metrics) == LABELS
        assert metrics["goal-completeness"]["status"] == "ERROR"
        assert metrics["length_score"]["score_value"] == rows[span["span_id"]]["evaluations"]["length_score"]["value"]
        assert {"judge:rules", "rubric:v2", f"run_iteration:{rows[span['span_id']]['run']}"} <= set(metrics["verdict"]["tags"])
    assert sorted((m["label"], m.get("score_value"), m.get("json_value")) for m in summary) == sorted(
        (label, *((None, value) if label == "report" else (value, None))) for values in told["baseline"].summaries for label, value in values.items())
    assert {t for s in spans for t in s["tags"] if t.startswith("run_iteration:")} == {"run_iteration:1", "run_iteration:2"}


def test_large_and_uploaded_datasets(api, home):
    read = support.run_app("datasets_app.py", "agentless", api, home)
    assert read["sizes"] == {"many": 1200, "bulk": 300, "from-csv": 50}
    assert read["half"] == 600 and read["order"] == list(range(1200)) and read["deleted"]
    assert read["versions"] == {"many": 1, "bulk": 1, "from-csv": 1}
    assert read["csv"]["metadata"] == {"topic": "a,b"}
    assert read["csv"]["input_data"]["question"].startswith('What, "exactly",\nis ')
