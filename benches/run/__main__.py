"""Runs each row on its servers in turn, in several rounds, and prints tables and goals."""

import argparse
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from dataclasses import replace

import archive
from figures import NODES, Figures, per_message
from load import connected, generator, measuring, result_of, run, start
from processes import Failed
from report import (
    CAPACITY,
    DOCS,
    Stolen,
    compared,
    heading,
    machine,
    summary,
    with_archive,
    write_docs,
)
from rows import ARCHIVE, BY_NAME, JIT, ROWS, SCALE, side_by_side
from scale_tables import growth
from servers import (
    BOTH_CORES,
    LOAD_CORE,
    ROOT,
    SERVER_CORE,
    TARGET,
    hard_limit,
    kind_and_nodes,
    raise_files,
    running,
)
from watch import Redis, Watch, peak, redis_use, resident

# The cores that this process may use at its start. Later it restricts itself to the generator's
# core.
CORES = os.sched_getaffinity(0)
# Side by side: seconds that one generator runs before the other one continues.
GENERATOR_SLICE = 0.3


def options():
    parser = argparse.ArgumentParser(
        prog="scripts/bench",
        description="Compares hubbub with other servers and with the floor, a minimal server.",
    )
    parser.add_argument("--quick", action="store_true", help="one short round")
    parser.add_argument(
        "--rounds", type=int, help="number of rounds; each row is measured once per round [3]"
    )
    parser.add_argument("--seconds", type=int, help="duration of each measurement [5]")
    parser.add_argument("--rows", help="only these, separated by commas")
    parser.add_argument("--servers", help="only these, separated by commas")
    parser.add_argument("--huge", action="store_true", help="also measures 100,000 connections")
    parser.add_argument(
        "--long",
        action="store_true",
        help="also measures an outage of 5 minutes, and databases of 5 million messages",
    )
    parser.add_argument(
        "--archive", action="store_true", help="measures only the rows with a database"
    )
    parser.add_argument(
        "--scale",
        action="store_true",
        help="measures only how the cost grows with nodes, rooms and connections",
    )
    parser.add_argument(
        "--docs",
        action="store_true",
        help="writes the tables to docs/performance.md (with --scale: docs/capacity.md)",
    )
    parser.add_argument("--list", action="store_true", help="lists the rows")
    chosen = parser.parse_args()
    chosen.rounds = chosen.rounds or (1 if chosen.quick else 3)
    chosen.seconds = chosen.seconds or (2 if chosen.quick else 5)
    for name in (chosen.rows or "").split(","):
        if name and name not in BY_NAME:
            parser.error(f"there is no row {name}")
    return chosen


@contextmanager
def idle_connections(count, server):
    """Holds `count` idle connections, in rooms of ten members. Starts when all have joined."""
    if not count:
        yield
        return
    load = ["--clients", str(count), "--rooms", str(count // 10), "--idle", "--duration", "1h"]
    process = subprocess.Popen(
        generator(load, server),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=raise_files,
    )
    try:
        deadline = time.monotonic() + 60
        while sum(connected(port) for port in server.ports) < count:
            if process.poll() is not None or time.monotonic() > deadline:
                raise Failed(f"the {count} idle connections were not all opened")
            time.sleep(0.2)
        # Until the last ones have joined, and their rooms have been notified.
        time.sleep(2)
        yield
        if process.poll() is not None:
            raise Failed("the generator of the idle connections ended early")
    finally:
        process.kill()
        process.wait()


def measure(row, server, chosen, top):
    """One run: the generator's JSON. On a failure it prints the reason and returns `None`."""
    if row.way in archive.WHOLE_RUNS:
        return whole_run(row, server, chosen)
    kind, _ = kind_and_nodes(server)
    warm_up = max(row.warm_up, (1 if chosen.quick else 2) * (2 if kind in JIT else 1))
    seconds = row.seconds or chosen.seconds
    load = [*row.load, "--duration", str(seconds), "--warm-up", str(warm_up)]
    if row.needs:
        if not top:
            return None
        load += ["--rate", str(max(1, int(top / 2)))]
    try:
        if row.huge and not allows_huge():
            return guest()
        with running(server, BOTH_CORES if row.wide else SERVER_CORE) as processes:
            if row.at_first:
                processes = replace(processes, ports=processes.ports[:1])
            if row.way:
                result = archive.RUNS[row.way](row, processes, load, seconds)
            elif row.watched:
                result = watched_run(row, processes, load, seconds)
            else:
                result = run(processes, load, BOTH_CORES if row.roams else LOAD_CORE)
            if row.huge:
                result["servers"]["peak_bytes"] = sum(map(peak, processes.pids))
    except Failed as error:
        log(f"{server}: {error}")
        return None
    except subprocess.TimeoutExpired:
        log(f"{server}: the generator did not end in time")
        return None
    except (OSError, ArithmeticError, ValueError, KeyError) as error:
        log(f"{server}: its usage could no longer be measured: {error!r}")
        return None
    if "--rate" in load:
        result["keeps_up"] = keeps_up(result)
    if row.needs:
        # A server that cannot keep up with the rate of another one has not failed: that is its
        # result.
        result["ok"] = result["ok"] or (server != row.top_of and not result["keeps_up"])
    return result


def keeps_up(result):
    """Whether the messages of the measurement were delivered in it."""
    load = result["load"]
    wanted = load["messages_per_second"] * result["members"]
    return load["deliveries_per_second"] > 0.95 * wanted


def whole_run(row, server, chosen):
    """One run of a function that also starts the servers."""
    try:
        return archive.WHOLE_RUNS[row.way](row, server, chosen)
    except (Failed, OSError, ArithmeticError, ValueError, KeyError, sqlite3.Error) as error:
        log(f"{server}: {error!r}")
        return None


def measure_pair(row, pair, chosen):
    """The cost of a delivery in the second server of a pair divided by its cost in the first one.

    On a failure it prints the reason and returns `None`. Both servers run at the same time: if the
    machine is slower for a while, it is slower for both. At maximum load their generators run
    alternately for short slices. At a fixed rate they run together, each at half of the rate, and
    the costs are those of a message on the nodes, without Redis and the database. Latencies are
    meaningless in such a run.
    """
    at_rate, load = "--rate" in row.load, list(row.load)
    if at_rate:
        rate_at = load.index("--rate") + 1
        load[rate_at] = str(int(load[rate_at]) // 2)
    load += ["--duration", str(2 * chosen.seconds), "--warm-up", str(row.warm_up or 2)]
    generators = []
    try:
        with ExitStack() as stack:
            servers = [stack.enter_context(running(server)) for server in pair]
            generators += [start(measuring(load, server)) for server in servers]
            if not at_rate:
                run_alternately(generators, time.monotonic() + 2 * chosen.seconds + 60)
            results = [result_of(*process.communicate(timeout=300)) for process in generators]
        if at_rate:
            costs = [per_message(result, NODES) for result in results]
        else:
            costs = [result["servers"]["cpu_us_per_delivery"] for result in results]
        times = costs[1] / costs[0]
        if at_rate and not all(map(keeps_up, results)):
            raise Failed("a server does not keep up")
    except (
        Failed,
        OSError,
        ArithmeticError,
        ValueError,
        KeyError,
        TypeError,
        subprocess.TimeoutExpired,
    ) as error:
        log(f"{side_by_side(pair)}: {error!r}")
        return None
    finally:
        for process in generators:
            process.kill()
            process.wait()
    findings = next((result["findings"] for result in results if not result["ok"]), {})
    return {
        "ok": all(result["ok"] for result in results),
        "findings": findings,
        "times": times,
        "costs": costs,
        "added": costs[1] - costs[0],
    }


def run_alternately(processes, deadline):
    """Lets one process at a time run, until all have ended."""
    for process in processes:
        process.send_signal(signal.SIGSTOP)
    while alive := [process for process in processes if process.poll() is None]:
        if time.monotonic() > deadline:
            raise Failed("the generators did not end in time")
        for process in alive:
            process.send_signal(signal.SIGCONT)
            time.sleep(GENERATOR_SLICE)
            process.send_signal(signal.SIGSTOP)


def allows_huge():
    """Whether a process may open a file for each of the 100,000 connections, and a few more."""
    return hard_limit() > 100_500


def guest():
    """The run with 100,000 connections in a virtual machine, which has its own limits."""
    binary = os.environ.get("HUBBUB_BIN", str(TARGET / "release" / "hubbub"))
    line = [str(ROOT / "benches" / "guest" / "run"), binary]
    done = subprocess.run(
        line, capture_output=True, text=True, timeout=4000, preexec_fn=on_all_cores, check=False
    )
    if not done.stdout.startswith("{"):
        raise Failed(done.stderr.strip()[-600:])
    result, end = json.JSONDecoder().raw_decode(done.stdout)
    log(f"{done.stderr}{done.stdout[end:]}".strip())
    result["ok"] = result["ok"] and done.returncode == 0
    # With an emulated processor only the memory is a valid result.
    result["emulated"] = "KVM: no" in done.stdout
    if result["emulated"]:
        del result["load"]["latency_ms"]
    return result


def faults():
    """Runs the short form of the fault lab.

    Returns the number of scenarios that held every guarantee, and the number of all; `None` if it
    could not run.
    """
    line = [str(ROOT / "scripts" / "faults"), "--short", "--jobs", "2"]
    lab = subprocess.Popen(
        line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=on_all_cores
    )
    try:
        output, errors = lab.communicate(timeout=3600)
    except subprocess.TimeoutExpired:
        # It ends the processes that it started.
        lab.terminate()
        output, errors = lab.communicate()
    verdicts = re.findall(r"^(passed|FAILED) ", output, re.M)
    if lab.returncode:
        log(f"the fault lab: {output}{errors}")
    if not verdicts:
        return None
    # A scenario that ended the lab early has no verdict, and counts as failed.
    ended_early = lab.returncode != 0 and "FAILED" not in verdicts
    return verdicts.count("passed"), len(verdicts) + ended_early


def on_all_cores():
    os.sched_setaffinity(0, CORES)


def watched_run(row, server, load, seconds):
    """One run that also samples Redis and the network, and the servers' usage without messages."""
    watch = Watch(server)
    memory, first = [resident(pid) for pid in server.pids], watch.sample()
    with idle_connections(row.beside, server):
        joined_memory, joined = [resident(pid) for pid in server.pids], watch.sample()
        rest = None
        if row.rests:
            time.sleep(row.seconds)
            rest = usage_without_messages(joined, watch.sample())
        with watch:
            result = run(server, load)
            ended = time.monotonic()
        if row.rests and row.beside <= 1000:
            result["keys"] = Redis(server.redis_port).keys()
    result["rest"] = rest
    if row.beside:
        result["beside"] = {
            "node_bytes": (sum(joined_memory[1:]) - sum(memory[1:])) / row.beside,
            "redis_bytes": (joined["redis"]["used_memory"] - first["redis"]["used_memory"])
            / row.beside,
            # Divided by 2, because both ends of a connection are on this machine.
            "kernel_bytes": (joined["slab"] - first["slab"]) / row.beside / 2,
            "node_us": (sum(joined["cpu"][1:]) - sum(first["cpu"][1:])) * 1e6 / row.beside,
            "redis_us": (joined["cpu"][0] - first["cpu"][0]) * 1e6 / row.beside,
        }
    # Only samples that lie safely between the warm-up and the end of the load.
    samples = watch.between(ended - 0.85 * seconds - 0.5, ended - 0.5 - 0.1 * seconds)
    if samples:
        passed, load = samples[1]["at"] - samples[0]["at"], result["load"]
        if server.database:
            used = samples[1]["database"] - samples[0]["database"]
            result["database_us"] = used * 1e6 / passed / load["messages_per_second"]
        result["wire_bytes_per_delivery"] = (
            (samples[1]["wire"] - samples[0]["wire"]) / passed / load["deliveries_per_second"]
        )
        if server.redis_port:
            result["redis"] = redis_use(*samples, load["messages_per_second"])
    return result


def usage_without_messages(before, after):
    """Cores of each process, bytes/s on the network and Redis commands/s between two samples."""
    seconds = after["at"] - before["at"]
    return {
        "cores": [(now - then) / seconds for now, then in zip(after["cpu"], before["cpu"])],
        "wire_bytes_per_second": (after["wire"] - before["wire"]) / seconds,
        "commands_per_second": sum(redis_use(before, after, 1)["calls_per_message"].values()),
    }


def log(text):
    print(text, file=sys.stderr, flush=True)


def rows_of(chosen):
    """The rows that the options without `--rows` choose."""
    if chosen.scale:
        return SCALE
    return [
        row
        for row in (ARCHIVE if chosen.archive else ROWS)
        if (chosen.huge or not row.huge or (allows_huge() and not chosen.quick))
        and (chosen.long or not row.long)
    ]


def main():
    chosen = options()
    if chosen.list:
        for row in ROWS + SCALE:
            print(f"{row.name:<18}{row.title}")
        return 0
    rows = rows_of(chosen)
    if chosen.rows:
        rows = [BY_NAME[name] for name in chosen.rows.split(",")]
    if len({row in SCALE for row in rows}) > 1:
        log("rows of --scale cannot be combined with other rows")
        return 2
    is_scale, is_archive = rows[0] in SCALE, all(row in ARCHIVE for row in rows)
    about = machine()
    if about["load_before"] > 0.5:
        log(f"the machine is busy (load {about['load_before']:.1f}): compare ratios, not times")
    # This process measures; it stays off the servers' core.
    os.sched_setaffinity(0, {int(LOAD_CORE)})
    figures, began, whole = Figures(), time.monotonic(), Stolen()
    ok, held = True, None
    # The fault lab runs first, because it reports missing programs at once. It only tests the
    # binary that is built here.
    if not (
        is_scale or is_archive or chosen.quick or chosen.rows or chosen.servers or "HUBBUB_BIN" in os.environ
    ):
        held = faults()
        ok = held is None or held[0] == held[1]
        outcome = (
            "not run"
            if held is None
            else "{} of {} scenarios without a broken guarantee".format(*held)
        )
        log(f"{time.monotonic() - began:4.0f} s  faults: {outcome}")
    for number in range(chosen.rounds):
        for row in rows:
            # The huge row nearly exhausts the machine, and databases take long to fill.
            if row.once and number:
                continue
            servers = [
                server
                for server in row.servers
                if not chosen.servers or server in chosen.servers.split(",")
            ]
            pairs = {side_by_side(pair): pair for pair in row.pairs if set(pair) <= set(servers)}
            for server in (*servers, *pairs):
                top = figures.runs.get(row.needs, {}).get(row.top_of, [None])[-1]
                stolen = Stolen()
                if server in pairs:
                    result = measure_pair(row, pairs[server], chosen)
                else:
                    result = measure(
                        row, server, chosen, top and top["load"]["messages_per_second"]
                    )
                if result:
                    result["stolen"] = stolen.share()
                figures.add(row.name, server, result)
                ok = ok and (result is None or result["ok"])
                log(
                    f"{time.monotonic() - began:4.0f} s  round {number + 1}  {row.name:<17}{server:<18} {summary(result)}"
                )
    about["stolen"] = whole.share()
    # Each with the document that it belongs to, and the option that writes it alone.
    if is_scale:
        parts = [(CAPACITY, "", growth(figures), [])]
    elif is_archive:
        parts = [(DOCS, " --archive", *with_archive(figures))]
    else:
        parts = [(DOCS, "", *compared(figures, held))]
        if any(row in ARCHIVE for row in rows):
            parts.append((DOCS, " --archive", *with_archive(figures)))
    parts = [
        (path, option, f"{heading(about, chosen)}\n\n{text}", reached)
        for path, option, text, reached in parts
    ]
    text = "\n\n".join(text for _, _, text, _ in parts)
    print(text)
    kind = "scale" if is_scale else "archive" if is_archive else "result"
    (TARGET / "bench").mkdir(exist_ok=True)
    (TARGET / "bench" / f"{kind}.md").write_text(text + "\n", encoding="utf-8")
    record = {
        "machine": about,
        "seconds": chosen.seconds,
        "rounds": chosen.rounds,
        "runs": figures.runs,
        "goals": [goal for *_, reached in parts for goal in reached],
    }
    (TARGET / "bench" / f"{kind}.json").write_text(
        json.dumps(record, indent=1) + "\n", encoding="utf-8"
    )
    if chosen.docs:
        for path, option, text, _ in parts:
            write_docs(path, text, option)
    if not ok:
        log("messages were missing, repeated or out of order: see target/bench and target/faults")
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
