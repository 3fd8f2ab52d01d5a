"""Counts instructions by callgrind: counts.py BINARY [--keep]. See scripts/counts."""

import contextlib
import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from servers import await_port, free_port

FIGURES = Path(__file__).resolve().parents[1] / "figures" / "counts.json"
STEPS = {
    "decode": "a message event, from text to its checked fields",
    "append": "a place in the log of the embedded backplane",
    "feed": "append, worker and feed, one member: encoded and queued",
    "broadcast-100": "the same for a hundred members, all together",
}
REDIS_STEPS = {
    "redis": "a place in the log, in Redis: of ten messages of ten rooms in a call",
    "redis-keyed": "the same with a client_msg_id each",
}
FEW, MANY = 500, 1500
CALLGRIND = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null"]
MESSAGES_A_CALL = 10
# The content of every message, which no other call has.
CONTENT = "x" * 100


def collected(report, step):
    found = re.search(r"Collected : (\d+)", report)
    if not found:
        sys.exit(f"counts: {step} failed:\n{report}")
    return int(found.group(1))


def instructions(binary, step, times):
    done = subprocess.run([*CALLGRIND, binary, step, str(times)], capture_output=True, text=True, check=False)
    return collected(done.stderr if done.returncode == 0 else f"{done.stderr}\nexit {done.returncode}", step)


@contextlib.contextmanager
def redis(*before):
    """A Redis of its own, its port; and what it said, once it has ended."""
    port, said = free_port(), []
    with tempfile.TemporaryDirectory() as folder, open(Path(folder) / "log", "w+b") as log:
        line = [*before, "redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", folder]
        # What it does by the clock, whatever it is asked, is seldom done: it doesn't count.
        line += ["--hz", "1"]
        server = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=log)
        try:
            await_port(server, port, log)
            yield port, said
        finally:
            server.terminate()
            server.wait()
            log.seek(0)
            said.append(log.read().decode(errors="replace"))


def cli(port, *words, lines=None):
    done = subprocess.run(["redis-cli", "-p", str(port), *words], input=lines, capture_output=True, text=True, check=False)
    return done.stdout.strip()


def calls_of_the_script(binary, step):
    """The calls that a node makes, as redis-cli takes them; the first has the script with it."""
    with redis() as (port, _), tempfile.TemporaryFile("w+") as heard:
        monitor = subprocess.Popen(["redis-cli", "-p", str(port), "MONITOR"], stdout=heard)
        try:
            while "cmd=monitor" not in cli(port, "CLIENT", "LIST"):
                time.sleep(0.05)
            subprocess.run([binary, step, str(MANY), f"redis://127.0.0.1:{port}"], check=True)
            cli(port, "ECHO", "that was all")
            lines = []
            while not lines or "that was all" not in lines[-1]:
                time.sleep(0.05)
                heard.seek(0)
                lines = heard.read().splitlines()
        finally:
            monitor.terminate()
            monitor.wait()
    calls = [line.split("] ", 1)[1] for line in lines if CONTENT in line and " lua] " not in line]
    # Where the script wasn't known yet, it was asked for first.
    while '"EVAL"' not in calls[0]:
        del calls[0]
    assert len(calls) == MANY, f"{step}: {len(calls)} calls"
    return calls


def instructions_in_redis(calls, step):
    with redis(*CALLGRIND) as (port, said):
        answers = cli(port, lines="\n".join(calls) + "\n")
        assert answers.count("\n\n") == 0 and "ERR" not in answers, answers[:500]
    return collected(said[0], step)


def main():
    binary, *more = sys.argv[1:]
    before = json.loads(FIGURES.read_text(encoding="utf-8")) if FIGURES.exists() else {}
    now = {}
    print(f"{'step':<15}{'instructions':>14}{'kept':>12}{'change':>10}")
    for step, what in {**STEPS, **REDIS_STEPS}.items():
        if step in STEPS:
            few, many = (instructions(binary, step, times) for times in (FEW, MANY))
        else:
            calls = calls_of_the_script(binary, step)
            few, many = (instructions_in_redis(calls[:times], step) // MESSAGES_A_CALL for times in (FEW, MANY))
        now[step] = round((many - few) / (MANY - FEW))
        kept = before.get(step)
        change = f"{(now[step] / kept - 1) * 100:+.1f} %" if kept else "new"
        print(f"{step:<15}{now[step]:>14,}{kept or 0:>12,}{change:>10}   {what}", flush=True)
    if "--keep" in more:
        FIGURES.parent.mkdir(exist_ok=True)
        FIGURES.write_text(json.dumps(now, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
