"""What a worker of the kernel driver does: build the rooms and serve the device until the mount ends."""

from __future__ import annotations

import os
import socket
import time
from dataclasses import dataclass

from dagfs.daemon.commits import CommitTable
from dagfs.daemon.core import Followed, Handed
from dagfs.daemon.plan import MountPlan
from dagfs.daemon.worker import answering, follow, worker_rooms
from dagfs.hub.auth import Token, find_token
from dagfs.kernel.backing import Backings, Table
from dagfs.kernel.following import Following
from dagfs.kernel.handshake import Feature, Negotiated
from dagfs.kernel.openings import Openings, OpenTable
from dagfs.kernel.operations import Opening
from dagfs.kernel.protocol import Owner
from dagfs.kernel.pulse import Pulse
from dagfs.kernel.session import Session
from dagfs.model import Commit
from dagfs.store.spare import Spare
from dagfs.supervisor.post import Ready


@dataclass(frozen=True, slots=True)
class Tables:
    """What a mount's workers hand on to each other, in memory that they share. `pulse`: for a passed mount."""

    backings: Table
    openings: OpenTable
    commits: CommitTable
    spare: Spare
    pulse: Pulse | None = None


@dataclass(frozen=True, slots=True)
class Service:
    """One mount as its workers serve it. `listener`: where the one that serves answers scrapes."""

    plan: MountPlan
    commit: Commit
    token: Token
    tables: Tables
    listener: socket.socket | None = None

    def run(self, fd: int, agreed: Negotiated, ready: Ready, *, takes_over: bool) -> int:
        """Serve the device; `takes_over`: another worker did before."""
        plan, tables = self.plan, self.tables
        followed = Followed(tables.commits, takes_over) if plan.follow else None
        handed = Handed(tables.commits.session, followed, tables.spare)
        with worker_rooms(plan, self.commit, self.token, handed) as core:
            through = agreed.has(Feature.PASSTHROUGH)
            backings = Backings(fd, tables.backings, takes_over=takes_over) if through else None
            openings = Openings(tables.openings) if plan.hold_while_open else None
            following = Following(fd, core.generations, agreed.minor, openings) if core.generations else None
            owner = Owner(os.getuid(), os.getgid())
            session = Session(fd, core.fs, agreed, owner, Opening(backings, following))
            core.observe("kernel", session.counts)
            session.pulse = tables.pulse
            core.drop_pages = session.drop_pages
            core.waiting = session.waiting
            with follow(plan, core, following, openings, ready), answering(plan, core, self.listener):
                ready()
                session.run()
        return 0


def token_for(plan: MountPlan) -> Token:
    """Find the token; a mount without a network needs none, and must not fail for one. Raises UsageError."""
    if plan.offline:
        return Token("nowhere: the mount is offline", None)
    return find_token(plan.token_file, os.environ, plan.places.client_tokens, plan.repo.host, time.time())
