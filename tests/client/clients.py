"""The pages that are made with the client, in Node.js: over /ws, over Pusher and Supabase, and with the hooks."""

from __future__ import annotations

from tests.client.node import PAGES
from tests.client.world import Subject


def _page(name: str, transport: str = "") -> str:
    return f"process.env.TRANSPORT = '{transport}'\n{(PAGES / name).read_text()}"


SOCKET_CLIENT = Subject("the client over /ws", lambda: _page("client.mjs"), pages_back=True)
PUSHER_CLIENT = Subject(
    "the client over Pusher and REST", lambda: _page("client.mjs", "pusher"), pages_back=True
)
SUPABASE_CLIENT = Subject(
    "the client over Pusher and supabase-js", lambda: _page("client.mjs", "supabase"), pages_back=True
)
HOOKS = Subject("the hooks in StrictMode", lambda: _page("hooks.mjs"), pages_back=True)
CLIENTS = (SOCKET_CLIENT, PUSHER_CLIENT, SUPABASE_CLIENT, HOOKS)
"""Each bears every case."""
