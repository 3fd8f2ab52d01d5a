"""Looks on while a row runs: what each process, Redis and the network have used at each moment."""

import re
import socket
import threading
import time
from pathlib import Path

PERIOD = 0.25


class Redis:
    """As much of a client as it takes to ask Redis about itself."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=20)
        self.answers = self.socket.makefile("rb")
        self.heard = 0

    def ask_all(self, commands):
        """The answers to several commands, sent together."""
        lines = []
        for command in commands:
            parts = [str(part).encode() if not isinstance(part, bytes) else part for part in command]
            lines.append(b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts))
        self.socket.sendall(b"".join(lines))
        return [self.answer() for _ in commands]

    def answer(self):
        line = self.answers.readline().strip()
        kind, rest = line[:1], line[1:]
        if kind == b"$":
            return None if rest == b"-1" else self.answers.read(int(rest) + 2)[:-2]
        if kind == b"*":
            return [self.answer() for _ in range(int(rest))]
        if kind == b":":
            return int(rest)
        if kind != b"+":
            raise OSError(f"Redis says {line!r}")
        return rest

    def info(self):
        """The counters that are looked at, and the calls of each command so far."""
        text = self.ask_all([("INFO", "all")])[0].decode()
        names = ("used_memory", "total_net_input_bytes", "total_net_output_bytes", "total_reads_processed", "total_writes_processed")
        found = {name: int(number) for name, number in re.findall(r"^(\w+):(\d+)\r?$", text, re.M) if name in names}
        # Less what it said here before.
        found["total_net_output_bytes"] -= self.heard
        self.heard += len(text)
        calls = re.findall(r"^cmdstat_(\S+?):calls=(\d+),usec=(\d+)", text, re.M)
        return found | {"calls": {name: int(number) for name, number, _ in calls}}

    def keys(self):
        """Keys and their bytes by kind (what stands between the tag and the first colon), and all entries of the logs."""
        cursor, kinds, entries = b"0", {}, 0
        while True:
            cursor, names = self.ask_all([("SCAN", cursor, "COUNT", 1000)])[0]
            sizes = self.ask_all([("MEMORY", "USAGE", name, "SAMPLES", 0) for name in names])
            for name, size in zip(names, sizes):
                kind = name.split(b"}")[-1].split(b":")[0].decode()
                # What ended between the two is nothing.
                count, total = kinds.get(kind, (0, 0))
                kinds[kind] = (count + 1, total + (size or 0))
            logs = [name for name in names if name.split(b"}")[-1].startswith(b"h:")]
            entries += sum(self.ask_all([("XLEN", name) for name in logs]))
            if cursor == b"0":
                return {"kinds": kinds, "log_entries": entries}


def cpu(pid):
    """Seconds of processor time that a process has used, by its threads."""
    used = 0
    for thread in Path(f"/proc/{pid}/task").iterdir():
        try:
            used += int((thread / "schedstat").read_text(encoding="ascii").split()[0])
        except (FileNotFoundError, ProcessLookupError):
            # It ended between the two.
            continue
    return used / 1e9


def resident(pid):
    """Bytes of memory."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
    return int(re.search(r"^Rss:\s+(\d+) kB", text, re.M).group(1)) * 1024


def peak(pid):
    """Bytes of memory at most so far."""
    text = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return int(re.search(r"^VmHWM:\s+(\d+) kB", text, re.M).group(1)) * 1024


def slab():
    """Bytes of the kernel's own objects: sockets among them."""
    text = Path("/proc/meminfo").read_text(encoding="ascii")
    return int(re.search(r"^Slab:\s+(\d+) kB", text, re.M).group(1)) * 1024


def wire():
    """Bytes that went over loopback, with the heads of TCP and IP."""
    text = Path("/proc/net/dev").read_text(encoding="ascii")
    return int(re.search(r"^\s*lo:\s*(\d+)", text, re.M).group(1))


class Watch:
    """Looks at a running server: once, or again and again from when it is entered until it is left."""

    def __init__(self, running):
        self.pids = running.pids
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
                self.samples.append(self.look())
                self.stopped.wait(PERIOD)
        except OSError:
            # A process is gone: what was measured fails by itself.
            return

    def look(self):
        return {
            "at": time.monotonic(),
            "cpu": [cpu(pid) for pid in self.pids],
            "wire": wire(),
            "slab": slab(),
            "redis": self.redis.info() if self.redis else None,
        }

    def between(self, begin, end):
        """The first and the last sample in a time, or `None` when there are no two."""
        found = [sample for sample in self.samples if begin <= sample["at"] <= end]
        return (found[0], found[-1]) if len(found) > 1 else None


def redis_use(first, last, messages_per_second):
    """What Redis did for each message between two samples."""
    before, after = first["redis"], last["redis"]
    messages = messages_per_second * (last["at"] - first["at"])
    calls = {name: (number - before["calls"].get(name, 0)) / messages for name, number in after["calls"].items()}
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
