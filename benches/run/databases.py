"""Private databases for the rows of the archive: SQLite, PostgreSQL and MariaDB.

A server has a core of its own if the machine has more than two, else that of the generator, so that
its CPU time is not a part of the nodes' core. It runs as an unprivileged user, with its default
settings (with real fsync) except those listed here.
"""

import os
import shutil
import signal
import sqlite3
import subprocess
import time
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from processes import Failed, await_port, free_port
from watch import tree, tree_cpu

KINDS = ("sqlite", "postgres", "mariadb")
# Seconds until a server must have ended.
END_TIMEOUT = 60
# InnoDB bypasses the system's page cache, so its own cache must be of a realistic size.
MARIADB_CACHE = "512M"


def program(name):
    """The path of a program of PostgreSQL or MariaDB; Debian keeps some outside the PATH."""
    places = ["/usr/sbin", "/usr/local/sbin"]
    versions = Path("/usr/lib/postgresql").glob("*/bin")
    places += map(str, sorted(versions, key=lambda path: int(path.parent.name), reverse=True))
    found = shutil.which(name, path=os.pathsep.join([*places, os.environ["PATH"]]))
    if not found:
        raise Failed(f"{name} is missing")
    return found


def unprivileged(user):
    """The beginning of a command line that runs the rest as this user, if this process is root."""
    if os.getuid():
        return []
    return ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"]


def checked(line, **more):
    done = subprocess.run(line, capture_output=True, text=True, check=False, **more)
    if done.returncode:
        raise Failed(f"{line[0]}: {done.stderr.strip()[-600:]}")
    return done.stdout


class Sqlite:
    """A file that the node itself opens. It has no process of its own."""

    kind = "sqlite"
    pids = ()

    def __init__(self, directory, _cores):
        self.file = Path(directory) / "hubbub.db"
        self.url = f"sqlite://{self.file}"

    def start(self):
        pass

    def end(self):
        pass

    def cpu(self):
        return 0.0

    def query(self, sql):
        """The rows of the result."""
        with closing(sqlite3.connect(f"file:{self.file}?mode=ro", uri=True)) as connection:
            return connection.execute(sql).fetchall()

    def disk_bytes(self):
        """Bytes of the database with everything that its tables have. The node must have ended."""
        return self.file.stat().st_size


class Server:
    """A database server with one database, `hubbub`."""

    user = ""  # the user of the operating system
    first_database = ""  # the database that a new server has

    def __init__(self, directory, cores):
        self.directory = Path(directory)
        self.data = self.directory / "data"
        self.cores = cores
        self.port = free_port()
        self.process = None

    @property
    def pids(self):
        """The server's processes, the first one first."""
        return tree(self.process.pid)

    def start(self):
        self.directory.mkdir(exist_ok=True)
        is_new = not self.data.exists()
        if is_new:
            if os.getuid() == 0:
                shutil.chown(self.directory, self.user, self.user)
            self.install()
        with open(self.directory / "log", "a+b") as log:
            self.process = subprocess.Popen(
                ["taskset", "-c", self.cores, *unprivileged(self.user), *self.command()],
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
            await_port(self.process, self.port, log)
        self.await_ready()
        if is_new:
            self.create()

    def await_ready(self):
        deadline = time.monotonic() + END_TIMEOUT
        while True:
            try:
                self.run("SELECT 1", self.first_database)
                return
            except Failed:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)

    def end(self):
        """Ends the server cleanly."""
        if not self.process or self.process.poll() is not None:
            return
        self.resume()
        self.process.send_signal(self.end_signal)
        try:
            self.process.wait(END_TIMEOUT)
        except subprocess.TimeoutExpired:
            self.send(signal.SIGKILL)
            self.process.wait()

    def pause(self):
        """Stops all of the server's processes: connections stay open, and nothing replies."""
        self.send(signal.SIGSTOP)

    def resume(self):
        self.send(signal.SIGCONT)

    def send(self, number):
        """Sends a signal to all of the server's processes."""
        for pid in self.pids:
            # It may have ended after it was listed.
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def cpu(self):
        """Seconds of CPU time that the server has used."""
        return tree_cpu(self.process.pid)


class Postgres(Server):
    kind = "postgres"
    user = "postgres"
    first_database = "postgres"
    # A fast shutdown: does not wait for clients.
    end_signal = signal.SIGINT

    @property
    def url(self):
        return f"postgres://hubbub@127.0.0.1:{self.port}/hubbub"

    def install(self):
        line = ["-D", str(self.data), "-U", "hubbub", "-A", "trust", "-E", "UTF8", "--no-sync"]
        checked([*unprivileged(self.user), program("initdb"), *line, "--locale=C.UTF-8"])

    def command(self):
        line = [program("postgres"), "-D", str(self.data), "-p", str(self.port)]
        return [*line, "-k", str(self.directory), "-c", "listen_addresses=127.0.0.1"]

    def create(self):
        self.run("CREATE DATABASE hubbub", self.first_database)

    def query(self, sql):
        """The rows of the result, as texts."""
        return [line.split("|") for line in self.run(sql, "hubbub").splitlines()]

    def run(self, sql, database):
        line = [program("psql"), "-h", "127.0.0.1", "-p", str(self.port), "-U", "hubbub", "-Atqc"]
        return checked([*line, sql, database]).strip()

    def disk_bytes(self):
        """Bytes of all tables and indexes."""
        sql = "SELECT sum(pg_total_relation_size(relid)) FROM pg_stat_user_tables"
        return int(self.query(sql)[0][0])


class MariaDb(Server):
    kind = "mariadb"
    user = "mysql"
    first_database = "mysql"
    end_signal = signal.SIGTERM

    @property
    def url(self):
        return f"mysql://root@127.0.0.1:{self.port}/hubbub"

    def install(self):
        line = [f"--datadir={self.data}", "--auth-root-authentication-method=normal"]
        checked(
            [
                *unprivileged(self.user),
                program("mariadb-install-db"),
                "--no-defaults",
                *line,
                "--skip-test-db",
                "--skip-name-resolve",
            ]
        )

    def command(self):
        line = [program("mariadbd"), "--no-defaults", f"--datadir={self.data}"]
        line += [f"--port={self.port}", "--bind-address=127.0.0.1", "--skip-name-resolve"]
        line += [f"--socket={self.directory}/socket", f"--pid-file={self.directory}/pid"]
        return [*line, f"--innodb-buffer-pool-size={MARIADB_CACHE}"]

    def create(self):
        self.run("CREATE DATABASE hubbub CHARACTER SET utf8mb4", self.first_database)

    def query(self, sql):
        """The rows of the result, as texts."""
        return [line.split("\t") for line in self.run(sql, "hubbub").splitlines()]

    def run(self, sql, database):
        line = [program("mariadb"), "--no-defaults", "-h", "127.0.0.1", "-P", str(self.port)]
        return checked([*line, "-u", "root", "-BN", "-e", sql, database]).strip()

    def disk_bytes(self):
        """Bytes of the files of all tables, with their indexes."""
        return sum(file.stat().st_size for file in (self.data / "hubbub").glob("*.ibd"))


@contextmanager
def database(kind, directory, cores):
    """Runs a database in a subdirectory of `directory` until the context ends."""
    kinds = {"sqlite": Sqlite, "postgres": Postgres, "mariadb": MariaDb}
    if kind != "sqlite":
        # The server's user must be able to enter the directory.
        os.chmod(directory, 0o711)
        directory = Path(directory) / kind
    made = kinds[kind](directory, cores)
    try:
        made.start()
        yield made
    finally:
        made.end()
