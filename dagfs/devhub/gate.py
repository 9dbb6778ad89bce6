"""Who may come in: the optional token, in each of the forms that the hub takes."""

from __future__ import annotations

import base64
import binascii
import hmac

from dagfs.devhub.wire import HttpError, Request


class Gate:
    """Lets everybody in when there is no token, else who has it. `token` may be exchanged while the hub runs."""

    def __init__(self, token: str | None) -> None:
        self.token = token

    @property
    def private(self) -> bool:
        return self.token is not None

    def repository(self, request: Request) -> None:
        """Check access to the private repository: 401 for a wrong token, and no hint without one. Raises HttpError."""
        if not self._knows(request):
            raise HttpError(404, "not found")

    def person(self, request: Request) -> None:
        """Check who asks where an answer needs somebody. Raises HttpError 401."""
        if not self._knows(request):
            raise HttpError(401, "a token is needed", WWW_Authenticate='Basic realm="dagfs serve"')

    def key(self, access_key: str | None) -> bool:
        """Tell whether the access key of an S3 request opens: any does where there is no token, or none at all."""
        return self.token is None or hmac.compare_digest((access_key or "").encode(), self.token.encode())

    def _knows(self, request: Request) -> bool:
        """Tell whether the request has the token; False when it has none at all. Raises HttpError 401."""
        if self.token is None:
            return True
        shown = _tokens(request)
        if not shown:
            return False
        if not any(hmac.compare_digest(token.encode(), self.token.encode()) for token in shown):
            raise HttpError(401, "this token is not known here", WWW_Authenticate='Basic realm="dagfs serve"')
        return True


def _tokens(request: Request) -> list[str]:
    """Give what a request shows: a Bearer or `token` header, both halves of Basic, or ?token=."""
    header = request.headers.get("authorization")
    if header is None:
        return [request.query["token"]] if "token" in request.query else []
    scheme, _, value = header.partition(" ")
    if scheme.lower() != "basic":
        return [value.strip()]
    try:
        user, _, password = base64.b64decode(value, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return [""]
    return [user, password]
