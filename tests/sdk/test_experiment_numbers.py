"""Every number of the experiment tools equals the one that pandas computes from the SDK's results: two experiments of 1,200 records from a CSV file
(one of them run twice), a re-run of evaluators, failing tasks, failing evaluators."""
import json

import pandas as pd
import pytest

import experiment_checks
import support
from expected import Compared, Told, holm, mcnemar
from experiment_checks import events, pages

NAMES = ("baseline", "candidate", "rerun")
DIMENSIONS = ("lang", "topic", "run_iteration", "error_type")


@pytest.fixture(scope="module")
def api(home, tmp_path_factory):
    with support.local(home / "numbers", tmp_path_factory.mktemp("numbers")) as api:
        yield api


@pytest.fixture(scope="module")
def ran(api, home):
    return support.run_app("help_desk_app.py", "agentless", api, home, timeout=900)


@pytest.fixture(scope="module")
def told(ran):
    tags = {record["id"]: record["tags"] for record in ran["records"]}
    # The copies of spans that a re-run posts do not have the tags of their records.
    return {name: Told(experiment, {} if name == "rerun" else tags) for name, experiment in ran["experiments"].items()}


@pytest.fixture(scope="module")
def ask(api, home):
    with support.serve_http(home / "numbers", api) as mcp:
        yield lambda tool, **arguments: json.loads(support.over_http(mcp, tool, arguments))


def test_the_expected_tasks_and_evaluators_failed(told):
    assert told["candidate"].events.groupby("error_type").size().to_dict() == {"builtins.TimeoutError": 2 * 13, "builtins.KeyError": 2 * 8}
    assert len(told["baseline"].events) == 1200 and len(told["candidate"].events) == 2400
    assert len(told["rerun"].events) == 1200 - int(told["baseline"].events["failed"].sum())
    assert told["baseline"].metrics["evaluator_failed"].sum() >= 29


@pytest.mark.parametrize("include_failed", (False, True))
@pytest.mark.parametrize("name", NAMES)
def test_summary(name, include_failed, told, ask):
    one = told[name]
    summary = experiment_checks.summary(ask, one, include_failed)
    if name != "rerun":
        tokens = {row["event"]: (len(row["input"]["question"]), row["output"]["words"]) for row in one.rows if row["output"]}
        used = pd.DataFrame(tokens.values(), columns=["input", "output"])
        assert summary["usage"]["input_tokens"] == used["input"].sum() and summary["usage"]["output_tokens"] == used["output"].sum()
        assert len(used) == int((~one.events["failed"]).sum())
        assert {"lang", "topic"} <= set(summary["available_dimensions"])


@pytest.mark.parametrize("name", NAMES)
def test_metric_values_overall_and_by_every_dimension(name, told, ask):
    experiment_checks.metric_values(ask, told[name], DIMENSIONS)


@pytest.mark.parametrize("name", NAMES)
def test_dimension_values(name, told, ask):
    experiment_checks.dimension_values(ask, told[name], DIMENSIONS)


@pytest.mark.parametrize("name", ("candidate", "rerun"))
def test_every_event_with_every_metric(name, told, ask):
    experiment_checks.listed_events(ask, told[name])


def test_filters_and_sorting(told, ask):
    one = told["candidate"]
    german = one.events[one.events["lang"] == "de"]
    assert {row["id"] for row in events(ask, one, filter_dimension_key="lang", filter_dimension_value="de")} == set(german["event"])
    assert {row["id"] for row in events(ask, one, filter_dimension_key="error_type")} == set(one.events[one.events["failed"]]["event"])
    terse = one.metrics[(one.metrics["label"] == "tone") & (one.metrics["value"] == "terse")]
    assert {row["id"] for row in events(ask, one, filter_metric_label="tone", filter_metric_value="Terse")} == set(terse["event"])
    for direction, ascending in (("asc", True), ("desc", False)):
        rows = events(ask, one, sort_by_metric_label="brittle", sort_direction=direction)
        values = [row["metrics"]["brittle"] for row in rows]
        known = [value for value in values if value is not None]
        assert known == sorted(known, reverse=not ascending) and values[len(known):] == [None] * (len(values) - len(known))


def test_one_event_in_full(told, ask):
    for name in NAMES:
        for row in told[name].rows[::211]:
            experiment_checks.event(ask, told[name], row)


def test_the_comparison_record_by_record(told, ask):
    base, cand = told["baseline"], told["candidate"]
    answer = ask("compare_llmobs_experiments", baseline_experiment_id=base.id, candidate_experiment_id=cand.id, segment_by_dimension="lang", max_tokens=20_000)
    assert answer["paired_records"] == 1200
    assert (answer["baseline"]["error_count"], answer["candidate"]["error_count"]) == (int(base.events["failed"].sum()), int(cand.events["failed"].sum()))
    assert (answer["baseline"]["runs_per_record"], answer["candidate"]["runs_per_record"]) == (1, 2)
    rows = {row["metric_label"]: row for row in answer["metrics"]}
    assert sorted(rows) == base.labels()
    languages = base.events.groupby("lang")["dataset_record_id"].apply(set)
    flipped = {}
    for label in ("correct", "helpfulness", "brittle"):
        compared, row = Compared(base, cand, label), rows[label]
        records, before, after = compared.means()
        assert (row["records"], row["baseline"], row["candidate"]) == (records, pytest.approx(before, rel=1e-9), pytest.approx(after, rel=1e-9))
        assert row["difference"] == pytest.approx(after - before, rel=1e-9, abs=1e-12)
        lost, won = compared.flips()
        assert (row.get("pass_to_fail", 0), row.get("fail_to_pass", 0)) == (len(lost), len(won))
        flipped[label] = (lost, won)
        low, high = compared.interval()
        assert row["interval_95"] == pytest.approx([low, high], abs=0.06 * (high - low) + 1e-12)
        # One run against two: the exact test of flips would call the same quality an improvement.
        assert row["test"] == "paired_bootstrap"
        for segment in row["segments_worst_first"]:
            count, one, two = compared.means(languages[segment["value"]])
            assert (segment["records"], segment["baseline"], segment["candidate"]) == (count, pytest.approx(one, rel=1e-9), pytest.approx(two, rel=1e-9))
        gains = [segment["difference"] for segment in row["segments_worst_first"]]
        assert gains == sorted(gains) and len(gains) == 4
    assert rows["correct"]["verdict"] == "regressed" and rows["correct"]["segments_worst_first"][0]["value"] == "de"
    assert rows["brittle"]["verdict"] == "no clear change" and rows["brittle"]["difference"] == 0
    assert rows["tone"]["verdict"] is None and rows["rubric"]["verdict"] is None
    tested = {label: row["p_value"] for label, row in rows.items() if row.get("p_value") is not None}
    for label, corrected in holm(tested).items():
        assert rows[label]["p_value_corrected"] == pytest.approx(corrected, rel=1e-9)
    assert answer["total_flips"] == sum(len(lost) + len(won) for lost, won in flipped.values())

    flips = pages(ask, "compare_llmobs_experiments", "flips", baseline_experiment_id=base.id, candidate_experiment_id=cand.id, segment_by_dimension="lang")
    listed = {(flip["metric_label"], flip["flip"], flip["dataset_record_id"]) for flip in flips}
    assert listed == {(label, way, record) for label, sides in flipped.items() for way, side in zip(("pass_to_fail", "fail_to_pass"), sides) for record in side}
    ways = [flip["flip"] for flip in flips]
    assert ways == sorted(ways, reverse=True), "what fails now comes first"


def test_tokens_per_run(told, ask):
    base, cand = told["baseline"], told["candidate"]
    usage = ask("compare_llmobs_experiments", baseline_experiment_id=base.id, candidate_experiment_id=cand.id, max_tokens=20_000)["usage_per_run"]
    sides = []
    for one in (base, cand):
        rows = pd.DataFrame([{"record": r["record"], "words": r["output"]["words"]} for r in one.rows if r["output"]])
        sides.append(rows.groupby("record")["words"].mean())
    both = pd.concat(sides, axis=1, join="inner", keys=["b", "c"])
    assert usage["output_tokens"]["records"] == len(both)
    assert usage["output_tokens"]["baseline"] == pytest.approx(both["b"].mean(), rel=1e-9)
    assert usage["output_tokens"]["difference"] == pytest.approx((both["c"] - both["b"]).mean(), rel=1e-9)


def test_a_rerun_against_its_original(told, ask):
    """The re-run keeps the outputs and evaluates them more strictly under the same name. Each side has one run, so the exact test applies."""
    base, rerun = told["baseline"], told["rerun"]
    answer = ask("compare_llmobs_experiments", baseline_experiment_id=base.id, candidate_experiment_id=rerun.id, max_tokens=20_000)
    [row], compared = answer["metrics"], Compared(base, rerun, "correct")
    lost, won = compared.flips()
    records, before, after = compared.means()
    assert (row["metric_label"], row["records"], row["baseline"], row["candidate"]) == ("correct", records, pytest.approx(before, rel=1e-9), pytest.approx(after, rel=1e-9))
    assert row["test"] == "mcnemar_exact" and row["p_value"] == pytest.approx(mcnemar(len(lost), len(won)), rel=1e-9)
    assert (row["pass_to_fail"], row.get("fail_to_pass", 0)) == (len(lost), len(won)) and len(lost) > 50 and row["verdict"] == "regressed"
    assert answer["total_flips"] == len(lost) + len(won)
    assert answer["metrics_only_in_candidate"] == ["strict"]
    assert answer["only_in_baseline"]["records"] == int(base.events["failed"].sum())


def test_lists(ran, told, ask):
    assert ran["project"] in [row["id"] for row in pages(ask, "list_llmobs_projects", "projects")]
    listed = pages(ask, "list_llmobs_experiments", "experiments", project_id=ran["project"])
    assert {row["id"] for row in listed} == {one.id for one in told.values()}
    by_id = {row["id"]: row for row in listed}
    assert by_id[told["rerun"].id]["parent_experiment_id"] == told["baseline"].id
    assert (by_id[told["candidate"].id]["run_count"], by_id[told["candidate"].id]["dataset_id"]) == (2, ran["dataset"])
    datasets = pages(ask, "list_llmobs_datasets", "datasets", project_id=ran["project"])
    assert [(row["id"], row["current_version"]) for row in datasets] == [(ran["dataset"], ran["version"])]
    records = pages(ask, "get_llmobs_dataset_records", "records", project_id=ran["project"], dataset_id=ran["dataset"])
    assert {row["id"]: (row["input"], row["expected_output"], row["metadata"], sorted(row["tags"])) for row in records} == {
        row["id"]: (row["input"], row["expected_output"], row["metadata"], sorted(row["tags"])) for row in ran["records"]}
    french = pages(ask, "get_llmobs_dataset_records", "records", project_id=ran["project"], dataset_id=ran["dataset"], tags=["lang:fr"])
    assert len(french) == 300
