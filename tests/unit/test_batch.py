"""A part of a batch by itself; what it does for the line is tested with the line."""

from bridge.batch import Item, Part, items_of
from bridge.domain.commands import Ignore, ReportPresence
from bridge.settlement import Held

ONLINE = ReportPresence("user", "ann", True)


def test_an_item_divided_and_put_together_again_is_the_same() -> None:
    item = Item("default", (Ignore(), ONLINE), held=Held(7, 9, None), source=("t", 3), is_part=True)
    [again] = items_of([(item, command) for command in item.commands])
    # Decided again after a conflict, half of an input is still half: its identity must not be journaled yet.
    assert again.is_part
    assert (again.organization, tuple(again.commands), again.held, again.source) == (
        item.organization,
        item.commands,
        item.held,
        item.source,
    )


def test_what_an_item_certainly_needs_is_wanted_in_one_trip() -> None:
    part = Part("default")
    part.add(Item("default", (ONLINE, Ignore())))
    wants, owners = {}, set()  # type: ignore[var-annotated]
    part.want(wants, owners)
    assert wants["default"].keys == ["user:ann", "watchers"]
    assert owners == set()
