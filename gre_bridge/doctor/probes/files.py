"""Probes what files need: the bucket, the decoder, the scanner, and what waits for an examination or a deletion."""

from __future__ import annotations

import asyncio
import importlib.util
import re
from urllib.parse import urlsplit

from gre_bridge.config.settings import Settings
from gre_bridge.db.inspection import InspectionDatabase
from gre_bridge.db.media import StorageState, Waiting
from gre_bridge.db.postgrest import PostgrestError
from gre_bridge.db.types import Json
from gre_bridge.doctor.report import Finding, failed, ok, skipped, warn
from gre_bridge.errors import BridgeError
from gre_bridge.jobs.files import key_reason
from gre_bridge.media.decoding import available
from gre_bridge.media.scanning import parse_address
from gre_bridge.storage.bucket import BUCKET, MAX_FILE_BYTES, UNSAFE, VIEW_TYPES
from gre_bridge.storage.client import Bucket, StorageClient
from gre_bridge.storage.errors import StorageRefused

STORAGE, DECODER, SCANNER = "files: bucket", "files: decoder", "files: scanner"
EXAMINATIONS, DELETIONS = "files: examinations", "files: deletions"
OBJECTS, ADDRESS = "files: policies", "files: links"
_INTERNAL = (".internal", ".svc", ".cluster.local", ".localhost")
REPAIR = "gre-bridge migrate; one that is disabled: alter table storage.objects enable trigger …"
POLICIES = (
    "gre_chat_fetch", "gre_chat_upload",
    "gre_chat_only_fetch", "gre_chat_only_upload", "gre_chat_no_update", "gre_chat_no_delete", "gre_chat_not_anon",
)  # fmt: skip
TRIGGERS = ("gre_1_check", "gre_1_kept", "gre_1_pinned", "gre_2_stored")
_OTHER_BUCKET = re.compile(r"bucket_id = (ANY \(ARRAY\[)?'")
MAX_AGE = 900.0
"""Seconds for which a stored file may wait for its examination."""
MAX_DELETION_AGE = 3600.0
"""Seconds for which an object may wait for its deletion."""
SCANNER_SECONDS = 5.0


async def probe_files(settings: Settings, database: InspectionDatabase) -> list[Finding]:
    """Make every check of files. Changes nothing: the bucket is set to what it is, to learn of a lower limit of the project."""
    heif = importlib.util.find_spec("pillow_heif") is not None
    found = [judge_decoder(settings, pillow=available(), heif=heif)]
    if settings.anon_key is not None:
        found.append(judge_address(settings))
    if settings.clamd_address is not None:
        found.append(await ask_scanner(settings.clamd_address))
    try:
        state = await database.storage_state()
    except PostgrestError as error:
        return [
            *found,
            failed(STORAGE, f"the state of the files cannot be read: {error.code}", "gre-bridge migrate"),
        ]
    except BridgeError as error:
        return [*found, failed(STORAGE, str(error), "try again; then gre-bridge migrate --status")]
    if not state.on:
        reason = "the project's Storage is off, or was set up after the schema: no files (then: gre-bridge migrate)"
        return [*found, skipped(STORAGE, reason)]
    return [*found, await _bucket(settings), *judge_state(state)]


def judge_decoder(settings: Settings, *, pillow: bool, heif: bool) -> Finding:
    """Judge whether this machine can examine files."""
    if settings.media == "off":
        return ok(DECODER, "GRE_MEDIA is off: other workers examine files")
    if not pillow:
        return warn(
            DECODER,
            "Pillow is missing here: this worker examines no files",
            "pip install 'gre-bridge[media]'",
        )
    if not heif:
        found = "pillow-heif is missing here: pictures in HEIC (of iPhones) wait for a worker that has it"
        return warn(DECODER, found, "pip install 'gre-bridge[heic]'")
    return ok(DECODER, "pictures are decoded, those in HEIC too")


def judge_address(settings: Settings) -> Finding:
    """Judge whether browsers can follow the links of files. Pages elsewhere are those whose origins GRE_CORS_ORIGINS lists."""
    parts = urlsplit(settings.public_url)
    host, origins = parts.hostname or "", settings.cors_origins
    own = host == "localhost" or host.startswith("127.") or host == "::1"
    remote = any(not re.match(r"[a-z]+://(localhost|127\.|\[::1\])|\*|null", one) for one in origins)
    named = not own and ":" not in host and ("." not in host or host.endswith(_INTERNAL))
    if named or (own and remote):
        found = f"links of files begin with {settings.public_url}, which browsers cannot reach"
        return warn(ADDRESS, found, "GRE_SUPABASE_PUBLIC_URL: the project's address for browsers")
    if parts.scheme == "http" and not own and any(one.startswith("https:") for one in origins):
        found = f"links of files begin with {settings.public_url}: pages over https may not open them"
        return warn(ADDRESS, found, "GRE_SUPABASE_PUBLIC_URL: an address with https")
    return ok(ADDRESS, f"links begin with {settings.public_url}")


async def ask_scanner(address: str) -> Finding:
    """Have clamd answer to PING (clamd(8))."""
    try:
        async with asyncio.timeout(SCANNER_SECONDS):
            where = parse_address(address)
            reader, writer = await (
                asyncio.open_unix_connection(where)
                if isinstance(where, str)
                else asyncio.open_connection(*where)
            )
            try:
                writer.write(b"zPING\0")
                answer = await reader.readuntil(b"\0")
            finally:
                writer.close()
    except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
        found = f"clamd does not answer at GRE_CLAMD_ADDRESS ({type(error).__name__}): files wait"
        return failed(SCANNER, found, "start clamd, or correct GRE_CLAMD_ADDRESS")
    if answer != b"PONG\0":
        return failed(SCANNER, "what answers at GRE_CLAMD_ADDRESS is not clamd", "correct GRE_CLAMD_ADDRESS")
    return ok(SCANNER, "clamd answers")


async def _bucket(settings: Settings) -> Finding:
    if reason := key_reason(settings):
        return skipped(STORAGE, reason)
    storage = StorageClient.open(
        url=settings.supabase_url,
        key=settings.service_key,
        apikey=settings.anon_key,
        timeout=settings.request_timeout,
        connections=1,
    )
    try:
        bucket = await storage.bucket(BUCKET)
        finding = judge_bucket(bucket)
        if not finding.fix:
            await storage.set_bucket(BUCKET, bucket)
    except StorageRefused as error:
        if error.code == "413":
            return judge_project_limit()
        return failed(STORAGE, str(error), "try again; check SUPABASE_SERVICE_KEY")
    except BridgeError as error:
        return failed(STORAGE, str(error), "gre-bridge migrate makes the bucket; check that Storage runs")
    finally:
        await storage.aclose()
    return finding


def judge_bucket(bucket: Bucket) -> Finding:
    """Judge the bucket's settings."""
    if bucket.public:
        return failed(
            STORAGE, f"{BUCKET} is public: everybody can read every file by its name", "gre-bridge migrate"
        )
    unsafe = [one for one in bucket.types or ("*",) if _runs(one)]
    if unsafe:
        found = f"{BUCKET} takes {', '.join(unsafe)}: a file of it can run as a page of the project"
        return failed(STORAGE, found, "gre-bridge migrate")
    missing = [
        one for one in VIEW_TYPES if bucket.types is not None and one not in map(str.lower, bucket.types)
    ]
    if missing:
        found = f"{BUCKET} does not take {', '.join(missing)}: pictures wait, as their views cannot be stored"
        return failed(STORAGE, found, "gre-bridge migrate")
    if bucket.file_size_limit is None or bucket.file_size_limit != MAX_FILE_BYTES:
        return warn(
            STORAGE,
            f"the limit of {BUCKET} is {bucket.file_size_limit} bytes, not {MAX_FILE_BYTES}",
            "gre-bridge migrate",
        )
    return ok(STORAGE, f"{BUCKET} is private, for files of at most {MAX_FILE_BYTES // 2**20} MB")


def _runs(media_type: str) -> bool:
    subtype = media_type.lower().partition(";")[0].strip().split("/")[-1]
    return subtype in UNSAFE or subtype.endswith("+xml")


def judge_project_limit() -> Finding:
    """Return the finding for a project whose own limit is below the bucket's."""
    found = f"the project's limit for an upload is below {MAX_FILE_BYTES // 2**20} MB: larger files fail although they were announced"
    return warn(STORAGE, found, "dashboard > Storage > Settings: raise the upload limit")


def judge_state(state: StorageState) -> list[Finding]:
    """Judge what waits."""
    return [
        _judge_waiting(EXAMINATIONS, state.examinations, MAX_AGE, "GreFilesWaiting"),
        _judge_waiting(DELETIONS, state.deletions, MAX_DELETION_AGE, "GreDeletionsWaiting"),
    ]


def _judge_waiting(check: str, waiting: Waiting, longest: float, section: str) -> Finding:
    if not waiting.count:
        return ok(check, "none waits")
    found = f"{waiting.count} wait, the oldest for {waiting.oldest:.0f} s"
    if waiting.failing:
        found += f"; {waiting.failing} of them after failures ({waiting.error})"
    if waiting.oldest > longest:
        return warn(check, found, f"docs/operations.md, {section}")
    return ok(check, found)


def judge_objects(found: Json | None) -> Finding:
    """Judge the policies and triggers on storage.objects, as `sql/doctor.sql` found them (None: no Storage)."""
    if found is None:
        return skipped(OBJECTS, "the project has no Storage")
    missing = [f"policy {name}" for name in POLICIES if name not in found["policies"]]
    missing += [f"trigger {name}" for name in TRIGGERS if name not in found["triggers"]]
    if missing:
        return failed(
            OBJECTS, f"missing or disabled on storage.objects: {', '.join(missing)}", "gre-bridge migrate"
        )
    if not found["rls"]:
        found_text = (
            "row-level security is off on storage.objects: everybody with the anon key can read every file"
        )
        return failed(OBJECTS, found_text, "turn it on: dashboard > Storage > Policies")
    own = [policy["name"] for policy in found["own"] if any(map(_open_to_ours, policy["rules"]))]
    if not own:
        return ok(OBJECTS, "policies and triggers are there")
    names = ", ".join(own[:5]) + (f" and {len(own) - 5} more" if own[5:] else "")
    return ok(
        OBJECTS,
        f"policies and triggers are there; the project's own {names} would allow more in {BUCKET}, which they close",
    )


def _open_to_ours(rule: str | None) -> bool:
    """Return True for a condition, as PostgreSQL prints it, that does not compare the bucket with names of others only."""
    return rule is not None and (BUCKET in rule or not _OTHER_BUCKET.search(rule))
