"""Spans of files become transfers: queued by urgency, retried, resumed and proved."""
