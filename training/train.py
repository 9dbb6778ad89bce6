"""Train the aesthetics predictor: python -m training.train --data PATH."""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from training.backbones import UnknownBackbone
from training.dataset import BrokenData, LAIONAestheticsDataset, split
from training.extractor import DEFAULT_BACKBONE, EfficientNetFeatureExtractor
from training.plots import plot_losses
from training.predictor import AestheticsPredictor, Batches, Epoch, fit, save

Samples = Subset[tuple[Tensor, Tensor]]


@dataclass(frozen=True, slots=True)
class Settings:
    """How to train; `limit` counts rows of the annotation file, before `caption` chooses among them."""

    images: str = "images"
    limit: int | None = None
    caption: str | None = None
    epochs: int = 3
    workers: int = 0
    batch_size: int = 32
    seed: int = 0
    backbone: str = DEFAULT_BACKBONE


def train_summary(data_dir: Path, out_dir: Path, settings: Settings | None = None) -> dict[str, Any]:
    """Train on `data_dir`, leave predictor.pt, losses.png and metrics.json in `out_dir`, and give the metrics.

    Raises BrokenData, UnknownBackbone, and OSError when a file or directory cannot be used.
    """
    settings = settings or Settings()
    extractor = EfficientNetFeatureExtractor(settings.backbone)
    dataset = LAIONAestheticsDataset(data_dir / "labels.tsv", data_dir / settings.images, extractor, settings.limit)
    chosen = dataset.with_caption(settings.caption or "")
    train, valid = split(chosen, settings.seed)
    out_dir.mkdir(parents=True, exist_ok=True)
    if settings.workers:
        dataset.share_memory()
    scores = [dataset.samples[i].score for i in chosen.indices]
    mean = fmean(scores[i] for i in train.indices)
    baseline = fmean((scores[i] - mean) ** 2 for i in valid.indices)
    torch.manual_seed(settings.seed)
    predictor = AestheticsPredictor(extractor.width, mean)
    train_batches, valid_batches = (_batches(part, settings, extractor.device) for part in (train, valid))
    epochs = list(fit(predictor, train_batches, valid_batches, settings.epochs, extractor.device))
    save(predictor, settings.backbone, out_dir / "predictor.pt")
    plot_losses(epochs, baseline, out_dir / "losses.png")
    summary = {
        "settings": asdict(settings),
        "device": str(extractor.device),
        "train_samples": len(train),
        "valid_samples": len(valid),
        "epochs": [asdict(epoch) for epoch in epochs],
        "baseline_valid_loss": baseline,
        "embeddings_sha256": _digest(chosen),
    }
    (out_dir / "metrics.json").write_text(json.dumps(summary, indent=2) + "\n")
    return summary


def _batches(samples: Samples, settings: Settings, device: torch.device) -> Batches:
    """Give the guide's loader; its workers live on after an epoch, so that each loads the network once."""
    workers = settings.workers
    # A forked process cannot use a GPU that its parent has opened.
    start = "spawn" if workers and device.type != "cpu" else None
    return DataLoader(
        samples,
        settings.batch_size,
        shuffle=True,
        num_workers=workers,
        persistent_workers=workers > 0,
        multiprocessing_context=start,
        generator=torch.Generator().manual_seed(settings.seed),
    )


def _digest(samples: Samples) -> str:
    """Name all embeddings by one hash: equal iff two trainings saw the same pictures with the same network."""
    digest = hashlib.sha256()
    for position in range(len(samples)):
        digest.update(samples[position][0].numpy().tobytes())
    return digest.hexdigest()


def _report(summary: dict[str, Any], out_dir: Path) -> None:
    print(
        f"{summary['train_samples']} training and {summary['valid_samples']} validation images on {summary['device']}"
    )
    for number, epoch in enumerate((Epoch(**fields) for fields in summary["epochs"]), 1):
        print(
            f"epoch {number}: training loss {epoch.train_loss:.3f}, validation loss {epoch.valid_loss:.3f}, "
            f"{epoch.seconds:.1f} s ({epoch.first_batch_seconds:.2f} s to the first batch)"
        )
    print(f"always guessing the mean score: validation loss {summary['baseline_valid_loss']:.3f}")
    print(f"written to {out_dir}: predictor.pt, losses.png, metrics.json")


def _arguments(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m training.train", description="Train an aesthetics predictor.")
    parser.add_argument("--data", type=Path, required=True, help="directory with labels.tsv and the images")
    parser.add_argument("--images", default="images", metavar="DIR", help="the images' directory in it (images)")
    parser.add_argument("--limit", type=_positive, metavar="N", help="use only the first N rows of labels.tsv")
    parser.add_argument("--caption", metavar="WORD", help="use only images whose caption contains WORD")
    parser.add_argument("--epochs", type=_positive, default=3, metavar="N")
    parser.add_argument(
        "--workers", type=_count, default=0, metavar="N", help="processes that read and embed (0: none)"
    )
    parser.add_argument("--batch-size", type=_positive, default=32, metavar="N")
    parser.add_argument("--seed", type=_count, default=0, metavar="N")
    parser.add_argument("--backbone", default=DEFAULT_BACKBONE, help="or torchvision's, such as efficientnet_v2_l")
    parser.add_argument("--output", type=Path, default=Path("runs/train"), metavar="DIR", help="default: runs/train")
    return parser.parse_args(words)


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of 0 or more")
    return int(text)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of 1 or more")
    return int(text)


def main(words: Sequence[str] | None = None) -> int:
    """Run the command and give its exit status; a mistake in the data or the call is one line on stderr."""
    options = vars(_arguments(words))
    data, output = options.pop("data"), options.pop("output")
    try:
        summary = train_summary(data, output, Settings(**options))
    except (BrokenData, UnknownBackbone, OSError) as error:
        print(f"training: {_one_line(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("training: interrupted", file=sys.stderr)
        return 130
    _report(summary, output)
    return 0


def _one_line(error: Exception) -> str:
    """Give the error's text; what comes from a worker process has its whole traceback before that."""
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return str(error).strip().splitlines()[-1].removeprefix(f"{type(error).__module__}.{type(error).__qualname__}: ")


if __name__ == "__main__":
    sys.exit(main())
