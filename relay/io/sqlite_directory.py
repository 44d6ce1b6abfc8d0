"""Accounts and prekeys in SQLite (spec/wire.md, Accounts and Prekeys).

The inner functions run in the writer's thread, each as one transaction. Requests were checked by
`relay.services.directory` before they get here.
"""

import hashlib
import os
import sqlite3
from collections.abc import Sequence
from typing import Final

from relay.errors import RefusedError, StorageError
from relay.io.storage import Totals
from relay.io.writer import Writer
from relay.services.directory import Account, CodeUse, HandedOut, check_successor, read_list
from relay.services.mailbox import DeviceMailbox
from relay.services.policy import admits
from relay.services.volume import Usage
from relay.wire.codec import decode, encode
from relay.wire.labels import labelled
from relay.wire.messages import ErrorCode, Invitation, Policy, PrekeyCounts
from relay.wire.records import PreKey, PreKeyBundle, PreKeyKind, SignedDeviceList

MAX_ONE_TIME: Final = 250
"""One-time prekeys of one kind and device that wait: twice the batch that clients keep."""
MAX_RECORD: Final = 2048

_ONE_TIME: Final = (PreKeyKind.ONE_TIME_X25519, PreKeyKind.ONE_TIME_MLKEM1024)


class SQLiteDirectory:
    """`relay.io.storage.Directory` in SQLite."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer

    async def create(self, account: Account, code: CodeUse | None = None) -> None:
        """Store a new account."""
        await self._writer.run(lambda db: _create(db, account, code))

    async def add_codes(self, hashes: Sequence[bytes], expires: int) -> None:
        """Store the hashes of new registration codes."""
        await self._writer.run(lambda db: _add_codes(db, hashes, expires))

    async def account(self, username: str) -> Account | None:
        """Return an account."""
        return await self._writer.run(lambda db: _account(db, username), pieces=1)

    async def policy(self, username: str) -> Policy | None:
        """Return whom an account accepts."""
        return await self._writer.run(lambda db: _policy(db, username), pieces=1)

    async def replace_device_list(self, account: Account) -> None:
        """Store an account's next device list."""
        await self._writer.run(lambda db: _replace_device_list(db, account))

    async def set_policy(self, username: str, policy: Policy) -> None:
        """Choose who can reach an account."""
        statement = "UPDATE accounts SET policy = ? WHERE username = ?"
        await self._writer.run(lambda db: db.execute(statement, (policy, username)))

    async def put_tokens(self, username: str, hashes: Sequence[bytes]) -> None:
        """Replace the delivery-token hashes of an account."""
        await self._writer.run(lambda db: _put_tokens(db, username, hashes))

    async def put_invitations(self, username: str, invitations: Sequence[Invitation]) -> None:
        """Replace the open invitations of an account."""
        await self._writer.run(lambda db: _put_invitations(db, username, invitations))

    async def add_prekeys(self, username: str, device_id: int, prekeys: Sequence[PreKey]) -> None:
        """Add one-time prekeys and replace the others."""
        await self._writer.run(lambda db: _add_prekeys(db, username, device_id, prekeys))

    async def count_prekeys(self, username: str, device_id: int, now: float) -> PrekeyCounts:
        """Return how many one-time prekeys are left."""
        return await self._writer.run(lambda db: _count(db, username, device_id, now))

    async def take_bundle(
        self, username: str, device_id: int | None, shown: bytes | None, now: float
    ) -> HandedOut | None:
        """Hand out a bundle."""
        return await self._writer.run(lambda db: _bundle(db, username, device_id, shown, now))

    async def delete(self, username: str) -> None:
        """Remove an account and retire its name."""
        await self._writer.run(lambda db: _delete(db, username))

    async def totals(self) -> Totals:
        """Return how much there is of everything."""
        return await self._writer.run(_totals)

    async def usage(self) -> Usage:
        """Return how many bytes the file holds, and how many the disk has left."""
        try:
            disk = os.statvfs(self._writer.path)
        except OSError as error:
            raise StorageError(f"the disk cannot be looked at: {error.strerror}") from error
        held = await self._writer.run(_held, pieces=1)
        return Usage(held, disk.f_bavail * disk.f_frsize)


def is_admitted(db: sqlite3.Connection, username: str, shown: bytes | None, now: float) -> bool:
    """Tell whether an account exists and takes something with this token hash."""
    # WIRE-23 MUST: the same queries, whoever exists and whatever is accepted.
    policy = _policy(db, username)
    token = db.execute(
        "SELECT 1 FROM tokens WHERE username = ? AND hash = ?", (username, shown or b"")
    ).fetchone()
    invitation = db.execute(
        "SELECT 1 FROM invitations WHERE username = ? AND hash = ? AND expires > ?",
        (username, shown or b"", int(now)),
    ).fetchone()
    return admits(policy, knows_token=(token or invitation) is not None)


def _policy(db: sqlite3.Connection, username: str) -> Policy | None:
    found = db.execute("SELECT policy FROM accounts WHERE username = ?", (username,)).fetchone()
    return None if found is None else Policy(found[0])


def _held(db: sqlite3.Connection) -> int:
    found = db.execute(
        "SELECT (page_count - freelist_count) * page_size"
        " FROM pragma_page_count, pragma_freelist_count, pragma_page_size"
    ).fetchone()
    return int(found[0])


def _totals(db: sqlite3.Connection) -> Totals:
    found = db.execute(
        "SELECT (SELECT count(*) FROM accounts), (SELECT count(*) FROM devices),"
        " (SELECT count(*) FROM retired), (SELECT count(*) FROM prekeys WHERE record IS NOT NULL"
        " AND kind IN (?, ?)), count(*) FILTER (WHERE NOT is_box),"
        " count(*) FILTER (WHERE is_box), coalesce(sum(envelopes), 0), coalesce(sum(bytes), 0),"
        " (SELECT count(*) FROM mail WHERE tries >= 5 AND envelope IS NOT NULL)"
        " FROM mailboxes WHERE id <> 0",
        tuple(map(int, _ONE_TIME)),
    ).fetchone()
    assert found is not None
    return Totals(*map(int, found))


def _create(db: sqlite3.Connection, account: Account, code: CodeUse | None) -> None:
    name = account.username
    existing = _account(db, name)
    if existing is not None and existing.signed_list.body == account.signed_list.body:
        return  # the same registration again: its reply was lost
    if code is not None:
        _use_code(db, code)
    retired = db.execute("SELECT 1 FROM retired WHERE name_hash = ?", (name_hash(name),))
    if existing is not None or retired.fetchone() is not None:
        raise RefusedError(ErrorCode.USERNAME_TAKEN, "this username is taken")
    db.execute(
        "INSERT INTO accounts VALUES (?, ?, ?, ?, ?, ?)",
        (
            name,
            account.signed_list.body,
            account.signed_list.signature,
            account.device_list.version,
            account.newest_device_id,
            account.policy,
        ),
    )
    _put_devices(db, account)


def _add_codes(db: sqlite3.Connection, hashes: Sequence[bytes], expires: int) -> None:
    db.executemany("INSERT INTO codes VALUES (?, ?)", ((value, expires) for value in hashes))


def _use_code(db: sqlite3.Connection, code: CodeUse) -> None:
    # WIRE-19 MUST: gone with the account that it made, in one transaction.
    used = db.execute(
        "DELETE FROM codes WHERE hash = ? AND expires > ?", (code.hash, int(code.now))
    ).rowcount
    if not used:
        raise bad_code()


def bad_code() -> RefusedError:
    """Return the one refusal of a code that is unknown, was used, or has expired."""
    return RefusedError(ErrorCode.REGISTRATION_CLOSED, "this code is not good for a registration")


def _account(db: sqlite3.Connection, username: str) -> Account | None:
    found = db.execute(
        "SELECT device_list, list_signature, newest_device_id, policy FROM accounts"
        " WHERE username = ?",
        (username,),
    ).fetchone()
    if found is None:
        return None
    signed = SignedDeviceList(found[0], found[1])
    return Account(username, signed, read_list(signed), found[2], Policy(found[3]))


def _replace_device_list(db: sqlite3.Connection, account: Account) -> None:
    stored = _account(db, account.username)
    if stored is None:
        raise RefusedError(ErrorCode.STALE, "the account was deleted")
    # Once more, now that nothing can come in between: another list may have come first.
    check_successor(stored, account.device_list)
    db.execute(
        "UPDATE accounts SET device_list = ?, list_signature = ?, version = ?,"
        " newest_device_id = ? WHERE username = ?",
        (
            account.signed_list.body,
            account.signed_list.signature,
            account.device_list.version,
            max(stored.newest_device_id, account.newest_device_id),
            account.username,
        ),
    )
    _put_devices(db, account)


def _put_devices(db: sqlite3.Connection, account: Account) -> None:
    name = account.username
    wanted = {device.device_id for device in account.device_list.devices}
    stored = db.execute("SELECT device_id FROM devices WHERE username = ?", (name,)).fetchall()
    for (device_id,) in stored:
        if device_id not in wanted:
            _drop_device(db, name, device_id)
    for device_id in wanted:
        db.execute("INSERT OR IGNORE INTO devices VALUES (?, ?)", (name, device_id))


def _drop_device(db: sqlite3.Connection, username: str, device_id: int) -> None:
    key = DeviceMailbox(username, device_id).key
    db.execute("DELETE FROM mailboxes WHERE key = ?", (key,))
    db.execute("DELETE FROM devices WHERE username = ? AND device_id = ?", (username, device_id))


def _put_tokens(db: sqlite3.Connection, username: str, hashes: Sequence[bytes]) -> None:
    db.execute("DELETE FROM tokens WHERE username = ?", (username,))
    db.executemany(
        "INSERT OR IGNORE INTO tokens VALUES (?, ?)", ((username, value) for value in hashes)
    )


def _put_invitations(
    db: sqlite3.Connection, username: str, invitations: Sequence[Invitation]
) -> None:
    db.execute("DELETE FROM invitations WHERE username = ?", (username,))
    db.executemany(
        "INSERT OR IGNORE INTO invitations SELECT username, ?, ? FROM accounts WHERE username = ?",
        ((one.hash, one.expires, username) for one in invitations),
    )


def _add_prekeys(
    db: sqlite3.Connection, username: str, device_id: int, prekeys: Sequence[PreKey]
) -> None:
    # WIRE-55 MUST: of the ids that were handed out the highest is remembered, and bars all below.
    highest = dict(
        db.execute(
            "SELECT kind, max(key_id) FROM prekeys WHERE username = ? AND device_id = ?"
            " AND record IS NULL GROUP BY kind",
            (username, device_id),
        ).fetchall()
    )
    for prekey in prekeys:
        where = (username, device_id, prekey.kind)
        if prekey.key_id <= highest.get(prekey.kind, 0):
            continue
        if prekey.kind not in _ONE_TIME:
            db.execute(
                "DELETE FROM prekeys WHERE username = ? AND device_id = ? AND kind = ?", where
            )
        db.execute(
            "INSERT OR IGNORE INTO prekeys VALUES (?, ?, ?, ?, ?, ?)",
            (*where, prekey.key_id, prekey.expires, encode(prekey)),
        )
    left = db.execute(
        "SELECT sum(kind = ? AND record IS NOT NULL), sum(kind = ? AND record IS NOT NULL)"
        " FROM prekeys WHERE username = ? AND device_id = ?",
        (*_ONE_TIME, username, device_id),
    ).fetchone()
    if any(count is not None and count > MAX_ONE_TIME for count in left):
        raise RefusedError(ErrorCode.TOO_MANY, "too many prekeys for one device")


def _count(db: sqlite3.Connection, username: str, device_id: int, now: float) -> PrekeyCounts:
    counts = [
        db.execute(
            "SELECT count(*) FROM prekeys WHERE username = ? AND device_id = ? AND kind = ?"
            " AND record IS NOT NULL AND expires > ?",
            (username, device_id, kind, int(now)),
        ).fetchone()[0]
        for kind in _ONE_TIME
    ]
    return PrekeyCounts(counts[0], counts[1])


def _bundle(
    db: sqlite3.Connection,
    username: str,
    device_id: int | None,
    shown: bytes | None,
    now: float,
) -> HandedOut | None:
    if not is_admitted(db, username, shown, now):
        return None
    account = _account(db, username)
    assert account is not None
    if account.device_list.expires <= now:
        return None  # an initiator has to refuse it, so no one-time key is spent on it
    chosen = account.device_list.devices[0].device_id if device_id is None else device_id
    keys = {kind: _oldest(db, username, chosen, kind, now) for kind in PreKeyKind}
    signed = keys[PreKeyKind.SIGNED_X25519]
    sealing = keys[PreKeyKind.SEALING]
    one_time_kem = keys[PreKeyKind.ONE_TIME_MLKEM1024]
    kem = one_time_kem or keys[PreKeyKind.LAST_RESORT_MLKEM1024]
    if signed is None or sealing is None or kem is None:
        return None
    one_time = keys[PreKeyKind.ONE_TIME_X25519]
    for taken in (one_time, one_time_kem):
        if taken is not None:
            _mark_taken(db, username, chosen, taken)
    bundle = PreKeyBundle(account.signed_list, chosen, signed, sealing, kem, one_time)
    return HandedOut(bundle, _count(db, username, chosen, now))


def _oldest(
    db: sqlite3.Connection, username: str, device_id: int, kind: PreKeyKind, now: float
) -> PreKey | None:
    found = db.execute(
        "SELECT record FROM prekeys WHERE username = ? AND device_id = ? AND kind = ?"
        " AND record IS NOT NULL AND expires > ? ORDER BY key_id LIMIT 1",
        (username, device_id, kind, int(now)),
    ).fetchone()
    return None if found is None else decode(found[0], PreKey, limit=MAX_RECORD)


def _mark_taken(db: sqlite3.Connection, username: str, device_id: int, taken: PreKey) -> None:
    where = (username, device_id, taken.kind, taken.key_id)
    older = db.execute(
        "SELECT max(expires) FROM prekeys WHERE username = ? AND device_id = ? AND kind = ?"
        " AND key_id < ? AND record IS NULL",
        where,
    ).fetchone()[0]
    db.execute(
        "UPDATE prekeys SET record = NULL, expires = max(expires, ?)"
        " WHERE username = ? AND device_id = ? AND kind = ? AND key_id = ?",
        (older or 0, *where),
    )
    if older is not None:
        db.execute(
            "DELETE FROM prekeys WHERE username = ? AND device_id = ? AND kind = ?"
            " AND key_id < ? AND record IS NULL",
            where,
        )


def _delete(db: sqlite3.Connection, username: str) -> None:
    stored = db.execute("SELECT device_id FROM devices WHERE username = ?", (username,))
    for (device_id,) in stored.fetchall():
        _drop_device(db, username, device_id)
    db.execute("DELETE FROM accounts WHERE username = ?", (username,))
    db.execute("INSERT OR IGNORE INTO retired VALUES (?)", (name_hash(username),))


def name_hash(username: str) -> bytes:
    """Return what is kept of a deleted account's name."""
    return hashlib.sha256(labelled("retired username", username.encode("ascii"))).digest()
