"""The guide's TensorFlow part: rows, split and shapes of the PyTorch one; the same training on a mount and a copy."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from support.commands import asked
from support.hubs import hub

from dagfs.demo.dataset import build_repository

ROOT = Path(__file__).parents[2]
IMAGES = 20
SMALL = ("--backbone", "EfficientNetV2B0", "--weights", "none", "--batch-size", "4")
QUIET = {"OMP_NUM_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_repository(tmp_path_factory.mktemp("photographs") / "repo", IMAGES)


def python(program: str, *words: str | Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, words)],
        env={**os.environ, **QUIET, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


def train(data: Path, output: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "training.tensorflow.train", "--data", str(data), "--output", str(output), *words]
    environment = {**os.environ, **QUIET, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)


def metrics(output: Path) -> dict:
    return json.loads((output / "metrics.json").read_text())


def outcome(found: dict) -> tuple:
    losses = [(epoch["train_loss"], epoch["valid_loss"]) for epoch in found["epochs"]]
    return found["embeddings_sha256"], found["baseline_valid_loss"], losses


def test_training_on_the_mount_equals_training_on_a_copy_and_fetches_each_file_once(photographs, home, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(photographs, copy, ignore=shutil.ignore_patterns(".dvc", ".git"))
    done = train(copy, tmp_path / "out-copy", *SMALL)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("16 training and 4 validation images on ")
    with hub(photographs, latency=0.005) as url, home.mounted(url, tmp_path / "data") as data:
        asked(url, reset=True)
        assert train(data, tmp_path / "out-mount", *SMALL, "--workers", "2").returncode == 0
        fetched = asked(url)["raw_paths"]
    assert outcome(metrics(tmp_path / "out-mount")) == outcome(metrics(tmp_path / "out-copy"))
    assert len(metrics(tmp_path / "out-copy")["epochs"]) == 3
    assert set(fetched.values()) == {1}
    assert len([path for path in fetched if path.startswith("images/")]) == IMAGES
    written = sorted(path.name for path in (tmp_path / "out-mount").iterdir())
    assert written == ["losses.png", "metrics.json", "predictor.keras"]
    with Image.open(tmp_path / "out-mount/losses.png") as image:
        assert image.format == "PNG"


SHAPES = """
import json, sys
from training.dataset import LAIONAestheticsDataset, split
import numpy as np
import torch

class Torch:
    width = 3
    def extract(self, path):
        return torch.tensor([float(path.stem), 0.0, 1.0])

class TensorFlow:
    width = 3
    def extract(self, paths):
        return np.array([[float(path.stem), 0.0, 1.0] for path in paths], dtype=np.float32)

labels, images = sys.argv[1] + "/labels.tsv", sys.argv[1] + "/images"
dataset = LAIONAestheticsDataset(labels, images, Torch())
for part in split(dataset.with_caption("a"), seed=5):
    print(json.dumps([[row.tolist(), score.item()] for row, score in part]))

from training.tensorflow.generator import LAIONAestheticsTable, generators
table = LAIONAestheticsTable(labels, images, TensorFlow())
for part in generators(table, "a", seed=5, batch_size=4):
    batches = [part[i] for i in range(len(part))]
    assert all(rows.shape == (len(scores), 3) and rows.dtype == np.float32 for rows, scores in batches)
    assert all(scores.shape == (len(scores),) and scores.dtype == np.float32 for rows, scores in batches)
    first = [pair for rows, scores in batches for pair in zip(rows.tolist(), scores.tolist())]
    part.on_epoch_end()
    again = [row for i in range(len(part)) for row in part[i][0].tolist()]
    print(json.dumps([first, again]))
"""


def test_both_frameworks_split_the_same_rows_alike_and_give_the_same_labels_and_shapes(photographs):
    torch_train, torch_valid, (train_pairs, train_again), (valid_pairs, valid_again) = map(
        json.loads, python(SHAPES, photographs).splitlines()
    )
    assert sorted(train_pairs) == sorted(torch_train)
    assert valid_pairs == torch_valid
    assert {row[0] for row, _ in torch_train}.isdisjoint({row[0] for row, _ in torch_valid})
    assert sorted(train_again) == sorted(row for row, _ in train_pairs)
    assert train_again != [row for row, _ in train_pairs]  # dealt out anew
    assert valid_again == [row for row, _ in valid_pairs]


WEIGHTS = """
import sys
import numpy as np
from training.tensorflow.extractor import SIDE, EfficientNetFeatureExtractor, read_image
import keras

paths = sys.argv[2:]
assert tuple(read_image(paths[0]).shape) == (SIDE, SIDE, 3) == (480, 480, 3)
made = EfficientNetFeatureExtractor("EfficientNetV2B0", None)
before = made.extract(paths)
assert before.shape == (len(paths), made.width) and before.dtype == np.float32 and np.isfinite(before).all()
made._network.save_weights(sys.argv[1])
again = EfficientNetFeatureExtractor("EfficientNetV2B0", sys.argv[1]).extract(paths)
assert np.array_equal(before, again)
assert not np.array_equal(before, EfficientNetFeatureExtractor("EfficientNetV2B0", None).extract(paths))
pixels = np.stack([read_image(path) for path in paths])
network = keras.applications.EfficientNetV2B0(include_top=False, weights=sys.argv[1], pooling="avg")
assert np.allclose(before, network.predict(pixels, verbose=0), atol=1e-5)
"""


def test_a_local_file_of_weights_gives_the_network_that_was_saved(photographs, tmp_path):
    python(WEIGHTS, tmp_path / "efficientnetv2-b0_notop.weights.h5", *sorted((photographs / "images").iterdir())[:3])


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("--backbone", "ResNet50"), "unknown backbone ResNet50: choose one of EfficientNetB0"),
        (("--weights", "nowhere.h5"), "nowhere.h5: no such file of weights"),
        ((*SMALL, "--images", "pictures"), "labels.tsv, row "),
        ((*SMALL, "--images", "pictures"), ".jpg: No such file or directory"),
        (("--caption", "elephant", *SMALL), "0 samples cannot be split"),
    ],
)
def test_a_mistake_is_one_line(photographs, tmp_path, words, text):
    done = train(photographs, tmp_path, *words)
    assert done.returncode == 1
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("training: ")]
    assert text in line
    assert done.stdout == ""


def test_a_broken_image_deep_in_an_epoch_is_named_with_its_row(photographs, tmp_path):
    """Keras asks for the first two batches itself; later ones come through TensorFlow, which hides the error."""
    shutil.copytree(photographs, tmp_path / "data", ignore=shutil.ignore_patterns(".dvc", ".git"))
    for image in (tmp_path / "data/images").iterdir():
        if image.name == "000013.jpg":
            image.chmod(0o644)
            image.write_bytes(image.read_bytes()[:2000])
    done = train(tmp_path / "data", tmp_path / "out", *SMALL[:4], "--batch-size", "1")
    assert done.returncode == 1
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("training: ")]
    wanted = f"training: {tmp_path}/data/labels.tsv, row 15: {tmp_path}/data/images/000013.jpg: "
    assert line.startswith(wanted)


def test_weights_that_cannot_be_downloaded_are_told_with_what_to_do(photographs, tmp_path):
    words = (str(photographs), str(tmp_path))
    program = (
        "import sys, keras.src.utils.file_utils as files\n"
        "def refused(*_): raise OSError('no network')\n"
        "files.urlretrieve = refused\n"
        "from training.tensorflow.train import main\n"
        "sys.exit(main(['--data', sys.argv[1], '--output', sys.argv[2]]))\n"
    )
    environment = {**os.environ, **QUIET, "PYTHONPATH": str(ROOT), "KERAS_HOME": str(tmp_path / "keras")}
    done = subprocess.run(
        [sys.executable, "-c", program, *words], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 1
    assert "training: the ImageNet weights of EfficientNetV2L cannot be had (" in done.stderr
    assert "--weights FILE" in done.stderr
