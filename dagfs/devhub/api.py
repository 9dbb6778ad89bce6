"""The hub's addresses: which request gets which answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

from dagfs.devhub.content import Contents
from dagfs.devhub.gate import Gate
from dagfs.devhub.git import GitRepository, Person
from dagfs.devhub.oauth import PREFIX, Logins
from dagfs.devhub.raw import SIGNED_PREFIX
from dagfs.devhub.record import Requests
from dagfs.devhub.s3 import S3
from dagfs.devhub.wire import Exchange, HttpError, Response, json_response

_MOST_CHANGED_FILES = 100
"""Files that a commit's description names: a first commit may have half a million."""


@dataclass(frozen=True, slots=True)
class Front:
    """How the repository is shown: its names, its URLs without a trailing slash, and who may see it."""

    owner: str
    name: str
    origin: str
    gate: Gate
    logins: Logins

    @property
    def root(self) -> bytes:
        """The path of the repository's API."""
        return f"/api/v1/repos/{self.owner}/{self.name}".encode()


class Api:
    """Answers requests for one repository; thread-safe."""

    def __init__(self, git: GitRepository, contents: Contents, front: Front, requests: Requests, s3: S3) -> None:
        self._git = git
        self._contents = contents
        self._front = front
        self._requests = requests
        self._s3 = s3
        self._repository = front.root
        self._dvc = f"/{front.owner}/{front.name}.dvc/".encode()
        self._routes: dict[bytes, Callable[[Exchange, list[bytes]], Response]] = {
            b"raw": contents.raw,
            b"content": contents.listing,
            b"branches": self._branches,
            b"commits": self._commit,
            b"storage": contents.storage,
        }

    def __call__(self, exchange: Exchange) -> Response:
        """Answer a request. Raises HttpError, NotFound, NotADirectory."""
        request = exchange.request
        if request.path.startswith(self._repository):
            return self._answer_repository(exchange, request.path[len(self._repository) :])
        if request.path.startswith(b"/-/"):
            return self._own(exchange)
        if request.path.startswith(self._dvc):
            exchange.kind = "dvc"
            _only_reading(exchange)
            self._front.gate.person(request)
            return self._contents.dvc_object(exchange, request.path[len(self._dvc) :])
        if request.path.startswith(PREFIX):
            return self._front.logins(exchange)
        if (request.path + b"/").startswith(self._s3.root + b"/"):
            return self._s3(exchange)
        return self._people(exchange)

    def signed(self, exchange: Exchange) -> Response:
        """Answer for an address that a redirect gave out; the signature in it is all the permission it needs."""
        _only_reading(exchange)
        exchange.kind = "raw"
        return self._contents.signed(exchange)

    def _answer_repository(self, exchange: Exchange, rest: bytes) -> Response:
        _only_reading(exchange)
        if rest and rest[:1] != b"/":
            raise HttpError(404, "not found")
        what, *parts = rest[1:].split(b"/")
        exchange.kind = _KINDS.get(what, "rest")
        self._front.gate.repository(exchange.request)
        if not what and not parts:
            return json_response(self._describe_repository())
        route = self._routes.get(what)
        if route is None:
            raise HttpError(404, "not found")
        return route(exchange, parts)

    def _branches(self, _exchange: Exchange, parts: list[bytes]) -> Response:
        git = self._git
        if parts in ([], [b""]):
            return json_response([{"name": name, "commit": self._describe_commit(sha)} for name, sha in git.branches()])
        name = b"/".join(parts)
        sha = git.branch(name)
        if sha is None:
            raise HttpError(404, "no such branch")
        return json_response({"name": name.decode(errors="replace"), "commit": self._describe_commit(sha)})

    def _commit(self, _exchange: Exchange, parts: list[bytes]) -> Response:
        sha = self._git.resolve(b"/".join(parts))
        if sha is None:
            raise HttpError(404, "no such commit")
        files = [{"filename": name} for name in self._git.changed_files(sha)[:_MOST_CHANGED_FILES]]
        return json_response({"commit": self._describe_commit(sha), "files": files, "stats": {}, "experiment": None})

    def _describe_commit(self, sha: str) -> dict[str, Any]:
        info = self._git.describe(sha)
        return {
            "id": sha,
            "message": info.message,
            "url": "",
            "author": _git_user(info.author),
            "committer": _git_user(info.committer),
            "added": None,
            "removed": None,
            "modified": None,
            "timestamp": _timestamp(info.time, info.offset),
        }

    def _describe_repository(self) -> dict[str, Any]:
        front, git = self._front, self._git
        branch = git.default_branch()
        head = git.branch(branch.encode("utf-8", "surrogateescape"))
        moment = _timestamp(git.describe(head).time, "+0000") if head else _timestamp(0, "+0000")
        url = f"{front.origin}/{front.owner}/{front.name}"
        return {
            "id": 1,
            "owner": self._user(),
            "name": front.name,
            "full_name": f"{front.owner}/{front.name}",
            "description": "",
            "private": front.gate.private,
            "fork": False,
            "parent": None,
            "empty": head is None,
            "mirror": False,
            "size": git.disk_bytes(),
            "html_url": url,
            "ssh_url": None,
            "clone_url": f"{url}.git",
            "website": "",
            "stars_count": 0,
            "forks_count": 0,
            "watchers_count": 0,
            "open_issues_count": 0,
            "default_branch": branch,
            "created_at": moment,
            "updated_at": moment,
            "permissions": {"admin": False, "push": False, "pull": True},
        }

    def _people(self, exchange: Exchange) -> Response:
        _only_reading(exchange)
        path = exchange.request.path.rstrip(b"/")
        if path == b"/api/v1/user":
            self._front.gate.person(exchange.request)
            return json_response(self._user())
        if path == f"/api/v1/users/{self._front.owner}".encode():
            return json_response(self._user())
        raise HttpError(404, "not found")

    def _user(self) -> dict[str, Any]:
        name, origin = self._front.owner, self._front.origin
        avatar = f"{origin}/avatars/1"
        return {"id": 1, "login": name, "full_name": name, "avatar_url": avatar, "username": name}

    def _own(self, exchange: Exchange) -> Response:
        exchange.kind = "own"
        request = exchange.request
        if request.path.startswith(SIGNED_PREFIX.encode() + b"/"):
            return self.signed(exchange)
        if request.path == b"/-/requests" and request.method == "GET":
            return json_response(self._requests.summary())
        if request.path == b"/-/requests/reset" and request.method == "POST":
            self._requests.reset()
            return json_response({})
        raise HttpError(404, "not found")


_KINDS = {b"raw": "raw", b"content": "listing", b"storage": "storage"}


def _only_reading(exchange: Exchange) -> None:
    if exchange.request.method not in ("GET", "HEAD"):
        raise HttpError(405, "this hub is read-only", Allow="GET, HEAD")


def _git_user(person: Person) -> dict[str, str]:
    return {"name": person.name, "email": person.email, "username": ""}


def _timestamp(seconds: int, offset: str) -> str:
    """Give RFC 3339, in the commit's own zone, as Go writes it."""
    try:
        minutes = int(offset[0] + "1") * (int(offset[1:3]) * 60 + int(offset[3:5]))
        moment = datetime.fromtimestamp(seconds, timezone(timedelta(minutes=minutes)))
    except (ValueError, IndexError, OverflowError, OSError):
        moment = datetime.fromtimestamp(0, timezone.utc)
    return moment.isoformat().replace("+00:00", "Z")
