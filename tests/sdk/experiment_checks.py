"""Compares the answers of the experiment tools with results that pandas computes from the SDK's data."""
import pytest


def pages(ask, tool, rows, **arguments):
    """All rows of a list."""
    found, cursor = [], {}
    while True:
        page = ask(tool, max_tokens=20_000, **arguments, **cursor)
        found += page[rows]
        if not page["next_cursor"]:
            return found
        cursor = {"cursor": page["next_cursor"]}


def events(ask, one, **arguments):
    """All events of an experiment."""
    found = []
    while True:
        page = ask("list_llmobs_experiment_events", experiment_id=one.id, limit=100, offset=len(found), max_tokens=20_000, **arguments)
        found += page["events"]
        if not page["events"] or len(found) >= page["total_matching"]:
            assert len(found) == page["total_matching"]
            return found


def assert_equal(ours, theirs, what):
    assert ours.keys() == theirs.keys(), (what, ours, theirs)
    for key, value in theirs.items():
        if isinstance(value, dict):
            assert_equal(ours[key], value, f"{what}.{key}")
        else:
            assert ours[key] == (pytest.approx(value, rel=1e-9) if isinstance(value, (int, float)) else value), (what, key, ours, theirs)


def stored(evaluation):
    """The stored value: the SDK sends categories in lower case, and no value for a failed evaluator."""
    value = evaluation["value"]
    return None if evaluation["failed"] else value.lower() if isinstance(value, str) else value


def summary(ask, one, include_failed):
    """Checks the summary, except tokens."""
    answer = ask("get_llmobs_experiment_summary", experiment_id=one.id, include_failed=include_failed)
    assert answer["total_events"] == len(one.events) and answer["error_count"] == int(one.events["failed"].sum())
    assert answer["records"] == one.events["dataset_record_id"].nunique() and answer["runs"] == one.events["run_iteration"].nunique()
    for label in one.labels():
        assert_equal(answer["evals"][label], {"metric_type": one.metric_type(label), **one.stats(label, full=False, include_failed=include_failed)}, label)
    assert sorted(answer["evals"]) == one.labels()
    theirs = [(label, str(run), value) for run, values in enumerate(one.summaries, 1) for label, value in values.items()]
    ours = [(metric["label"], metric["run_iteration"], metric["value"]) for metric in answer.get("summary_metrics", [])]
    key = lambda row: row[:2]
    assert sorted(map(key, ours)) == sorted(map(key, theirs))
    for (*what, value), (*_, known) in zip(sorted(ours, key=key), sorted(theirs, key=key)):
        assert value == (known if isinstance(known, dict) else pytest.approx(known, rel=1e-12)), what
    return answer


def metric_values(ask, one, dimensions):
    """Every metric overall and by every dimension."""
    for label in one.labels():
        for include_failed in (False, True):
            answer = ask("get_llmobs_experiment_metric_values", experiment_id=one.id, metric_label=label, include_failed=include_failed)
            assert_equal(answer["overall"], one.stats(label, full=True, include_failed=include_failed), label)
        for dimension in one.known(dimensions):
            answer = ask("get_llmobs_experiment_metric_values", experiment_id=one.id, metric_label=label, segment_by_dimension=dimension, max_tokens=20_000)
            segments = {row["dimension_value"]: row for row in answer["segments"]}
            assert {value: row["events"] for value, row in segments.items()} == one.events.groupby(dimension).size().to_dict()
            for value, row in segments.items():
                assert_equal(row["stats"], one.stats(label, full=True, where=one.events[dimension] == value), f"{label} {dimension}:{value}")


def dimension_values(ask, one, dimensions):
    for dimension in one.known((*dimensions, "dataset_record_id")):
        rows = pages(ask, "get_llmobs_experiment_dimension_values", "values", experiment_id=one.id, dimension_key=dimension)
        assert {row["value"]: row["count"] for row in rows} == one.events[dimension].value_counts().to_dict()
        counts = [row["count"] for row in rows]
        assert counts == sorted(counts, reverse=True)


def listed_events(ask, one):
    """Every event with every metric."""
    listed = {row["id"]: row for row in events(ask, one)}
    assert set(listed) == set(one.events["event"])
    for row in one.rows:
        ours = listed[row["event"]]
        expected = {label: stored(evaluation) for label, evaluation in row["evaluations"].items()}
        assert set(ours["metrics"]) == set(expected)
        for label, value in expected.items():
            assert ours["metrics"][label] == (pytest.approx(value, rel=1e-9) if isinstance(value, (int, float)) else value), (row["event"], label)
        assert (ours["status"] == "error") == bool(row["error_type"])


def event(ask, one, row):
    """One event in full."""
    answer = ask("get_llmobs_experiment_event", experiment_id=one.id, event_id=row["event"])
    assert answer["input"] == row["input"] and answer.get("expected_output") == row["expected_output"]
    assert answer["trace_id"] == row["trace"]
    if row["error_type"]:
        assert answer["status"] == "error" and answer["error"]["type"].endswith(row["error_type"].split(".")[-1])
    else:
        assert answer["output"] == row["output"] and answer["status"] == "ok"
    assert answer["dimensions"]["dataset_record_id"] == row["record"]
    for label, theirs in row["evaluations"].items():
        ours = answer["metrics"][label]
        assert ours["status"] == ("ERROR" if theirs["failed"] else "OK")
        assert ours["value"] == stored(theirs)
        assert ours.get("assessment") == theirs["assessment"] and ours.get("reasoning") == theirs["reasoning"]
