"""What a release is made of has one version, and its packages have their licence."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

from gre_bridge import __version__

ROOT = Path(__file__).parents[2]
CLIENT = ROOT / "client"
PINNED = re.compile(
    r"(?:gre-bridge:|gre-bridge-client-|gre-bridge-migrate-|newTag: |ARG VERSION=|\"version\": \")(\d+\.\d+\.\d+)\b"
)
"""A version of the release in a manifest, a guide or a document: of an image, a tarball, a job."""


def test_every_file_that_names_the_version_names_the_same_one() -> None:
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] == __version__
    lock = json.loads((CLIENT / "package-lock.json").read_text())
    package = json.loads((CLIENT / "package.json").read_text())
    assert {package["version"], lock["version"], lock["packages"][""]["version"]} == {__version__}
    found = {
        path.relative_to(ROOT).as_posix(): set(PINNED.findall(path.read_text()))
        for folder in ("deploy", "docs")
        for path in (ROOT / folder).rglob("*")
        if path.suffix in {".yaml", ".md", ".json"} or path.name == "Dockerfile"
    }
    naming = {path: versions for path, versions in found.items() if versions}
    assert naming == {path: {__version__} for path in naming}
    assert naming.keys() >= {
        "deploy/Dockerfile", "deploy/compose.yaml", "deploy/kubernetes/base/api.yaml", "deploy/kubernetes/example/kustomization.yaml",
        "deploy/kubernetes/migrate/job.yaml", "docs/client.md", "docs/openapi.json", "docs/operations.md",
    }  # fmt: skip
    changes = (ROOT / "CHANGELOG.md").read_text()
    named = re.compile(
        rf"^(Becomes {re.escape(__version__)}\b|## \[{re.escape(__version__)}\] - 20\d\d-\d\d-\d\d$)",
        re.MULTILINE,
    )
    assert named.search(changes), "the changelog has no part for this version"


def test_the_clients_package_has_the_licence_and_a_page_that_names_each_entry() -> None:
    assert (CLIENT / "LICENSE").read_text() == (ROOT / "LICENSE").read_text()
    package = json.loads((CLIENT / "package.json").read_text())
    for page in (CLIENT / "README.md", ROOT / "docs" / "client.md"):
        named = set(re.findall(r"^\| `(@gre-bridge/client\S*)` \|", page.read_text(), re.MULTILINE))
        assert named == {package["name"] + entry.removeprefix(".") for entry in package["exports"]}
