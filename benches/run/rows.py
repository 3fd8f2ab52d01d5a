"""The rows of the measurement: each row is a load, and the servers that it is run on in turn."""

from dataclasses import dataclass

ONE_NODE = ("floor", "hubbub", "ws", "uws", "bun")
TWO_NODES = ("hubbub-2", "ws-2", "ws-pubsub-2", "uws-2")
GROWING = ("hubbub-1", "hubbub-2", "hubbub-3", "hubbub-4")
# Pairs of servers that are measured side by side.
WITH_FLOOR = (("floor", "hubbub"),)
WITH_SQLITE = (("hubbub", "hubbub+sqlite"),)
WITH_DATABASES = (("hubbub-2", "hubbub-2+postgres"), ("hubbub-2", "hubbub-2+mariadb"))
DATABASES = ("hubbub-2+postgres", "hubbub-2+mariadb")
COMMITTING = ("hubbub-2+postgres-archive", "hubbub-2+mariadb-archive")
# These compile at run time: they reach their full speed only after some time under load.
JIT = ("ws", "ws-pubsub", "uws", "bun")


def side_by_side(pair):
    """Takes the place of a server's name where two servers are measured side by side."""
    return " and ".join(pair) + " side by side"


@dataclass(frozen=True)
class Row:
    name: str
    title: str
    load: tuple  # arguments of `hubbub bench`
    servers: tuple
    # Runs at half the rate that this row (at maximum load) reached in the same round, ...
    needs: str = ""
    top_of: str = ""  # ... on this server.
    huge: bool = False
    beside: int = 0  # idle connections that a second generator holds during the measurement
    seconds: int = 0  # fixed duration; overrides --seconds
    warm_up: int = 0  # minimum seconds of the same load before the measurement
    rests: bool = False  # also measures the servers' usage before the load
    watched: bool = False  # also samples Redis and the network during the load
    at_first: bool = False  # all clients connect to the first node; the others have none
    roams: bool = False  # the generator may use both cores
    wide: bool = False  # the servers may use both cores
    pairs: tuple = ()  # pairs of servers that are also measured side by side
    way: str = ""  # measured by the function of this name in archive.py
    once: bool = False  # only in the first round
    long: bool = False  # takes many minutes: only with --long, or if named

    @property
    def is_top(self):
        """Whether the load keeps the servers busy all the time."""
        return "--in-flight" in self.load

    @property
    def is_wide(self):
        """Whether each client is in many rooms."""
        return "--rooms-each" in self.load


def crowd(clients, rooms, *more):
    return ("--clients", str(clients), "--rooms", str(rooms), *more)


# Seconds between two heartbeats of a connection. Rows with many idle connections are measured for
# this long, because the heartbeats of connections that were opened together come in a burst.
BEAT = 25


# The cost of a message with as little other load as possible, and then with more nodes, rooms and
# connections. The warm-up is long enough for each room to have had its first message, which costs
# more than the following ones.
def cost(name, title, rooms, servers, *more, **how):
    load = crowd(1000, rooms, "--rate", "2000", *more)
    return Row(name, title, load, servers, warm_up=7, watched=True, **how)


ELSEWHERE = (
    cost(
        "cost", "100 rooms, all members on one node", 100, ("hubbub-1", "hubbub-4"), at_first=True
    ),
    cost(
        "cost-rooms",
        "10,000 rooms, each client in 100",
        10000,
        ("hubbub-1",),
        "--rooms-each",
        "100",
    ),
    cost(
        "cost-crowd",
        "100 rooms, with 15,000 idle connections",
        100,
        ("hubbub-1",),
        beside=15000,
        seconds=BEAT,
    ),
)

# Rooms in which each message has two deliveries, one on each of two nodes.
SMALL_ROOMS = crowd(1000, 500)
# The archive: the same load with and without a database.
ARCHIVE = (
    Row(
        "archive-acks",
        "64 rooms × 1, each sender awaits its acknowledgement",
        crowd(64, 64, "--acks"),
        ("hubbub", "hubbub+sqlite"),
    ),
    Row(
        "archive-one-4",
        "10 rooms × 100, 4 in flight",
        crowd(1000, 10, "--in-flight", "4"),
        ("hubbub", "hubbub+sqlite"),
        pairs=WITH_SQLITE,
    ),
    Row(
        "archive-two",
        "two nodes and Redis, 100 × 10, 2,000 messages/s",
        crowd(1000, 100, "--rate", "2000"),
        ("hubbub-2", *DATABASES),
        warm_up=7,
        watched=True,
        pairs=WITH_DATABASES,
    ),
    Row(
        "archive-two-acks",
        "two nodes and Redis, 100 × 10, 2,000 messages/s with acknowledgements",
        crowd(1000, 100, "--rate", "2000", "--acks"),
        ("hubbub-2", *COMMITTING),
        warm_up=7,
        watched=True,
    ),
    Row(
        "archive-lag",
        "two nodes and Redis, 500 × 2, 10,000 messages/s",
        (*SMALL_ROOMS, "--rate", "10000"),
        DATABASES,
        warm_up=4,
        way="lag",
    ),
    Row(
        "archive-catch-up",
        "two nodes and Redis, 500 × 2, 5,000 messages/s while the database is stopped",
        (*SMALL_ROOMS, "--rate", "5000"),
        DATABASES,
        warm_up=5,
        way="catch-up",
    ),
    Row(
        "archive-away",
        "two nodes and Redis, 100 × 10, 2,000 messages/s, before and while the database is stopped",
        crowd(1000, 100, "--rate", "2000"),
        DATABASES,
        warm_up=7,
        way="away",
    ),
    Row(
        "archive-outage",
        "two nodes and Redis, 100 × 10, 300 messages/s, before and while the database is stopped for 5 minutes",
        crowd(1000, 100, "--rate", "300"),
        DATABASES,
        seconds=300,
        warm_up=7,
        way="away",
        once=True,
        long=True,
    ),
    Row(
        "archive-size",
        "100 rooms × 1, contents of 300 bytes",
        # Acknowledged after their commits, so that no backlog grows.
        crowd(100, 100, "--acks", "--in-flight", "4", "--payload", "300"),
        ("hubbub+sqlite", "hubbub+postgres", "hubbub+mariadb"),
        way="size",
        once=True,
    ),
    Row(
        "archive-history",
        "a page of 50 messages at any position among 5 million in 5,000 rooms",
        (),
        ("hubbub+sqlite", "hubbub+postgres", "hubbub+mariadb"),
        way="history",
        once=True,
        long=True,
    ),
)

ROWS = (
    Row(
        "one-1",
        "10 rooms × 100, 1 in flight",
        crowd(1000, 10, "--in-flight", "1"),
        ONE_NODE,
        pairs=WITH_FLOOR,
    ),
    Row(
        "one-4",
        "10 rooms × 100, 4 in flight",
        crowd(1000, 10, "--in-flight", "4"),
        ONE_NODE,
        pairs=WITH_FLOOR,
    ),
    Row(
        "many-4",
        "100 rooms × 10, 4 in flight",
        crowd(1000, 100, "--in-flight", "4"),
        ONE_NODE,
        pairs=WITH_FLOOR,
    ),
    Row("idle", "10,000 idle, joined (1,000 rooms × 10)", crowd(10000, 1000, "--idle"), ONE_NODE),
    Row(
        "half",
        "half of hubbub's maximum load, 10 × 100",
        crowd(1000, 10),
        ("floor", "hubbub", "uws", "ws"),
        needs="one-4",
        top_of="hubbub",
    ),
    Row(
        "calm",
        "half of hubbub's maximum load with one message at a time, 10 × 100",
        crowd(1000, 10),
        ("floor", "hubbub", "uws"),
        needs="one-1",
        top_of="hubbub",
    ),
    Row(
        "storm",
        "reconnect storm of 10,000 (100 × 100)",
        crowd(10000, 100, "--idle", "--storm"),
        ("hubbub",),
    ),
    Row(
        "two-4",
        "two nodes and Redis, 10 × 100, 4 in flight",
        crowd(1000, 10, "--in-flight", "4"),
        TWO_NODES,
    ),
    Row(
        "two-many-4",
        "two nodes and Redis, 100 × 10, 4 in flight",
        crowd(1000, 100, "--in-flight", "4"),
        TWO_NODES,
    ),
    Row(
        "two-1",
        "two nodes and Redis, 10 × 100, 1 in flight",
        crowd(1000, 10, "--in-flight", "1"),
        ("hubbub-2", "uws-2"),
    ),
    Row(
        "two-half",
        "two nodes, half of hubbub's maximum load, 10 × 100",
        crowd(1000, 10),
        ("hubbub-2", "uws-2", "ws-2"),
        needs="two-4",
        top_of="hubbub-2",
    ),
    Row(
        "two-calm",
        "two nodes, half of hubbub's maximum load with one message at a time, 10 × 100",
        crowd(1000, 10),
        ("hubbub-2", "uws-2"),
        needs="two-1",
        top_of="hubbub-2",
    ),
    Row(
        "two-storm",
        "two nodes, reconnect storm of 10,000 (100 × 100)",
        crowd(10000, 100, "--idle", "--storm"),
        ("hubbub-2",),
    ),
    *ELSEWHERE,
    *ARCHIVE,
    # Each second, another 100 of the 1,000 rooms get one message each; all others have only
    # heartbeats.
    Row(
        "huge",
        "100,000 connections, 1,000 × 100, 100 messages/s",
        crowd(100000, 1000, "--rate", "100"),
        ("hubbub",),
        huge=True,
        once=True,
        seconds=60,
    ),
)


def beside(idle):
    name = f"{idle:,} idle connections and 100 messages/s in 10 rooms × 10"
    return Row(
        f"idle-{idle}",
        name,
        crowd(100, 10, "--rate", "100"),
        ("hubbub-1",),
        beside=idle,
        seconds=BEAT,
        rests=True,
        watched=True,
    )


# `--scale`: how the cost grows with nodes, rooms and connections.
SCALE = (
    Row(
        "grow-many",
        "100 rooms × 10, 4 in flight",
        crowd(1000, 100, "--in-flight", "4"),
        GROWING,
        watched=True,
    ),
    Row(
        "grow-ten",
        "10 rooms × 100, 4 in flight",
        crowd(1000, 10, "--in-flight", "4"),
        GROWING,
        watched=True,
    ),
    Row(
        "grow-room",
        "1 room × 10,000, 1 in flight",
        crowd(10000, 1, "--in-flight", "1"),
        GROWING[:2],
        watched=True,
    ),
    Row(
        "grow-rooms",
        "10,000 rooms × 1, 1 in flight",
        crowd(10000, 10000, "--in-flight", "1"),
        GROWING[:2],
        watched=True,
    ),
    Row(
        "grow-100k",
        "100,000 rooms × 1, each client in 100",
        crowd(1000, 100000, "--rooms-each", "100", "--rate", "1000"),
        ("hubbub", *GROWING[:1]),
        watched=True,
    ),
    *(beside(idle) for idle in (0, 1000, 5000, 18000)),
    Row(
        "cores-1",
        "100 rooms × 10, 8,000 messages/s",
        crowd(1000, 100, "--rate", "8000"),
        ("hubbub",),
        roams=True,
    ),
    Row(
        "cores-2",
        "100 rooms × 10, 8,000 messages/s",
        crowd(1000, 100, "--rate", "8000"),
        ("hubbub",),
        roams=True,
        wide=True,
    ),
    Row(
        "wire",
        "100 messages/s in 10 rooms × 10",
        crowd(100, 10, "--rate", "100"),
        ("hubbub",),
        watched=True,
    ),
)

BY_NAME = {row.name: row for row in ROWS + SCALE}
