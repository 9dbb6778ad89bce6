from __future__ import annotations

import threading
from dataclasses import dataclass, field

import pytest
from support.scripted_hub import ScriptedHub

from dagfs.devhub.serve import Hub
from dagfs.errors import DagfsError
from dagfs.hub.api import HubSource, connect
from dagfs.hub.auth import Token
from dagfs.hub.curl.exchange import Lane, Request
from dagfs.hub.curl.transport import Transport
from dagfs.hub.network import Network
from dagfs.hub.rest import Rest
from dagfs.hub.source import BodyHead
from dagfs.hub.urls import parse_repo
from dagfs.metrics import Metrics
from dagfs.model import RepoRef, Span

DEADLINE = 20


@dataclass
class Sink:
    """Keeps what it is told, in `order` as well, so that a test can see that nothing follows the end."""

    heads: list[BodyHead] = field(default_factory=list)
    body: bytearray = field(default_factory=bytearray)
    errors: list[DagfsError | None] = field(default_factory=list)
    order: list[str] = field(default_factory=list)
    began: threading.Event = field(default_factory=threading.Event)
    got_data: threading.Event = field(default_factory=threading.Event)
    ended: threading.Event = field(default_factory=threading.Event)

    def head(self, head: BodyHead) -> None:
        self.order.append("head")
        self.heads.append(head)
        self.began.set()

    def data(self, chunk: bytes) -> None:
        self.order.append("data")
        self.body += chunk
        self.got_data.set()

    def done(self, error: DagfsError | None) -> None:
        self.order.append("done")
        self.errors.append(error)
        self.ended.set()

    @property
    def error(self) -> DagfsError | None:
        assert self.ended.wait(DEADLINE), "the transfer does not end"
        assert len(self.errors) == 1
        return self.errors[0]


@pytest.fixture
def hub():
    hub = ScriptedHub()
    yield hub
    hub.stop()


@pytest.fixture
def elsewhere():
    """Another origin: the same machine, another port."""
    server = ScriptedHub()
    yield server
    server.stop()


@pytest.fixture
def metrics():
    return Metrics()


@pytest.fixture
def stall_after():
    """Seconds; a test of silence overrides it by parametrization."""
    return 60.0


@pytest.fixture
def transport(hub, metrics, stall_after):
    transport = Transport(hub.url, Token("a test", "s3cret-token"), metrics, Network.of({}), stall_after)
    yield transport
    transport.close()


@pytest.fixture
def fetch(transport):
    """Transfer a URL to its end and give the sink."""

    def fetch(url: str, span: Span | None = None, lane: Lane = Lane.RAW) -> Sink:
        sink = Sink()
        transport.get(Request(url, lane, span), sink)
        assert sink.ended.wait(DEADLINE), "the transfer does not end"
        assert sink.order[-1] == "done"
        return sink

    return fetch


@pytest.fixture
def source(hub, metrics, transport):
    repo = RepoRef(hub.url, "owner", "name")
    network = Network.of({})
    token = Token("a test", "s3cret-token")
    source = HubSource(repo, transport, Rest(hub.url, token, metrics, network), metrics, patience=3.0)
    yield source
    source.close()


@pytest.fixture
def sink_type():
    return Sink


@pytest.fixture
def fetch_from(stall_after):
    """Transfer a page of a hub of its own and give the sink."""

    def fetch_from(host: str) -> Sink:
        sink = Sink()
        transport = Transport(host, Token("a test", None), Metrics(), Network.of({}), stall_after)
        transport.get(Request(f"{host}/f", Lane.RAW), sink)
        assert sink.ended.wait(DEADLINE), "the transfer does not end"
        transport.close()
        return sink

    return fetch_from


@pytest.fixture
def connected():
    """Connect to a hub as a mount does."""
    sources = []

    def connected(hub: Hub, token: str | None = None) -> HubSource:
        repo, _ = parse_repo(hub.url, "https://dagshub.com")
        sources.append(connect(repo, Token("a test", token), Metrics(), {}))
        return sources[-1]

    yield connected
    for source in sources:
        source.close()
