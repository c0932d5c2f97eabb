"""What REST answers about the relay: health, sinks, workers and dead letters."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from pydantic import Field

from gre_bridge.api.schemas.fields import Described
from gre_bridge.api.schemas.responses import Answer


class Database(Described):
    """Whether the database answers."""

    connected: bool


class Sockets(Described):
    """The WebSockets of this instance."""

    connections: int


class ChatHealth(Answer):
    """How the chat is; what only staff see is left out for others."""

    status: Literal["ok", "degraded", "down"]
    database: Database
    websocket: Sockets
    realtime: Any = None
    sinks: Any = None
    backlog: int | None = Field(None, description="Events that wait to be relayed.")
    oldest_age_seconds: float | None = Field(None, description="How long the oldest of them has waited.")


class SinkState(Described):
    """How one sink does."""

    name: str = Field(examples=["pusher"])
    enabled: bool = Field(description="Whether events are written for it.")
    pending: int
    dead: int
    blocked: int = Field(description="Sessions that wait for a retry.")
    oldest_age_seconds: float | None
    breaker: Literal["closed", "open", "half-open"] | None = Field(
        description="The worst that a daemon says, up to 15 s old; null when none relays to it."
    )
    last_error: str | None = None


class WorkerSeen(Described):
    """A daemon that was heard of in the last hour."""

    host: str
    version: str
    seen_seconds: float = Field(description="How long ago.")


class Minute(Described):
    """What was delivered in one minute, to all sinks together."""

    minute: datetime
    count: int


class Operations(Answer):
    """How the relay does."""

    backlog: int = Field(description="Events that wait to be relayed.")
    oldest_age_seconds: float | None = Field(description="How long the oldest of them has waited.")
    dead: int
    sinks: list[SinkState]
    realtime_state: str | None = Field(
        examples=["live"], description="State of this instance's subscription to Realtime."
    )
    workers: list[WorkerSeen]
    per_minute: list[Minute] = Field(
        min_length=60, max_length=60, description="The last 60, oldest first, this one included."
    )


class DeadLetter(Described):
    """An event that its sink has refused for good. Never text."""

    id: UUID
    sink: str = Field(examples=["pusher"])
    event: str = Field(examples=["message"])
    session_id: UUID | None = Field(alias="sessionId")
    message_id: UUID | None = Field(alias="messageId")
    attempts: int
    error: str | None
    created_at: datetime


class DeadLetters(Answer):
    """One page of dead letters, the latest first."""

    dead: list[DeadLetter]
    next: str | None = Field(description="`cursor` of the next page.")


class Retried(Answer):
    """How many of them were dead, and are sent again."""

    count: int = Field(examples=[1])
