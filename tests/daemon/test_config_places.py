"""Where things lie, whatever the environment says or leaves out."""

from __future__ import annotations

import os

import pytest

from dagfs import config
from dagfs.config import places
from dagfs.errors import UsageError


def test_relative_places_are_made_absolute_because_the_daemon_leaves_its_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    names = {"HOME": "h", "XDG_CACHE_HOME": "c", "XDG_STATE_HOME": "s", "XDG_RUNTIME_DIR": "run"}
    found = places(names | {"DAGSHUB_CLIENT_TOKENS_CACHE": "t"}, "cache")
    assert found.cache == tmp_path / "cache"
    assert found.state == tmp_path / "s/dagfs"
    assert found.runtime == tmp_path / "run/dagfs"
    assert found.client_tokens == tmp_path / "t"


def test_a_runtime_directory_that_is_missing_or_somebody_elses_is_not_used(tmp_path, monkeypatch):
    state = {"HOME": str(tmp_path)}
    assert places(state).runtime == tmp_path / ".local/state/dagfs/run"
    assert places(state | {"XDG_RUNTIME_DIR": str(tmp_path / "none")}).runtime == tmp_path / ".local/state/dagfs/run"
    monkeypatch.setattr(config.os, "geteuid", lambda: os.stat(tmp_path).st_uid + 1)  # as after `sudo -E`
    assert places(state | {"XDG_RUNTIME_DIR": str(tmp_path)}).runtime == tmp_path / ".local/state/dagfs/run"


def test_a_user_without_a_home_is_told_what_to_set(monkeypatch):
    def no_home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(config.Path, "home", no_home)
    with pytest.raises(UsageError, match="set HOME"):
        places({})
