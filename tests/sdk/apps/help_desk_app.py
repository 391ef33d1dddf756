"""Two experiments over a dataset of 1,200 records from a CSV file, and a re-run of evaluators, with the real SDK; prints what the SDK computed."""
import collections
import csv
import json
import os
import random
import tempfile

from setup import LLMObs, flush
from told import records, told

from ddtrace.llmobs import _experiment as X

PROJECT = "help-desk"
RECORDS = 1200
LANGS = ("en", "de", "fr", "es")
TOPICS = ("refund", "label", "damage", "gift", "shipping")


with tempfile.TemporaryDirectory() as directory:
    path = os.path.join(directory, "questions.csv")
    with open(path, "w", newline="") as f:
        writer = csv.writer(f)
        writer.writerow(["question", "number", "answer", "topic"])
        writer.writerows([f"What about \"{TOPICS[n % 5]}\", order {n}?", n, f"answer {n % 7}", TOPICS[n % 5]] for n in range(RECORDS))
    dataset = LLMObs.create_dataset_from_csv(path, "questions", ["question", "number"], ["answer"], ["topic"], project_name=PROJECT)
for index in range(len(dataset)):
    number = int(dataset[index]["input_data"]["number"])
    dataset.add_tags(index, [f"lang:{LANGS[number % 4]}", f"topic:{TOPICS[number % 5]}"])
dataset.push()
dataset = LLMObs.pull_dataset("questions", project_name=PROJECT)

asked = collections.Counter()


def right(model, number, turn):
    lang = LANGS[number % 4]
    share = {"large": {"de": 0.9}, "small": {"de": 0.45}}[model].get(lang, 0.85)
    return random.Random(f"{model}/{number}/{turn}").random() < share


def task(input_data, config):
    model, number = config["model"], int(input_data["number"])
    asked[model, number] += 1
    if number % 100 == 0:
        LLMObs.flush()  # this model answers at once, and the SDK drops spans when 1,000 are queued
    with LLMObs.llm(model_name=model, model_provider="none", name="answer"):
        if number % 97 == 5:
            raise TimeoutError("the model did not answer")
        if model == "small" and number % 150 == 3:
            raise KeyError("topic")
        text = f"answer {number % 7}" if right(model, number, asked[model, number]) else "another answer"
        words = 5 + number % 11 * (2 if model == "large" else 1)
        LLMObs.annotate(input_data=input_data["question"], output_data=text,
                        metrics={"input_tokens": len(input_data["question"]), "output_tokens": words, "total_tokens": len(input_data["question"]) + words})
    return {"answer": text, "words": words}


def correct(input_data, output_data, expected_output):
    return bool(output_data) and output_data["answer"] == expected_output["answer"]


def helpfulness(input_data, output_data, expected_output):
    noise = random.Random(f"{input_data['number']}/{output_data}").uniform(-0.2, 0.2)
    score = (0.8 if correct(input_data, output_data, expected_output) else 0.3) + noise
    return X.EvaluatorResult(value=score, assessment="pass" if score >= 0.6 else "fail", reasoning=f"scored {score:.2f}", tags={"judge": "rules"})


def tone(input_data, output_data, expected_output):
    return "Terse" if (output_data or {}).get("words", 0) < 12 else "Friendly"


def rubric(input_data, output_data, expected_output):
    return {"grounded": correct(input_data, output_data, expected_output), "words": (output_data or {}).get("words", 0), "note": "x"}


def brittle(input_data, output_data, expected_output):
    if int(input_data["number"]) % 41 == 0:
        raise ZeroDivisionError("division by zero in evaluator")
    return int(input_data["number"]) % 13


def strict(input_data, output_data, expected_output):
    return (output_data or {}).get("words", 0) < 10


def correct_and_short(input_data, output_data, expected_output):
    return correct(input_data, output_data, expected_output) and output_data["words"] < 24


correct_and_short.__name__ = "correct"


def accuracy(inputs, outputs, expected_outputs, evaluators_results):
    values = [v for v in evaluators_results["correct"] if v is not None]
    return sum(values) / len(values)


experiments = {}
for name, model, runs in (("baseline", "large", 1), ("candidate", "small", 2)):
    experiments[name] = LLMObs.experiment(name=f"help-{name}", task=task, dataset=dataset, project_name=PROJECT, config={"model": model}, runs=runs,
                                          evaluators=[correct, helpfulness, tone, rubric, brittle], summary_evaluators=[accuracy])
    experiments[name].run(jobs=4, raise_errors=False)
    flush()
experiments["rerun"] = experiments["baseline"].rerun_evaluators(evaluators=[correct_and_short, strict], missing_task_strategy="skip")
flush()
print(json.dumps({
    "project": dataset.project["_id"], "dataset": dataset._id, "version": dataset.version,
    "records": records(dataset), "experiments": {name: told(experiment) for name, experiment in experiments.items()}}))
