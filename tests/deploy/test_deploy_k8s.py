"""Tests `scripts/deploy.sh k8s` with a fake kubectl: the Secret must have what the manifests need, and the
migration's outcome decides about the rest.

The fake prints manifests, answers from a file, and records its calls there.
"""

import json
import os
import pathlib
import shutil
import subprocess
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
FAKE_KUBECTL = """#!/usr/bin/env python3
import json, os, pathlib, sys
state_file = pathlib.Path(os.environ["FAKE_STATE"])
state = json.loads(state_file.read_text())
arguments = sys.argv[1:]
if arguments[0] == "--namespace":
    assert arguments[1] == "chat", arguments
    arguments = arguments[2:]
state["calls"].append(" ".join(arguments[:2]))
status = 0
match arguments:
    case ["kustomize", _]:
        print(state["manifests"])
    case ["get", "secret", "hubbub-secrets", "--output", _]:
        print("yes" if "DATABASE_URL" in state["secret"] else "", end="")
    case ["get", "secret", "hubbub-secrets"]:
        status = 0 if state["secret"] is not None else 1
    case ["get", "job", "hubbub-migrate", "--output", _]:
        # None: the cluster does not answer.
        conditions = state["conditions"].pop(0)
        status = 1 if conditions is None else 0
        print(conditions or "", end="")
    case ["version"] | ["get", "namespace", _] | ["delete", "job", *_] | ["apply", *_]:
        pass
    case ["rollout", "status", *_]:
        pass
    case _:
        sys.exit(f"fake kubectl: {arguments}")
state_file.write_text(json.dumps(state))
sys.exit(status)
"""
NODES = """kind: Deployment
metadata:
  name: hubbub
  namespace: chat
"""
MIGRATION = """---
kind: Job
metadata:
  name: hubbub-migrate
  namespace: chat
"""


class DeployK8s(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        # A copy, because the script makes files in the project.
        (self.folder / "scripts").mkdir()
        shutil.copy(ROOT / "scripts/deploy.sh", self.folder / "scripts")
        (self.folder / "overlay").mkdir()
        (self.folder / "overlay/kustomization.yaml").touch()
        programs = self.folder / "programs"
        programs.mkdir()
        (programs / "kubectl").write_text(FAKE_KUBECTL)
        (programs / "kubectl").chmod(0o755)
        # The pauses between two polls.
        (programs / "sleep").symlink_to("/bin/true")
        self.path = f"{programs}:{os.environ['PATH']}"
        self.state_file = self.folder / "state.json"

    def deploy(
        self, *arguments, manifests=NODES + MIGRATION, secret=("DATABASE_URL",), conditions=()
    ):
        """Runs the script. Returns its end and the calls of kubectl."""
        state = {
            "manifests": manifests,
            "secret": None if secret is None else list(secret),
            "conditions": list(conditions),
            "calls": [],
        }
        self.state_file.write_text(json.dumps(state))
        result = subprocess.run(
            [self.folder / "scripts/deploy.sh", "k8s", "--overlay", "overlay", *arguments],
            env={"PATH": self.path, "FAKE_STATE": str(self.state_file)},
            capture_output=True,
            text=True,
        )
        return result, json.loads(self.state_file.read_text())["calls"]

    def test_the_migration_ends_before_the_roll_out_is_awaited(self):
        result, calls = self.deploy(conditions=["", None, "", "SuccessCriteriaMet Complete "])
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertLess(calls.index("delete job"), calls.index("apply -f"))
        self.assertEqual(calls[-5:], ["get job"] * 4 + ["rollout status"])

    def test_a_failed_migration_ends_the_script_at_once(self):
        result, calls = self.deploy(conditions=["", "FailureTarget ", "FailureTarget Failed "])
        self.assertEqual(result.returncode, 1)
        self.assertIn("was not migrated", result.stderr)
        self.assertNotIn("rollout status", calls)

    def test_a_migration_that_does_not_end_in_time_ends_the_script(self):
        result, _ = self.deploy("--timeout", "1", conditions=[""] * 10_000)
        self.assertEqual(result.returncode, 1)
        self.assertIn("was not migrated", result.stderr)

    def test_a_secret_without_database_url_is_refused_before_anything_changes(self):
        result, calls = self.deploy(secret=("JWT_SECRET",))
        self.assertEqual(result.returncode, 1)
        self.assertIn("no DATABASE_URL", result.stderr)
        self.assertFalse({"delete job", "apply -f"} & set(calls), calls)

    def test_without_a_migration_no_database_url_is_needed(self):
        result, calls = self.deploy(manifests=NODES, secret=("JWT_SECRET",))
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertFalse({"delete job", "get job"} & set(calls), calls)

    def test_a_missing_secret_is_refused(self):
        result, calls = self.deploy(secret=None)
        self.assertEqual(result.returncode, 1)
        self.assertIn("there is no Secret hubbub-secrets", result.stderr)
        self.assertNotIn("apply -f", calls)


if __name__ == "__main__":
    unittest.main()
