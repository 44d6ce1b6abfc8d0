"""What the storage does for a name that cannot be reached (spec/wire.md, Reaching somebody).

Work is compared, not time: the queries in their order and, in SQLite, the steps of its machine.
"""

import os
import re
from functools import partial
from types import SimpleNamespace

import psycopg
import pytest

from relay.config import LimitsSection
from relay.io.node import Quotas
from relay.io.postgres import PostgresStorage
from relay.io.requests import answer
from relay.services import directory
from relay.services.mailbox import DeviceMailbox, Letter, Stored
from relay.services.signatures import RelayKey
from relay.wire.messages import Enrol, ErrorCode, Failure, FetchOwnList, Login, Policy
from relay.wire.records import PreKeyKind
from tests.relay.io.storing import NOW, account

pytestmark = pytest.mark.trio

LITERAL = re.compile(r"'[^']*'|\b\d+\b")
ABOUT = re.compile(r"\b(accounts|tokens|invitations|devices|prekeys|mail)\b")
"""What PostgreSQL is asked about people and their mail; nodes ask other things in between."""
SLACK = 16
"""Steps of SQLite's machine by which a row that is found differs from one that is not."""


class Work:
    """What a database was asked for."""

    def __init__(self, storage, monkeypatch):
        self._storage = storage
        self.queries, self.steps = [], 0
        if isinstance(storage, PostgresStorage):
            execute = psycopg.Cursor.execute

            def noting(cursor, query, *arguments, **options):
                self.queries.append(query)
                return execute(cursor, query, *arguments, **options)

            monkeypatch.setattr(psycopg.Cursor, "execute", noting)

    async def of(self, call):
        """Return the queries and steps of one call, and what it returned."""
        if isinstance(self._storage, PostgresStorage):
            self.queries.clear()
            result = await call()
            return [query for query in self.queries if ABOUT.search(query)], 0, result
        writer = self._storage.writer
        await writer.run(self._watch)
        self.queries.clear()
        self.steps = 0
        result = await call()
        queries, steps = self.queries.copy(), self.steps
        await writer.run(self._leave)
        return [LITERAL.sub("?", query) for query in queries], steps, result

    def _watch(self, db):
        db.set_trace_callback(self.queries.append)
        db.set_progress_handler(self._step, 1)

    def _leave(self, db):
        db.set_trace_callback(None)
        db.set_progress_handler(None, 1)

    def _step(self):
        self.steps += 1
        return 0


@pytest.fixture
async def people(nodes, speak):
    """Store accounts that a stranger cannot reach, each for another reason."""
    directory = nodes[0].storage.directory
    names = {"nobody": Policy.NOBODY, "closed": Policy.CONTACTS, "popular": Policy.CONTACTS}
    for name, policy in names.items():
        identity, stored = account(speak, name)
        await directory.create(stored)
        far = int(NOW) + 86_400
        keys = [identity.prekey(kind, 1, expires=far) for kind in PreKeyKind]
        await directory.add_prekeys(name, 1, keys)
        await directory.set_policy(name, policy)
    blocked = os.urandom(32)
    await directory.put_tokens("popular", [blocked, *(os.urandom(32) for _ in range(127))])
    await directory.put_tokens("popular", [os.urandom(32) for _ in range(128)])
    return {"absent": None, "nobody": None, "closed": os.urandom(32), "popular": blocked}


async def test_bundles(nodes, people, monkeypatch):
    """WIRE-23, W3: no name, nobody, no token, a revoked one of 128: the same work for a bundle."""
    storage = nodes[0].storage
    work = Work(storage, monkeypatch)
    seen = {
        name: await work.of(
            lambda name=name, shown=shown: storage.directory.take_bundle(name, None, shown, NOW)
        )
        for name, shown in people.items()
    }
    _alike(seen, None)


@pytest.mark.parametrize("count", [1, 3])
async def test_envelopes(nodes, people, monkeypatch, count):
    """WIRE-23, WIRE-61, W3, P8: the same, and the same writes, for an envelope, or for several."""
    storage = nodes[0].storage
    work = Work(storage, monkeypatch)
    letters = [Letter(number.to_bytes(16), b"sealed") for number in range(count)]
    seen = {
        name: await work.of(
            lambda name=name: storage.mailbox.put(DeviceMailbox(name, 1), letters, None, NOW)
        )
        for name in people
    }
    _alike(seen, [Stored.REFUSED] * count)


async def test_log_ins(nodes, people, speak, monkeypatch):
    """WIRE-12, W3: no name, no such device, a wrong signature: the same queries, records that are
    read and signatures that are verified, and the same answer.
    """
    storage, done = nodes[0].storage, []
    work = Work(storage, monkeypatch)
    for name in ("decode", "verify"):
        real = getattr(directory, name)

        def noting(*arguments, name=name, real=real, **options):
            done.append(name)
            return real(*arguments, **options)

        monkeypatch.setattr(directory, name, noting)
    node = SimpleNamespace(
        directory=storage.directory,
        key=RelayKey.generate(),
        name="relay.example",
        quotas=Quotas.of(LimitsSection(), storage, per_address=False),
        clock=lambda: NOW,
    )
    session = SimpleNamespace(node=node, source="192.0.2.1", device=None, challenge=bytes(32))
    signed = speak.Identity("absent", "relay.example").device_list(expires=int(NOW) + 86_400)
    for requests in (
        [
            Login("absent", 1, bytes(64)),
            Login("closed", 1, bytes(64)),
            Login("closed", 2, bytes(64)),
        ],
        [FetchOwnList(name, bytes(64)) for name in ("absent", "closed")],
        [Enrol(name, signed, bytes(64)) for name in ("absent", "closed")],
    ):
        seen = []
        for request in requests:
            done.clear()
            queries, steps, refusal = await work.of(partial(refused, session, request))
            assert refusal.code is ErrorCode.LOGIN_FAILED
            seen.append((queries, done.copy(), refusal.text, steps))
        for found in seen:
            assert found[:3] == seen[0][:3]
            assert abs(found[3] - seen[0][3]) <= SLACK
        assert sorted(seen[0][1]) == ["decode", "verify"]


async def refused(session, request):
    (reply,) = await answer(session, [request], 100)
    assert isinstance(reply, Failure)
    return reply


async def test_work_is_seen(nodes, people, monkeypatch):
    """WIRE-23: the comparison sees when somebody is reached."""
    storage = nodes[0].storage
    work = Work(storage, monkeypatch)
    refused = await work.of(lambda: storage.directory.take_bundle("closed", None, None, NOW))
    await storage.directory.set_policy("closed", Policy.EVERYONE)
    served = await work.of(lambda: storage.directory.take_bundle("closed", None, None, NOW))
    assert len(served[0]) > len(refused[0])


def _alike(seen, expected):
    absent = seen["absent"]
    assert absent[0]
    for name, (queries, steps, result) in seen.items():
        assert result == expected, name
        assert queries == absent[0], name
        assert abs(steps - absent[1]) <= SLACK, (name, steps, absent[1])
