"""Proxies, addresses and connections: the same for both HTTP libraries, and the token only where it belongs."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from email.utils import formatdate

import pytest
from support.proxy import Proxy
from support.relay import Relay
from support.scripted_hub import CERTIFICATE, Answer, ScriptedHub

from dagfs.errors import (
    BadToken,
    HubNotFound,
    HubNotTrusted,
    HubUnreachable,
    Obstacle,
    ProxyUnreachable,
    RemoteUnavailable,
    Stalled,
)
from dagfs.hub import naps, reply, rest, retry
from dagfs.hub.api import connect
from dagfs.hub.auth import Token
from dagfs.hub.curl import handles
from dagfs.hub.curl.exchange import Lane, Request
from dagfs.hub.curl.transport import Transport
from dagfs.hub.naps import Naps
from dagfs.hub.network import Network
from dagfs.metrics import Metrics
from dagfs.model import Commit, Entry, Kind, RepoRef, Versioning

SECRET = "s3cret-token"
REPO = "/api/v1/repos/owner/name"
SHA = "0123456789abcdef0123456789abcdef01234567"
FILE = Entry("f", Kind.FILE, Versioning.GIT)


@pytest.fixture(params=["http", "https"])
def served(request):
    hub = ScriptedHub(tls=request.param == "https")
    yield scripted(hub)
    hub.stop()


def scripted(hub: ScriptedHub) -> ScriptedHub:
    hub.on(f"{REPO}/branches/main", Answer(body=json.dumps({"commit": {"id": SHA}}).encode()))
    hub.on(f"{REPO}/raw/{SHA}/f", Answer(body=b"bytes"))
    return hub


@pytest.fixture
def both(sink_type, monkeypatch):
    """Ask a hub by both libraries; gives the commit and the sink of a body."""
    monkeypatch.setattr(retry, "FIRST_WAIT", 0.01)

    def both(url: str, environment: dict[str, str]):
        environment = {"CURL_CA_BUNDLE": str(CERTIFICATE), **environment}
        source = connect(RepoRef(url, "owner", "name"), Token("a test", SECRET), Metrics(), environment)
        try:
            sink = sink_type()
            source.open(Commit(SHA, 0.0), FILE, None, sink)
            assert sink.ended.wait(20)
            return source.resolve("main"), sink
        except HubUnreachable as error:
            return error, sink
        finally:
            source.close()

    return both


@pytest.mark.parametrize("upper", [False, True])
def test_the_proxy_of_the_environment_is_used_and_sees_no_token_of_an_encrypted_hub(served, both, upper):
    scheme = served.url.split(":")[0]
    name = f"{scheme}_proxy"
    with Proxy() as proxy:
        commit, sink = both(served.url, {name.upper() if upper else name: proxy.url})
        assert (commit.sha, bytes(sink.body)) == (SHA, b"bytes")
        assert all(asked.headers["authorization"] == f"Bearer {SECRET}" for asked in served.asked)
        assert len(served.asked) == 2
        assert {method for method, _, _ in proxy.asked} == {"GET" if scheme == "http" else "CONNECT"}
        assert len(proxy.asked) == 2
        if scheme == "https":
            assert SECRET not in str(proxy.asked)


def test_no_proxy_goes_past_the_proxy(served, both):
    with Proxy() as proxy:
        commit, sink = both(served.url, {"ALL_PROXY": proxy.url, "NO_PROXY": "127.0.0.1"})
        assert (commit.sha, bytes(sink.body)) == (SHA, b"bytes")
        assert proxy.asked == []


def test_a_proxy_that_is_dead_or_refuses_is_named(served, both):
    scheme = served.url.split(":")[0]
    with socket.socket() as unused, Proxy(407) as refusing:
        unused.bind(("127.0.0.1", 0))
        for proxy in (f"http://127.0.0.1:{unused.getsockname()[1]}", refusing.url):
            error, sink = both(served.url, {f"{scheme}_proxy": proxy})
            assert isinstance(error, ProxyUnreachable)
            assert "NO_PROXY" in str(error)
            assert sink.error is not None
    assert served.asked == []


def test_a_variable_that_a_cgi_server_sets_from_a_request_is_no_proxy():
    assert Network.of({"HTTP_PROXY": "http://p:1"}).proxy("http://hub.test") == "http://p:1"
    assert Network.of({"HTTP_PROXY": "http://p:1", "REQUEST_METHOD": "GET"}).proxy("http://hub.test") is None


def test_a_name_without_address_is_told_by_both(both):
    error, sink = both("http://nothing.invalid", {})
    assert isinstance(error, HubNotFound)
    assert isinstance(sink.error, RemoteUnavailable)
    assert sink.error.obstacle is Obstacle.NAME


@pytest.mark.parametrize("bad", ["expired", "elsewhere", "localhost"])
def test_a_certificate_that_is_not_one_to_trust_is_told_by_both(both, hub, tmp_path, bad):
    scripted(hub)
    trusted = CERTIFICATE.with_name("elsewhere.pem" if bad == "localhost" else f"{bad}.pem")
    with Relay(hub.url, CERTIFICATE.with_name(f"{bad}.pem")) as way:
        error, sink = both(way.url, {"CURL_CA_BUNDLE": str(trusted)})
    assert isinstance(error, HubNotTrusted)
    assert "SSL_CERT_FILE" in str(error)
    assert sink.error.obstacle is Obstacle.CERTIFICATE
    assert hub.asked == []


def test_an_address_that_is_dead_is_passed_over_for_the_next_of_the_name(both, hub, monkeypatch):
    """As where a name has an IPv6 address and the way to it does not work."""
    scripted(hub)
    port = int(hub.url.rsplit(":", 1)[1])
    new, found = handles.Handles._new, socket.getaddrinfo

    def resolving(self):
        handle = new(self)
        handle.setopt(handles.pycurl.RESOLVE, [f"hub.test:{port}:[::1],127.0.0.1"])
        return handle

    def names(host, *rest, **more):
        if host != "hub.test":
            return found(host, *rest, **more)
        return [*found("::1", *rest, **more), *found("127.0.0.1", *rest, **more)]

    monkeypatch.setattr(handles.Handles, "_new", resolving)
    monkeypatch.setattr(socket, "getaddrinfo", names)
    commit, sink = both(f"http://hub.test:{port}", {})
    assert (commit.sha, bytes(sink.body)) == (SHA, b"bytes")


def test_a_token_that_was_replaced_is_taken_for_rare_calls_as_well(hub, tmp_path):
    file = tmp_path / "token"
    file.write_text("old")
    branch = f"{REPO}/branches/main"
    hub.on(branch, Answer(401), Answer(body=json.dumps({"commit": {"id": SHA}}).encode()), Answer(401))
    token = Token("file", "old", file, lambda path: path.read_text())
    source = connect(RepoRef(hub.url, "owner", "name"), token, Metrics(), {})
    file.write_text("newer")
    assert source.resolve("main").sha == SHA
    with pytest.raises(BadToken):
        source.resolve("main")
    source.close()
    assert [asked.headers["authorization"] for asked in hub.asked] == ["Bearer old", "Bearer newer", "Bearer newer"]


class Sleeper:
    """The clock of suspensions, moved by the test."""

    seconds = 50.0

    def __call__(self) -> float:
        return self.seconds


def kept(transport: Transport, url: str, sink_type, count: int) -> None:
    """Leave `count` connections behind that are kept for later use."""
    sinks = [sink_type() for _ in range(count)]
    for sink in sinks:
        transport.get(Request(url, Lane.RAW), sink)
    assert [sink.error for sink in sinks] == [None] * count


def test_after_a_suspension_no_connection_of_before_is_used(hub, metrics, sink_type):
    sleeper = Sleeper()
    page = hub.on("/f", Answer(body=b"x" * 1000))
    with Relay(hub.url) as way:
        transport = Transport(way.url, Token("a test", None), metrics, Network.of({}), 60.0, Naps(sleeper))
        url = page.replace(hub.url, way.url)
        kept(transport, url, sink_type, 4)
        way.swallow()
        before = way.connections
        running = sink_type()
        transport.get(Request(url, Lane.RAW), running)  # on a dead connection
        time.sleep(0.2)
        assert not running.ended.is_set()
        sleeper.seconds += 3600
        after = sink_type()
        transport.get(Request(url, Lane.RAW), after)
        assert after.error is None
        assert isinstance(running.error, RemoteUnavailable)
        assert "suspended" in str(running.error)
        assert way.connections == before + 1
        transport.close()


def test_rare_calls_use_no_connection_of_before_a_suspension_either(hub, metrics):
    sleeper = Sleeper()
    found = rest.Rest(hub.url, Token("a test", None), metrics, Network.of({}), Naps(sleeper))
    url = hub.on("/f", Answer(body=b"{}"))
    connections = []
    for slept in (0, 0, 3600, 0):
        sleeper.seconds += slept
        found.get(url)
        connections.append(hub.connections)
    found.close()
    assert connections == [1, 1, 2, 2]


def test_short_differences_of_two_clocks_are_no_suspension():
    sleeper = Sleeper()
    found = Naps(sleeper)
    assert not found.ended()
    for step in (0.0, 1.0, -1.0, naps.NAP_SECONDS):
        sleeper.seconds += step
        assert not found.ended()
    sleeper.seconds += naps.NAP_SECONDS + 1
    assert [found.ended(), found.ended()] == [True, False]
    assert isinstance(naps.suspended_seconds(), float)


def test_after_one_stall_the_other_kept_connections_are_not_tried(hub, metrics, sink_type):
    page = hub.on("/f", Answer(body=b"x" * 1000))
    with Relay(hub.url) as way:
        transport = Transport(way.url, Token("a test", None), metrics, Network.of({}), 2.5)
        url = page.replace(hub.url, way.url)
        kept(transport, url, sink_type, 6)
        way.swallow()
        first, second = sink_type(), sink_type()
        transport.get(Request(url, Lane.RAW), first)
        assert isinstance(first.error, Stalled)
        transport.get(Request(url, Lane.RAW), second)
        assert second.error is None
        transport.close()


def test_a_connection_that_was_idle_for_long_is_not_used_again(hub, sink_type, monkeypatch):
    monkeypatch.setattr(handles, "IDLE_SECONDS", 1)
    url = hub.on("/f", Answer(body=b"x"))
    transport = Transport(hub.url, Token("a test", None), Metrics(), Network.of({}))
    kept(transport, url, sink_type, 1)
    kept(transport, url, sink_type, 1)
    assert hub.connections == 1
    time.sleep(2.2)
    kept(transport, url, sink_type, 1)
    assert hub.connections == 2
    transport.close()


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="Linux has it")
def test_the_kernel_gives_up_a_connection_whose_bytes_nobody_acknowledges(hub, sink_type):
    url = hub.on("/f", Answer(body=b"x"))
    transport = Transport(hub.url, Token("a test", None), Metrics(), Network.of({}))
    seen = []
    monitored = transport._lanes[Lane.RAW]._watch

    def watch(what, fd, multi, data):
        if what != handles.pycurl.POLL_REMOVE:
            with contextlib.suppress(OSError):  # curl has descriptors of other kinds, too
                found = socket.socket(fileno=fd)
                if found.family == socket.AF_INET:
                    seen.append(found.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT))
                found.detach()
        monitored(what, fd, multi, data)

    transport._lanes[Lane.RAW]._multi.setopt(handles.pycurl.M_SOCKETFUNCTION, watch)
    kept(transport, url, sink_type, 1)
    transport.close()
    assert seen
    assert set(seen) == {handles.UNACKNOWLEDGED_SECONDS * 1000}


def test_a_date_to_come_back_at_is_held_against_the_hubs_own_clock(monkeypatch):
    """Ours may be wrong by years."""
    for ours in (0.0, 2e9):
        monkeypatch.setattr(time, "time", lambda ours=ours: ours)
        date, then = formatdate(1e9, usegmt=True), formatdate(1e9 + 30, usegmt=True)
        assert reply.retry_after(then, date) == 30
        lines = [b"HTTP/1.1 503 x\r\n", f"Date: {date}\r\n".encode(), f"Retry-After: {then}\r\n".encode()]
        assert reply.parse(lines).retry_after == 30
