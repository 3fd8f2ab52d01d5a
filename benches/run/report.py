"""The texts of a run: a line for each measurement, the machine, and all tables."""

import os
import platform
import re
import subprocess

from archive_tables import archived
from figures import legend
from goals import archive_goals, goal_table, goals
from rows import ONE_NODE, TWO_NODES
from servers import ROOT
from tables import anchors, clusters, elsewhere, same_rate

DOCS = ROOT / "docs" / "performance.md"
CAPACITY = ROOT / "docs" / "capacity.md"
# A share of stolen time above this is reported.
NOTED = 0.01


def summary(result):
    """One line about a run."""
    if not result:
        return "no result"
    parts = []
    if "times" in result:
        first, second = result["costs"]
        parts.append(f"{second:.2f} µs, the other {first:.2f}: × {result['times']:.2f}")
    elif "history" in result:
        found = result["history"]
        parts.append(f"{found['messages']:,} messages in {found['seed_seconds']:.0f} s")
        for name in ("first", "warm", "cold", "restart"):
            if found[name]:
                parts.append(f"{name} p50 {found[name]['p50']:.2f}, p99 {found[name]['p99']:.2f} ms")
    elif result.get("load"):
        load = result["load"]
        delivery = result["servers"]["cpu_us_per_delivery"]
        parts.append(
            f"{delivery:.2f} µs per delivery, {load['messages_per_second']:,.0f} messages/s"
        )
        if load.get("latency_ms"):
            parts.append(f"p99 {load['latency_ms']['p99']:.1f} ms")
        if load.get("acks"):
            acks = load["acks"]
            parts.append(
                f"{acks['per_second']:,.0f} acks/s, p50 {acks['latency_ms']['p50']:.1f}, "
                f"p99 {acks['latency_ms']['p99']:.1f} ms"
            )
        parts.append(
            f"generator {load['generator_cores']:.2f}, servers {sum(result['servers']['cores']):.2f} cores"
        )
    else:
        parts.append(
            f"{result['servers']['bytes_per_connection'] / 1000:.1f} KB, {result['connecting']['per_second']:,.0f} connects/s"
        )
    if "size" in result:
        parts.append(f"{result['size']['disk_bytes_per_message']:.0f} bytes on disk per message")
    if "lag" in result:
        parts.append(f"lag p99 {result['lag']['p99_s']:.2f} s")
    if "before" in result:
        parts.append(f"p99 before {result['before']['latency_ms']['p99']:.1f} ms")
    if "catch_up" in result:
        parts.append(f"{result['catch_up']['per_second']:,.0f} messages/s catching up")
    if result.get("keeps_up") is False:
        parts.append("does not keep up")
    if result.get("storm"):
        parts.append(f"reconnect storm {result['storm']['seconds']:.2f} s")
    if result.get("stolen", 0) > NOTED:
        parts.append(f"{result['stolen']:.0%} of the CPU time stolen by the host")
    if not result["ok"]:
        parts.append(
            f"FAILED CHECKS: { {key: value for key, value in result['findings'].items() if value} }"
        )
    return "; ".join(parts)


def machine():
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        model = re.search(r"model name\s*: (.*)", file.read())
    node = subprocess.run(
        ["node", "--version"], capture_output=True, text=True, check=False
    ).stdout.strip()
    return {
        "processor": model.group(1) if model else platform.machine(),
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "node": node,
        "load_before": os.getloadavg()[0],
    }


class Stolen:
    """CPU time that the host of a virtual machine gave to other machines.

    It makes everything slower, and is charged to the process that was running.
    """

    def __init__(self):
        self.before = self.read()

    @staticmethod
    def read():
        with open("/proc/stat", encoding="ascii") as file:
            ticks = [int(word) for word in file.readline().split()[1:9]]
        return ticks[7], sum(ticks)

    def share(self):
        """The stolen share of all processors' time since this object was made."""
        (stolen, whole), (stolen_before, whole_before) = self.read(), self.before
        return (stolen - stolen_before) / max(1, whole - whole_before)


def heading(about, chosen):
    """The sentence above the tables: the machine and the parameters."""
    text = (
        f"Measured on {about['processor']} with {about['cores']} cores, Linux {about['kernel']}, Node {about['node']}; servers on one core, "
        f"the generator on another; {chosen.rounds} round{'s'[: chosen.rounds > 1]} of {chosen.seconds} s"
        f"{', medians (and minimum to maximum)' if chosen.rounds > 1 else ''}."
    )
    if about["stolen"] > NOTED:
        text += f" The host stole {about['stolen']:.0%} of the CPU time meanwhile; the figures include that."
    return text


def compared(figures, held):
    """The tables that compare the servers, and the goals."""
    measured = {
        server for runs in figures.runs.values() for server, found in runs.items() if any(found)
    }
    tables = [
        anchors(figures, [server for server in ONE_NODE if server in measured]),
        clusters(figures, [server for server in TWO_NODES if server in measured]),
        same_rate(figures, "at half of hubbub's maximum load", ("half", "two-half")),
        same_rate(
            figures,
            "at half of hubbub's maximum load with one message at a time",
            ("calm", "two-calm"),
        ),
        elsewhere(figures),
    ]
    return with_goals(tables, goals(figures, held))


def with_archive(figures):
    """The tables of the archive, and its goals."""
    return with_goals(archived(figures), archive_goals(figures))


def with_goals(tables, reached):
    tables = [*tables, legend(tables), goal_table(reached)]
    return "\n\n".join("\n".join(table) for table in tables if table), reached


def write_docs(path, text, option=""):
    """Replaces the part of a document that a run with this option writes."""
    whole = path.read_text(encoding="utf-8")
    begin, end = f"<!-- scripts/bench{option} writes from here -->", "<!-- to here -->"
    head, rest = whole.split(begin)
    tail = rest.split(end, 1)[1]
    path.write_text(f"{head}{begin}\n{text}\n{end}{tail}", encoding="utf-8")
