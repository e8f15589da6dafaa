"""The fault runs of `scripts/faults` in a short form, and that they notice a guard that is missing."""

from pathlib import Path

import pytest

from tests.faults import report
from tests.faults.run import Run
from tests.faults.schedules import SCHEDULES


@pytest.mark.timeout(180)
def test_a_few_faults_lose_nothing(tmp_path: Path) -> None:
    run = Run(5, 200, tmp_path)
    kinds = ("bridge killed", "bridge dies committed", "way to redis cut", "way to broker breaks", "redis full")
    run.go((kind,) for kind in kinds)
    assert run.done.total() == len(kinds)
    assert run.is_clean, report.table(run)
    assert run.counts["outputs"] > run.counts["inputs"] > 100


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize("guard", SCHEDULES)
def test_without_a_guard_its_schedule_does_harm(guard: str, tmp_path: Path) -> None:
    run = Run.of(SCHEDULES[guard], tmp_path, without=guard)
    assert not run.is_clean, report.table(run)
