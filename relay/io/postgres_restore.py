"""What makes a restored PostgreSQL database safe to serve (spec/wire.md, Backup).

A database that was restored, or whose standby took over, may have forgotten which one-time prekeys
were handed out, and which registration codes were used. It is known by its origin: the cluster, its
timeline and the database.
"""

from typing import Final

from relay.io.postgres_pool import Cursor
from relay.io.postgres_schema import get_meta, put_meta
from relay.wire.records import PreKeyKind

_ORIGIN: Final = "origin"
_ONE_TIME: Final = [int(PreKeyKind.ONE_TIME_X25519), int(PreKeyKind.ONE_TIME_MLKEM1024)]


def guard(db: Cursor) -> None:
    """Discard all one-time prekeys if the database is not where they were handed out."""
    if get_meta(db, _ORIGIN) == _origin(db):
        return
    db.execute("LOCK TABLE meta IN EXCLUSIVE MODE")  # of the nodes that see it, one does it
    known = get_meta(db, _ORIGIN)
    if known is None:
        put_meta(db, _ORIGIN, _origin(db))
    elif known != _origin(db):
        discard(db)


def discard(db: Cursor) -> int:
    """Discard all registration codes and one-time prekeys, whose ids stay taken; count those."""
    put_meta(db, _ORIGIN, _origin(db))
    db.execute("DELETE FROM codes")
    return db.execute(
        "UPDATE prekeys SET record = NULL WHERE record IS NOT NULL AND kind = ANY(%s)",
        (_ONE_TIME,),
    ).rowcount


def _origin(db: Cursor) -> str:
    # pg_walfile_name begins with the timeline, which changes with every recovery that ends and
    # every promotion.
    found = db.execute(
        "SELECT system_identifier, substring(pg_walfile_name(pg_current_wal_insert_lsn()) for 8),"
        " (SELECT oid FROM pg_database WHERE datname = current_database())"
        " FROM pg_control_system()"
    ).fetchone()
    assert found is not None
    return "/".join(map(str, found))
