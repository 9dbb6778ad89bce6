"""What the demo's server was asked for: its own counters, so that the mount's word is not taken for it."""

from __future__ import annotations

import json
import urllib.request
from collections import Counter
from dataclasses import dataclass

TIMEOUT_SECONDS = 10.0
OWN = "own"
"""The kind under which the server counts questions about its counters."""


@dataclass(frozen=True, slots=True)
class Traffic:
    """Requests of every kind, bytes of all answers, and path -> downloads of its content."""

    requests: int
    bytes: int
    downloads: Counter[str]

    def since(self, before: Traffic) -> Traffic:
        """Give what came after `before` was taken."""
        return Traffic(self.requests - before.requests, self.bytes - before.bytes, self.downloads - before.downloads)

    def __str__(self) -> str:
        if not self.requests:
            return "nothing, not one request"
        twice = sum(count > 1 for count in self.downloads.values())
        return (
            f"{len(self.downloads)} files ({twice or 'none'} more than once), {self.bytes / 1e6:.1f} MB, "
            f"{self.requests} requests"
        )


def traffic(url: str) -> Traffic:
    """Ask the server of the repository at `url` what it was asked since it started."""
    origin = "/".join(url.split("/")[:3])
    with urllib.request.urlopen(f"{origin}/-/requests", timeout=TIMEOUT_SECONDS) as answer:  # noqa: S310 -- the demo's own server  # nosec B310
        counted = json.load(answer)
    requests, sizes = ({kind: n for kind, n in counted[what].items() if kind != OWN} for what in ("requests", "bytes"))
    return Traffic(sum(requests.values()), sum(sizes.values()), Counter(counted["raw_paths"]))
