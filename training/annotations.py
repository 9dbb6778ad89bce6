"""The annotation file, as LAION publishes it: one row of a TSV file for each image. Knows no framework."""

from __future__ import annotations

import math
import os
import random
from collections.abc import Iterable, Iterator, MutableMapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Generic, TypeVar

from training.errors import BrokenData

VALID_SHARE = 0.2

Extractor = TypeVar("Extractor")
Embedding = TypeVar("Embedding")


@dataclass(frozen=True, slots=True)
class Sample:
    """One row of the annotation file; `row` counts its lines from 1."""

    row: int
    name: str
    caption: str
    score: float


class AnnotatedImages(Generic[Extractor, Embedding]):
    """The rows, and the embeddings of their images that are known, by position in `samples`."""

    def __init__(
        self,
        annotations_file: str | os.PathLike[str],
        img_dir: str | os.PathLike[str],
        feature_extractor: Extractor,
        limit: int | None = None,
    ) -> None:
        """Read the first `limit` rows. Raises BrokenData, and OSError if the annotation file cannot be opened."""
        self.annotations_file = Path(annotations_file)
        self.img_dir = Path(img_dir)
        self.feature_extractor = feature_extractor
        self.samples = read_annotations(self.annotations_file, limit)
        self.embeddings: MutableMapping[int, Embedding] = {}


def read_annotations(path: Path, limit: int | None = None) -> list[Sample]:
    """Read the first `limit` rows of name, caption and score, and perhaps an URL, which is left out.

    A header and blank lines are no rows. Raises BrokenData, and OSError if the file cannot be opened.
    """
    with path.open("rb") as file:
        return list(islice(_samples(path, file), limit))


def with_caption(samples: Sequence[Sample], word: str) -> list[int]:
    """Give the positions of the samples whose caption contains `word`, in upper or lower case."""
    wanted = word.casefold()
    return [position for position, sample in enumerate(samples) if wanted in sample.caption.casefold()]


def shuffled(count: int, seed: int) -> list[int]:
    """Give positions 0 to count - 1 in an order that `seed` decides.

    The same in every framework, on every machine, in every version of Python: `random()` is the one method whose
    sequence Python promises.
    """
    luck = random.Random(seed)  # noqa: S311 -- an order, no secret  # nosec B311
    lots = [luck.random() for _ in range(count)]
    return sorted(range(count), key=lots.__getitem__)


def deal(count: int, seed: int, valid_share: float = VALID_SHARE) -> tuple[list[int], list[int]]:
    """Deal positions 0 to count - 1 out to training and validation. Raises BrokenData below two."""
    if count < 2:
        raise BrokenData(f"{count} samples cannot be split into training and validation: two are needed")
    order = shuffled(count, seed)
    valid = min(max(1, round(valid_share * count)), count - 1)
    return order[valid:], order[:valid]


def _samples(path: Path, lines: Iterable[bytes]) -> Iterator[Sample]:
    for row, line in enumerate(lines, 1):
        if not line.strip():
            continue
        cells = _cells(path, row, line)
        if row == 1 and _is_header(cells):
            continue
        yield _sample(path, row, cells)


def _cells(path: Path, row: int, line: bytes) -> list[str]:
    try:
        return line.decode("utf-8-sig" if row == 1 else "utf-8").rstrip("\r\n").split("\t")
    except UnicodeDecodeError as error:
        raise BrokenData(f"{path}, row {row}: not UTF-8") from error


def _is_header(cells: list[str]) -> bool:
    """A header names a column where a row has an image's file name and a number."""
    return "." not in cells[0] and not any(character.isdigit() for character in cells[-1])


def _sample(path: Path, row: int, cells: list[str]) -> Sample:
    if len(cells) not in (3, 4):
        raise BrokenData(
            f"{path}, row {row}: {len(cells)} columns, not name, caption, score and perhaps an URL, separated by tabs"
        )
    name, caption, text = cells[:3]
    try:
        score = float(text)
    except ValueError:
        score = math.nan
    if not math.isfinite(score):
        raise BrokenData(f"{path}, row {row}: score of {name} is not a number: {text!r}")
    return Sample(row, name, caption, score)
