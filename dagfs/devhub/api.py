"""The hub's addresses: which request gets which answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

import msgspec

from dagfs.devhub.behaviour import Behaviour, Redirect
from dagfs.devhub.gate import Gate
from dagfs.devhub.git import GitRepository, Person
from dagfs.devhub.listing import Listings, Place
from dagfs.devhub.objects import Blobs, DvcCache, Stored, open_file
from dagfs.devhub.raw import SIGNED_PREFIX, Signer, content_response
from dagfs.devhub.record import Requests
from dagfs.devhub.snapshot import Snapshots
from dagfs.devhub.storage import Storages
from dagfs.devhub.wire import Exchange, HttpError, Response, in_memory
from dagfs.errors import NotFound

_MOST_SLASHES = 16
"""Parts of an address that are tried as a branch's name."""

_MOST_CHANGED_FILES = 100
"""Files that a commit's description names: a first commit may have half a million."""


@dataclass(frozen=True, slots=True)
class Stock:
    """All that is served of one repository, by the rooms that hold it."""

    git: GitRepository
    cache: DvcCache
    blobs: Blobs
    snapshots: Snapshots
    listings: Listings
    storages: Storages


@dataclass(frozen=True, slots=True)
class Front:
    """How the repository is shown: its names, its URLs without a trailing slash, and who may see it."""

    owner: str
    name: str
    origin: str
    content_origin: str  # where redirects lead
    gate: Gate
    behaviour: Behaviour


class Api:
    """Answers requests for one repository; thread-safe."""

    def __init__(self, stock: Stock, front: Front, requests: Requests) -> None:
        self._stock = stock
        self._front = front
        self._requests = requests
        self._signer = Signer(front.behaviour.signature_seconds)
        self._repository = f"/api/v1/repos/{front.owner}/{front.name}".encode()
        self._dvc = f"/{front.owner}/{front.name}.dvc/".encode()
        self._routes: dict[bytes, Callable[[Exchange, list[bytes]], Response]] = {
            b"raw": self._raw,
            b"content": self._content,
            b"branches": self._branches,
            b"commits": self._commit,
            b"storage": self._storage,
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
            return self._dvc_object(exchange, request.path[len(self._dvc) :])
        return self._people(exchange)

    def signed(self, exchange: Exchange) -> Response:
        """Answer for an address that a redirect gave out; the signature in it is all the permission it needs."""
        _only_reading(exchange)
        path = self._signer.verify(exchange.request)
        what, *parts = path[len(self._repository) + 1 :].split(b"/")
        if what == b"raw":
            return self._serve(exchange, self._open_path(exchange, self._place(exchange, parts)))
        exchange.kind = "storage"
        return self._serve(exchange, exchange.held.enter_context(self._stock.storages.open(parts[1:])))

    def _answer_repository(self, exchange: Exchange, rest: bytes) -> Response:
        _only_reading(exchange)
        if rest and rest[:1] != b"/":
            raise HttpError(404, "not found")
        what, *parts = rest[1:].split(b"/")
        exchange.kind = _KINDS.get(what, "rest")
        self._front.gate.repository(exchange.request)
        if not what and not parts:
            return _json(self._describe_repository())
        route = self._routes.get(what)
        if route is None:
            raise HttpError(404, "not found")
        return route(exchange, parts)

    # -- content -----------------------------------------------------------------------------------------------------

    def _raw(self, exchange: Exchange, parts: list[bytes]) -> Response:
        place = self._place(exchange, parts)
        stored = self._open_path(exchange, place)
        return self._redirect(exchange) or self._serve(exchange, stored)

    def _content(self, exchange: Exchange, parts: list[bytes]) -> Response:
        place = self._place(exchange, parts)
        snapshot = self._stock.snapshots.get(place.commit)
        sized = exchange.request.query.get("include_size", "").lower() in ("true", "1")
        more = () if place.path else self._stock.storages.root_entries()
        body = self._stock.listings.render(snapshot, place, sized=sized, more=more)
        return in_memory(body, "application/json; charset=UTF-8")

    def _place(self, exchange: Exchange, parts: list[bytes]) -> Place:
        """Split `:ref/:path`, where a branch's name may have slashes. Raises NotFound."""
        exchange.path = b"/".join(parts[1:]).decode("utf-8", "surrogateescape")
        words, commit = self._ref(parts)
        path = b"/".join(parts[words:]).rstrip(b"/")
        exchange.path = path.decode("utf-8", "surrogateescape")
        ref = b"/".join(parts[:words]).decode("utf-8", "surrogateescape")
        return Place(ref, commit, b"" if path == b"." else path)

    def _ref(self, parts: list[bytes]) -> tuple[int, str]:
        """Give how many of the parts name the commit, and its sha: a branch, a tag, or a full or short sha."""
        first = parts[0].decode("utf-8", "surrogateescape")
        if len(first) == 40 and self._stock.snapshots.known(first):
            return 1, first
        names = [b"/".join(parts[:n]) for n in range(1, min(len(parts), _MOST_SLASHES) + 1)]
        for find in (self._stock.git.branch, self._stock.git.tag):
            for n, name in enumerate(names, 1):
                found = find(name)
                if found:
                    return n, found
        found = self._stock.git.commit(parts[0])
        if found is None:
            raise NotFound("no such branch, tag or commit")
        return 1, found

    def _open_path(self, exchange: Exchange, place: Place) -> Stored:
        """Open a file of a commit until the answer is sent. Raises NotFound."""
        node = self._stock.snapshots.get(place.commit).lookup(place.path)
        if node.is_dir:
            raise NotFound("a directory has no bytes")
        if not node.dvc:
            return exchange.held.enter_context(self._stock.blobs.open(node.oid))
        path = self._stock.cache.find(node.oid, legacy=node.legacy)
        return exchange.held.enter_context(open_file(path, node.oid))

    def _serve(self, exchange: Exchange, stored: Stored) -> Response:
        return content_response(exchange.request, stored, self._front.behaviour)

    def _redirect(self, exchange: Exchange) -> Response | None:
        if self._front.behaviour.redirect is Redirect.NONE:
            return None
        exchange.kind = "redirect"
        url = self._front.content_origin + self._signer.sign(exchange.request.path)
        response = in_memory(b"", "text/html", 302)
        response.headers["Location"] = url
        return response

    def _dvc_object(self, exchange: Exchange, key: bytes) -> Response:
        stored = exchange.held.enter_context(open_file(self._stock.cache.key(key.decode("latin-1"))))
        return self._serve(exchange, stored)

    def _storage(self, exchange: Exchange, parts: list[bytes]) -> Response:
        if not parts:
            return _json(self._stock.storages.describe())
        what, where = parts[0], parts[1:]
        if where[-1:] == [b""]:
            where.pop()
        if what == b"content":
            return _json(self._stock.storages.content(where, exchange.request.query))
        if what != b"raw":
            raise HttpError(404, "not found")
        stored = exchange.held.enter_context(self._stock.storages.open(where))
        return self._redirect(exchange) or self._serve(exchange, stored)

    # -- repository, branches, commits, people -----------------------------------------------------------------------

    def _branches(self, _exchange: Exchange, parts: list[bytes]) -> Response:
        git = self._stock.git
        if parts in ([], [b""]):
            return _json([{"name": name, "commit": self._describe_commit(sha)} for name, sha in git.branches()])
        name = b"/".join(parts)
        sha = git.branch(name)
        if sha is None:
            raise HttpError(404, "no such branch")
        return _json({"name": name.decode(errors="replace"), "commit": self._describe_commit(sha)})

    def _commit(self, _exchange: Exchange, parts: list[bytes]) -> Response:
        sha = self._stock.git.resolve(b"/".join(parts))
        if sha is None:
            raise HttpError(404, "no such commit")
        files = [{"filename": name} for name in self._stock.git.changed_files(sha)[:_MOST_CHANGED_FILES]]
        return _json({"commit": self._describe_commit(sha), "files": files, "stats": {}, "experiment": None})

    def _describe_commit(self, sha: str) -> dict[str, Any]:
        info = self._stock.git.describe(sha)
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
        front, git = self._front, self._stock.git
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
            return _json(self._user())
        if path == f"/api/v1/users/{self._front.owner}".encode():
            return _json(self._user())
        raise HttpError(404, "not found")

    def _user(self) -> dict[str, Any]:
        name, origin = self._front.owner, self._front.origin
        avatar = f"{origin}/avatars/1"
        return {"id": 1, "login": name, "full_name": name, "avatar_url": avatar, "username": name}

    # -- the server's own --------------------------------------------------------------------------------------------

    def _own(self, exchange: Exchange) -> Response:
        exchange.kind = "own"
        request = exchange.request
        if request.path.startswith(SIGNED_PREFIX.encode() + b"/"):
            exchange.kind = "raw"
            return self.signed(exchange)
        if request.path == b"/-/requests" and request.method == "GET":
            return _json(self._requests.summary())
        if request.path == b"/-/requests/reset" and request.method == "POST":
            self._requests.reset()
            return _json({})
        raise HttpError(404, "not found")


_KINDS = {b"raw": "raw", b"content": "listing", b"storage": "storage"}


def _only_reading(exchange: Exchange) -> None:
    if exchange.request.method not in ("GET", "HEAD"):
        raise HttpError(405, "this hub is read-only", Allow="GET, HEAD")


def _json(value: object) -> Response:
    return in_memory(msgspec.json.encode(value), "application/json; charset=UTF-8")


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
