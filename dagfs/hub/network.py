"""How the machine reaches the network: certificates and proxies, decided once and the same for both HTTP libraries."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping
from dataclasses import dataclass, field

import certifi

from dagfs.errors import UsageError
from dagfs.hub.urls import origin

_CA_NAMES = ("CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE")


@dataclass(frozen=True, slots=True)
class Network:
    """`ca`: file or directory of trusted certificates. `proxies`: scheme or "all" -> URL, "no" -> excepted hosts."""

    ca: str
    proxies: Mapping[str, str] = field(default_factory=dict, repr=False)  # a proxy's URL may hold a password

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Network:
        """Read the variables that curl and requests know. Raises UsageError for certificates that are not there."""
        ca = certifi.where()
        for name in _CA_NAMES:
            value = environment.get(name)
            if value and not os.path.exists(value):
                raise UsageError(f"{name} names certificates that do not exist: {value}")
            if value:
                ca = value
                break
        return cls(ca, _proxies(environment))

    @property
    def ca_is_directory(self) -> bool:
        return os.path.isdir(self.ca)

    def proxy(self, url: str) -> str | None:
        """Give the proxy for a URL, None for a direct connection."""
        where = origin(url)
        proxy = self.proxies.get(where.scheme) or self.proxies.get("all")
        return None if not proxy or _excepted(where.host.strip("[]"), self.proxies.get("no", "")) else proxy


def _proxies(environment: Mapping[str, str]) -> dict[str, str]:
    """Lower-case names win. Under a CGI server HTTP_PROXY in capitals is ignored: it stands for a request's header."""
    found = {}
    cgi = "REQUEST_METHOD" in environment
    for scheme in ("http", "https", "all", "no"):
        name = f"{scheme}_proxy"
        value = environment.get(name) or (None if scheme == "http" and cgi else environment.get(name.upper()))
        if value:
            found[scheme] = value
    return found


def _excepted(host: str, patterns: str) -> bool:
    """Tell whether no_proxy names a host: *, a domain with all below it, an address, or a network like 10.0.0.0/8."""
    for pattern in filter(None, (part.strip().lower().lstrip(".") for part in patterns.split(","))):
        if pattern in ("*", host) or host.endswith(f".{pattern}"):
            return True
        try:
            if ipaddress.ip_address(host) in ipaddress.ip_network(pattern, strict=False):
                return True
        except ValueError:  # one of the two is a name
            continue
    return False
