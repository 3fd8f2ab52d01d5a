"""Tests scripts/generate-env.sh.

It refuses weak input, prints no secret, and its output is read back unchanged.

HUBBUB_BIN, if set, is a hubbub binary that must read the same values.
"""

import base64
import hashlib
import hmac
import os
import pathlib
import re
import secrets
import stat
import subprocess
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "scripts/generate-env.sh"
# A fixed value: some random values look weak after truncation.
GOOD = "9c41f7e05ab83d2671ce0b94fd5a286340bd97e1f86c2a5301e8d4b7963fca25"
SPECIALS = [
    'a"b',
    "a\\b",
    "a\\",
    "$HOME",
    "${HOME}",
    "$(id)",
    "`id`",
    "a b ",
    "#a",
    "a #b",
    "a'b",
    "=",
    "\\n",
    "é€😀",
    '\\"$"\\',
]


def read_env(text):
    """Parses .env like dotenvy: plain values up to the end of the line; double quotes with the escapes
    \\\\, \\" and \\$; any other $ would begin a substitution."""
    values = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line or line.startswith("#"):
            continue
        name, value = re.fullmatch(r"([A-Z][A-Z0-9_]*)=(.*)", line).groups()
        if value.startswith('"'):
            inner = re.fullmatch(r'"((?:[^"\\$]|\\["\\$])*)"', value)
            assert inner, f"line {number} is not well quoted"
            value = re.sub(r"\\(.)", r"\1", inner[1])
        else:
            assert not re.search(r"[\s\"'\\$#]", value), f"line {number} needs quotes"
        assert name not in values, f"{name} twice"
        values[name] = value
    return values


class GenerateEnv(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.output = pathlib.Path(folder.name) / "out.env"

    def run_script(self, *arguments, **variables):
        # Only PATH is taken from the environment of the test.
        result = subprocess.run(
            [SCRIPT, "--output", self.output, *arguments],
            env={"PATH": os.environ["PATH"], **variables},
            capture_output=True,
            text=True,
            umask=0o000,
        )
        for name in ("JWT_SECRET", "REDIS_PASSWORD", "API_KEYS", "REDIS_URL"):
            if len(variables.get(name, "")) > 4:
                self.assertNotIn(
                    variables[name], result.stdout + result.stderr, "a secret was printed"
                )
        return result

    def written(self, *arguments, **variables):
        result = self.run_script(*arguments, **variables)
        self.assertEqual(result.returncode, 0, result.stderr)
        return read_env(self.output.read_text())

    def refused(self, reason, *arguments, **variables):
        result = self.run_script(*arguments, **variables)
        self.assertEqual(result.returncode, 1, f"accepted: {variables}")
        self.assertIn(reason, result.stderr)
        self.assertFalse(self.output.exists())
        self.assertEqual(list(self.output.parent.iterdir()), [], "something was left behind")

    def test_weak_jwt_secrets_are_refused(self):
        self.refused("JWT_SECRET is missing")
        self.refused("JWT_SECRET is missing", JWT_SECRET="")
        self.refused("has 31 bytes", JWT_SECRET=GOOD[:31])
        for placeholder in (
            "change-me",
            "CHANGEME_",
            "your-256-bit-secret",
            "replace_me",
            "supersecretkey",
        ):
            self.refused("placeholder", JWT_SECRET=placeholder + GOOD)
        self.refused("different characters", JWT_SECRET="abcabcab" * 8)
        self.refused("consecutive", JWT_SECRET="abcdefghijklmnopqrstuvwxyz0123456789")
        self.refused("repetition of one part", JWT_SECRET="Xq7r9Zk2pLw4" * 4)

    def test_strong_jwt_secrets_are_accepted(self):
        for _ in range(20):
            secret = secrets.token_urlsafe(32)
            self.assertEqual(self.written(JWT_SECRET=secret)["JWT_SECRET"], secret)
        # The length counts bytes, not characters.
        self.written(JWT_SECRET="ßüöäéèñçåøæœðþłđ")

    def test_other_token_keys_may_replace_jwt_secret(self):
        self.assertEqual(self.written(BETTER_AUTH_SECRET=GOOD), {"BETTER_AUTH_SECRET": GOOD})
        url = {"JWT_JWKS_URL": "https://app.example.com/api/auth/jwks", "JWT_ALGORITHM": "EdDSA"}
        self.assertEqual(self.written(**url), url)
        self.assertNotIn("JWT_SECRET", self.written("--generate", "--force", **url))
        self.output.unlink()
        self.refused(
            "JWT_SECRET_PREVIOUS has 5 bytes", JWT_SECRET=GOOD, JWT_SECRET_PREVIOUS="short"
        )
        self.refused("BETTER_AUTH_SECRET has 5 bytes", BETTER_AUTH_SECRET="short")

    def test_open_mode_must_be_set_explicitly(self):
        self.assertEqual(self.written(AUTH_MODE="open"), {"AUTH_MODE": "open"})
        self.output.unlink()
        self.refused("AUTH_MODE", AUTH_MODE="none", JWT_SECRET=GOOD)

    def test_a_redis_needs_a_password(self):
        self.refused("REDIS_PASSWORD has 0 bytes", JWT_SECRET=GOOD, REDIS_HOST="redis")
        self.refused(
            "REDIS_PASSWORD has 15 bytes",
            JWT_SECRET=GOOD,
            REDIS_HOST="redis",
            REDIS_PASSWORD=GOOD[:15],
        )
        self.refused("password of REDIS_URL", JWT_SECRET=GOOD, REDIS_URL="redis://redis:6379/0")
        self.refused(
            "password of REDIS_URL", JWT_SECRET=GOOD, REDIS_URL="rediss://user:short@redis"
        )
        self.written("--allow-weak-redis-password", JWT_SECRET=GOOD, REDIS_HOST="redis")
        self.written(JWT_SECRET=GOOD, REDIS_HOST="redis", REDIS_PASSWORD=GOOD[:16])
        self.written(JWT_SECRET=GOOD, REDIS_URL=f"rediss://user:{GOOD}@redis:6380")

    def test_the_password_of_a_database_is_checked_if_there_is_one(self):
        url = "mysql://ann:{}@db/chat"
        self.refused("password of DATABASE_URL has 5", JWT_SECRET=GOOD, DATABASE_URL=url.format("short"))
        self.written(JWT_SECRET=GOOD, DATABASE_URL=url.format(GOOD))
        self.written(JWT_SECRET=GOOD, DATABASE_URL="postgres://ann@127.0.0.1/chat")

    def test_the_password_of_mysql_dsn_is_checked_where_hubbub_reads_it(self):
        for form in ("ann:{}@tcp(db:3306)/chat", "ann:{}@unix(/run/my.sock)/chat", "mysql://ann:{}@db/chat"):
            self.refused(
                "password of MYSQL_DSN has 5", JWT_SECRET=GOOD, MYSQL_DSN=form.format("short")
            )
        self.refused("password of MYSQL_DSN has 7", JWT_SECRET=GOOD, MYSQL_DSN="ann:a/b@c:d@tcp(db)/chat")
        self.written(JWT_SECRET=GOOD, MYSQL_DSN=f"ann:{GOOD}@tcp(db:3306)/chat?parseTime=true")
        self.written(JWT_SECRET=GOOD, MYSQL_DSN="ann@tcp(db:3306)/chat")
        self.written(JWT_SECRET=GOOD, DATABASE_URL="none", MYSQL_DSN="of-another-program")

    def test_generate_keeps_another_database(self):
        for other in (
            {"DATABASE_URL": "none"},
            {"MYSQL_DSN": f"ann:{GOOD}@tcp(db:3306)/chat"},
        ):
            written = self.written("--generate", "--force", **other)
            self.assertLessEqual(other.items(), written.items())
            self.assertEqual(len({"DATABASE_URL", "MYSQL_DSN"} & set(written)), 1)

    def test_every_api_key_is_checked(self):
        key = secrets.token_hex(12)
        self.written(JWT_SECRET=GOOD, API_KEYS=f"{key}, {GOOD}")
        self.output.unlink()
        self.refused("key 2 of API_KEYS has 5 bytes", JWT_SECRET=GOOD, API_KEYS=f"{key},short")
        self.refused("key 2 of API_KEYS has 0 bytes", JWT_SECRET=GOOD, API_KEYS=f"{key},")

    def test_control_characters_are_refused(self):
        self.refused("JWT_SECRET contains", JWT_SECRET=GOOD + "\nAUTH_MODE=open")
        self.refused("SERVER_HOST contains", JWT_SECRET=GOOD, SERVER_HOST="a\r")
        self.refused("RUST_LOG contains", JWT_SECRET=GOOD, RUST_LOG="info\tdebug")

    def test_values_are_read_back_unchanged(self):
        for special in SPECIALS:
            variables = {
                "JWT_SECRET": GOOD + special,
                "REDIS_HOST": "redis",
                "REDIS_PASSWORD": special + GOOD,
            }
            self.assertEqual(self.written(**variables), variables)

    @unittest.skipUnless(os.environ.get("HUBBUB_BIN"), "no binary given (HUBBUB_BIN)")
    def test_the_binary_reads_values_unchanged(self):
        binary = os.path.abspath(os.environ["HUBBUB_BIN"])
        for special in SPECIALS:
            secret = special + GOOD + special
            self.written(JWT_SECRET=secret)
            self.output.rename(self.output.with_name(".env"))
            token = subprocess.run(
                [binary, "token", "--user", "u"],
                cwd=self.output.parent,
                env={},
                capture_output=True,
                text=True,
                check=True,
            ).stdout.strip()
            # The binary never prints the secret, but the signature of a token proves which one it
            # read.
            signed, _, signature = token.rpartition(".")
            mac = hmac.new(secret.encode(), signed.encode(), hashlib.sha256).digest()
            self.assertEqual(
                base64.urlsafe_b64encode(mac).rstrip(b"=").decode(), signature, special
            )

    def test_plain_values_are_not_quoted(self):
        variables = {
            "JWT_SECRET": GOOD,
            "ALLOWED_ORIGINS": "https://a.example:8443,https://b.example",
            "REDIS_URL": f"rediss://u:{GOOD}@r-1.internal:6380/0",
        }
        self.assertEqual(self.written(**variables), variables)
        self.assertNotIn('"', self.output.read_text())

    def test_unknown_and_empty_keys_are_not_written(self):
        self.assertEqual(
            self.written(JWT_SECRET=GOOD, CI="true", REDIS_HOST=""), {"JWT_SECRET": GOOD}
        )

    def test_only_the_owner_can_read_the_file_even_when_it_existed_with_wider_permissions(self):
        self.output.write_text("old")
        self.output.chmod(0o644)
        before = self.output.stat().st_ino
        self.written(JWT_SECRET=GOOD)
        self.assertEqual(stat.S_IMODE(self.output.stat().st_mode), 0o600)
        # The file was replaced: a process with the old file open can't read the new secrets.
        self.assertNotEqual(self.output.stat().st_ino, before)
        self.assertEqual(os.listdir(self.output.parent), ["out.env"])

    def test_generate_creates_secrets_and_keeps_an_existing_file(self):
        first = self.written("--generate")
        self.assertEqual(set(first), {"JWT_SECRET", "REDIS_PASSWORD", "API_KEYS", "DATABASE_URL"})
        self.assertEqual(len(set(first.values())), 4)
        password = r"postgres://hubbub:([0-9a-f]{64})@postgres/hubbub"
        self.assertNotIn(re.fullmatch(password, first["DATABASE_URL"])[1], first.values())
        self.assertEqual(self.run_script("--generate").returncode, 1)
        self.assertEqual(read_env(self.output.read_text()), first)
        second = self.written("--generate", "--force", JWT_SECRET=GOOD)
        self.assertEqual(second["JWT_SECRET"], GOOD)
        self.assertNotEqual(second["API_KEYS"], first["API_KEYS"])

    def test_help_and_wrong_usage(self):
        result = self.run_script("--help")
        self.assertEqual(result.returncode, 0)
        self.assertIn("--generate", result.stdout)
        self.assertEqual(self.run_script("--nonsense").returncode, 2)


if __name__ == "__main__":
    unittest.main()
