"""`dagshub://owner/name@rev/path` for fsspec: the rooms of a mount without the mount, in this process."""
