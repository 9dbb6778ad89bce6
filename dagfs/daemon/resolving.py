"""What is mounted: the commit that the user's words mean, and its root, found before there is a mount."""

from __future__ import annotations

import os
from dataclasses import replace

from dagfs.daemon.core import Core
from dagfs.daemon.plan import MountPlan
from dagfs.errors import (
    AccessDenied,
    BadToken,
    HubUnreachable,
    NoAccess,
    NotADirectory,
    NotFound,
    NotInCache,
    Offline,
    RemoteError,
    UnknownRepository,
    UnknownRevision,
    UsageError,
)
from dagfs.hub.api import connect
from dagfs.hub.auth import Token
from dagfs.hub.revisions import unreachable
from dagfs.metrics import Metrics
from dagfs.model import Commit
from dagfs.store.disk import DiskStore
from dagfs.tree.known import Known


def resolve(plan: MountPlan, token: Token) -> Commit:
    """Find the commit and list the mount's root into the cache, so that every failure comes before the mount.

    Everything that is opened for it is closed again: who calls this forks afterwards. Raises UsageError.
    """
    if plan.offline:
        return _resolve_here(plan, token)
    try:
        return _resolve_at_hub(plan, token)
    except HubUnreachable as error:
        raise type(error)(f"{error}{_what_is_here(plan, token)}") from error


def _resolve_at_hub(plan: MountPlan, token: Token) -> Commit:
    source = connect(plan.repo, token, Metrics(), os.environ)
    try:
        commit = source.resolve(plan.revision, plan.revision_kind)
        if plan.follow and commit.branch is None:
            raise UsageError(f"--follow needs a branch, and {plan.revision} is a tag or a commit")
    except (UnknownRepository, BadToken) as error:
        raise type(error)(f"{error}{token.unused and f' ({token.unused})'}") from error
    finally:
        source.close()
    core = Core(plan, commit, token)
    try:
        core.tree.prepare()
        Known(core.store, plan.repo).remember(plan.revision, commit)
    except (NotFound, NotADirectory):
        raise UnknownRevision(f"{plan.repo.slug} has no directory {plan.subdir!r} at {commit.sha[:12]}") from None
    except AccessDenied as error:
        raise NoAccess(f"{plan.repo} does not let this token list {plan.subdir or 'its files'}") from error
    except RemoteError as error:
        raise unreachable(f"{plan.repo.host} gave no listing of {plan.repo.slug}: {error}", error) from error
    finally:
        core.close()
    return commit


def _resolve_here(plan: MountPlan, token: Token) -> Commit:
    """Find commit and root in the cache; asks no hub. Raises NotInCache, UnknownRevision."""
    store = DiskStore(plan.store_root, plan.cache_bytes, Metrics())
    try:
        commit = Known(store, plan.repo).recall(plan.revision, plan.revision_kind)
    finally:
        store.close()
    if commit is None:
        what = plan.revision or "the default branch"
        raise NotInCache(f"the cache does not know the commit of {what} of {plan.repo}; mount it once with a network")
    core = Core(plan, commit, token)
    try:
        core.tree.prepare()
    except Offline:
        what = f"{plan.subdir or 'the root'} of {plan.repo} at {commit.sha[:12]}"
        raise NotInCache(f"the cache has no listing of {what}; mount it once with a network") from None
    finally:
        core.close()
    return commit


def _what_is_here(plan: MountPlan, token: Token) -> str:
    """Say what a mount without the hub would show, as the end of an error's line; "" when that is nothing."""
    if not (plan.store_root / "format").exists():  # to open the store would make one
        return ""
    try:
        commit = _resolve_here(replace(plan, offline=True), token)
    except UsageError:
        return ""
    return f"; --offline would serve what the cache has of commit {commit.sha[:12]}"
