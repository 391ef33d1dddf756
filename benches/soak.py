#!/usr/bin/env python3
"""Minutes of load with stable memory: `benches/soak.py [--minutes 10] [--binary PATH]`.

Starts `llmobs-mcp local` on an empty data directory with a size limit, and sends as a busy team would: steady
writers of spans and evaluations, readers, every few seconds a burst of 50 clients at once, clients that dribble
their bytes, and clients that go away in the middle. Once a second the resident memory is read, without mapped files.

It fails when the median of the last minute is more than --growth times that of the first one after warming up plus
--slack megabytes, when an answer was neither a success nor a refusal with Retry-After, or when `local verify`
finds a fault afterwards. Needs Linux and Python 3.11; nothing to install.
"""
import argparse
import http.client
import json
import os
import pathlib
import random
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse

WRITERS, READERS, DRIBBLERS, BURST = 6, 2, 20, 50
SPANS_PER_BATCH = 50
WORDS = "refund order tent weather parse retry index vector answer tool agent plan code test build".split()


class Tally:
    """The responses to all threads."""

    def __init__(self):
        self.lock = threading.Lock()
        self.counts = {}
        self.wrong = []

    def add(self, what, number=1):
        with self.lock:
            self.counts[what] = self.counts.get(what, 0) + number

    def answer(self, status, retry_after, what):
        if 200 <= status < 300:
            self.add(what)
        elif status in (429, 503) and retry_after:
            self.add("refused, come again")
        else:
            with self.lock:
                self.wrong.append(f"{what}: status {status}, Retry-After {retry_after}")


def post(connection, path, body):
    connection.request("POST", path, body, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    answer.read()
    return answer.status, answer.getheader("Retry-After")


def batch(dice, count):
    trace, now = f"{dice.getrandbits(128):032x}", time.time_ns()
    spans = []
    for number in range(count):
        text = " ".join(dice.choices(WORDS, k=dice.randint(20, 400)))
        spans.append({
            "trace_id": trace, "span_id": str(dice.getrandbits(63)), "parent_id": "undefined", "name": dice.choice(WORDS),
            "start_ns": now + number, "duration": dice.randint(1000, 10**9), "status": dice.choice(["ok", "ok", "ok", "error"]),
            "tags": [f"ml_app:app-{dice.randint(1, 5)}", f"version:{dice.randint(1, 9)}"],
            "meta": {"span": {"kind": "llm"}, "input": {"value": text}, "output": {"value": text[::-1]}},
            "metrics": {"input_tokens": dice.randint(1, 4000), "output_tokens": dice.randint(1, 900)}})
    return spans


def judged(dice, spans):
    return [{"join_on": {"span": {"trace_id": span["trace_id"], "span_id": span["span_id"]}}, "label": "tone", "metric_type": "score",
             "score_value": dice.random(), "timestamp_ms": time.time_ns() // 10**6} for span in spans]


class Load:
    def __init__(self, address, tally):
        self.address, self.tally = address, tally
        self.stop = threading.Event()

    def connect(self):
        return http.client.HTTPConnection(*self.address, timeout=60)

    def forever(self, work, seed):
        """Works until stopped. Reconnects after a broken connection."""
        dice = random.Random(seed)
        while not self.stop.is_set():
            connection = self.connect()
            try:
                while not self.stop.is_set():
                    work(connection, dice)
            except (OSError, http.client.HTTPException):
                self.tally.add("connections broken")
                time.sleep(0.05)
            finally:
                connection.close()

    def write(self, connection, dice):
        spans = batch(dice, SPANS_PER_BATCH)
        answered = post(connection, "/api/v2/llmobs", json.dumps([{"event_type": "span", "spans": spans}]))
        self.tally.answer(*answered, "batches written")
        metrics = {"data": {"type": "evaluation_metric", "attributes": {"metrics": judged(dice, spans[:10])}}}
        self.tally.answer(*post(connection, "/api/intake/llm-obs/v2/eval-metric", json.dumps(metrics)), "evaluations written")

    def read(self, connection, dice):
        query = dice.choice(["@status:error", f"@ml_app:app-{dice.randint(1, 5)}", dice.choice(WORDS), "@evaluations.custom.tone:*"])
        body = {"data": {"type": "spans", "attributes": {"filter": {"query": query, "from": "now-15m", "to": "now"}, "page": {"limit": 50}}}}
        self.tally.answer(*post(connection, "/api/v2/llm-obs/v1/spans/events/search", json.dumps(body)), "searches answered")
        time.sleep(0.05)

    def dribble(self, connection, dice):
        """A body in pieces; one in four connections closes before the end."""
        body = json.dumps([{"event_type": "span", "spans": batch(dice, 2)}]).encode()
        connection.connect()
        head = f"POST /api/v2/llmobs HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        connection.sock.sendall(head.encode())
        gone = dice.randint(0, 3) == 0
        for place in range(0, len(body), 200):
            if self.stop.is_set() or (gone and place > len(body) // 2):
                self.tally.add("clients gone")
                connection.close()
                return
            connection.sock.sendall(body[place:place + 200])
            time.sleep(0.1)
        answer = http.client.HTTPResponse(connection.sock)
        answer.begin()
        answer.read()
        self.tally.answer(answer.status, answer.getheader("Retry-After"), "dribbled batches written")
        connection.close()

    def burst(self, connection, dice):
        """Fifty clients at once, each with one connection."""
        def one(seed):
            alone = self.connect()
            try:
                body = json.dumps([{"event_type": "span", "spans": batch(random.Random(seed), 20)}])
                self.tally.answer(*post(alone, "/api/v2/llmobs", body), "burst batches written")
            except (OSError, http.client.HTTPException):
                self.tally.add("connections broken")
            finally:
                alone.close()
        clients = [threading.Thread(target=one, args=(dice.getrandbits(60),)) for _ in range(BURST)]
        for client in clients:
            client.start()
        for client in clients:
            client.join()
        self.stop.wait(5)

    def run(self, seconds, sample):
        kinds = [(self.write, WRITERS), (self.read, READERS), (self.dribble, DRIBBLERS), (self.burst, 1)]
        works = [work for work, count in kinds for _ in range(count)]
        threads = [threading.Thread(target=self.forever, args=(work, seed)) for seed, work in enumerate(works)]
        for thread in threads:
            thread.start()
        ends, samples = time.monotonic() + seconds, []
        try:
            while time.monotonic() < ends:
                samples.append(sample())
                time.sleep(1)
        finally:
            self.stop.set()
            for thread in threads:
                thread.join()
        return samples


def resident_mb(pid):
    """Resident memory in MB without mapped files, which the system may drop."""
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"RssAnon:\s+(\d+) kB", status)[1]) / 1024


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--binary", default=str(pathlib.Path(__file__).parent.parent / "target/release/llmobs-mcp"))
    parser.add_argument("--growth", type=float, default=1.2, help="last median over first median at most")
    parser.add_argument("--slack", type=float, default=32, help="megabytes that count as no growth")
    parser.add_argument("--retain-bytes", default="100MB", help="what the store may hold")
    asked = parser.parse_args()
    seconds = asked.minutes * 60
    with tempfile.TemporaryDirectory() as home:
        environment = {"HOME": home, "PATH": os.environ["PATH"]}
        command = [asked.binary, "local", "--data-dir", home + "/data", "--listen", "127.0.0.1:0", "--log", "warn", "--retain-bytes", asked.retain_bytes]
        server = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        url = urllib.parse.urlsplit(re.search(r"http://\S+", server.stdout.readline())[0].rstrip(","))
        threading.Thread(target=server.stdout.read, daemon=True).start()
        tally = Tally()
        try:
            samples = Load((url.hostname, url.port), tally).run(seconds, lambda: resident_mb(server.pid))
            alive = server.poll() is None
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait(60)
        verify = subprocess.run([asked.binary, "local", "verify", "--json", "--data-dir", home + "/data"], env=environment, capture_output=True, text=True)
        stats = subprocess.run([asked.binary, "local", "stats", "--data-dir", home + "/data"], env=environment, capture_output=True, text=True)
    # Caches and pools fill during warm-up: a quarter of a short run, at most two minutes.
    warm, window = int(min(120, len(samples) / 4)), int(min(60, max(1, len(samples) / 4)))
    first, last = (statistics.median(part) for part in (samples[warm:warm + window], samples[-window:]))
    allowed = first * asked.growth + asked.slack
    for what, count in sorted(tally.counts.items()):
        print(f"{count:>9} {what}")
    print(stats.stdout, end="")
    print(f"resident memory: first {window} s after {warm} s of warming up {first:.0f} MB, last {window} s {last:.0f} MB, peak {max(samples):.0f} MB (allowed at the end: {allowed:.0f} MB)")
    faults = [f"wrong answers: {tally.wrong[:5]}"] if tally.wrong else []
    faults += [] if alive else ["the server ended by itself"]
    faults += [] if verify.returncode == 0 else [f"verify: {verify.stdout} {verify.stderr}"]
    faults += [] if last <= allowed else ["memory grew"]
    for fault in faults:
        print("FAILED:", fault)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
