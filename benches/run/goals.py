"""Evaluates the goals."""

from statistics import median

from archive_tables import P99, added_us
from figures import DELIVERY, cell, found_at, per_message, times_floor
from rows import BY_NAME, WITH_DATABASES, WITH_SQLITE, side_by_side
from servers import database_and_ack

# Up to this factor the cost of a message counts as constant: two rounds differ by as much.
CONSTANT = 1.25
# The names of the databases in the goals.
DATABASE_NAMES = {"sqlite": "SQLite", "postgres": "PostgreSQL", "mariadb": "MariaDB"}


class Goals:
    """Collects goals: each with its title, the measured value, the limit, and whether it is reached.

    `None` instead of true or false: not measured; `broken`: a guarantee was broken.
    """

    def __init__(self, figures):
        self.figures = figures
        self.rows = []

    def __call__(self, of, title, values, limit, digits=2, at_least=False, unit=""):
        reached = None
        if self.figures.broken.intersection(of.split()):
            reached = "broken"
        elif values:
            reached = median(values) >= limit if at_least else median(values) <= limit
        measured = cell(values, digits) + unit if values else "–"
        sign = "≥" if at_least else "≤"
        self.rows.append((title, measured, f"{sign} {limit:,.{digits}f}{unit}", reached))


def archive_goals(figures):
    """The goals of the archive."""
    goal = Goals(figures)

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
        for row, when in (
            ("archive-away", "it is stopped"),
            ("archive-outage", "it is stopped for 5 minutes"),
        ):
            ratios = [
                found_at(result, P99) / found_at(result, ("before", "latency_ms", "p99"))
                for result in figures.steady(row, server)
                if result
            ]
            goal(row, f"{name}: p99 while {when}, × before", ratios, 1.1)
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
    return goal.rows


def goals(figures, held):
    """The goals of the rows without a database.

    `held`: the number of the fault lab's scenarios that held every guarantee, and the number of all;
    `None` if the fault lab did not run.
    """
    goal = Goals(figures)
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
    title = "faults, `scripts/faults --short`: scenarios without a broken guarantee"
    goal.rows.append(
        (title, "{} of {}".format(*held) if held else "–", "all", held and held[0] == held[1])
    )
    return goal.rows


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
