"""The conditions of masks (`masks.py`), with the meaning that they have in Jayway's JsonPath for Java.

Its rules that surprise: ``=~`` matches the whole text; a text equals the number that it spells; nothing equals what is
missing, so ``!=`` and ``nin`` hold there. An operator that does not apply to what it finds says no.
"""

import operator
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

from bridge.domain.mask_walk import MISSING, Condition, Walk

OPERATOR_COST: Final = 6
"""Of one comparison, in nodes looked at."""

REGEX_COST: Final = 8
"""Of asking google-re2 for anything at all."""

_COMPARED_CHARACTERS_PER_NODE: Final = 256
_SEARCHED_CHARACTERS_PER_NODE: Final = 128
_REGEX_STEPS_PER_NODE: Final = 128
"""A step is one character in one instruction of the compiled expression: the worst that google-re2 does."""


class Regex:
    """A regular expression of google-re2.

    Args:
        fullmatch: returns None where a text does not match as a whole.
        size: instructions of the compiled expression.
    """

    def __init__(self, fullmatch: Callable[[str], object], size: int) -> None:
        self._fullmatch = fullmatch
        self._size = size

    def matches(self, text: str, walk: Walk) -> bool:
        """Tell whether the whole text matches."""
        walk.spend(REGEX_COST + len(text) * self._size // _REGEX_STEPS_PER_NODE)
        return self._fullmatch(text) is not None


class Operand(Protocol):
    """What stands beside an operator: a path, or something written out."""

    def value(self, current: object, walk: Walk, /) -> object:
        """Return its value at a node."""


class Literal:
    """What is written out: text, a number, true, false, null, a list of these, a regular expression."""

    def __init__(self, written: object) -> None:
        self.written = written

    def value(self, _current: object, _walk: Walk, /) -> object:
        """Return what is written."""
        return self.written


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _same(left: object, right: object, walk: Walk) -> bool:
    if isinstance(left, str):
        if isinstance(right, str):
            if len(left) > _COMPARED_CHARACTERS_PER_NODE:
                walk.spend(len(left) // _COMPARED_CHARACTERS_PER_NODE)
            return left == right
        return _is_number(right) and left == str(right)
    if isinstance(right, str):
        return _is_number(left) and right == str(left)
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    return left is not MISSING and left == right


def _equal(left: object, right: object, walk: Walk) -> bool:
    pairs = [(left, right)]
    while pairs:
        left, right = pairs.pop()
        if isinstance(left, list) and isinstance(right, list) and len(left) == len(right):
            walk.spend(2 * len(left))
            pairs += zip(left, right, strict=True)
        elif isinstance(left, dict) and isinstance(right, dict) and left.keys() == right.keys():
            walk.spend(2 * len(left))
            pairs += [(value, right[key]) for key, value in left.items()]
        elif isinstance(left, list | dict) or isinstance(right, list | dict) or not _same(left, right, walk):
            return False
    return True


def _ordered(holds: Callable[[Any, Any], bool]) -> "Operator":
    def compare(left: object, right: object, walk: Walk) -> bool:
        if isinstance(left, str) and isinstance(right, str):
            walk.spend(min(len(left), len(right)) // _COMPARED_CHARACTERS_PER_NODE)
            return holds(left, right)
        return _is_number(left) and _is_number(right) and holds(left, right)

    return compare


def _matches(left: object, right: object, walk: Walk) -> bool:
    assert isinstance(right, Regex)
    if isinstance(left, list):
        walk.spend(len(left))
        return any(right.matches(_text(each), walk) for each in left)
    return right.matches(_text(left), walk)


def _text(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, str | int | float) else ""


def _holds(container: list[object], wanted: object, walk: Walk) -> bool:
    walk.spend(2 * len(container))
    return any(_equal(each, wanted, walk) for each in container)


def _contains(left: object, right: object, walk: Walk) -> bool:
    if isinstance(left, str) and isinstance(right, str):
        steps = len(left) * min(len(right), _SEARCHED_CHARACTERS_PER_NODE)
        walk.spend(steps // _SEARCHED_CHARACTERS_PER_NODE)
        return right in left
    return isinstance(left, list) and _holds(left, right, walk)


def _any_of(left: list[object], right: list[object], walk: Walk) -> bool:
    return any(_holds(right, each, walk) for each in left)


def _all_of(left: list[object], right: list[object], walk: Walk) -> bool:
    return all(_holds(right, each, walk) for each in left)


def _has_size(left: object, right: object, _walk: Walk) -> bool:
    return isinstance(left, str | list) and _is_number(right) and len(left) == right


def _is_empty(left: object, right: object, _walk: Walk) -> bool:
    return isinstance(left, str | list) and isinstance(right, bool) and (not left) is right


def _of_lists(holds: Callable[[list[object], list[object], Walk], bool]) -> "Operator":
    return lambda left, right, walk: isinstance(left, list) and isinstance(right, list) and holds(left, right, walk)


Operator = Callable[[object, object, Walk], bool]

OPERATORS: Final[dict[str, Operator]] = {
    "==": _equal,
    "!=": lambda left, right, walk: not _equal(left, right, walk),
    "<": _ordered(operator.lt),
    "<=": _ordered(operator.le),
    ">": _ordered(operator.gt),
    ">=": _ordered(operator.ge),
    "=~": _matches,
    "in": lambda left, right, walk: isinstance(right, list) and _holds(right, left, walk),
    "nin": lambda left, right, walk: isinstance(right, list) and not _holds(right, left, walk),
    "contains": _contains,
    "subsetof": _of_lists(_all_of),
    "anyof": _of_lists(_any_of),
    "noneof": _of_lists(lambda left, right, walk: not _any_of(left, right, walk)),
    "size": _has_size,
    "empty": _is_empty,
}
"""What may stand between two operands."""


def comparison(left: Operand, name: str, right: Operand) -> Condition:
    """Return the condition that an operator holds between two operands."""
    holds, left_value, right_value = OPERATORS[name], left.value, right.value

    def condition(current: object, walk: Walk) -> bool:
        walk.spend(OPERATOR_COST)
        return holds(left_value(current, walk), right_value(current, walk), walk)

    return condition


def negation(condition: Condition) -> Condition:
    """Return the condition that another one does not hold."""
    return lambda current, walk: not condition(current, walk)


def conjunction(conditions: Sequence[Condition]) -> Condition:
    """Return the condition that all of some hold; the first that does not decides."""
    return lambda current, walk: all(condition(current, walk) for condition in conditions)


def disjunction(conditions: Sequence[Condition]) -> Condition:
    """Return the condition that one of some holds; the first that does decides."""
    return lambda current, walk: any(condition(current, walk) for condition in conditions)
