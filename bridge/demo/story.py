"""The story that the demo plays: Ann on a phone, Bob on a laptop, a lamp, a call with its room and mutes, a tablet.

All of it goes over real MQTT with an independent client. What must arrive stands in `CHAPTERS`; each chapter acts and
then waits for exactly that.
"""

import json
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from bridge.demo.actor import Actor
from bridge.demo.words import in_words

PHONE, LAPTOP, TABLET = "ann-phone", "bob-laptop", "ann-tablet"
BOTH = (PHONE, LAPTOP)  # the device is no "lamp": that one is for the commands to try by hand meanwhile
USERS = {PHONE: "ann", LAPTOP: "bob", TABLET: "ann"}
KEEP_ALIVE_SECONDS = 15
KEEPALIVE_EVERY_SECONDS = 5.0
PATIENCE_SECONDS = 10.0
PAUSE_SECONDS = 0.6  # after each chapter, for eyes; less where the time is short
REST_SECONDS = 4.0
ROUND_SECONDS = 17.0  # one round with its pauses, with something to spare
BARE_ROUND_SECONDS = 7.0  # without them
LONGEST_SHOWN_BYTES = 200  # of what is no event of the bridge

Event = Mapping[str, Any]


class Expected(NamedTuple):
    """An event that must arrive at an endpoint, told by its type and some of its fields."""

    endpoint: str
    type: str
    fields: Event

    def fits(self, endpoint: str, event: Event) -> bool:
        """Whether this event at this endpoint is the one."""
        return (endpoint, self.type) == (self.endpoint, event.get("type")) and self.fields.items() <= event.items()

    def __str__(self) -> str:
        return f"{self.endpoint}: {self.type} {json.dumps(self.fields) if self.fields else ''}".rstrip()


class Chapter(NamedTuple):
    """What happens, and what must be heard of it."""

    title: str
    act: "Callable[[Story], None]"
    expected: tuple[Expected, ...] = ()


class Story:
    """Plays the chapters round and round in a thread of its own.

    Args:
        port: of the broker on loopback.
        say: takes each line to print.
        ended: set when the story shall end.
        end: monotonic time at which it will be; no round begins that cannot be finished by then.
    """

    def __init__(self, port: int, say: Callable[[str], None], ended: threading.Event, end: float) -> None:
        self.rounds = 0
        self.expected = 0
        self.session = ""
        self.port = port
        self._say = say
        self._ended = ended
        self._end = end
        self._missing: list[str] = []
        self._open: list[Expected] = []
        self._seen: set[tuple[str, str]] = set()
        self._heard = threading.Condition()
        self._keepalives_at = 0.0
        self._pause = max(0.0, min(PAUSE_SECONDS, (end - time.monotonic() - BARE_ROUND_SECONDS) / len(CHAPTERS)))
        self._thread = threading.Thread(target=self._play, name="story", daemon=True)
        self.service = Actor("service", port)
        self.lamp: Actor | None = None
        self.endpoints = {name: Actor(name, port, self._hear) for name in (PHONE, LAPTOP, TABLET)}

    def start(self) -> None:
        """Begin; returns at once."""
        self._thread.start()

    def finish(self) -> list[str]:
        """End the story; what was expected of it and did not come, in words."""
        self._thread.join(PATIENCE_SECONDS)
        for actor in (self.service, *self.endpoints.values(), *([self.lamp] if self.lamp else [])):
            actor.leave()
        return self._missing

    def register(self, endpoint: str, keep_alive_seconds: int, *, reminder: bool = False) -> None:
        """Have the service register an endpoint."""
        self.service.ask(
            "register_endpoint",
            userId=USERS[endpoint],
            userEndpointId=endpoint,
            keepAliveSeconds=keep_alive_seconds,
            serverKeepAliveReminderOn=reminder,
        )

    def tell_session(self, kind: str, **fields: object) -> None:
        """Have the service publish a message of the present session."""
        self.service.tell(f"sessions/{self.session}", {"type": kind, "sessionUuid": self.session, **fields})

    def enter_or_leave(self, category: str, *endpoints: str) -> None:
        """Have endpoints say that they come to the room of the present session, or go."""
        for endpoint in endpoints:
            user = USERS[endpoint]
            event = {"category": category, "sender": {"_id": user}, "content": {"sessionId": endpoint}}
            self.endpoints[endpoint].tell(f"clients/{user}/rooms/{self.session}", event)

    def report(self, endpoint: str, **fields: object) -> None:
        """Have an endpoint's user report of itself in the present session."""
        self.endpoints[endpoint].tell(f"clients/{USERS[endpoint]}/sessions/{self.session}/status", fields)

    def mute(self, **params: object) -> None:
        """Have Ann mute, or ask for attention, in the present session."""
        self.service.ask("mute_participant", session=self.session, adminId="ann", **params)

    def _play(self) -> None:
        try:
            while not self._ended.is_set():
                if not self.rounds or self._end - time.monotonic() > ROUND_SECONDS:
                    self._play_round()
                self._wait(REST_SECONDS)
        except (OSError, TimeoutError, RuntimeError) as error:
            if not self._ended.is_set():
                self._missing.append(f"the story broke off: {error}")
                self._say(f"The story breaks off: {error}")

    def _play_round(self) -> None:
        if not self.rounds:
            clean_up(self)
        self.session = f"standup-{secrets.token_hex(3)}"
        self._seen.clear()
        for chapter in CHAPTERS:
            if self._ended.is_set():
                return
            self._say(f"\n{chapter.title}")
            with self._heard:
                self._open += chapter.expected
            self.expected += len(chapter.expected)
            chapter.act(self)
            self._wait(PATIENCE_SECONDS, lambda: not self._open)
            with self._heard:
                late, self._open = self._open, []
            if not self._ended.is_set() or time.monotonic() >= self._end:
                self._missing += map(str, late)
                for one in late:
                    self._say(f"{'':14}missing: {one}")
            self._wait(self._pause)
        self.rounds += 1

    def _wait(self, seconds: float, until: Callable[[], bool] = lambda: False) -> None:
        """Wait, keeping the two endpoints alive meanwhile."""
        end = time.monotonic() + seconds
        while not self._ended.is_set() and not until() and (left := end - time.monotonic()) > 0:
            if self.session and time.monotonic() >= self._keepalives_at:
                self._keepalives_at = time.monotonic() + KEEPALIVE_EVERY_SECONDS
                for endpoint in BOTH:
                    self.endpoints[endpoint].tell(f"users/endpoints/{endpoint}/keepalive")
            with self._heard:
                if not until():
                    self._heard.wait(min(left, 0.2))

    def _hear(self, endpoint: str, payload: bytes) -> None:
        try:
            event = json.loads(payload)
            copy = (endpoint, event["id"])
            line = f"{event['timestamp'][11:23]}  {endpoint:<10}  {event['type']:<34}  {in_words(event)}"
        except (ValueError, LookupError, TypeError, AttributeError):  # somebody's own, by sendEvent for example
            event, copy = {}, None
            line = f"{'':12}  {endpoint:<10}  {payload[:LONGEST_SHOWN_BYTES].decode(errors='replace')}"
        with self._heard:
            if copy in self._seen:
                return  # at least once: a copy of what was told already
            if copy is not None:
                self._seen.add(copy)
            found = next((one for one in self._open if one.fits(endpoint, event)), None)
            if found:
                self._open.remove(found)
            if self.session:  # else it is still cleaning up
                self._say(line)
            self._heard.notify_all()


def clean_up(story: Story) -> None:
    """Begin from nothing: end what a story that was broken off has left in the data folder."""
    for user in ("ann", "bob"):
        for session in story.service.ask("sessions_of", kind="user", uuid=user):
            story.service.tell(f"sessions/{session}", {"type": "StopSessionEvent", "sessionUuid": session})
        story.service.tell(f"presence/users/{user}", "offline")
    story.service.tell("presence/devices/desk-lamp", "offline")
    for endpoint in story.endpoints:
        held = story.service.ask("list_endpoints", userId=USERS[endpoint])
        if endpoint in [view["id"] for view in held]:
            story.service.ask("unregister_endpoint", userEndpointId=endpoint)


def sign_in(story: Story) -> None:
    """Both register where they can be reached."""
    for endpoint in BOTH:
        story.register(endpoint, KEEP_ALIVE_SECONDS)


def come_online(story: Story) -> None:
    """Both publish their presence."""
    for endpoint in BOTH:
        user = USERS[endpoint]
        story.endpoints[endpoint].tell(f"presence/users/{user}", {"type": "USER_CONNECTED", "userUuid": user})


def lamp_on(story: Story) -> None:
    """The lamp connects with a last will and says that it is there."""
    story.lamp = Actor("desk-lamp", story.port, will=("presence/devices/desk-lamp", "offline"))
    story.lamp.tell(
        "presence/devices/desk-lamp", {"type": "DEVICE_CONNECTED", "deviceUuid": "desk-lamp", "deviceName": "Desk lamp"}
    )


def mute_all(story: Story) -> None:
    """Ann is the call's admin and mutes everybody for good."""
    story.service.tell(f"sessions/{story.session}/participants/ann/status", {"roles": ["ADMIN"]})
    story.mute(muteAll=True, muteStates={"AUDIO": "MUTE_PERMANENT"})


def ask_bob(story: Story) -> None:
    """Bob raises his hand; Ann asks him to speak."""
    story.report(LAPTOP, handRaised=True)
    story.mute(participant="bob", requestedMedia=["AUDIO"])


def leave_call(story: Story) -> None:
    """Bob leaves the room and the call."""
    story.enter_or_leave("party.leaves", LAPTOP)
    story.tell_session("LeaveSessionEvent", leavingUsers=["bob"])


def stop_call(story: Story) -> None:
    """Ann leaves the room; the call is stopped."""
    story.enter_or_leave("party.leaves", PHONE)
    story.tell_session("StopSessionEvent")


def lamp_dies(story: Story) -> None:
    """The lamp's connection breaks without a word; the broker publishes its will."""
    assert story.lamp is not None
    story.lamp.vanish()


def go_offline(story: Story) -> None:
    """Both say goodbye."""
    for endpoint in BOTH:
        user = USERS[endpoint]
        story.endpoints[endpoint].tell(f"presence/users/{user}", {"type": "USER_DISCONNECTED", "userUuid": user})


def _to(endpoints: tuple[str, ...], event_type: str, /, **fields: object) -> tuple[Expected, ...]:
    return tuple(Expected(endpoint, event_type, fields) for endpoint in endpoints)


CHAPTERS = (
    Chapter("Ann registers her phone, Bob his laptop.", sign_in),
    Chapter(
        "Ann and Bob come online.",
        come_online,
        (
            *_to(BOTH, "UserPresenceChangedEvent", uuid="ann", online=True, cause="connected"),
            *_to(BOTH, "UserPresenceChangedEvent", uuid="bob", online=True, cause="connected"),
        ),
    ),
    Chapter(
        "The lamp is switched on.",
        lamp_on,
        _to(BOTH, "DevicePresenceChangedEvent", uuid="desk-lamp", online=True, cause="connected"),
    ),
    Chapter(
        "The lamp publishes its status.",
        lambda story: story.lamp.tell("presence/devices/desk-lamp/status", {"brightness": 80}) if story.lamp else None,
        _to(BOTH, "DeviceStatusChangedEvent", uuid="desk-lamp", status={"brightness": 80}),
    ),
    Chapter(
        "A service starts a call: Ann invites Bob.",
        lambda story: story.tell_session(
            "JoinSessionEvent", sessionCreatorName="Ann", sessionUsers=["ann", "bob"], joinMsg="Stand-up"
        ),
        (
            *_to(BOTH, "JoinSessionEvent"),
            *_to(BOTH, "UserPresenceChangedEvent", uuid="ann", busy=True, cause="session_joined"),
            *_to(BOTH, "UserPresenceChangedEvent", uuid="bob", busy=True, cause="session_joined"),
        ),
    ),
    Chapter(
        "Bob accepts.",
        lambda story: story.tell_session("JoinSessionReplyEvent", userUuid="bob", joinReply="REPLY_ACCEPTED"),
        _to((PHONE,), "JoinSessionReplyEvent", userUuid="bob"),
    ),
    Chapter(
        "Both enter the room of the call.",
        lambda story: story.enter_or_leave("party.online", PHONE, LAPTOP),
        (
            *_to(BOTH, "RoomPartiesListedEvent"),
            *_to((PHONE,), "RoomPresenceChangedEvent", cause="joined"),
        ),
    ),
    Chapter(
        "Ann, the admin, mutes all. It locks Bob's microphone, and not hers.",
        mute_all,
        (
            *_to((PHONE,), "CallPermissionsChangedEvent", kind="global", participantId="ann", devicesOff=[]),
            *_to((LAPTOP,), "CallPermissionsChangedEvent", kind="global", participantId="bob", devicesOff=["AUDIO"]),
        ),
    ),
    Chapter(
        "Bob raises his hand. Ann asks him to speak, which lets him do so once.",
        ask_bob,
        (
            *_to((LAPTOP,), "CallPermissionsChangedEvent", kind="once", participantId="bob"),
            *_to((LAPTOP,), "MediaAttentionRequestedEvent", participantId="bob", handLowered=True),
            *_to((PHONE,), "CallPermissionsChangedEvent", kind="participant", participantId="bob"),
        ),
    ),
    Chapter(
        "Bob turns his microphone on: that was the once.",
        lambda story: story.report(LAPTOP, mediaSettings={"isAudioEnabled": True}),
        (
            *_to((LAPTOP,), "CallPermissionsChangedEvent", kind="once", cause="grant_used"),
            *_to((PHONE,), "CallPermissionsChangedEvent", kind="participant", cause="grant_used"),
        ),
    ),
    Chapter(
        "Bob leaves the call.",
        leave_call,
        (
            *_to((PHONE,), "RoomPresenceChangedEvent", cause="left"),
            *_to(BOTH, "LeaveSessionEvent"),
            *_to(BOTH, "UserPresenceChangedEvent", uuid="bob", busy=False, cause="session_left"),
        ),
    ),
    Chapter(
        "The service stops the call.",
        stop_call,
        (
            *_to((PHONE,), "StopSessionEvent"),
            *_to(BOTH, "UserPresenceChangedEvent", uuid="ann", busy=False, cause="session_stopped"),
        ),
    ),
    Chapter(
        "Ann registers a tablet for 3 s, which then never keeps itself alive.",
        lambda story: story.register(TABLET, 3, reminder=True),
        (
            *_to((PHONE,), "UserEndpointRegisteredEvent", userEndpointId=TABLET),
            *_to((TABLET,), "UserEndpointKeepAliveReminderEvent", userEndpointId=TABLET),
            *_to((PHONE,), "UserEndpointStateChangedEvent", userEndpointId=TABLET, state="SICK"),
            *_to((PHONE, TABLET), "UserEndpointExpiredEvent", userEndpointId=TABLET),
        ),
    ),
    Chapter(
        "The lamp loses its power: its connection breaks without a word.",
        lamp_dies,
        _to(BOTH, "DevicePresenceChangedEvent", uuid="desk-lamp", online=False, cause="disconnected"),
    ),
    Chapter(
        "Ann and Bob go offline.",
        go_offline,
        (
            *_to(BOTH, "UserPresenceChangedEvent", uuid="ann", online=False, cause="disconnected"),
            *_to(BOTH, "UserPresenceChangedEvent", uuid="bob", online=False, cause="disconnected"),
        ),
    ),
)
