from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dagfs.demo.dataset import write_pictures
from dagfs.demo.pictures import pictures
from training.extractor import EfficientNetFeatureExtractor

COUNT = 24


@pytest.fixture(scope="session")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plain directory of images/ and labels.tsv with a header, to be read only."""
    directory = tmp_path_factory.mktemp("photographs")
    write_pictures(directory, pictures(COUNT, seed=3))
    return directory


@pytest.fixture(scope="session")
def extractor() -> EfficientNetFeatureExtractor:
    return EfficientNetFeatureExtractor(device="cpu")


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Leave the other core to whoever else tests on this machine; the last bits of an embedding depend on it too."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
