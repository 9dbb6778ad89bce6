"""From a branch, tag or sha to one commit: what is decided once, when a mount is made or moves on."""

from __future__ import annotations

import re
from typing import Any

from dagfs.errors import (
    BadToken,
    HubNotFound,
    HubNotTrusted,
    HubUnreachable,
    NoAccess,
    Obstacle,
    ProtocolError,
    ProxyUnreachable,
    RemoteError,
    RemoteUnavailable,
    UnknownRepository,
    UnknownRevision,
)
from dagfs.hub import urls
from dagfs.hub.auth import moment
from dagfs.hub.rest import Rest, RestAnswer
from dagfs.model import Commit, RefKind, RepoRef

_SHA = re.compile(r"[0-9a-f]{40}")


class Revisions:
    """Resolves the revisions of one repository; thread-safe."""

    def __init__(self, repo: RepoRef, rest: Rest) -> None:
        self._repo = repo
        self._rest = rest

    def resolve(self, revision: str | None, kind: RefKind = RefKind.ANY) -> Commit:
        """Give the commit of a branch, tag, full or short sha; None is the default branch.

        Raises UnknownRepository, UnknownRevision, BadToken, HubUnreachable.
        """
        try:
            commit = self._branch(self._default_branch()) if revision is None else self._find(revision, kind)
            if commit is None:
                default = self._default_branch()  # tells a missing repository from a missing revision
                what = "branch" if kind is RefKind.BRANCH else "branch, tag or commit"
                raise UnknownRevision(f"{self._repo} has no {what} {revision or default!r}")
        except RemoteError as error:
            raise unreachable(f"{self._repo.host} gives no usable answer ({error})", error) from error
        return commit

    def _find(self, name: str, kind: RefKind) -> Commit | None:
        if kind is RefKind.BRANCH:
            return self._branch(name)
        if kind is RefKind.COMMIT or _SHA.fullmatch(name.lower()):
            return self._commit(name) or self._branch(name)
        return self._branch(name) or self._commit(name)

    def whoami(self) -> str:
        """Give the login name that the token belongs to. Raises BadToken, HubUnreachable."""
        try:
            answer = self._rest.get(f"{urls.api(self._repo.host)}/user")
        except RemoteError as error:
            raise unreachable(f"{self._repo.host} gives no usable answer ({error})", error) from error
        body = answer.body if isinstance(answer.body, dict) else {}
        login = body.get("login") or body.get("username")
        if answer.status != 200 or not isinstance(login, str):
            raise self._bad_token()
        return login

    def _default_branch(self) -> str:
        """Raises UnknownRevision for a repository without commits."""
        answer = self._ask(urls.repository(self._repo))
        if answer.status != 200 or not isinstance(answer.body, dict):
            raise self._unknown_repository(answer.status)
        branch = answer.body.get("default_branch")
        if answer.body.get("empty") is True or not isinstance(branch, str) or not branch:
            raise UnknownRevision(f"{self._repo} has no commit yet")
        return branch

    def _branch(self, name: str) -> Commit | None:
        answer = self._ask(urls.branch(self._repo, name))
        return _commit(answer.body, name) if answer.status == 200 else None

    def _commit(self, ref: str) -> Commit | None:
        answer = self._ask(urls.commit(self._repo, ref))
        return _commit(answer.body, None) if answer.status == 200 else None

    def _ask(self, url: str) -> RestAnswer:
        """Raises BadToken on 401, and UnknownRepository when the hub wants a token."""
        answer = self._rest.get(url)
        if answer.status == 401:
            raise self._bad_token() if self._rest.has_token else self._unknown_repository(401)
        return answer

    def _bad_token(self) -> BadToken:
        where = f"make a new one at {self._repo.host}/user/settings/tokens"
        return BadToken(f"{self._repo.host} does not accept the token; {where}")

    def _unknown_repository(self, status: int) -> UnknownRepository:
        remedy = (
            "the token may not see it"
            if self._rest.has_token
            else "a private one needs a token: `dagfs login`, or DAGSHUB_USER_TOKEN"
        )
        if status in (401, 403):
            return NoAccess(f"no access to {self._repo} (HTTP {status}): {remedy}")
        return UnknownRepository(f"no repository {self._repo} (HTTP {status}), or no access to it: {remedy}")


def unreachable(text: str, error: RemoteError) -> HubUnreachable:
    """Give the error that tells a person what to do about a hub without answers."""
    kind, remedy = _REMEDIES[error.obstacle if isinstance(error, RemoteUnavailable) else None]
    return kind(f"{text}; {remedy}")


_REMEDIES: dict[Obstacle | None, tuple[type[HubUnreachable], str]] = {
    None: (HubUnreachable, "check the network, the proxy settings and --host"),
    Obstacle.CERTIFICATE: (
        HubNotTrusted,
        "if it is the right hub, name the certificate of who signed its by SSL_CERT_FILE; check the clock, too",
    ),
    Obstacle.NAME: (HubNotFound, "check the name and the network"),
    Obstacle.PROXY: (ProxyUnreachable, "check the proxy that the environment names, or except the hub by NO_PROXY"),
}


def _commit(body: Any, branch: str | None) -> Commit:
    """Read a branch or a commit; both have the commit under "commit". Raises ProtocolError."""
    commit = body.get("commit", body) if isinstance(body, dict) else None
    sha = commit.get("id") or commit.get("sha") if isinstance(commit, dict) else None
    if not isinstance(commit, dict) or not isinstance(sha, str) or not _SHA.fullmatch(sha.lower()):
        raise ProtocolError("a branch or commit without its 40-digit id")
    return Commit(sha.lower(), _time(commit), branch)


def _time(commit: dict[str, Any]) -> float:
    """Give the commit's time; the epoch for hubs that leave it out."""
    written = commit.get("timestamp")
    return (moment(written) if isinstance(written, str) else None) or 0.0
