"""The part of kustomize that deploy/kubernetes uses: resources, a namespace, ConfigMaps from env files, images."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import yaml

from gre_bridge.config.sources import read_env_file

Object = dict[str, Any]
KNOWN = {"apiVersion", "kind", "namespace", "resources", "configMapGenerator", "images"}


def documents(path: Path) -> list[Object]:
    """Return the objects of one file."""
    return [one for one in yaml.safe_load_all(path.read_text()) if one]


def kustomization(folder: Path) -> Object:
    """Return the kustomization of a folder, in which every field is one that `build` applies."""
    [found] = documents(folder / "kustomization.yaml")
    assert found["kind"] == "Kustomization" and found.keys() <= KNOWN
    return found


def build(folder: Path) -> list[Object]:
    """Return all objects of a folder, as `kubectl kustomize` prints them but for the hash in the names of ConfigMaps."""
    told = kustomization(folder)
    objects: list[Object] = []
    for name in told["resources"]:
        path = folder / name
        objects += build(path) if path.is_dir() else documents(path)
    for generator in told.get("configMapGenerator", []):
        data = {key: value for env in generator["envs"] for key, value in read_env_file(folder / env).items()}
        same = [
            one
            for one in objects
            if one["kind"] == "ConfigMap" and one["metadata"]["name"] == generator["name"]
        ]
        assert bool(same) is (generator.get("behavior") == "merge")
        if same:
            same[0]["data"] |= data
        else:
            objects.append({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": generator["name"]}, "data": data})  # fmt: skip
    for one in objects:
        if namespace := told.get("namespace"):
            if one["kind"] == "Namespace":
                assert one["metadata"]["name"] == namespace
            else:
                one["metadata"]["namespace"] = namespace
        for image in told.get("images", []):
            for container in containers(one):
                if container["image"].partition(":")[0] == image["name"]:
                    container["image"] = f"{image['newName']}:{image['newTag']}"
    return objects


def pod_template(one: Object) -> Object | None:
    """Return the pod template of a Deployment, a Job or a CronJob; None of another object."""
    spec = one.get("spec", {})
    if one["kind"] == "CronJob":
        spec = spec["jobTemplate"]["spec"]
    template: Object | None = (
        spec.get("template") if one["kind"] in {"Deployment", "Job", "CronJob"} else None
    )
    return template


def containers(one: Object) -> list[Object]:
    """Return the containers of an object's pods, those that start them included."""
    template = pod_template(one)
    return (
        []
        if template is None
        else [*template["spec"].get("initContainers", []), *template["spec"]["containers"]]
    )


def selects(selector: Object, labels: dict[str, str]) -> bool:
    """Return True if a label selector selects these labels."""
    assert selector.keys() <= {"matchLabels", "matchExpressions"}
    wanted = copy.copy(selector.get("matchLabels", {}))
    for expression in selector.get("matchExpressions", []):
        assert expression["operator"] == "In"
        if labels.get(expression["key"]) not in expression["values"]:
            return False
    return all(labels.get(key) == value for key, value in wanted.items())
