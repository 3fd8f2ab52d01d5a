"""The harness of the Python tests.

Nodes, Redis and a TCP proxy as children of the test, and clients that record everything they receive.
"""

import asyncio
import base64
import hashlib
import hmac
import importlib.metadata
import itertools
import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request

import socketio

# Version 4 speaks Engine.IO 3. It sends no CONNECT, and its `connect()` returns before the server's
# answer.
VERSION_4 = importlib.metadata.version("python-socketio").startswith("4.")

BINARY = os.environ["HUBBUB_BIN"]
SECRET = "a-secret-for-tests-that-is-long-enough"
# The deadline for anything that should happen immediately, in seconds.
DEADLINE_SECS = 8

TRANSPORTS = {
    "polling": ["polling"],
    "websocket": ["websocket"],
    "upgrade": ["polling", "websocket"],
}
# The events of a room that have numbers.
NUMBERED = [
    "message",
    "message_edited",
    "message_deleted",
    "reactions_changed",
    "message_pinned",
    "message_unpinned",
]
EVENTS = [
    "authenticated",
    *NUMBERED,
    "read_receipt",
    "room_users",
    "user_joined",
    "user_left",
    "user_online",
    "user_offline",
    "user_typing",
    "room_reset",
    "going_away",
    "exception",
    "connect",
    "disconnect",
    "connect_error",
]

# Below the ephemeral range, so that no outgoing connection takes a port between the choice and the
# bind.
_ports = itertools.count(10_000 + os.getpid() % 800 * 25)


def free_port():
    for port in _ports:
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue


async def eventually(probe, description, seconds=DEADLINE_SECS):
    """Polls until `probe` returns a truthy value, and returns it."""
    deadline = time.monotonic() + seconds
    while True:
        value = await probe() if asyncio.iscoroutinefunction(probe) else probe()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"{description}: not within {seconds} s")
        await asyncio.sleep(0.02)


def get(url):
    """Returns the status and the parsed body of a GET."""
    try:
        with urllib.request.urlopen(url, timeout=DEADLINE_SECS) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def token(**claims):
    """Returns a JWT signed with HS256. `exp` defaults to one hour from now."""

    def part(raw):
        return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()

    secret = claims.pop("secret", SECRET)
    claims = {"exp": int(time.time()) + 3600, **claims}
    signed = ".".join(
        part(json.dumps(each).encode()) for each in ({"alg": "HS256", "typ": "JWT"}, claims)
    )
    return f"{signed}.{part(hmac.new(secret.encode(), signed.encode(), hashlib.sha256).digest())}"


class Proxy:
    """A TCP proxy in front of a node that drops connections as a bad network does."""

    def __init__(self, port):
        self.target, self.refusing, self.writers = port, False, set()

    async def listen(self):
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self.server.sockets[0].getsockname()[1]}"
        return self

    async def _serve(self, near_in, near_out):
        if self.refusing:
            return near_out.close()
        far_in, far_out = await asyncio.open_connection("127.0.0.1", self.target)
        self.writers |= {near_out, far_out}

        async def pump(source, sink):
            try:
                while data := await source.read(65_536):
                    sink.write(data)
                    await sink.drain()
            except OSError:
                pass
            sink.close()

        await asyncio.gather(pump(near_in, far_out), pump(far_in, near_out))
        self.writers -= {near_out, far_out}

    def cut(self):
        """Closes every connection and refuses new ones until `heal()`."""
        self.refusing = True
        for writer in list(self.writers):
            writer.transport.abort()

    def heal(self):
        self.refusing = False

    def close(self):
        self.cut()
        self.server.close()


def connect_arguments(url, auth=None, **options):
    """The arguments of a client's `connect`. Version 4 sends a token in the query."""
    if not VERSION_4:
        return [url], {"auth": auth, "wait_timeout": DEADLINE_SECS, **options}
    return [f"{url}?token={auth['token']}" if auth else url], options


def end_reconnection(io):
    """Ends the attempts to reconnect. Version 4 has no `shutdown()`, and keeps attempting."""
    io.reconnection = False
    io._reconnect_abort.set()


async def until_idle(eio, receivers):
    """Waits until the client's task that sends waits for packets.

    Over polling an acknowledgement may arrive before the answer to the POST that it acknowledges. A
    client that disconnects in between ends that task without sending its DISCONNECT, and its user stays
    online until the heartbeat's time-out.
    """
    await eventually(lambda: eio.state != "connected" or receivers(eio.queue), "the client's sends")


class Recorder:
    """Everything that a client received: `(event, data)` in the order of arrival."""

    def __init__(self):
        self.entries = []

    def of(self, event, where=lambda _: True):
        return [data for name, data in self.entries if name == event and where(data)]

    async def next(self, event, where=lambda _: True, seconds=DEADLINE_SECS, after=0):
        """Returns the payload of the next `event` that satisfies `where`."""

        def found():
            return [data for name, data in self.entries[after:] if name == event and where(data)]

        try:
            return (await eventually(lambda: [found()] if found() else None, event, seconds))[0][0]
        except AssertionError as late:
            raise AssertionError(f"{late}; seen: {self.entries[-10:]}") from None

    async def answered(self):
        """Waits for the server's answer to a CONNECT."""
        await eventually(
            lambda: self.of("connect") or self.of("connect_error"), "the answer to the CONNECT"
        )

    def messages(self, room):
        """The messages of one room, in the order of their arrival."""
        return self.of("message", lambda message: message["room_id"] == room)

    def numbered(self, room):
        """The numbered events of one room as `(event, data)`, in the order of their arrival."""
        return [
            (name, data)
            for name, data in self.entries
            if name in NUMBERED and data["room_id"] == room
        ]


class AsyncClient(Recorder):
    """The asyncio client."""

    def __init__(self, **options):
        super().__init__()
        self.io = socketio.AsyncClient(
            reconnection_delay=0.1, reconnection_delay_max=0.5, **options
        )
        for event in EVENTS:
            self.io.on(event, self._keep(event))

    def _keep(self, event):
        async def keep(*data):
            self.entries.append((event, data[0] if data else None))

        return keep

    async def connect(self, url, **options):
        arguments, options = connect_arguments(url, **options)
        await self.io.connect(*arguments, **options)
        await self.answered()
        return self

    async def call(self, event, data=None):
        return await self.io.call(event, data, timeout=DEADLINE_SECS)

    async def close(self):
        await until_idle(self.io.eio, lambda queue: queue._getters)
        if not VERSION_4:
            return await self.io.shutdown()
        end_reconnection(self.io)
        if self.io.connected:
            await self.io.disconnect()


class ThreadClient(Recorder):
    """The client with threads, with the same methods."""

    def __init__(self, **options):
        super().__init__()
        self.io = socketio.Client(reconnection_delay=0.1, reconnection_delay_max=0.5, **options)
        for event in EVENTS:
            self.io.on(event, self._keep(event))

    def _keep(self, event):
        def keep(*data):
            self.entries.append((event, data[0] if data else None))

        return keep

    async def connect(self, url, **options):
        arguments, options = connect_arguments(url, **options)
        await asyncio.to_thread(self.io.connect, *arguments, **options)
        await self.answered()
        return self

    async def call(self, event, data=None):
        return await asyncio.to_thread(self.io.call, event, data, timeout=DEADLINE_SECS)

    async def close(self):
        await until_idle(self.io.eio, lambda queue: queue.not_empty._waiters)
        if not VERSION_4:
            return await asyncio.to_thread(self.io.shutdown)
        end_reconnection(self.io)
        if self.io.connected:
            await asyncio.to_thread(self.io.disconnect)


class Lab:
    """Owns the processes, proxies and clients of one test, and closes all of them."""

    def __init__(self):
        self.clients, self.proxies, self.children, self.directories = [], [], [], []

    def directory(self):
        self.directories.append(tempfile.mkdtemp(prefix="hubbub-clients-"))
        return self.directories[-1]

    def _spawn(self, command, **options):
        directory = self.directory()
        with open(os.path.join(directory, "log"), "wb") as log:
            child = subprocess.Popen(
                command, cwd=directory, stdout=log, stderr=subprocess.STDOUT, **options
            )
        child.directory = directory
        self.children.append(child)
        return child

    async def redis(self):
        port = free_port()
        self._spawn(
            [
                "redis-server",
                "--port",
                str(port),
                "--bind",
                "127.0.0.1",
                "--save",
                "",
                "--appendonly",
                "no",
            ]
        )

        async def up():
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", port)) == 0

        await eventually(up, "Redis listens")
        return f"redis://127.0.0.1:{port}"

    async def node(self, **env):
        port = free_port()
        mode = {} if "JWT_SECRET" in env else {"AUTH_MODE": "open"}
        node = self._spawn(
            [BINARY],
            env={
                "PATH": os.environ["PATH"],
                "SERVER_HOST": "127.0.0.1",
                "SERVER_PORT": str(port),
                **mode,
                **env,
            },
        )
        node.port, node.url = port, f"http://127.0.0.1:{port}"

        def ready():
            if node.poll() is not None:
                with open(os.path.join(node.directory, "log")) as log:
                    raise AssertionError(f"the node ended:\n{log.read()}")
            try:
                return get(f"{node.url}/readyz")[0] == 200
            except OSError:
                return False

        await eventually(ready, "the node is ready", 15)
        return node

    async def nodes_on(self, backplane, count, **env):
        """Starts `count` nodes on one backplane. The embedded backplane has one node, returned
        `count` times."""
        if backplane == "embedded":
            return [await self.node(**env)] * count
        redis = await self.redis()
        return [await self.node(REDIS_URL=redis, **env) for _ in range(count)]

    async def proxy(self, node):
        self.proxies.append(await Proxy(node.port).listen())
        return self.proxies[-1]

    def client(self, kind, **options):
        self.clients.append(kind(**options))
        return self.clients[-1]

    async def user(self, kind, url, user_id, transports, **options):
        client = await self.client(kind, **options).connect(url, transports=transports)
        answer = await client.call("authenticate", {"user_id": user_id})
        assert answer == {"ok": True, "user_id": user_id, "username": user_id}, answer
        return client

    async def close(self):
        for client in self.clients:
            await client.close()
        for proxy in self.proxies:
            proxy.close()
        for child in self.children:
            child.kill()
            child.wait()
        for directory in self.directories:
            shutil.rmtree(directory, ignore_errors=True)
