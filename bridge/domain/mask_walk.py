"""The walk of masks (`masks.py`) over a document: from locations to locations, a segment of the path at a time.

Three rules. It never recurses, so no document is too deep for it. It keeps a *set* of locations, so that chained ``..``
stay linear: ``$..x..x..x`` meets a location once per segment, not once per way to it. It counts what it looks at and
gives up beyond a budget, since it runs in the bridge's one thread.

A document is JSON as decoded: dicts with text keys, lists, text, numbers, booleans, None.
"""

from collections.abc import Callable, Collection, Iterable
from typing import Final, NamedTuple, Protocol

from bridge.errors import Refusal

BUDGET: Final = 100_000
"""Of one document and all its masks, in nodes looked at; what costs more than a look (a comparison, a long text, a
regular expression) counts as several."""

SELECTOR_COST: Final = 1
"""Of asking one selector at one place."""

FOUND_COST: Final = 1
"""Of a container that is selected on the way."""

COPY_COST: Final = 2
"""Of a container in which something is masked."""

INNER_COST: Final = 3
"""Of a container that ``..`` finds, beside the look at it."""

CONDITION_COST: Final = 3
"""Of one call of a filter's condition."""

CONTAINERS: Final = (dict, list)

Container = dict[str, object] | list[object]
Key = str | int
Child = tuple[Key | None, object]
"""A key and what lies there; the key None stands for the container itself (a filter on an object)."""


class Place:
    """A container of the document and where it lies. The walk makes one for each location.

    It does not know its children: a circle of references would leave the whole walk to the garbage collector.
    """

    __slots__ = ("key", "parent", "value")

    def __init__(self, value: Container, parent: "Place | None", key: Key) -> None:
        self.value = value
        self.parent = parent
        self.key = key


class Walk:
    """One document under its masks.

    Args:
        document: the root, never changed.
        budget: how many nodes may be looked at.
    """

    __slots__ = ("answers", "budget", "children", "document", "inner", "marks", "root")

    def __init__(self, document: Container, budget: int = BUDGET) -> None:
        self.document = document
        self.root = Place(document, None, "")
        self.budget = budget
        self.children: dict[Place, dict[Key, Place]] = {}
        self.inner: dict[Place, Collection[Place]] = {}
        self.marks: dict[Place, set[Key]] = {}
        self.answers: dict[Query, object] = {}

    def spend(self, nodes: int) -> None:
        """Count what is about to be looked at.

        Raises:
            Refusal: ``invalid_mask``: the budget is used up.
        """
        self.budget -= nodes
        if self.budget < 0:
            raise Refusal(
                "invalid_mask",
                f"masks look at more than {BUDGET:,} nodes of this event: use fewer wildcards, .. and filters",
            )

    def mark(self, path: "Path") -> int:
        """Mark the strings that the path selects; return how many of the selected nodes are none."""
        if not path:
            return 1
        places: Collection[Place] = (self.root,)
        for segment in path[:-1]:
            places = self._inner(places, segment)
        last = path[-1]
        others = 0
        for place in self._selecting(places, last):
            for selector in last.selectors:
                for key, value in selector.children(place.value, self):
                    if not isinstance(value, str) or key is None:
                        others += 1
                    elif place in self.marks:
                        self.marks[place].add(key)
                    else:
                        self.spend(COPY_COST)
                        self.marks[place] = {key}
        return others

    def result(self) -> Container:
        """Return the document with all marked texts replaced; what holds none of them is shared."""
        copies: dict[Place, Container] = {}
        for place, keys in self.marks.items():
            copy = _own_copy(place, copies)
            for key in keys:
                copy[key] = "*" * len(copy[key])  # type: ignore[index, arg-type]  # marked: a text
        return copies.get(self.root, self.document)

    def _inner(self, places: Collection[Place], segment: "Segment") -> Collection[Place]:
        places = self._selecting(places, segment)
        found: dict[Place, None] = {}
        for place in places:
            for selector in segment.selectors:
                for key, value in selector.children(place.value, self):
                    if isinstance(value, CONTAINERS):
                        found[place if key is None else self._child(place, key, value)] = None
        self.spend(FOUND_COST * len(found))
        return found

    def _selecting(self, places: Collection[Place], segment: "Segment") -> Collection[Place]:
        """Return the places that a segment selects from, paid for."""
        places = self._descended(places) if segment.descends else places
        self.spend(SELECTOR_COST * len(segment.selectors) * len(places))
        return places

    def _descended(self, places: Iterable[Place]) -> Collection[Place]:
        found: dict[Place, None] = {}
        waiting = list(places)
        while waiting:
            place = waiting.pop()
            if place in found:  # and so is all that lies in it
                continue
            found[place] = None
            inner = self.inner.get(place)
            if inner is None:
                inner = self.inner[place] = self._enter(place)
            else:
                self.spend(2 * (1 + len(inner)))
            waiting += inner
        return found

    def _enter(self, place: Place) -> Collection[Place]:
        entries = inner_containers(place.value, self)
        if not entries:
            return ()
        if place in self.children:
            return [self._child(place, key, value) for key, value in entries]
        children = self.children[place] = {key: Place(value, place, key) for key, value in entries}
        return children.values()

    def _child(self, place: Place, key: Key, value: Container) -> Place:
        children = self.children.get(place)
        if children is None:
            children = self.children[place] = {}
        child = children.get(key)
        if child is None:
            child = children[key] = Place(value, place, key)
        return child


def _own_copy(place: Place, copies: dict[Place, Container]) -> Container:
    """Return the place's shallow copy, hung into copies of all that lies around it."""
    wanted = copies.get(place)
    if wanted is not None:
        return wanted
    wanted = inner = copies[place] = place.value.copy()
    while place.parent is not None:
        parent = place.parent
        known = copies.get(parent)
        copy = copies[parent] = parent.value.copy() if known is None else known
        copy[place.key] = inner  # type: ignore[index]  # a key of this very container
        if known is not None:
            break
        place, inner = parent, copy
    return wanted


def inner_containers(value: Container, walk: Walk) -> list[tuple[Key, Container]]:
    """Return the containers directly in one, with their keys; empty ones have nothing to find and are left out."""
    walk.spend(1 + len(value))
    entries: Iterable[tuple[Key, object]] = value.items() if isinstance(value, dict) else enumerate(value)
    found: list[tuple[Key, Container]] = [
        (key, inner) for key, inner in entries if inner and isinstance(inner, CONTAINERS)
    ]
    walk.spend(INNER_COST * len(found))
    return found


class Selector(Protocol):
    """What stands between two brackets, or after a dot."""

    def children(self, value: object, walk: Walk) -> Iterable[Child]:
        """Yield what it selects in a value."""


class Segment(NamedTuple):
    """One step of a path: any of the selectors, on the node itself or, after ``..``, on all that it holds as well."""

    descends: bool
    selectors: tuple[Selector, ...]


Path = tuple[Segment, ...]


class Name:
    """``.name`` or ``['name']``: the member of an object."""

    def __init__(self, name: str) -> None:
        self.key = name

    def children(self, value: object, _walk: Walk) -> Iterable[Child]:
        """Yield the member, if it is there."""
        if isinstance(value, dict) and self.key in value:
            return ((self.key, value[self.key]),)
        return ()


class Index:
    """``[1]`` or ``[-1]``: an element of a list."""

    def __init__(self, index: int) -> None:
        self.key = index

    def children(self, value: object, _walk: Walk) -> Iterable[Child]:
        """Yield the element, if it is there."""
        if isinstance(value, list) and -len(value) <= self.key < len(value):
            return ((self.key % len(value), value[self.key]),)
        return ()


class Slice:
    """``[1:3]``, ``[::-2]``: elements of a list; a step of 0 selects none (RFC 9535 section 2.3.4)."""

    def __init__(self, part: slice) -> None:
        self.part = part

    def children(self, value: object, walk: Walk) -> Iterable[Child]:
        """Yield the elements that there are."""
        if not isinstance(value, list) or self.part.step == 0:
            return ()
        places = range(*self.part.indices(len(value)))
        walk.spend(1 + len(places))
        return zip(places, value[self.part], strict=True)


class Wildcard:
    """``*``: every member, every element."""

    def children(self, value: object, walk: Walk) -> Iterable[Child]:
        """Yield all there is."""
        if isinstance(value, dict):
            walk.spend(1 + len(value))
            return value.items()
        if isinstance(value, list):
            walk.spend(1 + len(value))
            return enumerate(value)
        return ()


Condition = Callable[[object, Walk], bool]
"""Tells whether a node passes; in it ``@`` is the node and ``$`` the walk's document."""


class Filter:
    """``[?(...)]``: the elements of a list that pass; an object is tested itself, as Jayway does."""

    def __init__(self, condition: Condition) -> None:
        self.condition = condition

    def children(self, value: object, walk: Walk) -> Iterable[Child]:
        """Yield what passes."""
        condition = self.condition
        if isinstance(value, list):
            walk.spend(CONDITION_COST * (1 + len(value)))
            return [(index, element) for index, element in enumerate(value) if condition(element, walk)]
        if isinstance(value, dict):
            walk.spend(CONDITION_COST)
            return ((None, value),) if condition(value, walk) else ()
        return ()


class _Missing:
    """The type of `MISSING`."""


MISSING: Final = _Missing()
"""What a path inside a filter finds where there is nothing; unlike any value, also unlike itself."""


class Query:
    """A path inside a filter.

    Args:
        path: its segments.
        from_root: it starts with ``$`` rather than with ``@``, and is looked up once per document.
    """

    def __init__(self, path: Path, *, from_root: bool) -> None:
        self._path = path
        self._from_root = from_root
        self._keys = _keys(path)

    def value(self, current: object, walk: Walk) -> object:
        """Return what lies there: of a path to one node that node or `MISSING`, else the list of all nodes."""
        if not self._from_root:
            return self._found(current, walk)
        if self not in walk.answers:
            walk.answers[self] = self._found(walk.document, walk)
        return walk.answers[self]

    def exists(self, current: object, walk: Walk) -> bool:
        """Tell whether the path selects anything, be it null or false."""
        value = self.value(current, walk)
        return bool(value) if self._keys is None else value is not MISSING

    def _found(self, node: object, walk: Walk) -> object:
        if self._keys is None:
            return self._all(node, walk)
        walk.spend(1 + len(self._keys))
        for key in self._keys:
            if isinstance(node, dict):
                node = node.get(key, MISSING)  # an index is no key of an object
            elif isinstance(node, list) and isinstance(key, int) and -len(node) <= key < len(node):
                node = node[key]
            else:
                return MISSING
        return node

    def _all(self, start: object, walk: Walk) -> list[object]:
        nodes = [start]
        for descends, selectors in self._path:
            if descends:
                nodes = _with_descendants(nodes, walk)
            walk.spend(SELECTOR_COST * len(selectors) * len(nodes))
            nodes = [child for node in nodes for selector in selectors for _, child in selector.children(node, walk)]
        return nodes


def _keys(path: Path) -> tuple[Key, ...] | None:
    """Return the names and indexes of a path that leads to one node at most; None for any other."""
    keys: list[Key] = []
    for descends, selectors in path:
        match selectors:
            case (Name(key=key) | Index(key=key),) if not descends:
                keys.append(key)
            case _:
                return None
    return tuple(keys)


def _with_descendants(nodes: list[object], walk: Walk) -> list[object]:
    found: list[object] = []
    waiting = nodes
    while waiting:
        node = waiting.pop()
        found.append(node)
        if isinstance(node, CONTAINERS):
            waiting += [inner for _, inner in inner_containers(node, walk)]
    return found
