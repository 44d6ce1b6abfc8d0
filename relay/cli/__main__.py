"""``python -m relay.cli``."""

from relay.cli.main import main

main()
