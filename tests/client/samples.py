"""The pages of the docs, as they are and as they were before they were corrected."""

from __future__ import annotations

import re
from pathlib import Path

from tests.client.world import Subject

DOCS = Path(__file__).parents[2] / "docs"
EARLIER = Path(__file__).parent / "earlier"
_BLOCK = re.compile(r"^```js\n// ([^\n]+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_IMPORTS = """
import ws from 'ws'
import { currentToken, env, getToken, say, serve, show as append } from './driver.mjs'
globalThis.WebSocket ??= ws
const show = (item) => item.seq && append(item) // the pages of old show sessions, too
const ring = () => {}
const showSession = () => {}
const refused = (why) => say({ refused: why })
const stopped = (code) => say({ stopped: code })
const PLAYER_ID = Number(env.PLAYER_ID)
const { SESSION_ID, WS_URL } = env
"""
_SOCKET = """
const freshToken = () => getToken()
"""
_SOCKET_COMMANDS = """
await serve({
  send: ({ text }) => send(text),
  unsent: () => [...unsent.values()].map(({ message }) => message),
  connect: () => {},
})
"""
_PUSHER_COMMANDS = """
const written = new Set()
await serve({
  send({ text }) {
    written.add(text)
    void send(text).finally(() => written.delete(text))
  },
  unsent: () => [...written],
})
"""
_EARLIER_SOCKET = """
// Around the page of that time: it sends, and shows what is acknowledged, as those who read it wrote it.
const token = currentToken()
const texts = new Map()
globalThis.WebSocket = class extends ws {
  constructor(url) {
    super(url)
    this.addEventListener('error', () => {}) // as in a browser, where an error ends nothing
    this.addEventListener('message', ({ data }) => {
      const { type, id, sessionId: session_id, seq } = JSON.parse(data)
      if (type === 'message_ack') show({ id, session_id, seq, message: texts.get(id) })
    })
  }
}
function send(message) {
  const id = crypto.randomUUID()
  texts.set(id, message)
  if (socket.readyState === 1) socket.send(JSON.stringify({ type: 'send_message', id, clientId: id, message }))
}
"""
_EARLIER_PUSHER = """
// Around the page of that time: a test begins when it has subscribed; it sends by a sample, and shows what was stored.
await new Promise((resolve) =>
  pusher.subscribe(`private-player-${PLAYER_ID}`).bind('pusher:subscription_succeeded', resolve),
)
async function send(text) {
  const { data: message, error } = await supabase
    .from('gre_chat_messages')
    .insert({ player_id: PLAYER_ID, sender: 'player', sender_name: 'Asha', message: text })
    .select()
    .single()
  if (!error) show(message)
}
"""
_EARLIER_COMMANDS = """
await serve({ send: ({ text }) => void send(text), unsent: () => [] })
"""
_MEMORY = "keeps its texts in memory only"
_ONE_PERSON = "is made for one person"
_NEWEST = "shows the newest messages only"


def _snippets(name: str) -> dict[str, str]:
    found = dict(_BLOCK.findall((DOCS / name).read_text()))
    assert found, f"no samples in {name}"
    return found


def _socket_page() -> str:
    return "".join([_IMPORTS, _SOCKET, _snippets("websocket.md")["player: a whole page"], _SOCKET_COMMANDS])


def _pusher_page() -> str:
    guide = _snippets("portals.md")
    names = [
        "settings",
        "page: set up",
        "player: show each message once and in order",
        "player: receive through Pusher",
        "player: send until it is stored",
    ]
    return "".join([_IMPORTS, *(guide[name] for name in names), _PUSHER_COMMANDS])


def _earlier_socket_page() -> str:
    code = (EARLIER / "websocket.js").read_text()
    assert code.count("'wss://chat.example.com/ws'") == 1
    code = code.replace("'wss://chat.example.com/ws'", "WS_URL")
    return f"{_IMPORTS}{_EARLIER_SOCKET}{code}connect()\n{_EARLIER_COMMANDS}"


def _earlier_pusher_page() -> str:
    code = (EARLIER / "portals.js").read_text()
    return f"{_IMPORTS}{code}{_EARLIER_PUSHER}{_EARLIER_COMMANDS}"


SOCKET_SAMPLE = Subject(
    "the page of docs/websocket.md",
    _socket_page,
    cannot={
        "reload_with_unsent_text": _MEMORY,
        "two_tabs": _MEMORY,
        "another_person_signs_in": _ONE_PERSON,
        "token_of_another_person": _ONE_PERSON,
        "upgrades_refused": "has the socket only",
    },
)
PUSHER_SAMPLE = Subject(
    "the page of docs/portals.md",
    _pusher_page,
    cannot={
        "reload_with_unsent_text": _MEMORY,
        "two_tabs": _MEMORY,
        "another_person_signs_in": _ONE_PERSON,
        "token_of_another_person": _ONE_PERSON,
        "token_expires": "its token is a constant",
        "token_never_renewed": "its token is a constant",
        "sleep_of_an_hour": "pusher-js takes two and a half minutes to find a dead connection by itself",
        "upgrades_refused": "gets no events without a socket, and looks for none",
    },
)
EARLIER_SOCKET = Subject("the earlier page of docs/websocket.md", _earlier_socket_page)
EARLIER_PUSHER = Subject("the earlier page of docs/portals.md", _earlier_pusher_page)
