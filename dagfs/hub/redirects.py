"""Where a hub may send its clients: never a token elsewhere, never down to plain http, never into private networks."""

from __future__ import annotations

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


def reach(address: str) -> Reach:
    """Judge a numeric address."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    if ip.is_link_local or ip.is_unspecified or ip.is_multicast:
        return Reach.NOWHERE
    if ip.is_loopback:
        return Reach.LOOPBACK
    return Reach.PUBLIC if ip.is_global else Reach.PRIVATE


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
    """Judge a URL's host when it is a number; None for a name."""
    try:
        return reach(host.strip("[]"))
    except ValueError:
        return None


def open_socket(address: Any) -> socket.socket:
    """Make the socket for an address that curl wants to connect to."""
    return socket.socket(address.family, address.socktype, address.protocol)
