"""The bench measures what it says: nothing is lost or out of order on a small stand, and every work ends in tables."""

import pytest

from scripts.load import __main__ as command
from scripts.load.house import feed, registrations
from scripts.load.rounds import relay, run_rounds, status_events
from scripts.load.stand import PRIMARY, Stand, StandError
from scripts.load.work import Plan

TINY = Plan(is_full=False, users=50, rounds=1, seconds=0.5, flavour=None, say=lambda _line: None)


def test_a_round_loses_nothing():
    with Stand(None) as stand:
        made = stand.configure(PRIMARY)
        feed(made.settings, registrations(made.prefix, TINY.users))
        assert stand.redis.xlen("bridge:{default}:journal") == 0
        with stand.bridge(made) as start_seconds:
            [samples] = run_rounds(TINY, "", [relay(stand, 1), status_events(stand, made, 1)])
    assert start_seconds > 0
    for sample in samples.values():
        assert (sample.lost, sample.disordered) == (0, 0)
        assert sample.rate > 0
        assert sample.cpu_us.keys() == {"worker", "redis", "broker", "loadgen"}
    assert samples["bridge"].batch >= 1


def test_what_the_bridge_refuses_is_no_figure():
    with Stand(None) as stand, pytest.raises(StandError, match="unknown_type"):
        feed(stand.configure(PRIMARY).settings, [("no/such/topic", "")])


@pytest.mark.slow
@pytest.mark.parametrize("work", command.WORKS)
def test_work_ends_in_tables(work: str):
    result = command.WORKS[work][1](TINY)
    assert result.work == work
    assert result.tables
    assert (result.lost, result.disordered) == (0, 0)
