"""Starts and ends the servers that are compared, all on one core unless told otherwise."""

import os
import resource
import socket
import subprocess
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PEERS = ROOT / "benches" / "peers"
TARGET = ROOT / "target"
SERVER_CORE = "1"
LOAD_CORE = "0"
BOTH_CORES = "0,1"
PATIENCE = 20

# No rate is to be the limit that is measured; everything else is as anyone would run it.
HUBBUB = {
    "AUTH_MODE": "open",
    "RATE_EVENTS_PER_SEC": "0",
    "MAX_HANDSHAKES_PER_SEC": "0",
    "MAX_UNAUTHENTICATED": "0",
    # Without Redis a node holds 100,000 unless told otherwise: as many as a row has, and the one of broadcasts would be one too many.
    "MAX_ROOMS": "200000",
    "RUST_LOG": "warn",
}


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def bun():
    """Bun's binary, which its package puts there when it is installed."""
    return str(PEERS / "node_modules" / "bun" / "bin" / "bun.exe")


def command(kind, port, redis_url):
    """The command line of a server, and what it needs in its environment."""
    if kind == "floor":
        return [str(TARGET / "bench" / "floor"), str(port)], {}
    if kind == "hubbub":
        more = {"REDIS_URL": redis_url} if redis_url else {}
        return [os.environ.get("HUBBUB_BIN", str(TARGET / "release" / "hubbub")), "serve"], {**HUBBUB, "SERVER_PORT": str(port), **more}
    if kind == "bun":
        return [bun(), str(PEERS / "bun.mjs"), str(port)], {}
    # ws, ws-pubsub, uws.
    return ["node", str(PEERS / "node.mjs"), kind, str(port), *([redis_url] if redis_url else [])], {}


def hard_limit():
    """How many files a process may have open at most."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[1]


def raise_files():
    hard = hard_limit()
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class Failed(Exception):
    """A server could not be started."""


def await_port(process, port, log):
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                log.seek(0)
                raise Failed(log.read().decode(errors="replace")[-600:] or "it does not listen") from None
            time.sleep(0.02)


@dataclass(frozen=True)
class Running:
    ports: list  # of the nodes
    pids: list  # of all processes; Redis's is the first, where there is one
    redis_port: int | None


def parted(server):
    """The kind of a server, by its name in rows.py, and how many of them share a Redis: 0 for one without."""
    kind, _, nodes = server.rpartition("-")
    return (kind, int(nodes)) if nodes.isdigit() else (server, 0)


@contextmanager
def running(server, cores=SERVER_CORE):
    """A server, by its name in rows.py."""
    kind, nodes = parted(server)
    with tempfile.TemporaryDirectory() as directory, open(Path(directory) / "log", "w+b") as log:
        processes = []

        def start(line, port, more):
            environment = {"PATH": os.environ["PATH"], "HOME": directory, "NODE_ENV": "production", **more}
            process = subprocess.Popen(
                ["taskset", "-c", cores, *line], cwd=directory, env=environment, stdin=subprocess.DEVNULL,
                stdout=log, stderr=log, preexec_fn=raise_files,
            )
            processes.append(process)
            await_port(process, port, log)

        try:
            redis_url = redis_port = None
            if nodes:
                redis_port = free_port()
                start(["redis-server", "--port", str(redis_port), "--save", "", "--appendonly", "no"], redis_port, {})
                redis_url = f"redis://127.0.0.1:{redis_port}"
            ports = []
            for _ in range(nodes or 1):
                port = free_port()
                line, more = command(kind, port, redis_url)
                start(line, port, more)
                ports.append(port)
            yield Running(ports, [process.pid for process in processes], redis_port)
        finally:
            for process in reversed(processes):
                process.kill()
                process.wait()
