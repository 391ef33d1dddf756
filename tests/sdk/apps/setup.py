"""Starts the SDK in the mode that the environment names. Imported by the apps."""
import os

from ddtrace import tracer
from ddtrace.llmobs import LLMObs

MODE = os.environ["SDK_MODE"]
APP = f"sdk-{MODE.replace('_', '-')}"

LLMObs.enable(ml_app=APP, service="sdk-tests", env="test", agentless_enabled=MODE == "agentless",
              api_key=os.environ.get("DD_API_KEY"), app_key=os.environ.get("DD_APP_KEY"), integrations_enabled=False)
if MODE == "evp_v4":  # the SDK uses v2 of the Agent's proxy; other Datadog libraries use v4
    for writer in (LLMObs._instance._llmobs_span_writer, LLMObs._instance._llmobs_eval_metric_writer):
        writer._endpoint = writer._endpoint.replace("/evp_proxy/v2", "/evp_proxy/v4")


def flush():
    """Returns once the receiver has acknowledged everything."""
    tracer.flush()
    LLMObs.flush()


def flush_evaluations():
    LLMObs._instance._llmobs_eval_metric_writer.periodic()
