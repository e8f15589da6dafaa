"""The fault runs of `scripts/faults` in a short form, and that they notice a guard that is missing."""

from pathlib import Path

import pytest

from tests.faults.run import Run


@pytest.mark.timeout(180)
def test_a_few_faults_lose_nothing(tmp_path: Path) -> None:
    kinds = ("bridge killed", "bridge dies committed", "way to redis cut", "way to broker breaks", "redis full")
    run = Run(5, 200, tmp_path, only=kinds)
    run.go(60, faults=6)
    assert run.done.total() == 6
    assert run.is_clean, run.table()
    assert run.counts["outputs"] > run.counts["inputs"] > 100


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_without_its_journal_the_bridge_loses_what_it_had_decided(tmp_path: Path) -> None:
    run = Run(5, 300, tmp_path, without="journal", only=("bridge dies committed",))
    run.go(120, faults=4)
    assert run.counts["lost"], run.table()
