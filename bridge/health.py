"""How the bridge is at the moment, for whoever asks from outside; `bridge.adapters.http.health` tells it."""

from collections.abc import Callable

from bridge.desk import STARTS


class Health:
    """What there is to tell; `bridge.app` changes it from term to term.

    Attributes:
        faults: tells why the bridge does not work, in sentences; empty where it does.
        exposition: tells the meters, in Prometheus' text format.
    """

    def __init__(
        self, faults: Callable[[], list[str]] = lambda: [STARTS], exposition: Callable[[], bytes] = bytes
    ) -> None:
        self.faults = faults
        self.exposition = exposition
