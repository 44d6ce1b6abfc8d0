"""``e2ecall-relay serve``: from the command line to a running relay (relay/README.md)."""

import gc
import json
import os
import sys
import tempfile
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Final

import msgspec
import trio

from relay import config as configuration
from relay import diagnosis
from relay.config import MAX_WORKERS, Config, host_port
from relay.errors import OperatorError
from relay.io import logs
from relay.io.server import Options, Ready, run_until_signal

COLLECT_AFTER: Final = 20_000
"""Objects that may refer to each other, made since the last search for those that only do."""


def serve(
    *,
    config: Path | None = None,
    dev: bool = False,
    signalling: str | None = None,
    turn: str | None = None,
    turn_secret: str | None = None,
    data_dir: Path | None = None,
    workers: int | None = None,
    capture: Path | None = None,
) -> None:
    """Run a relay until SIGTERM. Its first line on stdout says where it listens.

    Parameters
    ----------
    config:
        The configuration file; `init` writes one.
    dev:
        For development: free loopback ports, a temporary database, no limits per address.
    signalling:
        HOST:PORT of the WebSocket listener.
    turn:
        HOST:PORT of the TURN server.
    turn_secret:
        The secret from which TURN credentials are derived.
    data_dir:
        Folder of the database and the relay's key.
    workers:
        Processes that forward media; with 0 the relay's own does.
    capture:
        Folder to keep everything in that the relay receives and sends; needs --dev.
    """
    if workers is not None and not 0 <= workers <= MAX_WORKERS:
        raise OperatorError(f"--workers is between 0 and {MAX_WORKERS}")
    if capture is not None and not dev:
        raise OperatorError(
            "--capture is for development", hint="a relay in use keeps nothing: add --dev"
        )
    if config is None and not dev:
        raise OperatorError(
            "no configuration", hint="`e2ecall-relay init` writes one; or use --dev"
        )
    with ExitStack() as stack:
        folder = data_dir
        if dev and folder is None:
            temporary = tempfile.TemporaryDirectory(prefix="e2ecall-relay-")
            folder = Path(stack.enter_context(temporary))

        def read() -> Config:
            with diagnosis.located(config, os.environ):
                settings = configuration.load(config, os.environ)
                if dev and folder is not None:
                    settings = configuration.development(settings, folder)
                settings = _overridden(settings, signalling, turn, turn_secret, data_dir, workers)
                if not dev:
                    diagnosis.check(settings)
            return settings

        settings = read()
        logs.configure(settings.operation)
        options = Options(read, is_development=dev, capture=capture)
        # What is loaded stays, and a request leaves hardly a cycle: decision 0048.
        gc.freeze()
        gc.set_threshold(COLLECT_AFTER)
        trio.run(partial(run_until_signal, settings, options, _announce))


def _overridden(
    config: Config,
    signalling: str | None,
    turn: str | None,
    turn_secret: str | None,
    data_dir: Path | None,
    workers: int | None,
) -> Config:
    replace = msgspec.structs.replace
    if signalling is not None:
        host_port(signalling, "--signalling")
        config = replace(config, signalling=replace(config.signalling, listen=signalling))
    if turn is not None:
        host_port(turn, "--turn")
        config = replace(config, turn=replace(config.turn, listen=turn))
    if turn_secret is not None:
        config = replace(config, turn=replace(config.turn, secret=turn_secret))
    if workers is not None:
        config = replace(config, turn=replace(config.turn, workers=workers))
    if data_dir is not None:
        config = replace(config, relay=replace(config.relay, data_dir=str(data_dir)))
    return config


def _announce(ready: Ready) -> None:
    line = {
        "event": "ready",
        "signalling": ready.signalling,
        "turn": ready.turn,
        "pid": os.getpid(),
    }
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()
