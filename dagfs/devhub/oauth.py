"""Logging in by a browser, as the DagsHub client does it: a page to allow it, who waits for that, and the token."""

from __future__ import annotations

import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from urllib.parse import parse_qsl

from dagfs.devhub.gate import Gate
from dagfs.devhub.wire import Exchange, HttpError, Response, in_memory, json_response

PREFIX = b"/login/oauth/"
WAIT_SECONDS = 600.0
KEPT = 100  # logins that were allowed and not fetched
VALID = timedelta(days=30)

_PAGE = b"<!doctype html><title>dagfs serve</title><p>The login is allowed. You can close this page."


@dataclass(frozen=True, slots=True)
class _Allowed:
    client_id: str
    state: str
    code: str


class Logins:
    """Thread-safe. Whoever may use the repository may log in: opening the page is the permission, and where the hub has
    a token, the page asks for it as a password."""

    def __init__(self, gate: Gate, seconds: float = WAIT_SECONDS) -> None:
        self._gate = gate
        self._seconds = seconds
        self._changed = threading.Condition()  # guards everything below
        self._allowed: OrderedDict[str, _Allowed] = OrderedDict()  # by the number that the waiting client made up
        self._codes: OrderedDict[str, _Allowed] = OrderedDict()  # handed out, and good for one token
        self._closed = False

    def __call__(self, exchange: Exchange) -> Response:
        """Answer a request below /login/oauth/. Raises HttpError."""
        exchange.kind = "login"
        routes: dict[tuple[str, bytes], Callable[[Exchange], Response]] = {
            ("GET", b"authorize"): self._authorize,
            ("POST", b"middleman"): self._middleman,
            ("POST", b"access_token"): self._access_token,
        }
        route = routes.get((exchange.request.method, exchange.request.path.removeprefix(PREFIX)))
        if route is None:
            raise HttpError(404, "not found")
        return route(exchange)

    def close(self) -> None:
        """Send everybody away who waits."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _authorize(self, exchange: Exchange) -> Response:
        self._gate.person(exchange.request)
        query = exchange.request.query
        number = query.get("middleman_request_id", "")
        if not number or not query.get("client_id") or not query.get("state"):
            raise HttpError(400, "a login without client_id, state and middleman_request_id")
        with self._changed:
            self._allowed[number] = _Allowed(query["client_id"], query["state"], secrets.token_hex(16))
            _bound(self._allowed)
            self._changed.notify_all()
        return in_memory(_PAGE, "text/html; charset=utf-8")

    def _middleman(self, exchange: Exchange) -> Response:
        number = _form(exchange).get("request_id", "")
        with self._changed:
            self._changed.wait_for(lambda: self._closed or number in self._allowed, self._seconds)
            allowed = self._allowed.pop(number, None)
            if allowed is None:
                raise HttpError(504, "nobody has allowed it")
            self._codes[allowed.code] = allowed
            _bound(self._codes)
        return json_response(allowed.code)

    def _access_token(self, exchange: Exchange) -> Response:
        form = _form(exchange)
        with self._changed:
            allowed = self._codes.pop(form.get("code", ""), None)
        if allowed is None or (allowed.client_id, allowed.state) != (form.get("client_id"), form.get("state")):
            raise HttpError(401, "not a code of this login")
        until = (datetime.now(timezone.utc) + VALID).strftime("%Y-%m-%dT%H:%M:%S.%f000Z")  # nine digits, as Go has them
        token = self._gate.token or secrets.token_hex(20)
        kind = "bearer"  # nosec B105 -- a word of the protocol
        return json_response({"access_token": token, "expiry": until, "token_type": kind})


def _form(exchange: Exchange) -> dict[str, str]:
    return dict(parse_qsl(exchange.request.body.decode("utf-8", "replace")))


def _bound(kept: OrderedDict[str, _Allowed]) -> None:
    while len(kept) > KEPT:
        kept.popitem(last=False)
