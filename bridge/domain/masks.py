"""Masks: JSONPath expressions that say what of an event is not to be stored or logged (DESIGN 5).

What is delivered is never masked, unless a route of the configuration says so. Of what a mask selects only text
changes: to as many ``*`` as it has characters (code points). Numbers, true, false, null, objects and arrays stay
as they are, and keys are never masked. All masks look at the original, so their order does not matter.
Where filters are involved, masking twice is not masking once.

The parts: `mask_words.py` and `mask_syntax.py` read a mask, `mask_walk.py` and `mask_filters.py` find what it selects.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Final

import msgspec

from bridge.domain.codec import read_document
from bridge.domain.mask_syntax import read_mask
from bridge.domain.mask_walk import CONTAINERS, Path, Walk
from bridge.domain.mask_words import BadMask
from bridge.domain.values import kind_of
from bridge.errors import Refusal

MAXIMUM_MASKS: Final = 32
_CACHED_MASKS: Final = 256
"""By number of masks; one holds at most some 100 KB (of regular expressions)."""

_read_mask = lru_cache(maxsize=_CACHED_MASKS)(read_mask)


class Masks:
    """Masks that are applied together; false where there are none.

    Args:
        paths: the masks as read, in their order.

    Attributes:
        non_string_hits: by mask, how many nodes that are no text the last `apply` has selected. A mask that hits
            numbers or whole objects hides less than its author may think; worth a metric, never the values.
    """

    __slots__ = ("_paths", "non_string_hits")

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = paths
        self.non_string_hits = [0] * len(paths)

    def __bool__(self) -> bool:
        return bool(self._paths)

    def apply(self, document: object) -> object:
        """Return the document with all text replaced that a mask selects.

        Args:
            document: JSON as decoded. It is not changed; the result shares with it whatever holds no masked text.

        Raises:
            Refusal: ``invalid_mask``: the masks have too much to look at in this document. Then nothing of it may be
                stored or logged but its type and timestamp.
        """
        if not isinstance(document, CONTAINERS):
            return document
        walk = Walk(document)
        self.non_string_hits = [walk.mark(path) for path in self._paths]
        return walk.result()


def compile_masks(masks: object) -> Masks:
    """Return masks ready to be applied; what was read lately is remembered.

    Args:
        masks: an array of JSONPath expressions as it came; None and an empty one are no masks.

    Raises:
        Refusal: ``invalid_mask``, naming the index of the bad mask, the position in it, and the reason. It repeats
            nothing of the mask, whose filters may hold personal data.
    """
    if masks is None:
        return Masks(())
    if not isinstance(masks, list | tuple):
        raise Refusal("invalid_mask", f"masks is {kind_of(masks)}: send an array of JSONPath expressions")
    if len(masks) > MAXIMUM_MASKS:
        raise Refusal("invalid_mask", f"masks has {len(masks)} entries: send at most {MAXIMUM_MASKS}")
    return Masks([_path(index, mask) for index, mask in enumerate(masks)])


def masked_event(masks: Masks, payload: bytes) -> bytes:
    """Return an event of the bridge's own as JSON text with all replaced that its route's masks select.

    Masks that have too much to look at leave what every event has, with ``"masked": "failed"``: what they were to hide
    must not be shown, and here is nobody who could be told.
    """
    document = read_document(payload)
    try:
        return msgspec.json.encode(masks.apply(document))
    except Refusal:
        known = document if isinstance(document, dict) else {}
        return msgspec.json.encode({name: known[name] for name in _ALWAYS if name in known} | {"masked": "failed"})


_ALWAYS: Final = ("id", "type", "timestamp", "organizationId", "version")


def _path(index: int, mask: object) -> Path:
    if not isinstance(mask, str):
        raise Refusal("invalid_mask", f"masks[{index}] is {kind_of(mask)}: send a JSONPath expression as text")
    try:
        return _read_mask(mask)
    except BadMask as error:
        raise Refusal("invalid_mask", f"masks[{index}] at position {error.position}: {error.reason}") from None
