"""What a decision gives back: the events to tell, and the answer to who asked."""

from collections.abc import Sequence

import msgspec

from bridge.domain.routing import Emission, Verbatim
from bridge.errors import Refusal


class Later(msgspec.Struct, frozen=True):
    """An answer that is known only once the broker has settled what the decision sends; see `bridge.outcomes`."""

    def result(self) -> object:
        """Return it, any JSON value; only once it is known."""
        raise NotImplementedError


class Decision(msgspec.Struct, frozen=True, gc=False):
    """What a command leads to.

    Attributes:
        emissions: in the order in which they are told.
        answer: an RPC's result, any JSON value, or a `Later`.
        verbatim: an event to pass on as it is.
        refusal: it cannot be taken and changes nothing; the emissions tell of that.
        anomalies: codes of what contradicts itself in it, and was taken all the same.
    """

    emissions: Sequence[Emission] = ()
    answer: object = None
    verbatim: Verbatim | None = None
    refusal: Refusal | None = None
    anomalies: tuple[str, ...] = ()


NOTHING = Decision()
