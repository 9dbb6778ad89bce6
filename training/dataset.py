"""Images with captions and aesthetic scores, as LAION publishes them: one row of a TSV file for each."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, MutableMapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Protocol, SupportsIndex

import torch
from torch import Tensor
from torch.utils.data import Dataset, Subset, random_split

VALID_SHARE = 0.2


class BrokenData(ValueError):
    """A row or an image cannot be used; the text names file, row and path."""


class FeatureExtractor(Protocol):
    """What the data set asks of an extractor."""

    @property
    def width(self) -> int: ...

    def extract(self, image_path: str | os.PathLike[str]) -> Tensor: ...


@dataclass(frozen=True, slots=True)
class Sample:
    """One row of the annotation file; `row` counts its lines from 1."""

    row: int
    name: str
    caption: str
    score: float


class LAIONAestheticsDataset(Dataset[tuple[Tensor, Tensor]]):
    """Pairs of an image's embedding, float32 (width,), and its score, float32 ().

    An embedding is computed when it is first asked for and kept in memory. Each worker process of a DataLoader would
    keep its own and, as batches are dealt out anew in each epoch, compute nearly all of them again: call
    `share_memory` first, and whichever process computes an embedding has computed it for all.
    """

    def __init__(
        self,
        annotations_file: str | os.PathLike[str],
        img_dir: str | os.PathLike[str],
        feature_extractor: FeatureExtractor,
        limit: int | None = None,
    ) -> None:
        """Read the first `limit` rows. Raises BrokenData, and OSError if the annotation file cannot be opened."""
        self.annotations_file = Path(annotations_file)
        self.img_dir = Path(img_dir)
        self.feature_extractor = feature_extractor
        self.samples = list(islice(read_annotations(self.annotations_file), limit))
        self._embeddings: MutableMapping[int, Tensor] = {}

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: SupportsIndex) -> tuple[Tensor, Tensor]:
        """Give embedding and score; a tensor is an index too. Raises IndexError, BrokenData."""
        position = range(len(self))[index.__index__()]
        embedding = self._embeddings.get(position)
        if embedding is None:
            embedding = self._embeddings[position] = self._embed(self.samples[position])
        return embedding, torch.tensor(self.samples[position].score, dtype=torch.float32)

    def share_memory(self) -> None:
        """Keep embeddings where all worker processes see them: 4 * width bytes a row of shared memory, at once."""
        self._embeddings = SharedEmbeddings(len(self), self.feature_extractor.width)

    def with_caption(self, word: str) -> Subset[tuple[Tensor, Tensor]]:
        """Give the samples whose caption contains `word`, in upper or lower case."""
        wanted = word.casefold()
        found = [i for i, sample in enumerate(self.samples) if wanted in sample.caption.casefold()]
        return Subset(self, found)

    def _embed(self, sample: Sample) -> Tensor:
        try:
            return self.feature_extractor.extract(self.img_dir / sample.name)
        except OSError as error:
            raise BrokenData(f"{self.annotations_file}, row {sample.row}: {error}") from error


class SharedEmbeddings(MutableMapping[int, Tensor]):
    """Embeddings of `length` rows in memory that forked and spawned processes share.

    No lock: a row is written by the one process whose batch it is in, and rows of an epoch are disjoint. Who finds a
    row unknown computes it again, with the same outcome.
    """

    def __init__(self, length: int, width: int) -> None:
        self._rows = torch.zeros(length, width)
        self._known = torch.zeros(length, dtype=torch.bool)  # true iff the row is wholly written
        for tensor in (self._rows, self._known):
            tensor.share_memory_()  # type: ignore[no-untyped-call]  # torch leaves it without types

    def __getitem__(self, position: int) -> Tensor:
        if not self._known[position]:
            raise KeyError(position)
        row: Tensor = self._rows[position]
        return row.clone()

    def __setitem__(self, position: int, embedding: Tensor) -> None:
        self._rows[position] = embedding
        self._known[position] = True

    def __delitem__(self, position: int) -> None:
        self._known[position] = False

    def __iter__(self) -> Iterator[int]:
        return iter(self._known.nonzero().flatten().tolist())

    def __len__(self) -> int:
        return int(self._known.sum())


def split(
    samples: Dataset[tuple[Tensor, Tensor]], seed: int, valid_share: float = VALID_SHARE
) -> tuple[Subset[tuple[Tensor, Tensor]], Subset[tuple[Tensor, Tensor]]]:
    """Deal the samples out to training and validation, the same way for the same seed. Raises BrokenData below two."""
    count = len(samples)  # type: ignore[arg-type]  # torch declares no __len__ for what random_split takes
    if count < 2:
        raise BrokenData(f"{count} samples cannot be split into training and validation: two are needed")
    valid = min(max(1, round(valid_share * count)), count - 1)
    parts = random_split(samples, [count - valid, valid], torch.Generator().manual_seed(seed))
    return parts[0], parts[1]


def read_annotations(path: Path) -> Iterator[Sample]:
    """Read rows of name, caption and score; a header and blank lines are left out. Raises BrokenData, OSError."""
    with path.open("rb") as file:
        yield from _samples(path, file)


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
    if len(cells) != 3:
        raise BrokenData(f"{path}, row {row}: {len(cells)} columns, not name, caption and score separated by tabs")
    name, caption, text = cells
    try:
        score = float(text)
    except ValueError:
        score = math.nan
    if not math.isfinite(score):
        raise BrokenData(f"{path}, row {row}: score of {name} is not a number: {text!r}")
    return Sample(row, name, caption, score)
