"""One local backend and one MCP server over HTTP for all tests; the SDK has sent to it in each of its modes."""
import json
import os
import urllib.request

import pytest

import support

pytest.register_assert_rewrite("experiment_checks")


def pytest_configure(config):
    if not os.environ.get("LLMOBS_MCP_BIN"):
        raise pytest.UsageError("LLMOBS_MCP_BIN names no binary; start the tests with tests/sdk/run")


@pytest.fixture(scope="session")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="session")
def local(home, tmp_path_factory):
    with support.local(home, tmp_path_factory.mktemp("store")) as api:
        yield api


@pytest.fixture(scope="session")
def site(home, tmp_path_factory):
    """A double of a Datadog site with sign-in."""
    with support.double(home / "site", tmp_path_factory.mktemp("site"), "--sign-in") as api:
        yield api


@pytest.fixture(scope="session")
def info(local):
    with urllib.request.urlopen(local.url + "/info", timeout=10) as answer:
        return json.load(answer)


@pytest.fixture(scope="session")
def sent(local, home):
    """The ids that the SDK sent, by mode."""
    return {mode: support.run_app("agent_app.py", mode, local, home) for mode in support.MODES}


@pytest.fixture(scope="session")
def mcp(local, home, sent):
    with support.serve_http(home, local) as server:
        yield server


@pytest.fixture(scope="session")
def call(mcp, local, home):
    """Calls a tool in all three ways and returns the answer; the three must be equal byte for byte."""
    def all_three(tool, arguments):
        over_http = support.over_http(mcp, tool, arguments)
        over_stdio = support.over_stdio(local, home, tool, arguments)
        over_call = support.over_call(local, home, tool, arguments)
        assert over_stdio == over_http, "stdio and HTTP differ"
        assert over_call == over_http, "`call` and HTTP differ"
        return json.loads(over_http)
    return all_three
