"""Listening sockets, and a thread for each connection: requests in, answers out, until the hub stops."""

from __future__ import annotations

import logging
import select
import socket
import struct
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

from dagfs.devhub.behaviour import Behaviour, FaultHook, RequestInfo
from dagfs.devhub.link import Link
from dagfs.devhub.record import Record, Requests
from dagfs.devhub.send import Channel, Sender
from dagfs.devhub.wire import Disconnected, Exchange, HttpError, Reader, Response, head_bytes, refusal
from dagfs.errors import NotADirectory, NotFound

log = logging.getLogger(__name__)

MAX_CONNECTIONS = 512
"""Threads at most. The DagsHub client opens 32 connections, and a training job a few hundred at worst."""

_IDLE_SECONDS = 75
"""A connection that says nothing, or takes nothing, for this long is closed."""

_GRACE_SECONDS = 2.0
"""How long a stopping hub lets answers under way come to their end."""

Handler = Callable[[Exchange], Response]
"""Answers a request; raises HttpError, NotFound, NotADirectory."""


@dataclass(frozen=True, slots=True)
class Manners:
    """How answers are sent: the hub's behaviour, `latency` in seconds, and the link they all share."""

    behaviour: Behaviour
    fault: FaultHook
    latency: float
    link: Link | None


class Server:
    """A listening port on 127.0.0.1. Locks: `_lock` is never held while anything blocks."""

    def __init__(self, port: int, handler: Handler, manners: Manners, requests: Requests) -> None:
        self._handler = handler
        self._manners = manners
        self._requests = requests
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._connections: dict[socket.socket, threading.Thread] = {}  # under the lock: exactly those not yet closed
        self._listener = _listen(port)
        self.port: int = self._listener.getsockname()[1]
        self._wake, self._waker = socket.socketpair()
        self._acceptor = threading.Thread(target=self._accept, name=f"hub-{self.port}", daemon=True)

    def start(self) -> None:
        self._acceptor.start()

    def stop(self) -> None:
        """Accept nothing more, end every connection, and wait for their threads."""
        self._stopping.set()
        self._waker.close()
        if self._acceptor.ident is not None:
            self._acceptor.join()
        self._listener.close()
        self._wake.close()
        with self._lock:
            threads = list(self._connections.values())
        self._shut(socket.SHUT_RD)  # the idle ones end; an answer that is under way may go on
        patience = time.monotonic() + _GRACE_SECONDS
        for thread in threads:
            thread.join(max(0.0, patience - time.monotonic()))
        self._shut(socket.SHUT_RDWR)
        for thread in threads:
            thread.join(_GRACE_SECONDS)

    def _accept(self) -> None:
        while not self._stopping.is_set():
            ready, _, _ = select.select([self._listener, self._wake], [], [])
            if self._wake in ready:
                return
            try:
                connection, _ = self._listener.accept()
            except OSError as error:  # the client has gone again, or there are no descriptors: the next may work
                log.warning("a connection was not accepted: %s", error)
                self._stopping.wait(0.01)
                continue
            self._take(connection)

    def _take(self, connection: socket.socket) -> None:
        thread = threading.Thread(target=self._serve, args=(connection,), name=f"hub-{self.port}-client", daemon=True)
        with self._lock:
            welcome = len(self._connections) < MAX_CONNECTIONS
            if welcome:
                self._connections[connection] = thread
        if welcome:
            thread.start()
        else:
            connection.close()

    def _shut(self, how: int) -> None:
        with self._lock:  # a connection in the table is open, so no other has its descriptor
            for connection in self._connections:
                try:
                    connection.shutdown(how)
                except OSError:
                    pass

    def _serve(self, connection: socket.socket) -> None:
        try:
            _prepare(connection)
            self._converse(connection)
        except (Disconnected, OSError):
            pass
        finally:
            with self._lock:
                del self._connections[connection]
            connection.close()

    def _converse(self, connection: socket.socket) -> None:
        manners = self._manners
        cap = manners.behaviour.connection_bandwidth
        links = [link for link in (Link(cap) if cap else None, manners.link) if link is not None]
        reader = Reader(connection)
        sender = Sender(connection, manners.behaviour, self._requests, Channel(tuple(links), self._stopping))
        while not self._stopping.is_set():
            try:
                request = reader.next()
            except HttpError as error:
                self._refuse(connection, error)
                return
            with ExitStack() as held:
                if not self._answer(Exchange(request, held), sender):
                    return

    def _answer(self, exchange: Exchange, sender: Sender) -> bool:
        """Answer one request; tell whether the connection can be used again."""
        manners = self._manners
        if manners.latency:
            self._stopping.wait(manners.latency)
        response = self._respond(exchange)
        request = exchange.request
        number = self._requests.next_number(exchange.kind, exchange.path)
        span = request.headers.get("range")
        fault = manners.fault(RequestInfo(request.method, exchange.kind, exchange.path, span, number))
        return sender.send(exchange, response, fault)

    def _respond(self, exchange: Exchange) -> Response:
        request = exchange.request
        exchange.path = request.path.decode("utf-8", "surrogateescape")
        try:
            self._check_method(request.method)
            return self._handler(exchange)
        except (NotFound, NotADirectory) as error:
            return refusal(HttpError(404, str(error)))
        except HttpError as error:
            return refusal(error)
        except Exception:
            log.exception("%s %s failed", request.method, request.target)
            return refusal(HttpError(500, "the hub failed; its log has the reason"))

    def _check_method(self, method: str) -> None:
        if method == "HEAD" and not self._manners.behaviour.head:
            raise HttpError(405, "HEAD is not answered here", Allow="GET")

    def _refuse(self, connection: socket.socket, error: HttpError) -> None:
        """Answer what could not be read; where the next request begins is not known, so this was the last."""
        self._requests.begin(Record("", "rest", "", error.status))
        response = refusal(error)
        headers = response.headers | {"Content-Length": str(response.end), "Connection": "close"}
        connection.sendall(head_bytes(error.status, headers) + b"".join(response.body.read(0, response.end)))


def _listen(port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen(MAX_CONNECTIONS)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener


def _prepare(connection: socket.socket) -> None:
    """Set the deadlines in the kernel: a timeout of Python's own costs a poll before each call."""
    connection.setblocking(True)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    deadline = struct.pack("ll", _IDLE_SECONDS, 0)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, deadline)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, deadline)
