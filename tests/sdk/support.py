"""Starts llmobs-mcp and calls its tools in the three ways that users have: stdio, HTTP and `call`."""
import asyncio
import contextlib
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time
import urllib.parse
import urllib.request

from mcp import StdioServerParameters
from mcp.client import Client

HERE = pathlib.Path(__file__).parent
BINARY = os.environ.get("LLMOBS_MCP_BIN", "")
DOUBLE = os.environ.get("LLMOBS_MCP_DOUBLE_BIN", "")
ADDRESS = r"http://127\.0\.0\.1:(\d+)"


def clean_environment(home):
    """An environment without settings of this machine or its user."""
    env = {k: v for k, v in os.environ.items() if not k.upper().startswith(("DD_", "_DD_", "LLMOBS_", "OTEL_")) and not k.upper().endswith("_PROXY")}
    env.update(HOME=str(home), XDG_CONFIG_HOME=str(home / "config"), XDG_DATA_HOME=str(home / "data"), XDG_STATE_HOME=str(home / "state"), XDG_CACHE_HOME=str(home / "cache"))
    return env


class Process:
    """A running `llmobs-mcp` or double. The port is read from the address that it prints before `path`."""

    def __init__(self, home, *arguments, path="", binary=BINARY):
        home.mkdir(parents=True, exist_ok=True)
        self.log = home / f"stderr-{time.monotonic_ns()}.log"
        self.env = clean_environment(home)
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen([binary, *arguments], env=self.env, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.port = self._wait_for_port(re.compile(ADDRESS + re.escape(path)))
        self.url = f"http://127.0.0.1:{self.port}"

    def _wait_for_port(self, address, seconds=30):
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            text = self.log.read_text(errors="replace")
            ports = [int(port) for port in address.findall(text) if port != "0"]
            if ports:
                return ports[0]
            if self.process.poll() is not None:
                raise AssertionError(f"llmobs-mcp ended with {self.process.returncode}:\n{text}")
            time.sleep(0.02)
        self.stop()
        raise AssertionError(f"llmobs-mcp named no address within {seconds} s:\n{self.log.read_text(errors='replace')}")

    def ports(self):
        """The ports of all listeners, in the order in which they are printed."""
        return [int(port) for port in dict.fromkeys(re.findall(ADDRESS, self.log.read_text(errors="replace")))]

    def wait_until_answering(self, path, seconds=30):
        deadline = time.monotonic() + seconds
        while True:
            try:
                with urllib.request.urlopen(self.url + path, timeout=5) as answer:
                    return answer.read()
            except OSError:
                if time.monotonic() > deadline or self.process.poll() is not None:
                    raise AssertionError(f"{self.url}{path} does not answer:\n{self.log.read_text(errors='replace')}") from None
                time.sleep(0.05)

    def kill(self):
        """Kills the process without a chance to clean up."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(10)

    def stop(self):
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.kill()


@contextlib.contextmanager
def running(home, *arguments, health, path="", binary=BINARY):
    process = Process(home, *arguments, path=path, binary=binary)
    try:
        process.wait_until_answering(health)
        yield process
    finally:
        process.stop()


def local(home, data_dir, *extra):
    return running(home, "local", "--listen", "127.0.0.1:0", "--data-dir", str(data_dir), *extra, health="/info")


def double(home, data_dir, *extra):
    """A double of a Datadog site over local data."""
    return running(home, "--listen", "127.0.0.1:0", "--data-dir", str(data_dir), *extra, health="/info", binary=DOUBLE)


def serve_http(home, api):
    return running(home, "serve", "--http", "127.0.0.1:0", "--api-url", api.url, health="/healthz", path="/mcp")


# --- the SDK that sends ---------------------------------------------------------------------------
MODES = ("agentless", "evp_v2", "evp_v4", "apm")


def sdk_environment(mode, api, home):
    env = clean_environment(home)
    env.update(DD_INSTRUMENTATION_TELEMETRY_ENABLED="false", DD_REMOTE_CONFIGURATION_ENABLED="false", DD_TRACE_STARTUP_LOGS="false",
               DD_CRASHTRACKING_ENABLED="false", DD_TRACE_GIT_METADATA_ENABLED="false", DD_TRACE_AGENT_URL=api.url, SDK_MODE=mode)
    if mode == "agentless":
        env.update(DD_LLMOBS_AGENTLESS_ENABLED="1", DD_LLMOBS_OVERRIDE_ORIGIN=api.url, DD_API_KEY="none", DD_APP_KEY="none")
    else:
        env.update(DD_LLMOBS_AGENTLESS_ENABLED="0")
        if mode != "apm":
            env.update(DD_APM_TRACING_ENABLED="false")
    return env


def printed_by(name, mode, api, home, *arguments, timeout=120):
    """Runs a program of apps/ and returns its output. A warning of the SDK fails the test."""
    done = subprocess.run([sys.executable, str(HERE / "apps" / name), *arguments], env=sdk_environment(mode, api, home), capture_output=True, text=True, timeout=timeout)
    assert done.returncode == 0, done.stderr
    assert "failed to send" not in done.stderr and "Traceback" not in done.stderr, done.stderr
    return done.stdout


def run_app(name, mode, api, home, argument=None, timeout=120):
    """The JSON that an app prints."""
    arguments = [] if argument is None else [json.dumps(argument)]
    return json.loads(printed_by(name, mode, api, home, *arguments, timeout=timeout))


def spans_of(api, app):
    """All spans of an application by start time, from the documented search."""
    filters = urllib.parse.urlencode({"filter[ml_app]": app, "filter[from]": "now-1h", "sort": "timestamp", "page[limit]": 100})
    with urllib.request.urlopen(f"{api.url}/api/v2/llm-obs/v1/spans/events?{filters}", timeout=10) as answer:
        return [item["attributes"] for item in json.load(answer)["data"]]


# --- the tools, called in three ways --------------------------------------------------------------
class ToolFailure(AssertionError):
    """The tool answered with isError."""


def text_of(result):
    assert len(result.content) == 1 and result.content[0].type == "text", result
    if result.is_error:
        raise ToolFailure(result.content[0].text)
    return result.content[0].text


async def _call(server, tool, arguments):
    async with Client(server) as client:
        return await client.call_tool(tool, arguments)


def over_stdio(api, home, tool, arguments):
    server = StdioServerParameters(command=BINARY, args=["serve", "--stdio", "--api-url", api.url], env=clean_environment(home))
    return text_of(asyncio.run(_call(server, tool, arguments)))


def over_http(mcp, tool, arguments):
    return text_of(asyncio.run(_call(mcp.url + "/mcp", tool, arguments)))


def over_call(api, home, tool, arguments):
    done = subprocess.run([BINARY, "call", tool, "--json", json.dumps(arguments), "--api-url", api.url], env=clean_environment(home), capture_output=True, timeout=60)
    if done.returncode == 1:
        raise ToolFailure(done.stdout.decode() + done.stderr.decode())
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode("utf-8").removesuffix("\n")
