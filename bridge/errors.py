"""The errors of the bridge, as a tree.

BridgeError
├── ConfigError             the operator's fault: fix the named setting (exit code 2)
├── LeaseLost               another bridge has taken over: stop what is in hand and stand by
├── Refusal                 the caller's fault: carries a code of the contract; the same input fails again
├── RegistryUnavailable     Redis is away, loading, read-only or full: nothing was decided, retry
└── Unreachable             a command of the shell finds no broker, or no bridge there (exit code 3)

Refusals are values wherever they can be (the line turns them into answers); they are raised only inside decode and
decide, and caught at the line's edge. Vendor exceptions stop at the adapter that talks to the vendor.
"""

from traceback import extract_tb


class BridgeError(Exception):
    """Base of everything the bridge raises on purpose."""


class ConfigError(BridgeError):
    """A setting is unknown or has a bad value; the message names its dotted key, the reason and the remedy."""


class Refusal(BridgeError):
    """An input that cannot be taken.

    Args:
        code: one of the contract's codes (contract details 5 and 6), for example ``invalid_field``.
        message: names the field, the kind of its value and the remedy; never holds a payload.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message


class LeaseLost(BridgeError):
    """Another bridge is the active one: nothing was decided, and nothing more may be until the lease comes back."""


class Unreachable(BridgeError):
    """The broker or the bridge does not answer a guest; the message says which, why, and what to do."""


class RegistryUnavailable(BridgeError):
    """Redis is away, loading, read-only or full: nothing was decided, a retry helps."""


def trail(error: BaseException) -> str:
    """Return what an error is and where it came from, ``file:line``, innermost last; for logs.

    Its message is left out: that of a bug met while reading or deciding may repeat what a caller sent.
    """
    frames = extract_tb(error.__traceback__)
    return " > ".join([*(f"{frame.filename}:{frame.lineno}" for frame in frames), type(error).__name__])
