"""Our entry points, as Python finds those of an installed package: what is installed may be an earlier version."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]


def installed_entry_points(site: Path) -> Path:
    """Write what pyproject.toml names into a directory for PYTHONPATH, and give that."""
    text = (ROOT / "pyproject.toml").read_text()
    lines = text.partition('[project.entry-points."fsspec.specs"]\n')[2].partition("\n\n")[0].replace('"', "")
    directory = site / "dagfs_under_test-0.dist-info"
    directory.mkdir()
    (directory / "METADATA").write_text("Metadata-Version: 2.1\nName: dagfs-under-test\nVersion: 0\n")
    (directory / "entry_points.txt").write_text(f"[fsspec.specs]\n{lines}\n")
    return site
