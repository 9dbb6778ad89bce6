"""The control socket of a mount: one JSON line asks, JSON lines answer. Owner only, checked by peer credentials."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import socketserver
import struct
import threading
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from dagfs.config import private_directory
from dagfs.daemon.logs import redact
from dagfs.errors import DagfsError

log = logging.getLogger(__name__)

Message = dict[str, Any]
Operation = Callable[[Message], Iterable[Message]]

END: Message = {"end": True}
"""The last line of every answer: without it, a daemon that died would look as if it had finished."""

REQUEST_BYTES = 1 << 20
"""Bytes of one request line: the paths of a long `dagfs warm` command."""

QUESTION_SECONDS = 5.0
"""Who has connected has a question; each that says nothing would hold a thread for ever."""


class ControlServer:
    """Answers on `path` in threads of its own until closed; `operations` maps a request's "op" to its answers."""

    def __init__(self, path: Path, operations: dict[str, Operation]) -> None:
        private_directory(path.parent)
        path.unlink(missing_ok=True)
        with _reachable(path) as address:
            self._server = _Server(address, operations)
        path.chmod(0o600)
        self._path = path
        self._thread = threading.Thread(target=self._server.serve_forever, name="control", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, address: str, operations: dict[str, Operation]) -> None:
        self.operations = operations
        super().__init__(address, _Connection)


class _Connection(socketserver.StreamRequestHandler):
    server: _Server

    def handle(self) -> None:
        if not _same_user(self.request):
            return
        with contextlib.suppress(ConnectionError, TimeoutError):
            self.request.settimeout(QUESTION_SECONDS)
            line = self.rfile.readline(REQUEST_BYTES)
            self.request.settimeout(None)  # the answers are taken as fast as somebody likes
            for answer in chain(self._answers(line), (END,)):
                self.wfile.write(json.dumps(answer).encode() + b"\n")

    def _answers(self, line: bytes) -> Iterator[Message]:
        try:
            request = json.loads(line)
            operation = self.server.operations[request["op"]]
        except (ValueError, KeyError, TypeError, RecursionError):
            yield {"error": "not a request that this daemon knows"}
            return
        try:
            yield from operation(request)
        except DagfsError as error:
            yield {"error": redact(str(error))}
        except Exception as error:
            log.exception("a request on the control socket failed")
            yield {"error": redact(f"{type(error).__name__}: {error}")}


def ask(path: Path, request: Message, timeout: float) -> Iterator[Message]:
    """Send a request and yield the answers; `timeout` in seconds between two of them. Raises OSError when nobody
    answers, or the daemon ends before it has said all."""
    with _reachable(path) as address, socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as channel:
        channel.settimeout(timeout)
        channel.connect(address)
        channel.sendall(json.dumps(request).encode() + b"\n")
        with channel.makefile("rb") as lines:
            for line in lines:
                answer = json.loads(line)
                if answer == END:
                    return
                yield answer
    raise ConnectionError("it ended before it had finished")


@contextlib.contextmanager
def _reachable(path: Path) -> Iterator[str]:
    """Give a name of `path` that fits into the 107 bytes of a socket address."""
    if len(os.fsencode(path)) < 100 or not os.path.isdir("/proc/self/fd"):
        yield str(path)
        return
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)


def _same_user(channel: socket.socket) -> bool:
    if not hasattr(socket, "SO_PEERCRED"):
        return True  # the directory's mode is the guard where the kernel does not name its peers
    credentials = channel.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    user = struct.unpack("3i", credentials)[1]
    return user in (os.geteuid(), 0)
