"""MCP clients log in to `--auth oauth`: the Python client's OAuth provider, and the consent page in a real browser."""
import asyncio
import http.server
import json
import re
import socket
import subprocess
import threading
import urllib.error
import urllib.parse
import urllib.request

import httpx2
import pytest
from mcp.client import Client
from mcp.client.auth import AuthorizationCodeResult, OAuthClientProvider
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import OAuthClientMetadata

import support

KEY = "0123456789abcdef" * 4


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def server(site, tmp_path_factory):
    """A server with user sign-in over the double of Datadog. The two have different host names, so that a browser treats
    them as different sites."""
    home = tmp_path_factory.mktemp("oauth")
    home.joinpath("key").write_text(KEY)
    port = free_port()
    site_url = site.url.replace("127.0.0.1", "localhost")
    with support.running(home, "serve", "--http", f"127.0.0.1:{port}", "--auth", "oauth", "--public-url", f"http://127.0.0.1:{port}",
                         "--secret-key-file", str(home / "key"), "--api-url", site_url, "--datadog-sign-in",
                         health="/healthz", path="/mcp") as server:
        yield server


class Callback:
    """The redirect URI of the client: a loopback port, for one request."""

    def __enter__(self):
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                if self.path.startswith("/oauth/callback"):
                    outer.query = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(self.path).query))
                self.send_response(200)
                self.end_headers()
                self.wfile.write(b"You can close this window")

            def log_message(self, *_):
                pass

        self.query = {}
        self.listener = http.server.HTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.listener.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.listener.server_port}/oauth/callback"
        return self

    def __exit__(self, *_):
        self.listener.shutdown()
        self.listener.server_close()


class Storage:
    """The storage of the client."""

    tokens = client = None

    async def get_tokens(self):
        return self.tokens

    async def set_tokens(self, tokens):
        self.tokens = tokens

    async def get_client_info(self):
        return self.client

    async def set_client_info(self, client):
        self.client = client


def consent(url, decision="allow", fields=None):
    """Opens the page in a browser, fills it in and presses a button."""
    fields = {"token": "token-a"} if fields is None else fields
    done = subprocess.run(["node", str(support.HERE / "apps" / "consent.mjs"), url, decision, json.dumps(fields)],
                          capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert seen["complaints"] == [], "the browser minded the page's own policy"
    return seen


def provider(server, callback, storage, seen, path="/mcp", fields=None, decision="allow"):
    async def redirect(url):
        seen.append(await asyncio.to_thread(consent, url, decision, fields))

    async def answered():
        query = callback.query
        return AuthorizationCodeResult(code=query["code"], state=query.get("state"), iss=query.get("iss"))

    metadata = OAuthClientMetadata(client_name="Python client", redirect_uris=[callback.url])
    return OAuthClientProvider(server.url + path, metadata, storage, redirect_handler=redirect, callback_handler=answered)


async def listed(server, auth):
    async with httpx2.AsyncClient(auth=auth, timeout=30) as http_client:
        async with Client(streamable_http_client(server.url + "/mcp", http_client=http_client)) as client:
            return {tool.name for tool in (await client.list_tools()).tools}


async def called(server, auth, path="/mcp"):
    async with httpx2.AsyncClient(auth=auth, timeout=30) as http_client:
        async with Client(streamable_http_client(server.url + path, http_client=http_client)) as client:
            return support.text_of(await client.call_tool("search_llmobs_spans", {"limit": 1}))


def posted(url, **form):
    request = urllib.request.Request(url, urllib.parse.urlencode(form).encode())
    with urllib.request.urlopen(request, timeout=10) as answer:
        return answer.status, json.loads(answer.read())


def status(server, token, path="/mcp"):
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/list"}).encode()
    headers = {"authorization": f"Bearer {token}", "content-type": "application/json", "accept": "application/json, text/event-stream"}
    try:
        with urllib.request.urlopen(urllib.request.Request(server.url + path, body, headers), timeout=10) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


@pytest.mark.parametrize("path", ["/mcp", "/v1/mcp"])
def test_the_python_client_signs_in_refreshes_and_is_refused_after_revocation(path, server):
    storage, seen = Storage(), []
    with Callback() as callback:
        auth = provider(server, callback, storage, seen, path)
        assert "spans" in json.loads(asyncio.run(called(server, auth, path)))
        assert len(seen) == 1 and "Python client" in seen[0]["asked"]
        first = storage.tokens
        assert status(server, first.access_token, path) == 200
        assert status(server, first.access_token, "/api/unstable/mcp-server/mcp") == 401, "one address, one audience"

        # With an expired token the client refreshes without asking the user again.
        auth.context.token_expiry_time = 1
        asyncio.run(called(server, auth, path))
        assert storage.tokens.access_token != first.access_token and len(seen) == 1

    assert posted(server.url + "/oauth/revoke", token=storage.tokens.access_token, client_id=storage.client.client_id)[0] == 200
    assert status(server, storage.tokens.access_token, path) == 401
    assert status(server, first.access_token, path) == 401


def test_writing_tools_require_the_checkbox_of_the_consent_page(server):
    keys = {"api_key": "key-a", "application_key": "key-b"}
    with Callback() as callback:
        reader = asyncio.run(listed(server, provider(server, callback, Storage(), [], fields=keys)))
        writer = asyncio.run(listed(server, provider(server, callback, Storage(), [], fields={**keys, "write": True})))
    assert "search_llmobs_spans" in reader
    assert {"delete_llmobs_evaluator", "create_llmobs_experiment"} <= writer - reader


def test_a_user_signs_in_at_datadog_in_the_browser(server):
    storage, seen = Storage(), []
    with Callback() as callback:
        auth = provider(server, callback, storage, seen, fields={"write": True}, decision="datadog")
        assert "spans" in json.loads(asyncio.run(called(server, auth)))
        assert "delete_llmobs_evaluator" in asyncio.run(listed(server, auth))
    assert len(seen) == 1 and "Sign in at Datadog" in seen[0]["asked"]
    assert storage.tokens.scope == "llmobs:read llmobs:write"
    assert posted(server.url + "/oauth/revoke", token=storage.tokens.access_token, client_id=storage.client.client_id)[0] == 200
    assert status(server, storage.tokens.access_token) == 401


def test_denying_in_the_browser_sends_the_client_an_error(server):
    with Callback() as callback:
        client = posted_json(server.url + "/oauth/register", {"client_name": "A client", "redirect_uris": [callback.url]})
        query = urllib.parse.urlencode({
            "response_type": "code", "client_id": client["client_id"], "redirect_uri": callback.url, "state": "s",
            "code_challenge": "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM", "code_challenge_method": "S256"})
        seen = consent(f"{server.url}/oauth/authorize?{query}", "deny", {})
        assert "A client" in seen["asked"] and "it is not verified" in seen["asked"]
        assert callback.query["error"] == "access_denied" and "code" not in callback.query


def posted_json(url, body):
    request = urllib.request.Request(url, json.dumps(body).encode(), {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.loads(answer.read())


def test_no_secret_reaches_the_log(server):
    log = server.log.read_text()
    assert KEY not in log and "token-a" not in log and not re.search(r"llmobs_(at|rt|ac|local_access|local_refresh)_", log)
