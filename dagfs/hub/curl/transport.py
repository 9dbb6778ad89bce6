"""The hub's bytes: many transfers over kept connections, moved by libcurl in one thread."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import pycurl

from dagfs.errors import DagfsError, ProtocolError, RemoteUnavailable
from dagfs.hub import redirects
from dagfs.hub.auth import Token
from dagfs.hub.curl.exchange import Exchange, Lane, Request
from dagfs.hub.curl.lanes import LaneLoop
from dagfs.hub.curl.standing import Standing
from dagfs.hub.naps import Naps
from dagfs.hub.network import Network
from dagfs.hub.redirects import Reach
from dagfs.hub.source import BodySink
from dagfs.hub.urls import origin
from dagfs.metrics import Metrics
from dagfs.system import POLLIN, Waker, new_poll

log = logging.getLogger(__name__)

STALL_SECONDS = 30.0
_MAX_SLEEP = 60.0
_BREATH = 0.1  # seconds between two failures of the loop itself


class Transport:
    """Transfers bodies from a hub and from where it redirects to. Has no limit of its own on how many run at once.

    All work is done in one thread; other threads only append to `_commands` and wake it. A transfer that brings no
    byte for `stall_after` seconds ends with Stalled.
    """

    def __init__(  # noqa: PLR0913, PLR0917 -- the last two are for tests
        self,
        host: str,
        token: Token,
        metrics: Metrics,
        network: Network,
        stall_after: float = STALL_SECONDS,
        naps: Naps | None = None,
    ) -> None:
        self._hub = origin(host)
        self._token = token
        self._metrics = metrics
        self._stall_after = stall_after
        self._naps = naps or Naps()
        self.standing = Standing(token)
        self._prefix = host + "/"  # of URLs that need no parsing to see that they are the hub's
        self._hub_reach: Reach | None = None  # where the hub's address lies; None until a direct connection to it
        self._network = network
        self._waker = Waker()
        self._poll, self._lanes = self._make_lanes()
        self._commands: deque[tuple[Callable[[Exchange], None], Exchange]] = deque()
        self._lock = threading.Lock()  # guards the two below and the waker, which is open iff the loop has not ended
        self._awake = False  # true iff a byte lies in the waker
        self._closed = False
        self._gathering: list[Exchange] = []  # that hold pieces of this turn; the loop's thread only
        self._next_check = 0.0
        self._thread = threading.Thread(target=self._run, name="dagfs-transport", daemon=True)
        self._thread.start()

    def get(self, request: Request, sink: BodySink) -> Exchange:
        """Start a transfer and return at once. Raises RemoteUnavailable after `close`."""
        exchange = Exchange(request, sink, self)
        self._command(self._begin, exchange)
        return exchange

    def gathers(self, exchange: Exchange) -> None:
        self._gathering.append(exchange)

    def unpause(self, exchange: Exchange) -> None:
        self._command(self._unpause, exchange, late=True)

    def abandon(self, exchange: Exchange) -> None:
        self._command(self._cancelled, exchange, late=True)

    def close(self) -> None:
        """End all transfers and connections; no sink is called after it returns (from a sink: soon after)."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._waker.wake()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _command(self, step: Callable[[Exchange], None], exchange: Exchange, *, late: bool = False) -> None:
        """Have `step` run by the loop; one that comes too `late`, after close, finds its exchange ended already."""
        with self._lock:
            if self._closed:
                if late:
                    return
                raise RemoteUnavailable("the connection to the hub is closed")
            self._commands.append((step, exchange))
            if not self._awake and threading.current_thread() is not self._thread:  # it looks before it sleeps
                self._awake = True
                self._waker.wake()

    # Everything below runs in the loop's thread.

    def _run(self) -> None:
        try:
            while not self._closed:
                try:
                    self._turn()
                except Exception:
                    log.exception("the transport broke, and begins anew")
                    time.sleep(_BREATH)
                    self._begin_anew("the connection to the hub was lost")
        finally:
            self._end()

    def _make_lanes(self) -> tuple[Any, dict[Lane, LaneLoop]]:
        poll = new_poll()
        poll.register(self._waker.fd, POLLIN)
        return poll, {lane: LaneLoop(lane, poll, self._network) for lane in Lane}

    def _begin_anew(self, why: str) -> None:
        """End what runs, since nobody knows its state, and go on: without this thread the mount has no network."""
        lanes, running = self._lanes, [e for lane in self._lanes.values() for e in lane.running.values()]
        self._poll, self._lanes = self._make_lanes()
        for exchange in running:
            with contextlib.suppress(Exception):
                lanes[exchange.request.lane].stop(exchange)
            exchange.handle = None
            self._finish(exchange, RemoteUnavailable(why))
        for lane in lanes.values():
            with contextlib.suppress(Exception):
                lane.close()

    def _turn(self) -> None:
        if self._naps.ended():
            self._begin_anew("the machine was suspended")  # fetched again, where they broke off
        self._obey()
        for fd, events in self._poll.poll(self._sleep_ms()):
            self._woken() if fd == self._waker.fd else self._ready(fd, events)
        now = time.monotonic()
        for lane in self._lanes.values():
            lane.expire(now)
        self._pass_on()
        for lane in self._lanes.values():
            for handle, code, message in lane.completed():
                self._completed(lane, lane.running[handle], code, message)
        if now >= self._next_check:
            self._next_check = now + self._stall_after / 8
            self._end_stalled(now)

    def _ready(self, fd: int, events: int) -> None:
        for lane in self._lanes.values():
            if fd in lane.fds:
                lane.ready(fd, events)

    def _pass_on(self) -> None:
        exchanges, self._gathering = self._gathering, []
        for exchange in exchanges:
            if not exchange.pass_on():
                self._break_off(exchange, exchange.outcome(pycurl.E_WRITE_ERROR, ""))

    def _woken(self) -> None:
        with self._lock:
            self._awake = False
            self._waker.drain()

    def _obey(self) -> None:
        while self._commands:
            step, exchange = self._commands.popleft()
            step(exchange)

    def _sleep_ms(self) -> float:
        if self._commands:
            return 0.0
        now = time.monotonic()
        wakes = [now + _MAX_SLEEP, *(lane.deadline for lane in self._lanes.values() if lane.deadline is not None)]
        if any(lane.running for lane in self._lanes.values()):
            wakes.append(self._next_check)
        return max(0.0, (min(wakes) - now) * 1000)

    def _begin(self, exchange: Exchange) -> None:
        if exchange.cancelled:
            exchange.finish(exchange.outcome(0, ""))
            return
        hindrance = self.standing.hindrance()
        if hindrance is not None:
            exchange.finish(hindrance)
            return
        self._metrics.add(f"hub.requests.{exchange.request.lane.value}")
        self._ask(exchange)

    def _ask(self, exchange: Exchange) -> None:
        """Send the request to where the exchange aims; the token goes along to the hub's own origin only."""
        lane = self._lanes[exchange.request.lane]
        exchange.last_byte = time.monotonic()
        try:
            there = self._hub if exchange.url.startswith(self._prefix) else origin(exchange.url)
            exchange.token = self._token.current() if there == self._hub else None
            handle = lane.handles.take(exchange, exchange.token)
            if there != self._hub:
                self._guard(lane, handle, exchange)
            elif self._hub_reach is None and handle.proxied is None:
                lane.handles.guard(handle, self._open_to_hub)
            lane.start(handle, exchange)
        except (ValueError, pycurl.error, UnicodeEncodeError):
            exchange.finish(ProtocolError("the hub's URL cannot be asked"))
        except DagfsError as error:
            exchange.finish(error)

    def _guard(self, lane: LaneLoop, handle: Any, exchange: Exchange) -> None:
        """Keep a redirect to what the hub may reach; a proxy looks names up itself, so only numbers are judged then."""
        allowed = self._hub_reach or Reach.PUBLIC
        number = redirects.literal(origin(exchange.url).host)
        if number is not None and number > allowed:
            lane.handles.give_back(handle)
            raise ProtocolError(f"{self._hub} redirects into a network that it is not in itself")
        if handle.proxied is None:
            lane.handles.guard(handle, lambda _purpose, address: exchange.open_guarded(allowed, address))

    def _open_to_hub(self, _purpose: int, address: Any) -> Any:
        self._hub_reach = min(redirects.reach(address.addr[0]), Reach.LOOPBACK)
        return redirects.open_socket(address)

    def _completed(self, lane: LaneLoop, exchange: Exchange, code: int, message: str) -> None:
        try:
            follow = self._follow(exchange, code)
        except DagfsError as error:
            exchange.failed, follow = error, False
        lane.stop(exchange)
        if follow:
            self._ask(exchange)
        else:
            self._finish(exchange, exchange.outcome(code, message))

    def _follow(self, exchange: Exchange, code: int) -> bool:
        """Aim the exchange at where the answer sends it; False when it has ended."""
        if exchange.cancelled or exchange.failed is not None or code not in (pycurl.E_OK, pycurl.E_WRITE_ERROR):
            return False
        target = exchange.redirect_target()
        if target is not None:
            if exchange.hops >= redirects.MAX_HOPS:
                raise ProtocolError(f"more than {redirects.MAX_HOPS} redirects")
            redirects.next_hop(exchange.url, target, self._hub)
            self._metrics.add("hub.redirects")
            exchange.aim(target, exchange.hops + 1)
            return True
        if exchange.second_chance(lambda: self._token.current(at_once=True)):
            self._metrics.add("hub.second_chances")
            exchange.aim(exchange.request.url, 0)
            return True
        return False

    def _unpause(self, exchange: Exchange) -> None:
        if exchange.handle is not None and not exchange.paused:
            exchange.last_byte = time.monotonic()
            try:
                exchange.handle.pause(pycurl.PAUSE_CONT)  # gives the receiver what curl has kept for it
            except pycurl.error as error:
                self._break_off(exchange, exchange.outcome(int(error.args[0]), ""))

    def _cancelled(self, exchange: Exchange) -> None:
        self._break_off(exchange, exchange.outcome(0, ""))

    def _end_stalled(self, now: float) -> None:
        for lane in self._lanes.values():
            lane.trust(now)
            for exchange in [e for e in lane.running.values() if now - e.last_byte > self._stall_after]:
                if exchange.paused:  # its receiver is slow, not the hub
                    exchange.last_byte = now
                else:
                    lane.distrust(now, self._stall_after)
                    self._break_off(exchange, exchange.stalled(self._stall_after))

    def _break_off(self, exchange: Exchange, error: DagfsError | None) -> None:
        if exchange.handle is not None:
            self._lanes[exchange.request.lane].stop(exchange)
        self._finish(exchange, error)

    def _finish(self, exchange: Exchange, error: DagfsError | None) -> None:
        if not exchange.ended:
            self._metrics.add(f"hub.{exchange.request.lane.value}_bytes", exchange.received)
            error = self._judged(exchange, error)
        exchange.finish(error)

    def _judged(self, exchange: Exchange, error: DagfsError | None) -> DagfsError | None:
        if exchange.denied:
            return self.standing.refused(exchange.token)
        if not exchange.cancelled:
            self.standing.heard(error)
        return error

    def _end(self) -> None:
        with self._lock:
            self._closed = True
        gone = RemoteUnavailable("the connection to the hub is closed")
        waiting = [exchange for _, exchange in self._commands]
        for exchange in [*(e for lane in self._lanes.values() for e in lane.running.values()), *waiting]:
            self._break_off(exchange, gone)
        for lane in self._lanes.values():
            lane.close()
        with self._lock:
            self._waker.close()
