"""The demo's pictures and its repository are what its README says."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import json
import subprocess
from pathlib import Path
from statistics import pstdev

import pytest
import yaml
from PIL import Image

from dagfs.demo import dataset
from dagfs.demo.pictures import MAX_BYTES, MIN_BYTES, Picture, pictures, score_of
from dagfs.errors import UsageError


@pytest.fixture(scope="module")
def cut() -> list[Picture]:
    return list(pictures(60, seed=1))


def test_pictures_are_whole_jpegs_of_a_crawled_sets_size_and_all_different(cut: list[Picture]) -> None:
    for picture in cut:
        assert MIN_BYTES <= len(picture.jpeg) <= MAX_BYTES
        with Image.open(io.BytesIO(picture.jpeg)) as image:
            assert image.format == "JPEG"
            image.load()
    assert len({picture.jpeg for picture in cut}) == len({picture.name for picture in cut}) == 60


def test_a_seed_always_gives_the_same_pictures_and_another_seed_others(cut: list[Picture]) -> None:
    assert list(pictures(3, seed=1)) == cut[:3]
    assert list(pictures(3, seed=2)) != cut[:3]


def test_about_one_caption_in_ten_has_a_squirrel() -> None:
    captions = [picture.caption for picture in pictures(120, seed=dataset.SEED)]
    assert 5 <= sum("squirrel" in caption for caption in captions) <= 24
    assert not any("\t" in caption or "\n" in caption for caption in captions)


def test_scores_lie_between_3_and_8_and_differ_with_the_picture(cut: list[Picture]) -> None:
    scores = [picture.score for picture in cut]
    assert all(3 <= score <= 8 for score in scores)
    assert pstdev(scores) > 0.5


def test_colour_and_contrast_raise_the_score() -> None:
    grey, colourful = Image.new("RGB", (64, 64), (128, 128, 128)), Image.effect_noise((64, 64), 90).convert("RGB")
    colourful.paste((255, 0, 0), (0, 0, 32, 64))
    assert score_of(grey) == 3
    assert score_of(colourful) > 5


def test_labels_name_every_image(repository: Path) -> None:
    head, *rows = (repository / "labels.tsv").read_text().splitlines()
    assert head == "name\tcaption\tscore"
    assert [row.split("\t")[0] for row in rows] == sorted(path.name for path in (repository / "images").iterdir())
    assert len(rows) == 32


def test_git_has_the_labels_and_dvc_every_byte_of_the_images(repository: Path) -> None:
    tracked = subprocess.run(["git", "ls-files"], cwd=repository, capture_output=True, text=True, check=True).stdout
    assert {"labels.tsv", "images.dvc", "README.md", ".dvc/config"} <= set(tracked.split())
    assert "images/" not in tracked
    store = repository / ".dvc/cache/files/md5"
    (out,) = yaml.safe_load((repository / "images.dvc").read_text())["outs"]
    manifest = json.loads((store / out["md5"][:2] / out["md5"][2:]).read_text())
    assert len(manifest) == 32
    for row in manifest:
        data = (repository / "images" / row["relpath"]).read_bytes()
        assert hashlib.md5(data).hexdigest() == row["md5"]
        assert (store / row["md5"][:2] / row["md5"][2:]).read_bytes() == data


def test_nothing_is_left_uncommitted(repository: Path) -> None:
    status = subprocess.run(["git", "status", "--short"], cwd=repository, capture_output=True, text=True, check=True)
    assert status.stdout == ""


def test_the_readme_says_that_captions_are_invented(repository: Path) -> None:
    assert "captions are invented" in (repository / "README.md").read_text()


def test_a_complete_repository_is_used_again(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset, "_run", lambda *words: pytest.fail(f"ran {words}"))
    assert dataset.build_repository(repository, 32) == repository


@pytest.fixture
def no_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """git and DVC take seconds; what they are told is tested above."""
    monkeypatch.setattr(dataset, "_run", lambda root, *words: (root / ".git").mkdir(exist_ok=True))


@pytest.mark.usefixtures("no_programs")
def test_a_repository_of_another_size_or_half_built_is_built_again(tmp_path: Path) -> None:
    target = tmp_path / "repository"
    (tmp_path / "repository.building/images").mkdir(parents=True)
    (target / "images").mkdir(parents=True)
    (target / "images/junk.jpg").touch()
    for count in (3, 4):
        dataset.build_repository(target, count)
        assert len(list((target / "images").iterdir())) == count
    assert [path.name for path in tmp_path.iterdir()] == ["repository"]


def test_a_program_that_fails_is_one_line_with_its_reason(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"`git no-such-command` failed in .*no-such-command"):
        dataset._run(tmp_path, "git", "no-such-command")


def test_missing_tools_are_named_with_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "dvc" else real(name))
    with pytest.raises(UsageError, match=r"pip install 'dagfs\[demo\]'"):
        dataset.build_repository(tmp_path / "repository", 2)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match="apt install git"):
        dataset.build_repository(tmp_path / "repository", 2)
    assert list(tmp_path.iterdir()) == []
