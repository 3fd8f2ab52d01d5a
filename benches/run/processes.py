"""What every started server needs: a free port, and the wait until it accepts connections."""

import socket
import time

# Seconds until a started server must accept connections.
START_TIMEOUT = 20


class Failed(Exception):
    """A server could not be started."""


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


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
