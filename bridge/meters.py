"""Meters: what the bridge counts and how long its steps take, for ``/metrics`` and for the log.

Kept per read or per batch, never per event; what can be asked for when somebody looks is asked then. Names follow the
conventions of Prometheus: base units, ``_total`` on counters.
"""

from collections import Counter
from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

NAMESPACE = "endpoint_bridge"

# Count -> what it says. A count named ``family:detail`` is one family with the detail as its label, see `LABELS`.
COUNTS: dict[str, str] = {
    "received": "MQTT messages that the broker delivered, copies included.",
    "published": "Messages made for endpoints, callers and retained topics.",
    "commits": "Batches written to Redis.",
    "conflicts": "Commits that found a record changed, and were decided again.",
    "joined": "Copies of inputs that were in hand already.",
    "echoes": "What the bridge published itself and received again: somebody has subscribed in its name.",
    "coalesced": "Equal keepalives at QoS 0 that waited together and were taken as one.",
    "dropped_qos0": "QoS 0 messages dropped because too many waited.",
    "refused_by_broker": "Messages that the broker refused, by PUBACK code 0x80 or more, or that it could not be sent.",
    "redelivered": "Messages of an earlier run, sent again from the journal.",
    "rejected": "Inputs that were not taken, by code.",
    "anomalies": "Inputs that contradict themselves and were taken all the same, by code.",
    "unreadable": "Records that could not be read and were passed over, so that nobody else suffers for them.",
    "unmasked": "Values that a mask of send_event selected and that stay, being no text, by the mask's index.",
}
LABELS = {"rejected": "reason", "anomalies": "anomaly", "unmasked": "mask"}

STAGES = ("wait", "load", "decide", "commit", "deliver")

_BATCH_INPUTS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)


class Meters:
    """All meters of one bridge.

    Attributes:
        counts: see `COUNTS`; incremented by whoever sees it happen, told in the log once a minute.
        batch_inputs: how many inputs a batch took.
        wait: seconds that a batch's first input waited in the inbox.
        load: seconds of a load trip.
        decide: seconds of deciding and routing what a trip brought.
        commit: seconds of a commit.
        deliver: seconds until the last PUBACK of a commit's outputs.
    """

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._registry = CollectorRegistry()
        self._registry.register(_Counts(self.counts))
        self.batch_inputs = Histogram(
            "batch_inputs",
            "Inputs that one batch took.",
            namespace=NAMESPACE,
            buckets=_BATCH_INPUTS,
            registry=self._registry,
        )
        stages = Histogram(
            "stage_seconds",
            "How long a batch stayed in each stage of the line.",
            ("stage",),
            namespace=NAMESPACE,
            buckets=_SECONDS,
            registry=self._registry,
        )
        self.wait, self.load, self.decide, self.commit, self.deliver = map(stages.labels, STAGES)

    def gauge(self, name: str, text: str, value: Callable[[], float]) -> None:
        """Add a value that is asked for when somebody looks."""
        Gauge(name, text, namespace=NAMESPACE, registry=self._registry).set_function(value)

    def watch_process(self) -> None:
        """Add what the process uses: memory, CPU, file descriptors, garbage collections, the Python version."""
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)
        GCCollector(registry=self._registry)

    def exposition(self) -> bytes:
        """Return everything in the text format that Prometheus scrapes."""
        return generate_latest(self._registry)


class _Counts:
    def __init__(self, counts: Counter[str]) -> None:
        self._counts = counts

    def collect(self) -> Iterator[CounterMetricFamily]:
        details: dict[str, dict[str, int]] = {}
        for name, count in self._counts.items():
            family, _, detail = name.partition(":")
            details.setdefault(family, {})[detail] = count
        for family, text in COUNTS.items():
            found = details.get(family, {})
            label = LABELS.get(family)
            metric = CounterMetricFamily(f"{NAMESPACE}_{family}", text, labels=(label,) if label else None)
            for detail, count in found.items():
                metric.add_metric((detail,) if label else (), count)
            if not found and not label:
                metric.add_metric((), 0)
            yield metric
