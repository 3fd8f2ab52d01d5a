"""Tests `scripts/deploy.sh compose` with a fake docker: nodes are replaced one after another, and the
number of nodes is what was asked for.

The fake keeps the containers of the service hubbub in a file, and records the number of running nodes
after each change.
"""

import json
import os
import pathlib
import subprocess
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
FAKE_DOCKER = """#!/usr/bin/env python3
import json, os, pathlib, re, sys
state_file = pathlib.Path(os.environ["FAKE_STATE"])
state = json.loads(state_file.read_text())
nodes, arguments = state["nodes"], sys.argv[1:]
match arguments:
    case ["compose", "config", "--hash", "hubbub"]:
        print("hubbub", state["settings"])
    case ["compose", "ps", "--quiet", "hubbub"]:
        print("\\n".join(nodes), end="\\n" if nodes else "")
    case ["image", "inspect", *_]:
        print(state["image"])
    case ["inspect", "--format", _, container]:
        print(*nodes[container])
    case ["stop", container]:
        del nodes[container]
        state["counts"].append(len(nodes))
    case ["compose", "up", *options, "hubbub"]:
        assert "--no-recreate" in options and "--wait" in options, options
        number = int(next(o for o in options if o.startswith("hubbub=")).split("=")[1])
        assert number >= len(nodes), "compose would stop nodes by itself"
        while len(nodes) < number:
            state["made"] += 1
            nodes[f"container-{state['made']}"] = [state["settings"], state["image"]]
            state["counts"].append(len(nodes))
    case ["compose", "up", *_, service]:
        state["updated"].append(service)
    case ["compose", "build", _] | ["compose", "version"] | ["compose", "config", "--quiet"] | ["info"] | ["rm", _]:
        pass
    case _:
        sys.exit(f"fake docker: {arguments}")
state_file.write_text(json.dumps(state))
"""


class DeployCompose(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        docker = self.folder / "docker"
        docker.write_text(FAKE_DOCKER)
        docker.chmod(0o755)
        self.state_file = self.folder / "state.json"
        start = {
            "settings": "s1",
            "image": "i1",
            "nodes": {},
            "made": 0,
            "counts": [],
            "updated": [],
        }
        self.state_file.write_text(json.dumps(start))

    def change(self, **changes):
        state = json.loads(self.state_file.read_text())
        self.state_file.write_text(json.dumps(state | changes))

    def deploy(self, *arguments, **variables):
        """Runs the script and returns the state after it."""
        self.change(counts=[], updated=[])
        path = f"{self.folder}:{os.environ['PATH']}"
        result = subprocess.run(
            [ROOT / "scripts/deploy.sh", "compose", *arguments],
            env={"PATH": path, "FAKE_STATE": str(self.state_file), **variables},
            capture_output=True,
            text=True,
        )
        self.assertEqual(result.returncode, 0, result.stderr)
        return json.loads(self.state_file.read_text())

    def test_nodes_are_replaced_one_by_one_and_only_when_something_changed(self):
        state = self.deploy()
        self.assertEqual(state["counts"], [1, 2, 3])
        self.assertEqual(state["updated"], ["redis", "nginx"])
        for change in ({"settings": "s2"}, {"image": "i2"}):
            before = set(state["nodes"])
            self.change(**change)
            state = self.deploy()
            # A new node first, then an old one stops: three times.
            self.assertEqual(state["counts"], [4, 3, 4, 3, 4, 3])
            self.assertFalse(before & set(state["nodes"]))
        self.assertEqual(self.deploy()["counts"], [])

    def test_the_number_of_nodes_is_an_option_or_a_variable(self):
        self.assertEqual(self.deploy("--nodes", "5")["counts"][-1], 5)
        self.assertEqual(self.deploy(HUBBUB_NODES="2")["counts"], [4, 3, 2])
        self.assertEqual(len(self.deploy(HUBBUB_NODES="4")["nodes"]), 4)

    def test_no_redis_is_started_when_an_external_one_is_used(self):
        self.assertEqual(self.deploy(HUBBUB_REDIS="0")["updated"], ["nginx"])


if __name__ == "__main__":
    unittest.main()
