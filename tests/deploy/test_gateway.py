"""Tests the component k8s/components/gateway: it is valid for the resource definitions of Gateway API,
and has the same public routes as the Ingress.

RENDERED is the folder with the manifests rendered by scripts/check-deploy.
GATEWAY_CRDS, if set, is the folder config/crd of the Go module sigs.k8s.io/gateway-api.
"""

import os
import pathlib
import unittest

import jsonschema
import yaml

GROUP = "gateway.networking.k8s.io"


def rendered(name):
    text = (pathlib.Path(os.environ["RENDERED"]) / f"{name}.yaml").read_text()
    return [document for document in yaml.safe_load_all(text) if document]


def one(documents, kind):
    (document,) = [document for document in documents if document["kind"] == kind]
    return document


def closed(schema):
    """The schema, with unknown fields as errors: the API server refuses them when kubectl applies."""
    if isinstance(schema, list):
        return [closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    result = {key: closed(part) for key, part in schema.items()}
    if isinstance(schema.get("properties"), dict) and schema.get("type") == "object":
        result.setdefault("additionalProperties", False)
    return result


class Gateway(unittest.TestCase):
    @unittest.skipUnless(os.environ.get("GATEWAY_CRDS"), "no resource definitions (GATEWAY_CRDS)")
    def test_the_manifests_fit_their_channel(self):
        for name, channel in (("gateway", "standard"), ("gateway-polling", "experimental")):
            folder = pathlib.Path(os.environ["GATEWAY_CRDS"]) / channel
            checked = set()
            for document in rendered(name):
                if not document["apiVersion"].startswith(GROUP):
                    continue
                plural = document["kind"].lower() + "s"
                definition = yaml.safe_load((folder / f"{GROUP}_{plural}.yaml").read_text())
                version = document["apiVersion"].split("/")[1]
                (schema,) = [
                    v["schema"]["openAPIV3Schema"]
                    for v in definition["spec"]["versions"]
                    if v["name"] == version
                ]
                # The schema says only "object" about metadata.
                jsonschema.validate(document, closed(schema))
                checked.add(document["kind"])
            self.assertEqual(checked, {"Gateway", "HTTPRoute"})

    def test_the_public_routes_are_those_of_the_ingress(self):
        (rule,) = one(rendered("base"), "Ingress")["spec"]["rules"]
        ingress = {(path["pathType"], path["path"]) for path in rule["http"]["paths"]}
        kinds = {"PathPrefix": "Prefix", "Exact": "Exact"}
        for name in ("gateway", "gateway-polling"):
            matches = [
                match["path"]
                for rule in one(rendered(name), "HTTPRoute")["spec"]["rules"]
                for match in rule["matches"]
            ]
            self.assertEqual({(kinds[path["type"]], path["value"]) for path in matches}, ingress)

    def test_it_replaces_the_ingress_and_lets_the_proxies_of_the_gateway_in(self):
        documents = rendered("gateway")
        self.assertFalse([document for document in documents if document["kind"] == "Ingress"])
        names = {d["metadata"]["name"] for d in documents if d["kind"] == "NetworkPolicy"}
        self.assertIn("hubbub-from-gateway", names)

    def test_polling_has_session_persistence_only_with_its_own_component(self):
        for name, expected in (("gateway", False), ("gateway-polling", True)):
            rule = one(rendered(name), "HTTPRoute")["spec"]["rules"][0]
            self.assertEqual("sessionPersistence" in rule, expected)


if __name__ == "__main__":
    unittest.main()
