"""Secrets: what the bridge is trusted with stands nowhere but where it is used, whatever goes wrong.

Not in the log at ``debug``, in an answer, in metrics, in what the commands print, in what the bridge publishes or
keeps, and not in the list of processes.
"""

import base64
import os
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from redis import Redis

from tests.integration.stack import ROOT, Bridge, Client
from tests.servers import MosquittoServer, RedisServer, free_port
from tests.unit.adapters.http.identity import now, token

API = "/rtc-api/users/endpoints"
PATIENCE_SECONDS = 40.0  # usually a second; the longest wait of the bridge is one of 10 s

BROKER_PASSWORD = "canary-broker-5f1c9a"
REDIS_PASSWORD = "canary-redis-77be02"
JWT_SECRET = "canary-jwt-" + "e4" * 32
CLIENT_ID = "canary-client-id-d81e40"
USER_PASSWORD = "canary-of-ann-03a7"
SECRETS = {
    "the broker's password": BROKER_PASSWORD,
    "Redis' password": REDIS_PASSWORD,
    "the shared secret of tokens": JWT_SECRET,
    "the client id": CLIENT_ID,
    "a user's password": USER_PASSWORD,
}


def forms(secret: str) -> list[bytes]:
    """A secret as it is, and what base64 makes of its inside wherever it begins."""
    text = secret.encode()
    return [text, *(base64.b64encode(b" " * shift + text)[4:-4] for shift in range(3))]


def expect_none(secrets: dict[str, str], sinks: dict[str, bytes]) -> None:
    for sink, text in sinks.items():
        assert text, f"{sink} is empty: nothing can be found there"
        for name, secret in secrets.items():
            for form in forms(secret):
                at = text.find(form)
                assert at < 0, f"{name} stands in {sink}: {text[max(at - 300, 0) : at + 80]!r}"


def set_password(passwords: Path, user: str, password: str) -> None:
    subprocess.run(["mosquitto_passwd", "-b", passwords, user, password], check=True)


class House:
    """Redis and Mosquitto that ask for passwords, ``world`` that hears everything, and the settings of a bridge."""

    def __init__(self, folder: Path, redis: RedisServer, broker: MosquittoServer, world: Client) -> None:
        self.folder, self.redis, self.broker, self.world = folder, redis, broker, world
        self.passwords = folder / "broker" / "passwords"
        secrets = folder / "secrets"
        secrets.mkdir()
        for name, secret in (
            ("mqtt.password", BROKER_PASSWORD),
            ("mqtt.client_id", CLIENT_ID),
            ("redis.url", f"redis://:{REDIS_PASSWORD}@127.0.0.1:{redis.port}/0"),
            ("auth.secret", JWT_SECRET),
        ):
            (secrets / name).write_text(secret)
        self.settings = {
            "NAME": "b1",
            "MQTT__PORT": str(broker.port),
            "MQTT__USERNAME": "bridge",
            "HTTP__PORT": str(free_port()),
            "AUTH__MODE": "jwt",
            "AUTH__ALGORITHMS": '["HS256"]',
            "AUTH__TOKEN_ENDPOINT": "true",
            "AUDIT__ENABLED": "true",
            "LOG__LEVEL": "debug",
            "SECRETS": str(secrets),
        }

    def environment(self, changes: dict[str, str]) -> dict[str, str]:
        given = {f"ENDPOINT_BRIDGE_{name}": value for name, value in (self.settings | changes).items()}
        return {**os.environ, "PYTHONPATH": str(ROOT), **given}

    def printed(self, command: str, **changes: str) -> tuple[int, bytes]:
        """Exit code of a command, and all that it prints."""
        done = subprocess.run(
            [sys.executable, "-m", "bridge", command],
            env=self.environment(changes),
            cwd=self.folder,
            capture_output=True,
            timeout=PATIENCE_SECONDS,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr

    def log_of_a_run(self, wanted: str, program: tuple[str, ...] = ("-m", "bridge"), **changes: str) -> bytes:
        """What ``run`` writes until it has written a text."""
        path = self.folder / "log"
        with path.open("wb") as log:
            command, environment = [sys.executable, *program, "run"], self.environment({"HTTP__PORT": "0"} | changes)
            running = subprocess.Popen(command, env=environment, cwd=self.folder, stdout=log, stderr=log)
        try:
            until(lambda: wanted in path.read_text() or running.poll() is not None, lambda: path.read_text())
        finally:
            running.kill()
            running.wait(PATIENCE_SECONDS)
        assert wanted in path.read_text(), path.read_text()
        return path.read_bytes()


def until(is_so: Callable[[], bool], seen: Callable[[], str]) -> None:
    end = time.monotonic() + PATIENCE_SECONDS
    while not is_so():
        assert time.monotonic() < end, seen()
        time.sleep(0.02)


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("secrets")
    (folder / "broker").mkdir()
    passwords = folder / "broker" / "passwords"
    passwords.touch()
    set_password(passwords, "bridge", BROKER_PASSWORD)
    set_password(passwords, "world", "of the test")
    with (
        RedisServer(folder / "redis", options=("--requirepass", REDIS_PASSWORD)) as redis,
        MosquittoServer(folder / "broker", anonymous=False, extra=f"password_file {passwords}") as broker,
    ):
        world = Client(broker.port, login=("world", "of the test"), durable=True)
        world.subscribe("#")
        try:
            yield House(folder, redis, broker, world)
        finally:
            world.close()


@pytest.mark.timeout(180)
@pytest.mark.parametrize("form", ["console", "json"])
def test_a_bridge_to_which_everything_happens_tells_no_secret(house: House, form: str) -> None:
    secrets = dict(SECRETS)
    mark = house.world.mark()
    with Bridge(house.folder / f"bridge-{form}", house.world, {**house.settings, "LOG__FORMAT": form}) as bridge:
        with httpx.Client(base_url=bridge.http_url, timeout=PATIENCE_SECONDS) as web:
            answers = welcome(web, secrets)
            answers += refused(web, secrets)
            assert {answer.status_code for answer in answers} == {200, 400, 401, 403, 404, 405, 415}
        for stray in (secrets["an access token"], secrets["a session token"], BROKER_PASSWORD):
            for topic in ("rpc/send_event", "presence/users/ann", "sessions/s", "rpc/nonsense"):
                house.world.send(topic, b"{" + stray.encode())
        until(lambda: b"unknown_method" in published(house, mark), lambda: repr(house.world.messages[-5:]))
        assert house.printed("doctor")[0] == 0
        doctor = house.printed("doctor")[1]
        redis_refuses(house, bridge)
        broker_refuses(house, bridge)
        assert bridge.process is not None
        processes = listed(bridge.process.pid)
    log, heard = bridge.log.encode(), published(house, mark)
    assert b"WRONGPASS" in log
    assert b"refused the connection: not authorized" in log
    assert b"/rooms/*" in log
    sinks = {
        "the log": log,
        "HTTP's answers": b"".join(repr(answer.headers).encode() + answer.content for answer in answers),
        "the list of processes": processes,
        "what doctor prints": doctor,
    }
    expect_none(secrets, sinks)
    kept = b"".join(path.read_bytes() for path in (house.folder / "redis").rglob("*.aof"))
    room = secrets.pop("the token of a room").encode()  # who is in it hears it, and the room's record bears it
    assert room in heard
    assert room in kept
    expect_none(secrets, {"what it published": heard, "what Redis keeps": kept})


def published(house: House, mark: int) -> bytes:
    """What the bridge said; the test's own words left out."""
    topics = ("bridge/", "users/endpoints/", "replies/")
    return b"".join(m.payload for m in house.world.messages[mark:] if m.topic.startswith(topics))


def welcome(web: httpx.Client, secrets: dict[str, str]) -> list[httpx.Response]:
    """Let ann log in, register, and open a room that a guest joins; their tokens are secrets from now on."""
    form = {"grant_type": "password", "username": "ann", "password": USER_PASSWORD}
    tokens = web.post("/rtc-api/security/oauth/token", data=form).json()
    secrets |= {"an access token": tokens["access_token"], "a refresh token": tokens["refresh_token"]}
    for name in ("an access token", "a refresh token"):
        secrets[f"the signature of {name}"] = secrets[name].rpartition(".")[2]
    ann = {"Authorization": f"Bearer {tokens['access_token']}"}
    answer = web.post(API, json={"keepAliveSeconds": 600}, headers=ann)
    assert answer.status_code == 200, answer.text
    room = web.post("/rooms", json={"roomName": "Tea", "maxSize": 3}, headers=ann).json()["roomToken"]
    joined = web.post(f"/rooms/{room}", json={"action": "join", "displayName": "guest", "clientMaxSize": 3}).json()
    secrets |= {"the token of a room": room, "a session token": joined["sessionToken"]}
    secrets["the secret of a session token"] = joined["sessionToken"].removeprefix(joined["roomConnectionId"])[1:]
    refreshed = web.post(f"/rooms/{room}", json={"action": "refresh"}, headers=basic(joined["sessionToken"]))
    assert refreshed.status_code == 200, refreshed.text
    open_to_all = [web.get(path) for path in ("/metrics", "/readyz", "/healthz", "/openapi.json")]
    return [answer, *open_to_all]


def basic(session_token: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{session_token}:".encode()).decode()}


def refused(web: httpx.Client, secrets: dict[str, str]) -> list[httpx.Response]:
    """Show tokens and passwords that do not count, in wrong places and in wrong forms."""
    access, session, room = (secrets[name] for name in ("an access token", "a session token", "the token of a room"))
    ann = {"Authorization": f"Bearer {access}"}
    headers = [
        {"Authorization": f"Bearer {wrong}"}
        for wrong in (
            access + "x",
            access[:-20],
            secrets["a refresh token"],
            JWT_SECRET,
            token(JWT_SECRET + "x", "HS256", JWT_SECRET),
            token(JWT_SECRET, "HS256", None, exp=now() - 3600, sub=BROKER_PASSWORD),
            token(JWT_SECRET, "HS512", None),
            token(JWT_SECRET, "HS256", None, scope=REDIS_PASSWORD),
            token(JWT_SECRET, "HS256", None, sub=f"a/{USER_PASSWORD}"),
        )
    ]
    headers += [basic(session), basic(session + "x"), {"Authorization": f"Basic {session}"}, {"Authorization": access}]
    rooms = [{"action": "refresh"}, {"action": session}, {"action": "join", session: session}]
    return [
        *(web.post(API, json={"keepAliveSeconds": 600}, headers=one) for one in headers),
        *(web.post("/rpc/list_endpoints", headers=one) for one in headers),
        *(web.get(f"/rooms/{room}", headers=one) for one in headers[:9]),
        *(web.post(f"/rooms/{room}", json=one, headers=basic(session[:-1])) for one in rooms),
        web.put(f"/rooms/{room}", headers=ann),
        web.get(f"/rooms/{session}", headers=ann),
        web.get(API, params={"access_token": access}),
        web.post("/rpc/list_endpoints", params={"access_token": access}, headers=ann, content=access.encode()),
        web.post("/rpc/list_endpoints", headers=ann, json={"userId": 5, access: access}),
        web.post(API, headers=ann, json={"keepAliveSeconds": access}),
        web.post("/rtc-api/security/oauth/token", data={"grant_type": USER_PASSWORD, "password": USER_PASSWORD}),
        web.post("/rtc-api/security/oauth/token", data={"grant_type": "refresh_token", "refresh_token": access}),
        web.post("/rtc-api/security/oauth/token", params={"password": USER_PASSWORD}, data={"username": "a/"}),
    ]


def redis_refuses(house: House, bridge: Bridge) -> None:
    """Let its password be another one for a while, and let it be away."""
    with Redis(port=house.redis.port, password=REDIS_PASSWORD) as admin:
        admin.config_set("requirepass", "another")
        admin.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        until(lambda: "WRONGPASS" in bridge.log, lambda: bridge.log)
        admin.config_set("requirepass", REDIS_PASSWORD)
    until(lambda: bridge.log.count("Redis answers again") == 1, lambda: bridge.log)
    house.redis.stop()
    until(lambda: bridge.log.count("Redis is away") == 2, lambda: bridge.log)
    house.redis.start()
    until(lambda: bridge.log.count("Redis answers again") == 2, lambda: bridge.log)


def broker_refuses(house: House, bridge: Bridge) -> None:
    """Let the bridge's password be another one for a while, and let the broker be away."""
    assert house.broker.process is not None
    set_password(house.passwords, "bridge", "another")
    house.broker.process.send_signal(1)  # SIGHUP: the passwords are read again, and who has an old one is cut off
    until(lambda: "refused the connection: not authorized" in bridge.log, lambda: bridge.log)
    set_password(house.passwords, "bridge", BROKER_PASSWORD)
    online = bridge.states().count("online")
    house.broker.restart()
    until(lambda: bridge.states().count("online") > online, lambda: bridge.log)


def listed(pid: int) -> bytes:
    """Arguments and environment of a process and of all that it started."""
    found = b"".join(Path(f"/proc/{pid}/{what}").read_bytes() for what in ("cmdline", "environ"))
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return found + b"".join(listed(int(child)) for child in children)


class Parrot(socketserver.BaseRequestHandler):
    """Answers whatever it is sent, repeated, as a refusal of Redis or as it came."""

    def handle(self) -> None:
        while heard := self.request.recv(65_536):
            if heard.startswith(b"*"):
                words = b" ".join(heard.split(b"\r\n"))
                heard = b"-ERR unknown command 'AUTH', with args beginning with: " + words + b"\r\n"
            self.request.sendall(heard)


@contextmanager
def parrot() -> Iterator[str]:
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Parrot) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, name="parrot").start()
        try:
            yield str(server.server_address[1])
        finally:
            server.shutdown()


@pytest.mark.timeout(180)
def test_servers_that_refuse_or_repeat_the_password_make_nobody_tell_it(house: House, tmp_path: Path) -> None:
    """Here the passwords come from the environment."""
    given = {"SECRETS": str(tmp_path), "AUTH__MODE": "none", "AUTH__ALGORITHMS": '["RS256"]'}
    given |= {"MQTT__PASSWORD": BROKER_PASSWORD, "MQTT__CLIENT_ID": CLIENT_ID}

    def redis_at(port: str) -> dict[str, str]:
        return {**given, "REDIS__URL": f"redis://bridge:{REDIS_PASSWORD}@127.0.0.1:{port}/0"}

    def doctor(**changes: str) -> bytes:
        code, text = house.printed("doctor", **changes)
        assert code == 1, text.decode()
        return text

    closed = str(free_port())
    with (
        parrot() as port,
        RedisServer(house.folder / "without-auth", options=("--rename-command", "AUTH", "")) as without_auth,
    ):
        other = str(without_auth.port)
        sinks = {
            "doctor, wrong password": doctor(**redis_at(closed) | {"MQTT__PASSWORD": f"{BROKER_PASSWORD}x"}),
            "doctor, nobody there": doctor(**redis_at(closed), MQTT__PORT=closed),
            "doctor, before parrots": doctor(**redis_at(port), MQTT__PORT=port),
            "doctor, before a Redis without AUTH": doctor(**redis_at(other), MQTT__PORT=closed),
            "run, before a parrot for Redis": house.log_of_a_run("Redis is away", **redis_at(port)),
            "run, before a Redis without AUTH": house.log_of_a_run("Redis is away", **redis_at(other)),
            "run, before a parrot for a broker": house.log_of_a_run("Connecting again", MQTT__PORT=port),
        }
    assert b"unknown command" in sinks["run, before a Redis without AUTH"]
    expect_none(SECRETS, sinks)


BUG = """
import sys
import bridge.adapters.mqtt.session as session
import bridge.cli

def connect_packet(settings):
    username, password, text = settings.username, settings.password, settings.password.encode()
    raise RuntimeError("a bug")

session.connect_packet = connect_packet
bridge.cli.main()
"""


@pytest.mark.parametrize("form", ["console", "json"])
def test_a_crash_tells_no_secret(house: House, form: str) -> None:
    log = house.log_of_a_run("a bug or an unexpected answer", ("-c", BUG), LOG__FORMAT=form)
    assert b"connect_packet" in log
    assert b"RuntimeError" in log
    expect_none(SECRETS, {"the log of a crash": log})


def test_the_settings_are_shown_without_secrets(house: House) -> None:
    code, shown = house.printed("show-config")
    assert code == 0, shown.decode()
    assert shown.count(b"(hidden)") == 4
    code, checked = house.printed("check-config", MQTT__PORT="x", REDIS__TIMEOUT_SECONDS="y", AUTH__MODE="z")
    assert code == 2
    expect_none(SECRETS, {"show-config": shown, "check-config": checked})
