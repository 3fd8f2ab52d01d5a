"""From what was measured to cells of tables, and from those to the goals."""

from statistics import median


class Figures:
    """All measurements: by row and server a list, one for each round, `None` where a round failed."""

    def __init__(self):
        self.runs = {}

    def add(self, row, server, result):
        self.runs.setdefault(row, {}).setdefault(server, []).append(result)

    def values(self, row, server, *path):
        """One figure of each round that has it."""
        found = []
        for result in self.runs.get(row, {}).get(server, []):
            for key in path:
                result = result.get(key) if isinstance(result, dict) else None
            if result is not None:
                found.append(float(result))
        return found

    def ratios(self, row, server, other, *path):
        """One figure of each round as a multiple of another server's in the same round."""
        pairs = zip(self.runs.get(row, {}).get(server, []), self.runs.get(row, {}).get(other, []))
        found = []
        for mine, theirs in pairs:
            for key in path:
                mine = mine.get(key) if isinstance(mine, dict) else None
                theirs = theirs.get(key) if isinstance(theirs, dict) else None
            if mine and theirs:
                found.append(mine / theirs)
        return found


def cell(values, digits=2):
    """The median and, in brackets, the least and the greatest."""
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
    "ws-2": "Node `ws`, sharded adapter",
    "uws-2": "Node uWebSockets.js, sharded adapter",
}


def anchors(figures, servers):
    """One node: µs of the server's CPU per delivery (× the floor), memory, connections, latency at the top."""
    lines = [
        "| server | 10 × 100, 1 in flight | 10 × 100, 4 in flight | 100 × 10, 4 in flight | KB a connection | connects/s | p99 at the top, ms |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for server in servers:
        cells = []
        for row in ("one-1", "one-4", "many-4"):
            ratio = figures.ratios(row, server, "floor", *DELIVERY)
            times = f", × {median(ratio):.2f}" if ratio and server != "floor" else ""
            cells.append(cell(figures.values(row, server, *DELIVERY)) + times)
        cells.append(cell([value / 1000 for value in figures.values("idle", server, "servers", "bytes_per_connection")], 1))
        cells.append(cell(figures.values("idle", server, "connecting", "per_second"), 0))
        cells.append(cell(figures.values("one-4", server, "load", "latency_ms", "p99"), 1))
        lines.append(f"| {NAMES[server]} | " + " | ".join(cells) + " |")
    return lines


def clusters(figures, servers):
    """Two nodes and Redis: µs of all their CPU per delivery, and messages a second."""
    lines = ["| two nodes and Redis | 10 × 100, 4 in flight | 100 × 10, 4 in flight |", "| --- | --- | --- |"]
    for server in servers:
        cells = []
        for row in ("two-4", "two-many-4"):
            messages = figures.values(row, server, "load", "messages_per_second")
            cells.append(cell(figures.values(row, server, *DELIVERY)) + (f"; {median(messages):,.0f} messages/s" if messages else ""))
        lines.append(f"| {NAMES[server]} | " + " | ".join(cells) + " |")
    return lines


def goals(figures):
    """Each goal that was measured: what, the figure, the bar, reached or not."""
    rows = []

    def goal(what, values, bar, digits=2, at_least=False, unit=""):
        if not values or bar is None:
            return
        value = median(values)
        reached = value >= bar if at_least else value <= bar
        sign = "≥" if at_least else "≤"
        rows.append((what, cell(values, digits) + unit, f"{sign} {bar:,.{digits}f}{unit}", reached))

    goal("fan-out, 10 × 100, 1 in flight, × floor", figures.ratios("one-1", "hubbub", "floor", *DELIVERY), 1.3)
    goal("fan-out, 10 × 100, 4 in flight, × floor", figures.ratios("one-4", "hubbub", "floor", *DELIVERY), 1.6)
    goal("fan-out, 100 × 10, 4 in flight, × floor", figures.ratios("many-4", "hubbub", "floor", *DELIVERY), 1.6)
    for row, what in (("two-4", "10 × 100"), ("two-many-4", "100 × 10")):
        goal(f"two nodes and Redis, {what}, × uWebSockets.js", figures.ratios(row, "hubbub-2", "uws-2", *DELIVERY), 1.0)
    goal("memory of an idle joined connection", [v / 1000 for v in figures.values("idle", "hubbub", "servers", "bytes_per_connection")], 6, 1, unit=" KB")
    goal("connect, authenticate and join, each second", figures.values("idle", "hubbub", "connecting", "per_second"), 5000, 0, at_least=True)
    for row, what in (("storm", "one node"), ("two-storm", "two nodes")):
        server = "hubbub" if row == "storm" else "hubbub-2"
        goal(f"a storm of 10,000 is back, {what}", figures.values(row, server, "storm", "seconds"), 10, 1, unit=" s")
    goal("p99 at the top load, 4 in flight", figures.values("one-4", "hubbub", "load", "latency_ms", "p99"), 10, 1, unit=" ms")
    goal("p99 at half of it, one node", figures.values("half", "hubbub", "load", "latency_ms", "p99"), 5, 1, unit=" ms")
    goal("p99 at half of it, two nodes", figures.values("two-half", "hubbub-2", "load", "latency_ms", "p99"), 10, 1, unit=" ms")
    goal("100,000 connections: p99 of a message", figures.values("huge", "hubbub", "load", "latency_ms", "p99"), 250, 0, unit=" ms")
    goal("100,000 connections: memory", [v / 1e9 for v in figures.values("huge", "hubbub", "servers", "memory_bytes")], 0.8, 2, unit=" GB")
    return rows


def goal_table(rows):
    lines = ["| goal | measured | bar | |", "| --- | --- | --- | --- |"]
    lines += [f"| {what} | {value} | {bar} | {'reached' if reached else '**not reached**'} |" for what, value, bar, reached in rows]
    return lines
