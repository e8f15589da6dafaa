"""Pauses of the registry clock: after one every interval starts anew, so that an outage expires nobody (DESIGN 3.3)."""

import zlib


def counted_from(renewed_ms: int, resumed_ms: int, interval_ms: int, name: str) -> int:
    """Return the registry clock from which an interval counts: the last sign of life, or the end of a later pause.

    What was silent since before the pause ends spread over a tenth of the interval, by a jitter from ``name``.
    """
    if renewed_ms >= resumed_ms:
        return renewed_ms
    return resumed_ms + zlib.crc32(name.encode()) % (interval_ms // 10 + 1)
