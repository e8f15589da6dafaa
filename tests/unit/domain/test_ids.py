"""Safe ids, and keys that lead back to their ids."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.domain.ids import (
    Ref,
    is_endpoint_id,
    is_id,
    is_organization,
    new_endpoint_id,
    parse_key,
    parse_subject_key,
    require_id,
    session_key,
    subject_key,
)
from bridge.domain.values import KINDS
from bridge.errors import Refusal

GOOD = ("a", "ann", "ä", "中", "\U0001f600", "a b", "a$", "%", ":{}", "x" * 128, "~", ".")
BAD = ("$SYS", "a+b", "a#", "a/b", "+", "#", "/", "\x00", "a\nb", "\x7f", "\x80", "\x9f", "x" * 129, "ä\ud800")


@pytest.mark.parametrize("text", GOOD)
def test_a_safe_id_is_taken_as_it_is(text: str) -> None:
    assert is_id(text)
    assert require_id(text, "field") == text


@pytest.mark.parametrize("text", BAD)
def test_any_other_id_is_refused_by_name_and_without_repeating_it(text: str) -> None:
    assert not is_id(text)
    with pytest.raises(Refusal) as refused:
        require_id(text, "userUuid")
    assert refused.value.code == "invalid_field"
    assert "userUuid" in refused.value.message
    assert text not in refused.value.message or len(text) == 1


def test_an_empty_id_has_a_code_of_its_own() -> None:
    assert not is_id("")
    with pytest.raises(Refusal) as refused:
        require_id("", "userUuid")
    assert refused.value.code == "empty_id"


@pytest.mark.parametrize("text", ["a", "A-Z.a_z~0@9", "x" * 128])
def test_endpoint_ids(text: str) -> None:
    assert is_endpoint_id(text)


@pytest.mark.parametrize("text", ["", "a b", "ä", "a:b", "x" * 129, "a/b", "a+", "$x", "a%"])
def test_no_endpoint_ids(text: str) -> None:
    assert not is_endpoint_id(text)


@pytest.mark.parametrize(("text", "fits"), [("default", True), ("A.b_c-9", True), ("x" * 64, True)])
def test_organizations(text: str, fits: bool) -> None:
    assert is_organization(text) is fits


@pytest.mark.parametrize("text", ["", "a b", "a~b", "a@b", "x" * 65, "{organization}", "a/b"])
def test_no_organizations(text: str) -> None:
    assert not is_organization(text)


@pytest.mark.parametrize(
    ("subject", "made"),
    [
        ("ann", "ann~R"),
        ("a@b.c", "a@b.c~R"),
        ("ann~x", "R"),  # exactly one ~, or the owner could not be read from it
        ("Ännchen", "R"),
        ("a b", "R"),
        ("x" * 126, "x" * 126 + "~R"),
        ("x" * 127, "R"),
    ],
)
def test_the_id_that_the_server_makes(subject: str, made: str) -> None:
    assert new_endpoint_id(subject, "R") == made
    assert is_endpoint_id(made)


safe_ids = st.text(min_size=1, max_size=128).filter(is_id)


@given(safe_ids)
def test_a_key_leads_back_to_its_id_and_holds_no_hash_tag(text: str) -> None:
    for kind in KINDS:
        key = subject_key(kind, text)
        assert parse_subject_key(key) == Ref(kind, text)
        assert key.count(":") == 1
        assert not {"{", "}"} & set(key)
    assert parse_key(session_key(text)) == ("session", text)


@given(safe_ids, safe_ids)
def test_different_ids_have_different_keys(one: str, other: str) -> None:
    assert (subject_key("user", one) == subject_key("user", other)) == (one == other)
    assert subject_key("user", one) != subject_key("device", one)


def test_only_subjects_have_subject_keys() -> None:
    with pytest.raises(ValueError, match="session:s1"):
        parse_subject_key("session:s1")
