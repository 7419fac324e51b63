"""The files that are shipped for deployments: they fit their schemas, and what they name is there."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import kubernetes_validate
import pytest
import yaml
from compose_spec import PyCompose

from gateway.configuration import load
from gateway.settings import Settings
from gateway.workers.crew import STORES_SECONDS

CONFIG: Final = Path(__file__).parents[2] / "config"
CLUSTER: Final = CONFIG / "k8s"
KUBERNETES: Final = "1.34"
VARIABLES: Final = {
    "OSTIARY_POSTGRES_DSN": "postgresql://ostiary@postgres/ostiary",
    "OSTIARY_REDIS_URL": "redis://redis",
}
SHIPPED: Final = sorted(path for path in CONFIG.rglob("gateway.yaml"))


def documents(path: Path) -> list[dict[str, Any]]:
    return [document for document in yaml.safe_load_all(path.read_text()) if document is not None]


def manifests() -> Iterator[tuple[str, dict[str, Any]]]:
    for name in documents(CLUSTER / "kustomization.yaml")[0]["resources"]:
        for document in documents(CLUSTER / name):
            yield f"{name}: {document['kind']}", document


MANIFESTS: Final = dict(manifests())


def the_pod(kind: str) -> dict[str, Any]:
    spec: dict[str, Any] = next(one for one in MANIFESTS.values() if one["kind"] == kind)["spec"]["template"]["spec"]
    return spec


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: str(path.relative_to(CONFIG)))
def test_shipped_configurations_are_good(path: Path) -> None:
    """Every configuration that is shipped loads with the variables that its surroundings set."""
    assert isinstance(load(path, VARIABLES), Settings)


@pytest.mark.parametrize("name", MANIFESTS)
def test_manifests_fit_the_schemas_of_kubernetes(name: str) -> None:
    """Strictly: no name is one too many, either."""
    kubernetes_validate.validate(MANIFESTS[name], KUBERNETES, strict=True)


def test_a_manifest_with_a_slip_does_not_fit() -> None:
    """The schemas notice."""
    slipped = yaml.safe_load(yaml.safe_dump(MANIFESTS["deployment.yaml: Deployment"]))
    slipped["spec"]["template"]["spec"]["containers"][0]["readinesProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(slipped, KUBERNETES, strict=True)


def test_every_manifest_is_a_resource() -> None:
    """None is forgotten in kustomization.yaml."""
    kustomization = documents(CLUSTER / "kustomization.yaml")[0]
    files = [file for made in kustomization["configMapGenerator"] for file in made["files"]]
    named = {*kustomization["resources"], *files, "kustomization.yaml"}
    assert named == {path.name for path in CLUSTER.iterdir()}


@pytest.mark.parametrize("kind", ["Deployment", "Job"])
def test_pods_are_locked_down(kind: str) -> None:
    """No root, no capability, nothing to write to, no token for the cluster, and a bound on memory."""
    pod = the_pod(kind)
    container = pod["containers"][0]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["automountServiceAccountToken"] is False
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert container["resources"]["limits"]["memory"]


def test_nobody_is_killed_while_he_finishes() -> None:
    """What waits for the gateway to stop waits as long as that may take."""
    pod = the_pod("Deployment")
    assert pod["terminationGracePeriodSeconds"] >= stop_seconds(CLUSTER / "gateway.yaml")
    compose = documents(CONFIG / "compose.yaml")[0]
    grace = float(compose["services"]["gateway"]["stop_grace_period"].removesuffix("s"))
    assert grace >= stop_seconds(CONFIG / "compose" / "gateway.yaml")
    unit = (CONFIG / "systemd" / "ostiary.service").read_text()
    stop = re.search(r"^TimeoutStopSec=(\d+)$", unit, re.MULTILINE)
    assert stop is not None
    assert float(stop[1]) > stop_seconds(CONFIG / "gateway.yaml")


def stop_seconds(configuration: Path) -> float:
    """As long as it may take a gateway to stop, from SIGTERM on, several workers or not."""
    drain = load(configuration, VARIABLES).drain
    return drain.delay_seconds + 2 * drain.finish_seconds + STORES_SECONDS


def test_ports_are_those_of_the_configuration() -> None:
    """What is exposed, probed and let in is where the gateway listens."""
    for path in (CLUSTER / "gateway.yaml", CONFIG / "compose" / "gateway.yaml"):
        listen = load(path, VARIABLES).listen
        assert [str(place) for place in (listen.proxy, listen.admin, listen.status)] == [
            "0.0.0.0:8080",
            "0.0.0.0:8081",
            "0.0.0.0:8082",
        ]
    ports = {port["name"]: port["containerPort"] for port in the_pod("Deployment")["containers"][0]["ports"]}
    assert ports == {"proxy": 8080, "admin": 8081, "status": 8082}
    let_in = [rule["ports"][0]["port"] for rule in MANIFESTS["network-policy.yaml: NetworkPolicy"]["spec"]["ingress"]]
    assert let_in == list(ports.values())


def test_compose_fits_its_specification() -> None:
    """It reads as one, with no name too many; all that its services name is there, and so are files."""
    path = CONFIG / "compose.yaml"
    PyCompose.from_yaml(path.read_text()).validate()
    with pytest.raises(ValueError, match="portz"):
        PyCompose.from_yaml(path.read_text().replace("    ports:", "    portz:", 1))
    composition = documents(path)[0]
    services = composition["services"]
    mounted = {volume.split(":")[0] for service in services.values() for volume in service.get("volumes", ())}
    files = {name.removeprefix("./") for name in mounted if name.startswith("./")}
    assert {name for name in files if not (CONFIG / name).exists()} == set()
    assert {name for name in mounted if not name.startswith("./")} == set(composition["volumes"])
    for name in ("gateway", "migrate", "api"):
        assert services[name]["read_only"] is True
        assert services[name]["cap_drop"] == ["ALL"]


def test_the_image_runs_without_root_and_without_writing() -> None:
    """A user by number, so that `runAsNonRoot` can tell; no pip; a health check; the sources that setup.py needs."""
    dockerfile = (CONFIG.parent / "Dockerfile").read_text()
    last = dockerfile.rpartition("\nFROM ")[2]
    assert re.search(r"^USER \d+:\d+$", last, re.MULTILINE)
    assert "HEALTHCHECK" in last
    assert "--without-pip" in dockerfile
    let_in = {
        line.removeprefix("!") for line in (CONFIG.parent / ".dockerignore").read_text().splitlines() if "!" in line
    }
    copied = set(re.findall(r"pyproject\.toml|setup\.py|README\.md|gateway(?= gateway)", dockerfile))
    assert copied <= let_in


def test_the_unit_runs_what_is_installed() -> None:
    """Its commands are the gateway's, with the configuration that it names."""
    unit = (CONFIG / "systemd" / "ostiary.service").read_text()
    commands = re.findall(r"^Exec\w+=(.+)$", unit, re.MULTILINE)
    assert commands[0] == "/opt/ostiary/bin/ostiary check /etc/ostiary/gateway.yaml"
    assert commands[1].startswith("/opt/ostiary/bin/ostiary serve -c /etc/ostiary/gateway.yaml")
