"""Tests `scripts/deploy.sh compose` with a fake docker: nodes are replaced one after another, and the
number of nodes is the requested one.

The fake keeps the containers of the service hubbub in a file, and records the number of running nodes
after each change.
"""

import json
import os
import pathlib
import re
import shutil
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
    case ["inspect", "--format", format, container]:
        settings, image, variables = nodes[container]
        print(*variables, sep="\\n") if "Env" in format else print(settings, image)
    case ["stop", container]:
        del nodes[container]
        state["counts"].append(len(nodes))
    case ["compose", "up", *options, "hubbub"]:
        assert "--no-recreate" in options and "--wait" in options, options
        number = int(next(o for o in options if o.startswith("hubbub=")).split("=")[1])
        assert number >= len(nodes), "compose would stop nodes by itself"
        while len(nodes) < number:
            state["made"] += 1
            new = [state["settings"], state["image"], state["variables_of_new"]]
            nodes[f"container-{state['made']}"] = new
            state["counts"].append(len(nodes))
    case ["compose", "up", *_, service]:
        state["updated"].append(service)
    case ["compose", "config", "--quiet"]:
        state["variables"] = {k: v for k, v in os.environ.items() if k.startswith("HUBBUB_")}
    case ["compose", "build", _] | ["compose", "version"] | ["info"] | ["rm", _]:
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
        # A copy, because the script reads and writes files of the project.
        self.project = self.folder / "project"
        (self.project / "scripts").mkdir(parents=True)
        shutil.copy(ROOT / "scripts/deploy.sh", self.project / "scripts")
        shutil.copytree(ROOT / "deploy", self.project / "deploy")
        self.dot_env = self.project / ".env"
        self.dot_env.write_text("REDIS_PASSWORD=secret\n")
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
            "variables_of_new": [],
        }
        self.state_file.write_text(json.dumps(start))

    def change(self, **changes):
        state = json.loads(self.state_file.read_text())
        self.state_file.write_text(json.dumps(state | changes))

    def deploy(self, *arguments, **variables):
        """Runs the script and returns the state after it."""
        result = self.run_script(*arguments, **variables)
        self.assertEqual(result.returncode, 0, result.stderr)
        return json.loads(self.state_file.read_text())

    def run_script(self, *arguments, **variables):
        self.change(counts=[], updated=[])
        path = f"{self.folder}:{os.environ['PATH']}"
        return subprocess.run(
            [self.project / "scripts/deploy.sh", "compose", *arguments],
            env={"PATH": path, "FAKE_STATE": str(self.state_file), **variables},
            capture_output=True,
            text=True,
        )

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

    def test_postgres_is_started_if_the_nodes_use_it(self):
        own = "postgres://hubbub:secret@postgres/hubbub"
        for url, updated in (
            (own, ["redis", "postgres", "nginx"]),
            ("postgres://hubbub:secret@db.example.com/hubbub", ["redis", "nginx"]),
            ("none", ["redis", "nginx"]),
        ):
            self.dot_env.write_text(f"REDIS_PASSWORD=secret\nDATABASE_URL={url}\n")
            self.change(nodes={})
            state = self.deploy()
            self.assertEqual(state["updated"], updated, url)
            wanted = str(int("postgres" in updated))
            self.assertEqual(state["variables"]["HUBBUB_POSTGRES"], wanted)
            remembered = (self.project / "deploy/compose.env").read_text()
            self.assertIn(f"HUBBUB_POSTGRES={wanted}\n", remembered)
        self.change(nodes={})
        self.assertEqual(self.deploy(DATABASE_URL=own)["updated"], ["redis", "postgres", "nginx"])

    def test_a_database_is_added_or_removed_only_while_no_node_runs(self):
        url = "DATABASE_URL=mysql://hubbub:secret@db/hubbub"
        dsn = "MYSQL_DSN=hubbub:secret@tcp(db)/hubbub"
        none = "DATABASE_URL=none"
        for old, new, is_refused in (
            ([], [], False),
            ([], [none, dsn], False),
            (["DATABASE_URL="], [], False),
            ([none, dsn], [], False),
            ([url], [url + "2"], False),
            ([dsn], [url], False),
            ([], [url], True),
            ([none], [dsn], True),
            ([url], [], True),
            ([url], [none], True),
        ):
            with self.subTest(old=old, new=new):
                self.change(nodes={"old": ["s1", "i1", ["PATH=/bin", *old]]})
                self.dot_env.write_text("\n".join(["REDIS_PASSWORD=secret", *new]) + "\n")
                result = self.run_script("--nodes", "1")
                self.assertEqual(result.returncode, int(is_refused), result.stderr)
                self.assertEqual("while no node runs" in result.stderr, is_refused)
                if is_refused:
                    self.assertEqual(json.loads(self.state_file.read_text())["updated"], [])
                    # Once the nodes are stopped it works.
                    self.change(nodes={})
                    self.assertEqual(self.run_script("--nodes", "1").returncode, 0)

    def test_more_connections_than_postgres_accepts_are_a_warning(self):
        own = "postgres://hubbub:secret@postgres/hubbub"
        for nodes, url, pool, warns in (
            (8, own, None, False),
            (9, own, None, True),
            (14, own, "4", False),
            (15, own, "4", True),
            (10, "postgres://hubbub:secret@db.example.com/hubbub", None, False),
        ):
            lines = ["REDIS_PASSWORD=secret", f"DATABASE_URL={url}"]
            lines += [f"DATABASE_POOL={pool}"] if pool else []
            self.dot_env.write_text("\n".join(lines) + "\n")
            result = self.run_script("--nodes", str(nodes), "--dry-run")
            self.assertEqual(result.returncode, 0, result.stderr)
            self.assertEqual("DATABASE_POOL" in result.stderr, warns, (nodes, url, pool))

    def test_the_number_of_nodes_is_an_option_or_a_variable(self):
        self.assertEqual(self.deploy("--nodes", "5")["counts"][-1], 5)
        self.assertEqual(self.deploy(HUBBUB_NODES="2")["counts"], [4, 3, 2])
        self.assertEqual(len(self.deploy(HUBBUB_NODES="4")["nodes"]), 4)

    def test_more_nodes_than_addresses_are_refused(self):
        for number in ("126", "0", "x", "1000"):
            result = self.run_script(HUBBUB_NODES=number)
            self.assertEqual(result.returncode, 1, number)
            self.assertIn("between 1 and 125", result.stderr)
        self.assertEqual(self.run_script("--nodes", "126").returncode, 1)
        self.assertEqual(self.deploy("--nodes", "125", "--dry-run")["counts"], [])

    def test_no_redis_is_started_when_an_external_one_is_used(self):
        self.assertEqual(self.deploy(HUBBUB_REDIS="0")["updated"], ["nginx"])

    def test_the_password_of_redis_is_required_only_if_redis_is_started_here(self):
        self.dot_env.unlink()
        for variables in ({}, {"REDIS_PASSWORD": ""}):
            result = self.run_script(**variables)
            self.assertEqual(result.returncode, 1)
            self.assertIn("REDIS_PASSWORD is missing", result.stderr)
        self.assertEqual(self.deploy(REDIS_PASSWORD="x")["updated"], ["redis", "nginx"])
        external = {"HUBBUB_REDIS": "0", "REDIS_URL": "rediss://:x@redis.example.com"}
        self.assertEqual(self.deploy(**external)["updated"], ["nginx"])

    def test_the_variables_of_the_compose_file_are_remembered(self):
        given = {
            "HUBBUB_TLS": "1",
            "HUBBUB_NET": "10.9.8",
            "HUBBUB_IMAGE": "registry.example.com:5000/hubbub:0.1.0",
            "HUBBUB_REDIS": "0",
        }
        self.deploy("--port", "443", "--nodes", "2", **given)
        given |= {"HUBBUB_HTTP_PORT": "443", "HUBBUB_NODES": "2"}
        state = self.deploy()
        self.assertLessEqual(given.items(), state["variables"].items())
        self.assertEqual((len(state["nodes"]), state["updated"]), (2, ["nginx"]))
        # The file has all variables of docker-compose.yml, for docker compose --env-file.
        used = set(re.findall(r"\$\{(HUBBUB_\w+):", (ROOT / "docker-compose.yml").read_text()))
        lines = (self.project / "deploy/compose.env").read_text().splitlines()[1:]
        written = dict(line.split("=", 1) for line in lines)
        self.assertEqual(written, state["variables"])
        self.assertEqual(set(written), used)
        # The environment and the options take precedence, an empty variable restores the default.
        self.deploy("--nodes", "4", HUBBUB_TLS="", HUBBUB_NET="10.9.7", HUBBUB_REDIS="")
        state = self.deploy()
        self.assertNotIn("HUBBUB_TLS", state["variables"])
        self.assertEqual(state["variables"]["HUBBUB_NET"], "10.9.7")
        self.assertEqual(state["variables"]["HUBBUB_HTTP_PORT"], "443")
        self.assertEqual((len(state["nodes"]), state["updated"]), (4, ["redis", "nginx"]))

    def test_a_dry_run_and_a_refused_value_change_no_file(self):
        self.deploy("--nodes", "2")
        file = self.project / "deploy/compose.env"
        before = file.read_text()
        self.deploy("--dry-run", "--nodes", "5")
        self.assertEqual(self.run_script(HUBBUB_IMAGE="a b").returncode, 1)
        self.assertEqual(file.read_text(), before)


if __name__ == "__main__":
    unittest.main()
