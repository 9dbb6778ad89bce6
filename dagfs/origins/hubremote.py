"""A DVC remote at the hub itself, `https://HUB/OWNER/NAME.dvc`: over the hub's own connections."""

from __future__ import annotations

from typing import Protocol

from dagfs.hub.source import BodySink, Transfer
from dagfs.model import Span


class Hub(Protocol):
    """The part of `hub.api.HubSource` that this needs."""

    def remote_object(self, url: str, span: Span | None, sink: BodySink) -> Transfer: ...


class HubRemote:
    """Implements `seam.Origin`; its word for a size is the hub's."""

    def __init__(self, hub: Hub, url: str) -> None:
        self.vouches = True
        self._hub = hub
        self._url = url.rstrip("/")

    def get(self, key: str, span: Span | None, sink: BodySink) -> Transfer:
        return self._hub.remote_object(f"{self._url}/{key}", span, sink)

    def close(self) -> None:
        """The connections are the hub's."""
