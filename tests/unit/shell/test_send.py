import re

import pytest

from bridge.errors import ConfigError
from bridge.shell.send import read_event


def test_an_event_without_a_time_is_of_now() -> None:
    event = read_event('{"type": "TeaReadyEvent"}')
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", event["timestamp"])
    assert read_event('{"timestamp": "x"}') == {"timestamp": "x"}
    assert read_event("5") == 5  # for the bridge to refuse


def test_what_is_not_json_is_refused() -> None:
    with pytest.raises(ConfigError, match="EVENT: is not JSON"):
        read_event("TeaReadyEvent")
