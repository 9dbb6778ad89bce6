"""Libraries that training code reads with, on a mount whose cache is empty: what they get, what the hub is asked."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from support.formats import (
    CHUNKS,
    CLASSES,
    PER_CLASS,
    PER_SHARD,
    RECORD,
    RECORDS,
    ROWS,
    SHARDS,
    SIDE,
    TENSORS,
    noise,
)
from support.snippets import INTEGRATIONS, snippets

MB = 1_000_000
IMAGES = len(CLASSES) * PER_CLASS


def figures(line: str) -> list[float]:
    return [float(word) for word in re.findall(r"-?\d+\.?\d*", line)]


def chunk_sum() -> float:
    return float(noise(101, (CHUNKS, 512, 512))[3].sum())


def images_of(formats) -> dict[str, int]:
    """Give how often each image may be fetched."""
    return dict.fromkeys((name for name in formats.below("photos") if name.endswith(".jpg")), 1)


def test_every_piece_of_code_in_the_document_is_run() -> None:
    tests = Path(__file__).read_text()
    run = {(heading, int(number or 0)) for heading, number in re.findall(r'read\("([^"]+)"(?:, (\d+))?', tests)}
    shown = {(heading, number) for heading, blocks in snippets(INTEGRATIONS).items() for number in range(len(blocks))}
    assert shown - run == {("torchvision", 1)}  # what the fixture `declared` gives


def test_torchvision_image_folder_fetches_each_image_once(read, declared, formats):
    done = read("torchvision", before=declared)
    assert done.lines == ["(8, 3, 64, 64)"] * (2 * IMAGES // 8)
    assert done.fetched == images_of(formats)


def test_lightning_trains_two_epochs_on_one_fetch_of_each_image(read, declared, formats):
    done = read("Lightning", before=declared)
    assert done.lines[-1] == "2"
    assert done.fetched == images_of(formats)


def test_hugging_face_image_folder_fetches_each_file_once(read, formats):
    done = read("Hugging Face imagefolder")
    assert done.lines[-1] == f"{IMAGES} dog number {PER_CLASS - 1}"
    assert done.fetched == dict.fromkeys(formats.below("photos"), 1)


def test_hugging_face_json_fetches_the_file_once(read):
    done = read("Hugging Face json")
    assert done.lines[-1] == "2000 3"
    assert done.fetched == {"rows.jsonl": 1}


def test_hugging_face_parquet_fetches_ranges_of_its_columns(read):
    done = read("Hugging Face parquet")
    assert done.lines[-1] == f"{ROWS} 3"
    assert list(done.fetched) == ["table.parquet"]
    assert done.bytes < 15 * MB


def test_pyarrow_fetches_ranges_of_a_column(read):
    done = read("pyarrow")
    assert done.lines == [str(ROWS)]
    assert list(done.fetched) == ["table.parquet"]
    assert done.bytes < 7 * MB


def test_pyarrow_fetches_one_row_groups_range(read):
    done = read("pyarrow", 1)
    assert done.lines == ["10 25000"]
    assert done.bytes < 1.2 * MB


def test_pandas_fetches_ranges_of_a_column(read):
    done = read("pandas")
    assert done.lines == [str(ROWS)]
    assert done.bytes < 7 * MB


def test_webdataset_fetches_each_byte_of_its_shards_once(read, formats):
    done = read("webdataset")
    assert done.lines == [str(SHARDS * PER_SHARD * 300_000)]
    shards = formats.below("shards")
    assert done.fetched.keys() == shards.keys()
    assert done.bytes == sum(shards.values())


def test_safetensors_fetches_the_pages_of_a_tensor(read):
    done = read("safetensors")
    assert figures(done.lines[0]) == pytest.approx([TENSORS, noise(3, (SIDE, SIDE)).sum()], rel=1e-3)
    assert done.lines[1] == f"(10, {SIDE})"
    assert done.bytes < 11 * MB


def test_a_mapped_torch_file_fetches_the_pages_of_a_tensor(read):
    done = read("torch")
    assert figures(done.lines[0]) == pytest.approx([TENSORS, noise(3, (SIDE, SIDE)).sum()], rel=1e-3)
    assert done.bytes < 13 * MB


def test_a_numpy_memory_map_fetches_the_pages_of_its_rows(read):
    done = read("numpy")
    rows = noise(100, (TENSORS * SIDE, SIDE))[5000:5010]
    assert figures(done.lines[0]) == pytest.approx([TENSORS * SIDE, SIDE, rows.sum()], rel=1e-3)
    assert done.bytes < 2.3 * MB


def test_h5py_fetches_the_range_of_a_chunk(read):
    done = read("h5py")
    assert figures(done.lines[0]) == pytest.approx(
        [CHUNKS, 512, 512, noise(101, (CHUNKS, 512, 512))[3].sum()], rel=1e-3
    )
    assert done.bytes < 6 * MB


def test_zarr_fetches_the_file_of_a_chunk(read):
    done = read("zarr")
    assert figures(done.lines[0]) == pytest.approx(
        [CHUNKS, 512, 512, noise(101, (CHUNKS, 512, 512))[3].sum()], rel=1e-3
    )
    metadata = ("zarr.json", ".zarray", ".zattrs", ".zgroup")
    assert len([path for path in done.fetched if not path.endswith(metadata)]) == 1
    assert set(done.fetched.values()) == {1}


def test_sqlite_fetches_the_pages_of_a_row(read):
    done = read("sqlite")
    assert done.lines == ["(673.0,)"]
    assert done.bytes < 2.3 * MB


def test_opencv_fetches_each_image_once(read, formats):
    done = read("OpenCV")
    assert done.lines == ["{(90, 120, 3)}"]
    assert done.fetched == images_of(formats)


def test_pillow_fetches_each_image_once(read, formats):
    done = read("Pillow")
    assert done.lines == ["{(120, 90)}"]
    assert done.fetched == images_of(formats)


def test_tf_data_fetches_each_image_once(read, formats):
    done = read("tf.data")
    assert done.lines == ["(8, 64, 64, 3)"] * (2 * IMAGES // 8)
    done.fetched.pop("photos/metadata.jsonl", None)  # a guess: it lies beside
    assert done.fetched == images_of(formats)


def test_tfrecords_are_fetched_once_in_order(read, formats):
    done = read("TFRecord")
    assert done.lines == [str(RECORDS * RECORD)]
    assert list(done.fetched) == ["records.tfrecord"]
    assert done.bytes == formats.sizes["records.tfrecord"]


def test_keras_image_directory_fetches_no_image_twice(read, formats):
    done = read("Keras")
    assert done.lines[-1] == str(IMAGES * 3 // 4)
    assert set(done.fetched.values()) == {1}
    assert done.fetched.keys() <= formats.below("photos").keys()
