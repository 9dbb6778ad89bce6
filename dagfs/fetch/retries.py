"""Whether a load that has failed is tried again, and when."""

from __future__ import annotations

import random

from dagfs.errors import AccessDenied, IntegrityError, RemoteError
from dagfs.fetch.job import Job
from dagfs.hub.retry import DENIALS_MAX

BACKOFF = 0.2
BACKOFF_MAX = 10.0
"""Seconds. Retries wait a random time up to BACKOFF, doubled each time: loads that failed together come back apart."""

INTEGRITY_RETRIES = 2
"""Wrong bytes from a good connection come again; a broken proxy is told from a broken file by trying twice."""


def delay_of(job: Job, error: BaseException, now: float, patience: float) -> float | None:
    """Note the failure of a load's body, and give the seconds until the next try; None when there is none.

    `now` on the monotonic clock; `patience`: seconds without progress after which a load is given up.
    """
    job.failures += 1
    if isinstance(error, IntegrityError):
        job.integrity_failures += 1
        return 0.0 if job.integrity_failures <= INTEGRITY_RETRIES and job.assembly.restart() else None
    if isinstance(error, AccessDenied):
        job.denials += 1
        if error.retry_after is not None and job.denials <= DENIALS_MAX:
            return error.retry_after
        return BACKOFF if job.denials == 1 else None  # the token may just have been renewed
    if not isinstance(error, RemoteError):
        return None
    jitter = random.uniform(0, min(BACKOFF_MAX, BACKOFF * 2 ** min(job.failures, 16)))  # noqa: S311 -- no secret  # nosec B311
    delay = jitter + (getattr(error, "retry_after", None) or 0.0)
    return delay if now + delay < (job.progress or now) + patience else None
