#!/usr/bin/env python3
"""Checks both formats of /metrics of a real node: Prometheus's text with `promtool check metrics`,
and OpenMetrics with the strict parser of Prometheus's Python client.

usage: metrics.py PATH-OF-HUBBUB PATH-OF-PROMTOOL

Requires prometheus-client.
"""

import contextlib
import os
import pathlib
import subprocess
import sys
import tempfile
import urllib.request

from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as prometheus

from front import eventually, free_port

# The header of Prometheus 3.
PROMETHEUS_ACCEPT = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,"
    "application/openmetrics-text;version=0.0.1;q=0.4,"
    "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,text/plain;version=0.0.4;q=0.2,*/*;q=0.1"
)
PROCESS = {
    "process_cpu_seconds",
    "process_resident_memory_bytes",
    "process_virtual_memory_bytes",
    "process_threads",
    "process_start_time_seconds",
    "process_open_fds",
    "process_max_fds",
}


def get(url, accept=None):
    """The content type and the text."""
    headers = {"Accept": accept} if accept else {}
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=5) as answer:
        return answer.headers["Content-Type"], answer.read().decode()


def ready(url):
    with contextlib.suppress(OSError):
        return get(f"{url}/readyz")
    return None


def samples(families):
    """The names of all samples with their labels, in the order of the text."""
    return [(s.name, s.labels) for family in families for s in family.samples]


def check(url, promtool):
    kind, text = get(f"{url}/metrics")
    assert kind == "text/plain; version=0.0.4; charset=utf-8", kind
    lint = subprocess.run(
        [promtool, "check", "metrics"], input=text, text=True, capture_output=True, check=False
    )
    assert (lint.returncode, lint.stdout + lint.stderr) == (0, ""), lint
    kind, exposed = get(f"{url}/metrics", PROMETHEUS_ACCEPT)
    assert kind == "application/openmetrics-text; version=1.0.0; charset=utf-8", kind
    families = list(openmetrics(exposed))
    names = {family.name for family in families}
    assert PROCESS < names, PROCESS - names
    build = next(family for family in families if family.name == "hubbub_build")
    assert build.type == "info" and build.samples[0].labels["version"], build
    # Both formats have the same samples, so dashboards need not know which one was scraped.
    assert samples(prometheus(text)) == samples(families)


def main(binary, promtool):
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with tempfile.TemporaryDirectory() as folder:
        environment = {"PATH": os.environ["PATH"], "SERVER_PORT": str(port), "AUTH_MODE": "open"}
        with open(pathlib.Path(folder) / "hubbub.log", "wb") as log:
            binary = str(pathlib.Path(binary).resolve())
            node = subprocess.Popen([binary], cwd=folder, env=environment, stderr=log)
            try:
                eventually("the node is ready", lambda: ready(url))
                check(url, promtool)
            finally:
                node.kill()
                node.wait()


if __name__ == "__main__":
    main(*sys.argv[1:])
