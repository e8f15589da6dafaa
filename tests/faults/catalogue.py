"""The faults, each a function that breaks something, waits, and mends it. Table: name -> fault."""

import random
import resource
import signal
import time
from collections.abc import Callable

from tests.faults.proxy import FRO, TO
from tests.faults.replica import fail_over, hand_over
from tests.faults.stand import Stand
from tests.faults.traffic import KEEP_ALIVE_SECONDS
from tests.faults.victim import STEPS

Fault = Callable[[Stand, random.Random], None]

PATIENCE_SECONDS = 30.0


def _bridge_killed(stand: Stand, dice: random.Random) -> None:
    name = stand.active
    time.sleep(dice.uniform(0, 0.5))
    stand.kill_bridge(name)
    stand.start_bridge(name)


def _bridge_ends_at(step: str, option: str) -> Fault:
    def fault(stand: Stand, dice: random.Random) -> None:
        name = stand.active
        # Under load a step comes many times a second; while starting, and in a sweep, it comes rarely.
        count = 1 if step in ("starting", "recovering") else dice.randrange(1, 4 if step == "sweeping" else 60)
        stand.kill_bridge(name)
        stand.start_bridge(name, options=(option, f"{step}:{count}"))
        # With a standby the other one is active by now, and this one comes to few steps.
        if not stand.wait_dead(name, 8 if len(stand.bridges) == 1 else 3):
            stand.kill_bridge(name, signal.SIGKILL if option == "--die-at" else signal.SIGTERM)
        stand.start_bridge(name)

    return fault


def _bridge_stopped(stand: Stand, dice: random.Random) -> None:
    name = stand.active
    code = stand.kill_bridge(name, signal.SIGTERM)
    assert code in (0, 1), f"{name} ended with {code}: {stand.log(name)[-2000:]}"
    time.sleep(dice.uniform(0, 1))
    stand.start_bridge(name)


def _bridge_replaced(stand: Stand, dice: random.Random) -> None:
    """As in an upgrade: the next one of the same name starts while the other one is still there."""
    name = stand.active
    old = stand.bridges.pop(name)
    stand.start_bridge(name)
    time.sleep(dice.uniform(0, 3))
    old.send_signal(dice.choice((signal.SIGTERM, signal.SIGKILL)))
    old.wait(PATIENCE_SECONDS)


def _bridge_clock_steps(stand: Stand, dice: random.Random) -> None:
    """The time of day of the bridge alone is set forward and back while it runs, and is wrong when that ends."""
    name = stand.active
    clock = stand.directory / "clock"
    clock.write_text("+0\n")
    stand.kill_bridge(name, signal.SIGTERM)
    stand.start_bridge(name, clock=clock)
    for _ in range(3):
        time.sleep(dice.uniform(0.3, 1))
        clock.write_text(f"{dice.choice((-86_400, -3_600, -5, 5, 3_600, 86_400)):+}\n")


def _bridge_frozen(stand: Stand, dice: random.Random) -> None:
    process = stand.bridges[stand.active]
    process.send_signal(signal.SIGSTOP)
    time.sleep(dice.uniform(0.5, 5))  # up to well past its lease
    process.send_signal(signal.SIGCONT)


def _leader_frozen(stand: Stand, dice: random.Random) -> None:
    """It wakes up when its standby has taken over."""
    name = stand.active
    if len(stand.bridges) == 1:
        stand.start_bridge("b2")
        time.sleep(2)  # for it to stand by
    process = stand.bridges[name]
    process.send_signal(signal.SIGSTOP)
    time.sleep(dice.uniform(4, 6))
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


def _redis_loads(stand: Stand, dice: random.Random) -> None:
    """It is there, and answers LOADING for a while."""
    with stand.ask_redis() as redis:
        redis.bgrewriteaof()  # into the form whose loading can be slowed
        _until(lambda: not redis.info("persistence")["aof_rewrite_in_progress"])
        keys = redis.dbsize()
    stand.redis.kill()
    delay_us = round(dice.uniform(500_000, 2_000_000) / max(keys, 1))
    stand.redis.options = ("--key-load-delay", str(delay_us), "--loading-process-events-interval-bytes", "1024")
    stand.redis.start()
    stand.redis.options = ()


def _redis_disk_full(stand: Stand, dice: random.Random) -> None:
    """Its append-only file cannot grow: with ``appendfsync always`` it ends itself rather than answer."""
    process = stand.redis.process
    assert process is not None
    with stand.ask_redis() as redis:
        size_bytes = redis.info("persistence")["aof_current_size"]
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (size_bytes + dice.randrange(100_000), resource.RLIM_INFINITY))
    end = time.monotonic() + dice.uniform(1, 4)
    while time.monotonic() < end and process.poll() is None:
        time.sleep(0.02)
    if process.poll() is None:
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    else:
        stand.redis.start()


def _redis_handed_over(stand: Stand, _: random.Random) -> None:
    stand.replace_redis(hand_over)


def _redis_fails_over(stand: Stand, dice: random.Random) -> None:
    behind_seconds = dice.uniform(0, 0.5)
    stand.replace_redis(lambda primary, replica: fail_over(primary, replica, behind_seconds))


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
        stand.way_to(server).freeze(*dice.choice(((), (), (TO,), (FRO,))))
        time.sleep(dice.uniform(0.5, 4))
        if dice.random() < 0.5:  # what waited is lost with its connection
            stand.way_to(server).cut()
        stand.way_to(server).thaw()

    return fault


def _way_half_open(server: str) -> Fault:
    def fault(stand: Stand, dice: random.Random) -> None:
        stand.way_to(server).lose()
        time.sleep(dice.uniform(0.5, 7))  # at the broker it is noticed after 4 s, at Redis after one
        stand.way_to(server).cut()

    return fault


def _ways_frozen_in_turn(stand: Stand, dice: random.Random) -> None:
    for server in dice.sample(("broker", "redis"), 2):
        stand.way_to(server).freeze()
        time.sleep(dice.uniform(0.5, 3))
        stand.way_to(server).thaw()


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


def _bridge_away(stand: Stand, dice: random.Random) -> None:
    for one in list(stand.bridges):
        stand.kill_bridge(one)
    _outlast(dice)
    stand.start_bridge("b1")  # the other faults count on it: b2 is the one that comes and goes


def _broker_away(stand: Stand, dice: random.Random) -> None:
    stand.broker.stop()
    _outlast(dice)
    stand.broker.start()


def _redis_away(stand: Stand, dice: random.Random) -> None:
    stand.redis.stop()
    _outlast(dice)
    stand.redis.start()


def _outlast(dice: random.Random) -> None:
    """Everybody would have expired, had that time counted."""
    time.sleep(KEEP_ALIVE_SECONDS + dice.uniform(1, 3))


def _until(is_so: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_SECONDS
    while not is_so() and time.monotonic() < end:
        time.sleep(0.02)


BRIDGE: dict[str, Fault] = {
    "bridge killed": _bridge_killed,
    **{f"bridge dies {step}": _bridge_ends_at(step, "--die-at") for step in STEPS},
    **{f"bridge stops {step}": _bridge_ends_at(step, "--stop-at") for step in STEPS},
    "bridge stopped": _bridge_stopped,
    "bridge replaced": _bridge_replaced,
    "bridge frozen": _bridge_frozen,
    "leader frozen": _leader_frozen,
    "bridge away": _bridge_away,
    "bridge clock steps": _bridge_clock_steps,
    "standby comes or goes": _standby_comes_or_goes,
}

BROKER: dict[str, Fault] = {
    "broker restarted": _broker_restarted,
    "broker forgets": _broker_forgets,
    "broker killed": _broker_killed,
    "broker frozen": _broker_frozen,
    "broker away": _broker_away,
}

REDIS: dict[str, Fault] = {
    "redis restarted": _redis_restarted,
    "redis killed": _redis_killed,
    "redis frozen": _redis_frozen,
    "redis away": _redis_away,
    "redis loads": _redis_loads,
    "redis disk full": _redis_disk_full,
    "redis full": _redis_full,
    "redis read-only": _redis_read_only,
    "redis busy": _redis_busy,
    "redis forgets scripts": _redis_forgets_scripts,
    "redis handed over": _redis_handed_over,
    "redis fails over": _redis_fails_over,
}

WAYS: dict[str, Fault] = {
    f"way to {server} {what}": make(server)
    for server in ("broker", "redis")
    for what, make in (
        ("cut", _way_cut),
        ("frozen", _way_frozen),
        ("half open", _way_half_open),
        ("slow", _way_slow),
        ("trickles", _way_trickles),
        ("breaks", _way_breaks),
    )
} | {"ways frozen in turn": _ways_frozen_in_turn}

FAULTS: dict[str, Fault] = {**BRIDGE, **BROKER, **REDIS, **WAYS}

LOSING = {"broker killed": "the broker", "broker forgets": "the broker", "redis fails over": "Redis"}
"""After these they themselves may have lost what they acknowledged: what is missing is counted apart, as theirs."""

RARE = frozenset(("bridge away", "broker away", "redis away"))
"""These take long, and so come a third as often as the others."""
