"""The same training on a plain copy and on the mount gives identical embeddings and losses."""

from __future__ import annotations

import shutil

import pytest
from support.hubs import hub

pytestmark = pytest.mark.integration

IMAGES = 32


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    from dagfs.demo.dataset import build_repository

    return build_repository(tmp_path_factory.mktemp("photographs") / "repo", IMAGES)


def test_training_on_the_mount_equals_training_on_a_copy(photographs, home, tmp_path, driver):
    from training.train import train_summary

    copy = tmp_path / "copy"
    shutil.copytree(photographs, copy, ignore=shutil.ignore_patterns(".dvc", ".git"))
    on_copy = train_summary(copy, tmp_path / "out-copy")
    with hub(photographs, latency=0.005) as url, home.mounted(url, tmp_path / "data", "--driver", driver) as data:
        on_mount = train_summary(data, tmp_path / "out-mount")
    assert on_mount["embeddings_sha256"] == on_copy["embeddings_sha256"]
    assert losses(on_mount) == losses(on_copy)
    assert len(losses(on_copy)) > 1


def losses(summary):
    return [(epoch["train_loss"], epoch["valid_loss"]) for epoch in summary["epochs"]]
