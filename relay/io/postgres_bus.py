"""Hints between nodes, and each node's lease, in PostgreSQL (spec/wire.md, Storage).

A node listens on a channel of its own. What is to be told is collected and sent in transactions of
their own, one notification for many mailboxes: NOTIFY takes a lock that all commits with one share.
Mailboxes are named by a short hash, so the server's logs hold no usernames. A message that is lost
costs time: every 20 s a node looks for mail that waits for its readers.
"""

import base64
import hashlib
import time
from typing import Final

import psycopg
import structlog
import trio

from relay.errors import StorageError
from relay.io.postgres_pool import Connection, Cursor, Pool, connect
from relay.services.delivery import Readers
from relay.services.mailbox import DeviceMailbox, MailboxName
from relay.wire.labels import labelled

log = structlog.get_logger()

LEASE_SECONDS: Final = 9.0
BEAT_SECONDS: Final = 2.0
"""A node that dies is noticed at the first beat of another after its lease: within 11 s and what
the beat takes."""
RESCAN_SECONDS: Final = 20.0
RECONNECT_SECONDS: Final = 1.0
START_SECONDS: Final = 5.0
GATHER_SECONDS: Final = 0.002
"""How long hints wait for others to go with: far below what anybody notices."""
MAX_TAGS: Final = 300
"""In one notification, which holds less than 8 000 bytes."""
MAX_WAITING: Final = 50_000
"""Hints that wait to be sent while the database is slow; more are dropped, for the rescan."""
_TAG_BYTES: Final = 12
_LOW: Final = "low"
"""Said of a device whose prekeys run out, in the place of an epoch."""


def tag(key: bytes) -> str:
    """Return the short name of a mailbox on the bus: 16 characters."""
    digest = hashlib.sha256(labelled("bus", key)).digest()
    return base64.urlsafe_b64encode(digest[:_TAG_BYTES]).decode("ascii")


class PostgresBus:
    """`relay.io.storage.Bus`, and this node's membership. `run` lasts as long as the node."""

    def __init__(self, dsn: str, pool: Pool, readers: Readers, name: str) -> None:
        self._dsn = dsn
        self._pool = pool
        self._readers = readers
        self._name = name
        self._node: int | None = None
        self._alive_until = 0.0
        self._hints: dict[bytes, None] = {}
        self._lows: dict[bytes, None] = {}
        self._losses: dict[tuple[int, str], int] = {}
        self._names: dict[str, MailboxName] = {}
        self._wake = trio.Event()
        self._listens = trio.Event()

    @property
    def node(self) -> int | None:
        """Return the id of this node's lease; None while it has none."""
        return self._node if time.monotonic() < self._alive_until else None

    def hint(self, mailbox: MailboxName) -> None:
        """Tell the reader of a mailbox that mail came."""
        if not self._readers.hint(mailbox) and len(self._hints) < MAX_WAITING:
            self._hints[mailbox.key] = None
            self._wake.set()

    def low(self, mailbox: DeviceMailbox) -> None:
        """Tell a device that its one-time prekeys run out."""
        if not self._readers.low(mailbox) and len(self._lows) < MAX_WAITING:
            self._lows[mailbox.key] = None
            self._wake.set()

    def lost(self, node: int, mailbox: MailboxName, epoch: int) -> None:
        """Tell a node that its claims on a mailbox from before ``epoch`` are lost."""
        if node == self._node:
            self._readers.lost(mailbox, epoch)
        elif len(self._losses) < MAX_WAITING:
            self._losses[node, tag(mailbox.key)] = epoch
            self._wake.set()

    def remember(self, mailbox: MailboxName) -> None:
        """Listen to what is told about a mailbox."""
        self._names[tag(mailbox.key)] = mailbox

    def forget(self, mailbox: MailboxName) -> None:
        """Listen no more, unless somebody here reads it."""
        if mailbox not in self._readers:
            self._names.pop(tag(mailbox.key), None)

    async def join(self) -> None:
        """Take a lease under this node's name; another process that has one loses it.

        Raises:
            StorageError: the database failed.
        """
        await self._join(take_over=True)

    async def listening(self) -> None:
        """Wait until this node hears others; some seconds at most, as it can do without."""
        with trio.move_on_after(START_SECONDS):
            await self._listens.wait()

    async def check(self) -> None:
        """Return if this node is a member.

        Raises:
            StorageError: it is not, or the database failed.
        """
        query, node = "SELECT 1 FROM nodes WHERE id = %s", self.node
        if await self._pool.run(lambda db: db.execute(query, (node,)).fetchone()) is None:
            raise StorageError("this node has no lease")

    async def run(self) -> None:
        """Keep the lease, listen and send until cancelled; then give the lease back."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._beat)
                nursery.start_soon(self._listen)
                nursery.start_soon(self._send)
                nursery.start_soon(self._rescan)
        finally:
            await self._leave()

    # --- the lease ---

    async def _join(self, *, take_over: bool) -> None:
        began = time.monotonic()
        self._node = await self._pool.run(lambda db: _join(db, self._name, take_over=take_over))
        if self._node is not None:
            self._alive_until = began + LEASE_SECONDS

    async def _leave(self) -> None:
        node, self._node = self._node, None
        if node is not None:
            with trio.move_on_after(BEAT_SECONDS, shield=True):
                try:
                    await self._pool.run(
                        lambda db: db.execute("DELETE FROM nodes WHERE id = %s", (node,))
                    )
                except StorageError:
                    return  # the lease ends by itself

    async def _beat(self) -> None:
        while True:
            await trio.sleep(BEAT_SECONDS)
            try:
                await self._beat_once()
            except StorageError as error:
                log.error("storage failed", reason=str(error))  # noqa: TRY400 - says it all

    async def _beat_once(self) -> None:
        began, node = time.monotonic(), self._node
        if node is not None and await self._pool.run(lambda db: _beat(db, node)):
            self._alive_until = began + LEASE_SECONDS
            return
        if node is not None:
            # STORAGE-10: others may read what was read here; what is still connected starts anew.
            log.warning("this node was taken for dead")
            self._node = None
            for claim in self._readers.claims():
                self._readers.expired(claim)
        await self._join(take_over=False)

    # --- receiving ---

    async def _listen(self) -> None:
        while True:
            node = self._node
            if node is not None:
                try:
                    await self._listen_as(node)
                except (StorageError, psycopg.Error, OSError) as error:
                    log.error("bus failed", reason=type(error).__name__)  # noqa: TRY400 - says it all
            await trio.sleep(RECONNECT_SECONDS)

    async def _listen_as(self, node: int) -> None:
        connection = await trio.to_thread.run_sync(_open_listener, self._dsn, node)
        try:
            self._listens.set()
            await self._scan()  # for what was told while nobody listened
            while self._node == node:
                with trio.move_on_after(BEAT_SECONDS):
                    await trio.lowlevel.wait_readable(connection.fileno())
                pgconn = connection.pgconn
                pgconn.consume_input()
                while (notify := pgconn.notifies()) is not None:
                    self._told(notify.extra.decode("ascii", "replace"))
        finally:
            connection.close()

    def _told(self, payload: str) -> None:
        for message in payload.split():
            name, _, epoch = message.partition(":")
            mailbox = self._names.get(name)
            if mailbox is not None and epoch.isdigit():
                self._readers.lost(mailbox, int(epoch))
            elif mailbox is not None and epoch == _LOW:
                self._readers.low(mailbox)
            elif mailbox is not None:
                self._readers.hint(mailbox)

    # --- sending ---

    async def _send(self) -> None:
        while True:
            await self._wake.wait()
            await trio.sleep(GATHER_SECONDS)
            self._wake = trio.Event()
            told = dict.fromkeys(self._hints, "") | dict.fromkeys(self._lows, f":{_LOW}")
            self._hints, self._lows = {}, {}
            losses, self._losses = self._losses, {}
            try:
                await self._pool.run(lambda db: _notify(db, self._node, told, losses))  # noqa: B023 - awaited here
            except StorageError as error:
                log.error("bus failed", reason=str(error))  # noqa: TRY400 - says it all

    # --- what was missed ---

    async def _rescan(self) -> None:
        while True:
            await trio.sleep(RESCAN_SECONDS)
            try:
                await self._scan()
            except StorageError as error:
                log.error("storage failed", reason=str(error))  # noqa: TRY400 - says it all

    async def _scan(self) -> None:
        """Compare what is read here with the database, and hint at mail that waits."""
        node = self._node
        if node is None:
            return
        before = self._readers.claims()
        held = await self._pool.run(lambda db: _held(db, [claim.mailbox.key for claim in before]))
        for claim in before:
            epoch, has_mail = held.get(claim.mailbox.key, (None, False))
            if epoch is None:
                self._readers.expired(claim)
            elif epoch != claim.epoch:
                self._readers.lost(claim.mailbox, epoch)
            elif has_mail:
                self._readers.hint(claim.mailbox)


def _join(db: Cursor, name: str, *, take_over: bool) -> int | None:
    """Return a new lease's id; None while another process has this node's name."""
    _reap(db)
    if take_over:  # the one that was started last is meant; the one before ends its connections
        db.execute("DELETE FROM nodes WHERE name = %s", (name,))
    found = db.execute(
        "INSERT INTO nodes (name, seen) VALUES (%s, clock_timestamp()) ON CONFLICT DO NOTHING"
        " RETURNING id",
        (name,),
    ).fetchone()
    return None if found is None else int(found[0])


def _beat(db: Cursor, node: int) -> bool:
    """Renew a lease, and end those of others that are over."""
    renewed = db.execute(
        "UPDATE nodes SET seen = clock_timestamp() WHERE id = %s", (node,)
    ).rowcount
    _reap(db)
    return renewed == 1


def _reap(db: Cursor) -> None:
    # One clock for all: the server's. Claims go with the node's row.
    db.execute(
        "DELETE FROM nodes WHERE id IN (SELECT id FROM nodes WHERE"
        " seen < clock_timestamp() - make_interval(secs => %s) FOR UPDATE SKIP LOCKED)",
        (LEASE_SECONDS,),
    )


def _open_listener(dsn: str, node: int) -> Connection:
    connection = connect(dsn)
    try:
        connection.execute(f"LISTEN {_channel(node)}")
    except BaseException:
        connection.close()
        raise
    return connection


def _channel(node: int) -> str:
    return f"e2ecall_node_{node}"


def _notify(
    db: Cursor, own: int | None, told: dict[bytes, str], losses: dict[tuple[int, str], int]
) -> None:
    """Tell the nodes that read these mailboxes; an empty text is a hint."""
    messages: dict[int, list[str]] = {}
    if told:
        found = db.execute(
            "SELECT node, key FROM presence WHERE key = ANY(%s::bytea[])", (list(told),)
        )
        for node, key in found.fetchall():
            if node != own:
                messages.setdefault(node, []).append(tag(key) + told[key])
    for (node, name), epoch in losses.items():
        messages.setdefault(node, []).append(f"{name}:{epoch}")
    for node, texts in messages.items():
        for start in range(0, len(texts), MAX_TAGS // 2):
            payload = " ".join(texts[start : start + MAX_TAGS // 2])
            db.execute("SELECT pg_notify(%s, %s)", (_channel(node), payload))


def _held(db: Cursor, keys: list[bytes]) -> dict[bytes, tuple[int, bool]]:
    """Return epoch, and whether mail waits, for those mailboxes that somebody reads."""
    found = db.execute(
        "SELECT presence.key, epoch, coalesce(envelopes > 0, false)"
        " FROM presence LEFT JOIN mailboxes ON mailboxes.key = presence.key"
        " WHERE presence.key = ANY(%s::bytea[])",
        (keys,),
    ).fetchall()
    return {key: (epoch, has_mail) for key, epoch, has_mail in found}
