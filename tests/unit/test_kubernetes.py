"""The manifests in deploy/kubernetes: valid, complete, and in agreement with the program."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
from typer.main import get_command

from gre_bridge.cli.app import app
from gre_bridge.config.settings import Settings, known_names, load_db_url, load_settings, secret_names
from gre_bridge.daemon.relay_process import RELEASE_TIMEOUT
from gre_bridge.daemon.run import STOP_MARGIN
from gre_bridge.media.decoding import Limits
from tests.support.kustomize import Object, build, containers, documents, kustomization, pod_template, selects

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "kubernetes"
FOLDERS = ("base", "example", "migrate")
DOCKERFILE = (ROOT / "deploy" / "Dockerfile").read_text()
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
ALL = [*build(FOLDER / "example"), *build(FOLDER / "migrate")]
PODS = {one["metadata"]["name"]: one for one in ALL if pod_template(one)}
RELAY, API, PRUNE = (f"gre-bridge-{part}" for part in ("relay", "api", "prune"))
MIGRATE = f"gre-bridge-migrate-{VERSION}"
SECRETS = {
    "supabase_service_key": "sb_secret_0123456789",
    "supabase_anon_key": "sb_publishable_0123456789",
    "pusher_secret": "fedcba98765432100123",
    "onesignal_api_key": "os_v2_app_0123456789",
    "metrics_token": "0123456789abcdef0123456789abcdef",
    "supabase_db_url": "postgresql://postgres:secret@db.example.com:5432/postgres",
}


def named(kind: str, name: str) -> Object:
    [found] = [one for one in ALL if one["kind"] == kind and one["metadata"]["name"] == name]
    return found


def container(name: str) -> Object:
    [found] = containers(PODS[name])
    return found


def pod(name: str) -> Object:
    template = pod_template(PODS[name])
    assert template
    return template


def of(kind: str) -> list[Object]:
    return [one for one in ALL if one["kind"] == kind]


# The files ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["1.28", "1.37"])
@pytest.mark.parametrize("one", ALL, ids=lambda one: f"{one['kind']}-{one['metadata']['name']}")
def test_every_object_is_valid_but_those_that_kubernetes_does_not_define(one: Object, version: str) -> None:
    if one["kind"] == "PodMonitor":
        assert one["apiVersion"] == "monitoring.coreos.com/v1"
        assert one["spec"].keys() == {"selector", "podMetricsEndpoints"}
        return
    assert kubernetes_validate.validate(one, version, strict=True) == version


def test_a_misspelt_field_is_found() -> None:
    wrong = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"}, "spec": {"selectors": {}}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, "1.28", strict=True)


@pytest.mark.parametrize("name", FOLDERS)
def test_every_file_is_part_of_its_kustomization(name: str) -> None:
    told = kustomization(FOLDER / name)
    used = {*told["resources"], *(env for one in told.get("configMapGenerator", []) for env in one["envs"])}
    files = {path.name for path in (FOLDER / name).iterdir()}
    assert files == {one for one in used if "/" not in one} | {"kustomization.yaml"}
    assert {one for one in used if "/" in one} == ({"../base"} if name == "example" else set())


def test_names_are_unique_and_all_objects_are_in_the_namespace() -> None:
    names = [(one["kind"], one["metadata"]["name"]) for one in ALL]
    assert len(names) == len(set(names))
    [namespace] = of("Namespace")
    home = namespace["metadata"]["name"]
    assert {one["metadata"].get("namespace") for one in ALL if one is not namespace} == {home}
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


def test_the_image_is_that_of_the_release() -> None:
    for folder in ("base", "migrate"):
        for path in (FOLDER / folder).glob("*.yaml"):
            for one in documents(path):
                assert {c["image"] for c in containers(one)} <= {f"gre-bridge:{VERSION}"}
    assert {c["image"] for one in PODS.values() for c in containers(one)} == {f"images.example.com/gre-bridge:{VERSION}"}  # fmt: skip
    assert PODS.keys() == {RELAY, API, PRUNE, MIGRATE}


# Settings and secrets -----------------------------------------------------------------------------------------------


def environment(name: str, secrets: Path) -> dict[str, str]:
    """What a container's variables would be, with its mounted secrets in a folder."""
    spec, one, found = pod(name)["spec"], container(name), {}
    for source in one.get("envFrom", []):
        assert source.keys() == {"configMapRef"}
        found |= named("ConfigMap", source["configMapRef"]["name"])["data"]
    mounts = {mount["mountPath"]: mount["name"] for mount in one["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    for variable in one["env"]:
        assert variable.keys() == {"name", "value"}, "no value of a secret is in the environment"
        folder, _, file = variable["value"].rpartition("/")
        [item] = [i for i in volumes[mounts[folder]]["secret"]["items"] if i["path"] == file]
        (secrets / file).write_text(SECRETS[item["key"]])
        found[variable["name"]] = str(secrets / file)
    return found


@pytest.fixture
def clean(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in known_names():
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


@pytest.mark.parametrize("name", [RELAY, API, PRUNE])
def test_the_settings_of_each_pod_are_complete(name: str, tmp_path: Path, clean: pytest.MonkeyPatch) -> None:
    given = environment(name, tmp_path)
    assert given.keys() <= known_names()
    for variable, value in given.items():
        clean.setenv(variable, value)
    settings = load_settings()
    assert settings.has_pusher is (name in {RELAY, API}) and settings.has_onesignal is (name == RELAY)
    assert settings.anon_key and settings.supabase_db_url is None
    assert (settings.metrics_token is None) is (name == PRUNE)
    grace = pod(name)["spec"]["terminationGracePeriodSeconds"]
    assert grace > settings.drain_seconds + RELEASE_TIMEOUT + STOP_MARGIN
    assert 0 < settings.shutdown_delay < settings.drain_seconds


def test_migrate_alone_has_the_address_of_the_database(tmp_path: Path, clean: pytest.MonkeyPatch) -> None:
    given = environment(MIGRATE, tmp_path)
    assert given.keys() == {"SUPABASE_DB_URL_FILE"}
    clean.setenv("SUPABASE_DB_URL_FILE", given["SUPABASE_DB_URL_FILE"])
    assert load_db_url() == SECRETS["supabase_db_url"]


def test_no_secret_is_in_a_file() -> None:
    names = {name for group in secret_names() for name in group}
    assert not of("Secret")
    for one in of("ConfigMap"):
        assert not one["data"].keys() & names


def test_secrets_are_files_that_only_the_daemons_group_reads() -> None:
    for name in PODS:
        for volume in pod(name)["spec"]["volumes"]:
            if "secret" in volume:
                assert volume["secret"]["defaultMode"] == 0o440
                wanted = "gre-bridge-database" if name == MIGRATE else "gre-bridge"
                assert volume["secret"]["secretName"] == wanted
                keys = {item["key"] for item in volume["secret"]["items"]}
                assert {variable["name"].removeprefix("GRE_").removesuffix("_FILE").lower() for variable in container(name)["env"]} == keys  # fmt: skip


# Processes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PODS)
def test_the_command_of_each_container_exists(name: str) -> None:
    words: list[str] = container(name)["args"]
    assert "command" not in container(name), "the entry point is the image's"
    command: Any = get_command(app).commands[words[0]]  # type: ignore[attr-defined]
    options = {opt for parameter in command.params for opt in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= options


def test_relay_and_api_run_apart_with_probes_and_ports_of_the_program() -> None:
    said = dict(re.findall(r"\b(GRE_(?:HTTP|ADMIN)_PORT)=(\d+)", DOCKERFILE))
    ports = {"http": int(said["GRE_HTTP_PORT"]), "admin": int(said["GRE_ADMIN_PORT"])}
    source = (ROOT / "gre_bridge" / "daemon" / "admin_server.py").read_text()
    paths = {"admin": set(re.findall(r'Route\("(/\w+)"', source)), "http": {"/healthz"}}
    assert '@router.get("/healthz"' in (ROOT / "gre_bridge" / "api" / "rest" / "health.py").read_text()
    for name, args, opened in ((RELAY, ["run", "--no-api"], {"admin"}), (API, ["run", "--no-relay"], {"http", "admin"})):  # fmt: skip
        one = container(name)
        assert one["args"] == args
        assert {port["name"]: port["containerPort"] for port in one["ports"]} == {p: ports[p] for p in opened}
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            asked = one[probe]["httpGet"]
            assert asked["port"] in opened and asked["path"] in paths[asked["port"]]
            assert one[probe]["timeoutSeconds"] >= 5
    [service] = of("Service")
    assert [port["targetPort"] for port in service["spec"]["ports"]] == ["http"]
    [rule] = named("Ingress", API)["spec"]["rules"]
    [path] = rule["http"]["paths"]
    assert path["backend"]["service"] == {"name": service["metadata"]["name"], "port": {"name": service["spec"]["ports"][0]["name"]}}  # fmt: skip


def test_a_database_that_is_down_takes_no_api_out_and_restarts_nothing() -> None:
    asked = {(name, probe): container(name)[probe]["httpGet"]["path"] for name in (RELAY, API) for probe in ("startupProbe", "readinessProbe", "livenessProbe")}  # fmt: skip
    assert {key for key, path in asked.items() if path == "/readyz"} == {(RELAY, "readinessProbe"), (API, "startupProbe")}  # fmt: skip
    assert container(API)["readinessProbe"]["httpGet"]["port"] == "http"
    waits = container(API)["startupProbe"]
    assert waits["periodSeconds"] * waits["failureThreshold"] >= 3600
    for name in (RELAY, API):
        alive = container(name)["livenessProbe"]
        assert alive["periodSeconds"] * alive["failureThreshold"] >= 60


@pytest.mark.parametrize("name", [RELAY, API])
def test_an_update_and_a_drain_take_one_pod_at_a_time(name: str) -> None:
    spec = PODS[name]["spec"]
    assert spec["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
    labels = pod(name)["metadata"]["labels"]
    assert selects(spec["selector"], labels)
    budget = named("PodDisruptionBudget", name)["spec"]
    assert selects(budget["selector"], labels) and budget["maxUnavailable"] == 1
    assert budget["unhealthyPodEvictionPolicy"] == "AlwaysAllow"
    spread = pod(name)["spec"]["topologySpreadConstraints"]
    assert {one["topologyKey"] for one in spread} == {"kubernetes.io/hostname", "topology.kubernetes.io/zone"}
    assert all(selects(one["labelSelector"], labels) for one in spread)


def test_the_number_of_relays_follows_the_age_of_the_backlog() -> None:
    [scaler] = of("HorizontalPodAutoscaler")
    spec = scaler["spec"]
    assert spec["scaleTargetRef"] == {"apiVersion": "apps/v1", "kind": "Deployment", "name": RELAY}
    assert "replicas" not in PODS[RELAY]["spec"] and PODS[API]["spec"]["replicas"] == 2
    assert (spec["minReplicas"], spec["maxReplicas"]) == (2, 6)
    [metric] = spec["metrics"]
    [adapter] = documents(FOLDER / "prometheus-adapter.yaml")
    [rule] = adapter["externalRules"]
    assert metric["external"]["metric"]["name"] == rule["name"]["as"]
    assert rule["seriesQuery"] in rule["metricsQuery"]


@pytest.mark.parametrize("name", PODS)
def test_every_pod_is_confined(name: str) -> None:
    spec = pod(name)["spec"]
    [user] = re.findall(r"^USER (\d+):\1$", DOCKERFILE, re.MULTILINE)
    assert spec["securityContext"] == {
        "runAsNonRoot": True, "runAsUser": int(user), "runAsGroup": int(user), "fsGroup": int(user),
        "seccompProfile": {"type": "RuntimeDefault"},
    }  # fmt: skip
    assert spec["automountServiceAccountToken"] is False and spec["enableServiceLinks"] is False
    assert not spec.keys() & {"hostNetwork", "hostPID", "hostIPC", "serviceAccountName"}
    for one in containers(PODS[name]):
        assert one["securityContext"] == {
            "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
        }  # fmt: skip
        assert one["resources"].keys() == {"requests", "limits"} and "cpu" not in one["resources"]["limits"]
        writable = {mount["mountPath"] for mount in one["volumeMounts"] if not mount.get("readOnly")}
        assert writable == ({"/tmp"} if name in {RELAY, API} else set())
    for volume in spec["volumes"]:
        assert volume.keys() - {"name"} in ({"secret"}, {"emptyDir"})
        assert volume.get("emptyDir", {"sizeLimit": ""}).keys() == {"sizeLimit"}


def test_a_relay_has_memory_for_one_picture() -> None:
    limit = container(RELAY)["resources"]["limits"]["memory"]
    assert limit.endswith("Gi")
    pictures = Settings.model_fields["media_concurrency"].default * Limits().memory
    assert int(limit[:-2]) * 1024**3 > pictures + 128 * 1024**2


# Network and metrics ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PODS)
def test_every_pod_has_the_connections_that_it_needs_and_no_others(name: str) -> None:
    labels = pod(name)["metadata"]["labels"]
    found = [one["spec"] for one in of("NetworkPolicy") if selects(one["spec"]["podSelector"], labels)]
    denied = {kind for one in found for kind in one["policyTypes"]}
    assert denied == {"Ingress", "Egress"}
    incoming = [rule for one in found for rule in one.get("ingress", [])]
    assert {port["port"] for rule in incoming for port in rule["ports"]} == {
        port["name"] for port in container(name).get("ports", [])
    }
    sources = {port["port"]: source["namespaceSelector"]["matchLabels"] for rule in incoming for source in rule["from"] for port in rule["ports"]}  # fmt: skip
    known = {"admin": {"gre-bridge/scrapes": "true"}, "http": {"gre-bridge/ingress": "true"}}
    assert all(known[port] == source for port, source in sources.items())
    outgoing = [rule for one in found for rule in one.get("egress", [])]
    assert {port["port"] for rule in outgoing for port in rule["ports"]} == {
        53,
        5432 if name == MIGRATE else 443,
    }
    for rule in outgoing:
        if {port["port"] for port in rule["ports"]} != {53}:
            blocks = {to["ipBlock"]["cidr"]: to["ipBlock"]["except"] for to in rule["to"]}
            assert blocks.keys() == {"0.0.0.0/0", "::/0"}
            assert {"10.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16"} <= set(blocks["0.0.0.0/0"])  # fmt: skip


def test_prometheus_reads_both_in_the_jobs_that_the_alerts_name() -> None:
    alerts = (ROOT / "deploy" / "prometheus" / "alerts.yaml").read_text()
    for name, job in ((RELAY, "gre-bridge"), (API, "gre-bridge-api")):
        spec = named("PodMonitor", name)["spec"]
        assert selects(spec["selector"], pod(name)["metadata"]["labels"])
        [endpoint] = spec["podMetricsEndpoints"]
        assert (endpoint["port"], endpoint["path"]) == ("admin", "/metrics")
        assert endpoint["authorization"]["credentials"] == {"name": "gre-bridge", "key": "metrics_token"}
        assert [one["replacement"] for one in endpoint["relabelings"] if one["targetLabel"] == "job"] == [job]
        patterns = re.findall(r'\bjob(=~?)"([^"]+)"', alerts)
        assert any(re.fullmatch(text, job) if sign == "=~" else text == job for sign, text in patterns)
    # An API never relays, and counts as no worker that fails to.
    assert 'up{job="gre-bridge"} == 1 unless' in alerts
