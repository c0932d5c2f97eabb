"""The samples of client/samples, built once as a portal builds them, and a portal's server for each scene of the suite."""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx

from tests.support import npm
from tests.support.loopback import HTTP, free_port
from tests.support.waiting import wait_until

CLIENT = Path(__file__).parents[2] / "client"
NODE = (20, 19)
"""The oldest Node.js that Vite 8 runs on."""
DAEMON = "http://127.0.0.1:65535"
"""The daemon's address in a build. A scene's server replaces it: a build of its own would take half a minute for Next.js."""
_TOKENS = "/api/chat-token"
_VITE = "node_modules/vite/bin/vite.js"
_NEXT = "node_modules/next/dist/bin/next"
_MADE_BY_NEXT = (".next", "next-env.d.ts")


@dataclass
class Site:
    """A built sample and the address of its server. Each file is asked for once."""

    address: str
    _files: dict[str, tuple[str, bytes]] = field(default_factory=dict)

    def file(self, path: str) -> tuple[str, bytes]:
        """The type and the content of a file; raises httpx.HTTPStatusError if there is none."""
        if path not in self._files:
            answer = HTTP.get(self.address + path).raise_for_status()
            self._files[path] = answer.headers["content-type"], answer.content
        return self._files[path]


Build = Callable[[Path], AbstractContextManager[Site]]
"""Builds a site, into this folder if it is not one of its own, and serves it."""


@contextlib.contextmanager
def vite_site(out: Path, mode: str = "production") -> Iterator[Site]:
    """The sample for Vite, built into the folder `out`."""
    folder = _installed("vite")
    environment = {"NODE_ENV": mode, "VITE_CHAT_URL": DAEMON}
    if mode == "production":
        npm.run(folder, "npm", "run", "check")
    _run(folder, environment, _VITE, "build", "--outDir", str(out), "--emptyOutDir")
    with _served(folder, environment, _VITE, "preview", "--outDir", str(out), "--strictPort") as address:
        yield Site(address)


development_site: Build = functools.partial(vite_site, mode="development")
"""A development build has React's StrictMode, which mounts each component twice."""


@contextlib.contextmanager
def next_site(_out: Path) -> Iterator[Site]:
    """The sample for Next.js, which renders the page on the server first. It is built in its own folder, types and all."""
    folder = _installed("next")
    environment = {
        "NODE_ENV": "production",
        "NEXT_TELEMETRY_DISABLED": "1",
        "NEXT_PUBLIC_CHAT_URL": DAEMON,
    }
    try:
        _run(folder, environment, _NEXT, "build")
        with _served(folder, environment, _NEXT, "start") as address:
            yield Site(address)
    finally:
        for name in _MADE_BY_NEXT:
            made = folder / name
            shutil.rmtree(made) if made.is_dir() else made.unlink(missing_ok=True)


def _installed(name: str) -> Path:
    """A sample with its packages, and with the client's committed build, which test_package.py compares with its source."""
    folder = CLIENT / "samples" / name
    copied = npm.node_modules(folder, NODE) / "@gre-bridge" / "client"
    if copied.is_symlink():
        copied.unlink()
    shutil.rmtree(copied, ignore_errors=True)
    copied.mkdir()
    shutil.copy(CLIENT / "package.json", copied)
    shutil.copytree(CLIENT / "dist", copied / "dist")
    return folder


def _run(folder: Path, environment: Mapping[str, str], *command: str) -> None:
    npm.run(folder, "env", *(f"{name}={value}" for name, value in environment.items()), "node", *command)


@contextlib.contextmanager
def _served(folder: Path, environment: Mapping[str, str], *command: str) -> Iterator[str]:
    port = free_port()
    with subprocess.Popen(
        ["node", *command, "--port", str(port)],
        cwd=folder,
        env={**os.environ, **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as server:
        address = f"http://localhost:{port}"

        def answers() -> bool:
            assert server.poll() is None, f"the server of {folder.name} has ended"
            with contextlib.suppress(httpx.HTTPError):
                return HTTP.get(address).status_code == 200
            return False

        try:
            wait_until(answers, what=f"the server of {folder.name}")
            yield address
        finally:
            server.terminate()


class PortalServer(ThreadingHTTPServer):
    """A portal's own server: the pages of a site, built for this daemon, and the token of the signed-in person.

    It is not behind the network of the scene: what fails there is the way to the chat, and not the portal.
    """

    daemon_threads = True

    def __init__(self, site: Site, daemon: str, asked: Callable[[bool], None]) -> None:
        """`asked` is called for each token, with True if a renewed one is wanted."""
        super().__init__(("127.0.0.1", 0), _Handler)
        assert len(daemon) == len(DAEMON), daemon
        self.address = f"http://127.0.0.1:{self.server_port}"
        self.token = ""
        self._site, self._daemon, self._asked = site, daemon, asked
        self._thread = threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def answer(self, path: str) -> tuple[str, bytes]:
        """The type and the content for a path; raises httpx.HTTPStatusError."""
        if path.startswith(_TOKENS):
            self._asked("renew=true" in path)
            return "text/plain", self.token.encode()
        kind, content = self._site.file(path)
        return kind, content.replace(DAEMON.encode(), self._daemon.encode())

    def close(self) -> None:
        """Serve nothing more."""
        self.shutdown()
        self._thread.join(10)
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: PortalServer

    def do_GET(self) -> None:
        try:
            kind, content = self.server.answer(self.path)
        except httpx.HTTPStatusError as error:
            self.send_error(error.response.status_code)
            return
        with contextlib.suppress(ConnectionError):  # the page may have been closed
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Log nothing."""
