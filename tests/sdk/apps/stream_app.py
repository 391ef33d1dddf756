"""Sends one trace after the other until the receiver ends; prints each trace id when its spans are acknowledged."""
import os
import sys

os.environ["_DD_LLMOBS_WRITER_INTERVAL"] = "600"  # only this file sends
from setup import LLMObs

writer = LLMObs._instance._llmobs_span_writer
send = writer._send_payload
acknowledged = []


def send_once(payload, num_events):
    answer = send(payload, num_events)
    acknowledged.append(200 <= answer.status < 300)
    return answer


writer._send_payload = send_once
writer._send_payload_with_retry = send_once  # the receiver does not return: do not wait for it
for number in range(int(sys.argv[1])):
    with LLMObs.workflow("turn"):
        trace = LLMObs.export_span()["trace_id"]
        for step in range(4):
            with LLMObs.tool(f"step_{step}"):
                LLMObs.annotate(input_data={"number": number, "step": step}, output_data="x" * 500)
    acknowledged.clear()
    writer.periodic()
    if not acknowledged or not all(acknowledged):
        break
    print(trace, flush=True)
os._exit(0)  # no last flush: the receiver has ended
