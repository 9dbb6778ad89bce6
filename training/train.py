"""Train the aesthetics predictor: python -m training.train --data PATH, or torchrun -m training.train --data PATH."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler, Subset

from training.command import (
    Choices,
    Epoch,
    baseline_of,
    count,
    epoch_line,
    parser,
    print_end,
    run,
    start_line,
    write_metrics,
)
from training.dataset import LAIONAestheticsDataset, split
from training.extractor import DEFAULT_BACKBONE, EfficientNetFeatureExtractor
from training.plots import plot_losses
from training.predictor import AestheticsPredictor, Batches, fit, save
from training.ranks import Ranks, joined

Samples = Subset[tuple[Tensor, Tensor]]


@dataclass(frozen=True, slots=True)
class Settings(Choices):
    workers: int = 0
    backbone: str = DEFAULT_BACKBONE


def train_summary(
    data_dir: Path,
    out_dir: Path,
    settings: Settings | None = None,
    ranks: Ranks | None = None,
    tell: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Train on `data_dir`, leave predictor.pt, losses.png and metrics.json in `out_dir`, and give the metrics.

    `batch_size` is that of each rank; the one that leads writes. `tell` gets a line at the start and for each epoch, as
    it ends. Raises BrokenData, UnknownBackbone, and OSError when a file or directory cannot be used.
    """
    settings, ranks = settings or Settings(), ranks or Ranks()
    extractor = EfficientNetFeatureExtractor(settings.backbone)
    dataset = LAIONAestheticsDataset(data_dir / "labels.tsv", data_dir / settings.images, extractor, settings.limit)
    chosen = dataset.with_caption(settings.caption or "")
    train, valid = split(chosen, settings.seed)
    out_dir.mkdir(parents=True, exist_ok=True)
    if settings.workers:
        dataset.share_memory()
    baseline = baseline_of([dataset.samples[i].score for i in chosen.indices], train.indices, valid.indices)
    width = extractor.width  # loads the network, which draws from the generator that is seeded next
    torch.manual_seed(settings.seed)
    predictor = AestheticsPredictor(width, baseline.mean).to(extractor.device)
    loaders = _loaders(train, valid, settings, extractor.device, ranks)
    summary = {
        "settings": asdict(settings),
        "device": str(extractor.device),
        "processes": ranks.size,
        "train_samples": len(train),
        "valid_samples": len(valid),
        "baseline_valid_loss": baseline.loss,
    }
    tell(start_line(summary))
    epochs = []
    for epoch in fit(predictor, *loaders, settings.epochs, ranks):
        epochs.append(epoch)
        tell(epoch_line(len(epochs), epoch))
        ranks.exchange(dataset.embeddings)
    summary["embeddings_sha256"] = _digest(chosen)
    return _leave(summary, epochs, predictor, out_dir) if ranks.leads else summary


def _leave(
    summary: dict[str, Any], epochs: Sequence[Epoch], predictor: AestheticsPredictor, out_dir: Path
) -> dict[str, Any]:
    save(predictor, summary["settings"]["backbone"], out_dir / "predictor.pt")
    plot_losses(epochs, summary["baseline_valid_loss"], out_dir / "losses.png")
    return write_metrics(summary, epochs, out_dir)


def _loaders(
    train: Samples, valid: Samples, settings: Settings, device: torch.device, ranks: Ranks
) -> tuple[Batches, Batches]:
    sampler = ranks.sampler(train, settings.seed)
    return (
        _batches(train, settings, device, sampler, shuffle=sampler is None),
        _batches(ranks.share_of(valid), settings, device, None, shuffle=False),
    )


def _batches(
    samples: Samples, settings: Settings, device: torch.device, sampler: Sampler[int] | None, *, shuffle: bool
) -> Batches:
    """Give the guide's loader; its workers live on after an epoch, so that each loads the network once."""
    workers = settings.workers
    # A forked process cannot use a GPU that its parent has opened.
    start = "spawn" if workers and device.type != "cpu" else None
    return DataLoader(
        samples,
        settings.batch_size,
        shuffle=shuffle,
        sampler=sampler,
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


def main(words: Sequence[str] | None = None) -> int:
    """Run the command and give its exit status; a mistake in the data or the call is one line on stderr."""
    known = parser("training.train", "Train an aesthetics predictor.")
    known.add_argument("--workers", type=count, default=0, metavar="N", help="processes that read and embed (0: none)")
    known.add_argument("--backbone", default=DEFAULT_BACKBONE, help="or torchvision's, such as efficientnet_v2_l")
    known.add_argument("--output", type=Path, default=Path("runs/train"), metavar="DIR", help="default: runs/train")
    options = vars(known.parse_args(words))
    data, output = options.pop("data"), options.pop("output")
    with joined() as ranks:

        def tell(line: str) -> None:
            if ranks.leads:
                print(line, flush=True)  # a log, too, shows each as it comes

        def report(summary: dict[str, Any]) -> None:
            if ranks.leads:
                print_end(summary, output, "predictor.pt, losses.png, metrics.json")

        return run(lambda: train_summary(data, output, Settings(**options), ranks, tell), report)


if __name__ == "__main__":
    sys.exit(main())
