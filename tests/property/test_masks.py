"""Random masks on random events; ``scripts/fuzz masks`` is the long form."""

import pytest

from tests.property.fuzz import fuzz


@pytest.mark.parametrize("count", [2_500, pytest.param(200_000, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])])
def test_exactly_what_the_judges_find_is_masked_and_all_else_refused_in_time(count: int) -> None:
    seen = fuzz("masks", count, seed=count, timed=False).seen
    # The dice are worth something.
    assert seen["something hidden"] > count / 20
    assert count / 10 < seen["refused"] < count / 2
    assert seen["hostile"] > count / 100
