"""Pages that are made with the client bear every case of the suite."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.client.cases import CASES, Case
from tests.client.clients import CLIENTS, HOOKS, SOCKET_CLIENT
from tests.client.world import Subject, World, world_for
from tests.support import npm
from tests.client.world import CLIENT
from tests.support.template import Template
