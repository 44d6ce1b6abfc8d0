"""The storage backends that the conformance tests run on."""

from contextlib import AsyncExitStack
from dataclasses import dataclass

import pytest

from relay.io import sqlite
from relay.io.storage import Storage
from relay.services.delivery import Readers


@dataclass
class StorageNode:
    """A backend as one node of a relay has it open."""

    storage: Storage
    readers: Readers


@pytest.fixture(params=["sqlite"])
async def nodes(request, tmp_path):
    """Two nodes of one relay; where a backend has only one, that one twice."""
    async with AsyncExitStack() as stack:
        if request.param == "sqlite":
            readers = Readers()
            opened = sqlite.open_storage(tmp_path / "relay.sqlite", readers)
            node = StorageNode(await stack.enter_async_context(opened), readers)
            yield node, node
