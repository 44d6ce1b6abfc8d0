"""``python -m e2ecall.cli``."""

from e2ecall.cli.main import main

main()
