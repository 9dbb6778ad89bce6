"""Build the hub bottom-up and run it: in threads of this process for tests, or until a signal for `dagfs serve`."""

from __future__ import annotations

import re
import signal
import threading
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from dagfs.devhub.api import Api, Front
from dagfs.devhub.behaviour import Behaviour, Fault, FaultHook, Redirect, RequestInfo, no_fault
from dagfs.devhub.content import Contents, Stock
from dagfs.devhub.gate import Gate
from dagfs.devhub.git import GitRepository
from dagfs.devhub.link import Link
from dagfs.devhub.listing import Listings
from dagfs.devhub.oauth import Logins
from dagfs.devhub.objects import Blobs, DvcCache
from dagfs.devhub.record import Requests
from dagfs.devhub.s3 import S3
from dagfs.devhub.server import Handler, Manners, Server
from dagfs.devhub.snapshot import Snapshots
from dagfs.devhub.storage import Storages
from dagfs.devhub.wire import Exchange, HttpError, Response
from dagfs.errors import UsageError

_NAME = re.compile(r"[A-Za-z0-9_.-]+/[A-Za-z0-9_.-]+\Z")
_HUB_REMOTE = re.compile(r"(?:https?|ssh)://[^/]+/([^/]+)/([^/]+?)(?:\.git)?/?\Z")


class Hub:
    """A DagsHub-compatible server over a git repository with its DVC cache, on 127.0.0.1.

    `latency` in seconds before the first byte of each answer, `bandwidth` in bytes per second of all connections
    together; `storages` maps "s3:BUCKET" to a folder; port 0 takes a free one. `hub.url` is the repository's URL,
    `hub.requests` counts; `hub.fault` and `hub.gate.token` may be exchanged while it runs.
    Raises UsageError when `directory` is no git repository, or the port is taken.
    """

    def __init__(  # noqa: PLR0913 -- the composition root of the server
        self,
        directory: Path | str,
        name: str | None = None,
        *,
        token: str | None = None,
        latency: float = 0.0,
        bandwidth: float | None = None,
        behaviour: Behaviour | None = None,
        storages: Mapping[str, Path | str] | None = None,
        port: int = 0,
        fault: FaultHook = no_fault,
    ) -> None:
        self.requests = Requests()
        self.fault = fault
        self.gate = Gate(token)
        behaviour = behaviour or Behaviour()
        folders = {bucket: Path(folder) for bucket, folder in (storages or {}).items()}
        with ExitStack() as building:
            git = GitRepository(Path(directory).absolute())
            building.callback(git.close)
            self.name = name or default_name(git)
            if not _NAME.match(self.name):
                raise UsageError(f"{self.name!r} is not OWNER/NAME")
            manners = Manners(behaviour, self._fault_now, latency, Link(bandwidth) if bandwidth else None)
            self._server = _listening(port, self._answer, manners, self.requests)
            building.callback(self._server.stop)
            self.host = f"http://127.0.0.1:{self._server.port}"
            self._content_server = self._other_origin(manners)
            building.callback(self._content_server.stop)
            self._api = self._build(git, folders, behaviour, building)
            self._resources = building.pop_all()

    @property
    def url(self) -> str:
        """The repository's URL."""
        return f"{self.host}/{self.name}"

    def start(self) -> None:
        """Answer requests from now on."""
        self._server.start()
        self._content_server.start()

    def stop(self) -> None:
        """End every connection, thread and process of the hub."""
        self._resources.close()

    def __enter__(self) -> Hub:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _build(self, git: GitRepository, folders: Mapping[str, Path], behaviour: Behaviour, stack: ExitStack) -> Api:
        owner, name = self.name.split("/")
        api = f"{self.host}/api/v1/repos/{self.name}"
        cache, blobs = DvcCache(git.directory, git.git_dir), Blobs(git)
        stack.callback(blobs.close)
        listings, storages = Listings(git, cache, api, behaviour), Storages(folders, api, behaviour)
        stock = Stock(git, cache, blobs, Snapshots(git, cache), listings, storages)
        logins = Logins(self.gate)
        stack.callback(logins.close)
        front = Front(owner, name, self.host, self.gate, logins)
        other = f"http://127.0.0.1:{self._content_server.port}"
        origin = other if behaviour.redirect is Redirect.OTHER else self.host
        bucket = S3(stock, behaviour, owner, name, front.gate)
        return Api(git, Contents(stock, behaviour, front.root, origin), front, self.requests, bucket)

    def _other_origin(self, manners: Manners) -> Server:
        return _listening(0, self._answer_content, manners, self.requests)

    def _answer(self, exchange: Exchange) -> Response:
        return self._api(exchange)

    def _answer_content(self, exchange: Exchange) -> Response:
        """Answer as an object store does: signed addresses only, and 400 to whoever sends a second permission."""
        exchange.kind = "raw"
        if "authorization" in exchange.request.headers or "token" in exchange.request.query:
            self.requests.leak(exchange.path)
            raise HttpError(400, "only one permission at a time: a signature or an Authorization")
        return self._api.signed(exchange)

    def _fault_now(self, info: RequestInfo) -> Fault | None:
        return self.fault(info)


def serve(  # noqa: PLR0913, PLR0917 -- one argument for each option of the command
    directory: Path,
    port: int = 0,
    name: str | None = None,
    token: str | None = None,
    latency_ms: float = 0.0,
    bandwidth_mbps: float | None = None,
    storages: Mapping[str, Path] | None = None,
) -> None:
    """Serve a repository until SIGINT or SIGTERM; prints its URL on the first line once it answers.

    `bandwidth_mbps` in 10^6 bits per second. Raises UsageError.
    """
    bandwidth = bandwidth_mbps * 1e6 / 8 if bandwidth_mbps else None
    hub = Hub(
        directory, name, token=token, latency=latency_ms / 1000, bandwidth=bandwidth, storages=storages, port=port
    )
    run(hub)


def run(hub: Hub) -> None:
    """Run a hub until SIGINT or SIGTERM; prints its URL on the first line. Call it from the main thread."""
    stop = threading.Event()
    signals = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, lambda *_: stop.set()) for number in signals]
    try:
        with hub:
            print(hub.url, flush=True)  # noqa: T201 -- the command's answer
            while not stop.wait(1.0):  # a signal just before a wait without end would not be heard
                pass
    finally:
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)


def default_name(git: GitRepository) -> str:
    """Give OWNER/NAME of the remote `origin` when it looks like a hub's, else local/ and the directory's name."""
    match = _HUB_REMOTE.match(git.remote_url())
    if match and _NAME.match("/".join(match.groups())):
        return "/".join(match.groups())
    plain = re.sub(r"[^A-Za-z0-9_.-]+", "-", git.directory.name.removesuffix(".git"))
    return f"local/{plain or 'repository'}"


def _listening(port: int, handler: Handler, manners: Manners, requests: Requests) -> Server:
    try:
        return Server(port, handler, manners, requests)
    except (OSError, OverflowError) as error:
        raise UsageError(f"port {port} cannot be used: {error}; --port 0 takes a free one") from error
