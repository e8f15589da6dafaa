"""Random masks and events, and two who judge what is masked: a walk as simple as can be, and python-jsonpath's own.

The judge copies, recurses and keeps lists of paths; it shares no code with the bridge. Random masks are made as a
structure, which the judge reads, and written out in the ways in which a mask can be written.
"""

import copy
import json
import random
from collections.abc import Callable
from typing import Any

from jsonpath import JSONPathEnvironment

KEYS = ("a", "b", "c-d", "é", "size")
TEXTS = ("", "a", "bb", "20", "\U0001f600x")
SCALARS = (*TEXTS, 0, 1, 20, -1.5, True, False, None)
OPERATORS = ("==", "!=", "<", "<=", ">", ">=", "in", "nin", "contains", "subsetof", "anyof", "noneof", "size", "empty")
LISTS = ("in", "nin", "subsetof", "anyof", "noneof")
REGEXES = (("a", ""), ("A+", "i"), (".*", ""), ("b|bb", ""), ("[0-9]+", ""))

Segment = tuple[bool, list[tuple[str, Any]]]
Location = tuple[str | int, ...]
MISSING = object()


# Random events and masks


def event(dice: random.Random, depth: int = 4) -> Any:
    kind = dice.random() if depth else 1
    if kind < 0.4 or depth == 4:
        return {key: event(dice, depth - 1) for key in dice.sample(KEYS, dice.randint(1, 5))}
    if kind < 0.65:
        return [event(dice, depth - 1) for _ in range(dice.randint(0, 4))]
    return dice.choice(SCALARS)


def path(dice: random.Random, most: int, *, inside: bool = False) -> list[Segment]:
    segments: list[Segment] = []
    for _ in range(dice.randint(0 if inside else 1, most)):
        descends = not inside and dice.random() < 0.25
        count = dice.choice((1, 1, 1, 1, 2, 3))
        segments.append((descends, [selector(dice, inside=inside) for _ in range(count)]))
    return segments


def selector(dice: random.Random, *, inside: bool) -> tuple[str, Any]:
    kind = dice.choices(("name", "index", "slice", "wildcard", "filter"), (10, 3, 2, 3, 0 if inside else 4))[0]
    if kind == "name":
        return kind, dice.choice(KEYS)
    if kind == "index":
        return kind, dice.randint(-3, 3)
    if kind == "slice":
        return kind, tuple(dice.choice((None, dice.randint(-3, 3))) for _ in range(3))
    return kind, condition(dice) if kind == "filter" else None


def condition(dice: random.Random, depth: int = 2) -> tuple[str, Any]:
    kind = dice.random() if depth else 1
    if kind < 0.2:
        return "not", condition(dice, depth - 1)
    if kind < 0.4:
        return dice.choice(("&&", "||")), [condition(dice, depth - 1) for _ in range(dice.randint(2, 3))]
    if kind < 0.55:
        return "exists", (dice.random() < 0.2, path(dice, 3, inside=True))
    one = (dice.random() < 0.15, [(False, [("name", dice.choice(KEYS))]) for _ in range(dice.randint(0, 2))])
    if kind < 0.65:
        return "=~", (one, dice.choice(REGEXES))
    operator = dice.choice(OPERATORS)
    if operator in LISTS:
        return operator, (one, [dice.choice(SCALARS) for _ in range(dice.randint(0, 3))])
    return operator, (
        one,
        {"size": dice.randint(0, 3), "empty": dice.random() < 0.5}.get(operator, dice.choice(SCALARS)),
    )


# How they are written


def written(dice: random.Random, segments: list[Segment], start: str = "$") -> str:
    text = "".join(_segment(dice, segment) for segment in segments)
    if start == "$" and text[:1] == "." != text[1:2] and text[1:2] != "[" and dice.random() < 0.2:
        return text[1:]
    return start + text


def _segment(dice: random.Random, segment: Segment) -> str:
    descends, selectors = segment
    kind, value = selectors[0]
    if len(selectors) == 1 and kind in ("name", "wildcard") and dice.random() < 0.6:
        return (".." if descends else ".") + ("*" if kind == "wildcard" else value)
    space = dice.choice(("", "", " "))
    inner = f"{space},{space}".join(_selector(dice, *each) for each in selectors)
    return (".." if descends else dice.choice(("", "", "."))) + f"[{space}{inner}{space}]"


def _selector(dice: random.Random, kind: str, value: Any) -> str:
    if kind == "name":
        return dice.choice((f"'{value}'", json.dumps(value), json.dumps(value, ensure_ascii=False)))
    if kind == "slice":
        start, stop, step = ("" if part is None else str(part) for part in value)
        return f"{start}:{stop}" + (f":{step}" if step or dice.random() < 0.5 else "")
    if kind == "filter":
        return f"?({_condition(dice, *value)})"
    return "*" if kind == "wildcard" else str(value)


def _condition(dice: random.Random, kind: str, value: Any) -> str:
    if kind == "not":
        return f"!({_condition(dice, *value)})"
    if kind in ("&&", "||"):
        return f" {kind} ".join(f"({_condition(dice, *each)})" for each in value)
    (from_root, segments), right = (value, None) if kind == "exists" else value
    left = written(dice, segments, "$" if from_root else "@") if segments else "$" if from_root else "@"
    if not left.startswith(("$", "@")):
        left = f"$.{left}"
    if kind == "exists":
        return left
    return f"{left} {kind} " + (f"/{right[0]}/{right[1]}" if kind == "=~" else json.dumps(right))


# The judge


def judged(document: Any, masks: list[list[Segment]]) -> Any:
    result = copy.deepcopy(document)
    for segments in masks:
        for location in found(document, segments, document):
            holder, holds = None, result
            original = document
            for key in location:
                holder, holds, original = holds, holds[key], original[key]
            if isinstance(original, str) and holder is not None:
                holder[location[-1]] = "*" * len(original)
    return result


def found(document: Any, segments: list[Segment], root: Any) -> list[Location]:
    locations: list[Location] = [()]
    for descends, selectors in segments:
        if descends:
            locations = [location + below for location in locations for below in everything(at(document, location))]
        locations = list(
            dict.fromkeys(
                location + key
                for location in locations
                for selected in selectors
                for key in children(at(document, location), *selected, root)
            )
        )
    return locations


def at(document: Any, location: Location) -> Any:
    for key in location:
        document = document[key]
    return document


def everything(value: Any) -> list[Location]:
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    return [(), *((key, *below) for key in keys for below in everything(value[key]))]


def children(value: Any, kind: str, wanted: Any, root: Any) -> list[Location]:
    if kind == "filter":
        if isinstance(value, dict):
            return [()] if passes(value, *wanted, root) else []
        return [(i,) for i, each in enumerate(value) if passes(each, *wanted, root)] if isinstance(value, list) else []
    if isinstance(value, dict):
        return [(key,) for key in value if kind == "wildcard" or (kind == "name" and key == wanted)]
    if not isinstance(value, list):
        return []
    places = list(range(len(value)))
    if kind == "slice":
        places = [] if wanted[2] == 0 else places[slice(*wanted)]
    elif kind == "index":
        places = places[wanted:][:1] if wanted < 0 and -wanted <= len(value) else places[wanted : wanted + 1]
        places = places if -len(value) <= wanted < len(value) else []
    return [(place,) for place in places] if kind != "name" else []


def passes(value: Any, kind: str, wanted: Any, root: Any) -> bool:
    if kind == "not":
        return not passes(value, *wanted, root)
    if kind in ("&&", "||"):
        return (all if kind == "&&" else any)([passes(value, *each, root) for each in wanted])
    (from_root, segments), right = (wanted, None) if kind == "exists" else wanted
    start = root if from_root else value
    nodes = [at(start, location) for location in found(start, segments, root)]
    if kind == "exists":
        return bool(nodes)
    left = nodes[0] if nodes else MISSING
    if kind == "=~":
        return any(regex(*right)(as_text(each)) for each in (left if isinstance(left, list) else [left]))
    return JUDGE[kind](left, right)


def regex(pattern: str, flags: str) -> Callable[[str], bool]:
    import re

    return lambda text: re.fullmatch(pattern, text, re.IGNORECASE if flags else 0) is not None


def as_text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, str | int | float) else ""


def number(value: Any) -> bool:
    return type(value) in (int, float)


def same(left: Any, right: Any) -> bool:
    if left is MISSING or right is MISSING:
        return False
    if {type(left), type(right)} in ({str, int}, {str, float}):
        return str(left) == str(right)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(same, left, right))
    return (type(left) is type(right) or (number(left) and number(right))) and left == right


def order(holds: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    return lambda left, right: (
        ((isinstance(left, str) and isinstance(right, str)) or (number(left) and number(right))) and holds(left, right)
    )


def within(left: Any, right: list[Any]) -> bool:
    return any(same(left, each) for each in right)


JUDGE: dict[str, Callable[[Any, Any], bool]] = {
    "==": same,
    "!=": lambda left, right: not same(left, right),
    "<": order(lambda left, right: left < right),
    "<=": order(lambda left, right: left <= right),
    ">": order(lambda left, right: left > right),
    ">=": order(lambda left, right: left >= right),
    "in": within,
    "nin": lambda left, right: not within(left, right),
    "contains": lambda left, right: (
        (isinstance(left, list) and within(right, left))
        or (isinstance(left, str) and isinstance(right, str) and right in left)
    ),
    "subsetof": lambda left, right: isinstance(left, list) and all(within(each, right) for each in left),
    "anyof": lambda left, right: isinstance(left, list) and any(within(each, right) for each in left),
    "noneof": lambda left, right: isinstance(left, list) and not any(within(each, right) for each in left),
    "size": lambda left, right: isinstance(left, str | list) and len(left) == right,
    "empty": lambda left, right: isinstance(left, str | list) and (len(left) == 0) == right,
}


_second_judge = JSONPathEnvironment(strict=True)


def judged_by_text(document: Any, text: str) -> Any:
    """The same for the text of one mask, by python-jsonpath; `MISSING` where the two syntaxes may differ."""
    if not text.startswith("$") or "?" in text or ".[" in text.replace("..[", ""):
        return MISSING
    try:
        locations = [match.parts for match in _second_judge.finditer(text, document)]
    except Exception:  # Java's dotted names, which RFC 9535 does not have
        return MISSING
    result = copy.deepcopy(document)
    for location in locations:
        if location and isinstance(at(document, location), str) and not isinstance(at(document, location[:-1]), str):
            at(result, location[:-1])[location[-1]] = "*" * len(at(document, location))
    return result
