"""Who listens to the session."""

from typing import Protocol

from bridge.adapters.mqtt.connection import Publishes


class Listener(Protocol):
    """Who hears what the session says. Every call is made on the event loop and must return soon."""

    @property
    def has_room(self) -> bool:
        """Whether more may be received now; where not, the session reads on only once it is told to."""

    def connected(self, connection: int, session_present: bool) -> None:
        """Connection number ``connection`` stands; nothing of it was handed over before."""

    def subscribed(self, connection: int) -> None:
        """Every subscription was granted."""

    def received(self, publishes: Publishes, size_bytes: int) -> None:
        """Publishes in order of arrival, all of one read, and their size on the wire; the receipt is None at QoS 0."""

    def confirmed(self, connection: int, acknowledged: int, caught_up: bool) -> None:
        """The broker has seen the PUBACK of every receipt whose number is at most ``acknowledged``.

        ``caught_up``: when it answered the PINGREQ, no message waited at the broker for such a PUBACK.
        """

    def disconnected(self, connection: int, reason: str) -> None:
        """The connection ended: its receipts are void, and the session connects again by itself."""
