"""The files' side of `make bench`: how soon the other side sees a picture, and what examining costs the relay.

`seen`: a player announces a picture over REST, uploads it and sends it; a member of staff with a socket hears that it is ready.
`beside`: the relay at 50 messages a second, in turn alone, with ten uploads of plain files a second, and with ten of pictures.
The plain files cost what pictures cost but the decoding, so the difference of those two is the decoder's.
"""

from __future__ import annotations

import io
import json
import multiprocessing
import os
import random
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
from PIL import Image
from websockets.sync.client import connect

from tests.bench.lab import BRIDGE, Lab, Running, Steal, percentile
from tests.bench.report import Section
from tests.chaos.senders import File, Portal
from tests.support.loopback import NO_TLS
from tests.support.stack import StackProcess, Worker
from tests.support.waiting import let_pass, wait_until

Say = Callable[[str], None]

SIZES = {"100 KB": 100_000, "5 MB": 5_000_000}
COUNT = 24
"""Pictures of each size."""
ROUNDS, SECONDS = 4, 10.0
"""How often each load has its turn, and how long."""
RATE, UPLOADS = 50.0, 10.0
"""Messages and uploads a second."""
UPLOADERS = 300
"""Players who upload, beside those who write."""
LOADS = ("no files", "plain files", "pictures")


def picture(size: int) -> bytes:
    """A photo-like JPEG of about `size` bytes: noise over a gradient, so that decoding costs what a photo costs."""
    side = int((size / 0.55) ** 0.5)
    noise = Image.effect_noise((side, side), 60)
    image = Image.merge("RGB", (noise, noise.rotate(90), Image.linear_gradient("L").resize((side, side))))
    quality = 90
    while len(data := _jpeg(image, quality)) > size and quality > 30:
        quality -= 5
    return data


def _jpeg(image: Image.Image, quality: int) -> bytes:
    out = io.BytesIO()
    image.save(out, "JPEG", quality=quality)
    return out.getvalue()


# Seen by the other side -------------------------------------------------------------------------------------------


@dataclass
class Seen:
    """Seconds since the announcement, of each picture."""

    size: str
    bytes: int
    uploaded: list[float] = field(default_factory=list)
    ready: list[float] = field(default_factory=list)
    """When the staff's socket heard that it is ready."""


class _Listener:
    """A member of staff's socket, and when it heard of each file."""

    def __init__(self, worker: Worker, token: str) -> None:
        url = worker.url.replace("http", "ws", 1) + "/ws"
        self._socket = connect(
            url, additional_headers={"Authorization": f"Bearer {token}"}, compression=None, proxy=None
        )
        self._socket.send(json.dumps({"type": "authenticate"}))
        while json.loads(self._socket.recv())["type"] != "authenticated":
            pass
        self.heard: dict[str, float] = {}
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        for text in self._socket:
            frame = json.loads(text)
            files = [frame["attachment"]] if frame["type"] == "attachment_updated" else []
            if frame["type"] == "chat_message":
                files = frame["message"].get("attachments", [])
            for file in files:
                if file["state"] == "ready":
                    self.heard.setdefault(file["id"], time.perf_counter())

    def close(self) -> None:
        self._socket.close()
        self._thread.join(10)


def seen(stack: StackProcess, say: Say, count: int) -> list[Seen]:
    """Send `count` pictures of each size, one after the other, in turns."""
    stack.reset()
    found = {name: Seen(name, 0) for name in SIZES}
    pictures = {name: picture(size) for name, size in SIZES.items()}
    with stack.worker() as worker:
        wait_until(lambda: worker.metric("gre_realtime_state", state="live") == 1, 30, what="live")
        listener = _Listener(worker, stack.keys.token_of("staff:s1", expires_in=3600))
        say(f"files: {count} pictures of {' and '.join(SIZES)}, until the staff's socket hears of them")
        try:
            with httpx.Client(base_url=worker.url, timeout=60, trust_env=False, verify=NO_TLS) as http:
                for n in range(count + 1):
                    for name, content in pictures.items():
                        one = _send(stack, http, 1000 + n, content, listener)
                        if n:  # the first ones open sessions and connections
                            found[name].bytes = len(content)
                            found[name].uploaded.append(one[0])
                            found[name].ready.append(one[1])
        finally:
            listener.close()
    return list(found.values())


def _send(
    stack: StackProcess, http: httpx.Client, player: int, content: bytes, listener: _Listener
) -> tuple[float, float]:
    token = stack.keys.token_of(f"player:{player}", expires_in=3600)
    headers = {"Authorization": f"Bearer {token}"}
    file = str(uuid.uuid4())
    began = time.perf_counter()
    body = {"id": file, "name": "photo.jpg", "type": "image/jpeg", "bytes": len(content)}
    begun = http.post("/api/gre-chat/attachments", json=body, headers=headers).raise_for_status().json()
    upload = begun["upload"]
    http.request(
        upload["method"], upload["url"], content=content, headers=upload["headers"]
    ).raise_for_status()
    uploaded = time.perf_counter() - began
    http.post("/api/gre-chat/send", json={"attachmentIds": [file]}, headers=headers).raise_for_status()
    wait_until(lambda: file in listener.heard, 60, 0.01, what="a ready picture")
    return uploaded, listener.heard[file] - began


# Beside the relay -------------------------------------------------------------------------------------------------


@dataclass
class Beside:
    """What the relay took under one load, all rounds together, in milliseconds."""

    load: str
    times: list[float] = field(default_factory=list)
    p50s: list[float] = field(default_factory=list)
    p99s: list[float] = field(default_factory=list)
    """Of each round."""
    uploads: int = 0
    examined: int = 0
    """While messages were written: what is left then is given up."""
    lost: int = 0
    steal: float = 0.0


def beside(lab: Lab, say: Say, rounds: int, seconds: float) -> list[Beside]:
    """Measure the loads in turn, so that what the machine does meanwhile meets all alike."""
    lab.fresh(sinks=("pusher", "onesignal"))
    found = {load: Beside(load) for load in LOADS}
    photo = picture(100_000)
    with lab.running(BRIDGE) as running:
        lab.all_arrived(lab.insert(60, 20), 20)
        for n in range(rounds):
            for load in LOADS[n % 3 :] + LOADS[: n % 3]:
                say(f"files: {RATE:g} messages/s and {load}, round {n + 1} of {rounds}")
                _round(lab, running, found[load], photo, seconds)
    return list(found.values())


def _round(lab: Lab, running: Running, found: Beside, photo: bytes, seconds: float) -> None:
    before, steal = _examined(running), Steal()
    with _uploading(lab.stack, found.load, photo) as uploads:
        if found.load != LOADS[0]:
            wait_until(lambda: uploads() > UPLOADS, 60, 0.1, what="uploads")
        committed = lab.insert(int(RATE * seconds), RATE)
        found.examined += int(_examined(running) - before)
        first = lab.all_arrived(committed, 60)
        found.uploads += uploads()
    found.steal = max(found.steal, steal.share())
    times = [(first[c.id] - c.at) * 1000 for c in committed if c.id in first]
    found.times += times
    found.p50s.append(percentile(times, 0.5))
    found.p99s.append(percentile(times, 0.99))
    found.lost += len(committed) - len(times)
    with lab.stack.db() as conn:
        conn.execute("delete from gre.media_jobs")
    let_pass(3.0, "the file in work ends")


def _examined(running: Running) -> float:
    return running.metric("gre_files_examined_total", result="ready")


@contextmanager
def _uploading(stack: StackProcess, load: str, photo: bytes) -> Iterator[Callable[[], int]]:
    """Upload UPLOADS files a second from a process of its own; yields what counts them."""
    if load == LOADS[0]:
        yield lambda: 0
        return
    context = multiprocessing.get_context("fork")
    count, over = context.Value("i", 0), context.Event()
    process = context.Process(target=_upload, args=(stack, load, photo, count, over))
    process.start()
    try:
        yield lambda: int(count.value)
    finally:
        over.set()
        process.join(60)


def _upload(stack: StackProcess, load: str, photo: bytes, count: Any, over: Any) -> None:
    portal, rng = Portal(stack), random.Random(os.getpid())
    at = time.monotonic()
    while not over.wait(max(0.0, at - time.monotonic())):
        at = max(at + 1 / UPLOADS, time.monotonic() - 1.0)
        player = 10_000 + rng.randrange(UPLOADERS)
        if load == "pictures":
            file = File(player, staff=False, content=photo, type="image/jpeg")
        else:
            content = b"%d," % player * (len(photo) // 6)
            file = File(player, staff=False, content=content, type="text/csv")
        portal.begin(file)
        portal.put(file)
        count.value += 1


# The report -------------------------------------------------------------------------------------------------------


def files(stack: StackProcess, lab: Lab, say: Say, *, quick: bool) -> list[Section]:
    """Measure both; returns their sections."""
    delivered = seen(stack, say, COUNT // 4 if quick else COUNT)
    loads = beside(lab, say, 1 if quick else ROUNDS, SECONDS)
    return [_seen_section(delivered), _beside_section(loads)]


def _seen_section(found: list[Seen]) -> Section:
    rows = [
        [f"JPEG of {one.bytes / 1e6:.1f} MB", str(len(one.ready)),
         *(f"{percentile(values, share):.2f}" for values in (one.uploaded, one.ready) for share in (0.5, 0.99))]
        for one in found
    ]  # fmt: skip
    return Section(
        "Files",
        ["picture", "sent", "uploaded, p50 s", "p99", "ready at the staff's socket, p50 s", "p99"],
        rows,
        "Seconds from the announcement (REST) until the upload is answered, and until the socket of a member of staff hears that the"
        " picture, sent at once with a message, is ready to be shown. One picture at a time; the decoder is a process of its own for each.",
    )


def _beside_section(found: list[Beside]) -> Section:
    base = found[0]
    rows = [
        [
            one.load, str(len(one.times)), str(one.uploads), str(one.examined), f"{percentile(one.times, 0.5):.1f}",
            f"{percentile(one.times, 0.99):.1f}", f"{min(one.p50s):.1f} to {max(one.p50s):.1f}",
            f"{min(one.p99s):.1f} to {max(one.p99s):.1f}",
            f"{percentile(one.times, 0.5) / percentile(base.times, 0.5):.2f}", str(one.lost), f"{one.steal * 100:.0f}",
        ]
        for one in found
    ]  # fmt: skip
    return Section(
        "The relay beside uploads",
        ["beside", "messages", "uploads", "examined", "p50 ms", "p99", "p50 of rounds", "p99 of rounds", "p50 ÷ no files", "lost", "steal %"],
        rows,
        f"The relay at {RATE:g} messages a second, alone and beside {UPLOADS:g} uploads of 100 KB a second, in turn, {len(base.p50s)} rounds of each."
        " Plain files cost what pictures cost but the decoding. The stand-in of Storage runs in the same process as that of PostgREST, on"
        " the same two cores.",
    )  # fmt: skip
