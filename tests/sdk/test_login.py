"""Signing in as a user does: the program prints a URL, a real browser opens it and presses a button."""
import json
import re
import subprocess

import pytest

import support


class Login:
    """`llmobs-mcp login`, until it prints the URL to open."""

    def __init__(self, home, api):
        self.process = subprocess.Popen(
            [support.BINARY, "login", "--no-browser", "--callback-port", "0", "--timeout", "60", "--api-url", api.url],
            env=support.clean_environment(home), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for line in self.process.stderr:
            if found := re.match(r"\s*(http://\S+)", line):
                self.url = found.group(1)
                return
        raise AssertionError("login asked for nothing")

    def end(self):
        out, err = self.process.communicate(timeout=60)
        return self.process.returncode, out, err


def press(url, decision):
    done = subprocess.run(["node", str(support.HERE / "apps" / "consent.mjs"), url, decision], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert seen["path"] == "/oauth/callback" and "state" in seen["parameters"]
    assert seen["complaints"] == [], "the browser minded the page's own policy"
    return seen


def program(home, *arguments):
    return subprocess.run([support.BINARY, *arguments], env=support.clean_environment(home), capture_output=True, text=True, timeout=60)


@pytest.fixture
def fresh_home(tmp_path):
    return tmp_path / "home"


def test_allowing_signs_in(site, fresh_home):
    login = Login(fresh_home, site)
    seen = press(login.url, "allow")
    assert "llmobs-mcp" in seen["asked"] and "llm_observability_read" in seen["asked"]
    assert "code" in seen["parameters"] and "You can close this window" in seen["told"]
    code, out, err = login.end()
    assert code == 0 and "Signed in to" in out, err
    told = json.loads(program(fresh_home, "whoami", "--json", "--api-url", site.url).stdout)
    assert told["credential"]["origin"] == "the stored login of profile default"
    called = program(fresh_home, "call", "search_llmobs_spans", "--api-url", site.url)
    assert called.returncode == 0, called.stdout
    assert program(fresh_home, "logout", "--api-url", site.url).returncode == 0


def test_denying_does_not(site, fresh_home):
    login = Login(fresh_home, site)
    seen = press(login.url, "deny")
    assert "error" in seen["parameters"] and "code" not in seen["parameters"]
    code, _, err = login.end()
    assert code == 1 and "the sign-in was denied" in err
