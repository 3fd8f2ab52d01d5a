"""Runs the rows for the servers in turn, several rounds interleaved, and prints tables and goals."""

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import time

from figures import Figures, anchors, clusters, goal_table, goals
from rows import BY_NAME, ONE_NODE, ROWS, TWO_NODES
from servers import LOAD_CORE, ROOT, SERVER_CORE, TARGET, Failed, raise_files, running

DOCS = ROOT / "docs" / "performance.md"


def options():
    parser = argparse.ArgumentParser(prog="scripts/bench", description="Measures hubbub beside others and beside the floor.")
    parser.add_argument("--quick", action="store_true", help="one short round")
    parser.add_argument("--rounds", type=int, help="how often each row is measured [3]")
    parser.add_argument("--seconds", type=int, help="how long each is measured [5]")
    parser.add_argument("--rows", help="these only, separated by commas")
    parser.add_argument("--servers", help="these only, separated by commas")
    parser.add_argument("--huge", action="store_true", help="100,000 connections too")
    parser.add_argument("--docs", action="store_true", help="puts the tables into docs/performance.md")
    parser.add_argument("--list", action="store_true", help="names the rows")
    chosen = parser.parse_args()
    chosen.rounds = chosen.rounds or (1 if chosen.quick else 3)
    chosen.seconds = chosen.seconds or (2 if chosen.quick else 5)
    for name in (chosen.rows or "").split(","):
        if name and name not in BY_NAME:
            parser.error(f"there is no row {name}")
    return chosen


def ticks(core):
    """Busy and all ticks of a core so far."""
    with open("/proc/stat", encoding="ascii") as file:
        fields = next(line for line in file if line.startswith(f"cpu{core} ")).split()[1:9]
    numbers = [int(field) for field in fields]
    return sum(numbers) - numbers[3] - numbers[4], sum(numbers)


def measure(row, server, chosen, top):
    """One run; the generator's JSON, or `None` with a word on why."""
    load = [*row.load, "--duration", str(chosen.seconds), "--warm-up", "1" if chosen.quick else "2"]
    if row.needs:
        if not top:
            return None
        load += ["--rate", str(max(1, int(top / 2)))]
    try:
        with running(server) as (ports, pids):
            busy, whole = ticks(SERVER_CORE)
            line = ["taskset", "-c", LOAD_CORE, str(TARGET / "release" / "hubbub"), "bench", "--json", *load]
            line += ["--url", ",".join(f"http://127.0.0.1:{port}" for port in ports), "--pid", ",".join(map(str, pids))]
            done = subprocess.run(line, capture_output=True, text=True, timeout=300, preexec_fn=raise_files, check=False)
            busy_after, whole_after = ticks(SERVER_CORE)
    except Failed as why:
        say(f"{server} could not be started: {why}")
        return None
    except subprocess.TimeoutExpired:
        say(f"{server}: the generator did not end in time")
        return None
    if not done.stdout.startswith("{"):
        say(f"{server}: {done.stderr.strip()}")
        return None
    result = json.loads(done.stdout)
    result["server_core_busy"] = (busy_after - busy) / max(1, whole_after - whole)
    return result


def say(text):
    print(text, file=sys.stderr, flush=True)


def told(result):
    """One run in a line."""
    if not result:
        return "nothing"
    words = []
    if result.get("load"):
        load = result["load"]
        delivery = result["servers"]["cpu_us_per_delivery"]
        words.append(f"{delivery:.2f} µs a delivery, {load['messages_per_second']:,.0f} messages/s, p99 {load['latency_ms']['p99']:.1f} ms")
        words.append(f"generator {load['generator_cores']:.2f}, servers {sum(result['servers']['cores']):.2f} cores")
    else:
        words.append(f"{result['servers']['bytes_per_connection'] / 1000:.1f} KB, {result['connecting']['per_second']:,.0f} connects/s")
    if result.get("storm"):
        words.append(f"storm {result['storm']['seconds']:.2f} s")
    if not result["ok"]:
        words.append(f"NOT WELL: { {key: value for key, value in result['findings'].items() if value} }")
    return "; ".join(words)


def machine():
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        model = re.search(r"model name\s*: (.*)", file.read())
    node = subprocess.run(["node", "--version"], capture_output=True, text=True, check=False).stdout.strip()
    return {
        "processor": model.group(1) if model else platform.machine(),
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "node": node,
        "load_before": os.getloadavg()[0],
    }


def main():
    chosen = options()
    rows = [BY_NAME[name] for name in chosen.rows.split(",")] if chosen.rows else [row for row in ROWS if chosen.huge or not row.huge]
    if chosen.list:
        for row in ROWS:
            print(f"{row.name:<12}{row.title}")
        return 0
    about = machine()
    if about["load_before"] > 0.5:
        say(f"the machine is busy (load {about['load_before']:.1f}): compare ratios, not times")
    figures, began = Figures(), time.monotonic()
    well = True
    for number in range(chosen.rounds):
        for row in rows:
            for server in row.servers:
                if chosen.servers and server not in chosen.servers.split(","):
                    continue
                top = figures.runs.get(row.needs, {}).get(server, [None])[-1]
                result = measure(row, server, chosen, top and top["load"]["messages_per_second"])
                figures.add(row.name, server, result if result and result["ok"] else None)
                well = well and (result is None or result["ok"])
                say(f"{time.monotonic() - began:4.0f} s  round {number + 1}  {row.name:<11}{server:<9} {told(result)}")
    measured = {server for runs in figures.runs.values() for server, found in runs.items() if any(found)}
    tables = [
        f"Measured on {about['processor']} with {about['cores']} cores, Linux {about['kernel']}, Node {about['node']}; servers on one core, "
        f"the generator on another; {chosen.rounds} rounds of {chosen.seconds} s, medians (and from least to greatest).",
        "",
        *anchors(figures, [server for server in ONE_NODE if server in measured]),
        "",
        *clusters(figures, [server for server in TWO_NODES if server in measured]),
        "",
    ]
    reached = goals(figures)
    tables += goal_table(reached)
    text = "\n".join(tables)
    print(text)
    (TARGET / "bench").mkdir(exist_ok=True)
    (TARGET / "bench" / "tables.md").write_text(text + "\n", encoding="utf-8")
    record = {"machine": about, "seconds": chosen.seconds, "runs": figures.runs, "goals": reached}
    (TARGET / "bench" / "result.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    if chosen.docs:
        whole = DOCS.read_text(encoding="utf-8")
        begin, end = "<!-- scripts/bench writes from here -->", "<!-- to here -->"
        head, tail = whole.split(begin)[0], whole.split(end)[1]
        DOCS.write_text(f"{head}{begin}\n{text}\n{end}{tail}", encoding="utf-8")
    if not well:
        say("messages were missing, repeated or out of order: see target/bench/result.json")
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
