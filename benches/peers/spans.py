"""The exported spans as request bodies of each program, generated before the measurement."""

import json

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

# OpenTelemetry's batch processor sends 512 spans at a time; the Datadog intakes get as many as our own benchmarks send.
BATCH = 500

KINDS = {
    "llm": "LLM",
    "tool": "TOOL",
    "retrieval": "RETRIEVER",
    "embedding": "EMBEDDING",
    "agent": "AGENT",
    "workflow": "CHAIN",
    "task": "CHAIN",
}


def load(file):
    with open(file, encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def batches(spans):
    return [spans[at : at + BATCH] for at in range(0, len(spans), BATCH)]


def datadog(batch):
    """As the Python SDK sends it: an envelope for each span."""
    envelopes = [{"_dd.stage": "raw", "_dd.tracer_version": "4.16.0", "event_type": "span", "spans": [span]} for span in batch]
    return json.dumps(envelopes, separators=(",", ":")).encode()


def openinference(batch):
    """As an OpenTelemetry exporter sends it, with OpenInference's attributes; each application is a project."""
    request = ExportTraceServiceRequest()
    by_app = {}
    for span in batch:
        app = app_of(span)
        if app not in by_app:
            resource = request.resource_spans.add()
            put(resource.resource.attributes, "openinference.project.name", app)
            put(resource.resource.attributes, "service.name", f"{app}-api")
            by_app[app] = resource.scope_spans.add()
            by_app[app].scope.name = "openinference.instrumentation"
        by_app[app].spans.append(otel_span(span))
    return request.SerializeToString()


def app_of(span):
    return next(tag[7:] for tag in span["tags"] if tag.startswith("ml_app:"))


def otel_span(span):
    meta = span["meta"]
    made = Span(
        trace_id=bytes.fromhex(span["trace_id"]),
        span_id=int(span["span_id"]).to_bytes(8, "big"),
        name=span["name"],
        kind=Span.SPAN_KIND_INTERNAL,
        start_time_unix_nano=span["start_ns"],
        end_time_unix_nano=span["start_ns"] + span["duration"],
        status=Status(code=Status.STATUS_CODE_ERROR if span["status"] == "error" else Status.STATUS_CODE_OK),
    )
    if span["parent_id"] != "undefined":
        made.parent_span_id = int(span["parent_id"]).to_bytes(8, "big")
    attributes = made.attributes
    put(attributes, "openinference.span.kind", KINDS[meta["span"]["kind"]])
    put(attributes, "session.id", span["session_id"])
    put(attributes, "tag.tags", span["tags"])
    sides(attributes, meta)
    if "model_name" in meta:
        put(attributes, "llm.model_name", meta["model_name"])
        put(attributes, "llm.provider", meta["model_provider"])
    metrics = span["metrics"]
    for key, name in [("input_tokens", "prompt"), ("output_tokens", "completion"), ("total_tokens", "total")]:
        if key in metrics:
            put(attributes, f"llm.token_count.{name}", metrics[key])
    if "metadata" in meta:
        put(attributes, "metadata", json.dumps(meta["metadata"]))
    if "error" in meta:
        event = made.events.add(name="exception", time_unix_nano=made.end_time_unix_nano)
        for key, value in meta["error"].items():
            put(event.attributes, {"type": "exception.type", "message": "exception.message", "stack": "exception.stacktrace"}[key], value)
    return made


def sides(attributes, meta):
    """Each text once, where Phoenix searches for it; instrumentations send those of model calls twice."""
    given, got = meta["input"], meta["output"]
    if "messages" in given:
        put(attributes, "llm.input_messages.0.message.role", "system")
        put(attributes, "llm.input_messages.0.message.content", given["messages"][0]["content"])
        put(attributes, "input.value", given["messages"][1]["content"])
        put(attributes, "output.value", got["messages"][0]["content"])
        put(attributes, "llm.prompt_template.version", given["prompt"]["version"])
        return
    if "documents" in given:
        put(attributes, "embedding.embeddings.0.embedding.text", given["documents"][0]["text"])
    else:
        put(attributes, "input.value", given["value"])
    if "documents" in got:
        document = got["documents"][0]
        put(attributes, "retrieval.documents.0.document.content", document["text"])
        put(attributes, "retrieval.documents.0.document.id", document["id"])
        put(attributes, "retrieval.documents.0.document.score", document["score"])
    else:
        put(attributes, "output.value", got["value"])


def put(attributes, key, value):
    made = attributes.add(key=key).value
    if isinstance(value, str):
        made.string_value = value
    elif isinstance(value, int):
        made.int_value = value
    elif isinstance(value, float):
        made.double_value = value
    else:
        for one in value:
            made.array_value.values.add(string_value=one)
