"""Errors become errnos by one table that forgets none."""

from __future__ import annotations

import errno
import logging

import pytest

from dagfs import errors
from dagfs.vfs.errnos import ERRNOS, report
from dagfs.vfs.memory import MemoryFs


def _tree(root: type[BaseException]) -> set[type[BaseException]]:
    return {root}.union(*(_tree(kind) for kind in root.__subclasses__() if kind.__module__ == errors.__name__))


def test_every_error_that_an_operation_can_end_with_has_an_errno() -> None:
    operations = _tree(errors.DagfsError) - {errors.DagfsError} - _tree(errors.UsageError)
    assert set(ERRNOS) == operations


def test_no_error_says_try_again_and_only_absence_says_enoent() -> None:
    assert errno.EAGAIN not in ERRNOS.values()
    assert [kind for kind, number in ERRNOS.items() if number == errno.ENOENT] == [errors.NotFound]


def test_a_failure_is_logged_once_with_operation_errno_and_cause(caplog: pytest.LogCaptureFixture) -> None:
    fs = MemoryFs({"a\nb": b""})
    error = errors.Stalled("no byte for 30 s")
    error.__cause__ = TimeoutError("socket")
    with caplog.at_level(logging.WARNING):
        assert report(fs, 2, "read", error) == errno.ETIMEDOUT
    (record,) = caplog.records
    for part in ("read of a\\nb:", "ETIMEDOUT", "no byte for 30 s", "TimeoutError('socket')"):
        assert part in record.getMessage()
    assert record.exc_info is None
    assert fs.failures == [(2, "read", "Stalled")]


@pytest.mark.parametrize("error", [KeyError("x"), OSError(errno.ENOENT, "x"), errors.UsageError("x")])
def test_an_error_outside_the_table_is_eio_with_a_traceback(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    assert report(MemoryFs({}), 7, "read", error) == errno.EIO
    (record,) = caplog.records
    assert record.exc_info
