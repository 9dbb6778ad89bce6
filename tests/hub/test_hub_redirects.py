"""Redirects bring the bytes and leak nothing."""

from __future__ import annotations

import os

import pycurl
import pytest
from support.scripted_hub import Answer

from dagfs.errors import AccessDenied, ProtocolError
from dagfs.hub.auth import Token
from dagfs.hub.curl.exchange import Exchange, Lane, Request
from dagfs.hub.curl.handles import Handles
from dagfs.hub.curl.transport import Transport
from dagfs.hub.network import Network
from dagfs.hub.redirects import Reach, literal, next_hop, reach
from dagfs.hub.urls import origin
from dagfs.metrics import Metrics
from dagfs.model import Span

SIGNED = "/store/object?X-Amz-Signature=very-secret&X-Amz-Expires=60"


def to(location: str, status: int = 302) -> Answer:
    return Answer(status, b"moved", {"Location": location})


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_to_another_origin_goes_without_the_token_and_with_the_span(hub, elsewhere, fetch, status):
    target = elsewhere.on(SIGNED, Answer(body=b"0123456789", ranges=True))
    sink = fetch(hub.on("/raw", to(target, status)), Span(2, 5))
    assert sink.body == b"234"
    assert "authorization" in hub.asked[0].headers
    assert "authorization" not in elsewhere.asked[0].headers
    assert elsewhere.asked[0].headers["range"] == "bytes=2-4"


def test_the_token_comes_back_only_at_the_hub_itself(hub, elsewhere, fetch):
    back = hub.on("/back", Answer(body=b"home"))
    sink = fetch(hub.on("/raw", to(elsewhere.on("/away", to(back)))))
    assert sink.body == b"home"
    assert ["authorization" in asked.headers for asked in (*hub.asked, *elsewhere.asked)] == [True, True, False]


def test_no_handle_carries_a_token_over_to_a_later_redirect(hub, elsewhere, fetch):
    plain = hub.on("/plain", Answer(body=b"x"))
    away = hub.on("/raw", to(elsewhere.on("/away", Answer(body=b"y"))))
    for _ in range(5):
        fetch(plain)
        fetch(away)
    assert elsewhere.count("/away") == 5
    assert not any("authorization" in asked.headers for asked in elsewhere.asked)


def test_a_relative_redirect_stays_at_the_hub(hub, fetch):
    hub.on("/a/c", Answer(body=b"found"))
    assert fetch(hub.on("/a/b", to("c"))).body == b"found"


def test_five_redirects_are_followed_and_a_loop_ends(hub, fetch):
    for i in range(7):
        hub.on(f"/{i}", to(f"/{i + 1}"))
    hub.on("/7", Answer(body=b"end"))
    assert fetch(f"{hub.url}/2").body == b"end"
    assert isinstance(fetch(f"{hub.url}/1").error, ProtocolError)
    assert isinstance(fetch(hub.on("/loop", to("/loop"))).error, ProtocolError)
    assert hub.count("/loop") == 6


def test_a_signature_that_has_expired_is_asked_for_again_once(hub, elsewhere, fetch):
    old = elsewhere.on("/old?sig=1", Answer(403))
    new = elsewhere.on("/new?sig=2", Answer(body=b"fresh"))
    sink = fetch(hub.on("/raw", to(old), to(new)))
    assert sink.error is None
    assert sink.body == b"fresh"


def test_a_signature_that_stays_refused_is_access_denied_and_shows_nothing(hub, elsewhere, fetch):
    sink = fetch(hub.on("/raw", to(elsewhere.on(SIGNED, Answer(403, b"<Error>very-secret</Error>")))))
    assert isinstance(sink.error, AccessDenied)
    assert elsewhere.count(SIGNED) == 2
    for secret in ("very-secret", "X-Amz", "object", "s3cret-token"):
        assert secret not in str(sink.error)


def test_a_403_of_the_hub_itself_is_final(hub, fetch):
    assert isinstance(fetch(hub.on("/raw", Answer(403))).error, AccessDenied)
    assert hub.count("/raw") == 1


def test_a_rotated_token_gets_one_more_try(hub, metrics, tmp_path, sink_type):
    file = tmp_path / "token"
    file.write_text("old\n")
    file.chmod(0o600)
    token = Token("file", "old", file, lambda path: path.read_text().strip())
    transport = Transport(hub.url, token, metrics, Network.of({}))
    os.utime(file, (1, 1))
    file.write_text("newer")
    sink = sink_type()
    transport.get(Request(hub.on("/raw", Answer(401), Answer(body=b"ok")), Lane.RAW), sink)
    assert sink.error is None
    final = sink_type()
    transport.get(Request(hub.on("/raw", Answer(401)), Lane.RAW), final)
    assert isinstance(final.error, AccessDenied)
    transport.close()
    assert [asked.headers["authorization"] for asked in hub.asked] == ["Bearer old", "Bearer newer", "Bearer newer"]


def test_a_redirect_to_the_login_page_is_access_denied(hub, fetch):
    hub.on("/user/login", Answer(body=b"<html>"))
    sink = fetch(hub.on("/raw", to("/user/login?redirect_to=x")))
    assert isinstance(sink.error, AccessDenied)
    assert not sink.body


@pytest.mark.parametrize(
    "location",
    [
        "http://169.254.169.254/latest/meta-data", "http://[fe80::1]/", "http://0.0.0.0/", "file:///etc/passwd",
        "ftp://127.0.0.1/", "gopher://127.0.0.1/",
        "http://127.0.0.1:0/", "http://[::ffff:169.254.169.254]/", "//169.254.169.254/x",
    ],
)  # fmt: skip
def test_a_redirect_that_leads_astray_is_refused(hub, fetch, location):
    sink = fetch(hub.on("/raw", to(location)))
    assert isinstance(sink.error, ProtocolError)
    assert not sink.heads


def test_a_name_that_turns_out_to_be_further_inside_than_the_hub_is_refused(hub, elsewhere, fetch, transport):
    fetch(hub.on("/f", Answer(body=b"x")))
    transport._hub_reach = Reach.PUBLIC  # there is no public hub on this machine; what was learned is overridden
    by_name = elsewhere.on("/x", Answer(body=b"inside")).replace("127.0.0.1", "localhost")
    for location in (by_name, elsewhere.on("/x", Answer(body=b"inside"))):
        assert isinstance(fetch(hub.on("/raw", to(location))).error, ProtocolError)
    assert not elsewhere.asked


def test_a_public_or_private_hub_may_not_lead_to_this_machine_and_a_local_one_may():
    assert reach("127.0.0.1") == reach("::1") == reach("::ffff:127.0.0.1") == Reach.LOOPBACK
    assert reach("10.1.2.3") == reach("192.168.0.1") == reach("fd00::1") == reach("100.64.0.1") == Reach.PRIVATE
    assert reach("8.8.8.8") == reach("2001:4860:4860::8888") == Reach.PUBLIC
    assert reach("169.254.0.1") == reach("fe80::1%eth0") == reach("0.0.0.0") == reach("224.0.0.1") == Reach.NOWHERE
    assert Reach.PUBLIC < Reach.PRIVATE < Reach.LOOPBACK < Reach.NOWHERE


def test_an_address_that_stands_for_another_is_judged_by_that():
    """NAT64, 6to4, mapped and compatible addresses."""
    for forms in ("64:ff9b::{0}:{1}", "2002:{0}:{1}::1", "::ffff:{0}:{1}", "::{0}:{1}"):
        assert reach(forms.format("a9fe", "a9fe")) == Reach.NOWHERE, forms
        assert reach(forms.format("7f00", "1")) == Reach.LOOPBACK, forms
        assert reach(forms.format("a00", "1")) == Reach.PRIVATE, forms
        assert reach(forms.format("808", "808")) == Reach.PUBLIC, forms
    assert reach("64:ff9b:1::a9fe:a9fe") == reach("fec0::1") == reach("192.0.0.192") == Reach.PRIVATE
    assert (reach("::1"), reach("::")) == (Reach.LOOPBACK, Reach.NOWHERE)


@pytest.mark.parametrize(
    "number",
    ["169.254.169.254", "169.254.169.254.", "2852039166", "0xA9FEA9FE", "0251.0376.0251.0376", "169.254.43518"],
)
def test_a_number_is_a_number_in_whatever_way_it_is_written(number):
    """A proxy looks names up itself: what it would read as a number has to be seen before."""
    assert literal(number) == Reach.NOWHERE
    assert literal("127.1") == Reach.LOOPBACK
    assert literal("[::1]") == Reach.LOOPBACK
    assert literal("hub.test") is literal("1password.test") is literal("localhost") is None


def test_https_never_goes_down_to_http():
    hub = origin("https://hub.test")
    with pytest.raises(ProtocolError):
        next_hop("https://hub.test/a", "http://hub.test/a", hub)
    assert next_hop("http://hub.test/a", "https://hub.test/a", hub) == hub


def test_a_redirect_upwards_to_https_is_another_origin():
    assert next_hop("http://hub.test/a", "https://hub.test/a", origin("http://hub.test")) != origin("http://hub.test")
    assert origin("https://hub.test:443/x") == origin("HTTPS://HUB.test/y")


def test_redirects_of_listings_are_followed_as_those_of_bodies(hub, elsewhere, fetch):
    sink = fetch(hub.on("/l", to(elsewhere.on("/x", Answer(body=b"[]")))), lane=Lane.LISTING)
    assert sink.body == b"[]"
    assert "authorization" not in elsewhere.asked[0].headers


@pytest.mark.parametrize("number", ["10.0.0.1", "167772161", "169.254.43518"])
def test_a_redirect_through_a_proxy_is_judged_by_its_number(hub, elsewhere, sink_type, number):
    elsewhere.on(f"{hub.url}/raw", to(f"http://{number}/x"))
    transport = Transport(hub.url, Token("a test", None), Metrics(), Network.of({"http_proxy": elsewhere.url}))
    sink = sink_type()
    transport.get(Request(f"{hub.url}/raw", Lane.RAW), sink)
    assert isinstance(sink.error, ProtocolError)
    transport.close()
    assert len(elsewhere.asked) == 1


@pytest.mark.parametrize("hub_is", list(Reach))
def test_no_hub_may_lead_to_link_local_addresses_and_none_further_inside_than_it_is(hub, fetch, transport, hub_is):
    """Where clouds hand out credentials, not even a hub on this machine may send us."""
    fetch(hub.on("/f", Answer(body=b"x")))
    transport._hub_reach = min(hub_is, Reach.LOOPBACK)
    refused = {
        "http://169.254.169.254/latest/meta-data/": Reach.NOWHERE,
        "http://[fe80::a9fe:a9fe]/": Reach.NOWHERE,
        "http://127.0.0.1:9/": Reach.LOOPBACK,
        "http://[::1]:9/": Reach.LOOPBACK,
        "http://10.255.255.1:9/": Reach.PRIVATE,
    }
    for location, place in refused.items():
        if place > transport._hub_reach:
            error = fetch(hub.on("/raw", to(location))).error
            assert isinstance(error, ProtocolError), location
            assert "network that it is not in" in str(error)


@pytest.mark.parametrize(
    "url", ["file:///etc/hostname", "ftp://127.0.0.1/", "gopher://127.0.0.1/", "dict://127.0.0.1/"]
)
def test_libcurl_itself_knows_no_scheme_but_http(hub, sink_type, url):
    """Behind the check of each redirect: a URL that came past it would still go nowhere."""
    exchange = Exchange(Request(url, Lane.RAW), sink_type(), None)
    handle = Handles(Lane.RAW, Network.of({})).take(exchange, None)
    with pytest.raises(pycurl.error) as caught:
        handle.perform()
    assert caught.value.args[0] == pycurl.E_UNSUPPORTED_PROTOCOL
    assert handle.getinfo(pycurl.REDIRECT_COUNT) == 0


def test_libcurl_follows_no_redirect_by_itself(hub, elsewhere, sink_type):
    exchange = Exchange(Request(hub.on("/raw", to(elsewhere.on("/x", Answer()))), Lane.RAW), sink_type(), None)
    handle = Handles(Lane.RAW, Network.of({})).take(exchange, "s3cret")
    handle.setopt(pycurl.WRITEFUNCTION, lambda _: None)
    handle.perform()
    assert handle.getinfo(pycurl.RESPONSE_CODE) == 302
    assert not elsewhere.asked
