"""The embedded Storage: uploads in parts (TUS), and the faults that it has on demand."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from tests.conformance.storage_lab import IMAGE, PNG, Lab, error, raiser
from tests.support.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="module")

TUS = {"tus-resumable": "1.0.0"}
PART = {**TUS, "content-type": "application/offset+octet-stream"}


def described(name: str = "29/t.png", **more: str) -> str:
    pairs = {"bucketName": "conf", "objectName": name, "contentType": "image/png", **more}
    return ",".join(f"{key} {base64.b64encode(value.encode()).decode()}" for key, value in pairs.items())


async def begin(
    lab: Lab, length: int | None = 70, token: str | None = None, **options: Any
) -> httpx.Response:
    told = {"upload-defer-length": "1"} if length is None else {"upload-length": str(length)}
    headers = {**TUS, **told, "upload-metadata": options.pop("metadata", None) or described()}
    path = options.pop("path", "/upload/resumable")
    return await lab.ask(
        "POST", path, token or lab.player(29), headers={**headers, **options.pop("headers", {})}, **options
    )


async def part(
    lab: Lab, location: str, data: bytes, offset: int, token: str | None = None, **headers: str
) -> httpx.Response:
    told = {**PART, "upload-offset": str(offset), **{k.replace("_", "-"): v for k, v in headers.items()}}
    return await lab.ask("PATCH", location, token or lab.player(29), content=data, headers=told)


async def test_an_upload_in_parts(conf: Lab) -> None:
    begun = await begin(conf, metadata=described(cacheControl="60", metadata='{"a":1}'))
    location = begun.headers["location"]
    assert begun.status_code == 201
    assert location.startswith(f"{conf.stack.url}/storage/v1/upload/resumable/")
    key = base64.urlsafe_b64decode(location.rpartition("/")[2] + "==").decode()
    assert key.startswith("conf/29/t.png/")
    first = await part(conf, location, PNG[:30], 0)
    assert (first.status_code, first.headers["upload-offset"]) == (204, "30")
    assert await conf.row("29/t.png") is None
    conflict = await part(conf, location, PNG[30:], 10)
    assert (conflict.status_code, conflict.headers["content-type"].partition(";")[0]) == (409, "text/plain")
    # Any valid token reads the upload's state.
    asked = await conf.ask("HEAD", location, conf.player(30), headers=TUS)
    assert (asked.headers["upload-offset"], asked.headers["upload-length"]) == ("30", "70")
    assert "objectName" in asked.headers["upload-metadata"]
    last = await part(conf, location, PNG[30:], 30)
    assert (last.status_code, last.headers["tus-complete"]) == (204, "1")
    info = (await conf.ask("GET", "/object/info/conf/29/t.png", conf.player(29))).json()
    assert (info["metadata"], info["cache_control"], info["size"]) == ({"a": 1}, "max-age=60", 70)
    assert info["etag"] == '"f829b914fc47cfc9c0747c119c27cf1b"'
    assert (await conf.ask("GET", "/object/conf/29/t.png", conf.player(29))).content == PNG
    await conf.ask("DELETE", "/object/conf/29/t.png", conf.token())
    assert [name.endswith(".json") for name in conf.files()] == [True]


async def test_an_upload_whose_first_bytes_come_with_its_creation(conf: Lab) -> None:
    begun = await begin(conf, None, content=PNG[:30], headers=PART, metadata=described("29/d.png"))
    assert (begun.status_code, begun.headers["upload-offset"]) == (201, "30")
    location = begun.headers["location"]
    assert (await conf.ask("HEAD", location, conf.player(29), headers=TUS)).headers[
        "upload-defer-length"
    ] == "1"
    last = await part(conf, location, PNG[30:], 30, upload_length="70")
    assert last.headers["tus-complete"] == "1"
    assert (await conf.ask("GET", "/object/conf/29/d.png", conf.player(29))).content == PNG


async def test_the_last_part_may_come_twice(conf: Lab) -> None:
    service = conf.token()
    begun = await begin(conf, token=service, headers={"x-upsert": "true"})
    for data, offset in ((PNG, 0), (b"", 70)):
        assert (await part(conf, begun.headers["location"], data, offset, token=service)).status_code == 204
    assert (await conf.ask("GET", "/object/conf/29/t.png", conf.player(29))).content == PNG


async def test_an_upload_that_is_given_up(conf: Lab) -> None:
    location = (await begin(conf, metadata=described("29/e.png"))).headers["location"]
    await part(conf, location, PNG[:30], 0)
    before = conf.files()
    assert (await conf.ask("DELETE", location, conf.player(29), headers=TUS)).status_code == 204
    assert len(conf.files()) == len(before) - 2
    gone = await conf.ask("HEAD", location, conf.player(29), headers=TUS)
    assert gone.status_code == 404
    for nonsense in ("x", "Li4vLi4vLi4", base64.urlsafe_b64encode(b"conf/../x/../y").decode()):
        asked = await conf.ask("HEAD", f"/upload/resumable/{nonsense}", conf.player(29), headers=TUS)
        assert asked.status_code == 404


async def test_refusals_of_uploads_in_parts_have_their_true_status(conf: Lab) -> None:
    async def refused(**options: Any) -> tuple[int, str]:
        answer = await begin(conf, **options)
        return answer.status_code, answer.text

    rls = "new row violates row-level security policy"
    await conf.upload("29/there.png")
    assert await refused(metadata=described("30/t.png")) == (403, rls)
    assert (await refused(metadata=described("29/there.png")))[0] == 409
    assert await refused(length=200_001) == (413, "Maximum size exceeded")
    assert (await refused(metadata=described(contentType="text/html")))[0] == 415
    assert await refused(metadata=described(bucketName="none")) == (404, "Bucket not found")
    bad = await begin(conf, token="x.y")
    assert error(bad) == (400, "403", "AccessDenied", "Invalid Compact JWS")
    # Both limits hold without a length, too.
    location = (await begin(conf, None)).headers["location"]
    assert (await part(conf, location, b"x" * 200_001, 0)).status_code == 413
    location = (await begin(conf, metadata=described("29/rls.png"))).headers["location"]
    assert (await part(conf, location, PNG, 0, token=conf.player(30))).status_code == 403
    await conf.sql(raiser("new.version = '1'", "raise 'now' using errcode = '42501';"))
    later = await part(conf, location, PNG, 0)
    assert (later.status_code, later.text) == (403, "now")
    await conf.sql(raiser("new.version <> '1'", "raise 'late' using errcode = '42501';"))
    late = await part(conf, location, PNG, 0)
    assert (late.status_code, late.text) == (403, "late")
    assert (await conf.ask("HEAD", location, conf.player(29), headers=TUS)).status_code == 404


async def test_an_upload_in_parts_by_a_signed_url(conf: Lab) -> None:
    made = await conf.ask("POST", "/object/upload/sign/conf/29/signed.png", conf.player(29))
    signature = {"x-signature": made.json()["token"]}
    told = {**TUS, "upload-length": "70", **signature}
    wrong = {**told, "upload-metadata": described("29/other.png")}
    assert (await conf.http.post("/upload/resumable/sign", headers=wrong)).status_code == 400
    headers = {**told, "upload-metadata": described("29/signed.png")}
    begun = await conf.http.post("/upload/resumable/sign", headers=headers)
    location = begun.headers["location"]
    assert "/upload/resumable/sign/" in location
    unsigned = await conf.http.patch(location, content=PNG, headers={**PART, "upload-offset": "0"})
    assert unsigned.status_code == 400
    done = await conf.http.patch(location, content=PNG, headers={**PART, **signature, "upload-offset": "0"})
    assert done.status_code == 204
    row = await conf.row("29/signed.png")
    assert row is not None and row["owner_id"] == "00000000-0000-4000-8000-000000000029"


async def test_a_fault_that_refuses(conf: Lab) -> None:
    await conf.upload("29/a.png")
    await conf.fault(
        {"mode": "refused", "status": 502, "methods": ["GET"], "path": "/object/conf/", "times": 2}
    )
    answers = [await conf.ask("GET", "/object/conf/29/a.png", conf.player(29)) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [502, 502, 200]
    assert answers[0].json()["statusCode"] == "502"
    assert answers[0].headers["access-control-allow-origin"] == "*"
    await conf.fault({"status": 503, "for": 60})
    assert (await conf.upload("29/b.png", b"x" * 100_000)).status_code == 503
    assert await conf.row("29/b.png") is None


async def test_a_fault_that_slows_down(conf: Lab) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(4):
            yield b"x" * 10

    await conf.fault({"mode": "slow", "delay": 0.2})
    started = time.monotonic()
    headers = {"content-length": "40"}
    assert (await conf.upload("29/a.png", chunks(), **headers)).status_code == 200
    assert time.monotonic() - started > 0.2
    started = time.monotonic()
    assert (await conf.ask("GET", "/object/conf/29/a.png", conf.player(29))).content == b"x" * 40
    assert time.monotonic() - started > 0.2


async def test_a_fault_that_cuts_the_connection(conf: Lab) -> None:
    data = b"x" * 150_000
    await conf.fault({"mode": "cut", "bytes": 50_000})
    with pytest.raises(httpx.TransportError):
        await conf.upload("29/a.png", data)
    await until(lambda: not conf.files())
    assert await conf.row("29/a.png") is None
    await conf.fault(None)
    await conf.upload("29/a.png", data)
    await conf.fault({"mode": "cut", "bytes": 100_000, "methods": ["GET"]})
    received = b""
    headers = {"authorization": f"Bearer {conf.player(29)}"}
    with pytest.raises(httpx.RemoteProtocolError):
        async with conf.http.stream("GET", "/object/conf/29/a.png", headers=headers) as answer:
            assert answer.headers["content-length"] == "150000"
            async for chunk in answer.aiter_bytes():
                received += chunk
    assert received == data[:100_000]


async def test_a_fault_that_is_silent(conf: Lab) -> None:
    await conf.fault({"mode": "silent"})
    headers = {**IMAGE, "authorization": f"Bearer {conf.player(29)}"}
    with pytest.raises(httpx.ReadTimeout):
        await conf.http.post(
            "/object/conf/29/a.png",
            content=b"x" * 100_000,
            headers=headers,
            timeout=httpx.Timeout(60, read=0.5),
        )
    assert await conf.row("29/a.png") is None


async def test_a_fault_that_loses_the_answer(conf: Lab) -> None:
    await conf.fault({"mode": "lose_answer", "times": 1})
    with pytest.raises(httpx.RemoteProtocolError):
        await conf.upload("29/a.png")
    assert await conf.row("29/a.png") is not None
    assert error(await conf.upload("29/a.png"))[2] == "KeyAlreadyExists"


async def test_a_fault_that_holds_uploads_open(conf: Lab) -> None:
    await conf.fault({"mode": "hold", "path": "/object/conf/29/", "for": 30})
    uploads = [asyncio.create_task(conf.upload(f"29/{n}.png")) for n in range(2)]

    async def both() -> bool:
        return await conf.held() == 2

    await until(both)
    assert len(conf.files()) == 2
    assert await conf.sql("select from storage.objects where bucket_id = 'conf'") == []
    await conf.fault({"mode": "hold", "for": 0.2})
    assert {answer.status_code for answer in await asyncio.gather(*uploads)} == {200}
    # Reads pass, and an upload ends when the rule's time is over.
    assert (await conf.ask("GET", "/object/conf/29/0.png", conf.player(29))).content == PNG
    assert (await conf.upload("29/3.png")).status_code == 200


@pytest.mark.parametrize("rule", [{"mode": "x"}, {"mode": "slow", "dely": 1}, {"mode": "hold", "held": 1}, 7])
async def test_a_fault_that_does_not_exist_is_refused(conf: Lab, rule: Any) -> None:
    answer = await conf.http.post(f"{conf.stack.url}/__stack/faults", json={"storage": rule})
    assert answer.status_code == 400
    cleared = await conf.http.delete(f"{conf.stack.url}/__stack/faults")
    assert cleared.json()["storage"] == []
