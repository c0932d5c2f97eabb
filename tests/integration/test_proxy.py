"""The daemon reaches PostgREST, Realtime and the sinks through the proxy that the variables name."""

from __future__ import annotations

import re
import socket
import socketserver
import threading
from collections.abc import Iterator

import pytest

from tests.support.stack import StackProcess
from tests.support.waiting import wait_until


class Proxy(socketserver.ThreadingTCPServer):
    """An HTTP proxy: tunnels for CONNECT, and requests with an absolute URL."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Tunnel)
        self.tunnels = 0
        self.requests = 0
        self.address = f"http://127.0.0.1:{self.server_address[1]}"


class Tunnel(socketserver.BaseRequestHandler):
    """One connection of a client."""

    server: Proxy

    def handle(self) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            if not (some := self.request.recv(65536)):
                return
            head += some
        method, target = head.split(b" ", 2)[:2]
        address = re.sub(rb"^http://|/.*$", b"", target).decode()
        host, _, port = address.partition(":")
        with socket.create_connection((host, int(port or 80)), 60) as far:
            if method == b"CONNECT":
                self.server.tunnels += 1
                self.request.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            else:
                self.server.requests += 1
                far.sendall(head)
            back = threading.Thread(target=pump, args=(far, self.request), daemon=True)
            back.start()
            pump(self.request, far)
            back.join(60)


def pump(source: socket.socket, to: socket.socket) -> None:
    try:
        while some := source.recv(65536):
            to.sendall(some)
        to.shutdown(socket.SHUT_WR)
    except OSError:
        return


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    with Proxy() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


NAMES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "WS_PROXY", "WSS_PROXY", "NO_PROXY")


def relays_one_message(stack: StackProcess, **variables: str) -> None:
    """Run a worker with only these variables until it is subscribed and has relayed a message."""
    environment = {spelt: variables.get(name, "") for name in NAMES for spelt in (name, name.lower())}
    with stack.worker("relay", **environment) as worker:
        wait_until(lambda: worker.metric("gre_realtime_state", state="live") == 1, what="a live subscription")
        assert stack.insert(player_id=29, sender="player", message="through").status_code == 201
        stack.drained()
    sent = [i["data"]["message"] for i in stack.received("pusher") if i["name"] == "new-player-message"]
    assert sent == ["through"]


@pytest.mark.parametrize("variable", ["ALL_PROXY", "HTTP_PROXY"])
def test_realtime_rest_and_sinks_go_through_the_proxy(
    stack: StackProcess, proxy: Proxy, variable: str
) -> None:
    relays_one_message(stack, **{variable: proxy.address})
    assert proxy.tunnels == 1, "Realtime's connection"
    assert proxy.requests > 1


@pytest.mark.parametrize(
    "variables",
    [{"ALL_PROXY": "", "NO_PROXY": "127.0.0.1"}, {"HTTPS_PROXY": ""}],
    ids=["NO_PROXY names the host", "HTTPS_PROXY and a plain http address"],
)
def test_a_connection_that_the_variables_exclude_is_direct(
    stack: StackProcess, proxy: Proxy, variables: dict[str, str]
) -> None:
    relays_one_message(stack, **{name: value or proxy.address for name, value in variables.items()})
    assert (proxy.tunnels, proxy.requests) == (0, 0)
