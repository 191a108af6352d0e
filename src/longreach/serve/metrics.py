"""What Prometheus is told."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily

from longreach.types import Timing, Usage

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
TOKEN_SECONDS = (0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.5, 1.0)


class Metrics:
    """Of one server. `gauges` is asked at each look: name, what it says, its label, and the value for each of the
    label's ("" where it has none)."""

    def __init__(self, gauges: Callable[[], Iterator[tuple[str, str, str, dict[str, float]]]]) -> None:
        self.registry = CollectorRegistry()
        self._gauges = gauges
        make: dict[str, Any] = {"registry": self.registry}
        self.requests = Counter("longreach_requests", "Requests answered", ["route", "status"], **make)
        self.seconds = Histogram(
            "longreach_request_seconds", "From a request to the end of its answer", ["route"], buckets=SECONDS, **make
        )
        self.ttft = Histogram("longreach_ttft_seconds", "From a request to its first token", buckets=SECONDS, **make)
        self.tpot = Histogram("longreach_tpot_seconds", "Between two tokens", buckets=TOKEN_SECONDS, **make)
        self.tokens = Counter("longreach_tokens", "Tokens: of prompts, of them reused, generated", ["kind"], **make)
        self.registry.register(self)

    def read(self, timing: Timing, usage: Usage) -> None:
        """A prompt was read, and an answer begun."""
        self.tokens.labels("prompt").inc(usage.prompt_tokens)
        self.tokens.labels("reused").inc(usage.reused_tokens)
        if timing.ttft > 0:
            self.ttft.observe(timing.ttft)

    def wrote(self, timing: Timing, usage: Usage) -> None:
        """An answer was written token by token."""
        self.tokens.labels("generated").inc(usage.generated_tokens)
        if usage.generated_tokens > 1 and timing.total > timing.ttft > 0:
            self.tpot.observe((timing.total - timing.ttft) / (usage.generated_tokens - 1))

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """For the registry."""
        for name, says, label, values in self._gauges():
            family = GaugeMetricFamily(f"longreach_{name}", says, labels=[label] if label else [])
            for value, number in values.items():
                family.add_metric([value] if label else [], number)
            yield family

    def text(self) -> bytes:
        """All of it, as Prometheus reads it."""
        return generate_latest(self.registry)
