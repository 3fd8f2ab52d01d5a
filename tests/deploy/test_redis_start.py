"""Tests k8s/components/redis/start.sh with a real Redis: it requires the password, which may contain
any characters, and no process argument shows it."""

import os
import pathlib
import subprocess
import tempfile
import unittest

from front import ROOT, eventually, free_port


class RedisStart(unittest.TestCase):
    def start(self, folder, password):
        source = ROOT / "k8s/components/redis"
        folder, port = pathlib.Path(folder), free_port()
        # The shipped file, except for the data folder, which exists only in the container.
        conf = (
            (source / "redis.conf")
            .read_text()
            .replace("dir /data", f"dir {folder}\nport {port}\nbind 127.0.0.1")
        )
        (folder / "redis.conf").write_text(conf)
        (folder / "start.sh").write_text((source / "start.sh").read_text())
        process = subprocess.Popen(
            ["sh", folder / "start.sh"],
            env={"PATH": os.environ["PATH"], "REDIS_PASSWORD": password},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        return process, port

    def ask(self, port, password, *command):
        env = {"PATH": os.environ["PATH"], **({"REDISCLI_AUTH": password} if password else {})}
        result = subprocess.run(
            ["redis-cli", "-p", str(port), *command], env=env, capture_output=True, text=True
        )
        return result.stdout.strip()

    def test_any_password_works_and_is_required(self):
        for password in ("0123abcd" * 4, "a\"b\\c $d#e'f"):
            with self.subTest(password), tempfile.TemporaryDirectory() as folder:
                process, port = self.start(folder, password)
                try:
                    eventually("Redis answers", lambda: self.ask(port, password, "ping") == "PONG")
                    self.assertIn("NOAUTH", self.ask(port, "", "ping"))
                    self.assertEqual(
                        self.ask(port, password, "config", "get", "maxmemory-policy").split()[1],
                        "noeviction",
                    )
                    self.assertEqual(
                        self.ask(port, password, "config", "get", "appendonly").split()[1], "yes"
                    )
                    arguments = pathlib.Path(f"/proc/{process.pid}/cmdline").read_bytes()
                    # The same pid: Redis itself receives the signal to stop.
                    self.assertIn(b"redis-server", arguments)
                    self.assertNotIn(password.encode(), arguments)
                finally:
                    process.terminate()
                    process.wait(20)

    def test_redis_does_not_start_without_a_password(self):
        with tempfile.TemporaryDirectory() as folder:
            process, _ = self.start(folder, "")
            self.assertNotEqual(process.wait(20), 0)


if __name__ == "__main__":
    unittest.main()
