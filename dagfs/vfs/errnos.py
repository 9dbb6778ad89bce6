"""The one table from errors to errno, and the one place where a failed operation is logged: shared by the adapters."""

from __future__ import annotations

import errno
import logging

from dagfs import errors
from dagfs.model import printable
from dagfs.vfs.seam import FileSystem

log = logging.getLogger(__name__)

ERRNOS: dict[type[BaseException], int] = {
    errors.NotFound: errno.ENOENT,
    errors.NotADirectory: errno.ENOTDIR,
    errors.IsADirectory: errno.EISDIR,
    errors.ReadOnly: errno.EROFS,
    errors.AccessDenied: errno.EACCES,
    errors.ContentChanged: errno.ESTALE,
    errors.RemoteError: errno.EIO,
    errors.RemoteUnavailable: errno.EIO,
    errors.ProtocolError: errno.EIO,
    errors.DamagedBody: errno.EIO,
    errors.Stalled: errno.ETIMEDOUT,
    errors.Offline: errno.ENETUNREACH,  # "Network is unreachable": what a person reads is what it is
    errors.IntegrityError: errno.EIO,
    errors.Disproved: errno.EIO,
    errors.TooLarge: errno.EFBIG,
    errors.UnsafeLink: errno.EPERM,
    errors.Unsupported: errno.EOPNOTSUPP,
}
"""By exact type: an error that is not named here is unexpected, whatever it inherits from."""


def report(fs: FileSystem, node: int, operation: str, error: BaseException) -> int:
    """Log a failed operation with its cause, tell the file system of it, and give its errno.

    An error outside the table is EIO with a traceback in the log.
    """
    number = ERRNOS.get(type(error))
    where = _where(fs, node)
    if number is None:
        log.error("%s of %s failed unexpectedly: EIO", operation, where, exc_info=error)
        number = errno.EIO
    else:
        cause = f" (cause: {error.__cause__!r})" if error.__cause__ else ""
        log.warning("%s of %s: %s, %s%s", operation, where, errno.errorcode[number], printable(str(error)), cause)
    try:
        fs.failed(node, operation, error)
    except Exception:  # whoever waits for the errno must get it
        log.exception("cannot note the failure of %s of %s", operation, where)
    return number


def _where(fs: FileSystem, node: int) -> str:
    try:
        return printable(fs.path(node))
    except Exception:
        log.exception("no path for node %d", node)
        return f"node {node}"
