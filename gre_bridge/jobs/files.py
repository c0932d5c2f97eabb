"""The jobs for files, composed from the settings: examinations and deletions, with one client of Storage."""

from __future__ import annotations

import asyncio
import functools

import structlog

from gre_bridge.config.keys import opens_storage
from gre_bridge.config.settings import Settings
from gre_bridge.db.media import MediaDatabase
from gre_bridge.errors import ConfigurationError
from gre_bridge.jobs.deletions import DeletionJob
from gre_bridge.jobs.media import MediaJob
from gre_bridge.media.decoding import available
from gre_bridge.media.examination import examine
from gre_bridge.metrics import Metrics
from gre_bridge.storage.client import StorageClient

log = structlog.get_logger("gre.jobs")


def off_reason(settings: Settings, *, decoder: bool) -> str:
    """Return why this worker examines no files, or an empty string. Raises ConfigurationError if the settings demand it."""
    if settings.media == "off":
        return "GRE_MEDIA is off"
    if not decoder:
        if settings.media == "on":
            raise ConfigurationError(
                "GRE_MEDIA: is on, but Pillow is missing: pip install 'gre-bridge[media]'"
            )
        return "Pillow is missing: pip install 'gre-bridge[media]'"
    return ""


def key_reason(settings: Settings) -> str:
    """Return why the key is of no use for Storage, or an empty string."""
    if not opens_storage(settings.service_key):
        return "Storage takes no key of role gre_worker: a worker with the service key has to do it"
    return ""


class FileJobs:
    """Examines files and deletes objects until cancelled."""

    def __init__(self, settings: Settings, database: MediaDatabase, metrics: Metrics) -> None:
        """Raises ConfigurationError as `off_reason`."""
        self._storage = StorageClient.open(
            url=settings.supabase_url,
            key=settings.service_key,
            apikey=settings.anon_key,
            timeout=settings.request_timeout,
        )
        useless, off = key_reason(settings), off_reason(settings, decoder=available())
        if reason := useless or off:
            log.warning("media_off", message=reason)
        examination = functools.partial(
            examine, scanner=settings.clamd_address, allow_unscanned=settings.media_unscanned == "allow"
        )
        count = 0 if useless or off else settings.media_concurrency
        self._media = [
            MediaJob(store=database, objects=self._storage, examine=examination, metrics=metrics)
            for _ in range(count)
        ]
        self._deletions = (
            [] if useless else [DeletionJob(store=database, objects=self._storage, metrics=metrics)]
        )

    def notify(self) -> None:
        """Look for a file: one was stored."""
        for job in self._media:
            job.notify()

    def poll(self) -> None:
        """Look for a file unless that was done lately: a wake-up may be missing."""
        for job in self._media:
            job.poll()

    async def run(self) -> None:
        """Work until cancelled; then give back what is in work."""
        try:
            async with asyncio.TaskGroup() as group:
                for job in (*self._media, *self._deletions):
                    group.create_task(job.run())
        finally:
            await self._storage.aclose()
