"""One of curl's multi handles, with the sockets and the timer that it asks the loop to watch."""

from __future__ import annotations

import time
from typing import Any

import pycurl

from dagfs.hub.curl.exchange import Exchange, Lane
from dagfs.hub.curl.handles import Handles
from dagfs.hub.network import Network
from dagfs.system import POLLERR, POLLHUP, POLLIN, POLLNVAL, POLLOUT, POLLPRI

KEPT_CONNECTIONS = 64
_READABLE = POLLIN | POLLPRI
_BROKEN = POLLERR | POLLHUP | POLLNVAL


class LaneLoop:
    """The transfers of a lane; used by the transport's thread only."""

    def __init__(self, lane: Lane, poll: Any, network: Network) -> None:
        self.handles = Handles(lane, network)
        self.running: dict[Any, Exchange] = {}  # curl handle -> whose transfer it is in
        self.fds: set[int] = set()
        self.deadline: float | None = None  # monotonic seconds at which curl wants to be called
        self._poll = poll
        self._distrusted_until = 0.0
        self._multi = pycurl.CurlMulti()
        self._multi.setopt(pycurl.M_SOCKETFUNCTION, self._watch)
        self._multi.setopt(pycurl.M_TIMERFUNCTION, self._set_timer)
        self._multi.setopt(pycurl.M_MAXCONNECTS, KEPT_CONNECTIONS)

    def start(self, handle: Any, exchange: Exchange) -> None:
        exchange.handle = handle
        self.running[handle] = exchange
        self._multi.add_handle(handle)

    def stop(self, exchange: Exchange) -> None:
        handle, exchange.handle = exchange.handle, None
        del self.running[handle]
        self._multi.remove_handle(handle)
        self.handles.give_back(handle)

    def distrust(self, now: float, seconds: float) -> None:
        """A request got no answer: for some time use no connection again that nobody has used just now."""
        self._distrusted_until = now + seconds
        self.handles.suspect(kept=True)

    def trust(self, now: float) -> None:
        if now >= self._distrusted_until:
            self.handles.suspect(kept=False)

    def ready(self, fd: int, events: int) -> None:
        flags = pycurl.CSELECT_IN if events & _READABLE else 0
        flags |= pycurl.CSELECT_OUT if events & POLLOUT else 0
        flags |= pycurl.CSELECT_ERR if events & _BROKEN else 0
        self._multi.socket_action(fd, flags)

    def expire(self, now: float) -> None:
        if self.deadline is not None and self.deadline <= now:
            self.deadline = None
            self._multi.socket_action(pycurl.SOCKET_TIMEOUT, 0)

    def completed(self) -> list[tuple[Any, int, str]]:
        done: list[tuple[Any, int, str]] = []
        queued = 1 if self.running else 0
        while queued:
            queued, well, broken = self._multi.info_read()
            done += [(handle, pycurl.E_OK, "") for handle in well] + broken
        return done

    def close(self) -> None:
        self._multi.close()
        self.handles.close()

    def _watch(self, what: int, fd: int, _multi: Any, _data: Any) -> None:
        if what == pycurl.POLL_REMOVE:
            if fd in self.fds:
                self.fds.discard(fd)
                self._poll.unregister(fd)
            return
        self.fds.add(fd)
        wanted = POLLIN if what & pycurl.POLL_IN else 0
        self._poll.register(fd, wanted | (POLLOUT if what & pycurl.POLL_OUT else 0))

    def _set_timer(self, milliseconds: int) -> None:
        self.deadline = None if milliseconds < 0 else time.monotonic() + milliseconds / 1000
