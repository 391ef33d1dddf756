"""The SDK's representation of experiments and datasets, as JSON."""


def told(experiment):
    """An experiment with its runs, row by row."""
    rows = []
    for run in experiment.result["runs"]:
        for row in run.rows:
            evaluations = {label: {"value": e["value"], "failed": bool(e.get("error")), "assessment": e.get("assessment"), "reasoning": e.get("reasoning")}
                           for label, e in row["evaluations"].items()}
            rows.append({"event": str(row["span_id"]), "trace": str(row["trace_id"]), "record": row["record_id"], "run": str(run.run_iteration), "error_type": (row["error"] or {}).get("type"),
                         "input": row["input"], "output": row["output"], "expected_output": row["expected_output"], "evaluations": evaluations})
    summaries = [{name: e["value"] for name, e in run.summary_evaluations.items()} for run in experiment.result["runs"]]
    return {"id": experiment._id, "rows": rows, "summaries": summaries}


def records(dataset):
    return [{"id": r["record_id"], "input": r["input_data"], "expected_output": r["expected_output"], "metadata": r["metadata"], "tags": r["tags"]} for r in dataset]
