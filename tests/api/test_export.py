"""The export over REST: whole files, a broken connection where one is not whole, and limits on what exports cost."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import socket
from collections.abc import Callable, Iterator
from typing import Any, get_args

import httpx
import pytest

from gre_bridge.exports import COLUMNS, ExportList
from tests.api.conftest import Api, Person, start
from tests.support.hostile import raw
from tests.support.stack import StackProcess
from tests.support.waiting import let_pass, wait_until

PATH = "/api/gre-admin/export"
CALLS = "gre_database_requests_total"
LONG_AGO = "2001-01-01T00:00:00Z"
SOON_AFTER = "2002-01-01T00:00:00Z"
ROWS = 20_000


@pytest.fixture(scope="module")
def long(api: Api) -> Iterator[dict[str, str]]:
    """The query of an export of 20 MB: events of a time long ago."""
    api.sql(
        "insert into gre_chat_events (session_id, rev, at, after_seq, kind, data)"
        " select gen_random_uuid(), 1, timestamptz '2001-01-01 UTC' + n * interval '1 minute', 0, 'blocked',"
        " jsonb_build_object('until', repeat('x', 1000)) from generate_series(1, %s) n",
        ROWS,
    )
    yield {"what": "events", "from": LONG_AGO, "to": SOON_AFTER}
    api.sql("delete from gre_chat_events where at < '2003-01-01'")


def exported(who: Person, what: str, form: str = "ndjson", **query: Any) -> httpx.Response:
    answer = who.get(PATH, params={"what": what, "format": form, **query})
    assert answer.status_code == 200, answer.text
    return answer


def lines(answer: httpx.Response) -> list[dict[str, Any]]:
    return [json.loads(line) for line in answer.text.split("\n")[:-1]]


def table(answer: httpx.Response) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(answer.content.decode(), newline=""), strict=True))


def test_messages_are_what_was_written(api: Api, player_id: int) -> None:
    texts = [
        "=1+1",
        "+1",
        "-1",
        "@SUM(A1)",
        "\tTab",
        'She said "no",\r\nthen left;',
        "ආයුබෝවන් \U0001f3b2",
        "'quoted'",
    ]
    sent = [api.player(player_id).send(text)["message"] for text in texts]
    # The one character that no file could hold is in no message.
    assert api.player(player_id).post("/api/gre-chat/send", message="a\0b").status_code == 422
    begin = api.sql("select min(created_at) as at from gre_chat_messages where player_id = %s", player_id)[0][
        "at"
    ]
    rows = [
        row for row in lines(exported(api.admin(), "messages", **{"from": begin.isoformat()}))
        if row["player_id"] == player_id
    ]  # fmt: skip
    assert [row["message"] for row in rows] == [message["message"] for message in sent]
    assert [row["id"] for row in rows] == [message["id"] for message in sent]
    answer = exported(api.admin(), "messages", "csv", **{"from": begin.isoformat()})
    cells = [row for row in table(answer) if row["player_id"] == str(player_id)]
    plain = [cell["message"].removeprefix("'") for cell in cells[:5]]
    assert plain == texts[:5]
    assert [cell["message"][0] for cell in cells[:5]] == ["'"] * 5
    assert [cell["message"] for cell in cells[5:]] == [message["message"] for message in sent[5:]]


@pytest.mark.parametrize("what", get_args(ExportList))
def test_each_list_is_a_file_of_either_format(api: Api, player_id: int, what: ExportList) -> None:
    session = api.player(player_id).send()["sessionId"]
    staff = api.staff()
    assert staff.post("/api/gre-admin/take", sessionId=session).status_code == 200
    assert staff.post("/api/gre-admin/reply", sessionId=session, message="Yes").status_code == 201
    until = api.sql("select clock_timestamp() as at")[0]["at"].isoformat()
    rows = lines(exported(api.admin(), what, to=until))
    answer = exported(api.admin(), what, "csv", to=until)
    cells = table(answer)
    assert len(cells) == len(rows)
    assert rows or what == "ratings"
    assert answer.text.split("\r\n")[0] == ",".join(COLUMNS[what])
    assert [tuple(row) for row in rows] == [COLUMNS[what]] * len(rows)
    assert [row.get("session_id") for row in rows] == [cell.get("session_id") for cell in cells]
    assert what == "ratings" or session in {row["session_id"] for row in rows}
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert answer.headers["content-disposition"].startswith(f'attachment; filename="gre-{what}-')
    assert answer.headers["cache-control"] == "no-store"


def test_a_long_export_is_whole(api: Api, long: dict[str, str]) -> None:
    rows = lines(exported(api.admin(), **long))
    assert len(rows) == ROWS
    assert [row["at"] for row in rows] == sorted(row["at"] for row in rows)
    assert len({row["session_id"] for row in rows}) == ROWS
    head = api.http.head(PATH, params=long, headers=api.admin().headers)
    assert (head.status_code, head.content) == (200, b"")


def test_only_admins_export(api: Api, player_id: int) -> None:
    refused = {
        "staff_only": [api.player(player_id), api.backend(f"player:{player_id}")],
        "admin_only": [api.staff(), api.backend("staff:s1")],
        "act_as_required": [api.backend()],
        "token_invalid": [api.with_token("x")],
        "not_authenticated": [api.with_token(None)],
    }
    for code, people in refused.items():
        for who in people:
            answer = who.get(PATH, params={"what": "messages"})
            assert answer.json()["code"] == code
    for query, code in (
        ({"what": "secrets"}, "invalid"),
        ({}, "invalid"),
        ({"what": "messages", "format": "xlsx"}, "invalid"),
        ({"what": "messages", "from": "yesterday"}, "invalid"),
        ({"what": "messages", "from": SOON_AFTER, "to": LONG_AGO}, "range_invalid"),
    ):
        assert api.admin().get(PATH, params=query).json()["code"] == code


@contextlib.contextmanager
def unread(api: Api, query: dict[str, str], version: str = "1.1") -> Iterator[socket.socket]:
    """An export whose client has read its head, and nothing more."""
    url = httpx.URL(PATH, params=query).raw_path.decode()
    with raw(api.worker.url, receive_buffer=4096) as sock:
        headers = "".join(f"{name}: {value}\r\n" for name, value in api.admin().headers.items())
        sock.sendall(f"GET {url} HTTP/{version}\r\nHost: x\r\n{headers}\r\n".encode())
        assert sock.recv(15).startswith(b"HTTP/1.1 200")
        yield sock


def pages(api: Api) -> float:
    return api.worker.metric(CALLS, function="gre_export")


def test_a_client_that_does_not_read_stops_the_reading(api: Api, long: dict[str, str]) -> None:
    before = pages(api)
    with unread(api, long), unread(api, long):
        seen = wait_until(lambda: (found := pages(api)) > before and found)
        let_pass(1, "a reader that goes on would have read all by then")
        assert pages(api) - seen <= 20, "two exports, of 40 pages each"
        third = api.admin().get(PATH, params=long)
        assert (third.status_code, third.json()["code"]) == (503, "busy")
        assert third.headers["retry-after"] == "5"
    # Clients that go away end their exports.
    wait_until(
        lambda: api.admin().get(PATH, params={**long, "to": LONG_AGO[:-1] + "+00:10"}).status_code != 503
    )
    assert len(lines(exported(api.admin(), **long))) == ROWS


def rest_of(sock: socket.socket) -> bytes:
    sock.settimeout(60)
    found = b""
    while chunk := sock.recv(65_536):
        found += chunk
    return found


def fail_the_database(api: Api) -> None:
    api.stack.fault("rest", {"mode": "status", "status": 500, "path": "/rest/v1/rpc/gre_export"})


def stop_the_daemon(api: Api) -> None:
    assert api.worker.stop() == 0


@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.parametrize("end", [fail_the_database, stop_the_daemon])
def test_an_export_that_cannot_go_on_is_cut_visibly(
    api: Api, stack_process: StackProcess, long: dict[str, str], end: Callable[[Api], None], version: str
) -> None:
    own = start(stack_process)
    mine = next(own)
    try:
        with unread(mine, long, version) as sock:
            end(mine)
            # With HTTP/1.0 the end of the connection is the end of the answer: only a reset tells.
            with pytest.raises(ConnectionResetError):
                rest_of(sock)
    finally:
        stack_process.http.delete("/__stack/faults").raise_for_status()
        if mine.worker.all():
            assert mine.worker.stop() == 0
        own.close()
    log = mine.worker.log.read_text()
    assert "ASGI" not in log
    assert "request_failed" not in log
    assert ("export_failed" in log) == (end is fail_the_database)
