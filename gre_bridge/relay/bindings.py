"""Builds each sink that has credentials, with its routing: the only place where settings become sinks."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

from gre_bridge.config.settings import Settings
from gre_bridge.db.types import Claim, Lane
from gre_bridge.errors import ConfigurationError
from gre_bridge.relay.routing.onesignal import PushRoutes, route_onesignal
from gre_bridge.relay.routing.pusher import PusherRoutes, route_pusher
from gre_bridge.relay.sender import Route
from gre_bridge.sinks.base import Sink, SinkRecord
from gre_bridge.sinks.onesignal import OneSignalSink
from gre_bridge.sinks.pusher import PusherSink


@contextlib.contextmanager
def _naming(variables: str) -> Iterator[None]:
    """Put the variables in front of what a part says about its configuration."""
    try:
        yield
    except ConfigurationError as error:
        raise ConfigurationError(f"{variables}: {error}") from None


@dataclass(frozen=True, slots=True)
class SinkBinding:
    """A sink, the route to its records, the rows that one claim takes of a lane, and its limit of requests a second."""

    sink: Sink
    route: Route
    rows: int
    rate: float


def build_sinks(settings: Settings) -> list[SinkBinding]:
    """The sinks that have credentials.

    Raises ConfigurationError for settings that only the sink can judge.
    """
    bindings: list[SinkBinding] = []
    if settings.pusher_app_id and settings.pusher_key and settings.pusher_secret:
        with _naming("GRE_PUSHER_…_CHANNELS"):
            routes = PusherRoutes(
                player_channels=settings.pusher_player_channels,
                staff_channels=settings.pusher_staff_channels,
                session_channels=settings.pusher_session_channels,
                read_channels=settings.pusher_read_channels,
                desk_channels=settings.pusher_desk_channels,
                late_after=settings.late_after,
            )
        pusher = PusherSink(
            app_id=settings.pusher_app_id,
            key=settings.pusher_key,
            secret=settings.pusher_secret.get_secret_value(),
            cluster=settings.pusher_cluster,
            host=settings.pusher_host,
            port=settings.pusher_port,
            ssl=settings.pusher_ssl,
            concurrency=settings.pusher_concurrency,
            timeout=settings.send_timeout,
        )

        def to_pusher(lane: Lane, _: Claim) -> list[SinkRecord]:
            return route_pusher(lane, routes)

        bindings.append(SinkBinding(pusher, to_pusher, 10, settings.pusher_rate))
    if settings.onesignal_app_id and settings.onesignal_api_key:
        with _naming("GRE_PUSH_…_EXTERNAL_ID"):
            pushes = PushRoutes(
                player_external_id=settings.push_player_external_id,
                staff_external_id=settings.push_staff_external_id,
                preview=settings.push_preview,
                late_after=settings.late_after,
                max_age=settings.push_max_age,
                ttl=settings.push_ttl,
            )
        onesignal = OneSignalSink(
            app_id=settings.onesignal_app_id,
            api_key=settings.onesignal_api_key.get_secret_value(),
            api_url=settings.onesignal_api_url,
            concurrency=settings.onesignal_concurrency,
            timeout=settings.send_timeout,
        )

        def to_onesignal(lane: Lane, claim: Claim) -> list[SinkRecord]:
            return route_onesignal(lane, pushes, claim.staff)

        bindings.append(SinkBinding(onesignal, to_onesignal, 50, settings.onesignal_rate))
    return bindings
