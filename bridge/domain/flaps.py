"""Flaps: a subject that comes and goes too often is told of twice, as ``flapping`` and once it has ``settled``.

Only what is told is damped: the registry shows at each moment what holds. Flips are counted on the registry clock.
"""

from bridge.domain.records import Subject
from bridge.domain.rules import Rules


def flipped(flips: tuple[int, ...], clock_ms: int, rules: Rules) -> tuple[tuple[int, ...], bool]:
    """Return the flips of the last ``flap_ms`` with the one of now, and whether they are more than ``flap_limit``."""
    recent = (*(at_ms for at_ms in flips if at_ms + rules.flap_ms > clock_ms), clock_ms)
    return recent[-rules.flap_limit - 1 :], len(recent) > rules.flap_limit


def flaps_end(subject: Subject, rules: Rules) -> int | None:
    """Return the registry clock at which a subject's flips are forgotten; None where there are none."""
    return subject.flips[-1] + rules.flap_ms if subject.flips else None
