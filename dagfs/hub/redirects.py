"""Where a hub may send its clients: never a token elsewhere, never down to plain http, never into private networks."""

from __future__ import annotations

import contextlib
import enum
import ipaddress
import socket
from typing import Any
from urllib.parse import urlsplit

from dagfs.errors import AccessDenied, ProtocolError
from dagfs.hub.urls import Origin, origin

MAX_HOPS = 5
STATUSES = frozenset({301, 302, 303, 307, 308})


class Reach(enum.IntEnum):
    """From where an address can be reached; a redirect may not lead to a higher one than the hub's own."""

    PUBLIC = 0
    PRIVATE = 1
    LOOPBACK = 2
    NOWHERE = 3  # link-local, where clouds keep their credentials, and what is not an address of one machine


_CARRIERS = tuple(map(ipaddress.IPv6Network, ("64:ff9b::/96", "::/96")))
"""Addresses whose last 32 bits are one of IPv4: NAT64's (RFC 6052), and those of old. Mapped ones and 6to4 the library
knows."""

_INSIDE = tuple(map(ipaddress.ip_network, ("192.0.0.0/24", "64:ff9b:1::/48", "fec0::/10")))
"""Not to be had from everywhere, whatever a Python before 3.12.4 says."""


def reach(address: str) -> Reach:
    """Judge a numeric address; one of IPv6 that a router or the kernel turns into one of IPv4, by that."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if ip.is_loopback:
        return Reach.LOOPBACK
    inner = _carried(ip) if isinstance(ip, ipaddress.IPv6Address) else None
    if inner is not None:
        return reach(str(inner))
    if ip.is_link_local or ip.is_unspecified or ip.is_multicast:
        return Reach.NOWHERE
    return Reach.PUBLIC if ip.is_global and not any(ip in network for network in _INSIDE) else Reach.PRIVATE


def _carried(ip: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    if any(ip in network for network in _CARRIERS):
        return ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    return ip.ipv4_mapped or ip.sixtofour


def next_hop(current: str, target: str, hub: Origin) -> Origin:
    """Give the origin of a redirect's target. Raises ProtocolError or AccessDenied when it is not to be followed.

    Names are judged later, by the address that they turn out to have.
    """
    try:
        there = origin(target)
    except ValueError:
        raise ProtocolError(f"{origin(current)} redirects to something that is not a plain URL") from None
    if origin(current).scheme == "https" and there.scheme == "http":
        raise ProtocolError(f"{origin(current)} redirects to plain http")
    if there == hub and urlsplit(target).path.endswith("/user/login"):
        raise AccessDenied(f"{hub} asks to log in: the token is missing or not accepted")
    return there


def literal(host: str) -> Reach | None:
    """Judge a URL's host when it is a number, in any way in which resolvers read one; None for a name."""
    host = host.strip("[]").rstrip(".")
    with contextlib.suppress(ValueError):
        return reach(host)
    with contextlib.suppress(OSError):
        return reach(socket.inet_ntoa(socket.inet_aton(host)))  # 127.1, 0x7f000001, 017700000001
    return None


def open_socket(address: Any) -> socket.socket:
    """Make the socket for an address that curl wants to connect to."""
    return socket.socket(address.family, address.socktype, address.protocol)
