"""For each guard of the bridge a schedule of faults that it survives, and would not survive without that guard."""

import random
import time
from collections.abc import Mapping
from typing import NamedTuple

from tests.faults.catalogue import FAULTS, Fault
from tests.faults.proxy import TO
from tests.faults.stand import Stand
from tests.faults.victim import GUARDS


def _nothing(_stand: Stand, _: random.Random) -> None:
    time.sleep(5)


def _acknowledged_in_vain(stand: Stand, _: random.Random) -> None:
    way = stand.way_to("broker")
    way.freeze(TO)
    time.sleep(2)
    way.cut()
    way.thaw()


class Schedule(NamedTuple):
    """What is broken, in order; ``has_second``: a second bridge is active beside the first, see `Stand`."""

    name: str
    breaks: tuple[str, ...]
    has_second: bool = False


SCHEDULES: Mapping[str, Schedule] = {
    "ack-after-publish": Schedule("the bridge dies with inputs that it has not decided", ("bridge dies loaded",) * 3),
    "journal": Schedule("it dies with outputs that it has decided and not sent", ("bridge dies committed",) * 3),
    "dup-recognition": Schedule(
        "its connection breaks when it has told of inputs, and the broker has heard nothing of it",
        ("acknowledged in vain",) * 3,
    ),
    "compare-and-set": Schedule("two bridges change the same records", ("nothing",) * 2, has_second=True),
    "outage-clock": Schedule(
        "bridge, Redis and broker are away for longer than endpoints live", ("bridge away", "redis away", "broker away")
    ),
    "lease": Schedule("the active one of two freezes, and wakes when the other has taken over", ("leader frozen",) * 3),
}

SCHEDULED: Mapping[str, Fault] = {**FAULTS, "nothing": _nothing, "acknowledged in vain": _acknowledged_in_vain}
"""What schedules may name."""

assert SCHEDULES.keys() == GUARDS.keys()
