"""``python -m bridge`` is the command ``endpoint-bridge``."""

from bridge.cli import main

main()
