"""Rows and images become samples; what is broken is named with file and row."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader

from training.annotations import deal, shuffled
from training.dataset import LAIONAestheticsDataset, SharedEmbeddings, split
from training.errors import BrokenData

ROWS = ["a.jpg\tA red Squirrel\t5.5", "b.jpg\ta wall\t6", "c d.jpg\tSQUIRRELS, two\t7.25", "é.jpg\t\t4"]


class SizeExtractor:
    """Stands in for the network: the embedding is the file's size; each extraction is a line in a file."""

    width = 3

    def __init__(self, journal: Path) -> None:
        self.journal = journal

    def extract(self, image_path: str | os.PathLike[str]) -> torch.Tensor:
        size = os.stat(image_path).st_size
        with self.journal.open("a") as journal:
            journal.write(f"{Path(image_path).name}\n")
        return torch.tensor([size, 0.0, 1.0])

    def extracted(self) -> list[str]:
        return sorted(self.journal.read_text().splitlines()) if self.journal.exists() else []


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    for size, row in enumerate(ROWS, 1):
        (tmp_path / "images" / row.split("\t")[0]).write_bytes(b"." * size)
    (tmp_path / "labels.tsv").write_text("\n".join(ROWS) + "\n", encoding="utf-8")
    return tmp_path


def dataset_of(directory: Path, limit: int | None = None) -> LAIONAestheticsDataset:
    extractor = SizeExtractor(directory / "journal")
    return LAIONAestheticsDataset(directory / "labels.tsv", directory / "images", extractor, limit)


def journal_of(dataset: LAIONAestheticsDataset) -> list[str]:
    extractor = dataset.feature_extractor
    assert isinstance(extractor, SizeExtractor)
    return extractor.extracted()


def test_a_sample_is_embedding_and_score(directory: Path) -> None:
    dataset = dataset_of(directory)
    assert len(dataset) == 4
    for size, score in enumerate((5.5, 6.0, 7.25, 4.0), 1):
        embedding, label = dataset[size - 1]
        assert torch.equal(embedding, torch.tensor([size, 0.0, 1.0]))
        assert label.dtype == torch.float32
        assert label.shape == ()
        assert float(label) == score


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
@pytest.mark.parametrize("head", ["", "name\tcaption\tscore{}", "\ufeffname\tcaption\tscore{}", "\ufeff", "{}"])
def test_header_byte_order_mark_and_blank_lines_are_no_rows(directory: Path, head: str, ending: str) -> None:
    text = head.format(ending) + ending.join(ROWS) + ending * 2
    (directory / "labels.tsv").write_bytes(text.encode())
    assert [(s.name, s.score) for s in dataset_of(directory).samples] == [
        ("a.jpg", 5.5),
        ("b.jpg", 6.0),
        ("c d.jpg", 7.25),
        ("é.jpg", 4.0),
    ]


def test_rows_with_an_url_are_those_of_the_published_data_set(directory: Path) -> None:
    rows = [f"{row}\thttps://example.org/{number}.jpg?size=9" for number, row in enumerate(ROWS)]
    for head in ([], ["file\tcaption\tscore\turl"]):
        (directory / "labels.tsv").write_text("\n".join([*head, *rows]) + "\n", encoding="utf-8")
        assert [(s.name, s.score) for s in dataset_of(directory).samples] == [
            ("a.jpg", 5.5),
            ("b.jpg", 6.0),
            ("c d.jpg", 7.25),
            ("é.jpg", 4.0),
        ]


def test_tensors_and_negative_numbers_are_indices(directory: Path) -> None:
    dataset = dataset_of(directory)
    assert float(dataset[torch.tensor(2)][1]) == 7.25
    assert float(dataset[-1][1]) == 4.0


@pytest.mark.parametrize("index", [4, -5])
def test_an_index_beyond_the_rows_is_an_index_error(directory: Path, index: int) -> None:
    with pytest.raises(IndexError):
        dataset_of(directory)[index]


def test_limit_reads_only_the_first_rows(directory: Path) -> None:
    (directory / "labels.tsv").write_text("\n".join([*ROWS[:2], "broken"]))
    assert [sample.name for sample in dataset_of(directory, limit=2).samples] == ["a.jpg", "b.jpg"]


def test_an_embedding_is_computed_once(directory: Path) -> None:
    dataset = dataset_of(directory)
    for _ in range(3):
        for batch in DataLoader(dataset, batch_size=2, shuffle=True):
            assert len(batch[0]) == 2
    assert journal_of(dataset) == sorted(row.split("\t")[0] for row in ROWS)


def test_captions_are_searched_in_upper_and_lower_case(directory: Path) -> None:
    assert dataset_of(directory).with_caption("squirrel").indices == [0, 2]
    assert dataset_of(directory).with_caption("Two").indices == [2]
    assert dataset_of(directory).with_caption("elephant").indices == []


@pytest.mark.parametrize(
    ("row", "text"),
    [
        (b"x.jpg\tcaption", "2 columns"),
        (b"x.jpg\tcap\ttion\t5\tu", "5 columns"),
        (b"x.jpg", "1 columns"),
        (b"x.jpg\tcaption\thigh", "score of x.jpg is not a number: 'high'"),
        (b"x.jpg\tcaption\t", "score of x.jpg is not a number: ''"),
        (b"x.jpg\tcaption\tnan", "not a number"),
        (b"x.jpg\t\xff\xfe\t5", "not UTF-8"),
    ],
)
@pytest.mark.parametrize("place", [0, 2])
def test_a_broken_row_is_named_with_file_and_number(directory: Path, row: bytes, text: str, place: int) -> None:
    lines = [line.encode() for line in ROWS]
    lines.insert(place, row)
    (directory / "labels.tsv").write_bytes(b"\n".join(lines))
    with pytest.raises(BrokenData) as caught:
        dataset_of(directory)
    assert f"{directory / 'labels.tsv'}, row {place + 1}: " in str(caught.value)
    assert text in str(caught.value)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_is_missing_is_named_with_its_row(directory: Path, workers: int) -> None:
    (directory / "images" / "b.jpg").unlink()
    loader = DataLoader(dataset_of(directory), batch_size=4, num_workers=workers)
    with pytest.raises(BrokenData) as caught:
        list(loader)
    assert f"{directory / 'labels.tsv'}, row 2: " in str(caught.value)
    assert str(directory / "images" / "b.jpg") in str(caught.value)


def test_a_truncated_image_is_named_with_its_row(tmp_path: Path, photographs: Path, extractor) -> None:
    whole = (photographs / "images/000000.jpg").read_bytes()
    (tmp_path / "half.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "labels.tsv").write_text("name\tcaption\tscore\nhalf.jpg\thalf a picture\t5\n")
    dataset = LAIONAestheticsDataset(tmp_path / "labels.tsv", tmp_path, extractor)
    with pytest.raises(BrokenData, match=r"labels\.tsv, row 2: .*half\.jpg: .*truncated"):
        dataset[0]


def loaded(dataset: LAIONAestheticsDataset, workers: int, start: str | None, epochs: int = 1) -> list[set[float]]:
    """Give each epoch's sizes, as the embeddings tell them."""
    loader = DataLoader(
        dataset,
        batch_size=1,
        shuffle=True,
        num_workers=workers,
        multiprocessing_context=start,
        persistent_workers=workers > 0,
    )
    return [{float(size) for embeddings, _ in loader for size in embeddings[:, 0]} for _ in range(epochs)]


@pytest.mark.parametrize(("workers", "start"), [(0, None), (2, "fork"), (2, "spawn")])
def test_worker_processes_give_the_same_samples(directory: Path, workers: int, start: str | None) -> None:
    assert loaded(dataset_of(directory), workers, start) == [{1.0, 2.0, 3.0, 4.0}]


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_worker_processes_share_what_one_of_them_has_computed(directory: Path, start: str) -> None:
    dataset = dataset_of(directory)
    dataset.share_memory()
    assert loaded(dataset, 2, start, epochs=6) == [{1.0, 2.0, 3.0, 4.0}] * 6
    assert journal_of(dataset) == sorted(row.split("\t")[0] for row in ROWS)
    assert torch.equal(dataset[3][0], torch.tensor([4.0, 0.0, 1.0]))
    assert len(journal_of(dataset)) == 4


def test_the_data_set_can_be_pickled(directory: Path) -> None:
    dataset = dataset_of(directory)
    copy = pickle.loads(pickle.dumps(dataset))
    assert torch.equal(copy[1][0], dataset[1][0])


def test_shared_embeddings_are_a_mapping() -> None:
    shared = SharedEmbeddings(3, 2)
    shared[1] = torch.tensor([1.0, 2.0])
    assert list(shared) == [1]
    assert len(shared) == 1
    assert shared.get(0) is None
    given = shared[1]
    given.zero_()
    assert torch.equal(shared[1], torch.tensor([1.0, 2.0]))
    del shared[1]
    assert 1 not in shared


def test_the_split_is_a_partition_that_the_seed_decides(directory: Path) -> None:
    (directory / "labels.tsv").write_text("".join(f"{i}.jpg\tx\t5\n" for i in range(20)))
    dataset = dataset_of(directory)
    train, valid = split(dataset, seed=1)
    assert (len(train), len(valid)) == (16, 4)
    assert sorted([*train.indices, *valid.indices]) == list(range(20))
    assert split(dataset, seed=1)[1].indices == valid.indices
    assert split(dataset, seed=2)[1].indices != valid.indices


def test_an_order_is_the_same_on_every_machine() -> None:
    assert shuffled(10, seed=7) == [8, 6, 3, 1, 0, 5, 9, 7, 4, 2]
    assert deal(10, seed=7) == ([3, 1, 0, 5, 9, 7, 4, 2], [8, 6])


def test_two_samples_are_the_least_to_split(directory: Path) -> None:
    train, valid = split(dataset_of(directory, limit=2), seed=0)
    assert (len(train), len(valid)) == (1, 1)
    with pytest.raises(BrokenData, match="1 samples cannot be split"):
        split(dataset_of(directory, limit=1), seed=0)
