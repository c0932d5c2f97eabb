"""docs/asyncapi.json and client/src/protocol.ts are what the code says. `make types` writes them."""

from __future__ import annotations

import json

from gre_bridge.daemon import asyncapi
from gre_bridge.devstack.client_types import ASYNCAPI, OPENAPI, PROTOCOL
from gre_bridge.devstack.client_types.protocol import protocol

OUT_OF_DATE = "`make types` writes it"


def test_the_document_is_up_to_date() -> None:
    assert ASYNCAPI.read_text(encoding="utf-8") == asyncapi.text(), OUT_OF_DATE


def test_the_clients_types_are_up_to_date() -> None:
    documents = [json.loads(path.read_text(encoding="utf-8")) for path in (OPENAPI, ASYNCAPI)]
    assert PROTOCOL.read_text(encoding="utf-8") == protocol(*documents), OUT_OF_DATE
