"""Reads spans back with the SDK's own reader; arguments and answer are JSON."""
import json
import sys

from setup import LLMObs

print(json.dumps(LLMObs.get_spans(**json.loads(sys.argv[1]))))
