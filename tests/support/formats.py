"""A repository of the files that training code reads: images, shards, tables, tensors; all of them in DVC."""

from __future__ import annotations

import io
import json
import random
import sqlite3
import tarfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from support.repos import commit_all, dvc, new_repository

CLASSES = ("cat", "dog")
PER_CLASS = 16
SHARDS = 3
PER_SHARD = 40
COLUMNS = 24
ROWS = 250_000
GROUP = 25_000
TENSORS = 12
SIDE = 1024  # a tensor has SIDE x SIDE float32, 4 MiB
RECORDS = 40
RECORD = 300_000
CHUNKS = 32  # of 1 MiB, in HDF5 and zarr


@dataclass(frozen=True)
class Formats:
    """The repository at `path`. `sizes`: path in it -> bytes, of every file in DVC."""

    path: Path
    sizes: dict[str, int]

    def below(self, directory: str) -> dict[str, int]:
        return {name: size for name, size in self.sizes.items() if name.startswith(f"{directory}/")}


def formats_repository(path: Path) -> Formats:
    """Make the repository; needs the packages of the `integrations` extra, and takes some seconds."""
    root = new_repository(path)
    _photos(root / "photos")
    _rows(root / "rows.jsonl")
    _shards(root / "shards")
    _tensors(root)
    _arrays(root)
    _tables(root)
    _records(root / "records.tfrecord")
    made = sorted(entry.name for entry in root.iterdir() if entry.name != ".git")
    files = [file for name in made for file in (root / name, *(root / name).rglob("*")) if file.is_file()]
    sizes = {str(file.relative_to(root)): file.stat().st_size for file in files}
    dvc(root, f"repo = Repo.init(); repo.add({made})")
    commit_all(root, "every format")
    for file in files:  # DVC's cache has them
        file.unlink()
    return Formats(root, sizes)


def noise(seed: int, shape: tuple[int, ...]) -> np.ndarray:
    """Give float32 that no compression makes smaller; the same for the same seed."""
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def jpeg(seed: int, width: int = 120, height: int = 90) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)
    body = io.BytesIO()
    Image.fromarray(pixels).save(body, "JPEG", quality=90)
    return body.getvalue()


def _photos(directory: Path) -> None:
    """Write class directories as ImageFolder has them, with the metadata.jsonl of Hugging Face beside them."""
    rows = []
    for label, name in enumerate(CLASSES):
        (directory / name).mkdir(parents=True)
        for number in range(PER_CLASS):
            file = f"{name}/{number:03d}.jpg"
            (directory / file).write_bytes(jpeg(label * PER_CLASS + number))
            rows.append({"file_name": file, "caption": f"{name} number {number}"})
    (directory / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def _rows(path: Path) -> None:
    luck = random.Random(1)
    with path.open("w") as file:
        for number in range(2000):
            file.write(json.dumps({"number": number, "text": f"{luck.random()}"}) + "\n")


def _shards(directory: Path) -> None:
    """Write tars of 300 KB images with their captions, 12 MB each."""
    directory.mkdir()
    luck = random.Random(2)
    for shard in range(SHARDS):
        with tarfile.open(directory / f"{shard:06d}.tar", "w") as tar:
            for number in range(PER_SHARD):
                key = f"{shard:03d}{number:04d}"
                _put(tar, f"{key}.bin", luck.randbytes(300_000))
                _put(tar, f"{key}.json", json.dumps({"key": key}).encode())


def _put(tar: tarfile.TarFile, name: str, body: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(body)
    tar.addfile(entry, io.BytesIO(body))


def _tensors(directory: Path) -> None:
    import safetensors.numpy
    import torch

    tensors = {f"layer.{number:02d}": noise(number, (SIDE, SIDE)) for number in range(TENSORS)}
    safetensors.numpy.save_file(tensors, directory / "model.safetensors")
    torch.save({name: torch.from_numpy(tensor) for name, tensor in tensors.items()}, directory / "model.pt")


def _arrays(directory: Path) -> None:
    import h5py
    import zarr

    np.save(directory / "array.npy", noise(100, (TENSORS * SIDE, SIDE)))
    images = noise(101, (CHUNKS, 512, 512))
    with h5py.File(directory / "images.h5", "w") as file:
        file.create_dataset("images", data=images, chunks=(1, 512, 512))
    array = zarr.open(str(directory / "images.zarr"), mode="w", shape=images.shape, chunks=(1, 512, 512), dtype="f4")
    array[:] = images


def _tables(directory: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {f"feature_{number:02d}": noise(200 + number, (ROWS,)).astype(np.float64) for number in range(COLUMNS)}
    table = pa.table({"id": np.arange(ROWS), **columns})
    pq.write_table(table, directory / "table.parquet", row_group_size=GROUP, compression="none", use_dictionary=False)
    with sqlite3.connect(directory / "labels.sqlite") as base:
        base.execute("create table labels (name text primary key, score real)")
        base.executemany("insert into labels values (?, ?)", ((f"{n:06d}.jpg", n / 7) for n in range(200_000)))
    base.close()


def _records(path: Path) -> None:
    """Write records as TFRecordWriter does: length, its checksum, body, its checksum."""
    import google_crc32c

    def checksum(data: bytes) -> bytes:
        crc = google_crc32c.value(data)
        return (((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF).to_bytes(4, "little")

    luck = random.Random(3)
    with path.open("wb") as file:
        for _ in range(RECORDS):
            length, body = RECORD.to_bytes(8, "little"), luck.randbytes(RECORD)
            file.write(length + checksum(length) + body + checksum(body))
