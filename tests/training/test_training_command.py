"""`python -m training.train` and `training.predict`, as a user types them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from training.predict import main as predict
from training.train import Settings, main, train_summary

ROOT = Path(__file__).parents[2]


def train_program(*words: str | Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-m", "training.train", *map(str, words)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=100,
    )


def outcome(summary: dict) -> tuple:
    losses = [(epoch["train_loss"], epoch["valid_loss"]) for epoch in summary["epochs"]]
    return summary["embeddings_sha256"], losses


@pytest.fixture(scope="module")
def trained(photographs: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    output = tmp_path_factory.mktemp("trained") / "new" / "directory"
    return output, train_summary(photographs, output, Settings(epochs=8, batch_size=8))


def test_training_leaves_weights_curves_and_metrics(trained: tuple[Path, dict]) -> None:
    output, summary = trained
    assert sorted(path.name for path in output.iterdir()) == ["losses.png", "metrics.json", "predictor.pt"]
    assert json.loads((output / "metrics.json").read_text()) == summary
    assert (summary["train_samples"], summary["valid_samples"]) == (19, 5)
    with Image.open(output / "losses.png") as image:
        assert image.format == "PNG"


def test_training_learns_from_photographs(trained: tuple[Path, dict]) -> None:
    epochs = trained[1]["epochs"]
    assert epochs[-1]["train_loss"] < epochs[0]["train_loss"] / 2
    assert epochs[-1]["valid_loss"] < trained[1]["baseline_valid_loss"]


def test_a_copy_of_the_data_gives_identical_embeddings_and_losses(
    photographs: Path, trained: tuple[Path, dict], tmp_path: Path
) -> None:
    shutil.copytree(photographs, tmp_path / "copy")
    again = train_summary(tmp_path / "copy", tmp_path / "out", Settings(epochs=8, batch_size=8))
    assert outcome(again) == outcome(trained[1])


def test_another_picture_gives_other_embeddings(photographs: Path, trained: tuple[Path, dict], tmp_path: Path) -> None:
    shutil.copytree(photographs, tmp_path / "copy")
    shutil.copy(photographs / "images/000001.jpg", tmp_path / "copy/images/000000.jpg")
    other = train_summary(tmp_path / "copy", tmp_path / "out", Settings(epochs=1, batch_size=8))
    assert other["embeddings_sha256"] != trained[1]["embeddings_sha256"]


def test_the_seed_decides_the_split_and_the_weights(
    photographs: Path, trained: tuple[Path, dict], tmp_path: Path
) -> None:
    other = train_summary(photographs, tmp_path, Settings(epochs=1, batch_size=8, seed=1))
    assert other["embeddings_sha256"] == trained[1]["embeddings_sha256"]
    assert other["epochs"][0]["train_loss"] != trained[1]["epochs"][0]["train_loss"]


def test_caption_and_limit_choose_the_samples(photographs: Path, tmp_path: Path) -> None:
    rows = (photographs / "labels.tsv").read_text().splitlines()[1:]
    wanted = sum("cat" in row.split("\t")[1].lower() for row in rows[:20])
    assert 2 <= wanted < 20
    summary = train_summary(photographs, tmp_path, Settings(epochs=1, caption="CAT", limit=20))
    assert summary["train_samples"] + summary["valid_samples"] == wanted


def test_the_command_with_workers_prints_a_short_summary(photographs: Path, tmp_path: Path) -> None:
    done = train_program("--data", photographs, "--output", tmp_path, "--workers", 2, "--epochs", 2, "--limit", 8)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("6 training and 2 validation images on ")
    assert lines[1].startswith("epoch 1: training loss ")
    assert lines[2].startswith("epoch 2: training loss ")
    assert str(tmp_path) in lines[-1]
    assert done.stderr == ""  # no progress bar where no terminal is, and no warning


def test_a_log_shows_each_epoch_as_it_ends(photographs: Path, tmp_path: Path) -> None:
    lines: list[str] = []

    def tell(line: str) -> None:
        lines.append(line.partition(":")[0])
        if line.startswith("epoch 1"):
            raise KeyboardInterrupt  # nothing runs after it, so the line did not wait for the end

    with pytest.raises(KeyboardInterrupt):
        train_summary(photographs, tmp_path, Settings(epochs=2, limit=8), tell=tell)
    assert lines == ["6 training and 2 validation images on cpu", "epoch 1"]


def test_workers_see_the_same_pictures_and_the_same_network(photographs: Path, tmp_path: Path) -> None:
    alone, helped = (
        train_summary(photographs, tmp_path / str(n), Settings(epochs=2, limit=8, workers=n)) for n in (0, 2)
    )
    assert alone["embeddings_sha256"] == helped["embeddings_sha256"]


def test_a_broken_image_is_one_line_also_from_a_worker(photographs: Path, tmp_path: Path) -> None:
    shutil.copytree(photographs, tmp_path / "data")
    (tmp_path / "data/images/000003.jpg").write_bytes(b"not a jpeg")
    done = train_program("--data", tmp_path / "data", "--output", tmp_path / "out", "--workers", 1, "--limit", 4)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"training: {tmp_path / 'data/labels.tsv'}, row 5: {tmp_path / 'data/images/000003.jpg'}: ")


@pytest.mark.parametrize(
    ("words", "status", "text"),
    [
        (("--data", "nowhere"), 1, "training: nowhere/labels.tsv: No such file or directory"),
        (("--caption", "elephant"), 1, "training: 0 samples cannot be split"),
        (("--images", "pictures"), 1, "row "),
        (("--backbone", "resnet50"), 1, "training: unknown backbone resnet50"),
        (("--output", "/dev/null/out"), 1, "training: /dev/null/out: Not a directory"),
        (("--epochs", "0"), 2, "'0' is not a number of 1 or more"),
        (("--workers", "-1"), 2, "'-1' is not a number of 0 or more"),
    ],
)
def test_a_mistake_is_one_line(
    words: tuple[str, ...], status: int, text: str, photographs: Path, tmp_path: Path, capsys
) -> None:
    try:
        ended = main(["--data", str(photographs), "--output", str(tmp_path), "--limit", "4", *words])
    except SystemExit as exit_:
        ended = exit_.code
    assert ended == status
    said = capsys.readouterr()
    assert said.out.splitlines() in ([], ["3 training and 1 validation images on cpu"])  # what it had begun with
    assert text in said.err.splitlines()[-1]
    assert status == 2 or len(said.err.splitlines()) == 1


def test_predict_prints_a_score_for_each_image(trained: tuple[Path, dict], photographs: Path, capsys) -> None:
    rows = [row.split("\t") for row in (photographs / "labels.tsv").read_text().splitlines()[1:]]
    paths = [str(photographs / "images" / name) for name, _, _ in rows]
    assert predict(["--weights", str(trained[0] / "predictor.pt"), *paths]) == 0
    printed = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert [path for _, path in printed] == paths
    errors = [(float(score) - float(truth)) ** 2 for (score, _), (_, _, truth) in zip(printed, rows, strict=True)]
    assert sum(errors) / len(errors) < trained[1]["baseline_valid_loss"]


def test_predict_names_what_it_cannot_read_and_goes_on(trained: tuple[Path, dict], photographs: Path, capsys) -> None:
    good = str(photographs / "images/000000.jpg")
    assert predict(["--weights", str(trained[0] / "predictor.pt"), "nowhere.jpg", good]) == 1
    said = capsys.readouterr()
    assert said.err == "predict: nowhere.jpg: No such file or directory\n"
    assert said.out.endswith(f"\t{good}\n")
