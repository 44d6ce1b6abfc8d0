"""The storage backends that the conformance tests run on."""

from contextlib import AsyncExitStack
from dataclasses import dataclass

import pytest

from relay.io import postgres, sqlite
from relay.io.storage import Storage
from relay.services.delivery import Readers
from relay.services.signatures import RelayKey
from tests.relay.conftest import POSTGRES


@dataclass
class StorageNode:
    """A backend as one node of a relay has it open."""

    storage: Storage
    readers: Readers


@pytest.fixture(scope="session", params=["sqlite", pytest.param("postgres", marks=POSTGRES)])
def server(request):
    """What the backend needs to run: nothing, or a server."""
    return request.getfixturevalue("cluster") if request.param == "postgres" else None


@pytest.fixture
async def nodes(server, tmp_path):
    """Two nodes of one relay; where a backend has only one, that one twice."""
    async with AsyncExitStack() as stack:
        if server is None:
            readers = Readers()
            opened = sqlite.open_storage(tmp_path / "relay.sqlite", readers)
            node = StorageNode(await stack.enter_async_context(opened), readers)
            yield node, node
            return
        dsn, key, found = server.database(), RelayKey.generate(), []
        for name in ("north", "south"):
            readers = Readers()
            opened = postgres.open_storage(dsn, readers, node=name, key=key, relay="relay.example")
            found.append(StorageNode(await stack.enter_async_context(opened), readers))
        yield tuple(found)


@pytest.fixture
def storage(nodes):
    """The storage of one of them."""
    return nodes[0].storage
