"""Configurations of relays that are nodes of one relay."""

from pathlib import Path

NAME = "relay.example"
SEED = bytes(range(32))


def node_config(folder: Path, node: str, dsn: str | None, extra: str = "") -> Path:
    """Write relay.toml and relay.key for a node; without a ``dsn`` for a relay with SQLite."""
    data = folder / "data"
    data.mkdir(parents=True, exist_ok=True)
    key = data / "relay.key"
    key.write_bytes(SEED)
    key.chmod(0o600)
    storage = ""
    if dsn is not None:
        storage = f'[storage]\nbackend = "postgres"\ndsn = "{dsn}"\nnode = "{node}"\n'
    path = folder / "relay.toml"
    path.write_text(
        f'[relay]\nname = "{NAME}"\n[signalling]\nlisten = "127.0.0.1:0"\n'
        f'[turn]\nlisten = "127.0.0.1:0"\nsecret = "a secret of all nodes"\n{extra}{storage}'
        "[limits]\nconnections_per_address = 1000\nsends_per_address_and_minute = 1000000\n"
        "fetches_per_address_and_minute = 1000000\nhandshakes_per_address = 1000\n"
        "handshakes_per_address_and_minute = 1000000\n"
        "requests_per_address_and_second = 1000000\n"
        "fetches_per_account_and_minute = 1000000\nsends_per_mailbox_and_minute = 1000000\n"
        "sends_per_token_and_minute = 1000000\nboxes_per_address_and_hour = 1000000\n"
    )
    return path
