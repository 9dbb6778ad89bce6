"""Hooks of mkdocs: pages that lie outside of docs/, the reference of the commands, links, and the navigation."""

from __future__ import annotations

import posixpath
import re
import sys
from pathlib import Path
from typing import Any

import click
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from dagfs.cli.main import main  # noqa: E402 -- the checkout's, wherever mkdocs was started

MOVED = {
    "README.md": "index.md",
    "SECURITY.md": "security.md",
    "CHANGELOG.md": "changelog.md",
    "deploy/README.md": "deploy.md",
    "examples/README.md": "examples.md",
}
"""Path in the repository -> page of the site. What lies in docs/ keeps its name."""

NAVIGATION: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("Use", ("login", "command-line", "commands", "troubleshooting", "observing", "examples")),
    ("Train", ("training", "integrations", "python")),
    ("Content", ("buckets", "dvc-cache", "dvc-remotes", "shared-cache")),
    ("Run", ("systemd", "containers", "kubernetes", "deploy")),
    ("Promises", ("semantics", "reliability", "security")),
    ("Inside", ("design", "concurrency", "performance", "contributing", "releasing", "changelog")),
)
"""Section -> pages, as far as they exist; others go to the last section."""

_LINK = re.compile(r"(!?\[[^\]]*\])\(([^)\s#:]*)(#[^)\s]*)?\)")


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that are not in docs/."""
    for source, page in MOVED.items():
        if (ROOT / source).is_file():
            files.append(File.generated(config, page, content=(ROOT / source).read_text("utf-8")))
    files.append(File.generated(config, "commands.md", content=reference()))
    config.nav = navigation({file.src_uri.removesuffix(".md") for file in files.documentation_pages()})
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Fit links: they are written for a reader of the repository."""
    origin = next(
        (source for source, moved in MOVED.items() if moved == page.file.src_uri), f"docs/{page.file.src_uri}"
    )
    return _LINK.sub(lambda link: _fitted(link, origin), markdown)


def navigation(pages: set[str]) -> list[Any]:
    rest = sorted(pages - {"index"} - {name for _, names in NAVIGATION for name in names})
    nav: list[Any] = [{"Start": "index.md"}]
    for section, names in NAVIGATION:
        shown = [name for name in names if name in pages] + (rest if section == NAVIGATION[-1][0] else [])
        if shown:
            nav.append({section: [f"{name}.md" for name in shown]})
    return nav


def reference() -> str:
    """Write the page of all commands from their own help."""
    parts = ["# Commands\n"]
    for name, command in main.commands.items():
        context = click.Context(command, info_name=f"dagfs {name}", max_content_width=100)
        parts.append(f"## dagfs {name}\n\n```text\n{command.get_help(context)}\n```\n")
    return "\n".join(parts)


def _fitted(link: re.Match[str], origin: str) -> str:
    text, target, anchor = link.group(1), link.group(2), link.group(3) or ""
    if not target:
        return link.group(0)
    place = posixpath.normpath(posixpath.join(posixpath.dirname(origin), target))
    if place in MOVED:
        return f"{text}({MOVED[place]}{anchor})"
    if place.startswith("docs/"):
        return f"{text}({place.removeprefix('docs/')}{anchor})"
    for source, moved in MOVED.items():  # a directory stands for its README
        if posixpath.dirname(source) == place:
            return f"{text}({moved}{anchor})"
    return text[1:-1]  # a file that the site does not have
