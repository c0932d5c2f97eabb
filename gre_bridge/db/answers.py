"""The JSON that the database's functions answer, as typed dictionaries.

`Message` and `Session` are M and S of the API. Times are ISO 8601 strings in UTC with milliseconds and `Z`; ids are
strings; a key that may be null is `| None`. The comment on each function in sql/migrations describes the same shape;
`tests/unit/test_answers.py` compares `Message`, `Session` and `SessionEvent` with the models of the API.
"""

from __future__ import annotations

from typing import Any, Literal, NotRequired, TypedDict

SenderKind = Literal["player", "staff", "system"]
StaffRole = Literal["staff", "admin"]
SessionEventKind = Literal[
    "opened", "closed", "reopened", "assigned", "released", "transferred", "blocked", "unblocked", "deleted"
]
OnlineState = Literal["online", "away", "offline"]


class Reason(TypedDict, total=False):
    """Present in a file in state `refused`: why."""

    refused: str


class Attachment(Reason):
    """A: a file of the chat (`gre.attachment_json`); never with a URL or the name of an object.

    `place` is null before a message has it; `width`, `height` (pixels, upright) and `preview` are null before the file was examined.
    """

    id: str
    kind: Literal["image", "file"]
    type: str
    name: str
    alt: str | None
    bytes: int
    width: int | None
    height: int | None
    preview: str | None
    place: int | None
    state: Literal["awaited", "stored", "ready", "refused", "gone"]


class BegunAttachment(Attachment):
    """Answer of `gre_attachment_begin`: `object` is the name and `object_type` the media type of the upload."""

    object: str
    object_type: str


class ObjectName(TypedDict):
    """One row of `gre_attachment_names`: an object of a file, and the name under which people save it."""

    id: str
    object: str
    name: str


class DroppedAttachment(TypedDict):
    """Answer of `gre_attachment_drop`."""

    id: str


class Message(TypedDict):
    """M: a message (`gre.message_json`)."""

    id: str
    seq: int
    session_id: str
    player_id: int
    player_name: str | None
    message: str
    sender: SenderKind
    sender_name: str | None
    status: Literal["sent", "delivered", "read"]
    timestamp: str
    created_at: str
    auto: NotRequired[Literal[True]]
    """Present in a message that the server wrote by itself."""
    attachments: NotRequired[list[Attachment]]
    """Present in a message with files."""


class Session(TypedDict):
    """S: a session (`gre.session_json`)."""

    id: str
    player_id: int
    player_name: str | None
    status: Literal["active", "closed"]
    assigned_staff_id: str | None
    last_seq: int
    rev: int
    unread_by_staff: int
    unread_by_player: int
    last_message: str | None
    last_message_at: str | None
    created_at: str
    closed_at: str | None
    closed_by: NotRequired[Literal["player", "idle", "system"]]
    """Present in a closed session, unless staff closed it or it is not known."""
    cycle: NotRequired[int]
    """Present in a session that was reopened; 2 or more."""
    rating: NotRequired[int]
    """Present in a closed session that the player has rated; 1 to 5."""


class QueuedSession(Session):
    """A session as `gre_session_queue` lists it; `waiting_since` is null while nobody waits for an answer."""

    waiting_since: str | None
    replied: NotRequired[bool]
    """Present if staff have written in this cycle, and the settings have a first_reply_goal."""


class StoredMessage(TypedDict):
    """Answer of `gre_send_message` and `gre_staff_reply`."""

    message: Message
    duplicate: bool


class HistoryPage(TypedDict):
    """Answer of `gre_chat_history`: messages ascending; `next` is the id before which the page before ends."""

    messages: list[Message]
    has_more: bool
    next: str | None
    session: Session | None
    sessions: list[Session] | None


class SessionPage(TypedDict):
    """Answer of `gre_list_sessions`; `next` is a cursor."""

    sessions: list[Session]
    next: str | None


class QueuePage(TypedDict):
    """Answer of `gre_session_queue`; `next` is a cursor."""

    sessions: list[QueuedSession]
    next: str | None


class SentAttachment(Attachment):
    """A file with the message that has it, and the session's rev after its last change."""

    message_id: str
    rev: int


class ChangedAttachment(TypedDict):
    """A file that has changed since its message was sent."""

    session_id: str
    attachment: Attachment


class FilesMissed(TypedDict, total=False):
    """Present if files of messages that were not missed have changed meanwhile."""

    attachments: list[ChangedAttachment]


class CatchUp(FilesMissed):
    """Answer of `gre_catch_up`: `positions` has the seq after which messages of a session were missed."""

    sessions: list[Session]
    positions: dict[str, int]
    missed: list[Message]


class Entry(TypedDict):
    """Answer of `gre_enter`; `missed` is null for who cannot enter."""

    actor: Actor
    missed: CatchUp | None


class ReadMark(TypedDict):
    """Answer of `gre_mark_read`; `timestamp` is null while nothing was read."""

    session_id: str
    by: Literal["player", "staff"]
    up_to_seq: int
    timestamp: str | None
    changed: bool


class ChangedSession(TypedDict):
    """Answer of `gre_set_session_status`."""

    session: Session


class ClosedSession(TypedDict):
    """Answer of `gre_close_session`; `session` is null if none was open."""

    session: Session | None


class SessionEvent(TypedDict):
    """One event of a session's story; `data` depends on `kind` (comment on `gre_chat_events`)."""

    rev: int
    at: str
    after_seq: int
    kind: SessionEventKind
    staff_id: str | None
    by_staff_id: str | None
    data: dict[str, Any]


class Note(TypedDict):
    """N: a private note of staff (`gre.note_json`)."""

    id: str
    session_id: str
    n: int
    after_seq: int
    staff_id: str
    staff_name: str
    text: str
    created_at: str


class PlayerEnabled(TypedDict):
    """Answer of `gre_enable_player`."""

    player_id: int
    enabled: bool


class OnlineStaff(TypedDict):
    """Presence of one person of the staff; answer of `gre_set_online_status`."""

    staff_id: str
    display_name: str | None
    status: OnlineState


class StaffMember(OnlineStaff):
    """One entry of `gre_list_staff`; answer of `gre_set_staff`."""

    role: StaffRole
    open_sessions: int
    takes_sessions: bool
    max_sessions: int | None


class DeadLetter(TypedDict):
    """A delivery that its service rejected for good: ids, never text."""

    id: str
    sink: str
    event: str
    session_id: str | None
    message_id: str | None
    attempts: int
    error: str | None
    created_at: str


class DeadLetterPage(TypedDict):
    """Answer of `gre_dead_letters`; `next` is a cursor."""

    dead: list[DeadLetter]
    next: str | None


class SessionNews(TypedDict):
    """What is newer in one session.

    `reads` says how far each side has read: [seq, time; null while nothing was read]. `more`: not all messages fitted.
    """

    session: Session
    reads: dict[Literal["staff", "player"], tuple[int, str | None]]
    messages: list[Message]
    more: bool
    events: NotRequired[list[SessionEvent]]
    """Present in a read for staff, if there are new ones: the first of them."""
    events_more: NotRequired[int]
    """Present if there are more of them: those up to this rev are here."""
    last_note: NotRequired[int]
    """`n` of the last note, 0 without notes. Absent from a read for players."""
    notes: NotRequired[list[Note]]
    attachments: NotRequired[list[SentAttachment]]
    """Present if files have changed since their messages were sent: the first of them."""
    files_more: NotRequired[int]
    """Present if there are more of them: those up to this rev are here."""


Known = tuple[int, int, int | None] | tuple[int, int, int | None, str | None]
"""What a reader has of a session: seq, rev, and `n` of the last note (None if not known). A hub that has only a part of what
came after a time also says that time: events and files are new from it on."""


class HubChanges(TypedDict):
    """Answer of `gre_hub_changes_v1`: `skipped` and `other_sessions` are ids of sessions (too large; of other players)."""

    now: str
    sessions: list[SessionNews]
    more: bool
    skipped: list[str]
    other_sessions: list[str]


class MayRate(TypedDict, total=False):
    """Present, and true, for players who can rate closed sessions."""

    rating_enabled: bool


class Actor(MayRate):
    """Answer of `gre_whoami`; `chat_enabled` is null but for players, `expires_at` is in Unix seconds."""

    role: Literal["player", "staff", "admin", "service", "none"]
    player_id: int | None
    staff_id: str | None
    display_name: str | None
    chat_enabled: bool | None
    user_id: str | None
    expires_at: float | None


class ActorClaim(TypedDict):
    """The identity with which a client authenticated, to be checked again."""

    sub: str | None
    role: str
    player_id: int | None
    staff_id: str | None


class Presence(TypedDict):
    """Answer of `gre_hub_presence_v1`: `revoked` may no longer listen, `disabled` may no longer write."""

    online: list[OnlineStaff]
    disabled: list[int]
    revoked: list[ActorClaim]
