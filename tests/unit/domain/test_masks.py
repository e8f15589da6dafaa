"""Masks by the cases of the reference, and by each sentence of its rules."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from bridge.domain.masks import MAXIMUM_MASKS, compile_masks
from bridge.errors import Refusal

CASES = [json.loads(line) for line in (Path(__file__).parents[2] / "cases" / "masks.jsonl").read_text().splitlines()]


def masked(document: Any, *masks: object) -> Any:
    return compile_masks(masks).apply(document)


def refusal(*masks: object) -> Refusal:
    with pytest.raises(Refusal) as refused:
        compile_masks(masks)
    assert refused.value.code == "invalid_mask"
    return refused.value


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_case_of_the_reference(case: dict[str, Any]) -> None:
    event = copy.deepcopy(case["event"])
    if case.get("error"):
        refusal(*case["masks"])
    else:
        assert masked(event, *case["masks"]) == case["expect"]
        assert event == case["event"]  # the original is what is delivered


@pytest.mark.parametrize("masks", [None, [], ()])
def test_absent_null_and_empty_are_no_masks(masks: Any) -> None:
    document = {"a": "b"}
    compiled = compile_masks(masks)
    assert not compiled
    assert compiled.apply(document) is document


@pytest.mark.parametrize(("masks", "kind"), [("$.a", "text"), ({"a": "$.a"}, "an object"), (7, "a number")])
def test_what_is_no_array_is_refused(masks: Any, kind: str) -> None:
    with pytest.raises(Refusal, match=f"masks is {kind}: send an array"):
        compile_masks(masks)


@pytest.mark.parametrize(
    ("mask", "kind"), [(5, "a number"), (None, "null"), (["$.a"], "an array"), (True, "a boolean")]
)
def test_a_mask_that_is_no_text_is_refused(mask: Any, kind: str) -> None:
    assert f"masks[1] is {kind}" in refusal("$.a", mask).message


def test_a_bad_mask_is_named_by_index_and_position_and_never_repeated() -> None:
    message = refusal("$.ok", "$.l[?(@.name == 'Ann Secret' = 'x')]").message
    assert message.startswith("masks[1] at position 29: ")
    assert "Secret" not in message


@pytest.mark.parametrize(("mask", "position"), [("$.o[k]", 4), ("  $.o[k]", 6), ("  o[k]", 4), ("[k]", 1), ("o.", 1)])
def test_positions_count_from_the_mask_as_it_was_sent(mask: str, position: int) -> None:
    assert f"at position {position}:" in refusal(mask).message


def test_at_most_32_masks() -> None:
    assert masked({"a": "b"}, *["$.a"] * MAXIMUM_MASKS) == {"a": "*"}
    with pytest.raises(Refusal, match="masks has 33 entries: send at most 32"):
        compile_masks(["$.a"] * 33)


def test_all_masks_look_at_the_original_in_any_order() -> None:
    document = {"l": [{"role": "admin", "name": "Ann"}]}
    masks = ["$.l[*].role", "$.l[?(@.role == 'admin')].name", "$.l[*].role"]
    expected = {"l": [{"role": "*****", "name": "***"}]}
    assert masked(document, *masks) == masked(document, *reversed(masks)) == expected


def test_what_holds_no_masked_text_is_shared() -> None:
    document = {"hit": {"deep": [{"a": "secret"}]}, "miss": {"b": "c"}}
    result = masked(document, "$.hit.deep[0].a")
    assert result == {"hit": {"deep": [{"a": "******"}]}, "miss": {"b": "c"}}
    assert result["miss"] is document["miss"]
    assert document["hit"]["deep"][0]["a"] == "secret"
    assert masked(document, "$.nothing") is document


def test_one_object_in_two_places_is_masked_where_it_is_hit() -> None:
    shared = {"pin": "1234"}
    assert masked({"a": shared, "b": shared}, "$.a.pin") == {"a": {"pin": "****"}, "b": {"pin": "1234"}}
    assert masked({"a": shared, "b": shared}, "$..pin") == {"a": {"pin": "****"}, "b": {"pin": "****"}}


def test_length_is_counted_in_code_points_and_empty_stays_empty() -> None:
    assert masked({"a": "\U0001f600e\u0301", "b": ""}, "$.*") == {"a": "***", "b": ""}


def test_what_is_no_text_is_counted_by_mask() -> None:
    masks = compile_masks(["$.n", "$.s", "$.o", "$", "$.*", "$.absent", "$.l[?(@.x)]"])
    masks.apply({"n": 1, "s": "x", "o": {"k": "v"}, "z": None, "l": [{"x": 1}]})
    assert masks.non_string_hits == [1, 0, 1, 1, 4, 0, 1]
    masks.apply({})
    assert masks.non_string_hits == [0, 0, 0, 1, 0, 0, 0]


@pytest.mark.parametrize("document", ["text", 7, None, True])
def test_a_document_without_anything_in_it_stays(document: Any) -> None:
    assert masked(document, "$", "$.*", "$..*") == document


def test_too_much_to_look_at_is_refused_and_changes_nothing() -> None:
    document = {"l": [{"a": "b"} for _ in range(50_000)]}
    with pytest.raises(Refusal, match="more than 100,000 nodes") as refused:
        masked(document, *["$..a"] * 8)
    assert refused.value.code == "invalid_mask"
    assert document["l"][0] == {"a": "b"}


def test_depth_is_no_danger() -> None:
    document: Any = "leaf"
    for _ in range(15_000):
        document = {"x": document}
    result = masked(document, "$..x")
    for _ in range(15_000):
        result, document = result["x"], document["x"]
    assert (result, document) == ("****", "leaf")


def test_dots_in_a_row_cost_as_much_as_there_are_nodes() -> None:
    document: Any = "leaf"
    for _ in range(60):
        document = {"x": document, "y": "other"}
    result = masked(document, "$..x..x..x..x")
    for _ in range(60):
        assert result.get("y") == "other"
        result = result["x"]
    assert result == "****"


def test_masking_twice_is_masking_once_where_there_are_no_filters() -> None:
    document = {"a": ["b", {"c": "dd"}], "c": "e"}
    masks = ["$..c", "$.a[*]"]
    assert masked(masked(document, *masks), *masks) == masked(document, *masks)
