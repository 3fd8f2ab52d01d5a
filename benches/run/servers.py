"""Starts and stops the servers that are compared, all on one core by default."""

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
# Seconds until a started server must accept connections.
START_TIMEOUT = 20

# Rate limits are off, so that none of them is the limit that is measured; everything else has its
# default.
HUBBUB = {
    "AUTH_MODE": "open",
    "RATE_EVENTS_PER_SEC": "0",
    "MAX_HANDSHAKES_PER_SEC": "0",
    "MAX_UNAUTHENTICATED": "0",
    # Without Redis a node holds 100,000 rooms by default. One row has that many, and the room of
    # broadcasts comes on top.
    "MAX_ROOMS": "200000",
    "RUST_LOG": "warn",
}


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def bun():
    """Path of Bun's binary, which the installation of its package creates."""
    return str(PEERS / "node_modules" / "bun" / "bin" / "bun.exe")


def command(kind, port, redis_url):
    """The command line of a server, and its environment variables."""
    if kind == "floor":
        return [str(TARGET / "bench" / "floor"), str(port)], {}
    if kind == "hubbub":
        more = {"REDIS_URL": redis_url} if redis_url else {}
        return [os.environ.get("HUBBUB_BIN", str(TARGET / "release" / "hubbub")), "serve"], {
            **HUBBUB,
            "SERVER_PORT": str(port),
            **more,
        }
    if kind == "bun":
        return [bun(), str(PEERS / "bun.mjs"), str(port)], {}
    # The remaining kinds: ws, ws-pubsub, uws.
    return [
        "node",
        str(PEERS / "node.mjs"),
        kind,
        str(port),
        *([redis_url] if redis_url else []),
    ], {}


def hard_limit():
    """The maximum number of open files of a process."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[1]


def raise_files():
    hard = hard_limit()
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class Failed(Exception):
    """A server could not be started."""


def await_port(process, port, log):
    deadline = time.monotonic() + START_TIMEOUT
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                log.seek(0)
                raise Failed(
                    log.read().decode(errors="replace")[-600:]
                    or "the server does not accept connections"
                ) from None
            time.sleep(0.02)


@dataclass(frozen=True)
class Running:
    ports: list  # of the nodes
    pids: list  # of all processes; that of Redis comes first, if there is one
    redis_port: int | None


def kind_and_nodes(server):
    """Splits a server's name in rows.py into its kind and its number of nodes that share a Redis.

    The number is 0 for a single node without Redis.
    """
    kind, _, nodes = server.rpartition("-")
    return (kind, int(nodes)) if nodes.isdigit() else (server, 0)


@contextmanager
def running(server, cores=SERVER_CORE):
    """Runs the server with this name in rows.py until the context ends."""
    kind, nodes = kind_and_nodes(server)
    with tempfile.TemporaryDirectory() as directory, open(Path(directory) / "log", "w+b") as log:
        processes = []

        def start(line, port, more):
            environment = {
                "PATH": os.environ["PATH"],
                "HOME": directory,
                "NODE_ENV": "production",
                **more,
            }
            process = subprocess.Popen(
                ["taskset", "-c", cores, *line],
                cwd=directory,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=raise_files,
            )
            processes.append(process)
            await_port(process, port, log)

        try:
            redis_url = redis_port = None
            if nodes:
                redis_port = free_port()
                start(
                    ["redis-server", "--port", str(redis_port), "--save", "", "--appendonly", "no"],
                    redis_port,
                    {},
                )
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
