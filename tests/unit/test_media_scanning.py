"""The scanner, and the examination as a whole."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from gre_bridge.media.examination import examine
from gre_bridge.media.results import MAX_BYTES, Examined, MediaUnavailable, Refused
from gre_bridge.media.scanning import Clean, Unscanned, parse_address, scan
from tests.support import corpus
from tests.support.clamd import EICAR, Scanner, scanning


async def scanned(address: str, data: bytes, seconds: float = 20.0) -> object:
    with tempfile.TemporaryFile() as file:
        file.write(data)
        return await scan(address, file, seconds=seconds)


async def examined(data: bytes, **options: object) -> Examined | Refused:
    with tempfile.TemporaryFile() as file:
        file.write(data)
        return await examine(file, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("where", ["unix", "tcp"])
@pytest.mark.parametrize("size", [0, 1, 65_536, 1_000_000])
async def test_every_byte_reaches_the_scanner(tmp_path: Path, where: str, size: int) -> None:
    scanner = Scanner()
    data = bytes(range(256)) * (size // 256 + 1)
    async with scanning(scanner, tmp_path / "clamd" if where == "unix" else None) as address:
        assert await scanned(address, data[:size]) == Clean()
        assert await scanned(address, data[:size] + EICAR) == Refused("virus")
    assert scanner.seen == [data[:size], data[:size] + EICAR]


@pytest.mark.parametrize(
    ("says", "found"),
    [
        ("stream: OK", Clean()),
        ("stream: Win.Test.EICAR_HDB-1 FOUND", Refused("virus")),
        ("stream: Heuristics.Encrypted.Zip FOUND", Refused("virus")),
        ("stream: Heuristics.Limits.Exceeded.MaxFileSize FOUND", Unscanned("limits")),
        ("INSTREAM size limit exceeded. ERROR", Unscanned("size")),
    ],
)
async def test_verdicts(says: str, found: object) -> None:
    async with scanning(Scanner(says=says)) as address:
        assert await scanned(address, b"data") == found


@pytest.mark.parametrize("size", [100_001, 5_000_000])
@pytest.mark.parametrize("where", ["unix", "tcp"])
async def test_a_file_beyond_the_scanners_limit_is_unscanned(tmp_path: Path, where: str, size: int) -> None:
    async with scanning(Scanner(limit=100_000), tmp_path / "clamd" if where == "unix" else None) as address:
        assert await scanned(address, bytes(size)) == Unscanned("size")


@pytest.mark.parametrize(
    "scanner",
    [
        Scanner(says=None),
        Scanner(silent=True),
        Scanner(says="stream: Can't allocate memory ERROR"),
        Scanner(says="COMMAND READ TIMED OUT"),
        Scanner(says="UNKNOWN COMMAND"),
        Scanner(says="stream: OK or not"),
        Scanner(says="x" * 10_000),
    ],
    ids=range(7),
)
async def test_without_a_verdict_it_is_ours(scanner: Scanner) -> None:
    async with scanning(scanner) as address:
        with pytest.raises(MediaUnavailable) as raised:
            await scanned(address, b"data", seconds=0.5 if scanner.silent else 20.0)
    reason = "scanner_slow" if scanner.silent else "scanner" if scanner.says is None else "scanner_error"
    assert raised.value.reason == reason and "Can't" not in str(raised.value)


async def test_a_scanner_that_is_not_there_is_ours(tmp_path: Path) -> None:
    async with scanning(Scanner()) as address:
        pass
    for gone in (address, f"unix:{tmp_path}/none"):
        with pytest.raises(MediaUnavailable):
            await scanned(gone, b"data")


@pytest.mark.parametrize(
    "address",
    [
        "",
        "/run/clamd",
        "unix:clamd",
        "unix://host/a",
        "tcp://host",
        "tcp://:1",
        "tcp://h:99999",
        "http://h:1",
    ],
)
def test_addresses_of_another_form_are_refused(address: str) -> None:
    with pytest.raises(ValueError):
        parse_address(address)
    assert parse_address("unix:/run/clamav/clamd.ctl") == "/run/clamav/clamd.ctl"
    assert parse_address("tcp://[::1]:3310") == ("::1", 3310)


async def test_an_examination_goes_from_cheap_to_dear() -> None:
    assert await examined(b"") == Refused("empty")
    assert await examined(bytes(MAX_BYTES + 1), scanner="tcp://127.0.0.1:1") == Refused("too_large")
    assert await examined(b"hello") == Examined("file", "text/plain")
    assert await examined(bytes(MAX_BYTES)) == Examined("file", "application/octet-stream")
    assert await examined(b"<svg onload=alert(1)>") == Examined("file", "application/octet-stream")
    assert await examined(corpus.encoded(corpus.corners(), "TIFF")) == Refused("unsupported")
    async with scanning(Scanner()) as address:
        assert await examined(corpus.photo() + EICAR, scanner=address) == Refused("virus")
        found = await examined(corpus.photo(), scanner=address)
    assert isinstance(found, Examined) and found.kind == "image" and found.type == "image/jpeg"
    with pytest.raises(MediaUnavailable):
        await examined(corpus.photo(), scanner=address)


async def test_whether_a_file_that_was_not_scanned_is_given_out_is_a_setting() -> None:
    """A limit of clamd for a stream that is below the bucket's is our setting, and the file waits until it is mended."""
    encrypted = Scanner(says="stream: Heuristics.Limits.Exceeded.MaxRecursion FOUND")
    for scanner in (Scanner(limit=10), encrypted):
        async with scanning(scanner) as address:
            found = await examined(b"hello, world", scanner=address, allow_unscanned=True)
            assert found == Examined("file", "text/plain")
            if scanner is encrypted:
                assert await examined(b"hello, world", scanner=address) == Refused("not_scanned")
                continue
            with pytest.raises(MediaUnavailable) as raised:
                await examined(b"hello, world", scanner=address)
            assert raised.value.reason == "scanner_limits"
