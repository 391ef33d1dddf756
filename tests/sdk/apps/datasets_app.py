"""Large and uploaded datasets with the real SDK; prints what it reads back."""
import csv
import json
import os
import tempfile

from setup import LLMObs

PROJECT = "datasets"
many = [{"input_data": {"n": n}, "expected_output": n * n, "metadata": {"n": n}, "tags": [f"half:{n % 2}"]} for n in range(1200)]
LLMObs.create_dataset(dataset_name="many", project_name=PROJECT, records=many)
LLMObs.create_dataset(dataset_name="bulk", project_name=PROJECT, records=many[:300], bulk_upload=True)
with tempfile.TemporaryDirectory() as directory:
    path = os.path.join(directory, "questions.csv")
    with open(path, "w", newline="") as f:
        writer = csv.writer(f)
        writer.writerow(["question", "answer", "topic"])
        writer.writerows([f"What, \"exactly\",\nis {n}?", f"ünswer {n}", "a,b"] for n in range(50))
    LLMObs.create_dataset_from_csv(path, "from-csv", ["question"], ["answer"], ["topic"], project_name=PROJECT)
read = {name: LLMObs.pull_dataset(name, project_name=PROJECT) for name in ("many", "bulk", "from-csv")}
half = LLMObs.pull_dataset("many", project_name=PROJECT, tags=["half:1"])
gone = read["bulk"]._id
LLMObs._delete_dataset(gone)
try:
    LLMObs.pull_dataset("bulk", project_name=PROJECT)
    deleted = False
except ValueError:
    deleted = True
print(json.dumps({"sizes": {name: len(ds) for name, ds in read.items()}, "half": len(half), "deleted": deleted,
                  "order": [r["input_data"]["n"] for r in read["many"]], "versions": {name: ds.version for name, ds in read.items()},
                  "csv": {k: read["from-csv"][7][k] for k in ("input_data", "expected_output", "metadata")}}))
