"""The database as `gre-bridge doctor` sees it over PostgREST: probes, the test message of `--live`, and SQL that its findings suggest.

A probe needs the server's own error, so refusals are not translated: every method raises PostgrestError for a
refusal, and a BridgeError if there was no usable answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import orjson

from gre_bridge.config.keys import gateway_key
from gre_bridge.db.http import Pool
from gre_bridge.db.media import StorageState
from gre_bridge.db.names import MESSAGES, PUBLICATION
from gre_bridge.db.operations import OperatorDatabase
from gre_bridge.db.postgrest import Caller, PostgrestClient
from gre_bridge.db.types import DeskStats, Json
from gre_bridge.errors import TransientError

PUBLISH_MESSAGES = f"alter publication {PUBLICATION} add table public.{MESSAGES}"
GRANT_NOTIFY = "grant execute on function public.gre_relay_notify_v1() to service_role"


def sink_statement(sink: str, *, enabled: bool) -> str:
    """Return the SQL that makes the trigger write deliveries for `sink`, or stops it."""
    return f"update gre_relay_sinks set enabled = {str(enabled).lower()} where name = '{sink}'"  # noqa: S608 - shown to people


def erase_statement(player: int) -> str:
    """Return the SQL that erases a player."""
    return f"select gre_erase_player({player})"


@dataclass(frozen=True, slots=True)
class ProbeMessage:
    """A player's message that doctor sends. `id` is a UUID."""

    id: str
    player_id: int
    text: str
    sender_name: str


class InspectionDatabase:
    """The calls of doctor. Opened with `open`, closed with `aclose`."""

    def __init__(self, *, rest: PostgrestClient, pool: Pool, url: str, key: str, apikey: str | None) -> None:
        """Use `open`."""
        self._rest = rest
        self._pool = pool
        self._tables = f"{url.rstrip('/')}/rest/v1/"
        self._key = key
        self._headers = {"apikey": gateway_key(key, apikey), "Authorization": f"Bearer {key}"}

    @classmethod
    async def open(cls, *, url: str, key: str, apikey: str | None, timeout: float) -> Self:
        """Return the project at `url`, called with its service key. `timeout` in seconds bounds each call."""
        rest = await PostgrestClient.open(url=url, key=key, apikey=apikey, timeout=timeout, connections=2)
        pool = Pool(service="PostgREST", connections=1, timeout=timeout)
        return cls(rest=rest, pool=pool, url=url, key=key, apikey=apikey)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._rest.aclose()
        await self._pool.aclose()

    async def schema_version(self) -> Any:
        """Return the version of the schema, an integer if the server is a migrated project."""
        return await self._rest.rpc("gre_schema_version", {})

    async def check_token(self, token: str) -> None:
        """Make a call with `token` instead of the service key."""
        await self._rest.rpc("gre_whoami", {}, caller=Caller(token))

    async def status(self) -> Json:
        """Return the clock, the sinks and the workers. Raises a BridgeError only."""
        return await OperatorDatabase(self._rest).status(blocked=0)

    async def desk_stats(self) -> DeskStats:
        """Return which sessions wait for the staff, and who could get them. Raises a BridgeError only."""
        return await OperatorDatabase(self._rest).desk_stats()

    async def storage_state(self) -> StorageState:
        """Return how files and deletions are doing."""
        return StorageState.from_json(await self._rest.rpc("gre_storage_state_v1", {}))

    async def notify_workers(self) -> bool:
        """Let the database send a wake-up. Returns False if this project's Realtime cannot send broadcasts from SQL."""
        return bool(await self._rest.rpc("gre_relay_notify_v1", {}))

    async def register_listener(self, listener: str) -> None:
        """Register a listener that does not poll: the trigger sends no wake-up while all registered ones are polling."""
        await self._rest.rpc(
            "gre_relay_listen_v1", {"p_listener": listener, "p_kind": "relay", "p_polls_for": 0}
        )

    async def remove_listener(self, listener: str) -> None:
        """Remove a registration. It expires after 15 s anyway."""
        await self._rest.rpc("gre_relay_unlisten_v1", {"p_listener": listener})

    async def is_player_known(self, player: int, *, sender_name: str) -> bool:
        """Return True if the player has a profile, or messages of anybody but `sender_name`."""
        history = await self._rest.rpc(
            "gre_chat_history", {"p_player_id": player, "p_limit": 500}, caller=self._player(player)
        )
        if history["has_more"] or any(item["sender_name"] != sender_name for item in history["messages"]):
            return True
        return bool(await self._select("gre_chat_players", f"player_id=eq.{player}", "player_id"))

    async def send(self, message: ProbeMessage) -> str:
        """Insert the message, and return the id of its session."""
        arguments = {
            "p_id": message.id, "p_player_id": message.player_id, "p_message": message.text,
            "p_player_name": message.sender_name, "p_sender_name": message.sender_name,
        }  # fmt: skip
        answer = await self._rest.rpc("gre_send_message", arguments, caller=self._player(message.player_id))
        session: str = answer["message"]["session_id"]
        return session

    async def deliveries(self, message: str) -> list[Json]:
        """Return the message's deliveries: {"sink", "state", "created_at", "settled_at", "last_error"}."""
        columns = "sink,state,created_at,settled_at,last_error"
        return await self._select("gre_relay_deliveries", f"message_id=eq.{message}", columns)

    async def push_states(self, message: str) -> list[str]:
        """Return the status of each push that announced the message."""
        rows = await self._select("push_notifications", f"message_id=eq.{message}", "status")
        return [row["status"] for row in rows]

    async def erase_player(self, player: int) -> Json:
        """Erase a player with all messages. Returns {"messages", "sessions", "pushes", "attachments", "objects"}, counts."""
        erased: Json = await self._rest.rpc("gre_erase_player", {"p_player_id": player})
        return erased

    def _player(self, player: int) -> Caller:
        return Caller(self._key, f"player:{player}")

    async def _select(self, table: str, where: str, columns: str) -> list[Json]:
        answer = await self._pool.request(
            "GET", f"{self._tables}{table}?{where}&select={columns}", self._headers, b""
        )
        try:
            rows = orjson.loads(answer.body)
        except ValueError:
            rows = None
        if answer.status != 200 or not isinstance(rows, list):
            raise TransientError(f"{table}: HTTP {answer.status}", code=str(answer.status))
        return rows
