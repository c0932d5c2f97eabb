"""Files with real processes: uploaded with Supabase's client, examined by workers that are killed, and deleted from Storage."""

from __future__ import annotations

import io
import socketserver
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from PIL import Image
from storage3 import SyncStorageClient

from tests.support.corpus import CANARY, photo
from tests.support.loopback import NO_TLS, PATIENT, free_port
from tests.support.stack import StackProcess, Worker
from tests.support.waiting import let_pass, wait_until

BUCKET = "gre-chat"
SOON = {
    "gre_bridge.jobs.media.INTERVAL": 0.2,
    "gre_bridge.jobs.media.DEBOUNCE": 0.1,
    "gre_bridge.jobs.deletions.INTERVAL": 0.3,
}
KILLED = {**SOON, "gre_bridge.jobs.media.LEASE": 3.0, "gre_bridge.jobs.media.EXTEND": 0.5}
"""A lease that a test can wait for."""


@dataclass
class Sent:
    """A file that was uploaded; `object` is the name of its original."""

    id: str
    object: str

    def name(self, variant: str) -> str:
        return self.object.replace("original", variant)


@contextmanager
def storage(stack: StackProcess, token: str | None = None) -> Iterator[Any]:
    """Supabase's client for the bucket, as a user or as the service."""
    with httpx.Client(trust_env=False, verify=NO_TLS, timeout=PATIENT) as http:
        client = SyncStorageClient(f"{stack.url}/storage/v1/", stack.headers(token), http_client=http)
        yield client.from_(BUCKET)


def download(stack: StackProcess, name: str) -> bytes:
    with storage(stack) as bucket:
        return bytes(bucket.download(name))


def send(
    stack: StackProcess, player: int, content: bytes, type_: str = "image/jpeg", name: str = "photo.jpg"
) -> Sent:
    """Announce a file as the player, and upload it."""
    token = stack.keys.token_of(f"player:{player}", expires_in=600)
    arguments = {
        "p_id": str(uuid.uuid4()), "p_player_id": player, "p_session_id": None, "p_name": name, "p_type": type_,
        "p_bytes": len(content), "p_alt": None,
    }  # fmt: skip
    answer = stack.http.post(
        "/rest/v1/rpc/gre_attachment_begin", json=arguments, headers=stack.headers(token)
    )
    sent = Sent(arguments["p_id"], answer.raise_for_status().json()["object"])  # type: ignore[arg-type]
    with storage(stack, token) as bucket:
        bucket.upload(sent.object, content, {"content-type": type_})
    return sent


def file(stack: StackProcess, sent: Sent) -> dict[str, Any]:
    with stack.db() as conn:
        row = conn.execute("select * from gre_chat_attachments where id = %s", [sent.id]).fetchone()
    assert row is not None
    return row


def job(stack: StackProcess, sent: Sent) -> dict[str, Any] | None:
    with stack.db() as conn:
        return conn.execute("select * from gre.media_jobs where attachment_id = %s", [sent.id]).fetchone()


def objects(stack: StackProcess, sent: Sent) -> set[str]:
    """The variants of the file that are in Storage."""
    with stack.db() as conn:
        rows = conn.execute(
            "select name from storage.objects where name like %s", [sent.object.replace("original", "%")]
        ).fetchall()
    return {row["name"].rpartition("/")[2] for row in rows}


def is_ready(stack: StackProcess, *sent: Sent) -> bool:
    return all(file(stack, one)["state"] == "ready" for one in sent)


def check_picture(stack: StackProcess, sent: Sent) -> None:
    """The file is a picture of 96 x 64, upright, with a view and a thumb that hold nothing of where it was taken."""
    row = file(stack, sent)
    assert (row["state"], row["kind"], row["type"]) == ("ready", "image", "image/jpeg")
    assert (row["width"], row["height"]) == (96, 64)
    assert row["preview"]
    assert objects(stack, sent) == {"original", "view", "thumb"}
    for variant in ("view", "thumb"):
        content = download(stack, sent.name(variant))
        assert CANARY not in content
        picture = Image.open(io.BytesIO(content))
        assert picture.size == (96, 64)
        assert not picture.getexif()


def test_a_picture_is_examined_soon_after_its_upload_and_other_files_are_downloads(
    stack: StackProcess,
) -> None:
    with stack.worker(only="relay", constants=SOON) as worker:
        picture = send(stack, 41, photo(6))
        text = send(stack, 41, b"name,score\nann,3\n", "text/csv", "scores.csv")
        broken = send(stack, 42, photo()[:400])
        wait_until(lambda: is_ready(stack, picture, text), what="examined files")
        wait_until(lambda: file(stack, broken)["state"] == "refused", what="a refusal")
        check_picture(stack, picture)
        # A file is counted when the database has answered.
        for result, count in (("ready", 2), ("refused", 1)):
            wait_until(
                lambda r=result, n=count: worker.metric("gre_files_examined_total", result=r) == n,  # type: ignore[misc]
                what=f"{count} {result} in the metrics",
            )
        log = worker.log.read_text()
    assert (file(stack, text)["kind"], objects(stack, text)) == ("file", {"original"})
    assert (file(stack, broken)["refused"], objects(stack, broken)) == ("undecodable", {"original"})
    assert download(stack, broken.object) == photo()[:400], "nothing is deleted"
    for secret in ("token=", picture.object, "scores.csv"):
        assert secret not in log


NEVER = {"gre_bridge.jobs.media.INTERVAL": 3600.0}


def test_the_wake_up_of_a_stored_file_is_enough_and_so_are_polls(stack: StackProcess) -> None:
    by_wakeups = {**NEVER, "gre_bridge.jobs.media.LONGEST_POLL": 3600.0}
    with stack.worker(only="relay", constants=by_wakeups) as worker:
        wait_until(lambda: worker.metric("gre_realtime_state", state="live") == 1, what="a live subscription")
        wait_until(lambda: claims(worker) > 0, what="the claim of the start, which found nothing")
        picture = send(stack, 41, photo())
        wait_until(lambda: is_ready(stack, picture), what="an examined file")
        assert worker.metric("gre_wakeups_total") >= 1
    stack.fault("realtime", {"refuse": True})
    with stack.worker(only="relay", constants=NEVER) as worker:
        wait_until(lambda: claims(worker) > 0, what="the claim of the start, which found nothing")
        picture = send(stack, 41, photo())
        wait_until(lambda: is_ready(stack, picture), what="an examined file")


def claims(worker: Worker) -> float:
    return worker.metric("gre_database_requests_total", function="gre_media_claim_v1")


def test_files_wait_for_a_worker_that_can_decode(stack: StackProcess) -> None:
    with stack.worker(only="relay", constants=SOON, GRE_MEDIA="off") as worker:
        picture = send(stack, 41, photo())
        wait_until(lambda: "media_off" in worker.log.read_text(), what="a line in the log")
        let_pass(2, "time for an examination, which must not come")
        assert file(stack, picture)["state"] == "stored"
    with stack.worker(only="relay", constants=SOON):
        wait_until(lambda: is_ready(stack, picture), what="an examined file")
    check_picture(stack, picture)


@pytest.mark.parametrize(
    "rule",
    [
        {"mode": "refused", "status": 500},
        {"mode": "cut", "bytes": 100},
        {"mode": "refused", "status": 500, "methods": ["POST"]},
        {"mode": "refused", "status": 413, "methods": ["POST"]},
        {"mode": "lose_answer", "methods": ["POST"], "times": 2},
    ],
)  # fmt: skip
def test_a_failure_of_storage_only_postpones(stack: StackProcess, rule: dict[str, Any]) -> None:
    picture = send(stack, 41, photo())
    stack.fault("storage", rule)
    with stack.worker(only="relay", constants=SOON):
        wait_until(lambda: (job(stack, picture) or {"last_error": "none"})["last_error"], what="a failure")
        if "times" not in rule:
            assert file(stack, picture)["state"] == "stored"
        stack.http.delete("/__stack/faults").raise_for_status()
        wait_until(lambda: is_ready(stack, picture), what="an examined file")
    check_picture(stack, picture)


def test_workers_that_are_killed_examine_each_file_once(stack: StackProcess) -> None:
    """Each kill comes at another point: Storage is slow, so that each part of the work takes a while."""
    pictures = [send(stack, 41 + n, photo(1 + n)) for n in range(6)]
    stack.fault("storage", {"mode": "slow", "delay": 0.3})
    with stack.worker(only="relay", constants=KILLED) as worker:
        for n in range(5):
            wait_until(lambda: leased(stack), 60, 0.01, what="a file in work")
            let_pass(0.25 * n, "the worker gets on with the file")
            worker.kill()
            worker.start(ready=False)
        stack.http.delete("/__stack/faults").raise_for_status()
        wait_until(lambda: is_ready(stack, *pictures), what="examined files")
        let_pass(1, "time for a second examination, which must not come")
        assert worker.metric("gre_files_examined_total", result="ready") <= len(pictures)
    for picture in pictures:
        check_picture(stack, picture)
        assert job(stack, picture) is None


def leased(stack: StackProcess) -> bool:
    with stack.db() as conn:
        return (
            conn.execute("select from gre.media_jobs where lease_until > clock_timestamp()").fetchone()
            is not None
        )


def test_a_stop_gives_the_file_back_at_once(stack: StackProcess) -> None:
    picture = send(stack, 41, photo())
    stack.fault("storage", {"mode": "slow", "delay": 30.0})
    with stack.worker(only="relay", constants=SOON) as worker:
        wait_until(lambda: leased(stack), what="a file in work")
        assert worker.stop() == 0
    wait_until(
        lambda: not leased(stack), 40, what="the end of the lease, which is a minute without a release"
    )
    assert file(stack, picture)["state"] == "stored"
    found = job(stack, picture)
    assert found is not None
    assert (found["attempt"], found["own_failures"], found["claimed_by"]) == (0, 0, None)
    stack.http.delete("/__stack/faults").raise_for_status()
    with stack.worker(only="relay", constants=SOON):
        wait_until(lambda: is_ready(stack, picture), what="an examined file")


def test_the_files_of_one_player_do_not_delay_anothers(stack: StackProcess) -> None:
    many = [send(stack, 41, b"text %d" % n, "text/plain", f"{n}.txt") for n in range(18)]
    one = send(stack, 42, photo())
    with stack.worker(only="relay", constants=SOON):
        wait_until(lambda: is_ready(stack, *many, one), what="examined files")
    with stack.db() as conn:
        rows = conn.execute("select id from gre_chat_attachments order by ready_at").fetchall()
    assert one.id in [str(row["id"]) for row in rows[:3]]


def test_examinations_delay_no_message(stack: StackProcess) -> None:
    """A scanner that never answers, and a Storage that is silent: the relay goes on."""
    stack.fault("storage", {"mode": "silent"})
    with stack.worker(only="relay", constants=SOON) as worker:
        stack.http.delete("/__stack/faults").raise_for_status()
        send(stack, 41, photo())
        stack.fault("storage", {"mode": "silent"})
        wait_until(lambda: worker.metric("gre_realtime_state", state="live") == 1, what="a live subscription")
        for n in range(20):
            stack.insert(player_id=50 + n, sender="player", message="x")
        stack.drained()


class Clamd(socketserver.StreamRequestHandler):
    """clamd's command INSTREAM: finds a virus in what contains VIRUS."""

    def handle(self) -> None:
        assert self.rfile.read(10) == b"zINSTREAM\0"
        content = b""
        while size := int.from_bytes(self.rfile.read(4), "big"):
            content += self.rfile.read(size)
        self.wfile.write(b"stream: Test FOUND\0" if b"VIRUS" in content else b"stream: OK\0")


def test_a_scanner_refuses_a_virus_and_files_wait_while_it_is_away(stack: StackProcess) -> None:
    clean, infected = send(stack, 41, photo()), send(stack, 42, b"a VIRUS", "text/plain", "x.txt")
    port = free_port()
    with stack.worker(only="relay", constants=SOON, GRE_CLAMD_ADDRESS=f"tcp://127.0.0.1:{port}"):
        for one in (clean, infected):
            wait_until(
                lambda one=one: (job(stack, one) or {"last_error": None})["last_error"], what="a failure"
            )  # type: ignore[misc]
            found = job(stack, one)
            assert found is not None
            assert (found["last_error"], file(stack, one)["state"]) == ("scanner", "stored")
        with socketserver.ThreadingTCPServer(("127.0.0.1", port), Clamd) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            wait_until(lambda: is_ready(stack, clean), what="an examined file")
            wait_until(lambda: file(stack, infected)["state"] == "refused", what="a refusal")
            server.shutdown()
    check_picture(stack, clean)
    assert file(stack, infected)["refused"] == "virus"
    assert download(stack, infected.object) == b"a VIRUS", "nothing is deleted"


def deleted(stack: StackProcess) -> bool:
    with stack.db() as conn:
        return conn.execute("select from gre_storage_deletions").fetchone() is None


def test_after_a_drop_or_an_erase_no_object_is_left(stack: StackProcess) -> None:
    with stack.worker(only="relay", constants=SOON) as worker:
        erased, dropped, kept = send(stack, 41, photo()), send(stack, 42, photo()), send(stack, 43, photo())
        wait_until(lambda: is_ready(stack, erased, dropped, kept), what="examined files")
        stack.fault("storage", {"mode": "refused", "status": 500, "methods": ["DELETE"]})
        service = stack.headers()
        stack.http.post(
            "/rest/v1/rpc/gre_erase_player", json={"p_player_id": 41}, headers=service
        ).raise_for_status()
        token = stack.headers(stack.keys.token_of("player:42", expires_in=600))
        stack.http.post(
            "/rest/v1/rpc/gre_attachment_drop", json={"p_id": dropped.id}, headers=token
        ).raise_for_status()
        wait_until(lambda: failed_deletions(worker), what="a failed deletion")
        assert objects(stack, erased) == {"original", "view", "thumb"}
        stack.http.delete("/__stack/faults").raise_for_status()
        wait_until(lambda: deleted(stack), what="no name that waits")
    assert objects(stack, erased) | objects(stack, dropped) == set()
    assert objects(stack, kept) == {"original", "view", "thumb"}


def failed_deletions(worker: Worker) -> float:
    return worker.metric("gre_storage_deletions_total", result="failed")


def test_files_that_nobody_sends_are_deleted_after_a_day(stack: StackProcess) -> None:
    old, new = send(stack, 41, photo()), send(stack, 42, photo())
    with stack.db() as conn:
        conn.execute(
            "update gre_chat_attachments set created_at = created_at - interval '25 hours',"
            " stored_at = stored_at - interval '25 hours' where id = %s",
            [old.id],
        )
    with stack.worker(only="relay", constants={**SOON, "gre_bridge.jobs.deletions.SWEEP_INTERVAL": 0.5}):
        wait_until(lambda: objects(stack, old) == set(), what="a deletion")
        wait_until(lambda: is_ready(stack, new), what="an examined file")
    check_picture(stack, new)


OLDER = """
alter table gre_chat_sessions disable trigger user;
alter table gre_chat_messages disable trigger user;
update gre_chat_sessions set created_at = created_at - interval '1 year', updated_at = updated_at - interval '1 year',
  last_message_at = last_message_at - interval '1 year' where player_id = 41;
update gre_chat_messages set created_at = created_at - interval '1 year' where player_id = 41;
update gre_chat_attachments set created_at = created_at - interval '1 year', stored_at = stored_at - interval '1 year',
  ready_at = ready_at - interval '1 year', changed_at = changed_at - interval '1 year' where player_id = 41;
update gre_relay_deliveries set state = 'done', settled_at = now() - interval '1 year';
alter table gre_chat_sessions enable trigger user;
alter table gre_chat_messages enable trigger user;
"""


@pytest.mark.past_triggers("messages of one player become older")
def test_a_picture_of_last_year_still_shows(stack: StackProcess) -> None:
    token = stack.keys.token_of("player:41", expires_in=600)
    with stack.worker(only="relay", constants=SOON):
        picture, other = send(stack, 41, photo(6)), send(stack, 42, photo())
        stack.insert(
            key=token, player_id=41, sender="player", message="", attachment_ids=[picture.id]
        ).raise_for_status()
        wait_until(lambda: is_ready(stack, picture, other), what="examined files")
        before = {variant: download(stack, picture.name(variant)) for variant in ("view", "thumb")}
        with stack.db() as conn:
            conn.execute(OLDER)
        for call, body in (("gre_media_sweep_v1", {}), ("gre_relay_prune", {"p_keep": "7 days"})):
            stack.http.post(f"/rest/v1/rpc/{call}", json=body, headers=stack.headers()).raise_for_status()
        # What the sweep gives up is deleted by now.
        headers = stack.headers(stack.keys.token_of("player:42", expires_in=600))
        stack.http.post(
            "/rest/v1/rpc/gre_attachment_drop", json={"p_id": other.id}, headers=headers
        ).raise_for_status()
        wait_until(lambda: objects(stack, other) == set(), what="the deletion of another file")
    check_picture(stack, picture)
    for reader in (token, stack.keys.token_of("staff:s1", expires_in=600)):
        for variant, content in before.items():
            body = {"p_ids": [picture.id], "p_variant": variant}
            answer = stack.http.post(
                "/rest/v1/rpc/gre_attachment_names", json=body, headers=stack.headers(reader)
            )
            (row,) = answer.raise_for_status().json()
            with storage(stack, reader) as bucket:
                link = bucket.create_signed_url(row["object"], 60)["signedURL"]
            assert stack.http.get(link).content == content
