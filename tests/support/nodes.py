"""Machines for a test: network namespaces on one bridge. Who is not root gets nodes in this machine's own network."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Network:
    """`address`: of this side, where servers for the nodes listen. `prefixes`: of each node, words before a command."""

    address: str
    prefixes: tuple[tuple[str, ...], ...]


@contextlib.contextmanager
def network(count: int) -> Iterator[Network]:
    if os.geteuid() != 0:
        yield Network("127.0.0.1", ((),) * count)
        return
    number = os.getpid() % 60_000
    bridge, subnet = f"dagfs{number}", f"10.{200 + number // 250 % 50}.{number % 250}"
    spaces = [f"dagfs-{number}-{i}" for i in range(count)]
    try:
        _ip("link", "add", bridge, "type", "bridge")
        _ip("address", "add", f"{subnet}.1/24", "dev", bridge)
        _ip("link", "set", bridge, "up")
        for i, space in enumerate(spaces):
            _node(space, f"dn{number}{i}", f"{subnet}.{i + 10}/24", bridge)
        yield Network(f"{subnet}.1", tuple(("nsenter", f"--net=/run/netns/{space}") for space in spaces))
    finally:
        for space in spaces:
            _ip("netns", "delete", space, check=False)
        _ip("link", "delete", bridge, check=False)


def _node(space: str, link: str, address: str, bridge: str) -> None:
    _ip("netns", "add", space)
    _ip("link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", space)
    _ip("link", "set", link, "master", bridge, "up")
    for words in (
        ("address", "add", address, "dev", "eth0"),
        ("link", "set", "eth0", "up"),
        ("link", "set", "lo", "up"),
    ):
        _ip("-n", space, *words)


def _ip(*words: str, check: bool = True) -> None:
    subprocess.run(["ip", *words], check=check, timeout=20, stderr=None if check else subprocess.DEVNULL)
