"""The faults, each a function that breaks something, waits, and mends it. Table: name -> fault."""

import random
import signal
import time
from collections.abc import Callable

from tests.faults.stand import Stand
from tests.faults.victim import STEPS

Fault = Callable[[Stand, random.Random], None]


def _bridge_killed(stand: Stand, dice: random.Random) -> None:
    name = stand.active
    time.sleep(dice.uniform(0, 0.5))
    stand.kill_bridge(name)
    stand.start_bridge(name)


def _bridge_dies_at(step: str) -> Fault:
    def fault(stand: Stand, dice: random.Random) -> None:
        name = stand.active
        # Under load a step comes many times a second; while starting, and in a sweep, it comes rarely.
        count = 1 if step in ("starting", "recovering") else dice.randrange(1, 4 if step == "sweeping" else 60)
        stand.kill_bridge(name)
        stand.start_bridge(name, die_at=f"{step}:{count}")
        # With a standby the other one is active by now, and this one comes to few steps.
        if not stand.wait_dead(name, 8 if len(stand.bridges) == 1 else 3):
            stand.kill_bridge(name)
        stand.start_bridge(name)

    return fault


def _bridge_stopped(stand: Stand, dice: random.Random) -> None:
    name = stand.active
    code = stand.kill_bridge(name, signal.SIGTERM)
    assert code in (0, 1), f"{name} ended with {code}: {stand.log(name)[-2000:]}"
    time.sleep(dice.uniform(0, 1))
    stand.start_bridge(name)


def _bridge_frozen(stand: Stand, dice: random.Random) -> None:
    process = stand.bridges[stand.active]
    process.send_signal(signal.SIGSTOP)
    time.sleep(dice.uniform(0.5, 5))  # up to well past its lease
    process.send_signal(signal.SIGCONT)


def _standby_comes_or_goes(stand: Stand, _: random.Random) -> None:
    if "b2" in stand.bridges:
        stand.kill_bridge("b2")
    else:
        stand.start_bridge("b2")


def _broker_restarted(stand: Stand, _: random.Random) -> None:
    stand.broker.restart()


def _broker_forgets(stand: Stand, _: random.Random) -> None:
    stand.broker.stop()
    (stand.broker.directory / "mosquitto.db").unlink(missing_ok=True)
    stand.broker.start()


def _broker_killed(stand: Stand, _: random.Random) -> None:
    stand.broker.kill()
    stand.broker.start()


def _broker_frozen(stand: Stand, dice: random.Random) -> None:
    stand.broker.freeze()
    time.sleep(dice.uniform(0.5, 4))
    stand.broker.thaw()


def _redis_restarted(stand: Stand, dice: random.Random) -> None:
    stand.redis.stop()
    time.sleep(dice.uniform(0, 2))
    stand.redis.start()


def _redis_killed(stand: Stand, dice: random.Random) -> None:
    stand.redis.kill()
    time.sleep(dice.uniform(0, 2))
    stand.redis.start()


def _redis_frozen(stand: Stand, dice: random.Random) -> None:
    stand.redis.freeze()
    time.sleep(dice.uniform(0.5, 4))
    stand.redis.thaw()


def _redis_full(stand: Stand, dice: random.Random) -> None:
    with stand.ask_redis() as redis:
        redis.config_set("maxmemory", 1)
        time.sleep(dice.uniform(0.5, 2))
        redis.config_set("maxmemory", 0)


def _redis_read_only(stand: Stand, dice: random.Random) -> None:
    with stand.ask_redis() as redis:
        redis.execute_command("REPLICAOF", "127.0.0.1", "1")
        time.sleep(dice.uniform(0.5, 2))
        redis.execute_command("REPLICAOF", "NO", "ONE")


def _redis_busy(stand: Stand, dice: random.Random) -> None:
    spin = "local t = redis.call('TIME')[1] while redis.call('TIME')[1] - t < tonumber(ARGV[1]) do end return 1"
    with stand.ask_redis() as redis:
        redis.config_set("lua-time-limit", 100)
        redis.eval(spin, 0, dice.choice((2, 3)))


def _redis_forgets_scripts(stand: Stand, _: random.Random) -> None:
    with stand.ask_redis() as redis:
        redis.script_flush()


def _way_cut(server: str) -> Fault:
    def fault(stand: Stand, dice: random.Random) -> None:
        for _ in range(dice.randrange(1, 6)):
            stand.way_to(server).cut()
            time.sleep(dice.uniform(0.05, 0.5))

    return fault


def _way_frozen(server: str) -> Fault:
    def fault(stand: Stand, dice: random.Random) -> None:
        stand.way_to(server).freeze()
        time.sleep(dice.uniform(0.5, 4))
        if dice.random() < 0.5:  # what waited is lost with its connection
            stand.way_to(server).cut()
        stand.way_to(server).thaw()

    return fault


def _way_slow(server: str) -> Fault:
    def fault(stand: Stand, dice: random.Random) -> None:
        stand.way_to(server).slow(dice.uniform(0.01, 0.3))
        time.sleep(dice.uniform(1, 3))
        stand.way_to(server).slow()

    return fault


def _way_trickles(server: str) -> Fault:
    def fault(stand: Stand, dice: random.Random) -> None:
        stand.way_to(server).slow(0.001, trickle=True)
        time.sleep(dice.uniform(1, 3))
        stand.way_to(server).slow()

    return fault


def _way_breaks(server: str) -> Fault:
    def fault(stand: Stand, dice: random.Random) -> None:
        for _ in range(dice.randrange(1, 4)):
            stand.way_to(server).break_after(dice.randrange(1, 20_000))
            time.sleep(0.5)

    return fault


FAULTS: dict[str, Fault] = {
    "bridge killed": _bridge_killed,
    **{f"bridge dies {step}": _bridge_dies_at(step) for step in STEPS},
    "bridge stopped": _bridge_stopped,
    "bridge frozen": _bridge_frozen,
    "standby comes or goes": _standby_comes_or_goes,
    "broker restarted": _broker_restarted,
    "broker forgets": _broker_forgets,
    "broker killed": _broker_killed,
    "broker frozen": _broker_frozen,
    "redis restarted": _redis_restarted,
    "redis killed": _redis_killed,
    "redis frozen": _redis_frozen,
    "redis full": _redis_full,
    "redis read-only": _redis_read_only,
    "redis busy": _redis_busy,
    "redis forgets scripts": _redis_forgets_scripts,
    **{
        f"way to {server} {what}": make(server)
        for server in ("broker", "redis")
        for what, make in (
            ("cut", _way_cut),
            ("frozen", _way_frozen),
            ("slow", _way_slow),
            ("trickles", _way_trickles),
            ("breaks", _way_breaks),
        )
    },
}

LOSING = frozenset(("broker killed", "broker forgets"))
"""After these the broker itself may have lost what it acknowledged: what is missing is counted apart."""
