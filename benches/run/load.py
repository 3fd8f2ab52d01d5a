"""Runs the load generator, `hubbub bench`."""

import json
import subprocess
import urllib.request

from processes import Failed
from servers import LOAD_CORE, TARGET, raise_files

# Seconds until a generator must have ended.
END_TIMEOUT = 420


def generator(load, server, *more, cores=LOAD_CORE):
    """The command line of the load generator."""
    line = [
        "taskset",
        "-c",
        cores,
        str(TARGET / "release" / "hubbub"),
        "bench",
        "--json",
        *load,
        *more,
    ]
    return [*line, "--url", ",".join(f"http://127.0.0.1:{port}" for port in server.ports)]


def measuring(load, server, cores=LOAD_CORE):
    """The same, with the usage of the server's processes."""
    return generator(load, server, "--pid", ",".join(map(str, server.pids)), cores=cores)


def run(server, load, cores=LOAD_CORE):
    """One run of the generator."""
    done = subprocess.run(
        measuring(load, server, cores),
        capture_output=True,
        text=True,
        timeout=END_TIMEOUT,
        preexec_fn=raise_files,
        check=False,
    )
    return result_of(done.stdout, done.stderr)


def start(line):
    """Starts a generator with this command line, whose report is collected later."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(line, **pipes, preexec_fn=raise_files)


def result_of(output, errors):
    """The result that a generator printed."""
    if not output.startswith("{"):
        raise Failed(errors.strip())
    return json.loads(output)


def connected(port):
    """The number of connections that a hubbub node reports."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=20) as answer:
        return json.load(answer)["connectedClients"]
