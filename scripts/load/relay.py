"""The work ``relay``: a changed status document in, through registry and journal, one event to one endpoint out.

In each round, one after another: the plain relay, the coalescing relay (100 us), the bridge; so that all three meet
the same machine. Closed loop for the rate, and on request open loop at half of each one's rate for the latency.
"""

import contextlib
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from scripts.load.figures import BRIDGE, COALESCING, PLAIN, VARIANTS, Round, Sample, command_stats, sample_of
from scripts.load.stand import Say, Stand, StandError, find_program, run_loadgen

WINDOW = 512  # events on their way at once, end to end
PACED_WINDOW = 900  # in the open loop: below the broker's receive maximum
WARM_UP_SECONDS, DRAIN_SECONDS = 1.0, 5.0
DOCUMENT_BYTES = 400
COALESCE_US = {PLAIN: 0, COALESCING: 100}


class Load(NamedTuple):
    """How long and with what.

    Attributes:
        loadgen: path of the load generator.
        c_relay: path of the null relay.
        users: how many; each has one endpoint.
        seconds: measured time of each variant in each round.
        rounds: of each kind.
    """

    loadgen: Path
    c_relay: Path
    users: int
    seconds: float
    rounds: int


class Measured(NamedTuple):
    """All rounds of one QoS; ``commands`` is what Redis was asked in the last bridge sample."""

    rounds: list[Round]
    latency: list[Round]
    commands: dict[str, dict[str, float]]


def document(sample: int) -> str:
    """The template of a status document of 400 bytes; the load generator fills in number and user.

    The sample's number is in it, since the load generator counts from 0 each time: a document that stands already is
    no change, and no event comes of it.
    """
    fields = {
        "seq": "#" * 10,
        "sample": sample,
        "availability": "available",
        "device": {"id": "u~~~~~~-desk", "battery": 87, "charging": True, "signal": -61},
        "location": {"building": "north", "floor": 3, "room": "3.14"},
        "capabilities": ["audio", "video", "screen"],
    }
    text = json.dumps({**fields, "note": ""}, separators=(",", ":"))
    return json.dumps({**fields, "note": "x" * (DOCUMENT_BYTES - len(text))}, separators=(",", ":"))


class Relay:
    """Measures the work at one QoS on a stand whose bridge runs with the same QoS."""

    def __init__(self, stand: Stand, load: Load, qos: int, say: Say) -> None:
        self._stand = stand
        self._load = load
        self._qos = qos
        self._say = say
        self._commands: dict[str, dict[str, float]] = {}
        self._samples = 0

    def measure(self, *, with_latency: bool) -> Measured:
        """Run all rounds."""
        rounds = [self._round(f"round {number}", {}) for number in range(1, self._load.rounds + 1)]
        paced: list[Round] = []
        if with_latency:
            half = {variant: median(one[variant].rate for one in rounds) / 2 for variant in VARIANTS}
            commands = self._commands
            paced = [self._round(f"half load {number}", half) for number in range(1, self._load.rounds + 1)]
            self._commands = commands
        return Measured(rounds, paced, self._commands)

    def profile(self, file: Path) -> None:
        """Record the bridge with py-spy through one sample that counts nowhere: SVG by the name, else raw stacks.

        Raises:
            StandError: py-spy is not installed.
        """
        program = find_program("py-spy")
        if program is None:
            raise StandError("py-spy is missing: .venv/bin/python -m pip install py-spy (not a dependency)")
        form = "flamegraph" if file.suffix == ".svg" else "raw"
        options = ["-d", f"{self._load.seconds:.0f}", "-r", "500", "-f", form, "-o", str(file)]
        command = [program, "record", "-p", str(self._stand.pid("bridge")), *options]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as recording:  # noqa: S603 - our own words
            try:
                sample = self._sample(BRIDGE, 0)
                recording.wait(30)
            finally:
                recording.kill()
        self._say(f"QoS {self._qos}, profiled: {sample.rate:,.0f} events/s; {file}")

    def _round(self, name: str, rates: dict[str, float]) -> Round:
        samples: dict[str, Sample] = {}
        for variant in VARIANTS:
            with self._variant(variant):
                samples[variant] = sample = self._sample(variant, rates.get(variant, 0))
            self._say(f"QoS {self._qos}, {name}: {variant}: {sample.rate:,.0f} events/s, p99 {sample.p99_ms:.2f} ms")
        return samples

    @contextlib.contextmanager
    def _variant(self, variant: str) -> Iterator[None]:
        if variant == BRIDGE:
            yield
        else:
            with self._stand.relay(self._load.c_relay, self._qos, COALESCE_US[variant]):
                yield

    def _sample(self, variant: str, rate: float) -> Sample:
        is_bridge = variant == BRIDGE
        worker = "bridge" if is_bridge else "relay"
        topics = ("presence/users/u~~~~~~/status", "users/endpoints/#") if is_bridge else ("in/u~~~~~~", "out/#")
        redis = self._stand.redis
        redis.config_resetstat()
        line = self._run_loadgen(worker, topics, rate)
        if not is_bridge:
            return sample_of(line)
        info: Any = redis.info("commandstats")
        self._commands = command_stats(info, line["received"])
        commits = self._commands.get("sadd", {}).get(
            "calls", 0
        )  # every commit names its organization, nothing else does
        return sample_of(line, line["received"] / commits if commits else 0)

    def _run_loadgen(self, worker: str, topics: tuple[str, str], rate: float) -> dict[str, Any]:
        load = self._load
        self._samples += 1
        template = self._stand.folder / "document.json"
        template.write_text(document(10 * self._samples + self._qos))
        options: dict[str, object] = {
            "topic": topics[0],
            "sub": topics[1],
            "template": template,
            "users": load.users,
            "qos": self._qos,
            "window": PACED_WINDOW if rate else WINDOW,
            "rate": f"{rate:.0f}",
            "warmup": WARM_UP_SECONDS,
            "duration": load.seconds,
            "drain": DRAIN_SECONDS,
        }
        patience_seconds = WARM_UP_SECONDS + load.seconds + DRAIN_SECONDS
        return run_loadgen(load.loadgen, self._stand, options, (worker, "redis", "broker"), patience_seconds)
