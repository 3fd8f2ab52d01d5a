"""The tables that compare servers: one node, a cluster, the same rate, unrelated load."""

from statistics import median

from figures import (
    DELIVERY,
    NAMES,
    NODES,
    REDIS,
    cell,
    each,
    marks,
    per_message,
    times_floor,
)
from rows import BY_NAME, ELSEWHERE
from servers import kind_and_nodes


def anchors(figures, servers):
    """One node: CPU per delivery (and × floor), memory, connections, latency at maximum load."""
    lines = [
        "| server | µs per delivery: 10 × 100, 1 in flight | 10 × 100, 4 in flight | 100 × 10, 4 in flight | KB per connection | connects/s | p99 at maximum load, ms |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for server in servers:
        cells = []
        for row in ("one-1", "one-4", "many-4"):
            ratio = (
                times_floor(figures, row)
                if server == "hubbub"
                else figures.ratios(row, server, "floor", *DELIVERY)
            )
            times = f", × {median(ratio):.2f}" if ratio and server != "floor" else ""
            cells.append(
                cell(figures.values(row, server, *DELIVERY)) + times + marks(figures, row, server)
            )
        cells.append(
            cell(
                [
                    value / 1000
                    for value in figures.values("idle", server, "servers", "bytes_per_connection")
                ],
                1,
            )
        )
        cells.append(cell(figures.values("idle", server, "connecting", "per_second"), 0))
        cells.append(
            cell(figures.values("one-4", server, "load", "latency_ms", "p99"), 1)
            + marks(figures, "one-4", server)
        )
        lines.append(f"| {NAMES[server]} | " + " | ".join(cells) + " |")
    return lines if len(lines) > 2 else []


def clusters(figures, servers):
    """Two nodes and Redis: µs of all their CPU per delivery, and messages per second."""
    lines = [
        "| two nodes and Redis | µs per delivery: 10 × 100, 4 in flight | 100 × 10, 4 in flight |",
        "| --- | --- | --- |",
    ]
    for server in servers:
        cells = []
        for row in ("two-4", "two-many-4"):
            messages = figures.values(row, server, "load", "messages_per_second")
            cells.append(
                cell(figures.values(row, server, *DELIVERY))
                + (f"; {median(messages):,.0f} messages/s" if messages else "")
                + marks(figures, row, server)
            )
        lines.append(f"| {NAMES[server]} | " + " | ".join(cells) + " |")
    return lines if len(lines) > 2 else []


def same_rate(figures, load, rows):
    """All servers at the same rate: latencies, and the part of the core that they use."""
    lines = [
        f"| {load}, 10 × 100 | messages/s | p50, ms | p99, ms | cores |",
        "| --- | --- | --- | --- | --- |",
    ]
    for row in map(BY_NAME.get, rows):
        for server in row.servers:
            rates = figures.values(row.name, server, "load", "messages_per_second")
            if not rates:
                continue
            cells = [f"{median(rates):,.0f}"]
            if min(figures.values(row.name, server, "keeps_up")):
                cells += [
                    cell(figures.values(row.name, server, "load", "latency_ms", at), 1)
                    for at in ("p50", "p99")
                ]
            else:
                cells += ["–", "does not keep up"]
            cells.append(cell(figures.sums(row.name, server, "servers", "cores")))
            lines.append(
                f"| {NAMES[server]}{', two nodes' if kind_and_nodes(server)[1] else ''} | "
                + " | ".join(cells)
                + " |"
            )
    return lines if len(lines) > 2 else []


def elsewhere(figures):
    """The cost of a message while only unrelated rooms, connections and nodes are added."""
    lines = [
        "| 2,000 messages/s in rooms of 10 members | µs per message: nodes | Redis | Redis: commands per message | bytes out per message |",
        "| --- | --- | --- | --- | --- |",
    ]
    for row in ELSEWHERE:
        for server in row.servers:
            if not each(figures, row.name, server, bool):
                continue
            others = kind_and_nodes(server)[1] - 1
            cells = [
                cell(each(figures, row.name, server, lambda result: per_message(result, NODES)), 0),
                cell(each(figures, row.name, server, lambda result: per_message(result, REDIS)), 0),
                cell(figures.values(row.name, server, "redis", "commands_per_message"), 1),
                cell(figures.values(row.name, server, "redis", "bytes_out_per_message"), 0),
            ]
            lines.append(
                f"| {row.title}{f', with {others} further nodes' if others else ''} | "
                + " | ".join(cells)
                + " |"
            )
    return lines if len(lines) > 2 else []
