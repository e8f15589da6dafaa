"""The work ``peers``: what somebody would write instead of the bridge, on the same broker and the same Redis.

Each peer is a short honest program of this folder, written as its libraries' documentation shows: it takes the status
document, keeps it in Redis, finds the user's endpoints, and tells each. None of them has what the bridge promises: they
acknowledge their input before its effect is kept, have no journal, no expiry, and no rules.
"""

import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from scripts.load.extras import node_packages, python_packages
from scripts.load.figures import Round, disordered, latencies, lost, medians, rates, ratio
from scripts.load.house import feed, registrations
from scripts.load.relay import route
from scripts.load.rounds import PLAIN, Variant, relay, run_rounds, status_events
from scripts.load.stand import PRIMARY, Stand, find_program, free_port
from scripts.load.work import Plan, Result, Verdict

HERE = Path(__file__).parent
LUA = HERE / "status.lua"
START_SECONDS = 60

METHOD = """\
The work of `relay`, done by what somebody would write instead: the programs of `scripts/load/peers`, each as its
libraries' documentation shows. They keep the document in Redis, find the user's endpoints there and tell each by an
event like the bridge's; Node-RED, mqtt.js and aiomqtt by one Lua call, paho by one transaction for each message. They
acknowledge an input before its effect is kept. 512 messages are on their way at once, 64 with the two in Python, which
are no faster with more. Then, at QoS 1, the latency at half of each one's own maximum."""


class Peer(NamedTuple):
    """A program to compare with.

    Attributes:
        name: in words.
        least: how many times its rate the bridge shall have.
        window: messages on their way at once.
        start: from the stand, the QoS and the topic prefix to the command and its environment.
    """

    name: str
    least: float
    window: int
    start: Callable[[Stand, int, str], tuple[Sequence[str], Mapping[str, str]]]


def _python(script: str) -> Callable[[Stand, int, str], tuple[Sequence[str], Mapping[str, str]]]:
    def start(stand: Stand, qos: int, prefix: str) -> tuple[Sequence[str], Mapping[str, str]]:
        packages = python_packages(HERE / "python.lock")
        arguments = map(str, (stand.mqtt_port, stand.redis_port, qos, prefix))
        return [sys.executable, str(HERE / script), *arguments], {"PYTHONPATH": str(packages)}

    return start


def _mqttjs(stand: Stand, qos: int, prefix: str) -> tuple[Sequence[str], Mapping[str, str]]:
    packages = node_packages(HERE / "mqttjs") / "node_modules"
    arguments = map(str, (stand.mqtt_port, stand.redis_port, qos, prefix, LUA))
    return [str(find_program("node")), str(HERE / "mqttjs" / "peer.js"), *arguments], {"NODE_PATH": str(packages)}


def _node_red(stand: Stand, qos: int, prefix: str) -> tuple[Sequence[str], Mapping[str, str]]:
    source, packages = HERE / "node_red", node_packages(HERE / "node_red")
    environment = {
        "UI_PORT": str(free_port()),
        "MQTT_PORT": str(stand.mqtt_port),
        "REDIS_OPTIONS": json.dumps({"host": "127.0.0.1", "port": stand.redis_port}),
        "QOS": str(qos),
        "PREFIX": prefix,
        "IN_TOPIC": f"{prefix}presence/users/+/status",
        "LUA": LUA.read_text(),
    }
    program = packages / "node_modules" / "node-red" / "red.js"
    options = ["-s", str(source / "settings.js"), "-u", str(packages), str(source / "flow.json")]
    return [str(find_program("node")), str(program), *options], environment


PEERS = (
    Peer("mqtt.js + ioredis", 2.5, 512, _mqttjs),
    Peer("Node-RED", 4, 512, _node_red),
    Peer("paho + redis-py", 20, 64, _python("paho_redis.py")),
    Peer("aiomqtt + redis", 20, 64, _python("aiomqtt_redis.py")),
)


def measure(plan: Plan) -> Result:
    """Run all rounds at both QoS, then the latency at QoS 1.

    Raises:
        StandError: a part of the stand failed, or a peer cannot be installed.
    """
    has_node = find_program("node") is not None and find_program("npm") is not None
    peers = [peer for peer in PEERS if has_node or peer.start not in (_mqttjs, _node_red)]
    rounds: dict[int, list[Round]] = {}
    with Stand(plan.flavour) as stand:
        for qos in (1, 0):
            with contextlib.ExitStack() as living:
                made = stand.configure(PRIMARY if qos else "qos0", route(qos=qos))
                feed(made.settings, registrations(made.prefix, plan.users))
                living.enter_context(stand.bridge(made))
                variants = [relay(stand, qos), status_events(stand, made, qos)]
                for number, peer in enumerate(peers):
                    variants.append(living.enter_context(_living(plan, stand, peer, f"peer{qos}{number}", qos)))
                rounds[qos] = run_rounds(plan, f"peers QoS {qos}", variants)
                if qos:
                    half = {variant.name: medians(rounds[1], variant.name, "rate") / 2 for variant in variants}
                    paced = run_rounds(plan, "peers at half of the maximum", variants, half)
        versions = {**stand.versions(), **peer_versions(has_node)}
    every = [*rounds[1], *rounds[0], *paced]
    return Result(
        work="peers",
        method=METHOD,
        tables=[
            rates("QoS 1 in and out", rounds[1], {"plain": PLAIN}),
            rates("QoS 0 in and out", rounds[0], {"plain": PLAIN}),
            latencies("QoS 1, at half of each one's maximum", paced, {}),
        ],
        verdicts=[
            Verdict(
                f"against {peer.name}, the smaller of QoS 0 and 1",
                min(ratio(rounds[qos], "bridge", peer.name) for qos in (0, 1)),
                peer.least,
                True,
            )
            for peer in peers
        ],
        lost=lost([_ours(one) for one in every]),
        disordered=disordered([_ours(one) for one in every]),
        versions=versions,
        details={"qos1": rounds[1], "qos0": rounds[0], "paced": paced},
    )


def _ours(one: Round) -> Round:
    """What the peers lose is in their tables, and no fault of the bridge."""
    return {"bridge": one["bridge"]}


@contextlib.contextmanager
def _living(plan: Plan, stand: Stand, peer: Peer, process: str, qos: int) -> Iterator[Variant]:
    """Register the users with a peer, and let it live for as long as the context lasts."""
    prefix = f"{process}/"
    pipeline = stand.redis.pipeline(transaction=False)
    for number in range(plan.users):
        pipeline.sadd(f"{prefix}endpoints:u{number:06d}", f"u{number:06d}~0")
    pipeline.execute()
    plan.say(f"peers: starting {peer.name} for QoS {qos}")
    command, environment = peer.start(stand, qos, prefix)
    options = {
        "topic": f"{prefix}presence/users/u%%%%%%/status",
        "sub": f"{prefix}users/endpoints/#",
        "qos": qos,
    }
    if peer.window < 512:
        options["window"] = peer.window
    with stand.process(process, command, environment, ready=lambda: True):
        _wait_until_it_answers(stand, process, prefix)
        yield Variant(peer.name, stand, process, options)


def _wait_until_it_answers(stand: Stand, process: str, prefix: str) -> None:
    with stand.client(f"{prefix}users/endpoints/#") as (client, heard):
        end = time.monotonic() + START_SECONDS
        while not heard.wait(0.2):
            stand.pid(process)
            if time.monotonic() > end:
                raise stand.failure(process, f"does not answer within {START_SECONDS} s")
            client.publish(f"{prefix}presence/users/u000000/status", '{"availability":"available"}', 1)


def peer_versions(has_node: bool) -> dict[str, str]:
    """Return the versions of the peers, as their lock files have them."""
    found = {}
    for line in (HERE / "python.lock").read_text().splitlines():
        if "==" in line:
            name, _, version = line.rstrip(" \\").partition("==")
            found[name] = version
    for folder in ("mqttjs", "node_red") if has_node else ():
        found |= json.loads((HERE / folder / "package.json").read_text())["dependencies"]
    return found
