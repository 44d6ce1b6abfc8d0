"""The tables in PostgreSQL, and the steps from one format to the next (spec/wire.md, Storage).

What is about connections (nodes, presence, rates) is UNLOGGED: it costs no disk, and a server that
crashed forgets it, as it should. It moves no mail.
"""

from typing import Final

from relay.errors import OperatorError
from relay.io.postgres_pool import Cursor

MIN_SERVER: Final = 15_00_00
_LOCK: Final = 0x65326563
"""Advisory lock: nodes that start together do not migrate together."""

MIGRATIONS: Final = (
    (
        "CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL)",
        """CREATE TABLE accounts (
            username TEXT COLLATE "C" PRIMARY KEY,
            device_list BYTEA NOT NULL,
            list_signature BYTEA NOT NULL,
            version BIGINT NOT NULL,
            newest_device_id INTEGER NOT NULL,
            policy SMALLINT NOT NULL
        )""",
        """CREATE TABLE devices (
            username TEXT COLLATE "C" NOT NULL REFERENCES accounts ON DELETE CASCADE,
            device_id INTEGER NOT NULL,
            PRIMARY KEY (username, device_id)
        )""",
        "CREATE TABLE retired (name_hash BYTEA PRIMARY KEY)",
        """CREATE TABLE tokens (
            username TEXT COLLATE "C" NOT NULL REFERENCES accounts ON DELETE CASCADE,
            hash BYTEA NOT NULL,
            PRIMARY KEY (username, hash)
        )""",
        # A row without a record is a one-time prekey that was handed out: its id stays taken.
        """CREATE TABLE prekeys (
            username TEXT COLLATE "C" NOT NULL,
            device_id INTEGER NOT NULL,
            kind SMALLINT NOT NULL,
            key_id BIGINT NOT NULL,
            expires BIGINT NOT NULL,
            record BYTEA,
            PRIMARY KEY (username, device_id, kind, key_id),
            FOREIGN KEY (username, device_id) REFERENCES devices ON DELETE CASCADE
        )""",
        "CREATE INDEX prekeys_by_expiry ON prekeys (expires)",
        """CREATE INDEX prekeys_left ON prekeys (username, device_id, kind, key_id)
            WHERE record IS NOT NULL""",
        """CREATE TABLE mailboxes (
            id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            key BYTEA NOT NULL UNIQUE,
            is_box BOOLEAN NOT NULL,
            envelopes INTEGER NOT NULL,
            bytes BIGINT NOT NULL,
            touched BIGINT NOT NULL
        )""",
        "CREATE INDEX boxes_by_age ON mailboxes (touched) WHERE is_box",
        # A row without an envelope was acknowledged: a repeated Send still finds its message id.
        """CREATE TABLE mail (
            row BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            mailbox BIGINT NOT NULL REFERENCES mailboxes ON DELETE CASCADE,
            message_id BYTEA NOT NULL,
            envelope BYTEA,
            expires BIGINT NOT NULL,
            UNIQUE (mailbox, message_id)
        )""",
        # Sealed envelopes do not compress; trying to costs more than it says.
        "ALTER TABLE mail ALTER envelope SET STORAGE EXTERNAL",
        "CREATE INDEX mail_waiting ON mail (mailbox, row) WHERE envelope IS NOT NULL",
        "CREATE INDEX mail_by_expiry ON mail (expires)",
        # Where the writes of a refused Send go, so that it costs what an accepted one costs.
        "INSERT INTO mailboxes OVERRIDING SYSTEM VALUE VALUES (0, '\\x00', false, 0, 0, 0)",
        "CREATE SEQUENCE epochs",
        "CREATE SEQUENCE node_ids",
        """CREATE UNLOGGED TABLE nodes (
            id BIGINT PRIMARY KEY DEFAULT nextval('node_ids'),
            name TEXT COLLATE "C" NOT NULL UNIQUE,
            seen TIMESTAMPTZ NOT NULL
        )""",
        """CREATE UNLOGGED TABLE presence (
            key BYTEA PRIMARY KEY,
            node BIGINT NOT NULL REFERENCES nodes ON DELETE CASCADE,
            epoch BIGINT NOT NULL
        )""",
        "CREATE INDEX presence_by_node ON presence (node)",
        """CREATE UNLOGGED TABLE rates (
            key BYTEA PRIMARY KEY,
            level DOUBLE PRECISION NOT NULL,
            since DOUBLE PRECISION NOT NULL,
            full_again DOUBLE PRECISION NOT NULL
        )""",
        "CREATE INDEX rates_by_age ON rates (full_again)",
    ),
    ("ALTER TABLE mail ADD tries SMALLINT NOT NULL DEFAULT 0",),
    (
        "CREATE TABLE codes (hash BYTEA PRIMARY KEY, expires BIGINT NOT NULL)",
        """CREATE TABLE invitations (
            username TEXT COLLATE "C" NOT NULL REFERENCES accounts ON DELETE CASCADE,
            hash BYTEA NOT NULL,
            expires BIGINT NOT NULL,
            PRIMARY KEY (username, hash)
        )""",
    ),
    ("CREATE INDEX mail_set_aside ON mail (mailbox) WHERE tries >= 5 AND envelope IS NOT NULL",),
    # Releases before noted when something came for a device (STORAGE-17).
    ("UPDATE mailboxes SET touched = 0 WHERE NOT is_box",),
)

FORMAT: Final = len(MIGRATIONS)


def check(cursor: Cursor) -> None:
    """Return if the database has exactly this release's format.

    Raises:
        OperatorError: it has another, or the server is too old.
    """
    if cursor.connection.info.server_version < MIN_SERVER:
        raise OperatorError("PostgreSQL has to be 15 or later")
    found = current(cursor)
    if found != FORMAT:
        newer = found > FORMAT
        raise OperatorError(
            f"the database has format {found}, this relay reads format {FORMAT}",
            hint="run the release of the relay that made it"
            if newer
            else "stop all nodes of older releases, then run `e2ecall-relay migrate`",
        )


def migrate(cursor: Cursor) -> tuple[int, int]:
    """Bring the database to this release's format; return the formats before and after.

    Raises:
        OperatorError: it is of a later release, or the server is too old.
    """
    cursor.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
    before = current(cursor)
    if 0 < before < FORMAT:
        _check_unused(cursor)
    for steps in MIGRATIONS[before:]:
        for statement in steps:
            cursor.execute(statement)
    if before < FORMAT:
        put_meta(cursor, "format", str(FORMAT))
    check(cursor)
    return before, FORMAT


def _check_unused(cursor: Cursor) -> None:
    live = "SELECT name FROM nodes WHERE seen > clock_timestamp() - interval '15 s' ORDER BY name"
    names = [str(name) for (name,) in cursor.execute(live)]
    if names:
        raise OperatorError(
            f"nodes use the database: {', '.join(names)}",
            hint="stop them; one that died is forgotten after 15 s",
        )


def current(cursor: Cursor) -> int:
    """Return the format of the database; 0 where it has no tables of ours."""
    cursor.execute("SELECT to_regclass('meta') IS NOT NULL")
    if cursor.fetchone() != (True,):
        return 0
    return int(get_meta(cursor, "format") or 0)


def get_meta(cursor: Cursor, name: str) -> str | None:
    """Return a value that belongs to the database as a whole."""
    found = cursor.execute("SELECT value FROM meta WHERE name = %s", (name,)).fetchone()
    return None if found is None else str(found[0])


def put_meta(cursor: Cursor, name: str, value: str) -> None:
    """Set a value that belongs to the database as a whole."""
    cursor.execute(
        "INSERT INTO meta VALUES (%s, %s) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        (name, value),
    )
