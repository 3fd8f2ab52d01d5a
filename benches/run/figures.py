"""The measurements, and the cells of tables: medians, marks and legends."""

from statistics import median

from rows import BY_NAME, WITH_FLOOR, side_by_side
from servers import kind_and_nodes


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


def each(figures, row, server, figure):
    """`figure` of each round's result."""
    return [figure(result) for result in figures.runs.get(row, {}).get(server, []) if result]


def per_message(result, part):
    """µs of CPU per message of the processes in `part` of the list (Redis is the first)."""
    return sum(result["servers"]["cores"][part]) * 1e6 / result["load"]["messages_per_second"]


REDIS, NODES = slice(0, 1), slice(1, None)
