"""Which texts are masks, what they select, and why the others are refused."""

from typing import Any

import pytest

from bridge.domain import mask_syntax
from bridge.domain.mask_syntax import read_mask
from bridge.domain.mask_words import BadMask
from bridge.domain.masks import compile_masks

DOCUMENT: dict[str, Any] = {
    "a": "A",
    "b-c": "B",
    "in": "C",
    "size": {"empty": "D", "true": "E"},
    "@type": "F",
    "$ref": "G",
    "1st": "H",
    "é": "I",
    "\U0001f600": "J",
    "x:y": "K",
    "l": ["L", "M", "N", {"a": "O"}],
    "a.b": "P",
    "it's": "Q",
    'say "x"': "R",
    "": "S",
    "0": "T",
}


def hits(mask: str) -> str:
    """Return the letters that the mask hides."""
    before, after = [], []

    def letters(value: object, found: list[str]) -> None:
        if isinstance(value, str):
            found.append(value)
        elif isinstance(value, dict | list):
            for inner in value.values() if isinstance(value, dict) else value:
                letters(inner, found)

    letters(DOCUMENT, before)
    letters(compile_masks([mask]).apply(DOCUMENT), after)
    return "".join(letter for letter, now in zip(before, after, strict=True) if now == "*")


@pytest.mark.parametrize(
    ("mask", "hidden"),
    [
        ("$.a", "A"),
        ("a", "A"),
        (" $.a ", "A"),
        ("['a']", "A"),
        ("$.['a']", "A"),
        ('$["a"]', "A"),
        ("$['\\u0061']", "A"),
        ("$.b-c", "B"),
        ("b-c", "B"),
        ("$.in", "C"),
        ("$..in", "C"),
        ("$..empty", "D"),
        ("size.empty", "D"),
        ("$.size.true", "E"),
        ("$.@type", "F"),
        ("$.$ref", "G"),
        ("$.1st", "H"),
        ("$..1st", "H"),
        ("$.é", "I"),
        ("$.\U0001f600", "J"),
        ("$.x:y", "K"),
        ("$.l[0]", "L"),
        ("$.l.[0]", "L"),
        ("l[0]", "L"),
        ("$.l[-4]", "L"),
        ("$.l[-5]", ""),
        ("$.l[4]", ""),
        ("$.l[9007199254740991]", ""),
        ("$.l.0", ""),
        ("$[0]", ""),
        ("$.0", "T"),
        ("$.l[-2:]", "N"),
        ("$.l[:2]", "LM"),
        ("$.l[::2]", "LN"),
        ("$.l[2::-1]", "LMN"),
        ("$.l[::0]", ""),
        ("$.l[ 0 , 2 ]", "LN"),
        ("$.l[0,0,1:2]", "LM"),
        ("$.l[2,:1]", "LN"),
        ("$.l[2 , :1]", "LN"),
        ("$['a','b-c']", "AB"),
        ("$..a", "AO"),
        (".a", "AO"),
        ("$..['a','é']", "AIO"),
        ("$..[0]", "L"),
        ("$.a.b", ""),
        ("$['a.b']", "P"),
        ("$['it\\'s']", "Q"),
        ('$["it\'s"]', "Q"),
        ('$["say \\"x\\""]', "R"),
        ("$['say \"x\"']", "R"),
        ("$['']", "S"),
        ("$", ""),
        ("$.*", "ABCFGHIJKPQRST"),
        ("*", "ABCFGHIJKPQRST"),
        ("$..*", "ABCDEFGHIJKLMNOPQRST"),
        ("$.l[*]", "LMN"),
        ("$.l[?(@.a)].a", "O"),
        ("$.l[?@.a].a", "O"),
        ("$.l[?(@ == 'M')]", "M"),
        ("$[?(@.size)].a", "A"),
        ("$.l[?(@.a),0]", "L"),
    ],
)
def test_what_a_mask_hides(mask: str, hidden: str) -> None:
    assert hits(mask) == hidden


@pytest.mark.parametrize(
    ("mask", "position"),
    [
        ("", 0),
        ("   ", 0),
        ("$.", 1),
        ("$..", 1),
        ("$.a.", 3),
        ("$.a..", 3),
        ("$...a", 1),
        ("..a", 0),
        ("$a", 1),
        ("@.a", 0),
        ("$.a[", 4),
        ("$.a]", 3),
        ("$[]", 1),
        ("$['a'", 5),
        ("$['a',]", 6),
        ("$['a' 'b']", 7),
        ("$['a", 2),
        ("$['\\q']", 3),
        ("$['\\ud800']", 3),
        ("$.o[k]", 4),
        ("$.o[$.k]", 4),
        ("$.o[@.k]", 4),
        ("$.first name", 8),
        ("$ a", 2),
        ("$. a", 1),
        ("$['a']b", 6),
        ("$*", 1),
        ("$.*a", 3),
        ("$.l[01]", 4),
        ("$.l[-0]", 4),
        ("$.l[1.5]", 4),
        ("$.l[1e2]", 4),
        ("$.l[9007199254740992]", 4),
        ("$.l[1:99999999999999999999]", 4),
        ("$.l[" + "9" * 41 + "]", 4),
        ("$.a()", 3),
        ("$.a.length()", 10),
        ("$.a | $.b", 4),
        ("$.a & $.b", 4),
        ("^.a", 0),
        ("$.~a", 1),
        ("$.a + $.b", 4),
        ("$.l[?]", 5),
        ("$.l[?()]", 6),
        ("$.l[?(@.k == 'a'", 16),
        ("$.l[?(@.k = 'a')]", 10),
        ("$.l[?(@.k == a)]", 13),
        ("$.l[?(@.k == )]", 13),
        ("$.l[?(@.k <> 1)]", 11),
        ("$.l[?(@.k and @.l)]", 10),
        ("$.l[?(not @.k)]", 6),
        ("$.l[?(@.k == undefined)]", 13),
        ("$.l[?(@.k == True)]", 13),
        ("$.l[?(length(@.k) == 1)]", 6),
        ("$.l[?(match(@.k, 'a'))]", 6),
        ("$.l[?(#  == 'a')]", 6),
        ("$.l[?(_.k)]", 6),
        ("$.l[?('a')]", 4),
        ("$.l[?(true)]", 4),
        ("$.l[?([1])]", 4),
        ("$.l[?(@.k == 1 == 2)]", 4),
        ("$.l[?(!@.k == 1)]", 4),
        ("$.l[?(@.k[*] == 1)]", 13),
        ("$.l[?(@.k == {})]", 13),
        ("$.l[?(@.k in 'abc')]", 4),
        ("$.l[?(@.k size 'a')]", 4),
        ("$.l[?(@.k size true)]", 4),
        ("$.l[?(@.k empty 1)]", 4),
        ("$.l[?(@.k anyof 1)]", 4),
        ("$.l[?(@.k =~ 'a')]", 10),
        ("$.l[?(@.k == /a/)]", 13),
        ("$.l[?(@.k =~ /(/)]", 14),
        ("$.l[?(@.k =~ /(?=a)/)]", 14),
        ("$.l[?(@.k =~ /(a)\\1/)]", 14),
        ("$.l[?(@.k =~ /a/x)]", 16),
        ("$.l[?(@.k =~ /\\pL{900}/)]", 14),
        ("$\x00", 1),
    ],
)
def test_what_is_no_mask_is_refused_with_its_position(mask: str, position: int) -> None:
    with pytest.raises(BadMask) as bad:
        read_mask(mask)
    assert bad.value.position == position


@pytest.mark.parametrize(
    ("allowed", "refused", "reason"),
    [
        ("$." + "a" * 510, "$." + "a" * 511, "at most 512"),
        ("$" + ".a" * 32, "$" + ".a" * 33, "more than 32 segments"),
        ("$" + "..a" * 4, "$" + "..a" * 5, r"more than 4 \.\."),
        ("$..a[?(@..a)]", "$..a[?(@..a..a)]", r"a filter has more than 1 \.\."),
        ("$[?(@..a)][?(@..a)]", "$[?(@..a && $..a)]", r"a filter has more than 1 \.\."),
        ("$[?(@.a =~ /" + "a" * 128 + "/)]", "$[?(@.a =~ /" + "a" * 129 + "/)]", "longer than 128"),
        ("$[?" + "(" * 15 + "@.a" + ")" * 15 + "]", "$[?" + "(" * 16 + "@.a" + ")" * 16 + "]", "deeper than 16"),
        ("$[?" + "!" * 16 + "@.a]", "$[?" + "!" * 17 + "@.a]", "deeper than 16"),
        ("$[?(" + "@.a||" * 16 + "@.a)]", "$[?(" + "@.a||" * 17 + "@.a)]", "more than 16 && and ||"),
        ("$[?(" + "@=~/a/||" * 3 + "@=~/a/)]", "$[?(" + "@=~/a/||" * 4 + "@=~/a/)]", "more than 4 regular"),
    ],
)
def test_limits(allowed: str, refused: str, reason: str) -> None:
    read_mask(allowed)
    with pytest.raises(BadMask, match=reason):
        read_mask(refused)


@pytest.mark.parametrize("error", [RecursionError, ValueError, KeyError, OverflowError, MemoryError])
def test_whatever_the_parser_raises_the_mask_is_bad(error: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        def parse(self, stream: object) -> tuple[()]:
            raise error

    monkeypatch.setattr(mask_syntax, "_PARSER", Broken())
    with pytest.raises(BadMask):
        read_mask("$.a")


def test_regular_expressions_never_reach_the_backtracking_engine() -> None:
    text = "a" * 5_000
    document = {"l": [{"k": text + "!", "v": "x"}]}
    assert compile_masks(["$.l[?(@.k =~ /(a+)+/)].v"]).apply(document) == document
