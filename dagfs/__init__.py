"""dagfs: a DagsHub repository branch as a lazy, read-only directory, pinned to one commit."""

__version__ = "0.1.0"
