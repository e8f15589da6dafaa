import pytest

from bridge.errors import ConfigError
from bridge.shell.rpc import read_params


@pytest.mark.parametrize(
    ("words", "params"),
    [
        ([], {}),
        (["kind=user", "uuid=ann"], {"kind": "user", "uuid": "ann"}),
        (
            ["limit=10", "on=true", "text=a=b", "none=null", "empty="],
            {"limit": 10, "on": True, "text": "a=b", "none": None, "empty": ""},
        ),
        (['quoted="5"', 'filter={"userId": "ann"}'], {"quoted": "5", "filter": {"userId": "ann"}}),
        (['{"a": 1}'], {"a": 1}),
        (["[1, 2]"], [1, 2]),
    ],
)
def test_parameters_are_words_or_json(words: list[str], params: object) -> None:
    assert read_params(words) == params


@pytest.mark.parametrize("words", [["{"], ["a"], ["=1"], ["a=1", "{}"]])
def test_what_is_neither_is_refused(words: list[str]) -> None:
    with pytest.raises(ConfigError, match="PARAMS"):
        read_params(words)
