"""Turns the measurements into the cells of tables, and evaluates the goals."""

from statistics import median

from rows import (
    ARCHIVE,
    BY_NAME,
    ELSEWHERE,
    GROWING,
    SCALE,
    WITH_DATABASES,
    WITH_FLOOR,
    WITH_SQLITE,
    side_by_side,
)
from servers import database_and_ack, kind_and_nodes


def found_at(result, path):
    """The value at this path of keys in a round's result, or `None`."""
    for key in path:
        result = result.get(key) if isinstance(result, dict) else None
    return result


class Figures:
    """All measurements: for each row and server one result per round, `None` if it failed."""

    def __init__(self):
        self.runs = {}
        # Rows in which messages of hubbub were missing, repeated or out of order.
        self.broken = set()

    def add(self, row, server, result):
        """Adds a result. A run with missing, repeated or unordered messages counts as failed."""
        is_ok = result is None or result["ok"]
        self.runs.setdefault(row, {}).setdefault(server, []).append(result if is_ok else None)
        if not is_ok and (" and " in server or kind_and_nodes(server)[0] == "hubbub"):
            self.broken.add(row)

    def values(self, row, server, *path):
        """One value per round, of the rounds that have it."""
        return [float(figure) for figure in self.all_at(row, server, path)]

    def sums(self, row, server, *path):
        """As `values`, for a value that is a list: the sum of the list."""
        return [sum(figures) for figures in self.all_at(row, server, path)]

    def all_at(self, row, server, path):
        every = [found_at(result, path) for result in self.runs.get(row, {}).get(server, [])]
        return [found for found in every if found is not None]

    def steady(self, row, server):
        """The results at a fixed rate in which the server kept up: else its costs mean nothing."""
        found = self.runs.get(row, {}).get(server, [])
        return [result if result and result.get("keeps_up", True) else None for result in found]

    def ratios(self, row, server, other, *path):
        """One value per round, divided by the value of another server in the same round."""
        return self.multiples((row, server), (row, other), lambda result: found_at(result, path))

    def multiples(self, mine, theirs, figure):
        """`figure` of each result, divided by that of another row and server in the same round."""
        found = self.both(mine, theirs, figure)
        return [one / other for one, other in found if one and other]

    def differences(self, mine, theirs, figure):
        """`figure` of each result, minus that of another row and server in the same round."""
        return [one - other for one, other in self.both(mine, theirs, figure)]

    def both(self, mine, theirs, figure):
        """`figure` of each result, with that of another row and server in the same round."""
        pairs = zip(*(self.steady(row, server) for row, server in (mine, theirs)))
        return [(figure(one), figure(other)) for one, other in pairs if one and other]


def cell(values, digits=2):
    """The median, and in brackets the minimum and the maximum."""
    if not values:
        return "–"
    if len(values) == 1:
        return f"{values[0]:,.{digits}f}"
    return f"{median(values):,.{digits}f} ({min(values):,.{digits}f} to {max(values):,.{digits}f})"


DELIVERY = ("servers", "cpu_us_per_delivery")
NAMES = {
    "floor": "floor: bare epoll, no checks",
    "hubbub": "**hubbub**",
    "ws": "Node, socket.io on `ws`",
    "uws": "Node, socket.io on uWebSockets.js",
    "bun": "Bun, socket.io on its own engine",
    "hubbub-2": "**hubbub**",
    "hubbub+sqlite": "**hubbub**, SQLite",
    "hubbub+postgres": "**hubbub**, PostgreSQL",
    "hubbub+mariadb": "**hubbub**, MariaDB",
    "hubbub-2+postgres": "**hubbub**, PostgreSQL",
    "hubbub-2+mariadb": "**hubbub**, MariaDB",
    "hubbub-2+postgres-archive": "**hubbub**, PostgreSQL, `ACK_AFTER=archive`",
    "hubbub-2+mariadb-archive": "**hubbub**, MariaDB, `ACK_AFTER=archive`",
    "ws-2": "Node `ws`, sharded adapter",
    "ws-pubsub-2": "Node `ws`, plain adapter (pub/sub)",
    "uws-2": "Node uWebSockets.js, sharded adapter",
}


GENERATOR_FULL = 0.95
SERVERS_BUSY = 0.9


def marks(figures, row, server):
    """Marks rows at maximum load that the servers may not have limited: see `legend`."""
    if not BY_NAME[row].is_top:
        return ""
    own = figures.values(row, server, "load", "generator_cores")
    busy = figures.sums(row, server, "servers", "cores")
    return ("†" if own and median(own) > GENERATOR_FULL else "") + (
        "‡" if busy and median(busy) < SERVERS_BUSY else ""
    )


def legend(tables):
    """Explains the marks, if the tables contain any."""
    if not any("†" in line or "‡" in line for table in tables for line in table):
        return []
    return [
        f"† The generator used more than {GENERATOR_FULL:.0%} of its core, so it may have been the limit. ‡ The servers used less than "
        f"{SERVERS_BUSY:.0%} of their core, so they were not the limit. Costs are valid in both cases; messages/s and latencies are then not "
        f"those of the servers alone."
    ]


def times_floor(figures, row):
    """The cost of a delivery in hubbub divided by its cost in the floor.

    From the side-by-side run, if there is one.
    """
    return figures.values(row, side_by_side(WITH_FLOOR[0]), "times") or figures.ratios(
        row, "hubbub", "floor", *DELIVERY
    )


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


# Up to this factor the cost of a message counts as constant: two rounds differ by as much.
CONSTANT = 1.25


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


# The names of the databases in the goals.
DATABASE_NAMES = {"sqlite": "SQLite", "postgres": "PostgreSQL", "mariadb": "MariaDB"}
P99 = ("load", "latency_ms", "p99")


def archived(figures):
    """The tables of the archive: costs, the lag, a database that is away, and the history."""
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
    for name in ("archive-away", "archive-catch-up"):
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


def archive_goals(figures, goal):
    """The goals of the archive. `goal`: see `goals`."""

    def steady(row, server, *path):
        values = [found_at(result, path) for result in figures.steady(row, server) if result]
        return [value for value in values if value is not None]

    row, server = "archive-acks", "hubbub+sqlite"
    acks = lambda at: figures.values(row, server, "load", "acks", *at)
    title = "SQLite, 64 senders in 64 rooms that await acknowledgements"
    goal(row, f"{title}: per second", acks(["per_second"]), 8000, 0, at_least=True)
    goal(row, f"{title}: p99", acks(["latency_ms", "p99"]), 50, 1, unit=" ms")
    row = "archive-one-4"
    goal(
        row,
        "SQLite: cost of a delivery, 10 × 100, 4 in flight, × without a database",
        figures.values(row, side_by_side(WITH_SQLITE[0]), "times")
        or figures.ratios(row, "hubbub+sqlite", "hubbub", *DELIVERY),
        1.25,
    )
    for without, server in WITH_DATABASES:
        name, row = DATABASE_NAMES[database_and_ack(server)[0]], "archive-two"
        added = added_us(figures, row, server)
        goal(row, f"{name}: CPU added per message, nodes", added, 15, 1, unit=" µs")
        used = steady(row, server, "database_us")
        goal(row, f"{name}: CPU per message, database", used, 30, 1, unit=" µs")
        ratios = figures.ratios(row, server, without, *P99)
        goal(row, f"{name}: p99 at 2,000 messages/s, × without a database", ratios, 1.1)
        lag = steady("archive-lag", server, "lag", "p99_s")
        goal("archive-lag", f"{name}: lag at 10,000 messages/s, p99", lag, 1, 2, unit=" s")
        speed = figures.values("archive-catch-up", server, "catch_up", "per_second")
        title = f"{name}: messages committed per second after it was stopped"
        goal("archive-catch-up", title, speed, 20000, 0, at_least=True)
        ratios = [
            found_at(result, P99) / found_at(result, ("before", "latency_ms", "p99"))
            for result in figures.steady("archive-away", server)
            if result
        ]
        title = f"{name}: p99 while it is stopped, × before"
        goal("archive-away", title, ratios, 1.1)
        row = "archive-two-acks"
        for at, limit in (("p50", 5), ("p99", 25)):
            times = steady(row, f"{server}-archive", "load", "acks", "latency_ms", at)
            title = f"{name}: acknowledgement after the commit at 2,000 messages/s, {at}"
            goal(row, title, times, limit, 1, unit=" ms")
    row = "archive-history"
    for server in BY_NAME[row].servers:
        name = DATABASE_NAMES[database_and_ack(server)[0]]
        for state, limit in (("warm", 5), ("cold", 25)):
            times = figures.values(row, server, "history", state, "p99")
            goal(row, f"{name}: a page of 50 messages, {state}, p99", times, limit, 1, unit=" ms")
        size = figures.values("archive-size", server, "size", "disk_bytes_per_message")
        goal("archive-size", f"{name}: bytes on disk of a message of 300 bytes", size, 450, 0)


def goals(figures, held):
    """For each goal: its title, the measured value, the limit, and whether it is reached.

    `None` instead of true or false: not measured; `broken`: a guarantee was broken. `held`: the
    number of the fault lab's scenarios that held every guarantee, and the number of all; `None` if
    the fault lab did not run.
    """
    rows = []

    def goal(of, title, values, limit, digits=2, at_least=False, unit=""):
        reached = None
        if figures.broken.intersection(of.split()):
            reached = "broken"
        elif values:
            reached = median(values) >= limit if at_least else median(values) <= limit
        sign = "≥" if at_least else "≤"
        rows.append(
            (
                title,
                cell(values, digits) + unit if values else "–",
                f"{sign} {limit:,.{digits}f}{unit}",
                reached,
            )
        )

    goal("one-1", "fan-out, 10 × 100, 1 in flight, × floor", times_floor(figures, "one-1"), 1.3)
    goal("one-4", "fan-out, 10 × 100, 4 in flight, × floor", times_floor(figures, "one-4"), 1.6)
    goal("many-4", "fan-out, 100 × 10, 4 in flight, × floor", times_floor(figures, "many-4"), 1.6)
    for row, size in (("two-4", "10 × 100"), ("two-many-4", "100 × 10")):
        goal(
            row,
            f"two nodes and Redis, {size}, × uWebSockets.js",
            figures.ratios(row, "hubbub-2", "uws-2", *DELIVERY),
            1.0,
        )
    goal(
        "idle",
        "memory of an idle joined connection",
        [v / 1000 for v in figures.values("idle", "hubbub", "servers", "bytes_per_connection")],
        6,
        1,
        unit=" KB",
    )
    goal(
        "idle",
        "connect, authenticate and join, per second",
        figures.values("idle", "hubbub", "connecting", "per_second"),
        5000,
        0,
        at_least=True,
    )
    for row, nodes in (("storm", "one node"), ("two-storm", "two nodes")):
        server = "hubbub" if row == "storm" else "hubbub-2"
        goal(
            row,
            f"reconnect storm of 10,000 is over, {nodes}",
            figures.values(row, server, "storm", "seconds"),
            10,
            1,
            unit=" s",
        )
    goal(
        "one-4",
        "p99 at maximum load, 4 in flight",
        figures.values("one-4", "hubbub", "load", "latency_ms", "p99"),
        10,
        1,
        unit=" ms",
    )
    goal(
        "half",
        "p99 at half of maximum load, one node",
        figures.values("half", "hubbub", "load", "latency_ms", "p99"),
        5,
        1,
        unit=" ms",
    )
    goal(
        "two-half",
        "p99 at half of maximum load, two nodes",
        figures.values("two-half", "hubbub-2", "load", "latency_ms", "p99"),
        10,
        1,
        unit=" ms",
    )
    where = " (emulated)" if figures.values("huge", "hubbub", "emulated") == [1.0] else ""
    goal(
        "huge",
        "100,000 connections: p99 of a message",
        figures.values("huge", "hubbub", "load", "latency_ms", "p99"),
        250,
        0,
        unit=" ms",
    )
    goal(
        "huge",
        f"100,000 connections: memory{where}",
        [v / 1e9 for v in figures.values("huge", "hubbub", "servers", "peak_bytes")],
        0.8,
        2,
        unit=" GB",
    )
    alone, cost = ("cost", "hubbub-1"), lambda result: per_message(result, slice(None))
    goal(
        "cost cost-rooms",
        "cost per message with 10,000 rooms, × with 100",
        figures.multiples(("cost-rooms", "hubbub-1"), alone, cost),
        CONSTANT,
    )
    goal(
        "cost cost-crowd",
        "cost per message with 15,000 idle connections, × without",
        figures.multiples(("cost-crowd", "hubbub-1"), alone, cost),
        CONSTANT,
    )
    goal(
        "cost",
        "cost per message with 3 nodes without members, × without",
        figures.multiples(("cost", "hubbub-4"), alone, cost),
        CONSTANT,
    )
    sent = lambda result: found_at(result, ("redis", "bytes_out_per_message"))
    goal(
        "cost",
        "bytes that Redis sends per message with them, × without",
        figures.multiples(("cost", "hubbub-4"), alone, sent),
        CONSTANT,
    )
    archive_goals(figures, goal)
    title = "faults, `scripts/faults --short`: scenarios without a broken guarantee"
    rows.append(
        (title, "{} of {}".format(*held) if held else "–", "all", held and held[0] == held[1])
    )
    return rows


def goal_table(rows):
    lines = ["| goal | measured | limit | |", "| --- | --- | --- | --- |"]
    words = {
        True: "reached",
        False: "**not reached**",
        None: "not measured here",
        "broken": "**broken**: messages were missing, repeated or out of order",
    }
    lines += [
        f"| {title} | {value} | {limit} | {words[reached]} |"
        for title, value, limit, reached in rows
    ]
    return lines


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


def each(figures, row, server, figure):
    """`figure` of each round's result."""
    return [figure(result) for result in figures.runs.get(row, {}).get(server, []) if result]


def per_message(result, part):
    """µs of CPU per message of the processes in `part` of the list (Redis is the first)."""
    return sum(result["servers"]["cores"][part]) * 1e6 / result["load"]["messages_per_second"]


REDIS, NODES = slice(0, 1), slice(1, None)


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
