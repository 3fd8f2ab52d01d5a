"""The tables of --scale: costs as nodes, rooms and connections grow, and Redis memory."""

from figures import (
    DELIVERY,
    NODES,
    REDIS,
    cell,
    each,
    found_at,
    legend,
    marks,
    per_message,
)
from rows import BY_NAME, GROWING, SCALE
from servers import kind_and_nodes


def growth(figures):
    """The tables of --scale: costs as nodes, rooms and connections grow, and Redis memory."""
    tables = [
        nodes(figures),
        wide(figures),
        crowds(figures),
        cores(figures),
        redis_keys(figures),
        network(figures),
    ]
    tables.append(legend(tables))
    return "\n\n".join("\n".join(table) for table in tables if table)


def nodes(figures):
    """CPU of nodes and Redis, and Redis commands and bytes, per message as nodes are added."""
    lines = [
        "| load | nodes | messages/s | µs per message: nodes | Redis | µs per delivery: nodes | Redis: commands per message | of these, scripts "
        "| bytes in per message | bytes out per message | p99, ms |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in SCALE:
        if not row.is_top:
            continue
        for server in row.servers:
            if not each(figures, row.name, server, bool):
                continue
            members = each(figures, row.name, server, lambda result: result["members"])[0]
            by_nodes = each(figures, row.name, server, lambda result: per_message(result, NODES))
            cells = [
                cell(figures.values(row.name, server, "load", "messages_per_second"), 0)
                + marks(figures, row.name, server),
                cell(by_nodes, 1),
                cell(each(figures, row.name, server, lambda result: per_message(result, REDIS)), 1),
                cell([value / members for value in by_nodes]),
                cell(figures.values(row.name, server, "redis", "commands_per_message"), 1),
                cell(figures.values(row.name, server, "redis", "scripts_per_message")),
                cell(figures.values(row.name, server, "redis", "bytes_in_per_message"), 0),
                cell(figures.values(row.name, server, "redis", "bytes_out_per_message"), 0),
                cell(figures.values(row.name, server, "load", "latency_ms", "p99"), 1),
            ]
            lines.append(
                f"| {row.title} | {kind_and_nodes(server)[1]} | " + " | ".join(cells) + " |"
            )
    return lines if len(lines) > 2 else []


def wide(figures):
    """Very many rooms: the cost of a message and of a join, and the memory of a room."""
    lines = [
        "| load | one node | messages/s | µs per message: node | Redis | p50, ms | p99, ms | joins/s | µs per join: node and Redis "
        "| KB per room with its members: node | Redis |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in SCALE:
        for server in row.servers if row.is_wide else ():
            if not each(figures, row.name, server, bool):
                continue
            has_redis = kind_and_nodes(server)[1] > 0
            node = NODES if has_redis else slice(None)

            def more(result, part):
                """KB per room: memory of these processes with all clients, minus that before."""
                return sum(result["servers"]["bytes_more"][part]) / result["rooms"] / 1000

            def of_redis(figure, digits):
                return (
                    cell(
                        each(figures, row.name, server, lambda result: figure(result, REDIS)),
                        digits,
                    )
                    if has_redis
                    else "–"
                )

            cells = [
                "with Redis" if has_redis else "without Redis",
                cell(figures.values(row.name, server, "load", "messages_per_second"), 0),
                cell(each(figures, row.name, server, lambda result: per_message(result, node)), 1),
                of_redis(per_message, 1),
                cell(figures.values(row.name, server, "load", "latency_ms", "p50"), 1),
                cell(figures.values(row.name, server, "load", "latency_ms", "p99"), 1),
                cell(
                    each(
                        figures,
                        row.name,
                        server,
                        lambda result: result["connecting"]["per_second"] * result["rooms_each"],
                    ),
                    0,
                ),
                cell(
                    each(
                        figures,
                        row.name,
                        server,
                        lambda result: (
                            result["servers"]["cpu_us_per_connection"] / result["rooms_each"]
                        ),
                    ),
                    0,
                ),
                cell(each(figures, row.name, server, lambda result: more(result, node)), 2),
                of_redis(more, 2),
            ]
            lines.append(f"| {row.title} | " + " | ".join(cells) + " |")
    return lines if len(lines) > 2 else []


def crowds(figures):
    """The same small load with more and more idle connections."""
    lines = [
        "| idle connections, with 100 messages/s | without messages: cores of the node | of Redis | Redis commands/s | bytes/s per connection | µs per message: node | Redis | p99, ms "
        "| µs to connect and join: node | Redis | KB per connection: node | kernel | Redis |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    server = GROWING[0]
    for row in SCALE:
        if not row.rests or not each(figures, row.name, server, bool):
            continue

        def more(result, part):
            """µs of CPU per message, on top of the usage without messages."""
            cores = sum(result["servers"]["cores"][part]) - sum(result["rest"]["cores"][part])
            return cores * 1e6 / result["load"]["messages_per_second"]

        cells = [
            cell(
                each(figures, row.name, server, lambda result: sum(result["rest"]["cores"][NODES])),
                3,
            ),
            cell(
                each(figures, row.name, server, lambda result: sum(result["rest"]["cores"][REDIS])),
                3,
            ),
            cell(figures.values(row.name, server, "rest", "commands_per_second"), 0),
            cell(
                each(
                    figures,
                    row.name,
                    server,
                    lambda result: result["rest"]["wire_bytes_per_second"] / row.beside,
                ),
                1,
            )
            if row.beside
            else "–",
            cell(each(figures, row.name, server, lambda result: more(result, NODES)), 0),
            cell(each(figures, row.name, server, lambda result: more(result, REDIS)), 0),
            cell(figures.values(row.name, server, "load", "latency_ms", "p99"), 1),
            cell(figures.values(row.name, server, "beside", "node_us"), 0),
            cell(figures.values(row.name, server, "beside", "redis_us"), 0),
            cell(
                [
                    value / 1000
                    for value in figures.values(row.name, server, "beside", "node_bytes")
                ],
                1,
            ),
            cell(
                [
                    value / 1000
                    for value in figures.values(row.name, server, "beside", "kernel_bytes")
                ],
                1,
            ),
            cell(
                [
                    value / 1000
                    for value in figures.values(row.name, server, "beside", "redis_bytes")
                ],
                1,
            ),
        ]
        lines.append(f"| {row.beside:,} | " + " | ".join(cells) + " |")
    return lines if len(lines) > 2 else []


# The kinds of keys in ARCHITECTURE.md's table of the Redis layout.
KINDS = {
    "h": "log of a room",
    "i": "remembered place of a send",
    "m": "numbering of a room",
    "u": "members of a room",
    "k": "number of connections per member of a room",
    "w": "names of the members of a room",
    "n": "connections of a node in a room",
    "p": "last changes of a room or a user",
    "s": "status of a user",
    "c": "connections of a user",
    "N": "rooms or users in which a node has connections",
    "q": "rate limits of a user",
}


def cores(figures):
    """The cost of a delivery on one and on two threads. The generator always uses both cores."""
    lines = [
        "| one node without Redis | µs per delivery | × one thread | p50, ms | p99, ms |",
        "| --- | --- | --- | --- | --- |",
    ]
    for row, threads in (
        ("cores-1", "one thread on one of two cores"),
        ("cores-2", "two threads on both"),
    ):
        if not each(figures, row, "hubbub", bool):
            continue
        times = figures.multiples(
            (row, "hubbub"), ("cores-1", "hubbub"), lambda result: found_at(result, DELIVERY)
        )
        cells = [cell(figures.values(row, "hubbub", *DELIVERY)), cell(times)]
        cells += [
            cell(figures.values(row, "hubbub", "load", "latency_ms", at), 1)
            for at in ("p50", "p99")
        ]
        lines.append(f"| {BY_NAME[row].title}, {threads} | " + " | ".join(cells) + " |")
    return lines if len(lines) > 2 else []


def redis_keys(figures):
    """The memory of Redis by kind of key (MEMORY USAGE), in the row with 1,000 idle connections."""
    found = [result for result in figures.runs.get("idle-1000", {}).get(GROWING[0], []) if result]
    if not found:
        return []
    keys = found[-1]["keys"]
    lines = ["| keys | content | count | bytes per key |", "| --- | --- | --- | --- |"]
    for kind, (count, total) in sorted(keys["kinds"].items(), key=lambda item: -item[1][1]):
        if kind in KINDS:
            lines.append(f"| `{kind}:` | {KINDS[kind]} | {count:,} | {total / count:,.0f} |")
            if kind == "h" and keys["log_entries"]:
                lines.append(
                    f"| | – each message in it | {keys['log_entries']:,} | {total / keys['log_entries']:,.0f} |"
                )
    return lines


def network(figures):
    """Bytes on the network per delivery.

    Measured without Redis, because its traffic would be on the same network.
    """
    found = figures.values("wire", "hubbub", "wire_bytes_per_delivery")
    if not found:
        return []
    return [
        "| one node without Redis | bytes on the network per delivery |",
        "| --- | --- |",
        f"| {BY_NAME['wire'].title}, contents of 100 bytes, including TCP and IP headers and the sent message | {cell(found, 0)} |",
    ]
