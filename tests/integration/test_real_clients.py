"""Clients as they are out there, with their own habits, replayed on the wire: reference "endpoint API".

One is written with paho and httpx, one in Node with `mqtt` and `fetch`. Both: a token by password, an id of their own,
MQTT over WebSocket with the token as password, the same client id on every device and no will, SUBSCRIBE at QoS 1 whose
SUBACK is waited for, keepalives over HTTP, a planned flap when the token is renewed, a new id after a sleep that was
too long, and a farewell.
"""

import re
import secrets
import shutil
import subprocess
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from tests.integration.stack import PATIENCE_SECONDS, Message, Stack, stack
from tests.servers import free_port
from tests.unit.adapters.http.identity import SECRET

API = "/rtc-api/users/endpoints"
ALIVE_SECONDS = 60  # where nothing is to expire, however slow the machine is
# Its parser takes nothing else.
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
TEMPLATES = ("users/endpoints/{endpoint}", "user/{user}/{endpoint}")
MQTT_JS = "mqtt@5.16.0"


@pytest.fixture(scope="module", params=TEMPLATES)
def open_house(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator["House"]:
    folder = tmp_path_factory.mktemp("clients")
    (folder / "secrets").mkdir()
    (folder / "secrets" / "auth.secret").write_text(SECRET)
    websocket = free_port()
    with stack(
        folder,
        hears=("bridge/#",),
        broker_lines=f"listener {websocket}\nprotocol websockets",
        HTTP__PORT=str(free_port()),
        HTTP__EMPTY_ERROR_BODIES="true",
        AUTH__MODE="jwt",
        AUTH__ALGORITHMS='["HS256"]',
        AUTH__TOKEN_ENDPOINT="true",
        SECRETS=str(folder / "secrets"),
        TOPICS__ENDPOINT=request.param,
    ) as found:
        yield House(found, websocket, request.param)


class House:
    """The stack with its WebSocket listener, and a service that sends events."""

    def __init__(self, found: Stack, websocket: int, template: str) -> None:
        self.stack = found
        self.websocket = websocket
        self.template = template
        self._web = found.web()
        form = {"grant_type": "client_credentials", "client_id": "sender"}
        token = self._web.post("/rtc-api/security/oauth/token", data=form).json()["access_token"]
        self._web.headers["Authorization"] = f"Bearer {token}"

    def topic(self, user: str, endpoint: str) -> str:
        return self.template.replace("{user}", user).replace("{endpoint}", endpoint)

    def send(self, user: str, **fields: Any) -> dict[str, str]:
        """Send an event to all endpoints of a user; returns what became of each copy."""
        event = {"type": "MessageArrivedEvent", "timestamp": "2026-01-02T03:04:05.678Z", **fields}
        body = {"event": event, "userId": user, "organizationId": "default", "qos": 1}
        answer = self._web.post(f"{API}/sendEvent", params={"outcomes": "true"}, json=body)
        assert answer.status_code == 200, answer.text
        return {each["userEndpointId"]: each["outcome"] for each in answer.json()}

    def endpoints(self, user: str) -> dict[str, str]:
        """A user's endpoints and their states."""
        return {view["id"]: view["state"] for view in self._web.get(API, params={"userId": user}).json()}


class App:
    """The public client on one device. Its MQTT client id is that of its user, on every device."""

    def __init__(self, house: House, user: str) -> None:
        self.house, self.user = house, user
        self.messages: list[Message] = []
        self.endpoint = ""
        self.connections = 0
        self._heard = threading.Condition()
        self._web = house.stack.web()
        self._mqtt: paho.Client | None = None
        self._renew({"grant_type": "password", "username": user, "password": "secret of hers"})

    # What it does over HTTP.

    def _renew(self, form: dict[str, str]) -> None:
        answer = self._web.post("/rtc-api/security/oauth/token", data=form)
        assert answer.status_code == 200
        self._tokens = answer.json()
        assert self._tokens["token_type"] == "bearer"
        self._web.headers["Authorization"] = f"Bearer {self._tokens['access_token']}"

    def register(self, seconds: int = ALIVE_SECONDS, endpoint: str = "") -> None:
        """Register an id of its own making, or again; it takes nothing but 200 with the id as a JSON string."""
        self.endpoint = endpoint or str(uuid.uuid4()).upper()
        body = {"keepAliveSeconds": seconds, "userId": self.user, "userEndpointId": self.endpoint}
        answer = self._web.post(API, json=body)
        assert (answer.status_code, answer.json()) == (200, self.endpoint)

    def keep_alive(self) -> bool:
        """Whether it is still known. What comes with a body that is JSON it takes for success, whatever the status."""
        body = {"userId": self.user, "userEndpointId": self.endpoint}
        answer = self._web.post(f"{API}/keepalive", json=body)
        assert answer.content == b""
        assert answer.status_code in (204, 404)
        return answer.status_code == 204

    def log_out(self) -> None:
        body = {"userId": self.user, "userEndpointId": self.endpoint, "reason": "User logout"}
        answer = self._web.post(f"{API}/unregister", json=body)
        assert (answer.status_code, answer.content) == (204, b"")
        self.disconnect()

    # What it does over MQTT.

    def connect(self) -> Self:
        """Connect over WebSocket and subscribe; returns once the SUBACK is there."""
        client = paho.Client(
            CallbackAPIVersion.VERSION2, self.user, protocol=paho.MQTTv311, transport="websockets", clean_session=True
        )
        client.ws_set_options(path="/ws")
        client.username_pw_set(self.user, self._tokens["access_token"])
        client.reconnect_delay_set(1, 1)
        granted: list[int] = []

        def connected(client: paho.Client, *_: Any) -> None:
            client.subscribe(self.house.topic(self.user, self.endpoint), qos=1)

        def subscribed(_client: paho.Client, _userdata: object, _mid: int, codes: Any, _properties: object) -> None:
            with self._heard:
                granted.extend(code.value for code in codes)
                self.connections += 1
                self._heard.notify_all()

        client.on_connect, client.on_subscribe, client.on_message = connected, subscribed, self._on_message
        client.connect("127.0.0.1", self.house.websocket)
        client.loop_start()
        self._mqtt = client
        self.until(lambda: granted, "SUBACK")
        assert granted[0] == 1
        return self

    def disconnect(self) -> None:
        if self._mqtt is not None:
            self._mqtt.disconnect()
            self._mqtt.loop_stop()
            self._mqtt = None

    def refresh(self) -> None:
        """Renew the token shortly before its end and come back with it: a planned flap."""
        self._renew({"grant_type": "refresh_token", "refresh_token": self._tokens["refresh_token"]})
        self.disconnect()
        self.connect()

    def resume(self) -> None:
        """Come back from the background: a keepalive first, and a new id where that fails."""
        if not self.keep_alive():
            self.register()
        self.connect()

    def _on_message(self, _client: paho.Client, _userdata: object, found: paho.MQTTMessage) -> None:
        message = Message(found.topic, found.payload, found.qos, found.retain, {}, None, time.monotonic(), found.dup)
        with self._heard:
            self.messages.append(message)
            self._heard.notify_all()

    def until(self, is_so: Any, what: str, seconds: float = PATIENCE_SECONDS) -> Any:
        with self._heard:
            found = self._heard.wait_for(is_so, seconds)
            assert found, f"not within {seconds} s: {what}; heard {self.messages[-5:]}"
            return found

    def expect(self, event_type: str, **fields: Any) -> Message:
        def there() -> Message | None:
            fits = (m for m in self.messages if m.type == event_type and fields.items() <= m.json.items())
            return next(fits, None)

        found: Message = self.until(there, f"{event_type} {fields}")
        assert TIME.fullmatch(found.json["timestamp"])
        assert found.qos == 1
        return found


@pytest.fixture
def apps(open_house: House) -> Iterator[Any]:
    made: list[App] = []

    def make(user: str) -> App:
        made.append(App(open_house, user))
        return made[-1]

    yield make
    for app in made:
        app.disconnect()


def anybody() -> str:
    return f"ann-{secrets.token_hex(4)}"


def test_from_log_in_to_log_out(open_house: House, apps: Any) -> None:
    user = anybody()
    phone, laptop = apps(user), apps(user)
    phone.register(seconds=4)
    laptop.register(seconds=4)
    phone.connect()
    assert open_house.send(user, number=1) == {phone.endpoint: "acknowledged", laptop.endpoint: "no_subscriber"}
    phone.expect("MessageArrivedEvent", number=1)

    # Keepalives over HTTP, for longer than the endpoint lives.
    end = time.monotonic() + 5
    while time.monotonic() < end:
        assert phone.keep_alive()
        time.sleep(0.2)
    phone.expect("UserEndpointExpiredEvent", userEndpointId=laptop.endpoint)
    assert open_house.endpoints(user) == {phone.endpoint: "HEALTHY"}

    phone.register(endpoint=phone.endpoint)

    # A planned flap: the endpoint is none the worse, and hears again once it is back.
    before = [m.type for m in phone.messages]
    phone.refresh()
    assert phone.keep_alive()
    assert open_house.send(user, number=2) == {phone.endpoint: "acknowledged"}
    phone.expect("MessageArrivedEvent", number=2)
    assert [m.type for m in phone.messages] == [*before, "MessageArrivedEvent"]

    # The farewell is told to the others.
    laptop.register()
    laptop.connect()
    phone.disconnect()
    phone.log_out()
    told = laptop.expect("UserEndpointUnregisteredEvent", userEndpointId=phone.endpoint)
    assert told.json["reason"] == "User logout"
    assert open_house.endpoints(user) == {laptop.endpoint: "HEALTHY"}


def test_who_slept_too_long_comes_back_under_a_new_id(open_house: House, apps: Any) -> None:
    user = anybody()
    phone = apps(user)
    phone.register(seconds=1)
    phone.connect()
    old = phone.endpoint
    phone.disconnect()  # into the background, without a word over HTTP
    end = time.monotonic() + PATIENCE_SECONDS
    while open_house.endpoints(user):
        assert time.monotonic() < end
        time.sleep(0.1)
    assert open_house.send(user) == {}
    phone.resume()
    assert phone.endpoint != old
    assert open_house.send(user, number=1) == {phone.endpoint: "acknowledged"}
    phone.expect("MessageArrivedEvent", number=1)

    # A short sleep keeps the id.
    kept = phone.endpoint
    phone.disconnect()
    phone.resume()
    assert phone.endpoint == kept


def test_two_devices_with_one_client_id_throw_each_other_out_and_stay_known(open_house: House, apps: Any) -> None:
    user = anybody()
    phone, tablet = apps(user), apps(user)
    for app in (phone, tablet):
        app.register()
        app.connect()
    # Each connection of one ends the other's, which comes back after a second: neither endpoint suffers by it.
    phone.until(lambda: phone.connections + tablet.connections >= 4, "they throw each other out")
    for app in (phone, tablet):
        assert app.keep_alive()
    assert open_house.endpoints(user) == {phone.endpoint: "HEALTHY", tablet.endpoint: "HEALTHY"}
    tablet.disconnect()
    assert phone.keep_alive()
    phone.disconnect()
    phone.connect()
    assert open_house.send(user, number=1)[phone.endpoint] == "acknowledged"
    phone.expect("MessageArrivedEvent", number=1)
    assert not [m for m in phone.messages if m.type in ("UserPresenceChangedEvent", "UserEndpointExpiredEvent")]


def test_nobody_else_can_have_its_id_or_its_words(open_house: House, apps: Any) -> None:
    ann, eve = apps(anybody()), apps(anybody())
    ann.register()
    ann.connect()
    eve.endpoint = ann.endpoint
    body = {"keepAliveSeconds": 15, "userEndpointId": ann.endpoint}
    refused = eve._web.post(API, json=body)
    assert (refused.status_code, refused.content) == (409, b"")
    for path, more in (("keepalive", {}), ("unregister", {"reason": "bye"})):
        answer = eve._web.post(f"{API}/{path}", json={"userEndpointId": ann.endpoint, **more})
        assert answer.status_code == 403
        answer = eve._web.post(f"{API}/{path}", json={"userEndpointId": ann.endpoint, "userId": ann.user, **more})
        assert answer.status_code == 403
    assert open_house.endpoints(ann.user) == {ann.endpoint: "HEALTHY"}


# Node.


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with mqtt.js; the test is skipped where it cannot be had."""
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    folder = tmp_path_factory.mktemp("node")
    install = ["npm", "install", "--no-save", "--ignore-scripts", "--no-audit", "--no-fund", "--silent", MQTT_JS]
    try:
        done = subprocess.run(install, cwd=folder, capture_output=True, text=True, timeout=50, check=False)
    except subprocess.TimeoutExpired:
        pytest.skip(f"npm install {MQTT_JS} takes too long")
    if done.returncode:
        pytest.skip(f"npm install {MQTT_JS} fails: {done.stderr.strip()[-200:]}")
    shutil.copy(Path(__file__).with_name("client.mjs"), folder)
    return folder


@pytest.mark.timeout(120)
@pytest.mark.parametrize("open_house", TEMPLATES[1:], indirect=True)
def test_the_same_in_node(open_house: House, node: Path) -> None:
    http = open_house.stack.bridge.http_url
    websocket = f"ws://127.0.0.1:{open_house.websocket}/ws"
    done = subprocess.run(
        ["node", "client.mjs", http, websocket, open_house.template, anybody()],
        cwd=node,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}{done.stderr}"
    assert done.stdout.splitlines()[-1] == "done", done.stdout
