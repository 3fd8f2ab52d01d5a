"""Runs the shipped nginx.conf on this machine.

Renders it as the nginx image does, starts nginx, and stops it by its pid.

The nodes have addresses in 127.0.77.0/24 and share a port, like containers in the compose network.
nginx finds them by name, at a small DNS server of the test. nginx before 1.27.3 can't do that: then
the same configuration gets the addresses instead of the name, and nodes can't be added later.

HUBBUB_NGINX, if set, is the nginx to test instead of the installed one.

As a program, `front.py OUTPUT` writes a rendered nginx.conf for `nginx -t`.
"""

import contextlib
import os
import pathlib
import re
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
NGINX = os.environ.get("HUBBUB_NGINX", "nginx")
NET = "127.0.77"
NAME = "hubbub.test"


def resolves_names():
    """Whether this nginx knows `resolve` in upstreams."""
    text = subprocess.run([NGINX, "-v"], capture_output=True, text=True, check=True).stderr
    version = re.search(r"nginx/(\d+)\.(\d+)\.(\d+)", text)
    return tuple(map(int, version.groups())) >= (1, 27, 3)


def node_address(index):
    """The address of a node: from .128 on, as docker-compose.yml says by ip_range."""
    return f"{NET}.{128 + index}"


def free_port(host="127.0.0.1"):
    with socket.socket() as s:
        s.bind((host, 0))
        return s.getsockname()[1]


def eventually(description, condition, deadline=20.0, pause=0.05):
    """Polls until condition() is true, and returns its result. Fails after `deadline` seconds."""
    end = time.monotonic() + deadline
    while True:
        result = condition()
        if result:
            return result
        if time.monotonic() > end:
            raise AssertionError(f"not within {deadline} s: {description}")
        time.sleep(pause)


def listening(port):
    with socket.socket() as s:
        return s.connect_ex(("127.0.0.1", port)) == 0


class Names:
    """A DNS server that answers every A query with `hosts`, and with no address for other types."""

    def __init__(self, hosts):
        self.hosts = list(hosts)
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self.socket.getsockname()[1]}"
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        # Until stop() closes the socket.
        with contextlib.suppress(OSError):
            while True:
                query, client = self.socket.recvfrom(512)
                self.socket.sendto(self.answer(query), client)

    def answer(self, query):
        end = query.index(b"\0", 12) + 5
        wants_ipv4 = query[end - 4 : end - 2] == b"\0\1"
        hosts = self.hosts if wants_ipv4 else []
        answer = query[:2] + struct.pack(">5H", 0x8580, 1, len(hosts), 0, 0) + query[12:end]
        for host in hosts:
            # A pointer to the name in the question, type A, class IN, TTL 1 s, 4 bytes.
            answer += struct.pack(">HHHIH", 0xC00C, 1, 1, 1, 4) + socket.inet_aton(host)
        return answer

    def stop(self):
        self.socket.close()


def render(resolver, hosts, port, listen_conf, scheme="http"):
    """Renders the template as envsubst does, with exactly the variables that docker-compose.yml passes."""
    text = (ROOT / "deploy/nginx.conf").read_text()
    if not resolves_names():
        text = re.sub(r"^ *(zone|resolver) .*;\n", "", text, flags=re.M)
        text = re.sub(
            r"^ *server \$\{HUBBUB_NODES\} resolve (.*;)\n",
            lambda m: "".join(f"server {host}:{port} {m[1]}\n" for host in hosts),
            text,
            flags=re.M,
        )
    values = {
        "HUBBUB_NODES": f"{NAME}:{port}",
        "HUBBUB_RESOLVER": resolver,
        "HUBBUB_NET": NET,
        "HUBBUB_PORT": str(port),
        "HUBBUB_SCHEME": scheme,
        "HUBBUB_LISTEN_CONF": str(listen_conf),
    }
    return re.sub(r"\$\{(HUBBUB_[A-Z0-9_]+)\}", lambda m: values[m[1]], text)


def listen_conf(folder, port, tls=False):
    """The shipped listen file with this port, and with the certificate in `folder`."""
    name = "listen-tls.conf" if tls else "listen.conf"
    text = (ROOT / "deploy/nginx" / name).read_text()
    path = folder / name
    path.write_text(
        text.replace("listen 8080", f"listen 127.0.0.1:{port}").replace("/etc/hubbub", str(folder))
    )
    return path


def localised(text, folder):
    """Adapts the settings that need a container: the access log on standard output, the high limit of
    open files, and the folders for temporary files."""
    kinds = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
    temporary = "".join(f"{kind}_temp_path {folder}/{kind};\n" for kind in kinds)
    return (
        text.replace("access_log /dev/stdout", f"access_log {folder}/access.log")
        .replace("worker_rlimit_nofile 262144;", "")
        .replace("worker_connections 65536", "worker_connections 512")
        .replace("worker_processes auto", "worker_processes 2")
        .replace("http {\n", "http {\n" + temporary, 1)
    )


class Front:
    """A running nginx in front of nodes on the given hosts, all on `node_port`."""

    def __init__(self, folder, hosts, node_port, tls=False, scheme="http"):
        self.folder = pathlib.Path(folder)
        self.port = free_port()
        self.url = f"http{'s' if tls else ''}://127.0.0.1:{self.port}"
        self.names = Names(hosts)
        conf = self.folder / "nginx.conf"
        listen = listen_conf(self.folder, self.port, tls)
        text = render(self.names.address, hosts, node_port, listen, scheme)
        conf.write_text(localised(text, self.folder))
        self.log = open(self.folder / "nginx.log", "wb")
        # The workers buffer bodies in the test's folder, which only its owner can access.
        user = "user root;" if os.geteuid() == 0 else ""
        self.process = subprocess.Popen(
            [
                NGINX,
                "-p",
                str(self.folder),
                "-e",
                str(self.folder / "error.log"),
                "-c",
                str(conf),
                "-g",
                f"daemon off; pid {self.folder}/nginx.pid; {user}",
            ],
            stderr=self.log,
        )
        try:
            eventually(
                "nginx listens", lambda: listening(self.port) or self.process.poll() is not None
            )
            assert self.process.poll() is None, (self.folder / "nginx.log").read_text()
            # nginx listens before it has resolved the name, and until then answers 502.
            for path in ("/health", "/socket.io/?EIO=4&transport=polling&sid=none"):
                eventually("nginx has resolved the nodes", lambda: self.status(path) != 502)
        except BaseException:
            self.stop()
            raise

    def status(self, path):
        try:
            context = ssl._create_unverified_context() if self.url.startswith("https") else None
            return urllib.request.urlopen(self.url + path, timeout=10, context=context).status
        except urllib.error.HTTPError as error:
            return error.code

    def access_log(self):
        return (self.folder / "access.log").read_text()

    def stop(self):
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait(20)
        self.log.close()
        self.names.stop()


if __name__ == "__main__":
    target = pathlib.Path(sys.argv[1]).resolve()
    target.parent.mkdir(parents=True, exist_ok=True)
    hosts = [node_address(index) for index in range(3)]
    rendered = render("127.0.0.1:53", hosts, 18080, listen_conf(target.parent, 18080))
    target.write_text(localised(rendered, target.parent))
