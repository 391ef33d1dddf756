"""Datasets, experiments, evaluators, a re-run and the prompt registry with the real SDK; prints what the SDK saw."""
import json

from setup import LLMObs, flush

from ddtrace.llmobs import _experiment as X

CITIES = [("France", "Paris", "eu"), ("Chad", "N'Djamena", "africa"), ("Peru", "Lima", "latam"), ("Nauru", "Yaren", "oceania"),
          ("Japan", "Tokyo", "asia"), ("Boom", "error", "none"), ("Italy", "Rome", "eu")]
KNOWN = {"France": "Paris", "Japan": "Tokyo", "Italy": "Milan", "Nauru": "Yaren"}
PROJECT = f"geo-{LLMObs._instance._ml_app if hasattr(LLMObs._instance, '_ml_app') else 'sdk'}"

ds = LLMObs.create_dataset(dataset_name="capitals", project_name=PROJECT, description="country capitals", records=[
    {"input_data": {"country": c}, "expected_output": a, "metadata": {"idx": i}, "tags": [f"region:{r}"]} for i, (c, a, r) in enumerate(CITIES)])
ds.append({"input_data": {"country": "Kenya"}, "expected_output": "Nairobi", "metadata": {}, "tags": ["region:africa"]})
ds.update(0, {"expected_output": "Paris, France"})
ds.add_tags(1, ["reviewed:true"])
ds.delete(2)
ds.push()
ds = LLMObs.pull_dataset("capitals", project_name=PROJECT)
first = LLMObs.pull_dataset("capitals", project_name=PROJECT, tags=["region:africa"], version=1)


def task(input_data, config=None):
    with LLMObs.llm(model_name="m", model_provider="openai", name="ask"):
        if input_data["country"] == "Boom":
            raise TimeoutError("model timed out")
        LLMObs.annotate(input_data="q", output_data="a", metrics={"input_tokens": 20, "output_tokens": 3, "total_tokens": 23})
    return KNOWN.get(input_data["country"], "unknown")


def exact(input_data, output_data, expected_output):
    return output_data == expected_output


def length(input_data, output_data, expected_output):
    return len(str(output_data)) / 10


def verdict(input_data, output_data, expected_output):
    ok = output_data == expected_output
    return X.EvaluatorResult(value="Correct" if ok else "Wrong", reasoning="compared", assessment="pass" if ok else "fail", tags={"judge": "rules"})


def detail(input_data, output_data, expected_output):
    return {"chars": len(str(output_data))}


def crashy(input_data, output_data, expected_output):
    if input_data["country"] == "Nauru":
        raise ZeroDivisionError("division by zero in evaluator")
    return 1


def accuracy(inputs, outputs, expected_outputs, evaluators_results):
    values = [v for v in evaluators_results["exact"] if v is not None]
    return sum(bool(v) for v in values) / len(values)


experiment = LLMObs.experiment(name="baseline", task=task, dataset=ds, project_name=PROJECT, tags={"branch": "main"}, config={"model": "m"}, runs=2,
                               evaluators=[exact, length, verdict, detail, crashy, X.RemoteEvaluator(eval_name="goal-completeness")], summary_evaluators=[accuracy])
result = experiment.run(jobs=2, raise_errors=False)
flush()
pulled = LLMObs.pull_experiment(experiment._id)
pulled.rerun_evaluators(evaluators=[exact, verdict], missing_task_strategy="skip")
LLMObs.create_prompt("greeting", [{"role": "system", "content": "You greet {{user}}."}], title="Greeting", user_version="v1", labels=["production"])
prompt = LLMObs.get_prompt("greeting")
rows = [row for run in result["runs"] for row in run.rows]
print(json.dumps({
    "project": PROJECT, "experiment": experiment._id, "pulled": len(ds), "filtered": len(first), "version": ds.version,
    "failed": [row["span_id"] for row in rows if (row["error"] or {}).get("type")],
    "rows": {row["span_id"]: {name: e["value"] for name, e in row["evaluations"].items()} for row in rows},
    "summary": {name: e["value"] for name, e in result["runs"][0].summary_evaluations.items()},
    "pulled_rows": {row["span_id"]: {name: e["value"] for name, e in row["evaluations"].items()} for row in pulled.result["runs"][0].rows},
    "listed": [e["experiment"] for e in LLMObs.list_experiments(project_name=PROJECT)],
    "prompt": [prompt.id, prompt.version, prompt.source],
}))
