"""Tests k8s/components/postgres/start.sh with a fake server: PostgreSQL gets the user, the password and
the database of DATABASE_URL, and is never started without a password."""

import os
import pathlib
import subprocess
import tempfile
import unittest

SCRIPT = pathlib.Path(__file__).resolve().parents[2] / "k8s/components/postgres/start.sh"


class Start(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        fake = self.folder / "docker-entrypoint.sh"
        fake.write_text('#!/bin/sh\necho "$*"; env | grep -E "^(POSTGRES|DATABASE)" | sort\n')
        fake.chmod(0o755)

    def start(self, url):
        return subprocess.run(
            ["sh", SCRIPT],
            env={"PATH": f"{self.folder}:{os.environ['PATH']}"}
            | ({} if url is None else {"DATABASE_URL": url}),
            capture_output=True,
            text=True,
        )

    def test_the_server_has_the_user_the_password_and_the_database_of_the_url(self):
        for url in (
            "postgres://ann:s3cret:x@postgres/chat",
            "postgresql://ann:s3cret:x@postgres:5432/chat?sslmode=disable",
        ):
            result = self.start(url)
            self.assertEqual(
                result.stdout.splitlines(),
                [
                    "postgres",
                    "POSTGRES_DB=chat",
                    "POSTGRES_PASSWORD=s3cret:x",
                    "POSTGRES_USER=ann",
                ],
                url,
            )

    def test_a_url_without_a_password_is_refused_and_not_shown(self):
        for url in (
            None,
            "",
            "none",
            "postgres://ann@postgres/chat",
            "postgres://ann:@postgres/chat",
            "postgres://ann:s3cret%40@postgres/chat",
            "mysql://ann:s3cret@postgres/chat",
        ):
            result = self.start(url)
            self.assertEqual(result.returncode, 1, url)
            self.assertIn("DATABASE_URL", result.stderr)
            self.assertNotIn("s3cret", result.stderr + result.stdout)


if __name__ == "__main__":
    unittest.main()
