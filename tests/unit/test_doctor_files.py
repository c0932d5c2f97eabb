"""The judgements of doctor about files: the bucket, the decoder, the scanner, and what waits."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from gre_bridge.config.settings import Settings
from gre_bridge.db.media import StorageState, Waiting
from gre_bridge.db.types import Json
from gre_bridge.doctor.probes.files import (
    MAX_AGE,
    MAX_DELETION_AGE,
    POLICIES,
    TRIGGERS,
    ask_scanner,
    judge_address,
    judge_bucket,
    judge_decoder,
    judge_objects,
    judge_project_limit,
    judge_state,
)
from gre_bridge.doctor.report import Status
from gre_bridge.storage.bucket import MAX_FILE_BYTES
from gre_bridge.storage.client import Bucket
from tests.support.loopback import closed_port, serving_bytes, silent_port

TYPES = (
    "image/jpeg",
    "image/webp",
    "image/png",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    "application/octet-stream",
)
GOOD = Bucket(public=False, file_size_limit=MAX_FILE_BYTES, types=TYPES)
STATE = StorageState(on=True, examinations=Waiting(3, 10, 1, "wall_clock"), deletions=Waiting(2, 10, 0))


@pytest.mark.parametrize(
    ("bucket", "status", "says"),
    [
        (GOOD, Status.OK, "private"),
        (replace(GOOD, public=True), Status.FAIL, "public"),
        (replace(GOOD, types=None), Status.FAIL, "takes *"),
        (replace(GOOD, types=(*TYPES, "image/svg+xml")), Status.FAIL, "svg"),
        (replace(GOOD, types=("TEXT/HTML",)), Status.FAIL, "TEXT/HTML"),
        (replace(GOOD, types=("application/xml",)), Status.FAIL, "xml"),
        (replace(GOOD, types=("text/xsl",)), Status.FAIL, "xsl"),
        (replace(GOOD, types=("text/html; charset=utf-8",)), Status.FAIL, "text/html"),
        (replace(GOOD, types=("image/*",)), Status.FAIL, "image/*"),
        (replace(GOOD, types=TYPES[1:]), Status.FAIL, "not take image/jpeg"),
        (replace(GOOD, types=("IMAGE/JPEG", *TYPES[2:])), Status.FAIL, "not take image/webp"),
        (replace(GOOD, file_size_limit=None), Status.WARN, "None bytes"),
        (replace(GOOD, file_size_limit=5), Status.WARN, "5 bytes"),
    ],
)  # fmt: skip
def test_the_bucket_is_private_and_takes_nothing_that_runs(bucket: Bucket, status: Status, says: str) -> None:
    finding = judge_bucket(bucket)
    assert (finding.status, says in finding.found, bool(finding.fix)) == (
        status,
        True,
        status is not Status.OK,
    )


@pytest.mark.parametrize(
    ("url", "public", "origins", "status"),
    [
        ("https://p.supabase.co", "", "https://portal.example", Status.OK),
        ("http://kong:8000", "", "", Status.WARN),
        ("http://kong.internal:8000", "", "", Status.WARN),
        ("http://kong:8000", "https://files.example", "https://portal.example", Status.OK),
        ("http://localhost:54321", "", "http://localhost:*", Status.OK),
        ("http://localhost:54321", "", "http://localhost:*,https://portal.example", Status.WARN),
        ("http://192.168.0.9:8000", "", "http://192.168.0.9:3000", Status.OK),
        ("http://192.168.0.9:8000", "", "https://portal.example", Status.WARN),
        ("http://[fd00::9]:8000", "", "", Status.OK),
    ],
)
def test_an_address_that_browsers_cannot_reach_is_a_warning(
    url: str, public: str, origins: str, status: Status
) -> None:
    values = {
        "SUPABASE_URL": url,
        "SUPABASE_SERVICE_KEY": "k",
        "GRE_SUPABASE_PUBLIC_URL": public,
        "GRE_CORS_ORIGINS": origins,
    }
    settings = Settings(_env_file=None, **values)  # type: ignore[arg-type]
    finding = judge_address(settings)
    assert (finding.status, "GRE_SUPABASE_PUBLIC_URL" in (finding.fix or "")) == (
        status,
        status is Status.WARN,
    )


OBJECTS: Json = {"rls": True, "policies": list(POLICIES), "triggers": list(TRIGGERS), "own": []}


@pytest.mark.parametrize(
    ("rules", "named"),
    [
        (["true", None], True),
        ([None, "(auth.role() = 'authenticated'::text)"], True),
        (["(bucket_id = 'gre-chat'::text)", None], True),
        (["(bucket_id = ANY (ARRAY['avatars'::text, 'gre-chat'::text]))", None], True),
        (["(bucket_id = 'avatars'::text)", "true"], True),
        (["(bucket_id IN ( SELECT b.id FROM buckets b))", None], True),
        (["(bucket_id = 'avatars'::text)", None], False),
        (["(bucket_id = ANY (ARRAY['avatars'::text, 'films'::text]))", "(bucket_id = 'films'::text)"], False),
    ],
)
def test_policies_of_the_project_that_would_open_the_bucket_are_named_and_no_problem(
    rules: list[str | None], named: bool
) -> None:
    finding = judge_objects({**OBJECTS, "own": [{"name": "Everybody may", "rules": rules}]})
    assert (finding.status, "Everybody may" in finding.found, finding.fix) == (Status.OK, named, "")


def test_a_few_of_many_policies_are_named() -> None:
    own = [{"name": f"p{n}", "rules": ["true", None]} for n in range(8)]
    found = judge_objects({**OBJECTS, "own": own}).found
    assert "p0, p1, p2, p3, p4 and 3 more" in found
    assert judge_objects(OBJECTS).found == "policies and triggers are there"


@pytest.mark.parametrize(
    ("lacking", "says"),
    [
        ({"policies": list(POLICIES[1:])}, POLICIES[0]),
        ({"triggers": list(TRIGGERS[1:])}, TRIGGERS[0]),
        ({"rls": False}, "row-level security"),
    ],
)
def test_what_is_missing_on_the_objects_is_a_failure_whatever_the_project_allows(
    lacking: Json, says: str
) -> None:
    own = [{"name": "Everybody may", "rules": ["true", None]}]
    finding = judge_objects({**OBJECTS, "own": own, **lacking})
    assert (finding.status, says in finding.found) == (Status.FAIL, True)


def test_a_lower_limit_of_the_project_is_a_warning() -> None:
    assert judge_project_limit().status is Status.WARN
    assert "25 MB" in judge_project_limit().found


@pytest.mark.parametrize(
    ("media", "pillow", "heif", "status"),
    [
        ("auto", True, True, Status.OK), ("auto", True, False, Status.WARN), ("auto", False, False, Status.WARN),
        ("off", False, False, Status.OK),
    ],
)  # fmt: skip
def test_a_decoder_that_is_not_installed_is_a_warning(
    media: str, pillow: bool, heif: bool, status: Status
) -> None:
    values = {"SUPABASE_URL": "http://localhost", "SUPABASE_SERVICE_KEY": "k", "GRE_MEDIA": media}
    settings = Settings(_env_file=None, **values)  # type: ignore[arg-type]
    assert judge_decoder(settings, pillow=pillow, heif=heif).status is status


@pytest.mark.parametrize(
    ("state", "status"),
    [
        (STATE, (Status.OK, Status.OK)),
        (replace(STATE, examinations=Waiting(0, 0, 0), deletions=Waiting(0, 0, 0)), (Status.OK, Status.OK)),
        (replace(STATE, examinations=Waiting(3, MAX_AGE + 1, 1, "killed")), (Status.WARN, Status.OK)),
        (replace(STATE, deletions=Waiting(3, MAX_DELETION_AGE + 1, 0)), (Status.OK, Status.WARN)),
    ],
)  # fmt: skip
def test_what_waits_for_long_is_a_warning(state: StorageState, status: tuple[Status, Status]) -> None:
    findings = judge_state(state)
    assert tuple(finding.status for finding in findings) == status
    for finding, waiting in zip(findings, (state.examinations, state.deletions), strict=True):
        assert waiting.error is None or waiting.error in finding.found


async def test_the_scanner_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    async def clamd(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"PONG\0" if await reader.readuntil(b"\0") == b"zPING\0" else b"?\0")

    async def other(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\0")
        writer.write(b"HTTP/1.1 400\0")

    async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\0")

    for serve, status in ((clamd, Status.OK), (other, Status.FAIL), (mute, Status.FAIL)):
        async with serving_bytes(serve) as port:
            assert (await ask_scanner(f"tcp://127.0.0.1:{port}")).status is status
    with closed_port() as port:
        assert (await ask_scanner(f"tcp://127.0.0.1:{port}")).status is Status.FAIL
    monkeypatch.setattr("gre_bridge.doctor.probes.files.SCANNER_SECONDS", 0.1)
    with silent_port() as port:
        assert (await ask_scanner(f"tcp://127.0.0.1:{port}")).status is Status.FAIL
    assert (await ask_scanner("unix:/nowhere/clamd.ctl")).status is Status.FAIL
