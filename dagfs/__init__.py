"""dagfs: a DagsHub repository branch as a lazy, read-only directory, pinned to one commit."""

import sys

TYPE_CHECKING = False  # for programs that read types; typing itself would be imported by everybody
if TYPE_CHECKING:
    from dagfs.errors import DagfsError
    from dagfs.scripting import Mount, mount

__version__ = "0.1.0"
__all__ = ["DagfsError", "Mount", "__version__", "mount"]


def __getattr__(name: str) -> object:
    """Import what scripts use when they use it: `import dagfs` itself costs nothing."""
    if name == "DagfsError":
        from dagfs import errors  # noqa: PLC0415 -- late on purpose

        return errors.DagfsError
    if name in ("mount", "Mount"):
        try:
            from dagfs import scripting  # noqa: PLC0415 -- likewise
        except ModuleNotFoundError as error:
            if sys.platform != "win32":
                raise
            raise ImportError("Windows has no mounts: read dagshub://owner/name/PATH, docs/python.md") from error

        return {"mount": scripting.mount, "Mount": scripting.Mount}[name]
    raise AttributeError(f"module 'dagfs' has no attribute {name!r}")
