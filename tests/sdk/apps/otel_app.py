"""An agent with OpenTelemetry: GenAI spans written by hand, and those of the instrumentation that the argument names.
The model is a fake one on loopback. Sends to OTLP_ENDPOINT; prints the application and its spans, as JSON."""
import json
import os
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor
from opentelemetry.trace import Link, Status, StatusCode


class Model(BaseHTTPRequestHandler):
    """Requests a tool call until there is a result, then answers; fails on request."""

    def log_message(self, *_):
        pass

    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        last = request["messages"][-1]
        if last["content"] == "FAIL":
            return self.answer(500, {"error": {"message": "the model is down", "type": "server_error"}})
        call = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Zürich"}'}}
        message = {"role": "assistant", "content": "18 degrees ☀"} if last["role"] == "tool" else {"role": "assistant", "content": None, "tool_calls": [call]}
        self.answer(200, {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": request["model"] + "-2026",
                          "choices": [{"index": 0, "message": message, "finish_reason": "stop" if message["content"] else "tool_calls"}],
                          "usage": {"prompt_tokens": 12, "completion_tokens": 7, "total_tokens": 19}})

    def answer(self, status, body):
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def by_hand(tracer):
    """The GenAI conventions with messages in an event, below a span of a web server that is not stored."""
    with tracer.start_as_current_span("GET /weather", attributes={"http.route": "/weather"}):
        with tracer.start_as_current_span("invoke_agent weather_agent", attributes={"gen_ai.operation.name": "invoke_agent", "gen_ai.conversation.id": "conv-1"}):
            chat = {"gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai", "gen_ai.request.model": "gpt-4.1", "gen_ai.usage.input_tokens": 12}
            with tracer.start_as_current_span("chat gpt-4.1", attributes=chat) as span:
                span.add_event("gen_ai.client.inference.operation.details", {
                    "gen_ai.input.messages": json.dumps([{"role": "user", "parts": [{"type": "text", "content": "Weather?"}]}]),
                    "gen_ai.output.messages": json.dumps([{"role": "assistant", "parts": [{"type": "tool_call", "id": "c1", "name": "weather", "arguments": {"city": "Zürich"}}]}])})
                context = span.get_span_context()
            with tracer.start_as_current_span("POST", attributes={"http.route": "/tools"}):
                tool = {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "weather", "gen_ai.tool.call.id": "c1", "gen_ai.tool.call.arguments": '{"city":"Zürich"}'}
                with tracer.start_as_current_span("execute_tool weather", attributes=tool, links=[Link(context, {"from": "output", "to": "input"})]) as span:
                    span.record_exception(TimeoutError("weather service timed out"))
                    span.set_status(Status(StatusCode.ERROR, "weather service timed out"))


def instrumented(tracer):
    """A tool loop through the OpenAI client."""
    import openai
    server = ThreadingHTTPServer(("127.0.0.1", 0), Model)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    client = openai.OpenAI(api_key="none", base_url=f"http://127.0.0.1:{server.server_port}/v1", max_retries=0)
    messages = [{"role": "user", "content": "Weather in Zürich?"}]
    tools = [{"type": "function", "function": {"name": "weather", "description": "The weather.", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}}]
    with tracer.start_as_current_span("invoke_agent weather_agent", attributes={"gen_ai.operation.name": "invoke_agent"}):
        answer = client.chat.completions.create(model="gpt-4.1", messages=messages, tools=tools, temperature=0.5).choices[0].message
        messages += [answer.model_dump(exclude_none=True), {"role": "tool", "tool_call_id": "call_1", "content": "18"}]
        client.chat.completions.create(model="gpt-4.1", messages=messages, tools=tools)
        try:
            client.chat.completions.create(model="gpt-4.1", messages=[{"role": "user", "content": "FAIL"}])
        except openai.InternalServerError:
            pass


which = sys.argv[1]
app = f"otel-{which}"
provider = TracerProvider(resource=Resource.create({"service.name": app, "deployment.environment.name": "test"}))
exporter = OTLPSpanExporter(endpoint=os.environ["OTLP_ENDPOINT"], compression=Compression.Gzip)
# One span per request for hand-written spans: children arrive before their parents.
provider.add_span_processor(SimpleSpanProcessor(exporter) if which == "by_hand" else BatchSpanProcessor(exporter))
trace.set_tracer_provider(provider)
if which == "openinference":
    from openinference.instrumentation.openai import OpenAIInstrumentor
    OpenAIInstrumentor().instrument(tracer_provider=provider)
elif which == "openllmetry":
    from opentelemetry.instrumentation.openai import OpenAIInstrumentor
    OpenAIInstrumentor().instrument(tracer_provider=provider)
(by_hand if which == "by_hand" else instrumented)(trace.get_tracer("app"))
provider.shutdown()
print(json.dumps({"app": app}))
