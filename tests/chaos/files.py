"""Judges the files of a case: what the database, Storage and the other side have, compared with what was sent."""

from __future__ import annotations

import io
from collections import Counter
from dataclasses import dataclass
from typing import Any

from PIL import Image

from tests.chaos.scene import Scene
from tests.chaos.senders import BUCKET, ERASED, HEIGHT, WIDTH, File, Portal
from tests.support.corpus import CANARY, CORNERS
from tests.support.waiting import wait_until

THUMB = 360
TOLERANCE = 40
"""Of a colour of a JPEG."""
DELETED_WITHIN = 45.0
"""Seconds to the deletion of every object that was given up, after the end of the fault: the pauses of failures included."""


@dataclass
class FilesReport:
    """The files of one case. `ready` is the longest time in seconds from an upload, or from the end of the fault, to the end of
    the examination."""

    bound: float
    sent: int = 0
    pictures: int = 0
    dropped: int = 0
    lost: int = 0
    """Files of messages that the other side cannot fetch as they were sent."""
    doubled: int = 0
    """Objects that no file has, and files that are there twice."""
    left: int = 0
    """Objects that are left after an erase or a drop."""
    ready: float = 0.0


def settle(scene: Scene, report: FilesReport) -> list[str]:
    """Wait until every file is examined, fetch all, erase a player, and wait for the deletions; returns the problems."""
    problems, sent = list(scene.senders.problems), scene.senders.files
    try:
        wait_until(lambda: not _waiting(scene), report.bound + 60, 0.1, what="files that are examined")
    except AssertionError:
        problems.append(f"files wait: {_waiting(scene)}")
    report.ready = _slowest(scene)
    portal = Portal(scene.stack)
    try:
        problems += _compare(scene, sent, report)
        problems += _fetch(portal, sent, report)
        problems += _erase(scene, sent, report)
    finally:
        portal.close()
    return problems


def _rows(scene: Scene, query: str, *values: Any) -> list[dict[str, Any]]:
    with scene.stack.db() as conn:
        return conn.execute(query.encode(), list(values)).fetchall()


def _waiting(scene: Scene) -> list[dict[str, Any]]:
    return _rows(
        scene,
        "select state, last_error, count(*) as n from gre_chat_attachments a left join gre.media_jobs j"
        " on j.attachment_id = a.id where state in ('awaited', 'stored') or j.attachment_id is not null group by 1, 2",
    )


def _slowest(scene: Scene) -> float:
    (row,) = _rows(
        scene,
        "select coalesce(extract(epoch from max(ready_at - greatest(stored_at, to_timestamp(%s)))), 0)::float8 as seconds"
        " from gre_chat_attachments",
        scene.over_at,
    )
    return max(0.0, float(row["seconds"]))


def _compare(scene: Scene, files: list[File], report: FilesReport) -> list[str]:
    """The rows of the files, of their messages and of their objects."""
    rows = _rows(
        scene,
        "select a.id::text, a.message_id::text as message, a.state, a.refused, a.kind, a.bytes, a.width, a.height, a.place,"
        " a.stored_at <= m.created_at and m.attachment_ids[a.place + 1] = a.id as in_order"
        " from gre_chat_attachments a left join gre_chat_messages m on m.id = a.message_id",
    )
    found = {row["id"]: row for row in rows}
    bound = {file.id: file for file in files if file.message}
    report.sent, report.pictures = len(bound), sum(file.picture for file in bound.values())
    report.dropped = sum(file.dropped for file in files)
    problems = []
    for file in bound.values():
        row = found.pop(file.id, None)
        size = (row["width"], row["height"]) if row else None
        if row is None or row["message"] != file.message or not row["in_order"]:
            report.lost += 1
            problems.append(f"a file of a message is {row}")
        elif row["state"] != "ready" or row["bytes"] != len(file.content):
            problems.append(f"a file ended {row['state']} {row['refused']}, {row['bytes']} bytes")
        elif (row["kind"], size) != (("image", (WIDTH, HEIGHT)) if file.picture else ("file", (None, None))):
            problems.append(f"a {file.type} is a {row['kind']} of {size}")
    problems += [f"a file that was not sent is there: {row}" for row in found.values()]
    named = _rows(
        scene, "select unnest(attachment_ids)::text as id, count(*) as n from gre_chat_messages group by 1"
    )
    if {row["id"]: row["n"] for row in named} != dict.fromkeys(bound, 1):
        problems.append("messages name other files than those that were sent with them")
    return problems


def _objects(scene: Scene, files: list[File]) -> Counter[str]:
    rows = _rows(
        scene,
        "select name from storage.objects where bucket_id = %s and split_part(name, '/', 2) = any (%s)",
        BUCKET,
        [file.id for file in files],
    )
    return Counter(row["name"] for row in rows)


def _fetch(portal: Portal, files: list[File], report: FilesReport) -> list[str]:
    """Fetch each file of a message as the other side: its bytes, or the view and the thumb of a picture."""
    problems = []
    sent = [file for file in files if file.message]
    for reader in sorted({file.reader for file in sent}):
        mine = [file for file in sent if file.reader == reader]
        names = {variant: portal.names(reader, mine, variant) for variant in ("view", "thumb", "file")}
        for file in mine:
            if (
                problem := _wrong(portal, reader, file, {v: names[v].get(file.id) for v in names})
            ) is not None:
                report.lost += 1
                problems.append(problem)
    return problems


def _wrong(portal: Portal, reader: str, file: File, names: dict[str, str | None]) -> str | None:
    if not file.picture:
        content = portal.fetch(reader, names["file"]) if names["file"] else None
        return None if content == file.content else "a file that was fetched is not the one that was sent"
    if portal.fetch(reader, file.object) is not None:
        return "the original of a picture was handed out"
    for variant in ("view", "thumb"):
        name = names[variant]
        content = portal.fetch(reader, name) if name else None
        if content is None:
            return f"there is no {variant}"
        if problem := wrong_picture(content):
            return f"{variant}: {problem}"
    return None


def wrong_picture(content: bytes) -> str:
    """What is wrong with a picture of `corners`, or an empty string."""
    with Image.open(io.BytesIO(content)) as image:
        if image.size != (WIDTH, HEIGHT):
            return f"{image.size}"
        if CANARY in content or image.getexif() or image.info.get("icc_profile"):
            return "it has metadata"
        places = [(x, y) for y in (HEIGHT // 4, HEIGHT * 3 // 4) for x in (WIDTH // 4, WIDTH * 3 // 4)]
        seen = [image.convert("RGB").getpixel(place) for place in places]
    for colour, corner in zip(seen, CORNERS, strict=True):
        assert isinstance(colour, tuple)
        if any(abs(a - b) > TOLERANCE for a, b in zip(colour, corner, strict=True)):
            return f"not upright: {seen}"
    return ""


def _erase(scene: Scene, files: list[File], report: FilesReport) -> list[str]:
    """Erase a player: afterwards exactly the objects of the other files are there."""
    scene.stack.drained()
    (row,) = _rows(scene, "select id::text from gre_chat_sessions where player_id = %s", ERASED)
    scene.load.sent[:] = [one for one in scene.load.sent if one.session != row["id"]]
    scene.stack.http.post(
        "/rest/v1/rpc/gre_erase_player", json={"p_player_id": ERASED}, headers=scene.stack.headers()
    ).raise_for_status()
    problems = []
    try:
        wait_until(
            lambda: not _rows(scene, "select from gre_storage_deletions limit 1"), DELETED_WITHIN + 60, 0.1,
            what="no deletion that waits",
        )  # fmt: skip
    except AssertionError:
        problems.append(
            f"deletions wait: {_rows(scene, 'select last_error, attempt from gre_storage_deletions')}"[:300]
        )
    kept = {file.id for file in files if file.message and file.player != ERASED}
    objects = _objects(scene, files)
    wanted = Counter(
        file.object.replace("original", variant)
        for file in files
        if file.id in kept
        for variant in (("original", "view", "thumb") if file.picture else ("original",))
    )
    over = objects - wanted
    report.left = sum(over[name] for name in over if name.split("/")[1] not in kept)
    report.doubled = sum(over.values()) - report.left
    missing = wanted - objects
    if report.left:
        problems.append(f"{report.left} objects are left after erase or drop")
    if report.doubled:
        problems.append(f"{report.doubled} objects too many")
    if missing:
        problems.append(f"{sum(missing.values())} objects are missing")
    if _rows(scene, "select from gre_chat_attachments where player_id = %s", ERASED):
        problems.append("files of an erased player are there")
    return problems


def late(report: FilesReport) -> list[str]:
    """The times above their bounds."""
    return (
        [f"files were examined {report.ready:.1f} s after the fault"] if report.ready > report.bound else []
    )
