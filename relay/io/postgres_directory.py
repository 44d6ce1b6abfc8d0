"""Accounts and prekeys in PostgreSQL (spec/wire.md, Accounts and Prekeys).

The inner functions run in one transaction each, at READ COMMITTED: what has to hold against others
is locked, or checked by a statement that comes after the lock. Locks are taken in the order
accounts, devices, prekeys, mailboxes, mail. Requests were checked by `relay.services.directory`.
"""

from collections.abc import Sequence
from typing import Final

from relay.errors import RefusedError
from relay.io.postgres_pool import Cursor, Pool
from relay.io.sqlite_directory import (
    MAX_ONE_TIME,
    MAX_RECORD,
    bad_code,
    name_hash,
)
from relay.io.storage import Totals
from relay.services.directory import (
    REFILL_BELOW,
    Account,
    CodeUse,
    HandedOut,
    check_successor,
    read_list,
)
from relay.services.mailbox import DeviceMailbox
from relay.services.policy import admits
from relay.services.volume import Usage
from relay.wire.codec import decode, encode
from relay.wire.messages import ErrorCode, Invitation, Policy, PrekeyCounts
from relay.wire.records import PreKey, PreKeyBundle, PreKeyKind, SignedDeviceList

ONE_BY_ONE: Final = REFILL_BELOW + 64
"""One-time prekeys of a kind: with fewer, a device's takers come one after the other. As many as
all nodes together may take at the same moment lie between this and what is to be told."""
PREKEY_BYTES: Final = 1200
"""What a prekey takes up, with its index: half of them are X25519, half ML-KEM."""
_ONE_TIME: Final = (PreKeyKind.ONE_TIME_X25519, PreKeyKind.ONE_TIME_MLKEM1024)


class PostgresDirectory:
    """`relay.io.storage.Directory` in PostgreSQL."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def create(self, account: Account, code: CodeUse | None = None) -> None:
        """Store a new account."""
        await self._pool.run(lambda db: _create(db, account, code))

    async def add_codes(self, hashes: Sequence[bytes], expires: int) -> None:
        """Store the hashes of new registration codes."""
        await self._pool.run(lambda db: _add_codes(db, hashes, expires))

    async def account(self, username: str) -> Account | None:
        """Return an account."""
        return await self._pool.run(lambda db: _account(db, username))

    async def policy(self, username: str) -> Policy | None:
        """Return whom an account accepts."""
        return await self._pool.run(lambda db: _policy(db, username))

    async def replace_device_list(self, account: Account) -> None:
        """Store an account's next device list."""
        await self._pool.run(lambda db: _replace_device_list(db, account))

    async def set_policy(self, username: str, policy: Policy) -> None:
        """Choose who can reach an account."""
        statement = "UPDATE accounts SET policy = %s WHERE username = %s"
        await self._pool.run(lambda db: db.execute(statement, (int(policy), username)))

    async def put_tokens(self, username: str, hashes: Sequence[bytes]) -> None:
        """Replace the delivery-token hashes of an account."""
        await self._pool.run(lambda db: _put_tokens(db, username, hashes))

    async def put_invitations(self, username: str, invitations: Sequence[Invitation]) -> None:
        """Replace the open invitations of an account."""
        await self._pool.run(lambda db: _put_invitations(db, username, invitations))

    async def add_prekeys(self, username: str, device_id: int, prekeys: Sequence[PreKey]) -> None:
        """Add one-time prekeys and replace the others."""
        await self._pool.run(lambda db: _add_prekeys(db, username, device_id, prekeys))

    async def count_prekeys(self, username: str, device_id: int, now: float) -> PrekeyCounts:
        """Return how many one-time prekeys are left."""
        return await self._pool.run(lambda db: _count(db, username, device_id, now))

    async def take_bundle(
        self, username: str, device_id: int | None, shown: bytes | None, now: float
    ) -> HandedOut | None:
        """Hand out a bundle."""
        return await self._pool.run(lambda db: _bundle(db, username, device_id, shown, now))

    async def delete(self, username: str) -> None:
        """Remove an account and retire its name."""
        await self._pool.run(lambda db: _delete(db, username))

    async def totals(self) -> Totals:
        """Return how much there is of everything."""
        return await self._pool.run(_totals)

    async def usage(self) -> Usage:
        """Return how many bytes the database holds; how large its disk is it does not say."""
        return await self._pool.run(_usage)


def is_admitted(db: Cursor, username: str, shown: bytes | None, now: float) -> bool:
    """Tell whether an account exists and takes something with this token hash."""
    # WIRE-23 MUST: the same query, whoever exists and whatever is accepted.
    found = db.execute(
        "SELECT (SELECT policy FROM accounts WHERE username = %(name)s),"
        " EXISTS(SELECT FROM tokens WHERE username = %(name)s AND hash = %(shown)s),"
        " EXISTS(SELECT FROM invitations WHERE username = %(name)s AND hash = %(shown)s"
        " AND expires > %(now)s)",
        {"name": username, "shown": shown or b"", "now": int(now)},
    ).fetchone()
    assert found is not None
    policy, *knows = found
    return admits(None if policy is None else Policy(policy), knows_token=any(knows))


def _policy(db: Cursor, username: str) -> Policy | None:
    query = "SELECT policy FROM accounts WHERE username = %s"
    found = db.execute(query, (username,)).fetchone()
    return None if found is None else Policy(found[0])


def _usage(db: Cursor) -> Usage:
    # What a relation takes up on the disk does not shrink when rows are deleted, so mail is added
    # up, and keys are estimated from what the last analysis counted.
    found = db.execute(
        "SELECT coalesce(sum(bytes), 0) + %s * (SELECT greatest(reltuples, 0) FROM pg_class"
        " WHERE oid = 'prekeys'::regclass) FROM mailboxes",
        (PREKEY_BYTES,),
    ).fetchone()
    assert found is not None
    return Usage(int(found[0]))


def _totals(db: Cursor) -> Totals:
    found = db.execute(
        "SELECT (SELECT count(*) FROM accounts), (SELECT count(*) FROM devices),"
        " (SELECT count(*) FROM retired), (SELECT count(*) FROM prekeys WHERE record IS NOT NULL"
        " AND kind IN (%s, %s)), count(*) FILTER (WHERE NOT is_box),"
        " count(*) FILTER (WHERE is_box), coalesce(sum(envelopes), 0), coalesce(sum(bytes), 0),"
        " (SELECT count(*) FROM mail WHERE tries >= 5 AND envelope IS NOT NULL)"
        " FROM mailboxes WHERE id <> 0",
        tuple(map(int, _ONE_TIME)),
    ).fetchone()
    assert found is not None
    return Totals(*map(int, found))


def _create(db: Cursor, account: Account, code: CodeUse | None) -> None:
    name = account.username
    if code is not None:
        if _is_stored(db, account):
            return  # the same registration again: its code is used up, and its reply was lost
        if not _use_code(db, code):
            if _is_stored(db, account):
                return  # it used the code up just now, at another node
            raise bad_code()
    inserted = db.execute(
        "INSERT INTO accounts VALUES (%s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING",
        (
            name,
            account.signed_list.body,
            account.signed_list.signature,
            account.device_list.version,
            account.newest_device_id,
            int(account.policy),
        ),
    ).rowcount
    if not inserted:
        if _is_stored(db, account):
            return  # the same registration again: its reply was lost
        raise RefusedError(ErrorCode.USERNAME_TAKEN, "this username is taken")
    # After the insert: it waited for a deletion that was under way, which retires the name.
    retired = db.execute("SELECT 1 FROM retired WHERE name_hash = %s", (name_hash(name),))
    if retired.fetchone() is not None:
        raise RefusedError(ErrorCode.USERNAME_TAKEN, "this username is taken")
    _put_devices(db, account)


def _is_stored(db: Cursor, account: Account) -> bool:
    """Tell whether this very account is there (WIRE-10)."""
    existing = _account(db, account.username)
    return existing is not None and existing.signed_list.body == account.signed_list.body


def _add_codes(db: Cursor, hashes: Sequence[bytes], expires: int) -> None:
    db.execute("INSERT INTO codes SELECT unnest(%s::bytea[]), %s", (list(hashes), expires))


def _use_code(db: Cursor, code: CodeUse) -> int:
    # WIRE-19 MUST: gone with the account that it made, in one transaction.
    statement = "DELETE FROM codes WHERE hash = %s AND expires > %s"
    return db.execute(statement, (code.hash, int(code.now))).rowcount


def _account(db: Cursor, username: str, *, lock: bool = False) -> Account | None:
    query = (
        "SELECT device_list, list_signature, newest_device_id, policy FROM accounts"
        " WHERE username = %s"
    )
    found = db.execute(query + (" FOR UPDATE" if lock else ""), (username,)).fetchone()
    if found is None:
        return None
    signed = SignedDeviceList(found[0], found[1])
    return Account(username, signed, read_list(signed), found[2], Policy(found[3]))


def _replace_device_list(db: Cursor, account: Account) -> None:
    stored = _account(db, account.username, lock=True)
    if stored is None:
        raise RefusedError(ErrorCode.STALE, "the account was deleted")
    # Once more, now that nothing can come in between: another list may have come first.
    check_successor(stored, account.device_list)
    db.execute(
        "UPDATE accounts SET device_list = %s, list_signature = %s, version = %s,"
        " newest_device_id = %s WHERE username = %s",
        (
            account.signed_list.body,
            account.signed_list.signature,
            account.device_list.version,
            max(stored.newest_device_id, account.newest_device_id),
            account.username,
        ),
    )
    _put_devices(db, account)


def _put_devices(db: Cursor, account: Account) -> None:
    name = account.username
    wanted = {device.device_id for device in account.device_list.devices}
    stored = db.execute("SELECT device_id FROM devices WHERE username = %s", (name,)).fetchall()
    for (device_id,) in stored:
        if device_id not in wanted:
            _drop_device(db, name, device_id)
    for device_id in sorted(wanted):
        db.execute("INSERT INTO devices VALUES (%s, %s) ON CONFLICT DO NOTHING", (name, device_id))


def _drop_device(db: Cursor, username: str, device_id: int) -> None:
    db.execute("DELETE FROM devices WHERE username = %s AND device_id = %s", (username, device_id))
    key = DeviceMailbox(username, device_id).key
    db.execute("DELETE FROM mailboxes WHERE key = %s", (key,))


def _put_tokens(db: Cursor, username: str, hashes: Sequence[bytes]) -> None:
    # Two replacements at once come one after the other; without the account there is nothing.
    found = db.execute("SELECT 1 FROM accounts WHERE username = %s FOR UPDATE", (username,))
    if found.fetchone() is None:
        return
    db.execute("DELETE FROM tokens WHERE username = %s", (username,))
    db.execute(
        "INSERT INTO tokens SELECT %s, unnest(%s::bytea[]) ON CONFLICT DO NOTHING",
        (username, list(hashes)),
    )


def _put_invitations(db: Cursor, username: str, invitations: Sequence[Invitation]) -> None:
    found = db.execute("SELECT 1 FROM accounts WHERE username = %s FOR UPDATE", (username,))
    if found.fetchone() is None:
        return
    db.execute("DELETE FROM invitations WHERE username = %s", (username,))
    db.executemany(
        "INSERT INTO invitations VALUES (%s, %s, %s) ON CONFLICT DO NOTHING",
        [(username, one.hash, one.expires) for one in invitations],
    )


def _add_prekeys(db: Cursor, username: str, device_id: int, prekeys: Sequence[PreKey]) -> None:
    where = {"name": username, "device": device_id}
    locked = db.execute(
        "SELECT 1 FROM devices WHERE username = %(name)s AND device_id = %(device)s FOR UPDATE",
        where,
    )
    if locked.fetchone() is None:
        raise RefusedError(ErrorCode.NOT_LOGGED_IN, "this device was removed")
    # WIRE-55 MUST: of the ids that were handed out the highest is remembered, and bars all below.
    highest: dict[int, int] = dict(
        db.execute(
            "SELECT kind, max(key_id) FROM prekeys WHERE username = %(name)s"
            " AND device_id = %(device)s AND record IS NULL GROUP BY kind",
            where,
        ).fetchall()
    )
    replaced = [int(prekey.kind) for prekey in prekeys if prekey.kind not in _ONE_TIME]
    db.execute(
        "DELETE FROM prekeys WHERE username = %(name)s AND device_id = %(device)s"
        " AND kind = ANY(%(kinds)s)",
        {**where, "kinds": replaced},
    )
    db.executemany(
        "INSERT INTO prekeys VALUES (%s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING",
        [
            (username, device_id, int(key.kind), key.key_id, key.expires, encode(key))
            for key in prekeys
            if key.key_id > highest.get(key.kind, 0)
        ],
    )
    counts = db.execute(
        "SELECT count(record) FILTER (WHERE kind = %(first)s),"
        " count(record) FILTER (WHERE kind = %(second)s)"
        " FROM prekeys WHERE username = %(name)s AND device_id = %(device)s",
        {**where, "first": int(_ONE_TIME[0]), "second": int(_ONE_TIME[1])},
    ).fetchone()
    assert counts is not None
    if max(counts) > MAX_ONE_TIME:
        raise RefusedError(ErrorCode.TOO_MANY, "too many prekeys for one device")


def _count(db: Cursor, username: str, device_id: int, now: float) -> PrekeyCounts:
    counts = db.execute(
        "SELECT count(*) FILTER (WHERE kind = %s), count(*) FILTER (WHERE kind = %s)"
        " FROM prekeys WHERE username = %s AND device_id = %s"
        " AND record IS NOT NULL AND expires > %s",
        (int(_ONE_TIME[0]), int(_ONE_TIME[1]), username, device_id, int(now)),
    ).fetchone()
    assert counts is not None
    return PrekeyCounts(*counts)


def _bundle(
    db: Cursor, username: str, device_id: int | None, shown: bytes | None, now: float
) -> HandedOut | None:
    if not is_admitted(db, username, shown, now):
        return None
    account = _account(db, username)
    if account is None:
        return None  # deleted just now
    if account.device_list.expires <= now:
        return None  # an initiator has to refuse it, so no one-time key is spent on it
    chosen = account.device_list.devices[0].device_id if device_id is None else device_id
    left = _count(db, username, chosen, now)
    if min(left.x25519, left.mlkem1024) < ONE_BY_ONE:
        # WIRE-18 MUST: takers that do not see each other would pass by the numbers to be told.
        db.execute(
            "SELECT 1 FROM devices WHERE username = %s AND device_id = %s FOR NO KEY UPDATE",
            (username, chosen),
        )
    signed = _lasting(db, username, chosen, PreKeyKind.SIGNED_X25519, now)
    sealing = _lasting(db, username, chosen, PreKeyKind.SEALING, now)
    if signed is None or sealing is None:
        return None
    kem = _take(db, username, chosen, PreKeyKind.ONE_TIME_MLKEM1024, now) or _lasting(
        db, username, chosen, PreKeyKind.LAST_RESORT_MLKEM1024, now
    )
    if kem is None:
        return None
    one_time = _take(db, username, chosen, PreKeyKind.ONE_TIME_X25519, now)
    bundle = PreKeyBundle(account.signed_list, chosen, signed, sealing, kem, one_time)
    return HandedOut(bundle, _count(db, username, chosen, now))


def _lasting(
    db: Cursor, username: str, device_id: int, kind: PreKeyKind, now: float
) -> PreKey | None:
    found = db.execute(
        "SELECT record FROM prekeys WHERE username = %s AND device_id = %s AND kind = %s"
        " AND record IS NOT NULL AND expires > %s ORDER BY key_id LIMIT 1",
        (username, device_id, int(kind), int(now)),
    ).fetchone()
    return None if found is None else decode(found[0], PreKey, limit=MAX_RECORD)


def _take(db: Cursor, username: str, device_id: int, kind: PreKeyKind, now: float) -> PreKey | None:
    # STORAGE-02 MUST: a row that another taker has locked is skipped, so each goes to one; a
    # taker that then fails gives its row back.
    found = db.execute(
        """WITH taken AS (
            SELECT username, device_id, kind, key_id, record FROM prekeys
            WHERE username = %s AND device_id = %s AND kind = %s
                AND record IS NOT NULL AND expires > %s
            ORDER BY key_id LIMIT 1 FOR UPDATE SKIP LOCKED
        ), older AS (
            SELECT prekeys.username, prekeys.device_id, prekeys.kind, prekeys.key_id,
                prekeys.expires
            FROM prekeys JOIN taken USING (username, device_id, kind)
            WHERE prekeys.key_id < taken.key_id AND prekeys.record IS NULL
            FOR UPDATE OF prekeys SKIP LOCKED
        ), gone AS (
            DELETE FROM prekeys USING older
            WHERE (prekeys.username, prekeys.device_id, prekeys.kind, prekeys.key_id)
                = (older.username, older.device_id, older.kind, older.key_id)
        ), marked AS (
            UPDATE prekeys SET record = NULL,
                expires = greatest(prekeys.expires, (SELECT max(expires) FROM older))
            FROM taken WHERE (prekeys.username, prekeys.device_id, prekeys.kind, prekeys.key_id)
                = (taken.username, taken.device_id, taken.kind, taken.key_id)
        )
        SELECT record FROM taken""",
        (username, device_id, int(kind), int(now)),
    ).fetchone()
    return None if found is None else decode(found[0], PreKey, limit=MAX_RECORD)


def _delete(db: Cursor, username: str) -> None:
    if _account(db, username, lock=True) is None:
        return
    stored = db.execute("SELECT device_id FROM devices WHERE username = %s", (username,))
    for (device_id,) in stored.fetchall():
        _drop_device(db, username, device_id)
    db.execute("INSERT INTO retired VALUES (%s) ON CONFLICT DO NOTHING", (name_hash(username),))
    db.execute("DELETE FROM accounts WHERE username = %s", (username,))
