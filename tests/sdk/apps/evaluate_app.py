"""Sends evaluations of existing spans; the argument is a JSON list of the arguments of `submit_evaluation`."""
import json
import sys

from setup import LLMObs, flush

evaluations = json.loads(sys.argv[1])
for evaluation in evaluations:
    LLMObs.submit_evaluation(**evaluation)
flush()
print(json.dumps({"submitted": len(evaluations)}))
