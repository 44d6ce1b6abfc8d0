"""``e2ecall-relay init``: a configuration to begin with (relay/README.md)."""

import os
import secrets
import sys
from pathlib import Path

from relay.errors import OperatorError

CONFIGURATION = Path("relay.toml")
SECRET = Path("turn.secret")

TEMPLATE = """\
# A relay for end-to-end encrypted calls. `e2ecall-relay check --config relay.toml` checks it;
# a key that is not known is an error. Paths are relative to this file. Each key can also be set
# in the environment, as in RELAY__SIGNALLING__LISTEN.

[relay]
# What clients dial, and what stands behind the @ in addresses: a host, or host:port. It can never
# change: accounts are bound to it.
name = "localhost:8080"
data_dir = "data"
# "open": everybody may register. "invite": who has a code of `e2ecall-relay invite`. "closed":
# nobody new.
registration = "open"
# The username of an account here that takes people's reports about others; empty: nobody does.
abuse_contact = ""

[signalling]
# TCP; one address or several, as in ["0.0.0.0:443", "[::]:443"].
listen = "127.0.0.1:8080"
# Needed to listen elsewhere than on this machine without [tls]: a proxy in front speaks TLS.
behind_proxy = false
# Addresses and networks of proxies, as in ["127.0.0.1"]: what they say in proxy_header about who
# connects is believed, and nothing that anybody else says.
trusted_proxies = []
# "x-forwarded-for" or "forwarded": the one that the proxy sets.
proxy_header = "x-forwarded-for"
# Web pages that may connect from a browser, as in "https://calls.example". Other programs may.
origins = []

[tls]
# PEM files. Empty: no TLS.
certificate = ""
key = ""

[turn]
# UDP, and TCP and TLS for networks that let no UDP through. Each is one address or several, as in
# ["0.0.0.0:3478", "[::]:3478"]; TLS needs [tls] and is usually "0.0.0.0:5349". Clients are told the
# relay's host with these ports, unless `urls` says otherwise.
listen = "0.0.0.0:3478"
listen_tcp = "0.0.0.0:3478"
listen_tls = []
urls = []
# Several nodes, or an external fleet: `urls` lists all servers, the same on every node, and
# `own_host` says which host among them is this node; "" where none is.
own_host = ""
secret_file = "turn.secret"
ticket_seconds = 43200
# Processes that forward media, on Linux; one for each processor core at most. 0: the relay's own.
workers = 1

[storage]
# "sqlite": one file in data_dir, for one process. "postgres": a database that several nodes share;
# then set dsn, as in "host=db.example dbname=e2ecall user=relay", or dsn_file, the path of a file
# that holds it. All nodes have the same relay.name, turn secret and relay.key (in data_dir).
backend = "sqlite"
# node = "north"  # among nodes that share a database each has another name; default: the host's

[limits]
# Per source address: an IPv4 address, or a /64 of IPv6.
handshakes_per_address = 64
handshakes_per_address_and_minute = 600
connections_per_address = 200
requests_per_address_and_second = 200
registrations_per_address_and_hour = 20
fetches_per_address_and_minute = 60
boxes_per_address_and_hour = 1200
sends_per_address_and_minute = 1200
# Whichever strangers ask, for one account or mailbox; and under one delivery token.
fetches_per_account_and_minute = 120
sends_per_mailbox_and_minute = 600
sends_per_token_and_minute = 120
# What an account changes about itself: its keys, devices, policy and tokens.
changes_per_account_and_minute = 60
# TURN allocations: each end of a call needs one, and for a moment two when its network changes.
# One that is not refreshed ends after allocation_seconds.
allocations = 20000
allocations_per_side = 2
allocations_per_address = 200
allocation_seconds = 3600
allocation_bytes_per_second = 2500000
# Accounts, keys and mail in all; see "When something is wrong" in relay/README.md.
stored_bytes = 20000000000
# TURN over TCP and TLS.
turn_connections = 4000
turn_connections_per_address = 200

[operation]
# HOST:PORT where Prometheus may read /metrics; they name nobody. Empty: only on the admin socket.
metrics_listen = ""
# How long calls that run may go on when the relay is told to stop.
drain_seconds = 60
# "json" or "console"; logs go to stderr and name nobody.
log_format = "json"
"""


def init() -> None:
    """Write relay.toml and turn.secret to the current folder; existing files are left alone."""
    for path in (CONFIGURATION, SECRET):
        if path.exists():
            raise OperatorError(f"{path} exists already", hint="move it away, or use it as it is")
    try:
        _write(SECRET, secrets.token_urlsafe(32) + "\n", 0o600)
        _write(CONFIGURATION, TEMPLATE, 0o644)
    except OSError as error:
        raise OperatorError(f"cannot write here: {error.strerror}") from error
    sys.stdout.write(
        "wrote relay.toml and turn.secret\n"
        "next: set relay.name, then e2ecall-relay check --config relay.toml\n"
    )


def _write(path: Path, text: str, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
