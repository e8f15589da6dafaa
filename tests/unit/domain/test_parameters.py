"""Parameters as they come: by name, by place, or not at all. What methods make of them: `test_methods`."""

import msgspec
import pytest

from bridge.domain.parameters import Endpoint, Events, Page, Register, Send, User, read_parameters
from bridge.errors import Refusal


def test_by_name_and_by_place() -> None:
    by_name = read_parameters(Page, b'{"limit": 3, "cursor": "ann"}', strict=True)
    assert by_name == read_parameters(Page, b'[3, "ann"]', strict=True) == Page(3, "ann")
    assert read_parameters(Page, b"[3]", strict=True) == Page(3)
    assert read_parameters(Page, b"", strict=True) == read_parameters(Page, b"{}", strict=True) == Page()


def test_a_whole_number_may_be_written_as_a_float() -> None:
    assert read_parameters(Register, b'{"keepAliveSeconds": 15.0}', strict=True) == Register(keep_alive_seconds=15)


def test_an_event_stays_as_it_was_written() -> None:
    text = b'{"a" : 1.0, "b":[ ]}'
    for payload in (b'{"event": %b, "userId": "ann"}' % text, b'[%b, "ann"]' % text):
        assert read_parameters(Send, payload, strict=True) == Send(msgspec.Raw(text), "ann")


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (b'{"userEndpointId": "e", "colour": 1}', "colour"),
        (b"{}", "userEndpointId"),
        (b'{"userEndpointId": 7}', "userEndpointId"),
        (b'["e", 1]', r"2 parameters given: at most 1 \(userEndpointId\)"),
        (b'{"userEndpointId": 1e999}', "userEndpointId: "),
    ],
)
def test_what_is_wrong_is_named(payload: bytes, message: str) -> None:
    with pytest.raises(Refusal, match=message) as refused:
        read_parameters(Endpoint, payload, strict=True)
    assert refused.value.code == "invalid_params"


def test_unknown_ones_may_be_passed_over() -> None:
    assert read_parameters(User, b'{"userId": "ann", "colour": 1}', strict=False) == User("ann")


def test_a_filter_is_read_as_strictly() -> None:
    with pytest.raises(Refusal, match="colour"):
        read_parameters(Events, b'{"filter": {"colour": 1}}', strict=True)
