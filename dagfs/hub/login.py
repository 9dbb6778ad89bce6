"""Logging in: by the browser, as the DagsHub client does it, or with a token at hand; and whose a token is."""

from __future__ import annotations

import hashlib
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any
from urllib.parse import urlencode

from dagfs.errors import BadToken, LoginFailed, RemoteError, RemoteUnavailable, Stalled
from dagfs.hub import urls
from dagfs.hub.auth import Token, is_plain, moment
from dagfs.hub.client_tokens import APP, NEVER, OAUTH, StoredToken
from dagfs.hub.network import Network
from dagfs.hub.rest import Rest
from dagfs.hub.revisions import unreachable
from dagfs.metrics import Metrics

CLIENT_ID = "32b60ba385aa7cecf24046d8195a71c07dd345d9657977863b52e7748e0f0f28"
"""Of the DagsHub client, whose kind of login this is."""

WAIT_SECONDS = 600.0
"""How long somebody may take to answer in the browser."""

HELD_SECONDS = 3.0
"""A connection that ends sooner was refused; one that was held so long was cut by a gateway, and is made again."""


@dataclass(frozen=True, slots=True)
class User:
    """Whose a token is."""

    login: str
    full_name: str = ""

    def __str__(self) -> str:
        return f"{self.login} ({self.full_name})" if self.full_name not in ("", self.login) else self.login


@dataclass(frozen=True, slots=True)
class Request:
    """One login by the browser: random, so that nobody else can ask for its answer."""

    host: str
    client_id: str
    state: str = field(default_factory=lambda: str(uuid.uuid4()))
    number: str = field(default_factory=lambda: hashlib.sha256(uuid.uuid4().bytes).hexdigest())

    @property
    def url(self) -> str:
        """What is to be opened in a browser."""
        query = {"state": self.state, "client_id": self.client_id, "middleman_request_id": self.number}
        return f"{self.host}/login/oauth/authorize?{urlencode(query)}"


class Hub:
    """A hub to log in to. Used by one thread. Errors: LoginFailed, BadToken, HubUnreachable."""

    def __init__(self, host: str, environment: Mapping[str, str], token: Token | None = None) -> None:
        self.host = urls.check_host(host)
        self._client_id = environment.get("DAGSHUB_CLIENT_ID") or CLIENT_ID
        self._network = Network.of(environment)
        self._rest = self._connect(token or Token("nowhere", None))

    def _connect(self, token: Token) -> Rest:
        return Rest(self.host, token, Metrics(), self._network)

    def begin(self) -> Request:
        """Give a new login, whose URL somebody has to open."""
        return Request(self.host, self._client_id)

    def finish(self, request: Request, seconds: float = WAIT_SECONDS) -> StoredToken:
        """Wait until somebody has allowed the login in a browser, at most so many seconds; give the token."""
        code = self._code(request, seconds)
        form = {"client_id": request.client_id, "code": code, "state": request.state}
        try:
            answer = self._rest.post(f"{self.host}/login/oauth/access_token", form)
        except RemoteError as error:
            raise unreachable(f"{self.host} gives no usable answer ({error})", error) from error
        if answer.status != 200:
            raise LoginFailed(f"{self.host} gave no token (HTTP {answer.status}): `dagfs login` again")
        return _granted(answer.body, self.host)

    def user(self, value: str | None = None) -> User:
        """Tell whose a token is: `value`, or the one that this hub was made with."""
        rest = self._rest if value is None else self._connect(Token("the command", value))
        try:
            answer = rest.get(f"{urls.api(self.host)}/user")
        except RemoteError as error:
            raise unreachable(f"{self.host} gives no usable answer ({error})", error) from error
        finally:
            if rest is not self._rest:
                rest.close()
        body = answer.body if isinstance(answer.body, dict) else {}
        login, full_name = body.get("login") or body.get("username"), body.get("full_name")
        if answer.status != 200 or not isinstance(login, str):
            text = f"{self.host} does not accept the token (HTTP {answer.status})"
            raise BadToken(f"{text}; make a new one at {self.host}/user/settings/tokens, or `dagfs login`")
        return User(login, full_name if isinstance(full_name, str) else "")

    def close(self) -> None:
        self._rest.close()

    def _code(self, request: Request, seconds: float) -> str:
        """The hub answers when somebody has allowed it. Gateways do not hold a silent connection for that long."""
        deadline = time.monotonic() + seconds
        while (begun := time.monotonic()) < deadline:
            form = {"request_id": request.number}
            try:
                answer = self._rest.post(f"{self.host}/login/oauth/middleman", form, deadline - begun)
            except Stalled:
                break
            except RemoteUnavailable as error:
                if time.monotonic() - begun < HELD_SECONDS:
                    raise unreachable(f"{self.host} does not let us wait for the login ({error})", error) from error
                continue
            except RemoteError as error:
                raise unreachable(f"{self.host} gives no usable answer ({error})", error) from error
            if answer.status != 200 or not isinstance(answer.body, str):
                raise LoginFailed(f"{self.host} did not allow the login (HTTP {answer.status})")
            return answer.body
        raise LoginFailed(f"nobody allowed the login within {seconds:.0f} s: `dagfs login` again, or `--token`")


def app_token(value: str) -> StoredToken:
    """Give a token of the user's settings page as it is stored. Raises BadToken for what cannot be one."""
    if not is_plain(value):
        raise BadToken("that is no token: one word of printable characters is expected")
    return StoredToken(value, NEVER, APP)


def _granted(body: Any, host: str) -> StoredToken:
    """Read the hub's answer; the expiry is written as the client writes it, with microseconds, in UTC."""
    told = body if isinstance(body, dict) else {}
    value, expiry = told.get("access_token"), told.get("expiry")
    seconds = moment(expiry) if isinstance(expiry, str) else None
    if not isinstance(value, str) or not is_plain(value) or seconds is None:
        raise LoginFailed(f"{host} gave no token that makes sense; `dagfs login --token` takes one by hand")
    written = datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return StoredToken(value, written, OAUTH)
