"""What is measured: each row is a load that some servers are put under in turn."""

from dataclasses import dataclass

ONE_NODE = ("floor", "hubbub", "ws", "uws", "bun")
TWO_NODES = ("hubbub-2", "ws-2", "ws-pubsub-2", "uws-2")
GROWING = ("hubbub-1", "hubbub-2", "hubbub-3", "hubbub-4")
# What stands for a server where two are measured side by side.
PAIR = "hubbub beside the floor"
# A compiler at run time has to see the load before it is as fast as it gets.
JIT = ("ws", "ws-pubsub", "uws", "bun")


@dataclass(frozen=True)
class Row:
    name: str
    title: str
    load: tuple  # arguments of `hubbub bench`
    servers: tuple
    needs: str = ""  # the row whose messages a second, in the same round, are the top load
    top_of: str = ""  # of this server
    huge: bool = False
    beside: int = 0  # idle connections that a second generator holds meanwhile
    seconds: int = 0  # measured so long, whatever was chosen
    warm_up: int = 0  # seconds of the same load before that, at least
    rests: bool = False  # what the servers use before the load is measured too
    watched: bool = False  # what Redis and the network do meanwhile is measured too
    at_first: bool = False  # everyone is on the first node, and the others have nobody
    roams: bool = False  # the generator may use both cores
    wide: bool = False  # the servers may
    paired: bool = False  # hubbub and the floor are measured side by side, too

    @property
    def is_top(self):
        """Whether the servers are to be busy all the time."""
        return "--in-flight" in self.load

    @property
    def is_wide(self):
        """Whether each client is in many rooms."""
        return "--rooms-each" in self.load


def crowd(clients, rooms, *more):
    return ("--clients", str(clients), "--rooms", str(rooms), *more)


# Seconds between two heartbeats of a connection: so long is measured where many have them, as those of a crowd come in a bunch.
BEAT = 25

# What a message costs with as little as possible elsewhere, and then with more nodes, rooms and connections. Each room has had
# its first message before, which costs more than those after it.
def cost(name, title, rooms, servers, *more, **how):
    load = crowd(1000, rooms, "--rate", "2000", *more)
    return Row(name, title, load, servers, warm_up=7, watched=True, **how)


ELSEWHERE = (
    cost("cost", "100 rooms, all on one node", 100, ("hubbub-1", "hubbub-4"), at_first=True),
    cost("cost-rooms", "10,000 rooms, each client in 100", 10000, ("hubbub-1",), "--rooms-each", "100"),
    cost("cost-crowd", "100 rooms, beside 15,000 idle connections", 100, ("hubbub-1",), beside=15000, seconds=BEAT),
)

ROWS = (
    Row("one-1", "10 rooms × 100, 1 in flight", crowd(1000, 10, "--in-flight", "1"), ONE_NODE, paired=True),
    Row("one-4", "10 rooms × 100, 4 in flight", crowd(1000, 10, "--in-flight", "4"), ONE_NODE, paired=True),
    Row("many-4", "100 rooms × 10, 4 in flight", crowd(1000, 100, "--in-flight", "4"), ONE_NODE, paired=True),
    Row("idle", "10,000 idle, joined (1,000 rooms × 10)", crowd(10000, 1000, "--idle"), ONE_NODE),
    Row("half", "half of hubbub's top load, 10 × 100", crowd(1000, 10), ("floor", "hubbub", "uws", "ws"), needs="one-4", top_of="hubbub"),
    Row("calm", "half of what hubbub takes one message at a time, 10 × 100", crowd(1000, 10), ("floor", "hubbub", "uws"), needs="one-1", top_of="hubbub"),
    Row("storm", "10,000 cut off and back (100 × 100)", crowd(10000, 100, "--idle", "--storm"), ("hubbub",)),
    Row("two-4", "two nodes and Redis, 10 × 100, 4 in flight", crowd(1000, 10, "--in-flight", "4"), TWO_NODES),
    Row("two-many-4", "two nodes and Redis, 100 × 10, 4 in flight", crowd(1000, 100, "--in-flight", "4"), TWO_NODES),
    Row("two-1", "two nodes and Redis, 10 × 100, 1 in flight", crowd(1000, 10, "--in-flight", "1"), ("hubbub-2", "uws-2")),
    Row("two-half", "two nodes, half of hubbub's top load, 10 × 100", crowd(1000, 10), ("hubbub-2", "uws-2", "ws-2"), needs="two-4", top_of="hubbub-2"),
    Row("two-calm", "two nodes, half of what hubbub takes one at a time, 10 × 100", crowd(1000, 10), ("hubbub-2", "uws-2"), needs="two-1", top_of="hubbub-2"),
    Row("two-storm", "two nodes, 10,000 cut off and back", crowd(10000, 100, "--idle", "--storm"), ("hubbub-2",)),
    *ELSEWHERE,
    # A message a second in each of a hundred rooms, while the others are silent but for heartbeats.
    Row("huge", "100,000 connections, 1,000 × 100, 100 messages/s", crowd(100000, 1000, "--rate", "100"), ("hubbub",), huge=True, seconds=60),
)


def beside(idle):
    name = f"{idle:,} idle beside 100 messages/s in 10 rooms × 10"
    return Row(f"idle-{idle}", name, crowd(100, 10, "--rate", "100"), ("hubbub-1",), beside=idle, seconds=BEAT, rests=True, watched=True)


# How cost grows with nodes, rooms and connections: `--scale`.
SCALE = (
    Row("grow-many", "100 rooms × 10, 4 in flight", crowd(1000, 100, "--in-flight", "4"), GROWING, watched=True),
    Row("grow-ten", "10 rooms × 100, 4 in flight", crowd(1000, 10, "--in-flight", "4"), GROWING, watched=True),
    Row("grow-room", "1 room × 10,000, 1 in flight", crowd(10000, 1, "--in-flight", "1"), GROWING[:2], watched=True),
    Row("grow-rooms", "10,000 rooms × 1, 1 in flight", crowd(10000, 10000, "--in-flight", "1"), GROWING[:2], watched=True),
    Row("grow-100k", "100,000 rooms × 1, each client in 100", crowd(1000, 100000, "--rooms-each", "100", "--rate", "1000"), ("hubbub", *GROWING[:1]), watched=True),
    *(beside(idle) for idle in (0, 1000, 5000, 18000)),
    Row("cores-1", "100 rooms × 10, 8,000 messages/s", crowd(1000, 100, "--rate", "8000"), ("hubbub",), roams=True),
    Row("cores-2", "100 rooms × 10, 8,000 messages/s", crowd(1000, 100, "--rate", "8000"), ("hubbub",), roams=True, wide=True),
    Row("wire", "100 messages/s in 10 rooms × 10", crowd(100, 10, "--rate", "100"), ("hubbub",), watched=True),
)

BY_NAME = {row.name: row for row in ROWS + SCALE}
