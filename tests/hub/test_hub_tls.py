"""Only certificates that the machine trusts, or that its user names, are accepted; by both HTTP libraries."""

from __future__ import annotations

import json

import pytest
from support.scripted_hub import CERTIFICATE, Answer, ScriptedHub

from dagfs.errors import HubUnreachable, ProtocolError, RemoteUnavailable
from dagfs.hub import retry
from dagfs.hub.api import connect
from dagfs.hub.auth import Token
from dagfs.metrics import Metrics
from dagfs.model import Commit, Entry, Kind, RepoRef, Versioning

REPO = "/api/v1/repos/owner/name"
SHA = "0123456789abcdef0123456789abcdef01234567"
FILE = Entry("f", Kind.FILE, Versioning.GIT)
COMMIT = Commit(SHA, 0.0)


@pytest.fixture
def secure():
    hub = ScriptedHub(tls=True)
    hub.on(f"{REPO}/branches/main", Answer(body=json.dumps({"commit": {"id": SHA}}).encode()))
    hub.on(f"{REPO}/raw/{SHA}/f", Answer(body=b"bytes"))
    yield hub
    hub.stop()


@pytest.fixture
def connected(secure, monkeypatch):
    monkeypatch.setattr(retry, "FIRST_WAIT", 0.01)
    sources = []

    def connected(environment):
        sources.append(connect(RepoRef(secure.url, "owner", "name"), Token("a test", "t"), Metrics(), environment))
        return sources[-1]

    yield connected
    for source in sources:
        source.close()


@pytest.mark.parametrize("name", ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_certificates_that_the_user_names_are_trusted(connected, sink_type, name):
    source = connected({name: str(CERTIFICATE)})
    assert source.resolve("main").sha == SHA
    sink = sink_type()
    source.open(COMMIT, FILE, None, sink)
    assert sink.error is None
    assert sink.body == b"bytes"


def test_a_certificate_that_nobody_trusts_is_refused(connected, sink_type, secure):
    source = connected({})
    with pytest.raises(HubUnreachable, match="certificate"):
        source.resolve("main")
    sink = sink_type()
    source.open(COMMIT, FILE, None, sink)
    assert isinstance(sink.error, RemoteUnavailable)
    assert "certificate" in str(sink.error)
    assert not secure.asked


def test_a_redirect_from_https_down_to_http_is_refused(connected, sink_type, secure, hub):
    secure.on(f"{REPO}/raw/{SHA}/f", Answer(302, headers={"Location": hub.on("/f", Answer(body=b"plain"))}))
    secure.on(f"{REPO}/branches/main", Answer(302, headers={"Location": hub.on("/b", Answer(body=b"{}"))}))
    source = connected({"SSL_CERT_FILE": str(CERTIFICATE)})
    sink = sink_type()
    source.open(COMMIT, FILE, None, sink)
    assert isinstance(sink.error, ProtocolError)
    with pytest.raises(HubUnreachable, match="plain http"):
        source.resolve("main")
    assert not hub.asked
