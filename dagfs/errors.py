"""What can go wrong, named where it is found and turned into an errno once, in the adapters.

DagfsError
├── NotFound             the hub said that the path does not exist
├── NotADirectory        a path goes on below a file
├── IsADirectory         a directory was read as a file
├── ReadOnly             the mount cannot be written
├── AccessDenied         the hub refuses this token, or wants one
├── ContentChanged       an object of a bucket changed under the pinned listing
├── RemoteError          no answer can be had from the hub now; a later try may work
│   ├── RemoteUnavailable    no connection, 5xx, or 429 for longer than the deadline
│   ├── ProtocolError        an answer that makes no sense: cut JSON, a wrong span, a wrong length
│   │   └── DamagedBody          a compressed body that does not fit its checksum
│   └── Stalled              no byte for longer than the inactivity deadline
├── Offline              the mount was made without a network, and the cache does not have this
├── IntegrityError       the bytes are not those that the commit names
│   └── Disproved            ... and some of them were given out before that was known
├── TooLarge             more than dagfs takes: a directory's entries, a file whose size nobody tells
├── UnsafeLink           a symbolic link that leads out of the mount
├── Unsupported          this operation has no meaning here
└── UsageError           what the user asked for cannot be done; the text says what to do
    ├── UnknownRepository    no such repository, or no access to it
    │   └── NoAccess             the hub says that it is there and that this token, or none, may not see it
    ├── UnknownRevision      no such branch, tag or commit
    ├── BadToken             the hub does not accept the token
    ├── BadMountPoint        cannot be used
    │   ├── MountPointMissing    does not exist
    │   ├── MountPointNotEmpty   an empty directory is wanted
    │   └── AlreadyMounted       something is mounted there
    ├── NoFuse               no /dev/fuse, or another reason why this machine cannot mount
    │   └── NoFusermount         an ordinary user needs fusermount3
    ├── HubUnreachable       the hub does not answer at start
    │   ├── HubNotTrusted        its certificate is not one to trust
    │   ├── HubNotFound          its name has no address
    │   └── ProxyUnreachable     the proxy of the environment does not let us through
    ├── LoginFailed          nobody allowed a login, or the hub gave no token for it
    ├── NotInCache           a mount without a network of what the cache does not know
    └── CacheRefused         the cache directory cannot be used safely
"""

from __future__ import annotations

import enum


class DagfsError(Exception):
    """Root of the tree; `str(error)` is one line that a person can act on."""


class NotFound(DagfsError):
    """The hub said that the path does not exist. Never raised because the network failed."""


class NotADirectory(DagfsError):
    """A path goes on below something that is not a directory."""


class IsADirectory(DagfsError):
    """A directory was read as if it were a file."""


class ReadOnly(DagfsError):
    """The mount is read-only."""


class AccessDenied(DagfsError):
    """The hub refuses this token for this path (401 or 403).

    `retry_after`: seconds after which to look again for a token that replaces it; None when that is no use.
    """

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class ContentChanged(DagfsError):
    """An unversioned object changed since the mount listed it."""


class RemoteError(DagfsError):
    """The hub gave no usable answer; the same request may work later."""


class Obstacle(enum.Enum):
    """What stands between us and the hub, where that decides what a person has to do."""

    CERTIFICATE = "the certificate is not one to trust"
    NAME = "the name has no address"
    PROXY = "the proxy does not let us through"


class RemoteUnavailable(RemoteError):
    """No connection, or 5xx or 429 for longer than the deadline.

    `retry_after`: seconds that the hub asked to wait, when it did. `obstacle`: None where nothing special is known.
    """

    def __init__(self, message: str, retry_after: float | None = None, obstacle: Obstacle | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.obstacle = obstacle


class ProtocolError(RemoteError):
    """An answer that contradicts itself or the contract."""


class DamagedBody(ProtocolError):
    """A compressed body that does not fit its own checksum, or lacks it: what came of it may be wrong."""


class Stalled(RemoteError):
    """No byte arrived for longer than the inactivity deadline."""


class Offline(DagfsError):
    """A mount without a network was asked for what the cache does not have. No later try helps.

    `path`: what would have to be fetched; `listing`: the listing of a directory rather than a file's bytes.
    """

    def __init__(self, message: str, path: str, *, listing: bool) -> None:
        super().__init__(message)
        self.path = path
        self.listing = listing


class IntegrityError(DagfsError):
    """The bytes received are not those that the commit names."""


class Disproved(IntegrityError):
    """Bytes were given out that are wrong, or may be: they are to be forgotten."""


class TooLarge(DagfsError):
    """More came than dagfs takes into memory or waits for. Asking again will not help."""


class UnsafeLink(DagfsError):
    """A symbolic link of the repository that leads out of the mount, or nowhere."""


class Unsupported(DagfsError):
    """The operation has no meaning on this file system."""


class UsageError(DagfsError):
    """Something to be told to the user before anything is mounted; each kind has its exit status."""

    exit_status = 2


class UnknownRepository(UsageError):
    """No such repository, or no access to it: the hub answers both with the same status."""

    exit_status = 3


class NoAccess(UnknownRepository):
    """The hub says that the repository is there and that this token, or none, may not see it (401, 403)."""

    exit_status = 10


class UnknownRevision(UsageError):
    """No branch, tag or commit of that name."""

    exit_status = 4


class BadToken(UsageError):
    """The hub does not accept the token (401)."""

    exit_status = 5


class BadMountPoint(UsageError):
    """Not a directory, or not usable for another reason."""

    exit_status = 6


class MountPointMissing(BadMountPoint):
    """The directory does not exist."""

    exit_status = 11


class MountPointNotEmpty(BadMountPoint):
    """The directory has something in it that the mount would hide."""

    exit_status = 12


class AlreadyMounted(BadMountPoint):
    """Something is mounted there."""

    exit_status = 13


class NoFuse(UsageError):
    """The machine cannot mount: no /dev/fuse, as a rule."""

    exit_status = 7


class NoFusermount(NoFuse):
    """An ordinary user cannot mount without fusermount3."""

    exit_status = 14


class HubUnreachable(UsageError):
    """The hub did not answer when the mount was made."""

    exit_status = 8


class HubNotTrusted(HubUnreachable):
    """The hub's certificate is expired, for another host, or signed by nobody that this machine trusts."""

    exit_status = 16


class HubNotFound(HubUnreachable):
    """The hub's name has no address: a typing error, or no network."""

    exit_status = 17


class ProxyUnreachable(HubUnreachable):
    """The proxy that the environment names does not answer, or refuses to connect to the hub."""

    exit_status = 18


class LoginFailed(UsageError):
    """Nobody allowed the login in time, the hub refused it, or gave no token that makes sense."""

    exit_status = 24


class NotInCache(UsageError):
    """A mount without a network was asked for, and the cache does not know the commit or its root."""

    exit_status = 15


class CacheRefused(UsageError):
    """The cache directory belongs to somebody else, can be written by others, or has another format."""

    exit_status = 9
