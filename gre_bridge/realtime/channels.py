"""The channels of a connection to Realtime and their states."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from realtime import AsyncRealtimeChannel
from realtime import types as rt


class ChannelState(StrEnum):
    """The state of one channel."""

    UNUSED = "unused"
    JOINING = "joining"
    JOINED = "joined"
    """Joined, and without row changes until "Subscribed to PostgreSQL"."""
    READY = "ready"
    UNAVAILABLE = "unavailable"
    """The join or its binding was refused or not answered."""


@dataclass(slots=True, eq=False)
class Channel:
    """One channel of a connection. `detail` is one line about an unavailable one."""

    name: str
    channel: AsyncRealtimeChannel
    state: ChannelState = ChannelState.JOINING
    detail: str = ""


def channel_options(*, private: bool) -> rt.RealtimeChannelOptions:
    """Options of a join without acknowledgements, presence and the client's own broadcasts."""
    presence: rt.RealtimeChannelPresenceConfig = {"key": "", "enabled": False}
    return {"config": {"broadcast": {"ack": False, "self": False}, "presence": presence, "private": private}}
