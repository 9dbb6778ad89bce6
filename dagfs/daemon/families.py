"""The worker's figures under the names that Prometheus expects: units in the name, `_total` for what only grows."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

PREFIX = "dagfs"


@dataclass(frozen=True, slots=True)
class Family:
    """A counter. `label`: what tells its members apart; where it is None there is one only. `members`: label values
    that are told from the start, as 0: a rate over a counter that appears with its first event would miss it."""

    name: str  # without _total, which the exposition adds
    help: str
    label: str | None = None
    members: tuple[str, ...] = ()


_READS = Family("cache_reads", "Reads that reached the worker, by whether the cache had the bytes.", "result")
_LISTINGS = Family("tree_listings", "Directory listings asked of the hub, with or without sizes.", "sizes")
_ALONE: dict[str, tuple[Family, str]] = {  # figure -> family and label value
    "cache.hits": (_READS, "hit"),
    "cache.misses": (_READS, "miss"),
    "tree.listings": (_LISTINGS, "without"),
    "tree.listings_sized": (_LISTINGS, "with"),
    "tree.manifests": (Family("tree_manifests", "Listings of whole trees that one manifest of DVC gave."), ""),
    "tree.listed_ahead": (Family("tree_listed_ahead", "Directories listed before a program asked for them."), ""),
    "tree.describes": (Family("tree_describes", "Single paths asked of the hub."), ""),
    "tree.hidden_names": (Family("tree_hidden_names", "Listed names that no file system can show."), ""),
    "fetch.loads": (Family("fetch_loads", "Pieces of content that had to be fetched."), ""),
    "fetch.transfers": (Family("fetch_transfers", "Transfers started for them, retries included."), ""),
    "fetch.received_bytes": (Family("fetch_received_bytes", "Content that came from the hub."), ""),
    "fetch.retries": (Family("fetch_retries", "Transfers that were tried again."), ""),
    "fetch.failures": (Family("fetch_failures", "Loads that were given up."), ""),
    "fetch.renewals_asked": (Family("fetch_renewals_asked", "Objects of an earlier mount compared by ETag."), ""),
    "fetch.renewed": (Family("fetch_renewed", "Those of them that were the same, and not fetched."), ""),
    "hub.redirects": (Family("hub_redirects", "Redirects that were followed."), ""),
    "hub.second_chances": (Family("hub_second_chances", "Requests repeated with a new token or signature."), ""),
    "hub.retries.listing": (Family("hub_listing_retries", "Listings that were asked for again."), ""),
    "reader.ahead_bytes": (Family("reader_ahead_bytes", "Bytes asked for ahead of the reader of a large file."), ""),
    "store.hits": (Family("store_hits", "Whole files found on the cache's disk."), ""),
    "store.damaged": (Family("store_damaged", "Files found damaged on the cache's disk, and dropped."), ""),
    "store.unwritten": (Family("store_unwritten", "Files that were not kept because the disk was too slow."), ""),
    "store.evicted": (Family("store_evicted", "Files removed to make room."), ""),
    "store.evicted_bytes": (Family("store_evicted_bytes", "Bytes removed to make room."), ""),
}

_SOURCES = ("annotations", "neighbours", "scatter")
_DVC_RESULTS = ("hits", "given", "proved", "damaged", "failed")
_OPERATIONS = ("lookup", "getattr", "readdir", "readdirplus", "read", "readlink")
_GROUPS: tuple[tuple[str, Family], ...] = (
    ("hub.requests.", Family("hub_requests", "Requests sent to the hub.", "kind", ("listing", "raw", "rest"))),
    ("prefetch.guesses.", Family("prefetch_guesses", "Files fetched on a guess.", "source", _SOURCES)),
    ("prefetch.hits.", Family("prefetch_hits", "Guessed files that were read.", "source", _SOURCES)),
    ("dvc_cache.", Family("dvc_cache_files", "Files of --dvc-cache, by what was done.", "result", _DVC_RESULTS)),
    ("vfs.failed.", Family("failed_operations", "Operations that a program saw fail.", "operation", _OPERATIONS)),
    ("kernel.", Family("kernel_requests", "Requests that the kernel has sent.", "operation")),
)
_LANES = ("listing", "raw")
_LANE_BYTES = Family("hub_received_bytes", "Bodies that came from the hub, listings included.", "kind", _LANES)
_GROUPED = (*(family for _, family in _GROUPS), _LANE_BYTES)


def family_of(figure: str) -> tuple[Family, str]:
    """Give a figure's family and its label's value; one that is not known here gets a name made of its own."""
    if figure in _ALONE:
        return _ALONE[figure]
    for prefix, family in _GROUPS:
        if figure.startswith(prefix):
            return family, figure[len(prefix) :]
    room, _, what = figure.partition(".")
    if room == "hub" and what.endswith("_bytes"):
        return _LANE_BYTES, what[: -len("_bytes")]
    return Family(re.sub(r"\W", "_", figure, flags=re.ASCII), f"Counter {figure} of the room {room}."), ""


def families(figures: Mapping[str, int]) -> Iterator[tuple[Family, dict[str, int]]]:
    """Give each family once with its members' counts by label value."""
    found: dict[Family, dict[str, int]] = {family: dict.fromkeys(family.members, 0) for family in _GROUPED}
    for family, value in _ALONE.values():
        found.setdefault(family, {})[value] = 0
    for figure, count in figures.items():
        family, value = family_of(figure)
        found.setdefault(family, {})[value] = count
    yield from found.items()
