"""A small HTTP proxy on 127.0.0.1: GET of whole URLs, CONNECT for what is encrypted. Remembers what it was shown."""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

PASSED = ("authorization", "range", "accept-encoding")


class Proxy:
    """`status`: what every request is answered with in place of being passed on, None to pass it on.

    `asked` has (method, target, headers in lower case) of each request that was sent to the proxy itself; what goes
    through a tunnel is not seen, as with a real one.
    """

    def __init__(self, status: int | None = None) -> None:
        self.status = status
        self.asked: list[tuple[str, str, dict[str, str]]] = []
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_args) -> None:
                pass

            def do_GET(self) -> None:
                proxy._pass_on(self)

            def do_CONNECT(self) -> None:
                proxy._tunnel(self)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _refused(self, handler: BaseHTTPRequestHandler) -> bool:
        headers = {name.lower(): value for name, value in handler.headers.items()}
        self.asked.append((handler.command, handler.path, headers))
        if self.status is not None:
            handler.send_response(self.status)
            handler.send_header("Content-Length", "0")
            handler.end_headers()
        return self.status is not None

    def _pass_on(self, handler: BaseHTTPRequestHandler) -> None:
        if self._refused(handler):
            return
        there = urlsplit(handler.path)
        onward = http.client.HTTPConnection(there.netloc, timeout=20)
        headers = {name: value for name, value in handler.headers.items() if name.lower() in PASSED}
        onward.request("GET", handler.path[handler.path.index(there.netloc) + len(there.netloc) :], headers=headers)
        answer = onward.getresponse()
        body = answer.read()
        handler.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("connection", "transfer-encoding", "content-length", "date", "server"):
                handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)
        onward.close()

    def _tunnel(self, handler: BaseHTTPRequestHandler) -> None:
        if self._refused(handler):
            return
        host, _, port = handler.path.rpartition(":")
        far = socket.create_connection((host, int(port)), 20)
        far.settimeout(None)
        handler.send_response(200)
        handler.end_headers()
        handler.wfile.flush()
        handler.close_connection = True
        near = handler.connection
        back = threading.Thread(target=_pump, args=(far, near), daemon=True)
        back.start()
        _pump(near, far)
        back.join(20)
        far.close()


def _pump(one: socket.socket, other: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while chunk := one.recv(1 << 16):
            other.sendall(chunk)
    with contextlib.suppress(OSError):
        other.shutdown(socket.SHUT_WR)
