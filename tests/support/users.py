"""Work done as another user of the machine, in a process of its own that needs no interpreter it could not run."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable

SOMEBODY, NOBODY = 65533, 65534
OWN_WORDS = 254
"""The status for an OSError without an errno: one of dagfs's own."""


def run_as(user: int | None, work: Callable[[], object]) -> int:
    """Run `work` as `user`, None for whoever runs the tests: 0 when it returned, the errno of its OSError, 255 for
    another error."""
    child = os.fork()
    if child == 0:
        status = 255
        try:
            if user is not None:
                os.setgroups([])
                os.setgid(user)
                os.setuid(user)
            work()
            status = 0
        except OSError as error:
            status = error.errno or OWN_WORDS
        except BaseException:  # noqa: BLE001 -- nothing of a child may go on in the test
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
