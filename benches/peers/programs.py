"""The three programs: how to start each, send to it and search in it."""

import http.client
import json
import os
import signal
import socket
import subprocess
import time
import urllib.parse
from pathlib import Path

import spans

APP = "support-bot"


class Program:
    """A server on a free loopback port, in its own directory."""

    name = ""
    # The description in the document.
    remark = ""
    intake = "/evp_proxy/v2/api/v2/llmobs"
    content_type = "application/json"
    body = staticmethod(spans.datadog)

    def __init__(self, work):
        self.directory = Path(work) / self.name.replace(" ", "-")
        self.directory.mkdir()
        self.port = free_port()
        with open(self.directory / "log", "wb") as log:
            self.process = subprocess.Popen(
                [str(part) for part in self.command()], cwd=self.directory, env=os.environ | self.environment(),
                stdout=log, stderr=log, stdin=subprocess.DEVNULL,
            )
        self.client = Client(self.port)
        self.wait_until_up()

    def environment(self):
        return {}

    def wait_until_up(self):
        for _ in range(600):
            try:
                Client(self.port).call("GET", self.health)
                return
            except OSError:
                if self.process.poll() is not None:
                    break
                time.sleep(0.2)
        raise SystemExit(f"{self.name} did not start:\n{(self.directory / 'log').read_text()[-2000:]}")

    def stop(self):
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def wait_until_kept(self, count):
        """Returns when all sent spans can be found: here, when they are acknowledged."""


class Ours(Program):
    name = "llmobs-mcp"
    health = "/info"
    remark = "acknowledges what is flushed to the disk"
    search = "/api/v2/llm-obs/v1/spans/events/search"

    def command(self):
        return [self.binary, "local", "--data-dir", self.directory / "data", "--listen", f"127.0.0.1:{self.port}"]

    def ask(self, filters):
        attributes = {"filter": filters | {"from": "2026-01-01T00:00:00Z", "to": "2027-01-01T00:00:00Z"}, "page": {"limit": 50}}
        answer = self.client.json("POST", self.search, {"data": {"type": "spans", "attributes": attributes}})
        return [row["attributes"]["span_id"] for row in answer["data"]]

    def newest(self):
        return self.ask({"ml_app": APP})

    def failed_tools(self):
        return self.ask({"query": f'@ml_app:"{APP}" @meta.span.kind:tool @status:error'})

    def words(self, text):
        return self.ask({"query": f'@ml_app:"{APP}" @meta.span.kind:llm "{text}"'})


class TestAgent(Program):
    name = "test agent"
    health = "/info"
    remark = "keeps spans in memory only"
    list = "/api/unstable/llm-obs-query-rewriter/list?type=llmobs"

    def command(self):
        # It stores all requests that are sent; the ports for OpenTelemetry are not used.
        return [
            self.environment_directory / "bin/python", "-m", "lapdog.server", "--host", "127.0.0.1", "--port", self.port,
            "--otlp-http-port", free_port(), "--otlp-grpc-port", free_port(), "--disable-llmobs-data-forwarding",
            "--max-requests", 1_000_000, "--log-level", "ERROR",
        ]

    # It treats quotes around the value of a field as part of the value.
    def ask(self, query):
        answer = self.client.json("POST", self.list, {"list": {"limit": 50, "search": {"query": query}}})
        return [row["event"]["span_id"] for row in answer["result"]["events"]]

    def newest(self):
        return self.ask(f'@ml_app:{APP}')

    def failed_tools(self):
        return self.ask(f'@ml_app:{APP} @meta.span.kind:tool @status:error')

    def words(self, text):
        return self.ask(f'@ml_app:{APP} @meta.span.kind:llm "{text}"')


class Phoenix(Program):
    name = "Phoenix"
    health = "/healthz"
    remark = "SQLite; acknowledges what is queued, so its time ends when all spans can be counted"
    intake = "/v1/traces"
    content_type = "application/x-protobuf"
    body = staticmethod(spans.openinference)
    words_query = """query($id: ID!, $condition: String!) { node(id: $id) { ... on Project {
        spans(first: 50, sort: {col: startTime, dir: desc}, filterCondition: $condition) { edges { node {
            spanId name spanKind statusCode startTime latencyMs attributes input { value } output { value } } } } } } }"""

    def command(self):
        return [self.environment_directory / "bin/phoenix", "serve"]

    def environment(self):
        return {
            "PHOENIX_WORKING_DIR": str(self.directory),
            "PHOENIX_HOST": "127.0.0.1",
            "PHOENIX_PORT": str(self.port),
            "PHOENIX_GRPC_PORT": str(free_port()),
            "PHOENIX_TELEMETRY_ENABLED": "false",
            # By default it refuses spans while 20,000 are queued.
            "PHOENIX_MAX_SPANS_QUEUE_SIZE": "1000000",
        }

    def projects(self):
        answer = self.client.json("POST", "/graphql", {"query": "{ projects { edges { node { id name recordCount } } } }"})
        return [edge["node"] for edge in answer["data"]["projects"]["edges"]]

    def wait_until_kept(self, count):
        while sum(project["recordCount"] for project in self.projects()) < count:
            time.sleep(1)

    def ask(self, **filters):
        filters |= {"limit": 50, "sort": "start_time", "order": "desc"}
        answer = self.client.json("GET", f"/v1/projects/{APP}/spans?{urllib.parse.urlencode(filters)}")
        return [decimal(row["context"]["span_id"]) for row in answer["data"]]

    def newest(self):
        return self.ask()

    def failed_tools(self):
        return self.ask(span_kind="TOOL", status_code="ERROR")

    def words(self, text):
        project = next(project["id"] for project in self.projects_once() if project["name"] == APP)
        variables = {"id": project, "condition": f"'{text}' in input.value and span_kind == 'LLM'"}
        answer = self.client.json("POST", "/graphql", {"query": self.words_query, "variables": variables})
        return [decimal(edge["node"]["spanId"]) for edge in answer["data"]["node"]["spans"]["edges"]]

    def projects_once(self):
        if not hasattr(self, "known"):
            self.known = self.projects()
        return self.known


class Client:
    """One persistent connection."""

    def __init__(self, port):
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)

    def call(self, method, path, body=None, content_type="application/json"):
        self.connection.request(method, path, body, {"content-type": content_type} if body else {})
        answer = self.connection.getresponse()
        read = answer.read()
        if answer.status >= 300:
            raise SystemExit(f"{method} {path}: {answer.status} {read[:500]}")
        return read

    def json(self, method, path, body=None):
        return json.loads(self.call(method, path, json.dumps(body).encode() if body else None))


def decimal(span_id):
    return str(int(span_id, 16))


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
