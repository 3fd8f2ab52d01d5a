"""Tests deploy/nginx.conf in front of three fake nodes: which node gets a request, and the retries."""

import collections
import http.client
import http.server
import json
import pathlib
import socket
import ssl
import subprocess
import tempfile
import threading
import unittest
import urllib.parse

from front import Front, eventually, node_address, resolves_names

TRANSPORTS = ("polling", "websocket")


class Node:
    """A fake node with the part of Engine.IO that stickiness needs: opens sessions, refuses unknown ones."""

    def __init__(self, name, host, port=0, tls=None):
        self.name, self.draining, self.sessions, self.seen, self.connections = (
            name,
            False,
            set(),
            [],
            [],
        )
        node = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            # Headers and body in one write: two writes would wait for the peer's delayed TCP ack.
            wbufsize = -1

            def setup(self):
                super().setup()
                node.connections.append(self.connection)

            def handle(self):
                try:
                    super().handle()
                except OSError:
                    pass

            def log_message(self, *_):
                pass

            def answer(self, status, body):
                text = json.dumps({"node": node.name, **body}).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def do_GET(self):
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                query = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(self.path).query))
                node.seen.append((self.command, self.path, dict(self.headers)))
                known = query.get("sid") in node.sessions
                if node.draining and "sid" not in query:
                    self.answer(503, {"code": "draining"})
                elif not self.path.startswith("/socket.io/"):
                    self.answer(201 if self.command == "POST" else 200, {})
                elif "sid" not in query and query.get("transport") not in TRANSPORTS:
                    self.answer(400, {"code": 0})
                elif "sid" not in query:
                    sid = f"{node.name}{len(node.sessions)}"
                    node.sessions.add(sid)
                    self.answer(200, {"sid": sid})
                else:
                    self.answer(200 if known else 400, {})

            do_POST = do_GET

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 256

        self.server = Server((host, port), Handler)
        if tls:
            self.server.socket = tls.wrap_socket(self.server.socket, server_side=True)
        self.host, self.port = host, self.server.server_port
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def stop(self):
        self.server.shutdown()
        self.server.server_close()
        # As when a process dies: the idle connections of nginx to it end too.
        for connection in self.connections:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


class Client:
    """One client: its source address, whether it keeps cookies, and the headers of all its requests."""

    def __init__(self, front, source="127.0.0.1", jar=False, query="", **headers):
        self.front, self.source, self.jar, self.query, self.cookie = front, source, jar, query, None
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}

    def ask(self, method, path, body=None, **headers):
        where = dict(port=self.front.port, source_address=(self.source, 0), timeout=20)
        if self.front.url.startswith("https"):
            accept_any = ssl._create_unverified_context()
            connection = http.client.HTTPSConnection("127.0.0.1", context=accept_any, **where)
        else:
            connection = http.client.HTTPConnection("127.0.0.1", **where)
        sent = {
            **self.headers,
            **{name.replace("_", "-"): value for name, value in headers.items()},
        }
        if self.cookie:
            sent["Cookie"] = self.cookie
        connection.request(method, path, body, sent)
        response = connection.getresponse()
        text = response.read()
        connection.close()
        self.set_cookie = response.getheader("Set-Cookie")
        if self.set_cookie and self.jar:
            self.cookie = self.set_cookie.split(";")[0]
        return response.status, json.loads(text) if text.startswith(b"{") else {}

    def handshake(self, transport="polling", **headers):
        status, body = self.ask(
            "GET", f"/socket.io/?EIO=4&transport={transport}{self.query}", **headers
        )
        assert status == 200, (status, body)
        self.sid = body["sid"]
        return body["node"]

    def poll(self, method="GET", transport="polling", **headers):
        path = f"/socket.io/?EIO=4&transport={transport}&sid={self.sid}{self.query}"
        return self.ask(method, path, b"40" if method == "POST" else None, **headers)


class FrontTest(unittest.TestCase):
    def setUp(self):
        self.nodes = []
        for name in "abc":
            self.add_node(name)
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.front = Front(folder.name, [node.host for node in self.nodes], self.nodes[0].port)
        self.addCleanup(self.front.stop)
        # Without the requests by which the front found out that nginx is ready.
        for node in self.nodes:
            node.seen.clear()

    def add_node(self, name):
        """Starts a fake node at the next address, on the port of the first one."""
        port = self.nodes[0].port if self.nodes else 0
        node = Node(name, node_address(len(self.nodes)), port)
        self.nodes.append(node)
        self.addCleanup(node.stop)

    def node(self, name):
        return next(node for node in self.nodes if node.name == name)

    def whole_session(self, client):
        """Opens a session, polls, posts and upgrades, all on one node. Returns the name of that node."""
        name = client.handshake()
        for _ in range(3):
            self.assertEqual(client.poll()[0], 200)
            self.assertEqual(client.poll("POST")[0], 200)
        status, body = client.poll(transport="websocket", Upgrade="websocket", Connection="Upgrade")
        self.assertEqual((status, body["node"]), (200, name))
        return name

    def test_clients_without_a_cookie_jar_stay_on_one_node_and_spread_by_address(self):
        names = collections.Counter()
        for host in range(2, 42):
            client = Client(self.front, source=f"127.0.0.{host}")
            name = self.whole_session(client)
            self.assertEqual(self.whole_session(client), name)
            names[name] += 1
        self.assertEqual(set(names), set("abc"), names)

    def test_tokens_in_the_query_spread_the_clients_of_one_address(self):
        names = {self.whole_session(Client(self.front, query=f"&token=t{i}")) for i in range(30)}
        self.assertEqual(names, set("abc"))
        self.assertNotIn("token", self.front.access_log())

    def test_pages_of_the_same_origin_spread_behind_one_address_and_stay_on_their_node(self):
        names = collections.Counter()
        for _ in range(40):
            client = Client(self.front, jar=True, Sec_Fetch_Site="same-origin")
            name = self.whole_session(client)
            # The next tab of that browser gets the same node: a changed cookie would break the
            # first tab.
            self.assertEqual(self.whole_session(client), name)
            self.assertIsNone(client.set_cookie)
            names[name] += 1
        self.assertEqual(set(names), set("abc"), names)

    def test_websockets_spread_behind_one_address_and_get_no_cookie(self):
        client, names = Client(self.front, jar=True), collections.Counter()
        for _ in range(60):
            names[client.handshake("websocket", Upgrade="websocket", Connection="Upgrade")] += 1
        self.assertEqual(set(names), set("abc"), names)
        self.assertIsNone(client.cookie)
        upgrades = [headers for node in self.nodes for _, _, headers in node.seen]
        self.assertTrue(
            all(h["Upgrade"] == "websocket" and h["Connection"] == "upgrade" for h in upgrades)
        )

    def test_a_draining_node_gets_no_new_session_and_keeps_its_existing_ones(self):
        old = Client(self.front, jar=True, Sec_Fetch_Site="same-origin")
        name = self.whole_session(old)
        self.node(name).draining = True
        self.assertEqual(old.poll()[1]["node"], name)
        # The same browser with a new session and a cookie that names the draining node; then
        # clients of all kinds.
        again = Client(self.front, jar=True)
        again.cookie = old.cookie
        self.assertNotEqual(self.whole_session(again), name)
        self.assertNotEqual(again.cookie, old.cookie)
        for host in range(2, 32):
            self.assertNotEqual(Client(self.front, source=f"127.0.0.{host}").handshake(), name)
            self.assertNotEqual(
                self.whole_session(Client(self.front, jar=True, Sec_Fetch_Site="same-origin")), name
            )
        # nginx never marked the node as failed: its existing session is still served.
        self.assertEqual(old.poll()[1]["node"], name)

    def test_a_session_on_the_second_choice_survives_the_return_of_the_first(self):
        lost = 0
        for node in self.nodes:
            node.draining = True
            clients = [Client(self.front, source=f"127.0.0.{host}") for host in range(2, 32)]
            for client in clients:
                self.assertNotEqual(client.handshake(), node.name)
            # First while the first choice still drains, then after its return.
            statuses = [[client.poll()[0], client.poll("POST")[0]] for client in clients]
            node.draining = False
            statuses += [[client.poll()[0], client.poll("POST")[0]] for client in clients]
            lost += sum(status != [200, 200] for status in statuses)
        # Expected: 1 of 243 clients, whose last try found a node that hashing does not find again.
        self.assertLessEqual(lost, 4)

    def asked(self):
        """The number of requests that the nodes have seen."""
        return sum(len(node.seen) for node in self.nodes)

    def test_an_unknown_session_is_refused_after_four_retries(self):
        client = Client(self.front)
        client.sid = "nobody's"
        self.assertEqual(client.poll()[0], 400)
        self.assertEqual(self.asked(), 5)

    def test_a_malformed_request_without_a_session_is_not_repeated(self):
        malformed = [
            ("GET", "/socket.io/"),
            ("GET", "/socket.io/?EIO=4&transport=carrier-pigeon"),
            ("POST", "/socket.io/?EIO=4&transport=none&sid="),
        ]
        for number, (method, path) in enumerate(malformed, 1):
            status, body = Client(self.front).ask(method, path, b"40" if method == "POST" else None)
            # The node's own answer, not a page of nginx.
            self.assertEqual((status, body["code"]), (400, 0))
            self.assertEqual(self.asked(), number)
        # Nor at the node that answers after others have refused the handshake.
        for node in self.nodes[:2]:
            node.draining = True
        for path in ("/socket.io/?transport=none", "/socket.io/?transport=none&t=2"):
            before = len(self.nodes[2].seen)
            self.assertEqual(Client(self.front).ask("GET", path)[0], 400)
            self.assertEqual(len(self.nodes[2].seen) - before, 1)

    def test_a_cookie_that_names_no_node_reaches_a_node_and_is_replaced(self):
        for forged in ("2", "1", "127", "250", "999", "x", "131:22", "128.evil.example"):
            client = Client(self.front, jar=True)
            client.cookie = f"hubbub_node={forged}"
            self.whole_session(client)
            self.assertRegex(client.cookie, r"^hubbub_node=1(28|29|30)$", forged)

    @unittest.skipUnless(resolves_names(), "this nginx has no `resolve` in upstreams")
    def test_added_and_replaced_nodes_are_found_by_name(self):
        self.add_node("d")
        old = Client(self.front, jar=True, Sec_Fetch_Site="same-origin")
        home = self.whole_session(old)
        self.front.names.hosts = [node.host for node in self.nodes]

        def all_four_are_used():
            return {
                self.whole_session(Client(self.front, jar=True, Sec_Fetch_Site="same-origin"))
                for _ in range(40)
            } == set("abcd")

        eventually("all four nodes are used", all_four_are_used)
        # A session with a cookie is not moved by a change of the number of nodes.
        self.assertEqual(old.poll()[1]["node"], home)
        gone = self.node("a" if home != "a" else "b")
        gone.stop()
        self.front.names.hosts.remove(gone.host)
        eventually("the removed node is not asked any more", lambda: self.refusals_of(gone) == 0)
        self.assertEqual(old.poll()[1]["node"], home)

    def refusals_of(self, node):
        """The failed tries at that node, for sixty handshakes."""
        before = self.front.access_log().count(f"{node.host}:")
        for _ in range(60):
            Client(self.front).handshake("websocket", Upgrade="websocket", Connection="Upgrade")
        return self.front.access_log().count(f"{node.host}:") - before

    def test_a_dead_node_is_skipped(self):
        old = Client(self.front, jar=True, Sec_Fetch_Site="same-origin")
        dead = self.whole_session(old)
        self.node(dead).stop()
        # Another node refuses the unknown session, and the client opens a new one.
        self.assertEqual(old.poll()[0], 400)
        self.assertNotEqual(self.whole_session(old), dead)
        for host in range(2, 22):
            self.assertNotEqual(
                self.whole_session(Client(self.front, source=f"127.0.0.{host}")), dead
            )

    def retried_only_with_a_key(self, path):
        for node in self.nodes[:2]:
            node.draining = True
        client, statuses = Client(self.front), collections.Counter()
        for _ in range(6):
            statuses[client.ask("POST", path, b"{}")[0]] += 1
        self.assertEqual(
            sum(len(node.seen) for node in self.nodes), 6, "each request was tried once"
        )
        self.assertEqual(set(statuses), {201, 503})
        for i in range(6):
            self.assertEqual(client.ask("POST", path, b"{}", Idempotency_Key=f"k{i}")[0], 201)
            self.assertEqual(client.ask("GET", "/health")[0], 200)

    def test_a_send_is_retried_only_with_an_idempotency_key(self):
        self.retried_only_with_a_key("/messages")

    def test_a_broadcast_is_retried_only_with_an_idempotency_key(self):
        self.retried_only_with_a_key("/api/broadcast")

    def test_plain_websockets_pass_and_a_draining_node_is_skipped(self):
        self.nodes[0].draining = True
        client = Client(self.front)
        for i in range(12):
            status, _ = client.ask(
                "GET", f"/ws?token=secret{i}", Upgrade="websocket", Connection="Upgrade"
            )
            self.assertEqual(status, 200)
        handshakes = [
            headers
            for node in self.nodes[1:]
            for _, path, headers in node.seen
            if path.startswith("/ws?token=")
        ]
        self.assertEqual(len(handshakes), 12)
        self.assertTrue(
            all(h["Upgrade"] == "websocket" and h["Connection"] == "upgrade" for h in handshakes)
        )
        self.assertNotIn("secret", self.front.access_log())

    def test_forwarding_headers_of_a_client_are_overwritten(self):
        claims = {
            "X_Forwarded_For": "6.6.6.6",
            "X_Real_IP": "6.6.6.6",
            "X_Request_Id": "mine",
            "X_Forwarded_Host": "evil.example.com",
            "X_Forwarded_Port": "6666",
            "Forwarded": "for=6.6.6.6;host=evil.example.com",
        }
        # Each location that passes requests on; the last three reach the named locations, too.
        self.nodes[0].draining = True
        paths = [
            ("GET", "/health", {}),
            ("POST", "/messages", {}),
            ("POST", "/messages", {"Idempotency_Key": "k"}),
            ("GET", "/socket.io/?EIO=4&transport=polling", {}),
            ("GET", "/socket.io/?EIO=4&transport=polling&sid=unknown", {}),
        ]
        for method, path, headers in paths:
            body = b"{}" if method == "POST" else None
            Client(self.front, **claims, **headers).ask(method, path, body)
        seen = [(path, headers) for node in self.nodes for _, path, headers in node.seen]
        self.assertEqual({path for path, _ in seen}, {path for _, path, _ in paths})
        host = f"127.0.0.1:{self.front.port}"
        for path, headers in seen:
            lower = {name.lower(): value for name, value in headers.items()}
            expected = {
                "host": host,
                "x-real-ip": "127.0.0.1",
                "x-forwarded-for": "127.0.0.1",
                "x-forwarded-proto": "http",
                "x-forwarded-host": host,
            }
            got = {k: v for k, v in lower.items() if k in expected or "forwarded" in k}
            self.assertEqual(got, expected, path)
            self.assertNotEqual(lower["x-request-id"], "mine")

    def test_the_cookie_is_limited_to_socket_io_and_secure_behind_tls(self):
        client = Client(self.front, jar=True)
        client.handshake()
        self.assertRegex(
            client.set_cookie,
            r"^hubbub_node=1(28|29|30); Path=/socket\.io/; HttpOnly; SameSite=Lax$",
        )
        client = Client(self.front, jar=True, X_Forwarded_Proto="https")
        client.handshake()
        self.assertTrue(client.set_cookie.endswith("; Secure"))

    def test_the_largest_packet_passes_and_metrics_are_not_public(self):
        client = Client(self.front)
        client.handshake()
        path = f"/socket.io/?EIO=4&transport=polling&sid={client.sid}"
        self.assertEqual(client.ask("POST", path, b"x" * (1 << 20))[0], 200)
        self.assertEqual(client.ask("GET", "/metrics")[0], 404)


class TlsTest(unittest.TestCase):
    def test_nginx_and_the_nodes_can_each_use_a_certificate(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        files = pathlib.Path(folder.name)
        request = "req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=chat.example.com"
        pair = ["-keyout", files / "tls.key", "-out", files / "tls.crt"]
        subprocess.run(["openssl", *request.split(), *pair], check=True, capture_output=True)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(files / "tls.crt", files / "tls.key")
        node = Node("a", node_address(0), tls=context)
        self.addCleanup(node.stop)
        front = Front(files, [node.host], node.port, tls=True, scheme="https")
        self.addCleanup(front.stop)
        client = Client(front, jar=True)
        self.assertEqual(client.handshake(), "a")
        self.assertTrue(client.set_cookie.endswith("; Secure"), client.set_cookie)
        # The first request went by name or key, this one by the address in the cookie.
        self.assertEqual(client.poll()[0], 200)
        self.assertEqual(node.seen[-1][2]["X-Forwarded-Proto"], "https")
        self.assertEqual(client.ask("GET", "/health")[0], 200)


if __name__ == "__main__":
    unittest.main()
