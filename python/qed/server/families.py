"""Families of metrics for Prometheus, made from plain numbers when somebody asks.

Most values are read where they are kept. `prometheus_client` is imported by the first reader: that takes 50 ms, a part
of a start that others need not wait for.
"""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING, Protocol, TypeAlias, cast

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from prometheus_client import Metric
    from prometheus_client.registry import Collector

__all__ = ["Distribution", "Family", "by_label", "counter", "gauge", "histogram", "text_of"]


Family: TypeAlias = "Metric"
"""Metrics of one name."""


class Distribution(Protocol):
    """How often values were in each of some parts."""

    @property
    def ends(self) -> Sequence[float]:
        """Upper ends of the parts."""

    @property
    def counts(self) -> Sequence[int]:
        """How many values were in each part; the last one has those above all ends."""

    @property
    def sum(self) -> float:
        """Their sum."""


def gauge(name: str, text: str, *values: tuple[float, *tuple[str, ...]], labels: Sequence[str] = ()) -> Family:
    """Return a family of numbers that go up and down.

    Args:
        name: Its name after `qed_`, with its unit.
        text: What it is.
        *values: Each value, then those of its labels.
        labels: The names of the labels.
    """
    from prometheus_client.core import GaugeMetricFamily  # noqa: PLC0415  # see above

    family = GaugeMetricFamily(f"qed_{name}", text, labels=labels)
    for value, *of_labels in values:
        family.add_metric(of_labels, value)
    return family


def counter(name: str, text: str, *values: tuple[float, *tuple[str, ...]], labels: Sequence[str] = ()) -> Family:
    """Return a family of numbers that only grow, as `gauge` does. Prometheus adds `_total` to the name."""
    from prometheus_client.core import CounterMetricFamily  # noqa: PLC0415  # see above

    family = CounterMetricFamily(f"qed_{name}", text, labels=labels)
    for value, *of_labels in values:
        family.add_metric(of_labels, value)
    return family


def histogram(
    name: str, text: str, values: Iterable[tuple[Distribution, *tuple[str, ...]]], *, labels: Sequence[str] = ()
) -> Family:
    """Return a family of distributions, as `gauge` does."""
    from prometheus_client.core import HistogramMetricFamily  # noqa: PLC0415  # see above
    from prometheus_client.utils import floatToGoString  # noqa: PLC0415  # see above

    family = HistogramMetricFamily(f"qed_{name}", text, labels=labels)
    for found, *of_labels in values:
        ends = [*map(floatToGoString, found.ends), "+Inf"]
        counts = list(accumulate(found.counts))
        family.add_metric(of_labels, list(zip(ends, map(float, counts), strict=True)), found.sum)
    return family


def by_label(counts: Mapping[str, int]) -> Iterator[tuple[float, str]]:
    """Yield counts by the value of their only label, as `counter` takes them."""
    return ((count, label) for label, count in counts.items())


class _Collected:
    def __init__(self, families: Iterable[Family]) -> None:
        self._families = families

    def collect(self) -> Iterable[Family]:
        return self._families


def text_of(families: Iterable[Family], accepted: str) -> tuple[bytes, str]:
    """Return families as text, with those of this process, and the type of that content. Takes some milliseconds.

    Args:
        families: The families.
        accepted: The header `Accept` of the reader.
    """
    from prometheus_client import CollectorRegistry, ProcessCollector  # noqa: PLC0415  # see above
    from prometheus_client.exposition import choose_encoder  # noqa: PLC0415  # see above

    encode, content_type = choose_encoder(accepted)
    registry = CollectorRegistry(auto_describe=False)
    ProcessCollector(registry=registry)
    registry.register(cast("Collector", _Collected(families)))
    return encode(registry), content_type
