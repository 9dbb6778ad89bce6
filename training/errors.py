"""What can be wrong with data and networks; the commands print each as one line."""

from __future__ import annotations


class BrokenData(ValueError):
    """A row or an image cannot be used; the text names file, row and path."""


class UnreadableImage(OSError):
    """A file cannot be opened, or is not a whole image."""


class UnknownBackbone(ValueError):
    """No such backbone, or its package or its weights are not to be had."""
