"""Samples the usage of each process, of Redis and of the network while a row runs."""

import os
import re
import socket
import threading
import time
from pathlib import Path

# Seconds between two samples.
PERIOD = 0.25


class Redis:
    """A minimal client, for commands that query Redis about itself."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=20)
        self.replies = self.socket.makefile("rb")
        self.own_output = 0

    def call_all(self, commands):
        """Sends several commands together, and returns their replies."""
        lines = []
        for command in commands:
            parts = [
                str(part).encode() if not isinstance(part, bytes) else part for part in command
            ]
            lines.append(
                b"*%d\r\n" % len(parts)
                + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)
            )
        self.socket.sendall(b"".join(lines))
        return [self.reply() for _ in commands]

    def reply(self):
        line = self.replies.readline().strip()
        kind, rest = line[:1], line[1:]
        if kind == b"$":
            return None if rest == b"-1" else self.replies.read(int(rest) + 2)[:-2]
        if kind == b"*":
            return [self.reply() for _ in range(int(rest))]
        if kind == b":":
            return int(rest)
        if kind != b"+":
            raise OSError(f"Redis replied with the error {line!r}")
        return rest

    def info(self):
        """The counters that are used here, and the number of calls of each command so far."""
        text = self.call_all([("INFO", "all")])[0].decode()
        names = (
            "used_memory",
            "total_net_input_bytes",
            "total_net_output_bytes",
            "total_reads_processed",
            "total_writes_processed",
        )
        found = {
            name: int(number)
            for name, number in re.findall(r"^(\w+):(\d+)\r?$", text, re.M)
            if name in names
        }
        # Excludes the replies to earlier calls of this method.
        found["total_net_output_bytes"] -= self.own_output
        self.own_output += len(text)
        calls = re.findall(r"^cmdstat_(\S+?):calls=(\d+),usec=(\d+)", text, re.M)
        return found | {"calls": {name: int(number) for name, number, _ in calls}}

    def keys(self):
        """The number and bytes of keys by kind, and the number of all log entries.

        The kind of a key is the text between its hash tag and the first colon.
        """
        cursor, kinds, entries = b"0", {}, 0
        while True:
            cursor, names = self.call_all([("SCAN", cursor, "COUNT", 1000)])[0]
            sizes = self.call_all([("MEMORY", "USAGE", name, "SAMPLES", 0) for name in names])
            for name, size in zip(names, sizes):
                kind = name.split(b"}")[-1].split(b":")[0].decode()
                # A key that expired between the two commands has no size.
                count, total = kinds.get(kind, (0, 0))
                kinds[kind] = (count + 1, total + (size or 0))
            logs = [name for name in names if name.split(b"}")[-1].startswith(b"h:")]
            entries += sum(self.call_all([("XLEN", name) for name in logs]))
            if cursor == b"0":
                return {"kinds": kinds, "log_entries": entries}


def cpu(pid):
    """Seconds of CPU time that a process has used: the sum over its threads."""
    used = 0
    for thread in Path(f"/proc/{pid}/task").iterdir():
        try:
            used += int((thread / "schedstat").read_text(encoding="ascii").split()[0])
        except (FileNotFoundError, ProcessLookupError):
            # The thread ended after it was listed.
            continue
    return used / 1e9


def tree(pid):
    """The process and all of its descendants."""
    children = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            # The process name may contain spaces and brackets; the fields follow it.
            fields = status.read_text(encoding="ascii", errors="replace").rpartition(") ")[2]
        except (FileNotFoundError, ProcessLookupError):
            continue
        children.setdefault(int(fields.split()[1]), []).append(int(status.parent.name))
    found = [pid]
    for each in found:
        found += children.get(each, [])
    return found


def tree_cpu(pid):
    """Seconds of CPU time that a process and its descendants have used, also those that ended."""
    used = 0
    for each in tree(pid):
        try:
            used += cpu(each)
        except (FileNotFoundError, ProcessLookupError):
            # It ended after it was listed.
            continue
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    ended = fields.rpartition(") ")[2].split()[13:15]
    return used + sum(map(int, ended)) / os.sysconf("SC_CLK_TCK")


def resident(pid):
    """Bytes of resident memory of a process."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
    return int(re.search(r"^Rss:\s+(\d+) kB", text, re.M).group(1)) * 1024


def peak(pid):
    """The maximum bytes of resident memory of a process so far."""
    text = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return int(re.search(r"^VmHWM:\s+(\d+) kB", text, re.M).group(1)) * 1024


def slab():
    """Bytes of the kernel's own objects, including sockets."""
    text = Path("/proc/meminfo").read_text(encoding="ascii")
    return int(re.search(r"^Slab:\s+(\d+) kB", text, re.M).group(1)) * 1024


def wire():
    """Bytes sent over the loopback interface, including TCP and IP headers."""
    text = Path("/proc/net/dev").read_text(encoding="ascii")
    return int(re.search(r"^\s*lo:\s*(\d+)", text, re.M).group(1))


class Watch:
    """Samples a running server: once with `sample`, periodically as a context manager."""

    def __init__(self, running):
        self.pids = running.pids
        self.database = running.database
        self.redis = Redis(running.redis_port) if running.redis_port else None
        self.samples = []
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
            while not self.stopped.is_set():
                self.samples.append(self.sample())
                self.stopped.wait(PERIOD)
        except OSError:
            # A process has ended; the measurement itself reports that.
            return

    def sample(self):
        return {
            "at": time.monotonic(),
            "cpu": [cpu(pid) for pid in self.pids],
            "wire": wire(),
            "slab": slab(),
            "database": self.database.cpu() if self.database else None,
            "redis": self.redis.info() if self.redis else None,
        }

    def between(self, begin, end):
        """The first and the last sample in a period, or `None` if there are fewer than two."""
        found = [sample for sample in self.samples if begin <= sample["at"] <= end]
        return (found[0], found[-1]) if len(found) > 1 else None


def redis_use(first, last, messages_per_second):
    """The commands, bytes, reads and writes of Redis per message between two samples."""
    before, after = first["redis"], last["redis"]
    messages = messages_per_second * (last["at"] - first["at"])
    calls = {
        name: (number - before["calls"].get(name, 0)) / messages
        for name, number in after["calls"].items()
    }
    calls = {name: number for name, number in calls.items() if number > 0.001 and name != "info"}

    def each(*names):
        return sum(after[name] - before[name] for name in names) / messages

    return {
        "commands_per_message": sum(calls.values()),
        "scripts_per_message": calls.get("evalsha", 0) + calls.get("eval", 0),
        "calls_per_message": calls,
        "bytes_in_per_message": each("total_net_input_bytes"),
        "bytes_out_per_message": each("total_net_output_bytes"),
        "reads_per_message": each("total_reads_processed"),
        "writes_per_message": each("total_writes_processed"),
    }
