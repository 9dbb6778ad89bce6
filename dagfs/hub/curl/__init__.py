"""libcurl moves the bytes; nobody else in the house knows it."""
