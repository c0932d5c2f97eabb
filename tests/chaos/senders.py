"""People who send files beside the other load: players and staff, with uploads that are cut, resumed, repeated and given up.

As a portal does, each announces a file with an id chosen here, uploads it to Storage, and sends it with a message. Every step
is repeated until its result is known, so the database has exactly the files of `files`.
"""

from __future__ import annotations

import base64
import hashlib
import os
import random
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import httpx

from tests.chaos.load import TEXT, Sent
from tests.support.corpus import ORIENTATIONS, photo, segment
from tests.support.loopback import NO_TLS
from tests.support.stack import StackProcess
from tests.support.waiting import let_pass, wait_until

BUCKET = "gre-chat"
PLAYERS = range(1, 13)
"""They have other messages, too."""
ERASED = 90
"""A player who is erased at the end."""
STAFF = "s1"
WIDTH, HEIGHT = 96, 64
"""The pictures, upright."""
_PATIENCE = 90.0
_PAUSE = 0.05
_PIECE = 16 * 1024


class ProblemError(Exception):
    """A promise was broken while a file was sent."""


@dataclass
class File:
    """A file that one person announced. `message` is set once it is sent, `dropped` once it is given up."""

    player: int
    staff: bool
    content: bytes
    type: str
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    object: str = ""
    message: str = ""
    dropped: bool = False

    @property
    def picture(self) -> bool:
        """Whether it has a view."""
        return self.type.startswith("image/")

    @property
    def digest(self) -> str:
        """What identifies the bytes."""
        return hashlib.sha256(self.content).hexdigest()

    @property
    def author(self) -> str:
        """Who sends it."""
        return f"staff:{STAFF}" if self.staff else f"player:{self.player}"

    @property
    def reader(self) -> str:
        """The other side."""
        return f"player:{self.player}" if self.staff else f"staff:{STAFF}"


@cache
def _photo(orientation: int) -> bytes:
    return photo(orientation)


def picture(rng: random.Random) -> bytes:
    """A photo with everything that a camera writes, no other like it, in one of the eight orientations."""
    data = _photo(rng.choice(list(ORIENTATIONS)))
    for _ in range(rng.randint(1, 4)):
        data = segment(data, 0xEC, os.urandom(60_000))
    return data


class Senders:
    """A thread for each sender, `rate` files a second in all, until `stop`; none for 0. What they send is appended to `sent`."""

    def __init__(self, stack: StackProcess, sent: list[Sent], *, rate: float, threads: int = 4) -> None:
        self._stack = stack
        self._sent = sent
        threads = threads if rate else 0
        self._pace = threads / rate if rate else 0.0
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(n,)) for n in range(threads)]
        self.files: list[File] = []
        self.problems: list[str] = []

    def start(self) -> None:
        """Begin to send, each player with a first message."""
        if not self._threads:
            return
        portal = Portal(self._stack)
        for player in (*PLAYERS, ERASED):
            self._sent.append(portal.send(f"player:{player}", player, TEXT, []))
        portal.close()
        for thread in self._threads:
            thread.start()

    def until(self, count: int) -> None:
        """Wait until so many files are announced, if any are."""
        if self._threads:
            wait_until(lambda: len(self.files) >= count, 60, 0.05, what="files")

    def stop(self) -> None:
        """Return when every file begun is sent or given up."""
        self._over.set()
        for thread in self._threads:
            if thread.ident is None:
                continue
            thread.join(_PATIENCE + 5)
            if thread.is_alive():
                self.problems.append("a sender hangs")

    def _run(self, number: int) -> None:
        rng, portal = random.Random(number), Portal(self._stack)
        at = time.monotonic() + rng.random() * self._pace
        try:
            while not self._over.wait(max(0.0, at - time.monotonic())):
                count = rng.choice((1, 1, 1, 2, 3))
                at = max(at + count * self._pace, time.monotonic())
                self._send(portal, rng, count)
        except Exception as error:  # noqa: BLE001 - reported to the runner: a thread's end would be silent
            self.problems.append(f"a sender ended: {error!r}"[:300])
        finally:
            portal.close()

    def _send(self, portal: Portal, rng: random.Random, count: int) -> None:
        staff = rng.random() < 0.3
        player = ERASED if rng.random() < 0.15 else rng.choice(PLAYERS)
        files = []
        for _ in range(count):
            if rng.random() < 0.6:
                content, type_ = picture(rng), "image/jpeg"
            else:
                content, type_ = b"%d," % player * rng.randint(1, 60_000), "text/csv"
            file = File(player, staff, content, type_)
            self.files.append(file)
            portal.begin(file)
            dice = rng.random()
            if dice < 0.06:
                portal.drop(file)
                continue
            portal.upload(file, rng)
            if dice < 0.16:
                portal.drop(file)
                continue
            files.append(file)
        if files:
            text = TEXT if rng.random() < 0.3 else ""
            self._sent.append(portal.send(files[0].author, player, text, files))


class Portal:
    """One person's client, which repeats what it does until the result is known."""

    def __init__(self, stack: StackProcess) -> None:
        self._stack = stack
        self._http = httpx.Client(base_url=stack.url, timeout=4, trust_env=False, verify=NO_TLS)
        self._tokens: dict[str, str] = {}

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def headers(self, person: str) -> dict[str, str]:
        """A person's headers."""
        if person not in self._tokens:
            self._tokens[person] = self._stack.keys.token_of(person, expires_in=3600)
        return self._stack.headers(self._tokens[person])

    def call(self, person: str, function: str, **arguments: Any) -> tuple[str, Any]:
        """Call a function; returns the code of a refusal, or an empty one, and the answer."""
        for _ in _until_known(function):
            try:
                answer = self._http.post(
                    f"/rest/v1/rpc/{function}", json=arguments, headers=self.headers(person)
                )
            except httpx.TransportError:
                continue
            if answer.status_code < 300:
                return "", answer.json()
            # 400 with an empty code is a crashed database.
            if answer.status_code >= 500 or not (refusal := answer.json())["code"]:
                continue
            code = refusal.get("hint") or refusal["code"]
            if code in ("40001", "40P01", "55P03"):
                continue
            return code, None
        raise AssertionError

    def begin(self, file: File) -> None:
        """Announce a file."""
        name = "photo.jpg" if file.picture else "scores.csv"
        code, answer = self.call(
            file.author, "gre_attachment_begin", p_id=file.id, p_player_id=file.player, p_session_id=None,
            p_name=name, p_type=file.type, p_bytes=len(file.content), p_alt=None,
        )  # fmt: skip
        if code:
            raise ProblemError(f"begin: {code}")
        file.object = answer["object"]

    def drop(self, file: File) -> None:
        """Give a file up."""
        code, _ = self.call(file.author, "gre_attachment_drop", p_id=file.id)
        if code not in ("", "attachment_not_found"):
            raise ProblemError(f"drop: {code}")
        file.dropped = True

    def state(self, file: File) -> str:
        """Ask for the state of a file."""
        code, answer = self.call(file.author, "gre_attachment_get", p_id=file.id)
        if code:
            raise ProblemError(f"get: {code}")
        return str(answer["state"])

    def upload(self, file: File, rng: random.Random) -> None:
        """Upload a file: over a signed address, at once or after an upload that was cut, or in parts that are resumed."""
        way = rng.choice(("whole", "whole", "cut", "parts"))
        if way == "cut":
            self.put(file, cut=True)
        for _ in _until_known("an upload"):
            done = self._in_parts(file) if way == "parts" else self.put(file)
            if self.state(file) != "awaited":
                break
            if done:
                raise ProblemError(f"upload: Storage has the file ({way}), and the database does not know")
        if rng.random() < 0.2 and self.put(file):
            raise ProblemError("upload: a second one was accepted")

    def send(self, person: str, player: int, text: str, files: list[File]) -> Sent:
        """Send a message with these files."""
        message, staff = str(uuid.uuid4()), person.startswith("staff")
        code, answer = self.call(
            person, "gre_staff_reply" if staff else "gre_send_message", p_message=text, p_player_id=player, p_id=message,
            p_attachment_ids=[file.id for file in files],
        )  # fmt: skip
        if code:
            raise ProblemError(f"send: {code}")
        for file in files:
            file.message = message
        stored = answer["message"]
        return Sent(message, time.time(), stored["session_id"], stored["seq"])

    def names(self, person: str, files: list[File], variant: str) -> dict[str, str]:
        """The objects that a person may fetch, by the ids of the files."""
        found: dict[str, str] = {}
        for at in range(0, len(files), 100):
            ids = [file.id for file in files[at : at + 100]]
            code, rows = self.call(person, "gre_attachment_names", p_ids=ids, p_variant=variant)
            if code:
                raise ProblemError(f"names: {code}")
            found |= {row["id"]: row["object"] for row in rows}
        return found

    def fetch(self, person: str, name: str) -> bytes | None:
        """An object as a person gets it; None if Storage refuses it."""
        answer = self._http.get(
            f"/storage/v1/object/authenticated/{BUCKET}/{name}", headers=self.headers(person)
        )
        return answer.content if answer.status_code == 200 else None

    def put(self, file: File, *, cut: bool = False) -> bool:
        """Upload the bytes, or half of them; returns True if Storage took them."""
        try:
            signed = self._http.post(
                f"/storage/v1/object/upload/sign/{BUCKET}/{file.object}", json={}, headers=self.headers(file.author)
            )  # fmt: skip
            if signed.status_code != 200:
                return False
            headers = {"content-type": file.type, "content-length": str(len(file.content))}
            content = _pieces(file.content, cut=cut)
            answer = self._http.put(f"/storage/v1{signed.json()['url']}", content=content, headers=headers)
        except (httpx.TransportError, ConnectionAbortedError):
            return False
        return answer.status_code == 200

    def _in_parts(self, file: File) -> bool:
        """Upload half of the bytes, which is cut; ask how far it came, and upload the rest."""
        half = len(file.content) // 2
        path, headers = "/storage/v1/upload/resumable", self.headers(file.author) | {"tus-resumable": "1.0.0"}
        told = {"bucketName": BUCKET, "objectName": file.object, "contentType": file.type}
        metadata = ",".join(
            f"{name} {base64.b64encode(value.encode()).decode()}" for name, value in told.items()
        )
        try:
            created = self._http.post(
                path, headers=headers | {"upload-length": str(len(file.content)), "upload-metadata": metadata}
            )
            if created.status_code != 201:
                return False
            path = "/storage/v1/upload/resumable/" + created.headers["location"].rpartition("/")[2]
            part = headers | {"content-type": "application/offset+octet-stream"}
            for first in (True, False):
                at = int(self._http.head(path, headers=headers).headers["upload-offset"])
                rest = file.content[at:half] if first else file.content[at:]
                length = {"upload-offset": str(at), "content-length": str(len(rest))}
                answer = self._http.patch(path, headers=part | length, content=_pieces(rest, cut=False))
                if answer.status_code != 204:
                    return False
        except (httpx.TransportError, KeyError):
            return False
        return True


def _pieces(content: bytes, *, cut: bool) -> Iterator[bytes]:
    end = len(content) // 2 if cut else len(content)
    for at in range(0, end, _PIECE):
        yield content[at : min(at + _PIECE, end)]
    if cut:
        raise ConnectionAbortedError


def _until_known(what: str) -> Iterator[None]:
    deadline = time.monotonic() + _PATIENCE
    yield
    while time.monotonic() < deadline:
        let_pass(_PAUSE, "before it is repeated")
        yield
    raise ProblemError(f"{what}: no result in {_PATIENCE:g} s")
