"""The documentation site: built without a warning, complete, and without a word to any other host."""

from __future__ import annotations

import http.server
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.documents import ROOT, pages
from support.tools import needed

sys.path.insert(0, str(ROOT / "scripts"))

RESOURCE = re.compile(
    r"""<(?:script|img|iframe|source)\b[^>]*?\bsrc=["']?([^"' >]+)|<link\b[^>]*?\bhref=["']?([^"' >]+)"""
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("site") / "site"
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", place]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=100, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return place


def written(site: Path) -> dict[str, str]:
    return {path.relative_to(site).as_posix(): path.read_text() for path in site.rglob("*.html")}


def test_every_document_is_a_page_that_the_navigation_leads_to(site):
    from site_hooks import MOVED

    html = written(site)
    names = {MOVED.get(path.relative_to(ROOT).as_posix(), path.name).removesuffix(".md") for path in pages()}
    names |= {"changelog", "commands", "examples"}
    home = html["index.html"]
    assert {name for name in names - {"index"} if f"{name}/index.html" not in html} == set()
    assert {name for name in names - {"index"} if f'href="{name}/"' not in home} == set()


def test_every_page_has_its_place_by_choice():
    from site_hooks import NAVIGATION

    placed = {name for _, names in NAVIGATION for name in names}
    assert {path.stem for path in (ROOT / "docs").glob("*.md")} - placed == set()


def test_nothing_is_loaded_from_elsewhere(site):
    loaded = [
        (name, target)
        for name, text in written(site).items()
        for match in RESOURCE.finditer(text)
        if "//" in (target := match[1] or match[2])
    ]
    assert loaded == []
    styles = [
        path for path in site.rglob("*.css") if re.search(r"(?:url\(|@import)\s*[\"']?https?://", path.read_text())
    ]
    assert styles == []


def test_the_commands_page_has_the_help_of_every_command(site):
    from dagfs.cli.main import main

    text = (site / "commands/index.html").read_text()
    assert [name for name in main.commands if f"dagfs {name} " not in text] == []


@pytest.fixture
def served(site: Path) -> Iterator[tuple[str, list[str]]]:
    """Serve the site; gives its URL, and the paths that were asked for and are not there."""
    missing: list[str] = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *words: object) -> None:
            super().__init__(*words, directory=str(site))

        def send_error(self, code: int, *words: object, **named: object) -> None:
            missing.append(f"{code} {self.path}")
            super().send_error(code, *words, **named)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", missing
        server.shutdown()


def test_a_browser_without_a_network_shows_the_pages_whole(served, tmp_path):
    url, missing = served
    chromium = needed("chromium", "apt install chromium")
    for page in ("", "observing/", "commands/"):
        words = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
        words += [f"--user-data-dir={tmp_path}/chromium", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"]
        done = subprocess.run(
            [chromium, *words, "--virtual-time-budget=4000", "--dump-dom", f"{url}/{page}"],
            capture_output=True,
            text=True,
            timeout=90,
        )
        assert "md-content" in done.stdout, done.stderr[-2000:]
        assert re.search(r'<html[^>]*class="[^"]*\bjs\b', done.stdout)  # its scripts ran
    assert [path for path in missing if "favicon.ico" not in path] == []
