"""Image files in, embeddings out; TensorFlow's own C++ readers open the files."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from training.errors import UnknownBackbone, UnreadableImage

DEFAULT_BACKBONE = "EfficientNetV2L"
IMAGENET = "imagenet"
SIDE = 480
"""Pixels: what the guide's extractor sees, and EfficientNetV2L was trained on."""

Embeddings = NDArray[np.float32]


class EfficientNetFeatureExtractor:
    """Turns image files into embeddings with an EfficientNet of keras.applications.

    `weights`: "imagenet" downloads Keras' pretrained ones (once, to ~/.keras), a path is a local `*_notop.h5` file of
    them, None starts from random ones. Raises UnknownBackbone when the network is first used.
    """

    def __init__(self, backbone: str = DEFAULT_BACKBONE, weights: str | os.PathLike[str] | None = IMAGENET) -> None:
        self.backbone = backbone
        self.weights = weights if weights is None else os.fspath(weights)

    @property
    def width(self) -> int:
        """Length of an embedding."""
        return int(self._network.output_shape[-1])

    def extract(self, paths: Sequence[str | os.PathLike[str]]) -> Embeddings:
        """Give the images' embeddings: float32, (N, width). Raises UnreadableImage."""
        images = tf.stack([read_image(path) for path in paths])
        features: Embeddings = self._features(images).numpy()
        return features

    @cached_property
    def _features(self) -> Callable[..., Any]:
        network = self._network
        shape = tf.TensorSpec((None, SIDE, SIDE, 3), tf.float32)
        features: Callable[..., Any] = tf.function(
            lambda images: network(images, training=False), input_signature=[shape]
        )
        return features

    @cached_property
    def _network(self) -> Any:
        family = {name for name in dir(keras.applications) if name.startswith("EfficientNet")}
        if self.backbone not in family:
            raise UnknownBackbone(f"unknown backbone {self.backbone}: choose one of {', '.join(sorted(family))}")
        if self.weights not in (None, IMAGENET) and not Path(self.weights or "").is_file():
            raise UnknownBackbone(f"{self.weights}: no such file of weights")
        build = getattr(keras.applications, self.backbone)
        try:
            # The networks of this family scale pixels of 0 to 255 by themselves.
            return build(include_top=False, weights=self.weights, input_shape=(SIDE, SIDE, 3), pooling="avg")
        except Exception as error:  # a failed download and a file of other layers have no type of their own
            raise UnknownBackbone(self._advice(error)) from error

    def _advice(self, error: Exception) -> str:
        reason = str(error).strip().splitlines()[0]
        if self.weights == IMAGENET:
            return (
                f"the ImageNet weights of {self.backbone} cannot be had ({reason}): name a local file of them with "
                "--weights FILE, or start from random ones with --weights none"
            )
        return f"{self.weights} does not fit {self.backbone} without its top: {reason}"


def read_image(path: str | os.PathLike[str]) -> tf.Tensor:
    """Give an image as float32 of 0 to 255, (SIDE, SIDE, 3). Raises UnreadableImage."""
    try:
        pixels = tf.io.decode_image(tf.io.read_file(os.fspath(path)), channels=3, expand_animations=False)
    except tf.errors.OpError as error:
        raise UnreadableImage(f"{os.fspath(path)}: {_reason(error)}") from error
    return tf.image.resize(pixels, (SIDE, SIDE), antialias=True)


def _reason(error: tf.errors.OpError) -> str:
    """Give TensorFlow's text without the names of its nodes and operations."""
    if isinstance(error, tf.errors.NotFoundError):
        return os.strerror(2)
    return str(error.message).strip().splitlines()[0].rpartition("}} ")[2].partition(" [Op:")[0]
