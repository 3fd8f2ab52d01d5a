"""Runs the rows for the servers in turn, several rounds interleaved, and prints tables and goals."""

import argparse
import json
import os
import platform
import re
import signal
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from dataclasses import replace

from figures import Figures, anchors, clusters, elsewhere, goal_table, goals, growth, legend, same_rate
from rows import BY_NAME, JIT, ONE_NODE, PAIR, ROWS, SCALE, TWO_NODES
from servers import BOTH_CORES, LOAD_CORE, ROOT, SERVER_CORE, TARGET, Failed, hard_limit, parted, raise_files, running
from watch import Redis, Watch, peak, redis_use, resident

DOCS = ROOT / "docs" / "performance.md"
CAPACITY = ROOT / "docs" / "capacity.md"
# Those that this may use; later only the load's.
CORES = os.sched_getaffinity(0)
# A share of stolen time that is worth a word.
NOTED = 0.01
# How long one of two generators runs before it is the other's turn, in seconds.
SLICE = 0.3


def options():
    parser = argparse.ArgumentParser(prog="scripts/bench", description="Measures hubbub beside others and beside the floor.")
    parser.add_argument("--quick", action="store_true", help="one short round")
    parser.add_argument("--rounds", type=int, help="how often each row is measured [3]")
    parser.add_argument("--seconds", type=int, help="how long each is measured [5]")
    parser.add_argument("--rows", help="these only, separated by commas")
    parser.add_argument("--servers", help="these only, separated by commas")
    parser.add_argument("--huge", action="store_true", help="100,000 connections too")
    parser.add_argument("--scale", action="store_true", help="how cost grows with nodes, rooms and connections, and nothing else")
    parser.add_argument("--docs", action="store_true", help="puts the tables into docs/performance.md (--scale: docs/capacity.md)")
    parser.add_argument("--list", action="store_true", help="names the rows")
    chosen = parser.parse_args()
    chosen.rounds = chosen.rounds or (1 if chosen.quick else 3)
    chosen.seconds = chosen.seconds or (2 if chosen.quick else 5)
    for name in (chosen.rows or "").split(","):
        if name and name not in BY_NAME:
            parser.error(f"there is no row {name}")
    return chosen


def generator(load, server, *more, cores=LOAD_CORE):
    """The command line of the load generator."""
    line = ["taskset", "-c", cores, str(TARGET / "release" / "hubbub"), "bench", "--json", *load, *more]
    return [*line, "--url", ",".join(f"http://127.0.0.1:{port}" for port in server.ports)]


@contextmanager
def crowd_beside(count, server):
    """Holds so many idle connections, in rooms of ten, from when all have joined."""
    if not count:
        yield
        return
    load = ["--clients", str(count), "--rooms", str(count // 10), "--idle", "--duration", "1h"]
    process = subprocess.Popen(
        generator(load, server), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, preexec_fn=raise_files
    )
    try:
        deadline = time.monotonic() + 60
        while sum(connected(port) for port in server.ports) < count:
            if process.poll() is not None or time.monotonic() > deadline:
                raise Failed(f"{count} idle connections did not come")
            time.sleep(0.2)
        # The last ones join, and their rooms hear of it.
        time.sleep(2)
        yield
        if process.poll() is not None:
            raise Failed("the idle connections were not held")
    finally:
        process.kill()
        process.wait()


def connected(port):
    """How many connections a node of hubbub counts."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=20) as answer:
        return json.load(answer)["connectedClients"]


def measure(row, server, chosen, top):
    """One run; the generator's JSON, or `None` with a word on why."""
    kind, _ = parted(server)
    warm_up = max(row.warm_up, (1 if chosen.quick else 2) * (2 if kind in JIT else 1))
    seconds = row.seconds or chosen.seconds
    load = [*row.load, "--duration", str(seconds), "--warm-up", str(warm_up)]
    if row.needs:
        if not top:
            return None
        load += ["--rate", str(max(1, int(top / 2)))]
    try:
        if row.huge and not holds_huge():
            return guest()
        with running(server, BOTH_CORES if row.wide else SERVER_CORE) as it:
            if row.at_first:
                it = replace(it, ports=it.ports[:1])
            result = scaled(row, it, load, seconds) if row.watched else run(it, load, BOTH_CORES if row.roams else LOAD_CORE)
            if row.huge:
                result["servers"]["peak_bytes"] = sum(map(peak, it.pids))
    except Failed as why:
        say(f"{server}: {why}")
        return None
    except subprocess.TimeoutExpired:
        say(f"{server}: the generator did not end in time")
        return None
    except (OSError, ArithmeticError, ValueError, KeyError) as why:
        say(f"{server}: it could not be looked at any more: {why!r}")
        return None
    if row.needs:
        load = result["load"]
        wanted = load["messages_per_second"] * result["members"]
        result["keeps_up"] = load["deliveries_per_second"] > 0.95 * wanted
        # Where the rate is another server's, not to bear it is a figure and no fault.
        result["ok"] = result["ok"] or (server != row.top_of and not result["keeps_up"])
    return result


def run(server, load, cores=LOAD_CORE):
    """One run of the generator."""
    line = generator(load, server, "--pid", ",".join(map(str, server.pids)), cores=cores)
    done = subprocess.run(line, capture_output=True, text=True, timeout=300, preexec_fn=raise_files, check=False)
    return result_of(done.stdout, done.stderr)


def result_of(printed, why):
    """What a generator found."""
    if not printed.startswith("{"):
        raise Failed(why.strip())
    return json.loads(printed)


def side_by_side(row, chosen):
    """What a delivery costs hubbub as a multiple of what it costs the floor, or `None` with a word on why.

    Both are there at once, and their generators run in turn for a moment each: what makes the machine slower for a while makes
    it so for both. Latencies say nothing then.
    """
    load = [*row.load, "--duration", str(2 * chosen.seconds), "--warm-up", "2"]
    generators = []
    try:
        with running("floor") as floor, running("hubbub") as hubbub:
            for server in (floor, hubbub):
                line = generator(load, server, "--pid", ",".join(map(str, server.pids)))
                pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
                generators.append(subprocess.Popen(line, **pipes, preexec_fn=raise_files))
            in_turn(generators, time.monotonic() + 2 * chosen.seconds + 60)
            results = [result_of(*process.communicate()) for process in generators]
        costs = [result["servers"]["cpu_us_per_delivery"] for result in results]
        times = costs[1] / costs[0]
    except (Failed, OSError, ArithmeticError, ValueError, KeyError, TypeError) as why:
        say(f"side by side: {why!r}")
        return None
    finally:
        for process in generators:
            process.kill()
            process.wait()
    findings = next((result["findings"] for result in results if not result["ok"]), {})
    return {"ok": all(result["ok"] for result in results), "findings": findings, "times_floor": times, "costs": costs}


def in_turn(processes, deadline):
    """Lets one of them run at a time until all have ended."""
    for process in processes:
        process.send_signal(signal.SIGSTOP)
    while alive := [process for process in processes if process.poll() is None]:
        if time.monotonic() > deadline:
            raise Failed("the generators did not end in time")
        for process in alive:
            process.send_signal(signal.SIGCONT)
            time.sleep(SLICE)
            process.send_signal(signal.SIGSTOP)


def holds_huge():
    """Whether a process may have as many files as there are connections, and a few for itself."""
    return hard_limit() > 100_500


def guest():
    """The run with 100,000 connections in a virtual machine, whose limits are its own."""
    binary = os.environ.get("HUBBUB_BIN", str(TARGET / "release" / "hubbub"))
    line = [str(ROOT / "benches" / "guest" / "run"), binary]
    done = subprocess.run(line, capture_output=True, text=True, timeout=4000, preexec_fn=on_all_cores, check=False)
    if not done.stdout.startswith("{"):
        raise Failed(done.stderr.strip()[-600:])
    result, end = json.JSONDecoder().raw_decode(done.stdout)
    say(f"{done.stderr}{done.stdout[end:]}".strip())
    result["ok"] = result["ok"] and done.returncode == 0
    # Where the processor is emulated, only memory says something.
    result["emulated"] = "KVM: no" in done.stdout
    if result["emulated"]:
        del result["load"]["latency_ms"]
    return result


def faults():
    """How many scenarios of the fault lab's short form held every promise, and of how many; `None` when it could not be run."""
    line = [str(ROOT / "scripts" / "faults"), "--short", "--jobs", "2"]
    lab = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=on_all_cores)
    try:
        told, why = lab.communicate(timeout=3600)
    except subprocess.TimeoutExpired:
        # What it has started ends with it.
        lab.terminate()
        told, why = lab.communicate()
    words = re.findall(r"^(passed|FAILED) ", told, re.M)
    if lab.returncode:
        say(f"the fault lab: {told}{why}")
    if not words:
        return None
    # One that it broke off at isn't told of.
    broke_off = lab.returncode != 0 and "FAILED" not in words
    return words.count("passed"), len(words) + broke_off


def on_all_cores():
    os.sched_setaffinity(0, CORES)


def scaled(row, server, load, seconds):
    """One run with a watch on what Redis and the network do meanwhile, and on what the servers do at rest."""
    watch = Watch(server)
    memory, first = [resident(pid) for pid in server.pids], watch.look()
    with crowd_beside(row.beside, server):
        there, then = [resident(pid) for pid in server.pids], watch.look()
        rest = None
        if row.rests:
            time.sleep(row.seconds)
            rest = at_rest(then, watch.look())
        with watch:
            result = run(server, load)
            ended = time.monotonic()
        if row.rests and row.beside <= 1000:
            result["keys"] = Redis(server.redis_port).keys()
    result["rest"] = rest
    if row.beside:
        result["beside"] = {
            "node_bytes": (sum(there[1:]) - sum(memory[1:])) / row.beside,
            "redis_bytes": (then["redis"]["used_memory"] - first["redis"]["used_memory"]) / row.beside,
            # Both ends are on this machine.
            "kernel_bytes": (then["slab"] - first["slab"]) / row.beside / 2,
            "node_us": (sum(then["cpu"][1:]) - sum(first["cpu"][1:])) * 1e6 / row.beside,
            "redis_us": (then["cpu"][0] - first["cpu"][0]) * 1e6 / row.beside,
        }
    # Clear of the warm-up before it and of the end behind it.
    samples = watch.between(ended - 0.85 * seconds - 0.5, ended - 0.5 - 0.1 * seconds)
    if samples:
        passed, load = samples[1]["at"] - samples[0]["at"], result["load"]
        result["wire_bytes_per_delivery"] = (samples[1]["wire"] - samples[0]["wire"]) / passed / load["deliveries_per_second"]
        if server.redis_port:
            result["redis"] = redis_use(*samples, load["messages_per_second"])
    return result


def at_rest(before, after):
    """What each process used of a core, the bytes a second on the network, and Redis's commands a second, while nothing was said."""
    seconds = after["at"] - before["at"]
    return {
        "cores": [(now - then) / seconds for now, then in zip(after["cpu"], before["cpu"])],
        "wire_bytes_per_second": (after["wire"] - before["wire"]) / seconds,
        "commands_per_second": sum(redis_use(before, after, 1)["calls_per_message"].values()),
    }


def say(text):
    print(text, file=sys.stderr, flush=True)


def told(result):
    """One run in a line."""
    if not result:
        return "nothing"
    words = []
    if "times_floor" in result:
        floor, hubbub = result["costs"]
        words.append(f"{hubbub:.2f} µs a delivery, {floor:.2f} the floor's: × {result['times_floor']:.2f}")
    elif result.get("load"):
        load = result["load"]
        delivery = result["servers"]["cpu_us_per_delivery"]
        words.append(f"{delivery:.2f} µs a delivery, {load['messages_per_second']:,.0f} messages/s")
        if load.get("latency_ms"):
            words.append(f"p99 {load['latency_ms']['p99']:.1f} ms")
        words.append(f"generator {load['generator_cores']:.2f}, servers {sum(result['servers']['cores']):.2f} cores")
    else:
        words.append(f"{result['servers']['bytes_per_connection'] / 1000:.1f} KB, {result['connecting']['per_second']:,.0f} connects/s")
    if result.get("keeps_up") is False:
        words.append("does not keep up")
    if result.get("storm"):
        words.append(f"storm {result['storm']['seconds']:.2f} s")
    if result["stolen"] > NOTED:
        words.append(f"{result['stolen']:.0%} of the time taken away by the host")
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


class Stolen:
    """What the host of a virtual machine gave to others: it makes everything slower, and is charged to whoever ran."""

    def __init__(self):
        self.before = self.look()

    @staticmethod
    def look():
        with open("/proc/stat", encoding="ascii") as file:
            ticks = [int(word) for word in file.readline().split()[1:9]]
        return ticks[7], sum(ticks)

    def share(self):
        """Of the processors' time since the beginning."""
        (stolen, whole), (stolen_before, whole_before) = self.look(), self.before
        return (stolen - stolen_before) / max(1, whole - whole_before)


def heading(about, chosen):
    """On what was measured, and how."""
    text = (
        f"Measured on {about['processor']} with {about['cores']} cores, Linux {about['kernel']}, Node {about['node']}; servers on one core, "
        f"the generator on another; {chosen.rounds} round{'s'[: chosen.rounds > 1]} of {chosen.seconds} s"
        f"{', medians (and from least to greatest)' if chosen.rounds > 1 else ''}."
    )
    if about["stolen"] > NOTED:
        text += f" The host took {about['stolen']:.0%} of the time away meanwhile; that is in the figures."
    return text


def compared(figures, held):
    """The tables of servers beside others, and the goals."""
    measured = {server for runs in figures.runs.values() for server, found in runs.items() if any(found)}
    reached = goals(figures, held)
    tables = [
        anchors(figures, [server for server in ONE_NODE if server in measured]),
        clusters(figures, [server for server in TWO_NODES if server in measured]),
        same_rate(figures, "at half of hubbub's top load", ("half", "two-half")),
        same_rate(figures, "at half of what it takes one message at a time", ("calm", "two-calm")),
        elsewhere(figures),
    ]
    tables += [legend(tables), goal_table(reached)]
    return "\n\n".join("\n".join(table) for table in tables if table), reached


def write_docs(path, text):
    whole = path.read_text(encoding="utf-8")
    begin, end = "<!-- scripts/bench writes from here -->", "<!-- to here -->"
    head, tail = whole.split(begin)[0], whole.split(end)[1]
    path.write_text(f"{head}{begin}\n{text}\n{end}{tail}", encoding="utf-8")


def main():
    chosen = options()
    if chosen.list:
        for row in ROWS + SCALE:
            print(f"{row.name:<12}{row.title}")
        return 0
    rows = SCALE if chosen.scale else [row for row in ROWS if chosen.huge or not row.huge or (holds_huge() and not chosen.quick)]
    if chosen.rows:
        rows = [BY_NAME[name] for name in chosen.rows.split(",")]
    if len({row in SCALE for row in rows}) > 1:
        say("rows of --scale go by themselves")
        return 2
    is_scale = rows[0] in SCALE
    about = machine()
    if about["load_before"] > 0.5:
        say(f"the machine is busy (load {about['load_before']:.1f}): compare ratios, not times")
    # What looks on stays off the servers' core.
    os.sched_setaffinity(0, {int(LOAD_CORE)})
    figures, began, whole = Figures(), time.monotonic(), Stolen()
    well, held = True, None
    # First: it says at once what it lacks. It knows no other binary than the one that is built here.
    if not (is_scale or chosen.quick or chosen.rows or chosen.servers or "HUBBUB_BIN" in os.environ):
        held = faults()
        well = held is None or held[0] == held[1]
        say(f"{time.monotonic() - began:4.0f} s  faults: {'not tried' if held is None else '{} of {} scenarios held every promise'.format(*held)}")
    for number in range(chosen.rounds):
        for row in rows:
            # Once is enough for what hardly fits.
            if row.huge and number:
                continue
            servers = [server for server in row.servers if not chosen.servers or server in chosen.servers.split(",")]
            if row.paired and {"floor", "hubbub"} <= set(servers):
                servers.append(PAIR)
            for server in servers:
                top = figures.runs.get(row.needs, {}).get(row.top_of, [None])[-1]
                stolen = Stolen()
                if server == PAIR:
                    result = side_by_side(row, chosen)
                else:
                    result = measure(row, server, chosen, top and top["load"]["messages_per_second"])
                if result:
                    result["stolen"] = stolen.share()
                figures.add(row.name, server, result)
                well = well and (result is None or result["ok"])
                say(f"{time.monotonic() - began:4.0f} s  round {number + 1}  {row.name:<11}{server:<12} {told(result)}")
    about["stolen"] = whole.share()
    text, reached = (growth(figures), []) if is_scale else compared(figures, held)
    text = f"{heading(about, chosen)}\n\n{text}"
    print(text)
    (TARGET / "bench").mkdir(exist_ok=True)
    (TARGET / "bench" / ("scale.md" if is_scale else "tables.md")).write_text(text + "\n", encoding="utf-8")
    record = {"machine": about, "seconds": chosen.seconds, "rounds": chosen.rounds, "runs": figures.runs, "goals": reached}
    (TARGET / "bench" / ("scale.json" if is_scale else "result.json")).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    if chosen.docs:
        write_docs(CAPACITY if is_scale else DOCS, text)
    if not well:
        say("messages were missing, repeated or out of order: see target/bench, and target/faults")
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
