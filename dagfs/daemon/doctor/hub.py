"""The way to the hub: proxy, certificates, clock, token, repository, and the variants of its API."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from dagfs.config import Places
from dagfs.daemon.doctor.finding import Finding, Level
from dagfs.errors import DagfsError, RemoteError, UsageError
from dagfs.hub.api import connect
from dagfs.hub.auth import Token, find_token
from dagfs.hub.network import Network
from dagfs.hub.probe import Prober, Reply, Variants
from dagfs.hub.revisions import unreachable
from dagfs.hub.urls import redact_proxy
from dagfs.metrics import Metrics
from dagfs.model import RefKind, RepoRef

CLOCK_SECONDS = 60.0
"""From where on signed addresses may have expired before they are used, and certificates not be valid yet."""


@dataclass(frozen=True, slots=True)
class Target:
    """Which hub is asked, as whom, for what. `repo` None: only whether it answers."""

    host: str
    repo: RepoRef | None
    revision: str | None
    token_file: Path | None


def hub(target: Target, places: Places, environment: Mapping[str, str]) -> Iterator[Finding]:
    """Go the way of a mount step by step; what cannot be reached any more is not looked for."""
    try:
        network = Network.of(environment)
    except UsageError as error:
        yield Finding("certificates", Level.PROBLEM, str(error), "correct or unset that variable")
        return
    yield _proxy(network, target.host)
    token, found = _token(target, places, environment)
    if token is None:
        yield found
        return
    prober = Prober(target.host, token.current(), network)
    try:
        yield from _answers(target, token, found, prober, environment)
    finally:
        prober.close()


def _proxy(network: Network, host: str) -> Finding:
    proxy = network.proxy(host)
    if proxy is None:
        return Finding("proxy", Level.OK, "none for this hub")
    return Finding(
        "proxy", Level.NOTE, f"through {redact_proxy(proxy)}", "if it shall not be: name the hub in NO_PROXY"
    )


def _token(target: Target, places: Places, environment: Mapping[str, str]) -> tuple[Token | None, Finding]:
    try:
        token = find_token(target.token_file, environment, places.client_tokens, target.host, time.time())
    except UsageError as error:
        text, _, remedy = str(error).partition("; ")
        return None, Finding("token", Level.PROBLEM, text, remedy or "name another file by --token-file")
    if token.current() is None:
        remedy = f"`dagfs login`; or one of {target.host}/user/settings/tokens, in DAGSHUB_USER_TOKEN or a --token-file"
        text = f"none: public repositories only{token.unused and f' ({token.unused})'}"
        return token, Finding("token", Level.NOTE, text, remedy)
    return token, Finding("token", Level.OK, f"from {token.source}")


def _answers(
    target: Target, token: Token, found: Finding, prober: Prober, environment: Mapping[str, str]
) -> Iterator[Finding]:
    try:
        user = prober.user()
    except RemoteError as error:
        text, _, remedy = str(unreachable(str(error), error)).partition("; ")
        yield found
        yield Finding("hub", Level.PROBLEM, text, remedy)
        return
    if user.status >= 500 or user.status == 429:
        yield found
        yield Finding("hub", Level.PROBLEM, f"{target.host} answers HTTP {user.status}", "try again later")
        return
    yield Finding("hub", Level.OK, f"{target.host} answers")
    yield _clock(user)
    yield _whose(target, found, user) if token.current() else found
    if target.repo is not None and (user.status == 200 or token.current() is None):
        yield from _repository(target, target.repo, token, prober, environment)


def _clock(reply: Reply) -> Finding:
    if reply.date is None:
        return Finding("clock", Level.NOTE, "the hub does not say what time it is", "compare `date -u` by hand")
    ahead = -reply.date
    text = f"{abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} the hub's"
    if abs(ahead) > CLOCK_SECONDS:
        remedy = "set the clock: `sudo timedatectl set-ntp true`"
        return Finding("clock", Level.WARNING, f"{text}: certificates and signed addresses may not be valid", remedy)
    return Finding("clock", Level.OK, "as the hub's")


def _whose(target: Target, found: Finding, user: Reply) -> Finding:
    body = user.json if isinstance(user.json, dict) else {}
    login = body.get("login") or body.get("username")
    if user.status == 200 and login:
        return Finding("token", Level.OK, f"{found.text}, of user {login}")
    text = f"{target.host} does not accept the token {found.text} (HTTP {user.status})"
    return Finding("token", Level.PROBLEM, text, f"`dagfs login`, or a new one of {target.host}/user/settings/tokens")


def _repository(
    target: Target, repo: RepoRef, token: Token, prober: Prober, environment: Mapping[str, str]
) -> Iterator[Finding]:
    source = connect(repo, token, Metrics(), environment)
    try:
        commit = source.resolve(target.revision, RefKind.ANY)
    except UsageError as error:
        text, _, remedy = str(error).partition(": ")
        yield Finding("repository", Level.PROBLEM, text, remedy or "check the name, and what the token may see")
        return
    finally:
        source.close()
    yield _scope(repo, commit.sha, prober.repository(repo))
    try:
        yield from _variants(prober.variants(repo, commit))
    except DagfsError as error:
        yield Finding("api", Level.WARNING, f"it was not seen how this hub speaks: {error}", "try again later")


def _scope(repo: RepoRef, sha: str, reply: Reply) -> Finding:
    body = reply.json if isinstance(reply.json, dict) else {}
    kind = "private" if body.get("private") is True else "public"
    told = body.get("permissions")
    rights = told if isinstance(told, dict) else {}
    more = [name for name in ("push", "admin") if rights.get(name) is True]
    text = f"{repo.slug} can be read, {kind}, at {sha[:12]}"
    if more:
        told = f"{text}; this token may {' and '.join(more)}, which no mount needs"
        return Finding("repository", Level.NOTE, told, "where others can see it, one that may only read is safer")
    return Finding("repository", Level.OK, text)


_LEFT_AS_IT_IS = "nothing: it is the hub's way, and dagfs goes along with it"

_COSTS: tuple[tuple[str, str, str], ...] = (
    ("sizes", "listings have sizes", "listings have no sizes: each costs a request of its own"),
    ("ranges", "files can be read in pieces", "no pieces: a large file is fetched whole for its first byte"),
    ("length", "answers announce their length", "no lengths announced: a size is known when the file has come"),
    ("etag", "answers have an ETag", "no ETag: a transfer that broke begins anew"),
    ("head", "HEAD is answered", "HEAD is not answered: a size is asked for by a GET"),
    ("dvc", "the DVC remote gives content by its MD5", "the DVC remote gives nothing: all content comes by the API"),
)


def _variants(found: Variants) -> Iterator[Finding]:
    for name, good, cost in _COSTS:
        there = getattr(found, name)
        if there is None:
            text = "not seen: the repository has no file to see it by"
            yield Finding(f"api-{name}", Level.NOTE, text, "look at a repository that has one, if it matters")
        elif there:
            yield Finding(f"api-{name}", Level.OK, good)
        else:
            yield Finding(f"api-{name}", Level.NOTE, cost, _LEFT_AS_IT_IS)
    where = (
        f"content comes from {', '.join(found.redirects)}" if found.redirects else "content comes from the hub itself"
    )
    yield Finding("api-redirects", Level.OK, where)
    storages = f"connected: {', '.join(found.storages)}" if found.storages else "no connected storage"
    yield Finding("api-storages", Level.OK, storages)
