"""What a worker of the kernel driver does: build the rooms and serve the device until the mount ends."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass

from dagfs.daemon.plan import MountPlan
from dagfs.daemon.worker import worker_rooms
from dagfs.hub.auth import Token, find_token
from dagfs.kernel.backing import Backings, Table
from dagfs.kernel.handshake import Feature, Negotiated
from dagfs.kernel.protocol import Owner
from dagfs.kernel.session import Session
from dagfs.model import Commit
from dagfs.supervisor.post import Ready


@dataclass(frozen=True, slots=True)
class Service:
    """One mount as its workers serve it; `table` is shared by all of them."""

    plan: MountPlan
    commit: Commit
    token: Token
    table: Table

    def run(self, fd: int, agreed: Negotiated, ready: Ready, *, takes_over: bool) -> int:
        """Serve the device; `takes_over`: another worker did before."""
        with worker_rooms(self.plan, self.commit, self.token) as core:
            through = agreed.has(Feature.PASSTHROUGH)
            backings = Backings(fd, self.table, takes_over=takes_over) if through else None
            session = Session(fd, core.vfs, agreed, Owner(os.getuid(), os.getgid()), backings)
            core.observe("kernel", session.counts)
            ready()
            session.run()
        return 0


def token_for(plan: MountPlan) -> Token:
    """Find the token that a mount uses. Raises UsageError."""
    token_file = str(plan.token_file) if plan.token_file else None
    return find_token(token_file, os.environ, plan.places.client_tokens, plan.repo.host, time.time())
