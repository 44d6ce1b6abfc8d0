"""``e2ecall-relay check``: is this configuration one that `serve` accepts? (relay/README.md)."""

import os
import sys
from pathlib import Path

from relay import config as configuration
from relay.io.signalling import tls_context


def check(*, config: Path = Path("relay.toml")) -> None:
    """Say whether a relay can be served with a configuration.

    Parameters
    ----------
    config:
        The configuration file.
    """
    checked = configuration.check(configuration.load(config, os.environ))
    if checked.tls.certificate:
        tls_context(checked.tls.certificate, checked.tls.key)
    sys.stdout.write(f"{config}: ok, the relay is {checked.relay.name}\n")
