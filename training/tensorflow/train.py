"""Train the aesthetics predictor with Keras: python -m training.tensorflow.train --data PATH."""

from __future__ import annotations

import hashlib
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from training.command import Choices, Epoch, baseline_of, count, parser, print_report, run, write_metrics
from training.plots import plot_losses
from training.tensorflow.extractor import DEFAULT_BACKBONE, IMAGENET, EfficientNetFeatureExtractor
from training.tensorflow.generator import LAIONAestheticsGenerator, LAIONAestheticsTable, generators

HIDDEN = 64
LEARNING_RATE = 1e-3


@dataclass(frozen=True, slots=True)
class Settings(Choices):
    workers: int = 1
    backbone: str = DEFAULT_BACKBONE
    weights: str | None = IMAGENET


def predictor_of(width: int, offset: float) -> keras.Model:
    """Build the predictor of `training.predictor`: embeddings (N, width) to scores (N, 1), `offset` at first."""
    return keras.Sequential(
        [
            keras.Input((width,)),
            keras.layers.LayerNormalization(epsilon=1e-5),
            keras.layers.Dense(HIDDEN, activation="relu"),
            keras.layers.Dense(1),
            keras.layers.Rescaling(1.0, offset),
        ]
    )


def train_summary(data_dir: Path, out_dir: Path, settings: Settings | None = None) -> dict[str, Any]:
    """Train on `data_dir`, leave predictor.keras, losses.png and metrics.json in `out_dir`, and give the metrics.

    Raises BrokenData, UnknownBackbone, and OSError when a file or directory cannot be used.
    """
    settings = settings or Settings()
    extractor = EfficientNetFeatureExtractor(settings.backbone, settings.weights)
    keras.utils.set_random_seed(settings.seed)  # random weights, where the network starts from those
    width = extractor.width
    table = LAIONAestheticsTable(data_dir / "labels.tsv", data_dir / settings.images, extractor, settings.limit)
    options = {"batch_size": settings.batch_size, "workers": settings.workers}
    train, valid = generators(table, settings.caption or "", settings.seed, **options)
    out_dir.mkdir(parents=True, exist_ok=True)
    baseline = baseline_of([sample.score for sample in table.samples], train.positions, valid.positions)
    keras.utils.set_random_seed(settings.seed)
    predictor = predictor_of(width, baseline.mean)
    epochs = fit(predictor, train, valid, settings.epochs)
    predictor.save(out_dir / "predictor.keras")
    plot_losses(epochs, baseline.loss, out_dir / "losses.png")
    summary = {
        "settings": asdict(settings),
        "device": "gpu" if tf.config.list_physical_devices("GPU") else "cpu",
        "train_samples": len(train.positions),
        "valid_samples": len(valid.positions),
        "baseline_valid_loss": baseline.loss,
        "embeddings_sha256": _digest(table, sorted(train.positions + valid.positions)),
    }
    return write_metrics(summary, epochs, out_dir)


class _Clock(keras.callbacks.Callback):  # type: ignore[misc]  # keras has no types
    """Notes when epochs begin, come to their first batch and end; the first begins before `fit` peeks at batches."""

    def __init__(self) -> None:
        super().__init__()
        self.begun = time.perf_counter()
        self.seconds: list[tuple[float, float]] = []
        self._first = 0.0

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if batch == 0:
            self._first = time.perf_counter() - self.begun

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        now = time.perf_counter()
        self.seconds.append((now - self.begun, self._first))
        self.begun = now


def fit(
    predictor: keras.Model, train: LAIONAestheticsGenerator, valid: LAIONAestheticsGenerator, epochs: int
) -> list[Epoch]:
    """Train with Adam on the mean squared error. Raises BrokenData."""
    predictor.compile(keras.optimizers.Adam(LEARNING_RATE), loss="mean_squared_error")
    clock = _Clock()
    progress = "auto" if sys.stderr.isatty() else 0
    try:
        seen = predictor.fit(
            train, validation_data=valid, epochs=epochs, shuffle=False, callbacks=[clock], verbose=progress
        ).history
    except tf.errors.OpError as error:
        raise train.failure or valid.failure or error from error
    rows = zip(seen["loss"], seen["val_loss"], clock.seconds, strict=True)
    return [Epoch(loss, valid_loss, whole, first) for loss, valid_loss, (whole, first) in rows]


def _digest(table: LAIONAestheticsTable, positions: Sequence[int]) -> str:
    """Name all embeddings by one hash: equal iff two trainings saw the same pictures with the same network."""
    digest = hashlib.sha256()
    for position in positions:
        digest.update(table.embed([position]).tobytes())
    return digest.hexdigest()


def main(words: Sequence[str] | None = None) -> int:
    """Run the command and give its exit status; a mistake in the data or the call is one line on stderr."""
    known = parser("training.tensorflow.train", "Train an aesthetics predictor with Keras.")
    known.add_argument("--workers", type=count, default=1, metavar="N", help="threads that read and embed (1)")
    known.add_argument("--backbone", default=DEFAULT_BACKBONE, help=f"of keras.applications ({DEFAULT_BACKBONE})")
    known.add_argument(
        "--weights", default=IMAGENET, metavar="FILE", help="imagenet: downloaded; none: random; or a *_notop.h5 file"
    )
    output = Path("runs/train-tensorflow")
    known.add_argument("--output", type=Path, default=output, metavar="DIR", help=f"default: {output}")
    options = vars(known.parse_args(words))
    data, output = options.pop("data"), options.pop("output")
    if options["weights"] == "none":
        options["weights"] = None
    return run(
        lambda: train_summary(data, output, Settings(**options)),
        lambda summary: print_report(summary, output, "predictor.keras, losses.png, metrics.json"),
    )


if __name__ == "__main__":
    sys.exit(main())
