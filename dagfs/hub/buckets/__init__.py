"""Buckets that are connected to a repository, and its own."""
