"""Bytes by what they are: there already, on their way for somebody else, or asked for now."""

from dagfs.cache.core import Cache, InFlight

__all__ = ["Cache", "InFlight"]
