"""What a decision gives back: the events to tell, and the answer to who asked."""

from collections.abc import Sequence

import msgspec

from bridge.domain.routing import Emission


class Decision(msgspec.Struct, frozen=True, gc=False):
    """Emissions in the order in which they are told; ``answer`` is an RPC's result, any JSON value."""

    emissions: Sequence[Emission] = ()
    answer: object = None


NOTHING = Decision()
