"""A repository as the adapters serve it: the rooms below them, put together."""
