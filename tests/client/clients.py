"""The pages that are made with the client, in Node.js: over /ws, over Pusher and Supabase, and with the hooks."""

from __future__ import annotations

import re

from tests.client.node import CLIENT, PAGES
from tests.client.world import Subject

_GUIDE = CLIENT.parent / "samples" / "pages" / "pusher.js"
_IMPORT = re.compile(r"^import .*\n", re.MULTILINE)
_AROUND = """
import {{ PUSHER_AUTH_URL, PUSHER_KEY, PUSHER_OPTIONS, SUPABASE_ANON_KEY, SUPABASE_URL }} from './guide.mjs'
import {{ Pusher, begin, createChat, createClient, pusherTransport }} from './guide.mjs'

await begin(() => {{
{page}}})
"""


def _page(name: str, transport: str = "") -> str:
    return f"process.env.TRANSPORT = '{transport}'\n{(PAGES / name).read_text()}"


def _guide_page() -> str:
    return _AROUND.format(page=_IMPORT.sub("", _GUIDE.read_text()))


SOCKET_CLIENT = Subject("the client over /ws", lambda: _page("client.mjs"), pages_back=True)
PUSHER_CLIENT = Subject(
    "the client over Pusher and REST", lambda: _page("client.mjs", "pusher"), pages_back=True
)
SUPABASE_CLIENT = Subject(
    "the client over Pusher and supabase-js", lambda: _page("client.mjs", "supabase"), pages_back=True
)
GUIDE = Subject("the page of docs/client.md over Pusher and supabase-js", _guide_page, pages_back=True)
HOOKS = Subject("the hooks in StrictMode", lambda: _page("hooks.mjs"), pages_back=True)
PUSHER_HOOKS = Subject(
    "the hooks in StrictMode over Pusher and REST", lambda: _page("hooks.mjs", "pusher"), pages_back=True
)
_READS = "process.env.READ_EVERY = '0'\n"
"""Nothing is read now and then: what a page shows while it is live has come as an event."""
_ONE = "shows one session, and is one person's"


def _staff(name: str, transport: str = "") -> Subject:
    return Subject(
        name,
        lambda: _READS + _page("staff.mjs", transport),
        staff="s1",
        pages_back=True,
        cannot={
            "session_closed_meanwhile": _ONE,
            "lost_acknowledgement": _ONE,
            "another_person_signs_in": _ONE,
            "token_of_another_person": _ONE,
        },
    )


STAFF_SOCKET = _staff("a page of staff over /ws")
STAFF_PUSHER = _staff("a page of staff over Pusher and REST", "pusher")
STAFF_SUPABASE = _staff("a page of staff over Pusher and supabase-js", "supabase")
CLIENTS = (SOCKET_CLIENT, GUIDE, HOOKS, PUSHER_HOOKS)
"""Each bears every case. Between them they have each transport, and each way to write a page."""
