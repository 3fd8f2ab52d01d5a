"""Starts and stops the servers that are compared, all on one core by default."""

import os
import resource
import subprocess
import tempfile
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from databases import database
from processes import await_port, free_port

ROOT = Path(__file__).resolve().parents[2]
PEERS = ROOT / "benches" / "peers"
TARGET = ROOT / "target"
SERVER_CORE = "1"
LOAD_CORE = "0"
BOTH_CORES = "0,1"
# The core of a database server: not that of the nodes, whose cost is measured.
DATABASE_CORE = "2" if (os.cpu_count() or 1) > 2 else LOAD_CORE

# Rate limits are off, so that none of them is the limit that is measured; everything else has its
# default.
HUBBUB = {
    "AUTH_MODE": "open",
    # Without a database, unless the server's name has one. A lone node would use SQLite.
    "DATABASE_URL": "none",
    "RATE_EVENTS_PER_SEC": "0",
    "MAX_HANDSHAKES_PER_SEC": "0",
    "MAX_UNAUTHENTICATED": "0",
    # Without Redis a node holds 100,000 rooms by default. One row has that many, and the room of
    # broadcasts comes on top.
    "MAX_ROOMS": "200000",
    "RUST_LOG": "warn",
}


def bun():
    """Path of Bun's binary, which the installation of its package creates."""
    return str(PEERS / "node_modules" / "bun" / "bin" / "bun.exe")


def binary():
    """The path of hubbub's binary."""
    return os.environ.get("HUBBUB_BIN", str(TARGET / "release" / "hubbub"))


def command(kind, port, redis_url, archive):
    """The command line of a server, and its environment variables.

    `archive`: the variables of the archive, for hubbub.
    """
    if kind == "floor":
        return [str(TARGET / "bench" / "floor"), str(port)], {}
    if kind == "hubbub":
        more = {"REDIS_URL": redis_url} if redis_url else {}
        return [binary(), "serve"], {
            **HUBBUB,
            "SERVER_PORT": str(port),
            **archive,
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


@dataclass(frozen=True)
class Running:
    ports: list  # of the nodes
    pids: list  # of all processes; that of Redis comes first, if there is one
    redis_port: int | None
    database: object  # of databases.py; `None` without one


def kind_and_nodes(server):
    """Splits a server's name in rows.py into its kind and its number of nodes that share a Redis.

    The number is 0 for a single node without Redis.
    """
    server, _, _ = server.partition("+")
    kind, _, nodes = server.rpartition("-")
    return (kind, int(nodes)) if nodes.isdigit() else (server, 0)


def database_and_ack(server):
    """The kind of database in a server's name, and ACK_AFTER; `None` where the name has none.

    A name with a database is like `hubbub+sqlite` or `hubbub-2+postgres-archive`.
    """
    _, _, archive = server.partition("+")
    kind, _, ack_after = archive.partition("-")
    return kind or None, ack_after or None


@contextmanager
def running(server, cores=SERVER_CORE):
    """Runs the server with this name in rows.py until the context ends."""
    kind, nodes = kind_and_nodes(server)
    database_kind, ack_after = database_and_ack(server)
    with ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory())
        log = stack.enter_context(open(Path(directory) / "log", "w+b"))
        processes, archive, its_database = [], {}, None
        if database_kind:
            its_database = stack.enter_context(database(database_kind, directory, DATABASE_CORE))
            archive["DATABASE_URL"] = its_database.url
            if ack_after:
                archive["ACK_AFTER"] = ack_after

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
                line, more = command(kind, port, redis_url, archive)
                start(line, port, more)
                ports.append(port)
            pids = [process.pid for process in processes]
            yield Running(ports, pids, redis_port, its_database)
        finally:
            for process in reversed(processes):
                process.kill()
                process.wait()


@contextmanager
def node(directory, more):
    """Runs one node of hubbub on the servers' core, with these further environment variables, until
    the context ends, then ends it cleanly."""
    port = free_port()
    line, environment = command("hubbub", port, None, more)
    with open(Path(directory) / "node.log", "a+b") as log:
        process = subprocess.Popen(
            ["taskset", "-c", SERVER_CORE, *line],
            cwd=directory,
            env={"PATH": os.environ["PATH"], "HOME": str(directory), **environment},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        try:
            await_port(process, port, log)
            yield Running([port], [process.pid], None, None)
        finally:
            process.terminate()
            process.wait()
