"""The bridge's session at the broker: it stays connected, and carries bytes between a socket and `Connection`."""

import asyncio
import functools
import random
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Concatenate, Final, ParamSpec, cast

import structlog
from mqtt5 import DisconnectReasonCode

from bridge.adapters.mqtt import reasons
from bridge.adapters.mqtt.connection import (
    Confirmed,
    Connected,
    Connection,
    Ended,
    Event,
    Received,
    Settled,
    Subscribed,
)
from bridge.adapters.mqtt.dial import connect, explain, exposes_password
from bridge.adapters.mqtt.handshake import OFFLINE, ONLINE, connect_packet, topic_filters
from bridge.adapters.mqtt.listener import Listener
from bridge.adapters.mqtt.outbox import Outbox
from bridge.adapters.mqtt.settings import SessionSettings
from bridge.domain.values import Output, Receipt
from bridge.errors import ConfigError
from bridge.ports import Broker

log = structlog.get_logger("bridge.mqtt")

_FAREWELL_SECONDS: Final = 2.0
_CLOSE_SECONDS: Final = 1.0
_SHORTEST_PATIENCE_SECONDS: Final = 4.0  # brokers were seen to stand still for 2 s
_MOST_DOUBLINGS: Final = 16
_TOLD_EVERY_SECONDS: Final = 10.0


_P = ParamSpec("_P")


def _guarded(method: "Callable[Concatenate[Session, _P], None]") -> "Callable[Concatenate[Session, _P], None]":
    """Let an error end the session, in what the event loop calls: the loop would only log it and go on."""

    @functools.wraps(method)
    def guarded(session: "Session", /, *args: _P.args, **kwargs: _P.kwargs) -> None:
        try:
            method(session, *args, **kwargs)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:
            session._break(error)

    return guarded


class Session(asyncio.Protocol, Broker):
    """One durable session, over as many connections as it takes.

    Everything that is queued while the event loop goes round once leaves in one write, whichever calls queued it: a
    broker has less work with one large write than with many small ones. Outputs outlive a connection, receipts do not.

    Reading pauses only where the listener has no room, and never while the line waits for outputs to leave: the PUBACKs
    that it then needs may stand behind any number of deliveries. A broker that keeps to Receive Maximum and a line that
    gets on do not come to that.

    Args:
        settings: see there.
        listener: hears what arrives.
        may_connect: waited for before each connection; what it raises ends the session.
    """

    def __init__(
        self, settings: SessionSettings, listener: Listener, may_connect: Callable[[], Awaitable[None]] | None = None
    ) -> None:
        self._settings = settings
        self._listener = listener
        self._may_connect = may_connect
        self._outbox = Outbox()
        self._connections = 0
        self._transport: asyncio.Transport | None = None
        self._connection: Connection | None = None
        self._failures = 0  # connections in a row that did not last
        self._announced = False  # the listener knows of this connection
        self._reason = ""  # why the connection ends, by the first who knows
        self._fault: Exception | None = None  # a bug of the bridge, which ends `run`
        self._writing_paused = False
        self._reading_paused = False
        self._flush_scheduled = False
        self._heard_at = 0.0  # loop time of the last bytes
        self._timer: asyncio.TimerHandle | None = None
        self._patience: asyncio.Timeout | None = None
        self._keep_alive_seconds = 0
        self._is_exposure_told = False
        self._refusals_told = 0
        self._refusals_told_at = -_TOLD_EVERY_SECONDS
        self._stopping = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._ready: asyncio.Future[None] | None = None
        self._closed: asyncio.Future[None] | None = None

    # What the line asks (bridge.ports.Broker).

    def publish(self, outputs: Sequence[Output], settled: Callable[[list[int]], None]) -> None:
        """Send outputs in order, now or once connected again.

        Args:
            outputs: at QoS 1 each is kept, and sent again on every new connection, until its PUBACK.
            settled: called once, when all are settled, with a reason code for each: that of its PUBACK; 0 at QoS 0,
                once written; 0x90 and 0x95 where topic or size could not be sent. At once when there are no outputs.
        """
        self._outbox.add(outputs, settled)
        self._measure_backlog()
        self._schedule_flush()

    def acknowledge(self, receipts: Iterable[Receipt]) -> None:
        """Let the PUBACK of each leave, once those of all earlier deliveries may; void receipts have no effect."""
        for receipt in receipts:
            receipt.done = True
        self._schedule_flush()

    @property
    def largest_packet_bytes(self) -> int:
        """Bytes of the largest packet that the broker takes, as it said last; MQTT's own bound before it did."""
        return self._outbox.largest_packet_bytes

    async def drained(self) -> None:
        """Return once fewer than ``backlog_limit`` outputs, and bytes, wait to be sent for the first time."""
        if not self._room.is_set():
            self.read_on()
            await self._room.wait()

    def read_on(self) -> None:
        """Read again, where the listener had no room."""
        if self._reading_paused:
            self._reading_paused = False
            self._heard_at = asyncio.get_running_loop().time()  # until now nobody listened
            if self._transport is not None and not self._transport.is_closing():
                self._transport.resume_reading()

    @property
    def waiting(self) -> int:
        """Outputs that wait to be sent for the first time."""
        return self._outbox.waiting

    # Life.

    async def run(self) -> None:
        """Stay connected until `stop`. Where this is cancelled the connection is cut and the broker sends the will.

        Raises:
            Exception: whatever went wrong here, in a listener or in a ``settled`` callback. The connection is cut: what
                such an error left half done could jam the session, and a process that ends is started again.
        """
        clock = asyncio.get_running_loop().time
        shortest, longest = self._settings.backoff_shortest_seconds, self._settings.backoff_longest_seconds
        told, told_at = "", 0.0
        while not self._stopping.is_set():
            if self._may_connect is not None:
                await self._may_connect()
                if self._stopping.is_set():
                    break
            began = clock()
            await self._live()
            if self._fault is not None:
                raise self._fault
            if self._stopping.is_set():
                break
            # A connection that does not last is no success: two bridges with one client id end each other's.
            lasted = self._ready is not None and self._ready.done() and clock() - began > longest
            self._failures = 0 if lasted else self._failures + 1
            delay_seconds = random.uniform(0, min(longest, shortest * 2 ** min(self._failures, _MOST_DOUBLINGS)))
            if self._reason != told or clock() - told_at >= _TOLD_EVERY_SECONDS:
                told, told_at = self._reason, clock()
                log.error(f"{self._reason} Connecting again in {delay_seconds:.1f} s.")
            try:
                async with asyncio.timeout(delay_seconds):
                    await self._stopping.wait()
            except TimeoutError:
                pass

    async def stop(self) -> None:
        """Say ``offline``, disconnect and let `run` return, within 4 s.

        What the broker has not acknowledged by then is lost with the process: the line stops first.
        """
        self._stopping.set()
        closed = self._closed
        if self._connection is None or closed is None or self._ready is None or not self._ready.done():
            if self._patience is not None and not self._patience.expired():  # run is connecting: let it give up now
                self._patience.reschedule(asyncio.get_running_loop().time())
            return
        acknowledged: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._say_state(OFFLINE, acknowledged)
        try:
            await asyncio.wait((acknowledged, closed), timeout=_FAREWELL_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._close(
                "The bridge stops.",
                # The will says `offline` where the bridge could not.
                DisconnectReasonCode.NORMAL_DISCONNECTION
                if acknowledged.done()
                else DisconnectReasonCode.DISCONNECT_WITH_WILL_MESSAGE,
            )
        await closed

    async def _live(self) -> None:
        """Live through one connection, from the first attempt until it is closed."""
        settings = self._settings
        loop = asyncio.get_running_loop()
        self._reason = ""
        self._closed = loop.create_future()
        self._ready = loop.create_future()
        try:
            async with asyncio.timeout(settings.connect_timeout_seconds) as self._patience:
                # One that takes the connection and then is of no use gives way to the next of a name's addresses.
                await connect(lambda: self, settings, turn=self._failures)
                await asyncio.wait((self._ready, self._closed), return_when=asyncio.FIRST_COMPLETED)
            self._patience = None
            await self._closed
        except ConfigError as error:  # a certificate that is being renewed, perhaps
            self._reason = f"Cannot connect to the broker: {error}."
        except OSError as error:  # TimeoutError too
            self._reason = self._reason or explain(error, settings)
        finally:
            self._patience = None
            if self._transport is not None:
                self._transport.abort()
                await self._closed

    # What the event loop tells (asyncio.Protocol).

    @_guarded
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send CONNECT."""
        settings = self._settings
        self._transport = cast("asyncio.Transport", transport)
        self._writing_paused = self._reading_paused = False
        self._announced = False
        self._connections += 1
        self._connection = Connection(
            self._connections, connect_packet(settings), topic_filters(settings), self._outbox
        )
        if not self._is_exposure_told and exposes_password(settings, transport.get_extra_info("peername")):
            self._is_exposure_told = True
            log.warning("The bridge's password goes over the network in clear: set mqtt.tls = true.")
        self._flush()

    @_guarded
    def data_received(self, data: bytes) -> None:
        """Hand over what the bytes say, in wire order."""
        if self._connection is None or self._fault is not None:
            return
        self._heard_at = asyncio.get_running_loop().time()
        for event in self._connection.receive(data):
            self._handle(event, self._connection)
        self._schedule_flush()
        transport = self._transport
        if self._listener.has_room or not self._room.is_set() or transport is None or transport.is_closing():
            return
        self._reading_paused = True
        transport.pause_reading()

    @_guarded
    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the listener, and let `run` go on."""
        number = self._connections
        if not self._reason:
            self._reason = self._silent_end(exc)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._transport = None
        self._connection = None
        if self._closed is not None and not self._closed.done():
            self._closed.set_result(None)
        if self._announced:
            self._listener.disconnected(number, self._reason)

    def pause_writing(self) -> None:
        """Hold PUBACKs and outputs back; reading goes on."""
        self._writing_paused = True

    def resume_writing(self) -> None:
        """Write what was held back."""
        self._writing_paused = False
        self._schedule_flush()

    # Inside.

    def _silent_end(self, error: Exception | None) -> str:
        if not self._announced:
            return explain(error or ConnectionResetError("it hung up before it answered"), self._settings)
        cause = "" if error is None else f" ({error!r})"
        # Mosquitto 2.0 sends no DISCONNECT to a client whose id another one takes.
        return (
            f"The broker closed the connection without a word{cause}: it stopped, or another client uses the "
            "bridge's client id. Look into the broker's log."
        )

    def _handle(self, event: Event, connection: Connection) -> None:
        match event:
            case Received(publishes, size_bytes):
                self._listener.received(publishes, size_bytes)
            case Settled(batches):
                for batch in batches:
                    batch.settled(batch.codes)
            case Confirmed(acknowledged, caught_up):
                self._listener.confirmed(connection.number, acknowledged, caught_up)
            case Connected(terms):
                self._keep_alive_seconds = terms.keep_alive_seconds
                for remark in terms.remarks:
                    log.warning(remark)
                self._announced = True
                self._listener.connected(connection.number, terms.session_present)
                self._ping_later()
            case Subscribed():
                self._say_state(ONLINE)
                log.info(f"Connected to the broker at {self._settings.host}:{self._settings.port} and subscribed.")
                if self._ready is not None and not self._ready.done():
                    self._ready.set_result(None)
                self._listener.subscribed(connection.number)
            case Ended(reason):
                self._close(reason)

    def _say_state(self, payload: bytes, acknowledged: asyncio.Future[None] | None = None) -> None:
        def settled(_codes: list[int]) -> None:
            if acknowledged is not None and not acknowledged.done():
                acknowledged.set_result(None)

        self._outbox.add_state(Output(self._settings.state_topic, payload, retain=True), settled)
        self._schedule_flush()

    def _schedule_flush(self) -> None:
        if not self._flush_scheduled and self._connection is not None:
            self._flush_scheduled = True
            asyncio.get_running_loop().call_soon(self._flush)

    @_guarded
    def _flush(self) -> None:
        self._flush_scheduled = False
        if self._transport is None or self._connection is None or self._transport.is_closing():
            return
        packets: list[bytes] = []
        finished = self._connection.take(packets, hold=self._writing_paused)
        if packets:
            self._transport.write(b"".join(packets))
        self._measure_backlog()
        for batch in finished:
            batch.settled(batch.codes)

    def _break(self, error: BaseException) -> None:
        """Keep the first error for `run` to raise, and cut the connection."""
        if self._fault is None:
            if isinstance(error, Exception):
                self._fault = error
            else:  # a panic of the codec, which a TaskGroup would take for the end of the world
                self._fault = RuntimeError(f"{type(error).__name__}: {error}")
                self._fault.__cause__ = error
        self._reason = self._reason or "The bridge has a fault of its own."
        if self._transport is not None:
            self._transport.abort()

    def _measure_backlog(self) -> None:
        outbox, settings = self._outbox, self._settings
        if outbox.waiting < settings.backlog_limit and outbox.waiting_bytes < settings.backlog_limit_bytes:
            self._room.set()
        else:
            self._room.clear()

    def _ping_later(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self._settings.ping_interval_seconds, self._ping)

    @_guarded
    def _ping(self) -> None:
        if self._connection is None or self._transport is None:
            return
        self._tell_refusals()
        if self._connection.ping_outstanding:
            # A PINGRESP may stand behind many deliveries: whatever comes is a sign of life.
            silent_seconds = asyncio.get_running_loop().time() - self._heard_at
            patience_seconds = max(self._keep_alive_seconds, _SHORTEST_PATIENCE_SECONDS)
            if silent_seconds >= patience_seconds and not self._reading_paused:
                self._reason = f"The broker has been silent for {silent_seconds:.0f} s and answers no PINGREQ."
                self._transport.abort()
                return
        else:
            self._connection.ping()
            self._schedule_flush()
        self._ping_later()

    def _tell_refusals(self) -> None:
        refused = self._outbox.refused - self._refusals_told
        now = asyncio.get_running_loop().time()
        if refused and now - self._refusals_told_at >= _TOLD_EVERY_SECONDS:
            self._refusals_told += refused
            self._refusals_told_at = now
            code, topic = self._outbox.refusal
            log.warning(
                f"The broker refuses outputs: {reasons.explain(reasons.PUBACK, code)}",
                outputs=refused,
                last_topic=topic,
            )

    def _close(self, reason: str, code: DisconnectReasonCode | None = None) -> None:
        """Write what is left, with a DISCONNECT packet where a code is given; cut the connection if that takes long."""
        if self._connection is None or self._transport is None:
            return
        self._reason = self._reason or reason
        if self._timer is not None:
            self._timer.cancel()
        if code is not None:
            self._connection.disconnect(code)
        self._flush()
        self._transport.close()
        self._timer = asyncio.get_running_loop().call_later(_CLOSE_SECONDS, self._transport.abort)
