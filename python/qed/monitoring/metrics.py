"""What a monitor has done and found, as metrics for Prometheus."""

from __future__ import annotations

import logging
import socket
import threading
import time
from typing import TYPE_CHECKING, Final
from wsgiref.simple_server import WSGIRequestHandler, make_server

from prometheus_client import CollectorRegistry, Counter, Gauge, make_wsgi_app
from prometheus_client.exposition import ThreadingWSGIServer

from qed.errors import MonitorError
from qed.monitoring.findings import EXIT_OK, Kind

if TYPE_CHECKING:
    from collections.abc import Iterable

    from qed.monitoring.alerts import Alert
    from qed.signed import Checkpoint

__all__ = ["Metrics"]

_log = logging.getLogger(__name__)

_PATIENCE_S: Final = 10


class Metrics:
    """The metrics of one monitor. Rounds change them; any number of threads may read them meanwhile."""

    def __init__(self) -> None:
        self.registry: Final = CollectorRegistry()
        self._since_s: float | None = None
        self._note = ""
        self._replayed_before = 0
        self._forks: Final[set[str]] = set()
        self._size = self._gauge("checkpoint_size", "Size of the newest checkpoint that extends all that was seen.")
        age = self._gauge(
            "checkpoint_age_seconds",
            "Time since enough witnesses confirmed that checkpoint; without a quorum, since it was first seen.",
        )
        age.set_function(lambda: 0.0 if self._since_s is None else max(0.0, time.time() - self._since_s))
        self._lag = self._gauge("lag_entries", "Entries of the newest checkpoint of any source that were not checked.")
        self._success = self._gauge(
            "last_success_timestamp_seconds", "When a round last ended with all checks passed, since 1970."
        )
        self._pending = self._gauge("outbox_pending", "Alerts that a sink has not taken yet.")
        self._verified = self._counter("entries_verified", "Entries that were compared with a signed tree.")
        self._replayed = self._counter("replayed", "Entries that were replayed.")
        self._fork_count = self._counter("forks", "Different forks that were found.")
        self._alerts = Counter("qed_monitor_alerts", "Alerts by kind.", ["kind"], registry=self.registry)
        for kind in Kind:
            # A rate needs a first value.
            self._alerts.labels(kind.value)

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(f"qed_monitor_{name}", text, registry=self.registry)

    def _counter(self, name: str, text: str) -> Counter:
        return Counter(f"qed_monitor_{name}", text, registry=self.registry)

    def count(self, entries: int) -> None:
        """Count entries that were compared with a signed tree."""
        self._verified.inc(entries)

    def advance(self, checkpoint: Checkpoint, *, replayed: int, lag: int) -> None:
        """Note how far the monitor is.

        Args:
            checkpoint: The newest checkpoint that extends all that was seen.
            replayed: How many entries were replayed since the start.
            lag: How many entries of the newest checkpoint of any source were not checked.
        """
        self._size.set(checkpoint.size)
        self._lag.set(lag)
        self._replayed.inc(replayed - self._replayed_before)
        self._replayed_before = replayed
        if checkpoint.note != self._note:
            self._note = checkpoint.note
            self._since_s = time.time() if checkpoint.confirmed_at is None else checkpoint.confirmed_at

    def end_round(self, *, exit_code: int, alerts: Iterable[Alert], forks: Iterable[str], pending: int) -> None:
        """Note how a round ended.

        Args:
            exit_code: As of `qed monitor --once`.
            alerts: The alerts that it has given.
            forks: What distinguishes each fork that it has found.
            pending: How many alerts a sink has not taken yet.
        """
        if exit_code == EXIT_OK:
            self._success.set_to_current_time()
        for alert in alerts:
            self._alerts.labels(alert.kind.value).inc()
        new = set(forks) - self._forks
        self._fork_count.inc(len(new))
        self._forks.update(new)
        self._pending.set(pending)

    def listen(self, host: str, port: int) -> str:
        """Serve the metrics to anybody who can connect, until the process ends.

        Args:
            host: A name or an address of this machine.
            port: The port; 0 for a free one.

        Returns:
            Their URL.

        Raises:
            MonitorError: There is no such address, or it is in use.
        """
        try:
            server = make_server(host, port, make_wsgi_app(self.registry), _Server, handler_class=_Handler)
        except OSError as exc:
            raise MonitorError(f"cannot serve metrics on {host}, port {port}: {exc.strerror or exc}") from exc
        threading.Thread(target=server.serve_forever, name="qed-metrics", daemon=True).start()
        url = f"http://{f'[{host}]' if ':' in host else host}:{server.server_port}/metrics"
        _log.info("metrics url=%s", url)
        return url


class _Server(ThreadingWSGIServer):
    """A thread for each request, so that a slow reader delays no other."""

    def __init__(self, address: tuple[str, int], handler: type[WSGIRequestHandler]) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        super().__init__(address, handler)

    def handle_error(self, *_args: object) -> None:
        """Print nothing: a reader that goes away is no error of the monitor."""


class _Handler(WSGIRequestHandler):
    timeout = _PATIENCE_S

    def log_message(self, *_args: object) -> None:
        """Log nothing: a scrape a second would hide all else."""
