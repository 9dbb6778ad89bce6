"""A way to a hub that can be cut: a TCP relay on 127.0.0.1, in threads of its own."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from pathlib import Path
from urllib.parse import urlsplit


class Relay:
    """Passes connections on to `target` (a URL's origin). `url` stays the same whatever happens to it.

    `connections` counts those taken. `cut` ends all and takes no more (refused), `mend` takes them again; `swallow`
    leaves those that are open, and reads what comes on them into nothing, as a firewall does that has forgotten them.
    `dark` makes new ones swallowed from the start. `certificate`: answers by TLS, with this key and certificate.
    `address`: where it listens.
    """

    def __init__(self, target: str, certificate: Path | None = None, address: str = "127.0.0.1") -> None:
        place = urlsplit(target)
        self._target = (place.hostname, place.port)
        self.certificate = certificate
        self._address = address
        self.connections = 0
        self.dark = False
        self._lock = threading.Lock()
        self._pairs: list[Pair] = []
        self._listener: socket.socket | None = None
        self._port = 0
        self.mend()
        self.url = f"http{'s' if certificate else ''}://{address}:{self._port}"

    def mend(self) -> None:
        """Take connections again, at the same port."""
        listener = socket.create_server((self._address, self._port), backlog=128)
        self._port = listener.getsockname()[1]
        self._listener = listener
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def cut(self) -> None:
        listener, self._listener = self._listener, None
        if listener is not None:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        with self._lock:
            pairs, self._pairs = self._pairs, []
        for pair in pairs:
            pair.close()

    def swallow(self) -> None:
        with self._lock:
            for pair in self._pairs:
                pair.dark = True

    def __enter__(self) -> Relay:
        return self

    def __exit__(self, *_: object) -> None:
        self.cut()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                near, _ = listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(near, listener), daemon=True).start()

    def _serve(self, near: socket.socket, listener: socket.socket) -> None:
        try:
            if self.certificate is not None:
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                context.load_cert_chain(self.certificate)
                near.settimeout(10)
                near = context.wrap_socket(near, server_side=True)
                near.settimeout(None)
            far = socket.create_connection(self._target, 10)
            far.settimeout(None)
        except OSError:  # a client that does not like the certificate, or no hub
            near.close()
            return
        pair = Pair(near, far, dark=self.dark)
        with self._lock:
            if self._listener is listener:
                self._pairs.append(pair)
        for one, other in ((near, far), (far, near)):
            threading.Thread(target=pair.pump, args=(one, other), daemon=True).start()


class Pair:
    """A connection and its other half."""

    def __init__(self, near: socket.socket, far: socket.socket, *, dark: bool) -> None:
        self._sockets = (near, far)
        self.dark = dark

    def pump(self, one: socket.socket, other: socket.socket) -> None:
        with contextlib.suppress(OSError, ValueError):
            while chunk := one.recv(1 << 16):
                if not self.dark:
                    other.sendall(chunk)
        if not self.dark:
            self.close()

    def close(self) -> None:
        for one in self._sockets:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            with contextlib.suppress(OSError):
                one.close()
