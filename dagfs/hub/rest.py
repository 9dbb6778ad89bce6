"""The hub's REST calls that are made rarely: repository, branch, commit, user."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http.cookiejar import DefaultCookiePolicy
from typing import Any
from urllib.parse import urljoin

import requests

from dagfs import __version__
from dagfs.errors import Obstacle, ProtocolError, RemoteError, RemoteUnavailable, Stalled
from dagfs.hub import redirects, reply
from dagfs.hub.auth import Token
from dagfs.hub.naps import Naps
from dagfs.hub.network import Network
from dagfs.hub.retry import Backoff
from dagfs.hub.urls import Origin, origin, redact, redact_proxy
from dagfs.metrics import Metrics

CONNECT_SECONDS = 10
SILENCE_SECONDS = 30
PATIENCE_SECONDS = 40.0
"""One silent answer and a second try: longer than that nobody looks at a prompt."""

TRIES = 3

_UNUSABLE = (requests.exceptions.InvalidSchema, requests.exceptions.InvalidURL)
"""How the library takes a proxy's URL that it can make nothing of: that of the hub is plain."""

MAX_BODY_BYTES = 8 << 20


@dataclass(frozen=True, slots=True)
class RestAnswer:
    """`body`: the JSON of a 200, else None."""

    status: int
    body: Any = None


class Rest:
    """Asks the hub for JSON; thread-safe."""

    def __init__(self, host: str, token: Token, metrics: Metrics, network: Network, naps: Naps | None = None) -> None:
        self._hub = origin(host)
        self._token = token
        self._metrics = metrics
        self._naps = naps or Naps()
        self._closing = threading.Event()
        self._proxy = network.proxy(host)
        self._session = requests.Session()
        self._session.trust_env = False  # else a password of ~/.netrc replaces the token
        self._session.verify = network.ca
        self._session.proxies = {self._hub.scheme: self._proxy} if self._proxy else {}
        self._session.headers["User-Agent"] = f"dagfs/{__version__}"
        self._session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))  # shared state between threads

    def get(self, url: str) -> RestAnswer:
        """Ask until there is an answer below 500. Raises RemoteError."""
        if self._naps.ended():
            self._session.close()  # drops the connections of before; it goes on with new ones
        backoff = Backoff(PATIENCE_SECONDS, self._closing, TRIES)
        while True:
            try:
                return self._ask(url)
            except RemoteError as error:
                self._session.close()  # kept connections may be as dead as this one; the session goes on
                backoff.wait(error)

    def post(self, url: str, form: Mapping[str, str], silence: float = SILENCE_SECONDS) -> RestAnswer:
        """Send a form once, without the token and without following a redirect; the hub may say nothing for `silence`
        seconds. Raises RemoteError."""
        self._metrics.add("hub.requests.rest")
        with (
            self._translated(silence),
            self._session.post(
                url, data=dict(form), timeout=(CONNECT_SECONDS, silence), allow_redirects=False, stream=True
            ) as response,
        ):
            return _answer(response, redact(url))

    @property
    def has_token(self) -> bool:
        return self._token.current() is not None

    def close(self) -> None:
        self._closing.set()
        self._session.close()

    def _ask(self, url: str) -> RestAnswer:
        """Ask once more when the token was refused and there is another one now."""
        before = self._token.current()
        answer = self._follow(url)
        if answer.status == 401 and self._token.current(at_once=True) != before:
            return self._follow(url)
        return answer

    def _follow(self, url: str) -> RestAnswer:
        """Follow redirects within the hub's origin: a renamed repository. Others would have to do without the token."""
        for _ in range(redirects.MAX_HOPS + 1):
            answer, target = self._once(url)
            if target is None:
                return answer
            there = redirects.next_hop(url, target, self._hub)
            if there != self._hub:
                raise ProtocolError(f"{self._hub} redirects to {there}; if that is the hub, name it by --host")
            url = target
        raise ProtocolError(f"more than {redirects.MAX_HOPS} redirects from {redact(url)}")

    def _once(self, url: str) -> tuple[RestAnswer, str | None]:
        """Give the answer, and where it redirects to."""
        self._metrics.add("hub.requests.rest")
        token = self._token.current()
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        timeouts = (CONNECT_SECONDS, SILENCE_SECONDS)
        with (
            self._translated(SILENCE_SECONDS),
            self._session.get(url, headers=headers, timeout=timeouts, allow_redirects=False, stream=True) as response,
        ):
            if response.status_code in redirects.STATUSES:
                return RestAnswer(response.status_code), urljoin(url, response.headers.get("Location", ""))
            return _answer(response, redact(url)), None

    @contextlib.contextmanager
    def _translated(self, silence: float) -> Iterator[None]:
        """Name the library's errors by ours."""
        try:
            yield
        except requests.RequestException as error:
            raise failure(error, self._hub, self._proxy, silence) from None


def failure(
    error: requests.RequestException, hub: Origin, proxy: str | None, silence: float = SILENCE_SECONDS
) -> RemoteError:
    """Give the error that says why there was no answer, for `silence` seconds where that is why."""
    if isinstance(error, requests.Timeout):
        return Stalled(f"no answer from {hub} for {silence:.0f} s")
    unusable = proxy is not None and isinstance(error, _UNUSABLE)
    obstacle = Obstacle.PROXY if unusable else _obstacle(error)
    reason = "its URL is not http://HOST:PORT" if unusable else _reason(error)  # of SOCKS one of our libraries knows
    way = f" through the proxy {redact_proxy(proxy or '')}" if obstacle is Obstacle.PROXY else ""
    return RemoteUnavailable(f"no connection to {hub}{way}: {reason}", obstacle=obstacle)


def _answer(response: requests.Response, url: str) -> RestAnswer:
    status = response.status_code
    if status in (408, 425, 429) or status >= 500:
        asked = reply.retry_after(response.headers.get("Retry-After"), response.headers.get("Date"))
        raise RemoteUnavailable(f"HTTP {status} ({url})", asked)
    if status == 407:  # of a proxy for plain http; for https it refuses the tunnel
        raise RemoteUnavailable(f"HTTP 407 ({url}): the proxy wants a password", obstacle=Obstacle.PROXY)
    if status != 200:
        return RestAnswer(status)
    body = bytearray()
    deadline = time.monotonic() + PATIENCE_SECONDS
    for chunk in response.iter_content(64 << 10):
        body += chunk
        if len(body) > MAX_BODY_BYTES or time.monotonic() > deadline:
            raise ProtocolError(f"an answer without end ({url})")
    try:
        return RestAnswer(status, json.loads(bytes(body)))
    except (ValueError, RecursionError):
        raise ProtocolError(f"an answer that is not JSON ({url})") from None


def _obstacle(error: requests.RequestException) -> Obstacle | None:
    if isinstance(error, requests.exceptions.ProxyError):
        return Obstacle.PROXY
    if isinstance(error, requests.exceptions.SSLError):
        return Obstacle.CERTIFICATE
    return Obstacle.NAME if isinstance(_bottom(error), socket.gaierror) else None


def _reason(error: BaseException) -> str:
    """Find the cause at the bottom: the library's own text repeats the URL and object addresses."""
    bottom = _bottom(error)
    if isinstance(bottom, ssl.SSLCertVerificationError):
        return f"its certificate is refused, {bottom.verify_message.rstrip('.')}"
    return str(getattr(bottom, "strerror", None) or type(bottom).__name__)


def _bottom(error: BaseException) -> BaseException:
    seen: BaseException = error
    while True:
        inner = seen.__cause__ or seen.__context__ or next((a for a in seen.args if isinstance(a, BaseException)), None)
        inner = getattr(seen, "reason", None) if isinstance(getattr(seen, "reason", None), BaseException) else inner
        if inner is None:
            return seen
        seen = inner
