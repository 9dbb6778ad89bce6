"""Curl handles: set up once, used for one transfer after the other."""

from __future__ import annotations

import base64
import socket
from typing import Any

import pycurl

from dagfs import __version__
from dagfs.hub.curl import sigv4
from dagfs.hub.curl.exchange import Exchange, Lane
from dagfs.hub.network import Network

CONNECT_SECONDS = 10
"""Looking up the name, connecting and the TLS handshake together."""

KEEPALIVE_SECONDS = 30
IDLE_SECONDS = 30
"""After so long without use a connection is not used again: firewalls forget it sooner than the hub does, silently."""

SUSPECT_IDLE_SECONDS = 1
"""The same while a request has just stalled: others that were kept may be as dead as its connection."""

UNACKNOWLEDGED_SECONDS = 10
"""After which the kernel gives a connection up. A slow hub's machine acknowledges; a way that is gone does not."""

KEPT_HANDLES = 64
"""Twice the transfers that the hub recommends at most: enough that a burst makes none anew."""

_SUPPRESS_CONNECT_HEADERS = 265  # CURLOPT of that name, which pycurl does not spell: a proxy's answer is not the hub's
_ENCODINGS = {Lane.LISTING: "Accept-Encoding: gzip", Lane.RAW: "Accept-Encoding: identity"}
_BUFFER_BYTES = 128 << 10


class Handles:
    """A pool for one lane; used by the loop's thread only."""

    def __init__(self, lane: Lane, network: Network) -> None:
        self._lane = lane
        self._network = network
        self._free: list[Any] = []
        self._idle_seconds = IDLE_SECONDS

    def take(self, exchange: Exchange, token: str | None) -> Any:
        """Give a handle that is set up for the exchange's URL. Raises pycurl.error for a URL that curl refuses."""
        handle = self._free.pop() if self._free else self._new()
        handle.setopt(pycurl.URL, exchange.url.encode("latin-1"))
        handle.setopt(pycurl.WRITEFUNCTION, exchange.on_data)
        handle.setopt(pycurl.HEADERFUNCTION, exchange.on_header)
        span = exchange.request.span
        if span is not None:
            handle.setopt(pycurl.RANGE, f"{span.start}-{span.end - 1}")
        elif handle.ranged:
            handle.unsetopt(pycurl.RANGE)
        handle.ranged = span is not None
        if self._idle_seconds != handle.idle_seconds:
            handle.setopt(pycurl.MAXAGE_CONN, self._idle_seconds)
            handle.idle_seconds = self._idle_seconds
        shown = _shown(exchange, token) if token else ()
        if shown != handle.shown:
            handle.setopt(pycurl.HTTPHEADER, [*shown, _ENCODINGS[self._lane]])
            handle.shown = shown
        self._route(handle, exchange.url)
        return handle

    def give_back(self, handle: Any) -> None:
        if handle.guarded:
            handle.unsetopt(pycurl.OPENSOCKETFUNCTION)
            handle.guarded = False
        if len(self._free) < KEPT_HANDLES:
            self._free.append(handle)
        else:
            handle.close()

    def suspect(self, *, kept: bool) -> None:
        """Say whether connections that were kept may be dead; from the next transfer on."""
        self._idle_seconds = SUSPECT_IDLE_SECONDS if kept else IDLE_SECONDS

    def guard(self, handle: Any, open_socket: Any) -> None:
        """Let `open_socket` decide to which addresses this handle may connect, until it is given back."""
        handle.setopt(pycurl.OPENSOCKETFUNCTION, open_socket)
        handle.guarded = True

    def close(self) -> None:
        for handle in self._free:
            handle.close()
        self._free.clear()

    def _route(self, handle: Any, url: str) -> None:
        if not self._network.proxies:
            return
        handle.proxied = proxy = self._network.proxy(url)
        handle.setopt(pycurl.PROXY, proxy or "")

    def _new(self) -> Any:
        handle = pycurl.Curl()
        handle.shown = ()
        handle.idle_seconds = IDLE_SECONDS
        handle.ranged = handle.guarded = False
        handle.proxied = None
        for option, value in (
            (pycurl.NOSIGNAL, 1),
            (pycurl.PROTOCOLS, pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS),
            (pycurl.FOLLOWLOCATION, 0),  # redirects.py decides, and who gets the token
            (pycurl.PATH_AS_IS, 1),
            (pycurl.HTTP_VERSION, pycurl.CURL_HTTP_VERSION_2TLS),
            (pycurl.PIPEWAIT, 0),  # libcurl 8.23 never wakes who waited for HTTP/2 on what turned out to be HTTP/1
            (pycurl.CONNECTTIMEOUT, CONNECT_SECONDS),
            (pycurl.MAXAGE_CONN, IDLE_SECONDS),
            (pycurl.SOCKOPTFUNCTION, _prepare_socket),
            (pycurl.TCP_KEEPALIVE, 1),
            (pycurl.TCP_KEEPIDLE, KEEPALIVE_SECONDS),
            (pycurl.TCP_KEEPINTVL, KEEPALIVE_SECONDS),
            (pycurl.BUFFERSIZE, _BUFFER_BYTES),
            (pycurl.USERAGENT, f"dagfs/{__version__}"),
            (pycurl.HTTPHEADER, [_ENCODINGS[self._lane]]),  # what `shown` is empty for
            (pycurl.CAPATH if self._network.ca_is_directory else pycurl.CAINFO, self._network.ca),
            (pycurl.PROXY, ""),  # not from the environment: the same decision serves both HTTP libraries
            (pycurl.NOPROXY, ""),
            (_SUPPRESS_CONNECT_HEADERS, 1),
        ):
            handle.setopt(option, value)
        return handle


def _shown(exchange: Exchange, token: str) -> tuple[str, ...]:
    """Give the header lines that show a token to whom the exchange asks, or prove that we have it."""
    if exchange.request.signs:
        return tuple(sigv4.headers(exchange.url, token))
    if exchange.request.basic:
        return ("Authorization: Basic " + base64.b64encode(f"{token}:{token}".encode()).decode(),)
    return (f"Authorization: Bearer {token}",)


def _prepare_socket(fd: int, _purpose: int) -> int:
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        found = socket.socket(fileno=fd)
        try:
            found.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNACKNOWLEDGED_SECONDS * 1000)
        except OSError:
            pass  # not a TCP socket, or a kernel without it: the inactivity deadline is left
        finally:
            found.detach()  # the descriptor is curl's
    return int(pycurl.SOCKOPT_OK)
