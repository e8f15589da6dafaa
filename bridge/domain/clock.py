"""Wall times on the wire: what is accepted, what is written. Nothing here asks what time it is."""

from datetime import UTC, datetime

from bridge.errors import Refusal

# Above this a number means milliseconds (1973 in milliseconds, 5138 in seconds).
_MILLISECONDS_FROM = 100_000_000_000
MAXIMUM_AHEAD_MS = 5 * 60_000


def iso_ms(epoch_ms: int) -> str:
    """Write epoch milliseconds as ISO-8601 UTC with exactly three digits: ``2026-11-22T01:02:03.004Z``."""
    seconds, milliseconds = divmod(epoch_ms, 1000)
    return f"{datetime.fromtimestamp(seconds, UTC).isoformat()[:19]}.{milliseconds:03d}Z"


def parse_time(value: str | float, field: str) -> tuple[int, int | float]:
    """Read an event time: ISO-8601 text, or epoch seconds or milliseconds by magnitude.

    Returns:
        Epoch milliseconds, and the number as given (milliseconds where it was text).

    Raises:
        Refusal: ``invalid_field``, naming ``field``.
    """
    if isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            raise Refusal(
                "invalid_field", f"{field} is text that is no ISO-8601 time: write 2026-01-31T12:00:00.000Z"
            ) from None
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        epoch_ms = round(moment.timestamp() * 1000)
        return epoch_ms, epoch_ms
    if abs(value) >= 1e15:
        raise Refusal("invalid_field", f"{field} is a number beyond any date: send epoch seconds or milliseconds")
    return round(value if abs(value) >= _MILLISECONDS_FROM else value * 1000), value


def event_time(time_ms: int | None, now_ms: int) -> int:
    """Return an input's event time, ``now_ms`` (Redis TIME) where it brought none.

    Raises:
        Refusal: ``invalid_field`` where it lies more than five minutes ahead.
    """
    if time_ms is None:
        return now_ms
    if time_ms > now_ms + MAXIMUM_AHEAD_MS:
        raise Refusal("invalid_field", "timestamp lies more than 5 minutes ahead: set the sender's clock")
    return time_ms
