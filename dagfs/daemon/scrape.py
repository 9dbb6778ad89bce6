"""`--metrics`: answers Prometheus over HTTP. Its library is imported by those mounts only that want it."""

from __future__ import annotations

import itertools
import logging
import socket
import threading
from collections.abc import Iterator
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, InfoMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from dagfs import __version__
from dagfs.daemon.activity import queue
from dagfs.daemon.core import Core
from dagfs.daemon.families import PREFIX, families
from dagfs.daemon.plan import MountPlan
from dagfs.daemon.state import MountState, Registry
from dagfs.kernel.waiting import BOUNDS

log = logging.getLogger(__name__)

SILENCE_SECONDS = 5.0
"""Then a client that says nothing is hung up on, since the next one waits for it."""


IDLE_SECONDS = 3600.0
"""Between two looks whether to end, which only the end of the process decides."""


def answer(listener: socket.socket, plan: MountPlan, core: Core) -> None:
    """Answer scrapes, in a thread that ends with the process: nobody waits at the end for a client that is silent."""
    registry = CollectorRegistry()
    registry.register(MountCollector(plan, core))
    ProcessCollector(registry=registry)
    server = _Server(listener)
    server.set_app(make_wsgi_app(registry))
    threading.Thread(target=server.serve_forever, args=(IDLE_SECONDS,), name="metrics", daemon=True).start()


class MountCollector(Collector):
    """Turns what a worker knows into metrics, at each scrape."""

    def __init__(self, plan: MountPlan, core: Core) -> None:
        self._plan = plan
        self._core = core
        self._registry = Registry(plan.places.runtime)

    def collect(self) -> Iterator[Metric]:
        for family, counts in families(self._core.figures()):
            metric = CounterMetricFamily(f"{PREFIX}_{family.name}", family.help, labels=_labels(family.label))
            for value, count in counts.items():
                metric.add_metric([value] if family.label else [], count)
            yield metric
        yield from self._gauges()
        yield from self._ways()
        yield from self._waits()
        state = self._registry.read(self._plan.id)
        if state is not None:
            yield from _life(state)

    def _gauges(self) -> Iterator[Metric]:
        core = self._core
        under_way, info = queue(core), core.store.info()
        hub = core.hub_state()["state"]
        yield _gauge("hub_up", "Whether the hub answers, with this token; 1 as well before it was asked.", hub == "ok")
        yield _gauge("fetch_transfers_running", "Transfers under way.", under_way["running"])
        yield _gauge("fetch_loads_waiting", "Loads that wait for their turn.", under_way["waiting"])
        yield _gauge("cache_bytes", "Content in this hub's cache, of all mounts.", info.bytes)
        yield _gauge("cache_limit_bytes", "What the cache may hold.", info.limit)
        yield _gauge("cache_writable", "Whether the cache's disk takes what is fetched.", core.store.refusal is None)
        yield _gauge("cache_files", "Whole files in this hub's cache.", info.files)

    def _ways(self) -> Iterator[Metric]:
        """Tell of what is asked before the hub's API (`--shared-cache`, `--dvc-remote`)."""
        reports = self._core.way_reports()
        if not reports:
            return
        up = GaugeMetricFamily(f"{PREFIX}_way_up", "Whether the way is in use.", labels=["way"])
        files = CounterMetricFamily(f"{PREFIX}_way_files", "Files asked for, by outcome.", labels=["way", "result"])
        moved = CounterMetricFamily(f"{PREFIX}_way_received_bytes", "Content that came by it.", labels=["way"])
        for report in reports:
            up.add_metric([report["name"]], float(report["state"] == "in use"))
            moved.add_metric([report["name"]], report["bytes"])
            for result in ("hits", "misses", "wrong", "failures"):
                files.add_metric([report["name"], result], report[result])
        yield from (up, files, moved)

    def _waits(self) -> Iterator[Metric]:
        waiting = self._core.waiting
        if waiting is None:
            return
        now = waiting.now()
        yield _gauge("waiting_requests", "Requests of programs that wait for their answer.", len(now))
        yield _gauge("longest_wait_seconds", "How long the first of them has waited.", now[0][0] if now else 0.0)
        classes, seconds = waiting.histogram()
        buckets = list(zip([*map(str, BOUNDS), "+Inf"], itertools.accumulate(classes), strict=True))
        text = "How long requests waited that could not be answered at once."
        yield HistogramMetricFamily(f"{PREFIX}_wait_seconds", text, buckets=buckets, sum_value=seconds)


def _life(state: MountState) -> Iterator[Metric]:
    told = ("mountpoint", "repo", "host", "commit", "driver")
    about = {name: getattr(state, name) for name in told} | {"branch": state.branch or "", "version": __version__}
    yield InfoMetricFamily(f"{PREFIX}_mount", "What is mounted.", value=about)
    restarts = CounterMetricFamily(f"{PREFIX}_worker_restarts", "Workers that had to be replaced.")
    restarts.add_metric([], max(0, state.generation - 1))
    yield restarts


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"{PREFIX}_{name}", text, value=float(value))


def _labels(label: str | None) -> list[str]:
    return [label] if label else []


class _Handler(WSGIRequestHandler):
    timeout = SILENCE_SECONDS

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 -- the library's name
        log.debug(format, *args)


class _Server(WSGIServer):
    """One scrape after another, in one thread: a connection of SQLite stays with it, and who connects in numbers, or
    says nothing, costs the mount no memory."""

    def __init__(self, listener: socket.socket) -> None:
        address = listener.getsockname()[:2]
        super().__init__(address, _Handler, bind_and_activate=False)
        self.socket.close()  # the one that the library has made
        self.socket = listener
        self.server_name, self.server_port = address
        self.setup_environ()

    def handle_error(self, request: Any, client_address: Any) -> None:
        log.debug("a scrape failed", exc_info=True)
