"""What a condition says of each kind of value; a letter stands for an element that passes."""

from typing import Any

import pytest

from bridge.domain.masks import compile_masks
from bridge.errors import Refusal

VALUES: dict[str, Any] = {
    "a": "foo",
    "b": "20",
    "c": "",
    "d": 20,
    "e": 1.5,
    "f": True,
    "g": None,
    "h": [],
    "i": ["S", "M"],
    "j": {"x": 1},
    "k": 9007199254740993,
    "l": [True, 20],
    # "m": nothing at all
}


def passing(condition: str) -> str:
    elements = [{"name": name, "k": value} for name, value in VALUES.items()] + [{"name": "m"}]
    result: Any = compile_masks([f"$.l[?({condition})].name"]).apply({"l": elements, "twenty": 20, "sizes": ["S", "M"]})
    return "".join(before["name"] for before, after in zip(elements, result["l"], strict=True) if after["name"] == "*")


@pytest.mark.parametrize(
    ("condition", "names"),
    [
        ("@.k", "abcdefghijkl"),
        ("!@.k", "m"),
        ("!(@.k)", "m"),
        ("!!@.k", "abcdefghijkl"),
        ("@.k == 'foo'", "a"),
        ("'foo' == @.k", "a"),
        ("@.k == 20", "bd"),  # Jayway: a text equals the number that it spells
        ("@.k == '20'", "bd"),
        ("@.k == 20.0", "d"),
        ("@.k == 2e1", "d"),
        ("@.k == 9007199254740992", ""),
        ("@.k == 9007199254740993", "k"),
        ("@.k == 1.5", "e"),
        ("@.k == true", "f"),
        ("@.k == 1", ""),
        ("@.k == null", "g"),
        ("@.k == []", "h"),
        ("@.k == ['S','M']", "i"),
        ("@.k == ['M','S']", ""),
        ("@.k == [true,20]", "l"),
        ("@.k == [1,20]", ""),
        ("@.k == @.k", "abcdefghijkl"),
        ("@.k == $.twenty", "bd"),
        ("@.k == $.absent", ""),
        ("@.k != $.absent", "abcdefghijklm"),
        ("@.k != 'foo'", "bcdefghijklm"),
        ("@.k < 20", "e"),
        ("@.k <= 20", "de"),
        ("@.k > 20", "k"),
        ("@.k >= 20", "dk"),
        ("@.k >= -1", "dek"),
        ("@.k >= '20'", "ab"),
        ("@.k >= null", ""),
        ("@.k =~ /foo/", "a"),
        ("@.k =~ /fo/", ""),
        ("@.k =~ /FO+/i", "a"),
        ("@.k =~ /f\\/?o+/", "a"),
        ("@.k =~ /[0-9]+/", "bdkl"),  # Jayway: numbers and booleans as text, of a list any element
        ("@.k =~ /true/", "fl"),
        ("@.k =~ /S|X/", "i"),
        ("@.k =~ /.+/", "abdefikl"),
        ("@.k in ['foo', 20, null]", "abdg"),
        ("@.k in $.sizes", ""),
        ("'S' in @.k", "i"),
        ("@.k nin ['foo', 20]", "cefghijklm"),
        ("@.k nin $.absent", ""),
        ("@.k contains 'oo'", "a"),
        ("@.k contains 'S'", "i"),
        ("@.k contains 20", "l"),
        ("@.k subsetof ['S','M','L']", "hi"),
        ("@.k subsetof $.sizes", "hi"),
        ("@.k anyof ['M']", "i"),
        ("@.k noneof ['M']", "hl"),
        ("@.k size 2", "bil"),
        ("@.k size 0", "ch"),
        ("@.k empty true", "ch"),
        ("@.k empty false", "abil"),
        ("@.k.x", "j"),
        ("@.k[1] == 'M'", "i"),
        ("@.k[-1]", "il"),
        ("@.k[2]", ""),
        ("@['k']['x'] == 1", "j"),
        ("@.k[*]", "ijl"),
        ("@.k[0:1] contains 'S'", "i"),
        ("@..x", "j"),
        ("@['k','name'] contains 'b'", "b"),
        ("@.k[?(@ == 'S')]", "i"),
        ("@.k == 'foo' || @.k == 1.5 || @.k == null", "aeg"),
        ("@.k == 20 && @.name == 'd'", "d"),
        ("@.name == 'a' || @.k == 20 && @.name == 'd'", "ad"),
        ("(@.name == 'a' || @.k == 20) && @.name == 'd'", "d"),
        ("!(@.k == 20 || @.k size 0) && @.k", "aefgijkl"),
        ("@", "abcdefghijklm"),
    ],
)
def test_what_passes(condition: str, names: str) -> None:
    assert passing(condition) == names


def test_an_object_is_tested_itself_wherever_it_stands() -> None:
    document = {"kind": "x", "v": "1", "in": {"kind": "x", "v": "2"}, "list": [{"kind": "x", "v": "3"}, {"v": "4"}]}
    filtered: Any = compile_masks(["$..[?(@.kind == 'x')].v"]).apply(document)
    assert (filtered["v"], filtered["in"]["v"]) == ("*", "*")
    assert [element["v"] for element in filtered["list"]] == ["*", "4"]


TEXT = "ab" * 40_000


@pytest.mark.parametrize(
    "condition",
    [
        "$.text =~ /.*a(a|b){50}x/",
        "$.text == $.twin",
        "$.text < $.twin",
        "$.text contains 'bababababababababababababababababababababababa!'",
        "$.text in $.texts",
        "$.list == $.other",
        "$.list subsetof $.list",
        "@.k in $.list",
        "$.deep == $.twin_deep",
    ],
)
def test_comparisons_cost_what_they_look_at(condition: str) -> None:
    document = {
        "l": [{"k": 0}] * 5_000,
        "text": TEXT + "a",
        "twin": TEXT + "b",
        "texts": [TEXT + "c", TEXT + "d"],
        "list": list(range(1, 5_000)),
        "other": [*range(1, 4_999), 0],
        "deep": {"a": [{"b": number} for number in range(2_000)]},
        "twin_deep": {"a": [{"b": number} for number in range(2_000)]},
    }
    with pytest.raises(Refusal, match="more than 100,000 nodes"):
        compile_masks([f"$.l[?({condition})].k"]).apply(document)
