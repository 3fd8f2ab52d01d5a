"""Tests the dependency layer of deploy/Dockerfile.

cargo must be able to read the workspace from the manifests, crates/ and the stubs alone.

No Docker engine is needed: the test runs the shell commands of the layer, up to the build.
"""

import json
import pathlib
import re
import shutil
import subprocess
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]


class Dependencies(unittest.TestCase):
    def test_cargo_reads_the_workspace_with_stubs_only(self):
        text = (ROOT / "deploy/Dockerfile").read_text().replace("\\\n", "")
        stubs = re.search(r"^RUN (mkdir -p src .*?)\s*&& cargo build", text, re.M)[1]
        with tempfile.TemporaryDirectory() as folder:
            folder = pathlib.Path(folder)
            for name in ("Cargo.toml", "Cargo.lock"):
                shutil.copy(ROOT / name, folder)
            shutil.copytree(
                ROOT / "crates", folder / "crates", ignore=shutil.ignore_patterns("target")
            )
            for source, target in re.findall(r"^COPY ((?:tests|benches)/\S+) (\S+/)$", text, re.M):
                (folder / target).mkdir(parents=True)
                shutil.copy(ROOT / source, folder / target)
            subprocess.run(["bash", "-eo", "pipefail", "-c", stubs], cwd=folder, check=True)
            result = subprocess.run(
                [
                    "cargo",
                    "metadata",
                    "--no-deps",
                    "--offline",
                    "--locked",
                    "--format-version",
                    "1",
                ],
                cwd=folder,
                capture_output=True,
                text=True,
            )
            self.assertEqual(result.returncode, 0, result.stderr)
            packages = {
                package["name"]: package for package in json.loads(result.stdout)["packages"]
            }
            self.assertIn(["bin"], [target["kind"] for target in packages["hubbub"]["targets"]])

    def test_dockerignore_admits_exactly_the_copied_paths(self):
        text = (ROOT / "deploy/Dockerfile").read_text()
        copied = {
            name
            for line in re.findall(r"^COPY (?!--)(.*) \S+$", text, re.M)
            for name in line.split()
        }
        admitted = {
            line[1:]
            for line in (ROOT / ".dockerignore").read_text().splitlines()
            if line.startswith("!")
        }
        self.assertEqual(copied, admitted)

    def test_the_binary_embeds_only_files_that_are_copied(self):
        # include_str! and include_bytes! of a path that the build doesn't have would fail only when the
        # image is built.
        for file in (ROOT / "src").rglob("*.rs"):
            for path in re.findall(r'include_(?:str|bytes)!\(\s*"([^"]+)"', file.read_text()):
                target = (file.parent / path).resolve()
                self.assertTrue(
                    target.is_relative_to(ROOT / "src"), f"{file.relative_to(ROOT)} includes {path}"
                )
            # The migrations, whose paths are put together by concat!.
            for path in re.findall(r'include_str!\(concat!\(\s*"([^"]+)"', file.read_text()):
                target = (file.parent / path).resolve()
                self.assertTrue(
                    target.is_relative_to(ROOT / "src")
                    or target.is_relative_to(ROOT / "migrations"),
                    f"{file.relative_to(ROOT)} includes {path}",
                )


if __name__ == "__main__":
    unittest.main()
