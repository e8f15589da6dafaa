"""The short form of `scripts/fuzz`, but for masks, which have a file of their own."""

import pytest

from tests.property.fuzz import fuzz


@pytest.mark.parametrize(
    ("kind", "count"),
    [
        ("inputs", 300),
        ("http", 300),
        ("tokens", 300),
        ("config", 200),
        pytest.param("inputs", 20_000, marks=[pytest.mark.slow, pytest.mark.timeout(900)]),
        pytest.param("http", 20_000, marks=[pytest.mark.slow, pytest.mark.timeout(900)]),
    ],
)
def test_nothing_is_found(kind: str, count: int) -> None:
    assert fuzz(kind, count, seed=count, timed=False).seen
