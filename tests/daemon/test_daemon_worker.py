"""A worker's rooms, without a kernel."""

from __future__ import annotations

import os
from pathlib import Path

from support.hubs import hub
from support.repos import commit_all, new_repository, write_files

from dagfs.config import places
from dagfs.daemon import interpreter
from dagfs.daemon.commits import CommitTable
from dagfs.daemon.control import ask
from dagfs.daemon.plan import MountPlan
from dagfs.daemon.resolving import resolve
from dagfs.daemon.serving import Service, Tables
from dagfs.daemon.state import Registry
from dagfs.hub.auth import Token
from dagfs.hub.urls import parse_repo
from dagfs.kernel.backing import Table
from dagfs.kernel.following import Following
from dagfs.kernel.handshake import Feature, Negotiated
from dagfs.kernel.openings import OpenTable
from dagfs.store.spare import Spare


def test_who_asks_a_worker_is_told_all_from_its_first_answer_on(tmp_path: Path, monkeypatch) -> None:
    """A monitor that asks in between would read that the branch is not followed, and the commit of the beginning."""
    write_files(root := new_repository(tmp_path / "repo"), {"a": b"a"})
    commit_all(root, "a")
    monkeypatch.setattr(interpreter, "settle_heap", lambda: None)  # this process goes on to other tests
    monkeypatch.setattr(interpreter, "settle", lambda: None)
    device, token = os.open("/dev/null", os.O_RDWR), Token("nowhere", None)  # the kernel has unmounted
    where = places({"HOME": str(tmp_path), "XDG_RUNTIME_DIR": ""}, str(tmp_path / "cache"))
    with hub(root) as url:
        plan = MountPlan(parse_repo(url, "https://hub.invalid")[0], tmp_path / "m", where, 1 << 30, follow=60)
        commit = resolve(plan, token)
        control = Registry(where.runtime).socket(plan.id)
        told: list[object] = []
        monkeypatch.setattr(Following, "changed", lambda _: told.append(control.exists()))
        service = Service(plan, commit, token, Tables(Table(), OpenTable(), CommitTable(commit), Spare()))
        service.run(
            device, Negotiated(44, Feature(0), 0), lambda: told.append(next(ask(control, {"op": "status"}, 5))),
            takes_over=True,
        )  # fmt: skip
    os.close(device)
    early, status = told
    assert not early
    assert (status["commit"], status["follow"]["error"]) == (commit.sha, None)
