"""Runs the shipped nginx.conf on this machine.

Renders it as the nginx image does, starts nginx, and stops it by its pid.

As a program, `front.py OUTPUT` writes a rendered nginx.conf for `nginx -t`.
"""

import os
import pathlib
import re
import socket
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
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


def render(listen, nodes):
    """Renders the template as envsubst does, with exactly the variables that docker-compose.yml passes."""
    values = {
        "HUBBUB_LISTEN": listen,
        **{f"HUBBUB_NODE_{i}": node for i, node in enumerate(nodes, 1)},
    }
    text = (ROOT / "deploy/nginx.conf").read_text()
    return re.sub(r"\$\{(HUBBUB_[A-Z0-9_]+)\}", lambda m: values[m[1]], text)


def localised(text, folder):
    """Adapts the two settings that need a container: the access log on standard output, and the high
    limit of open files."""
    return (
        text.replace("access_log /dev/stdout", f"access_log {folder}/access.log")
        .replace("worker_rlimit_nofile 262144;", "")
        .replace("worker_connections 65536", "worker_connections 512")
        .replace("worker_processes auto", "worker_processes 2")
    )


def temp_paths(folder):
    kinds = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
    return "".join(f"{kind}_temp_path {folder}/{kind};\n" for kind in kinds)


class Front:
    """A running nginx in front of the given nodes ("127.0.0.1:port")."""

    def __init__(self, folder, nodes):
        self.folder = pathlib.Path(folder)
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        conf = self.folder / "nginx.conf"
        text = localised(render(f"127.0.0.1:{self.port}", nodes), self.folder)
        conf.write_text(text.replace("http {\n", "http {\n" + temp_paths(self.folder), 1))
        self.log = open(self.folder / "nginx.log", "wb")
        # The workers buffer bodies in the test's folder, which only its owner can access.
        user = "user root;" if os.geteuid() == 0 else ""
        self.process = subprocess.Popen(
            [
                "nginx",
                "-p",
                str(self.folder),
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
        except BaseException:
            self.stop()
            raise

    def access_log(self):
        return (self.folder / "access.log").read_text()

    def stop(self):
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait(20)
        self.log.close()


if __name__ == "__main__":
    target = pathlib.Path(sys.argv[1]).resolve()
    target.parent.mkdir(parents=True, exist_ok=True)
    rendered = localised(
        render("127.0.0.1:18080", [f"127.0.0.1:1808{i}" for i in (1, 2, 3)]), target.parent
    )
    target.write_text(rendered.replace("http {\n", "http {\n" + temp_paths(target.parent), 1))
