"""What is measured: each row is a load that some servers are put under in turn."""

from dataclasses import dataclass

ONE_NODE = ("floor", "hubbub", "ws", "uws", "bun")
TWO_NODES = ("hubbub-2", "ws-2", "uws-2")


@dataclass(frozen=True)
class Row:
    name: str
    title: str
    load: tuple  # arguments of `hubbub bench`
    servers: tuple
    needs: str = ""  # the row whose messages a second, of the same server and round, are the top load
    huge: bool = False


def crowd(clients, rooms, *more):
    return ("--clients", str(clients), "--rooms", str(rooms), *more)


ROWS = (
    Row("one-1", "10 rooms × 100, 1 in flight", crowd(1000, 10, "--in-flight", "1"), ONE_NODE),
    Row("one-4", "10 rooms × 100, 4 in flight", crowd(1000, 10, "--in-flight", "4"), ONE_NODE),
    Row("many-4", "100 rooms × 10, 4 in flight", crowd(1000, 100, "--in-flight", "4"), ONE_NODE),
    Row("idle", "10,000 idle, joined (1,000 rooms × 10)", crowd(10000, 1000, "--idle"), ONE_NODE),
    Row("half", "half of the top load, 10 × 100", crowd(1000, 10), ("floor", "hubbub"), needs="one-4"),
    Row("storm", "10,000 cut off and back (100 × 100)", crowd(10000, 100, "--idle", "--storm"), ("hubbub",)),
    Row("two-4", "two nodes and Redis, 10 × 100, 4 in flight", crowd(1000, 10, "--in-flight", "4"), TWO_NODES),
    Row("two-many-4", "two nodes and Redis, 100 × 10, 4 in flight", crowd(1000, 100, "--in-flight", "4"), TWO_NODES),
    Row("two-half", "two nodes, half of the top load, 10 × 100", crowd(1000, 10), ("hubbub-2",), needs="two-4"),
    Row("two-storm", "two nodes, 10,000 cut off and back", crowd(10000, 100, "--idle", "--storm"), ("hubbub-2",)),
    # A message a second in each of a hundred rooms, while the others are silent but for heartbeats.
    Row("huge", "100,000 connections, 1,000 × 100, 100 messages/s", crowd(100000, 1000, "--rate", "100"), ("hubbub",), huge=True),
)

BY_NAME = {row.name: row for row in ROWS}
