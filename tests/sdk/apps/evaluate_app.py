"""Sends evaluations of spans of others; the argument is a list of what `submit_evaluation` is called with, as JSON."""
import json
import sys

from setup import LLMObs, flush

evaluations = json.loads(sys.argv[1])
for evaluation in evaluations:
    LLMObs.submit_evaluation(**evaluation)
flush()
print(json.dumps({"submitted": len(evaluations)}))
