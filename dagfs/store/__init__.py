"""Bytes on disk: whole files by their MD5, blocks of large ones, and values; bounded, and never trusted blindly."""
