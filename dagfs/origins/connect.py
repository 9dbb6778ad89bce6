"""Puts the ways to the bytes together as the user's words say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from dagfs.errors import NotFound, UsageError
from dagfs.hub.auth import Token
from dagfs.hub.urls import redact
from dagfs.model import Commit, Entry, Kind, Versioning, printable
from dagfs.origins import addresses, hubremote, source
from dagfs.origins.bucket import Bucket
from dagfs.origins.filler import Find
from dagfs.origins.leases import Leases, name_of
from dagfs.origins.remote import RemoteWay, collect
from dagfs.origins.seam import Origin
from dagfs.origins.source import WaysSource
from dagfs.origins.tier import Tier

CONFIG = Entry(".dvc/config", Kind.FILE, Versioning.GIT)
CONFIG_BYTES = 1 << 20


class Hub(source.Hub, hubremote.Hub, Protocol):
    """What both need."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What the user wants to be asked before the hub: a tier, by its URL, and a DVC remote, by its name. `mount` names
    the mount on this machine."""

    tier: str | None
    remote: str | None
    mount: str


@dataclass(frozen=True, slots=True)
class Access:
    """As whom: the hub's token, and the environment that the tools of the other stores read."""

    token: Token
    environment: Mapping[str, str]


def with_ways(hub: Hub, commit: Commit, asked: Asked, access: Access, find: Find) -> WaysSource:
    """Put what is `asked` before a hub. `find` opens what the store has.

    Nothing is connected and no thread started before the first use. Raises UsageError for a URL that is of no use.
    """
    tier, ways = None, []
    if asked.tier is not None:
        address = addresses.tier_address(asked.tier, access.environment)
        objects = Bucket(address, writes=True)
        tier = Tier(f"shared cache {redact(asked.tier)}", objects, find, Leases(objects, name_of(asked.mount)))
    if asked.remote is not None:
        name = asked.remote
        ways.append(RemoteWay(f"DVC remote {printable(name)}", lambda: _remote(hub, commit, access, name)))
    else:  # a tier is a DVC remote when it has the manifests as well
        ways.append(RemoteWay("the hub's DVC remote, for listings", lambda: _hubs_own(hub), contents=False))
    return WaysSource(hub, tier, ways)


def _hubs_own(hub: Hub) -> Origin:
    return hubremote.HubRemote(hub, addresses.own_url(hub.repo))


def _remote(hub: Hub, commit: Commit, access: Access, name: str) -> Origin:
    """Find what `.dvc/config` of the commit names. Blocks. Raises DagfsError."""
    try:
        config = collect(lambda sink: hub.open(commit, CONFIG, None, sink), CONFIG_BYTES).decode()
    except UnicodeDecodeError:
        raise UsageError(".dvc/config is not text") from None
    except NotFound:
        config = ""
    found = addresses.find_remote(config, name, addresses.users_config(access.environment))
    if found is None:
        return _hubs_own(hub)
    url = addresses.hub_url(found, hub.repo)
    if url is not None:
        return hubremote.HubRemote(hub, url)
    return Bucket(addresses.remote_address(found, hub.repo, access.token.current(), access.environment))
