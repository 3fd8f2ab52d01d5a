#!/usr/bin/env python3
"""Tests three real nodes, a real Redis and the shipped nginx.conf.

Sessions are spread over the nodes, polling works, a node may shut down, and (with an nginx that resolves
names) a fourth node may join.

usage: nginx_balance.py PATH-OF-HUBBUB

Requires python-socketio. Also tests the Node.js client, if tests/clients/fetch has installed it.
"""

import contextlib
import http.cookiejar
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

import requests
import socketio

from front import ROOT, Front, eventually, free_port, listening, node_address, resolves_names

NODE_CLIENT = """
const { io } = require("socket.io-client-v4");
const [url, options] = [process.argv[1], JSON.parse(process.argv[2])];
const socket = io(url, { ...options, forceNew: true });
const fail = (reason) => { console.error(String(reason)); process.exit(1); };
const timer = setTimeout(() => fail("nothing within 15 s"), 15000);
socket.on("connect_error", (e) => fail(e.message));
socket.on("connect", () => {
  socket.emit("authenticate", { user_id: "node-" + process.pid }, (ack) => {
    if (!ack.ok) fail(JSON.stringify(ack));
    socket.emit("join", { room_id: "node" }, (ack) => {
      if (!ack.ok) fail(JSON.stringify(ack));
      // Its message returns through nginx, a node and the room. No exit(), so that the close packet
      // is sent, too.
      socket.on("message", (m) => { if (m.content === "from " + process.pid) { clearTimeout(timer); socket.close(); } });
      socket.emit("message", { room_id: "node", content: "from " + process.pid }, (ack) => ack.ok || fail(JSON.stringify(ack)));
    });
  });
});
"""


class Node:
    """One hubbub process."""

    def __init__(self, binary, folder, redis_port, host, port):
        self.host = host
        self.address = f"{host}:{port}"
        self.log = open(folder / f"hubbub-{host}.log", "wb")
        self.process = subprocess.Popen(
            [binary, "serve"],
            cwd=folder,
            env={
                "PATH": os.environ["PATH"],
                "SERVER_HOST": host,
                "SERVER_PORT": str(port),
                "REDIS_HOST": "127.0.0.1",
                "REDIS_PORT": str(redis_port),
                "AUTH_MODE": "open",
                "DRAIN_SECS": "4",
            },
            stdout=self.log,
            stderr=subprocess.STDOUT,
        )

    def ready(self):
        assert (
            self.process.poll() is None
        ), f"a node ended with {self.process.returncode}: {self.log.name}"
        with contextlib.suppress(OSError):
            return urllib.request.urlopen(f"http://{self.address}/readyz", timeout=2).status == 200
        return False

    def clients(self):
        with urllib.request.urlopen(f"http://{self.address}/health", timeout=5) as answer:
            return json.load(answer)["connectedClients"]

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.log.close()


class FromAddress(requests.adapters.HTTPAdapter):
    """Connects from one of this machine's many loopback addresses, like a client in another network."""

    def __init__(self, source):
        self.source = source
        super().__init__()

    def init_poolmanager(self, *arguments, **options):
        super().init_poolmanager(*arguments, source_address=(self.source, 0), **options)


class ChatClient:
    """One python-socketio client that joins a room and records the messages it receives."""

    def __init__(self, url, name, transports, source=None, page=False, jar=True):
        self.name, self.received, self.lock = name, [], threading.Lock()
        session = requests.Session()
        if source:
            session.mount("http://", FromAddress(source))
        if not jar:
            session.cookies.set_policy(http.cookiejar.DefaultCookiePolicy(allowed_domains=[]))
        if page:
            session.headers["Sec-Fetch-Site"] = "same-origin"
        self.socket = socketio.Client(
            http_session=session,
            reconnection_delay=0.1,
            reconnection_delay_max=1,
            handle_sigint=False,
        )
        self.socket.on("message", self.on_message)
        self.socket.on("connect", self.on_connect)
        # Refused handshakes are retried too, as by a client that has lost its node.
        # The default of one second for the answer to CONNECT is too short on a busy machine.
        self.socket.connect(url, transports=transports, retry=True, wait_timeout=10)

    def on_connect(self):
        """Runs on each connection: the first one, and each reconnect after a node has shut down."""
        threading.Thread(target=self.authenticate_and_join, daemon=True).start()

    def authenticate_and_join(self):
        # If the connection ends meanwhile, the next connection repeats the requests.
        with contextlib.suppress(socketio.exceptions.SocketIOError):
            assert self.socket.call("authenticate", {"user_id": self.name}, timeout=10)["ok"]
            assert self.socket.call("join", {"room_id": "all"}, timeout=10)["ok"]
            with self.lock:
                self.received.append("(joined)")

    def on_message(self, message):
        with self.lock:
            self.received.append(message["content"])

    def has(self, content, times=1):
        with self.lock:
            return self.received.count(content) >= times

    def send(self, content):
        assert self.socket.call("message", {"room_id": "all", "content": content}, timeout=10)["ok"]


def run(binary, folder, stack):
    redis_port = free_port()
    redis = subprocess.Popen(
        [
            "redis-server",
            "--port",
            str(redis_port),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--dir",
            str(folder),
        ],
        stdout=subprocess.DEVNULL,
    )
    stack.callback(redis.wait, 20)
    stack.callback(redis.terminate)
    eventually("Redis listens", lambda: listening(redis_port))
    port = free_port(node_address(0))
    nodes = []

    def add_node():
        nodes.append(Node(binary, folder, redis_port, node_address(len(nodes)), port))
        stack.callback(nodes[-1].stop)

    for _ in range(3):
        add_node()
    for node in nodes:
        eventually(f"{node.address} is ready", node.ready, 30)
    front = Front(folder, [node.host for node in nodes], port)
    stack.callback(front.stop)

    clients = []
    stack.callback(lambda: [client.socket.disconnect() for client in clients])
    kinds = {
        # Polling only, each client from its own address.
        "polling": [
            dict(transports=["polling"], source=f"127.0.0.{host}") for host in range(2, 14)
        ],
        # The same without a cookie jar.
        "jarless": [
            dict(transports=["polling"], source=f"127.0.3.{host}", jar=False)
            for host in range(2, 14)
        ],
        # Pages behind one address: spread by the cookie, then upgraded to WebSocket.
        "page": [dict(transports=["polling", "websocket"], page=True) for _ in range(12)],
        "websocket": [dict(transports=["websocket"]) for _ in range(12)],
    }
    for kind, options in kinds.items():
        before = [node.clients() for node in nodes]
        group = [ChatClient(front.url, f"{kind}-{i}", **each) for i, each in enumerate(options)]
        clients += group
        for client in group:
            eventually(f"{client.name} joined", lambda: client.has("(joined)"))
        counts = [node.clients() - old for node, old in zip(nodes, before)]
        print(f"{kind}: {counts}")
        assert sum(counts) == len(group), f"{kind}: {counts}"
        # Twelve random choices leave out one of the nodes in about 1 of 40 runs: add clients until
        # each node has one.
        extra = 0
        while min(counts) == 0:
            extra += 1
            assert extra <= 40, f"{kind} clients are not spread over all nodes: {counts}"
            again = dict(options[0])
            if "source" in again:
                again["source"] = f"127.0.1.{extra}"
            client = ChatClient(front.url, f"{kind}-more-{extra}", **again)
            clients.append(client)
            eventually(f"{client.name} joined", lambda: client.has("(joined)"))
            counts = [node.clients() - old for node, old in zip(nodes, before)]

    for kind in kinds:
        next(client for client in clients if client.name == f"{kind}-0").send(f"hello from {kind}")
    for client in clients:
        for kind in kinds:
            eventually(
                f"{client.name} receives the message of {kind}",
                lambda: client.has(f"hello from {kind}"),
            )
    print(f"{len(clients)} clients on three nodes receive each other's messages")

    modules = ROOT / "tests/clients/node_modules"
    if shutil.which("node") and (modules / "socket.io-client-v4").is_dir():
        env = {**os.environ, "NODE_PATH": str(modules)}
        for options in (
            {"transports": ["polling"]},
            {"transports": ["websocket"]},
            {},
            {"withCredentials": True},
        ):
            subprocess.run(
                ["node", "-e", NODE_CLIENT, front.url, json.dumps(options)],
                env=env,
                check=True,
                timeout=30,
            )
        print("the Node.js client: polling, websocket, upgrade, with cookies")
    else:
        print("skip: the Node.js client (tests/clients/fetch installs it)")

    eventually(
        "only the clients of this test are connected",
        lambda: sum(node.clients() for node in nodes) == len(clients),
    )

    # One node shuts down. Its clients reconnect to the other nodes, on every transport.
    leaving = nodes[0]
    moved = leaving.clients()
    assert moved > 0
    leaving.process.send_signal(signal.SIGTERM)
    # While it drains, new clients of any kind reach another node.
    newcomers = [
        ChatClient(front.url, f"new-{i}", ["polling"], source=f"127.0.2.{i + 1}", jar=i % 2 == 0)
        for i in range(12)
    ]
    clients += newcomers
    for client in newcomers:
        eventually(f"{client.name} joined", lambda: client.has("(joined)"), 3)
    assert leaving.process.poll() is None, "the node drained too fast for this test"
    assert leaving.process.wait(20) == 0, "a drained node exits with status 0"
    rest = nodes[1:]
    eventually(
        "all clients are on the other two nodes",
        lambda: sum(node.clients() for node in rest) == len(clients),
        40,
    )
    # Each client that moved joins again. All clients receive the messages sent after that.
    eventually(
        "every client that moved has joined again",
        lambda: sum(client.has("(joined)", 2) for client in clients) >= moved,
        40,
    )

    def all_receive():
        content = f"after {time.monotonic()}"
        next(client for client in clients if client.socket.connected).send(content)
        end = time.monotonic() + 3
        while time.monotonic() < end:
            if all(client.has(content) for client in clients):
                return True
            time.sleep(0.05)
        return False

    eventually("all clients receive a message sent after the move", all_receive, 30)
    print(f"{moved} clients moved to {[node.clients() for node in rest]}")

    if not resolves_names():
        print("skip: a fourth node joins (this nginx has no `resolve` in upstreams)")
        return
    # docker compose up --scale hubbub=4: the name of the nodes gets another address.
    add_node()
    joining = nodes[-1]
    eventually(f"{joining.address} is ready", joining.ready, 30)
    front.names.hosts = [node.host for node in [*rest, joining]]

    def reached():
        client = ChatClient(
            front.url, f"fourth-{len(clients)}", ["polling", "websocket"], page=True
        )
        clients.append(client)
        eventually(f"{client.name} joined", lambda: client.has("(joined)"))
        return joining.clients() > 0

    eventually("new clients reach the fourth node", reached, 60)
    eventually("all clients receive a message sent after the fourth node joined", all_receive, 30)
    print(f"after a fourth node joined: {[node.clients() for node in nodes[1:]]}")


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    binary = os.path.abspath(sys.argv[1])
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        folder = pathlib.Path(folder)
        try:
            run(binary, folder, stack)
        except BaseException:
            for log in sorted(folder.glob("*.log")):
                print(f"--- {log.name}\n{log.read_text(errors='replace')[-2000:]}", file=sys.stderr)
            raise


if __name__ == "__main__":
    main()
