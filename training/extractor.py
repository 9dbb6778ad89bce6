"""One image in, one embedding out."""

from __future__ import annotations

import os
import struct
from functools import cached_property
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from training.backbones import Backbone, load_backbone
from training.errors import UnreadableImage

DEFAULT_BACKBONE = "efficientnet-lite0"


def choose_device() -> torch.device:
    """Give the fastest device of this machine: CUDA, Apple's MPS, or the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


class EfficientNetFeatureExtractor:
    """Turns image files into embeddings with a pretrained EfficientNet.

    The network is loaded at its first use, in the process that uses it: pickled for a worker process, an extractor is
    two strings. Raises UnknownBackbone at that first use.
    """

    def __init__(self, backbone: str = DEFAULT_BACKBONE, device: str | torch.device | None = None) -> None:
        self.backbone = backbone
        self.device = torch.device(device) if device is not None else choose_device()

    @property
    def width(self) -> int:
        """Length of an embedding."""
        return self._network.width

    def extract(self, image_path: str | os.PathLike[str]) -> Tensor:
        """Give the image's embedding: float32, (width,), on the CPU. Raises UnreadableImage."""
        image = _decode(image_path)
        with torch.inference_mode():
            batch = self._network.preprocess(image).unsqueeze(0).to(self.device)
            embedding: Tensor = self._network.features(batch)[0]
        return embedding.to("cpu", torch.float32).clone()

    @cached_property
    def _network(self) -> Backbone:
        loaded = load_backbone(self.backbone)
        loaded.features.to(self.device)
        return loaded

    def __getstate__(self) -> dict[str, Any]:
        return {"backbone": self.backbone, "device": self.device}


def _decode(path: str | os.PathLike[str]) -> Image.Image:
    try:
        with Image.open(path) as image:
            pixels: Image.Image = image.convert("RGB")
            return pixels
    # What Pillow raises for damage differs by format and by the place of the damage.
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise UnreadableImage(f"{os.fspath(path)}: {reason}") from error
