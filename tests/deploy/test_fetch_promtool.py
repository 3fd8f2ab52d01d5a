"""Tests tests/deploy/fetch-promtool with a fake apt-get: it updates the package lists only when they are
needed, and shows the error of apt-get."""

import os
import pathlib
import subprocess
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
# Offers the package only after `update`, as on a machine without package lists.
FAKE_APT_GET = """#!/bin/sh
echo "$*" >>"$FAKE/calls"
case $1 in
update)
    [ -z "${FAKE_OFFLINE:-}" ] || { echo "E: Temporary failure resolving" >&2; exit 100; }
    touch "$FAKE/lists"
    ;;
download)
    [ -e "$FAKE/lists" ] || { echo "E: Unable to locate package prometheus" >&2; exit 100; }
    cp "$FAKE/package.deb" prometheus_1_all.deb
    ;;
esac
"""


class FetchPromtool(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.target = self.folder / "bin/promtool"
        self.program("apt-get", FAKE_APT_GET)
        self.program("sudo", '#!/bin/sh\nshift\nexec "$@"\n')
        package = self.folder / "package"
        (package / "DEBIAN").mkdir(parents=True)
        (package / "DEBIAN").chmod(0o755)
        (package / "DEBIAN/control").write_text(
            "Package: prometheus\nVersion: 1\nArchitecture: all\nMaintainer: a\nDescription: a\n"
        )
        (package / "usr/bin").mkdir(parents=True)
        (package / "usr/bin/promtool").write_text("promtool")
        subprocess.run(
            ["dpkg-deb", "--build", package, self.folder / "package.deb"],
            check=True,
            capture_output=True,
        )

    def program(self, name, text):
        (self.folder / name).write_text(text)
        (self.folder / name).chmod(0o755)

    def fetch(self, **variables):
        return subprocess.run(
            [ROOT / "tests/deploy/fetch-promtool", self.target],
            env={
                "PATH": f"{self.folder}:{os.environ['PATH']}",
                "FAKE": str(self.folder),
                **variables,
            },
            capture_output=True,
            text=True,
        )

    def calls(self):
        return [line.split()[0] for line in (self.folder / "calls").read_text().splitlines()]

    def test_package_lists_are_updated_only_if_the_package_is_not_found(self):
        result = self.fetch()
        self.assertEqual((result.returncode, result.stderr), (0, ""))
        self.assertEqual(self.calls(), ["download", "update", "download"])
        self.assertEqual(self.target.read_text(), "promtool")
        self.target.unlink()
        self.assertEqual(self.fetch().returncode, 0)
        self.assertEqual(self.calls(), ["download", "update", "download", "download"])
        self.assertEqual(self.target.read_text(), "promtool")

    def test_the_error_of_apt_get_is_shown(self):
        result = self.fetch(FAKE_OFFLINE="1")
        self.assertNotEqual(result.returncode, 0)
        self.assertIn("Unable to locate package prometheus", result.stderr)
        self.assertIn("Temporary failure resolving", result.stderr)
        self.assertFalse(self.target.exists())
        self.assertEqual([p.name for p in self.target.parent.iterdir()], [])


if __name__ == "__main__":
    unittest.main()
