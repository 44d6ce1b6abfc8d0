"""The command line of an operator: ``e2ecall-relay`` (relay/README.md)."""

from relay.cli.main import main

__all__ = ["main"]
