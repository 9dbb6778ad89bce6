"""What the training commands of both frameworks share: options, figures, the report. Knows no framework."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from training.errors import BrokenData, UnknownBackbone


@dataclass(frozen=True, slots=True)
class Choices:
    """How to train; `limit` counts rows of the annotation file, before `caption` chooses among them."""

    images: str = "images"
    limit: int | None = None
    caption: str | None = None
    epochs: int = 3
    batch_size: int = 32
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Epoch:
    """What one epoch has come to: mean squared errors, and seconds, those until the first batch included."""

    train_loss: float
    valid_loss: float
    seconds: float
    first_batch_seconds: float


@dataclass(frozen=True, slots=True)
class Baseline:
    """Always guessing `mean`, the training samples' mean score, is wrong by `loss` on the validation samples."""

    mean: float
    loss: float


def baseline_of(scores: Sequence[float], train: Sequence[int], valid: Sequence[int]) -> Baseline:
    """Judge the guess of the mean; `train` and `valid` are positions in `scores`."""
    mean = fmean(scores[i] for i in train)
    return Baseline(mean, fmean((scores[i] - mean) ** 2 for i in valid))


def write_metrics(summary: dict[str, Any], epochs: Sequence[Epoch], out_dir: Path) -> dict[str, Any]:
    """Leave metrics.json in `out_dir`, and give what is in it."""
    whole = summary | {"epochs": [asdict(epoch) for epoch in epochs]}
    (out_dir / "metrics.json").write_text(json.dumps(whole, indent=2) + "\n")
    return whole


def parser(program: str, description: str) -> argparse.ArgumentParser:
    """Give the options that both commands have."""
    made = argparse.ArgumentParser(f"python -m {program}", description=description)
    made.add_argument("--data", type=Path, required=True, help="directory with labels.tsv and the images")
    made.add_argument("--images", default="images", metavar="DIR", help="the images' directory in it (images)")
    made.add_argument("--limit", type=_positive, metavar="N", help="use only the first N rows of labels.tsv")
    made.add_argument("--caption", metavar="WORD", help="use only images whose caption contains WORD")
    made.add_argument("--epochs", type=_positive, default=3, metavar="N")
    made.add_argument("--batch-size", type=_positive, default=32, metavar="N")
    made.add_argument("--seed", type=count, default=0, metavar="N")
    return made


def count(text: str) -> int:
    """Read an option that is a number of 0 or more."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of 0 or more")
    return int(text)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of 1 or more")
    return int(text)


def run(train: Callable[[], dict[str, Any]], report: Callable[[dict[str, Any]], None]) -> int:
    """Train, report, and give the exit status; a mistake in the data or the call is one line on stderr."""
    try:
        summary = train()
    except (BrokenData, UnknownBackbone, OSError) as error:
        print(f"training: {_one_line(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("training: interrupted", file=sys.stderr)
        return 130
    report(summary)
    return 0


def start_line(summary: dict[str, Any]) -> str:
    return (
        f"{summary['train_samples']} training and {summary['valid_samples']} validation images on {summary['device']}"
    )


def epoch_line(number: int, epoch: Epoch) -> str:
    return (
        f"epoch {number}: training loss {epoch.train_loss:.3f}, validation loss {epoch.valid_loss:.3f}, "
        f"{epoch.seconds:.1f} s ({epoch.first_batch_seconds:.2f} s to the first batch)"
    )


def print_end(summary: dict[str, Any], out_dir: Path, files: str) -> None:
    print(f"always guessing the mean score: validation loss {summary['baseline_valid_loss']:.3f}")
    print(f"written to {out_dir}: {files}")


def print_report(summary: dict[str, Any], out_dir: Path, files: str) -> None:
    print(start_line(summary))
    for number, epoch in enumerate((Epoch(**fields) for fields in summary["epochs"]), 1):
        print(epoch_line(number, epoch))
    print_end(summary, out_dir, files)


def _one_line(error: Exception) -> str:
    """Give the error's text; what comes from a worker process has its whole traceback before that."""
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return str(error).strip().splitlines()[-1].removeprefix(f"{type(error).__module__}.{type(error).__qualname__}: ")
