"""The rows of the archive that need more than a run of the generator: samples of the nodes' metrics,
a database that does not respond, and a database with many messages."""

import http.client
import json
import math
import random
import re
import subprocess
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

from databases import database
from load import END_TIMEOUT, connected, measuring, result_of, run, start
from processes import Failed
from servers import DATABASE_CORE, binary, database_and_ack, node

# Seconds between two samples of the metrics under load.
PERIOD = 0.1
# Seconds between two samples while a backlog is committed.
CATCH_UP_PERIOD = 0.02
# Seconds until a backlog must be committed.
CATCH_UP_TIMEOUT = 120
# The generator waits this many seconds after all clients have joined, before the warm-up.
SETTLE = 0.5
# Seconds of the warm-up for which the database is away already when the measurement begins.
AWAY_BEFORE = 1.5
# Positions that are read in each pass over the history.
READS = 2000
PAGE = 50


def quantile(values, share):
    """The smallest value that at least this share of the values does not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def metrics(ports, *names):
    """The value of each metric at each node, by name."""
    found = {name: [] for name in names}
    for port in ports:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=20) as answer:
            text = answer.read().decode()
        for name in names:
            value = re.search(rf"^hubbub_{name}(?:\{{.*\}})? (\S+)", text, re.M)
            if not value:
                raise Failed(f"the node has no metric hubbub_{name}")
            found[name].append(float(value.group(1)))
    return found


def backlog(ports):
    """The messages that wait for their commit at all nodes."""
    return sum(metrics(ports, "archive_backlog")["archive_backlog"])


class Lag:
    """Samples how far the archive is behind, in the background."""

    def __init__(self, ports):
        self.ports = ports
        self.samples = []
        self.error = None
        self.stopped = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stopped.set()
        self.thread.join()

    def run(self):
        try:
            while not self.stopped.wait(PERIOD):
                found = metrics(self.ports, "archive_lag_seconds", "archive_backlog")
                seconds = max(found["archive_lag_seconds"])
                self.samples.append((time.monotonic(), seconds, sum(found["archive_backlog"])))
        except (Failed, OSError) as error:
            self.error = error

    def between(self, begin, end):
        """The lag in seconds and in messages of the samples in a period."""
        if self.error:
            raise Failed(f"the metrics could not be sampled: {self.error!r}")
        found = [sample for sample in self.samples if begin <= sample[0] <= end]
        if not found:
            raise Failed("no sample of the metrics lies in the measurement")
        _, seconds, messages = zip(*found)
        return {
            "p50_s": quantile(seconds, 0.5),
            "p99_s": quantile(seconds, 0.99),
            "max_s": max(seconds),
            "p99_messages": quantile(messages, 0.99),
            "samples": len(found),
        }


def check_archived(server, results):
    """Fails the last result if a message of any of them is not in the archive."""
    sent = sum(result["checked"] / result["members"] for result in results)
    deadline = time.monotonic() + CATCH_UP_TIMEOUT
    while backlog(server.ports) and time.monotonic() < deadline:
        time.sleep(PERIOD)
    archived = sum(metrics(server.ports, "archived_total")["archived_total"])
    missing = max(0, round(sent - archived))
    results[-1]["findings"]["not_archived"] = missing
    results[-1]["ok"] = results[-1]["ok"] and not missing


def lag_run(_row, server, load, seconds):
    """One run, with samples of the archive's lag."""
    with Lag(server.ports) as lag:
        result = run(server, load)
        ended = time.monotonic()
    # Only samples that lie safely between the warm-up and the end of the load.
    result["lag"] = lag.between(ended - 0.85 * seconds - 0.5, ended - 0.5 - 0.1 * seconds)
    check_archived(server, [result])
    return result


def catch_up_run(row, server, load, _seconds):
    """One run while the database is away, and the speed at which the backlog is committed then."""
    result, caught_up = away(row, server, load)
    result["catch_up"] = caught_up
    check_archived(server, [result])
    return result


def away_run(row, server, load, seconds):
    """One run with the database, at most a minute, and the same while it is away."""
    at = load.index("--duration") + 1
    before = run(server, [*load[:at], str(min(seconds, 60)), *load[at + 1 :]])
    result, caught_up = away(row, server, load)
    result |= {"before": before["load"], "catch_up": caught_up}
    result["ok"] = result["ok"] and before["ok"]
    check_archived(server, [before, result])
    return result


def away(row, server, load):
    """One run of the generator while the database is away.

    The database is stopped near the end of the warm-up: a room's first message needs it. It continues
    when the load has ended. Returns the generator's result, and that of `catch_up`.
    """
    clients = int(load[load.index("--clients") + 1])
    process = start(measuring(load, server))
    try:
        deadline = time.monotonic() + 60
        while sum(map(connected, server.ports)) < clients:
            if process.poll() is not None or time.monotonic() > deadline:
                process.kill()
                raise Failed(f"not all clients could connect: {process.communicate()[1]}")
            time.sleep(0.05)
        time.sleep(SETTLE + row.warm_up - AWAY_BEFORE)
        server.database.pause()
        result = result_of(*process.communicate(timeout=END_TIMEOUT))
        return result, catch_up(server)
    finally:
        server.database.resume()
        process.kill()
        process.wait()


def catch_up(server):
    """Lets a stopped database continue, and measures how fast the backlog is committed."""
    first = backlog(server.ports)
    if first < 100:
        raise Failed(f"only {first:.0f} messages waited for the database")
    server.database.resume()
    resumed = began = time.monotonic()
    while (left := backlog(server.ports)) > first / 50:
        if left == first:
            began = time.monotonic()
        if time.monotonic() > resumed + CATCH_UP_TIMEOUT:
            raise Failed(f"{left:.0f} of {first:.0f} messages still wait for the database")
        time.sleep(CATCH_UP_PERIOD)
    return {
        "messages": first,
        # Until the first of them was committed.
        "after_s": began - resumed,
        "per_second": (first - left) / (time.monotonic() - began),
    }


class Reader:
    """Reads pages of rooms over REST, on one connection."""

    def __init__(self, port):
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def page(self, room, query):
        """The page, and the milliseconds until it was there."""
        began = time.perf_counter()
        self.connection.request("GET", f"/rooms/{room}/messages?limit={PAGE}{query}")
        answer = self.connection.getresponse()
        body = answer.read()
        took = (time.perf_counter() - began) * 1000
        if answer.status != 200:
            raise Failed(f"room {room}{query}: {answer.status} {body[:200]!r}")
        return json.loads(body), took

    def await_page(self, room):
        """Reads until the node has connected to its database again."""
        deadline = time.monotonic() + 30
        while True:
            try:
                self.page(room, "&before_seq=2")
                return
            except Failed:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)

    def read_all(self, positions):
        """Reads the page before each position. Returns quantiles of the times, in milliseconds."""
        times = []
        for room, before in positions:
            page, took = self.page(room, f"&before_seq={before}")
            seqs = [message["seq"] for message in page["messages"]]
            wanted = list(range(max(1, before - PAGE), before))
            if seqs != wanted:
                raise Failed(f"room {room} before {before}: {seqs[:3]}… instead of {wanted[:3]}…")
            times.append(took)
        return {"p50": quantile(times, 0.5), "p99": quantile(times, 0.99), "max": max(times)}


def drop_caches():
    """Writes everything to the disk and empties the system's page cache. Whether it was possible."""
    subprocess.run(["sync"], check=True)
    try:
        Path("/proc/sys/vm/drop_caches").write_text("3\n", encoding="ascii")
    except OSError:
        return False
    return True


def positions_of(rooms, count):
    """`count` random positions: rooms with the number before which to read."""
    names = list(rooms)
    chosen = [random.choice(names) for _ in range(count)]
    return [(room, random.randint(2, rooms[room] + 1)) for room in chosen]


def size_of(its):
    """The messages in a database that no node uses, and their bytes."""
    sql = "SELECT count(*), sum(length(record)) FROM hubbub_entries"
    messages, record_bytes = map(int, its.query(sql)[0])
    return {
        "messages": messages,
        "disk_bytes_per_message": its.disk_bytes() / messages,
        "record_bytes_per_message": record_bytes / messages,
    }


def size(row, server, chosen):
    """The bytes on disk of a message, after the row's load for some seconds."""
    kind, _ = database_and_ack(server)
    with (
        tempfile.TemporaryDirectory(prefix="hubbub-size-") as directory,
        database(kind, directory, DATABASE_CORE) as its,
    ):
        with node(directory, {"DATABASE_URL": its.url}) as running:
            result = run(running, [*row.load, "--duration", str(4 * chosen.seconds)])
        return result | {"size": size_of(its)}


def history(_row, server, chosen):
    """Fills a database, and measures its size and the time of a page of its messages.

    *First*: rooms that the node has not used yet, whose numbering it loads. *Warm*: the same pages
    again. *Cold*: other pages of these rooms, after the database was started anew with empty caches.
    *Restart*: as first and cold together, after a start of the node and the database.
    """
    kind, _ = database_and_ack(server)
    messages, rooms = (100_000, 1000) if chosen.quick else (5_000_000, 5000)
    count = READS // 10 if chosen.quick else READS
    with (
        tempfile.TemporaryDirectory(prefix="hubbub-history-") as directory,
        database(kind, directory, DATABASE_CORE) as its,
    ):
        environment = {"DATABASE_URL": its.url, "MAX_ROOMS": "200000"}
        began = time.monotonic()
        seed(directory, environment, messages, rooms)
        seconds = time.monotonic() - began
        size, heads = size_of(its), heads_of(its)
        with node(directory, environment) as running:
            reader = Reader(running.ports[0])
            positions = positions_of(heads, count)
            first = reader.read_all(positions)
            warm = reader.read_all(positions)
            used = {room: heads[room] for room, _ in positions}
            its.end()
            is_cold = drop_caches()
            its.start()
            reader.await_page(positions[0][0])
            cold = reader.read_all(positions_of(used, count)) if is_cold else None
        its.end()
        drop_caches()
        its.start()
        with node(directory, environment) as running:
            reader = Reader(running.ports[0])
            restart = reader.read_all(positions_of(heads, count)) if is_cold else None
    return {
        "ok": True,
        "findings": {},
        "history": {
            **size,
            "seed_seconds": seconds,
            "first": first,
            "warm": warm,
            "cold": cold,
            "restart": restart,
        },
    }


def seed(directory, environment, messages, rooms):
    """Fills the database with `hubbub db seed`."""
    line = [binary(), "db", "seed", "--messages", str(messages), "--rooms", str(rooms)]
    done = subprocess.run(
        line, cwd=directory, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise Failed(f"hubbub db seed: {done.stderr.strip()[-600:]}")


def heads_of(its):
    """The last number of each room in a database."""
    last = "SELECT max(seq) FROM hubbub_entries WHERE room_no = hubbub_rooms.no"
    return {room: int(seq) for room, seq in its.query(f"SELECT name, ({last}) FROM hubbub_rooms")}


# By the name in a row: with a running server, and those that run it themselves.
RUNS = {"lag": lag_run, "away": away_run, "catch-up": catch_up_run}
WHOLE_RUNS = {"history": history, "size": size}
