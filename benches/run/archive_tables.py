"""The tables of the archive: costs, the lag, an outage of the database, and the history."""

from figures import NAMES, NODES, cell, each, per_message
from rows import ARCHIVE, BY_NAME, side_by_side
from servers import database_and_ack, kind_and_nodes

P99 = ("load", "latency_ms", "p99")


def archived(figures):
    """The tables of the archive: costs, the lag, an outage of the database, and the history."""
    return [
        archive_costs(figures),
        archive_lag(figures),
        archive_away(figures),
        archive_size(figures),
        pages(figures),
    ]


def archive_costs(figures):
    """The same load with and without a database behind the log."""
    lines = [
        "| archive | messages/s | µs per message: nodes | added by the archive | database | p99, ms "
        "| acknowledgements/s | p50, ms | p99, ms |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in ARCHIVE:
        if row.way:
            continue
        for server in row.servers:
            if not each(figures, row.name, server, bool):
                continue
            cells = [
                rate_cell(figures, row.name, server),
                cell(each(figures, row.name, server, node_us), 1),
                cell(added_us(figures, row.name, server), 1),
                cell(figures.values(row.name, server, "database_us"), 1),
                cell(figures.values(row.name, server, *P99), 1),
                cell(figures.values(row.name, server, "load", "acks", "per_second"), 0),
                *(
                    cell(figures.values(row.name, server, "load", "acks", "latency_ms", at), 1)
                    for at in ("p50", "p99")
                ),
            ]
            lines.append(f"| {row.title}: {NAMES[server]} | " + " | ".join(cells) + " |")
    return lines if len(lines) > 2 else []


def rate_cell(figures, row, server):
    """The messages sent per second, with a note if they were not all delivered in time."""
    rate = cell(figures.values(row, server, "load", "messages_per_second"), 0)
    return rate + ("" if all(figures.values(row, server, "keeps_up")) else ", does not keep up")


def node_us(result):
    """µs of CPU per message of all nodes, without Redis."""
    has_redis = len(result["servers"]["cores"]) > 1
    return per_message(result, NODES if has_redis else slice(None))


def added_us(figures, row, server):
    """µs of CPU per message that a database adds on the nodes.

    From the side-by-side run, if there is one at a fixed rate.
    """
    if not database_and_ack(server)[0]:
        return []
    nodes = kind_and_nodes(server)[1]
    without = f"hubbub-{nodes}" if nodes else "hubbub"
    if "--rate" in BY_NAME[row].load:
        found = figures.values(row, side_by_side((without, server)), "added")
        if found:
            return found
    return figures.differences((row, server), (row, without), node_us)


def archive_lag(figures):
    """How far the archive is behind at a high rate."""
    lines = [
        "| archive: lag | messages/s | lag p50, s | p99, s | messages that wait, p99 |",
        "| --- | --- | --- | --- | --- |",
    ]
    row = BY_NAME["archive-lag"]
    for server in row.servers:
        if not each(figures, row.name, server, bool):
            continue
        cells = [
            rate_cell(figures, row.name, server),
            *(cell(figures.values(row.name, server, "lag", at), 2) for at in ("p50_s", "p99_s")),
            cell(figures.values(row.name, server, "lag", "p99_messages"), 0),
        ]
        lines.append(f"| {row.title}: {NAMES[server]} | " + " | ".join(cells) + " |")
    return lines if len(lines) > 2 else []


def archive_away(figures):
    """A database that is stopped under load, and continues after it."""
    lines = [
        "| archive: database stopped | p99 before, ms | p99 meanwhile, ms | messages that waited "
        "| first commit after, s | then committed per second |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name in ("archive-away", "archive-outage", "archive-catch-up"):
        row = BY_NAME[name]
        for server in row.servers:
            if not each(figures, name, server, bool):
                continue
            cells = [
                cell(figures.values(name, server, "before", "latency_ms", "p99"), 1),
                cell(figures.values(name, server, *P99), 1),
                cell(figures.values(name, server, "catch_up", "messages"), 0),
                cell(figures.values(name, server, "catch_up", "after_s"), 2),
                cell(figures.values(name, server, "catch_up", "per_second"), 0),
            ]
            lines.append(f"| {row.title}: {NAMES[server]} | " + " | ".join(cells) + " |")
    return lines if len(lines) > 2 else []


def archive_size(figures):
    """The bytes on disk of a message."""
    lines = [
        "| archive: size | messages | bytes per message: on disk | of these, the record |",
        "| --- | --- | --- | --- |",
    ]
    row = BY_NAME["archive-size"]
    for server in row.servers:
        if not each(figures, row.name, server, bool):
            continue
        cells = [
            cell(figures.values(row.name, server, "size", at), 0)
            for at in ("messages", "disk_bytes_per_message", "record_bytes_per_message")
        ]
        lines.append(f"| {row.title}: {NAMES[server]} | " + " | ".join(cells) + " |")
    return lines if len(lines) > 2 else []


def pages(figures):
    """Pages of rooms in a database with many messages."""
    lines = [
        "| archive: history | messages | first read of a room: p50, ms | p99, ms | warm: p50, ms "
        "| p99, ms | cold: p50, ms | p99, ms | first and cold: p50, ms | p99, ms |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    row = BY_NAME["archive-history"]
    for server in row.servers:
        if not each(figures, row.name, server, bool):
            continue
        values = lambda *path: figures.values(row.name, server, "history", *path)
        cells = [cell(values("messages"), 0)]
        for state in ("first", "warm", "cold", "restart"):
            cells += [cell(values(state, at), 2) for at in ("p50", "p99")]
        lines.append(f"| {NAMES[server]} | " + " | ".join(cells) + " |")
    return lines if len(lines) > 2 else []
