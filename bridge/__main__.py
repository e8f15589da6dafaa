"""The command ``endpoint-bridge``, also as ``python -m bridge``."""

import gc

# What is imported stays: looking through it again and again took a tenth of the start.
gc.disable()

from bridge.cli import main  # noqa: E402 - after the above

gc.enable()

if __name__ == "__main__":
    main()
