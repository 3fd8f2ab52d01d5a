"""Counts instructions with callgrind: counts.py BINARY [--keep]. See scripts/counts."""

import contextlib
import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from processes import await_port, free_port

FIGURES = Path(__file__).resolve().parents[1] / "figures" / "counts.json"
STEPS = {
    "decode": "decodes a message event: from text to validated fields",
    "append": "appends a message to the log of the memory backplane",
    "append-archived": "the same to the archived log, 25 at once, and awaits their commits; the store commits instantly",
    "commit-sqlite": "commits a message to a new SQLite file, in batches of 25",
    "feed": "append, worker and feed with one member: encodes and queues the message",
    "broadcast-100": "the same with 100 members, the sum of all",
}
REDIS_STEPS = {
    "redis": "instructions of Redis per message, for appends of ten messages of ten rooms in one call",
    "redis-keyed": "the same, with a client_msg_id in each message",
}
FEW, MANY = 500, 1500
CALLGRIND = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null"]
MESSAGES_A_CALL = 10
# The content of every message. No other call of a node contains it.
CONTENT = "x" * 100


def collected(report, step):
    found = re.search(r"Collected : (\d+)", report)
    if not found:
        sys.exit(f"counts: {step} failed:\n{report}")
    return int(found.group(1))


def instructions(binary, step, times):
    done = subprocess.run(
        [*CALLGRIND, binary, step, str(times)], capture_output=True, text=True, check=False
    )
    return collected(
        done.stderr if done.returncode == 0 else f"{done.stderr}\nexit {done.returncode}", step
    )


@contextlib.contextmanager
def redis(*before):
    """Runs a Redis. Yields its port, and a list that holds its output once it has ended."""
    port, output = free_port(), []
    with tempfile.TemporaryDirectory() as folder, open(Path(folder) / "log", "w+b") as log:
        line = [
            *before,
            "redis-server",
            "--port",
            str(port),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--dir",
            folder,
        ]
        # The fewest possible periodic tasks, so that they do not affect the count.
        line += ["--hz", "1"]
        server = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=log)
        try:
            await_port(server, port, log)
            yield port, output
        finally:
            server.terminate()
            server.wait()
            log.seek(0)
            output.append(log.read().decode(errors="replace"))


def cli(port, *words, lines=None):
    done = subprocess.run(
        ["redis-cli", "-p", str(port), *words],
        input=lines,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip()


def append_calls(binary, step):
    """The append calls of a node as redis-cli input; the first contains the script's source."""
    with redis() as (port, _), tempfile.TemporaryFile("w+") as monitored:
        monitor = subprocess.Popen(["redis-cli", "-p", str(port), "MONITOR"], stdout=monitored)
        try:
            while "cmd=monitor" not in cli(port, "CLIENT", "LIST"):
                time.sleep(0.05)
            subprocess.run([binary, step, str(MANY), f"redis://127.0.0.1:{port}"], check=True)
            cli(port, "ECHO", "end of calls")
            lines = []
            while not lines or "end of calls" not in lines[-1]:
                time.sleep(0.05)
                monitored.seek(0)
                lines = monitored.read().splitlines()
        finally:
            monitor.terminate()
            monitor.wait()
    calls = [line.split("] ", 1)[1] for line in lines if CONTENT in line and " lua] " not in line]
    # Drops the EVALSHA calls that failed because Redis did not know the script yet.
    while '"EVAL"' not in calls[0]:
        del calls[0]
    assert len(calls) == MANY, f"{step}: {len(calls)} calls"
    return calls


def instructions_in_redis(calls, step):
    with redis(*CALLGRIND) as (port, output):
        replies = cli(port, lines="\n".join(calls) + "\n")
        assert replies.count("\n\n") == 0 and "ERR" not in replies, replies[:500]
    return collected(output[0], step)


def main():
    binary, *options = sys.argv[1:]
    before = json.loads(FIGURES.read_text(encoding="utf-8")) if FIGURES.exists() else {}
    now = {}
    print(f"{'step':<15}{'instructions':>14}{'kept':>12}{'change':>10}")
    for step, description in {**STEPS, **REDIS_STEPS}.items():
        if step in STEPS:
            few, many = (instructions(binary, step, times) for times in (FEW, MANY))
        else:
            calls = append_calls(binary, step)
            few, many = (
                instructions_in_redis(calls[:times], step) // MESSAGES_A_CALL
                for times in (FEW, MANY)
            )
        now[step] = round((many - few) / (MANY - FEW))
        kept = before.get(step)
        change = f"{(now[step] / kept - 1) * 100:+.1f} %" if kept else "new"
        print(f"{step:<15}{now[step]:>14,}{kept or 0:>12,}{change:>10}   {description}", flush=True)
    if "--keep" in options:
        FIGURES.parent.mkdir(exist_ok=True)
        FIGURES.write_text(json.dumps(now, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
