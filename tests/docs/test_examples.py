"""The notebooks in examples/ run from their first cell to their last, and carry nothing that a run has left."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import nbformat
import psutil
import pytest
from nbclient import NotebookClient
from support.commands import DETACH, Home
from support.documents import ROOT

pytestmark = [pytest.mark.mount, pytest.mark.integration]

NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))
CELL_SECONDS = 100


@pytest.mark.timeout(240)
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_to_its_end(path, tmp_path, monkeypatch):
    home = Home(tmp_path / "home")
    for name, value in home.environment().items():
        monkeypatch.setenv(name, value)
    scripts = Path(sys.executable).parent
    monkeypatch.setenv("PATH", f"{scripts}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    book = nbformat.read(path, as_version=4)
    try:
        NotebookClient(
            book, timeout=CELL_SECONDS, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
        ).execute()
        assert home.status() == []
    finally:
        for report in home.status():
            if home.run("unmount", report["mountpoint"], check=False).returncode:
                os.spawnlp(os.P_WAIT, DETACH[0], *DETACH, report["mountpoint"])
        for server in psutil.process_iter(["cmdline"]):  # of a notebook that did not come to its end
            if "serve" in (words := server.info["cmdline"] or []) and any(str(tmp_path) in word for word in words):
                server.kill()
    assert [cell.execution_count for cell in book.cells if cell.cell_type == "code" and not cell.execution_count] == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_kept_without_its_outputs(path):
    book = nbformat.read(path, as_version=4)
    nbformat.validate(book)
    cells = [cell for cell in book.cells if cell.cell_type == "code"]
    assert len(cells) > 4
    assert [cell.source for cell in cells if cell.outputs or cell.execution_count] == []


def test_the_page_names_every_notebook():
    text = (ROOT / "examples/README.md").read_text()
    assert [path.name for path in NOTEBOOKS if f"({path.name})" not in text] == []
