"""Runs `experiments_app.py` as it is; prints what that printed, and the results that the SDK has at the end."""
import contextlib
import io
import json
import pathlib
import runpy

from told import records, told

with contextlib.redirect_stdout(io.StringIO()) as printed:
    left = runpy.run_path(str(pathlib.Path(__file__).with_name("experiments_app.py")), run_name="__main__")
dataset, filtered = left["ds"], left["ds_f"]
print(json.dumps({
    "printed": printed.getvalue(), "project": dataset.project["_id"], "dataset": dataset._id, "version": dataset.version,
    "records": records(dataset), "filtered": {"version": filtered.version, "records": records(filtered)}, "pulled": told(left["p"]),
    "listed": [e["id"] for e in left["lst"]], "prompt": left["pr"].template,
    "experiments": {"baseline": told(left["e"]), "candidate": told(left["e2"]), "rerun": told(left["r"])}}))
