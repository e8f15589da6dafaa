"""The one place that wires the house together, and takes it down again."""

import asyncio
import contextlib
import ctypes
import gc
import random
import secrets
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import TypeVar

import structlog

from bridge.adapters.mqtt.session import Session
from bridge.adapters.mqtt.settings import SessionSettings
from bridge.adapters.registry import RedisRegistry
from bridge.config import Rooms, rooms
from bridge.desk import REDIS_IS_AWAY, STANDS_BY, STOPS, Desk
from bridge.domain.audit import Auditor
from bridge.domain.intake import Intake, Limits
from bridge.domain.journal import JournalEntry
from bridge.errors import ConfigError, LeaseLost, RegistryUnavailable
from bridge.health import Health
from bridge.inbox import Inbox
from bridge.lease import Lease
from bridge.meters import Meters
from bridge.outcomes import Outcomes
from bridge.pipeline import Line
from bridge.recovery import left_over
from bridge.reporter import Reporter
from bridge.settings import Settings
from bridge.settlement import Settlement

log = structlog.get_logger("bridge.app")

_BACKOFF_SECONDS = (0.1, 2.0)
_DRAIN_SECONDS = 5.0
_RELEASE_SECONDS = 1.0
_COUNTS_EVERY_SECONDS = 60.0
_ANSWER_SECONDS = 5.0
# From when on `/readyz` says so. The registry clock moves about once a second.
_SILENT_SECONDS = 5.0
_SWEEP_LAG_MS = 30_000
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # malloc.h: what is kept at the heap's end; from which size on it is not used
_MALLOC_OPTIONS = {_TRIM_THRESHOLD: 32 * 1024 * 1024, _MMAP_THRESHOLD: 4 * 1024 * 1024}

_T = TypeVar("_T")


async def run(settings: Settings) -> int:
    """Run the bridge until SIGTERM or SIGINT.

    Returns:
        The exit code: 0 where all that was decided is delivered and acknowledged, 1 where something comes again after
        the next start, also because a part of the bridge died.

    Raises:
        bridge.errors.ConfigError: a setting that only shows itself at the broker or at Redis.
    """
    try:
        return await _live(settings)
    except Exception as error:
        return _tell_deaths(error)


async def _live(settings: Settings) -> int:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    built = rooms(settings)
    desk = Desk(_ANSWER_SECONDS)
    health = Health()
    async with _http(settings, desk, built, health):
        _tune_memory()
        code = await _term(settings, built, desk, health, stopping, starting=True)
        while code is None:
            code = await _term(settings, built, desk, health, stopping, starting=False)
    return code


@contextlib.asynccontextmanager
async def _http(settings: Settings, desk: Desk, built: Rooms, health: Health) -> AsyncIterator[None]:
    """Serve HTTP through all terms, so that a bridge that stands by says so."""
    if not settings.http.port:
        yield
        return
    from bridge.adapters.http.server import make_app, serving  # a tenth of the start, for those who want it

    app = make_app(settings, desk, built.rules, health)
    async with serving(app, settings.http):
        yield


async def _term(
    settings: Settings, built: Rooms, desk: Desk, health: Health, stopping: asyncio.Event, *, starting: bool
) -> int | None:
    """Stand by, be the active bridge, and end.

    Returns:
        The exit code; None where another bridge has taken over. The next term is a new instance, whose batch tokens and
        event ids are its own.
    """
    instance = secrets.token_hex(4)
    bridge = f"{settings.name}/{instance}"
    registry, keeper = _registry(settings, built, bridge), _registry(settings, built, bridge)
    lease = Lease(registry, bridge)
    meters = Meters()
    meters.watch_process()
    health.exposition = meters.exposition
    ended = STOPS

    def waits(reason: str) -> None:
        desk.shut(reason)
        health.faults = lambda: [reason]

    try:
        opened = await _unless(stopping, _open(registry, lease, settings, waits, starting=starting))
        if opened is None:
            return 0
        client_id, home, owed = opened
        code = await _serve(
            settings, registry, keeper, lease, instance, client_id, home, owed, built, desk, health, meters, stopping
        )
        with contextlib.suppress(RegistryUnavailable, TimeoutError):
            async with asyncio.timeout(_RELEASE_SECONDS):
                await lease.release()
    except Exception as error:
        if not all(isinstance(death.error, LeaseLost) for death in _deaths(error)):
            raise
        log.error("Another bridge has taken over: this one stands by.", reason=str(next(_deaths(error)).error))
        ended = STANDS_BY
        return None
    finally:
        desk.close(ended)
        await registry.close()
        await keeper.close()
    return code


def _registry(settings: Settings, built: Rooms, bridge: str) -> RedisRegistry:
    return RedisRegistry(
        settings.redis.url,
        key_prefix=settings.redis.key_prefix,
        bridge=bridge,
        timeout_seconds=settings.redis.timeout_seconds,
        tls=built.redis_tls,
    )


async def _unless(stopping: asyncio.Event, work: Coroutine[object, object, _T]) -> _T | None:
    """Do the work; give it up and return None where asked to stop meanwhile."""
    working, stopped = asyncio.create_task(work), asyncio.create_task(stopping.wait())
    await asyncio.wait((working, stopped), return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    if working.done():
        return working.result()
    working.cancel()
    await asyncio.wait((working,))
    return None


class _Died(Exception):
    """A part of the bridge ended by an error, which is the cause."""

    def __init__(self, task: str, error: Exception) -> None:
        super().__init__(task)
        self.task = task
        self.error = error


async def _part(name: str, work: Coroutine[object, object, None]) -> None:
    try:
        await work
    except Exception as error:
        raise _Died(name, error) from error


def _tell_deaths(error: Exception) -> int:
    """Log what the bridge died of and return the exit code; raise instead what the operator has to mend."""
    deaths = list(_deaths(error))
    for death in deaths:
        if isinstance(death.error, ConfigError):
            raise death.error from None
    for task, fault in ((death.task, death.error) for death in deaths):
        log.error(
            "The bridge ends: a bug or an unexpected answer; the supervisor shall start it again.",
            task=task,
            error=type(fault).__name__,
            message=str(fault),
            exc_info=fault,
        )
    return 1


def _deaths(error: Exception) -> Iterator[_Died]:
    """The errors of a group one by one; what no task died of happened between start and stop."""
    if isinstance(error, ExceptionGroup):
        for inner in error.exceptions:
            yield from _deaths(inner)
    elif isinstance(error, _Died) and isinstance(error.error, ExceptionGroup):
        for inner in error.error.exceptions:
            yield from (_Died(error.task, death.error) for death in _deaths(inner))
    else:
        yield error if isinstance(error, _Died) else _Died("main", error)


def _tune_memory() -> None:
    """Let the garbage collector look seldom, and the allocator keep what it will need again for the next batch.

    The line makes no cycles, and by default the collector took an eighth of the time. glibc would give a batch's pages
    back to the system and fault them in for the next one, three for every four events.
    """
    gc.collect()
    gc.freeze()
    gc.enable()
    gc.set_threshold(50_000, 20, 100)
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # glibc has it, others do not
    if mallopt is not None:
        for option, size_bytes in _MALLOC_OPTIONS.items():
            mallopt(option, size_bytes)


async def _open(
    registry: RedisRegistry, lease: Lease, settings: Settings, waits: Callable[[str], None], *, starting: bool
) -> tuple[str, str, list[tuple[str, str, JournalEntry]]]:
    """Wait for Redis and for the lease; return the MQTT client id, the home and what is left in the journal.

    ``waits`` is told what for.
    """
    wait, longest = _BACKOFF_SECONDS
    while True:
        try:
            await registry.open()
            waits(STANDS_BY)
            await lease.take(starting=starting)
            return await _client_id(registry, settings), await _home(registry, settings), await left_over(registry)
        except RegistryUnavailable as error:
            waits(REDIS_IS_AWAY)
            log.error("Redis is away: the bridge waits for it before it takes anything.", reason=str(error))
        await asyncio.sleep(random.uniform(wait / 2, wait))
        wait = min(wait * 2, longest)


async def _client_id(registry: RedisRegistry, settings: Settings) -> str:
    """The client id names the durable session; whoever knows it can take the session over, so it is unguessable."""
    if settings.mqtt.client_id:
        return settings.mqtt.client_id
    client_id = await registry.recall("client_id")
    if client_id is None:
        client_id = f"endpoint-bridge-{secrets.token_urlsafe(18)}"
        await registry.remember("client_id", client_id)
    return client_id


async def _home(registry: RedisRegistry, settings: Settings) -> str:
    """The organization whose users need no claims (`bridge.domain.owners`): the first default one, for ever."""
    home = await registry.recall("home")
    if home is None:
        home = settings.default_organization
        await registry.remember("home", home)
    return home


async def _serve(
    settings: Settings,
    registry: RedisRegistry,
    keeper: RedisRegistry,
    lease: Lease,
    instance: str,
    client_id: str,
    home: str,
    owed: list[tuple[str, str, JournalEntry]],
    built: Rooms,
    desk: Desk,
    health: Health,
    meters: Meters,
    stopping: asyncio.Event,
) -> int:
    mqtt = settings.mqtt
    counts = meters.counts
    inbox = Inbox(counts)
    session = Session(
        SessionSettings(
            host=mqtt.host,
            port=mqtt.port,
            client_id=client_id,
            subscriptions=built.inputs.filters,
            state_topic=_own_topic(settings, settings.topics.state),
            username=mqtt.username or None,
            password=mqtt.password.get_secret_value() or None,
            tls=built.broker_tls,
            server_name=mqtt.server_name,
            receive_maximum=mqtt.receive_maximum,
            maximum_packet_bytes=mqtt.maximum_packet_bytes,
            keep_alive_seconds=mqtt.keep_alive_seconds,
            session_expiry_seconds=mqtt.session_expiry_seconds,
        ),
        inbox,
        may_connect=lease.confirm,
    )
    settlement = Settlement(session, counts)
    audit = settings.audit
    outcomes = Outcomes(
        registry=keeper,
        broker=session,
        settlement=settlement,
        auditor=Auditor(built.endpoint_topics.endpoint_of, built.audit_masks) if audit.enabled else None,
        maximum_audit=audit.maximum_entries,
        counts=counts,
    )
    limits = Limits(mqtt.payload_limit_bytes, mqtt.rpc_payload_limit_bytes, mqtt.status_limit_bytes)
    line = Line(
        registry=registry,
        broker=session,
        inbox=inbox,
        desk=desk,
        settlement=settlement,
        outcomes=outcomes,
        intake=Intake(built.inputs, built.endpoint_topics, built.rules, limits, lambda: secrets.token_urlsafe(12)),
        router=built.router,
        rules=built.rules,
        home=home,
        registry_topics=built.registry_topics,
        reporter=Reporter(session, _own_topic(settings, settings.topics.rejected)),
        instance=instance,
        new_epoch=lambda: secrets.token_hex(8),
        meters=meters,
    )
    line.owe(owed)
    _watch(meters, inbox, session, settlement, line)
    health.faults = lambda: _faults(inbox, line)
    async with asyncio.TaskGroup() as tasks:
        connection = tasks.create_task(_part("mqtt-session", session.run()))
        working = tasks.create_task(_part("line", line.run()))
        following = tasks.create_task(_part("outcomes", outcomes.run()))
        trimming = tasks.create_task(_part("audit", outcomes.trim(built.rules.audit_ms)))
        telling = tasks.create_task(_part("counts", _tell_counts(counts)))
        holding = tasks.create_task(_part("lease", lease.keep()))
        await stopping.wait()
        log.info("The bridge stops: what is decided is delivered first.", at_most_seconds=_DRAIN_SECONDS)
        health.faults = lambda: [STOPS]
        line.stop()
        is_clean = await _finish(working, line, settlement, outcomes)
        await session.stop()
        for task in (connection, working, following, trimming, telling, holding):
            task.cancel()
    log.info("The bridge has stopped.", clean=is_clean, **counts)
    return 0 if is_clean else 1


def _watch(meters: Meters, inbox: Inbox, session: Session, settlement: Settlement, line: Line) -> None:
    """Let the meters ask each room what it holds when somebody looks."""
    for name, text, value in (
        ("connected", "1 while the broker has granted every subscription.", lambda: inbox.is_subscribed),
        ("redis_answers", "0 while the line waits for Redis.", lambda: not line.is_redis_away),
        ("waiting_inputs", "Messages that wait for the line.", lambda: inbox.waiting),
        ("waiting_outputs", "Messages that wait to be sent to the broker.", lambda: session.waiting),
        ("undelivered_commits", "Commits that wait for PUBACKs of their outputs.", lambda: settlement.undelivered),
        ("sweep_lag_seconds", "How far expiries are behind the registry clock.", lambda: line.sweep_lag_ms / 1000),
    ):
        meters.gauge(name, text, value)


def _faults(inbox: Inbox, line: Line) -> list[str]:
    """Tell why the bridge does not work at the moment."""
    faults = []
    if not inbox.is_subscribed:
        faults.append("the MQTT broker is away, or has not granted every subscription yet")
    if line.is_redis_away:
        faults.append(REDIS_IS_AWAY)
    if line.silent_seconds > _SILENT_SECONDS:
        faults.append(f"the broker or Redis has not answered for {line.silent_seconds:.0f} s")
    if line.sweep_lag_ms > _SWEEP_LAG_MS:
        faults.append(f"expiries are {line.sweep_lag_ms / 1000:.0f} s late")
    return faults


def _own_topic(settings: Settings, template: str) -> str:
    """The bridge's own topics: under the default organization where the prefix names one."""
    prefix = settings.prefix.replace("{organization}", settings.default_organization)
    return prefix + template.replace("{name}", settings.name)


async def _finish(working: asyncio.Task[None], line: Line, settlement: Settlement, outcomes: Outcomes) -> bool:
    """Let all that is decided be delivered and acknowledged; returns whether the next start has nothing to finish."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_DRAIN_SECONDS):
            await asyncio.wait([working])
            # Once in a process's life; an event would cost every commit.
            while settlement.undelivered or not outcomes.is_idle:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            await line.finish()
            # A commit may have been made whose answer never came.
            return not settlement.is_journaled and not line.is_redis_away
    return False


async def _tell_counts(counts: Counter[str]) -> None:
    told: Counter[str] = Counter()
    while True:
        await asyncio.sleep(_COUNTS_EVERY_SECONDS)
        if counts != told:
            told = Counter(counts)
            log.info("So far.", **counts)
