"""An HTTP server that answers each path as the test says, faults included, and remembers what it was asked."""

from __future__ import annotations

import re
import socket
import ssl
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

CERTIFICATE = Path(__file__).with_name("localhost.pem")
"""Key and certificate for 127.0.0.1 until 2126, made with openssl for these tests."""


@dataclass
class Answer:
    """`length`: False sends no Content-Length but closes. `cut`: bytes of the body before the connection ends.
    `ranges`: honour Range. `gate`: an Event that the body (after `before_gate` bytes) waits for. `wire`: writes all of
    the answer by itself, head included; what it yields is sent until the client has gone."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    length: bool = True
    chunked: bool = False
    cut: int | None = None
    ranges: bool = False
    gate: threading.Event | None = None
    before_gate: int = 0
    wire: Callable[[], Iterable[bytes]] | None = None


@dataclass
class Asked:
    path: str
    headers: dict[str, str]  # names in lower case
    client: tuple[str, int]


class ScriptedHub:
    """On 127.0.0.1; with `tls` by the certificate in CERTIFICATE, which nobody trusts unless told to."""

    def __init__(self, *, tls: bool = False) -> None:
        self.asked: list[Asked] = []
        self.connections = 0
        self._answers: dict[str, list[Answer]] = {}
        hub = self

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128

            def get_request(self):
                hub.connections += 1
                return super().get_request()

            def handle_error(self, request, client_address) -> None:
                pass  # clients that hang up are part of the tests

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True
            wbufsize = -1

            def log_message(self, *_args) -> None:
                pass

            def do_GET(self) -> None:
                hub._serve(self)

        self._server = Server(("127.0.0.1", 0), Handler)
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(CERTIFICATE)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.url = f"http{'s' if tls else ''}://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    def on(self, path: str, *answers: Answer) -> str:
        """Script a path (as sent, with its query): the answers in turn, the last one for ever; give its URL."""
        self._answers[path] = list(answers)
        return self.url + path

    def count(self, path: str) -> int:
        return sum(asked.path == path for asked in self.asked)

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _serve(self, handler: BaseHTTPRequestHandler) -> None:
        headers = {name.lower(): value for name, value in handler.headers.items()}
        self.asked.append(Asked(handler.path, headers, handler.client_address))
        answers = self._answers.get(handler.path)
        answer = Answer(404, b"no such page") if not answers else answers.pop(0) if len(answers) > 1 else answers[0]
        if answer.wire is not None:
            handler.close_connection = True
            for piece in answer.wire():
                handler.wfile.write(piece)
        else:
            _send(handler, _ranged(answer, headers.get("range")))


def _ranged(answer: Answer, wanted: str | None) -> Answer:
    match = re.fullmatch(r"bytes=(\d+)-(\d+)", wanted or "")
    if not (answer.ranges and match):
        return answer
    total = len(answer.body)
    start, end = int(match[1]), min(int(match[2]) + 1, total)
    if start >= total:
        return Answer(416, b"", {**answer.headers, "Content-Range": f"bytes */{total}"})
    headers = {**answer.headers, "Content-Range": f"bytes {start}-{end - 1}/{total}"}
    return Answer(206, answer.body[start:end], headers, cut=answer.cut, chunked=answer.chunked)


def _send(handler: BaseHTTPRequestHandler, answer: Answer) -> None:
    handler.send_response(answer.status)
    for name, value in answer.headers.items():
        handler.send_header(name, value)
    if answer.chunked:
        handler.send_header("Transfer-Encoding", "chunked")
    elif answer.length and "Content-Length" not in answer.headers:
        handler.send_header("Content-Length", str(len(answer.body)))
    elif not answer.length:
        handler.send_header("Connection", "close")
        handler.close_connection = True
    handler.end_headers()
    body = answer.body if answer.cut is None else answer.body[: answer.cut]
    write: Callable[[bytes], object] = handler.wfile.write if not answer.chunked else _chunks(handler)
    if answer.gate is not None:
        write(body[: answer.before_gate])
        handler.wfile.flush()
        answer.gate.wait(30)
        body = body[answer.before_gate :]
    write(body)
    if answer.cut is not None:
        handler.wfile.flush()
        handler.close_connection = True
        handler.connection.shutdown(socket.SHUT_RDWR)
    elif answer.chunked:
        handler.wfile.write(b"0\r\n\r\n")


def _chunks(handler: BaseHTTPRequestHandler) -> Callable[[bytes], object]:
    def write(body: bytes) -> None:
        for i in range(0, len(body), 5000):
            part = body[i : i + 5000]
            handler.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))

    return write
