"""``e2ecall-relay check``: is this configuration one that `serve` accepts? (relay/README.md)."""

import os
import sys
from pathlib import Path

from relay import diagnosis
from relay.config import load
from relay.errors import OperatorError
from relay.io.backends import postgres
from relay.io.tls import Certificates


def check(*, config: Path = Path("relay.toml")) -> None:
    """Say whether a relay can be served with a configuration, or all that is wrong with it.

    Parameters
    ----------
    config:
        The configuration file.
    """
    with diagnosis.located(config, os.environ):
        checked = load(config, os.environ)
        diagnosis.check(checked)
    if checked.tls.certificate:
        trouble = Certificates(checked.tls.certificate, checked.tls.key).current.trouble
        if trouble:
            raise OperatorError(
                f"{trouble}: clients refuse it",
                hint="put a new chain and key in the place of the old; a relay that runs: reload",
            )
    if checked.storage.backend == "postgres":
        postgres().check(checked.storage.dsn)
    sys.stdout.write(f"{config}: ok, the relay is {checked.relay.name}\n")
