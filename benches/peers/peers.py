"""Sends the same spans to the local store and to its peers, runs the same searches, and compares.

Started by `run`, which makes the environments and the data.
"""

import argparse
import datetime
import json
import os
import queue
import statistics
import threading
import time
from pathlib import Path

import programs
import spans

# The number of connections that send to each program.
SENDERS = 4
# The claims: durable ingest against Phoenix, search against the test agent.
CLAIM = 20


def main():
    arguments = read_arguments()
    data = spans.load(arguments.data)
    facts = json.loads(Path(f"{arguments.data}.facts.json").read_text())
    programs.Ours.binary = arguments.binary
    programs.TestAgent.environment_directory = arguments.test_agent
    programs.Phoenix.environment_directory = arguments.phoenix
    results = {}
    for program in (programs.Ours, programs.TestAgent, programs.Phoenix):
        print(f"{program.name} …", flush=True)
        results[program.name] = result = measure(program, arguments, data, facts)
        print({key: value if isinstance(value, float) else len(value) for key, value in result.items()}, flush=True)
    check(results)
    text = table(results, len(data), arguments.rounds)
    print(text)
    if arguments.write:
        write(arguments.document, text)


def read_arguments():
    parser = argparse.ArgumentParser()
    for name in ("work", "data", "document"):
        parser.add_argument(f"--{name}", required=True)
    for name in ("binary", "test-agent", "phoenix"):
        parser.add_argument(f"--{name}", required=True, type=lambda path: Path(path).absolute())
    parser.add_argument("--spans", type=int)
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--write", action="store_true")
    return parser.parse_args()


def measure(program, arguments, data, facts):
    bodies = [program.body(batch) for batch in spans.batches(data)]
    running = program(arguments.work)
    try:
        started = time.perf_counter()
        send(running, bodies)
        running.wait_until_kept(len(data))
        result = {"rate": len(data) / (time.perf_counter() - started)}
        phrase = facts["phrase_words"]
        questions = {
            "newest": running.newest,
            "filter": running.failed_tools,
            "phrase": lambda: running.words(phrase),
        }
        for name, ask in questions.items():
            found, result[name] = timed(ask, arguments.rounds)
            result[f"{name} rows"] = found
        return result
    finally:
        running.stop()


def send(program, bodies):
    """All bodies, as fast as they are acknowledged."""
    left = queue.SimpleQueue()
    for body in bodies:
        left.put(body)

    def sender():
        client = programs.Client(program.port)
        try:
            while True:
                client.call("POST", program.intake, left.get_nowait(), program.content_type)
        except queue.Empty:
            return

    senders = [threading.Thread(target=sender) for _ in range(SENDERS)]
    for thread in senders:
        thread.start()
    for thread in senders:
        thread.join()


def timed(ask, rounds):
    """The spans found, and the median time of warm rounds in milliseconds."""
    ask()
    times = []
    for _ in range(rounds):
        started = time.perf_counter()
        found = ask()
        times.append((time.perf_counter() - started) * 1_000)
    return found, statistics.median(times)


def check(results):
    """Equal searches must find equal spans; spans with equal start times may be in any order."""
    ours = results[programs.Ours.name]
    for name, result in results.items():
        for question in ("newest", "filter", "phrase"):
            key = f"{question} rows"
            if set(result[key]) != set(ours[key]) or not result[key]:
                raise SystemExit(f"{name} found other spans for {question}: {len(result[key])} and {len(ours[key])} rows")


ROWS = [
    ("ingest until durable, spans a second", "rate"),
    ("newest 50 of an app, ms", "newest"),
    ("failed tool calls of an app, ms", "filter"),
    ("phrase in model calls of an app, ms", "phrase"),
]


def table(results, count, rounds):
    peers = [program.name for program in (programs.TestAgent, programs.Phoenix)]
    ours = results[programs.Ours.name]
    lines = [
        f"{count:,} spans, {processor()}, {os.cpu_count()} cores, {datetime.date.today()}, load before the run as the system tells it "
        f"{os.getloadavg()[2]:.1f}. {SENDERS} connections send {spans.BATCH} spans a request; medians of {rounds} warm rounds from one "
        "connection; each program alone on the machine with its client. The answers held the same spans.",
        "",
        "| | llmobs-mcp | " + " | ".join(f"{name} | ratio" for name in peers) + " |",
        "|---|---:|" + "---:|---:|" * len(peers),
    ]
    for title, key in ROWS:
        cells = [f"{ours[key]:,.1f}"]
        for name in peers:
            theirs = results[name][key]
            ratio = ours[key] / theirs if key == "rate" else theirs / ours[key]
            cells += [f"{theirs:,.1f}", f"{ratio:,.1f}"]
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    claims = [
        ("durable ingest against Phoenix", ours["rate"] / results["Phoenix"]["rate"]),
        ("newest 50 against the test agent", results["test agent"]["newest"] / ours["newest"]),
        ("filter against the test agent", results["test agent"]["filter"] / ours["filter"]),
        ("phrase against the test agent", results["test agent"]["phrase"] / ours["phrase"]),
    ]
    lines += ["", f"Claimed is a ratio of at least {CLAIM}:"]
    lines += [f"- {name}: {'met' if ratio >= CLAIM else '**missed**'}, {ratio:,.0f} times." for name, ratio in claims]
    lines += ["", "How each keeps spans and was set up:"]
    lines += [f"- {program.name}: {program.remark}." for program in (programs.Ours, programs.TestAgent, programs.Phoenix)]
    return "\n".join(lines) + "\n"


def processor():
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return "an unknown processor"


HEADING = "## Beside its peers"


def write(document, text):
    """Replaces the section with the same heading, or appends it."""
    document = Path(document)
    before = document.read_text()
    start = before.find(f"{HEADING}\n")
    if start < 0:
        after = f"{before}\n{HEADING}\n\n{text}"
    else:
        end = before.find("\n## ", start)
        rest = before[end:] if end >= 0 else ""
        after = f"{before[:start]}{HEADING}\n\n{text}{rest}"
    document.write_text(after)


if __name__ == "__main__":
    main()
