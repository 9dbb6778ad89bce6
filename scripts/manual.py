#!/usr/bin/env python3
"""Writes man/: a manual page of each dagfs command, from the help that the command itself gives. `--check`: only
looks whether they are as they should be."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from dagfs.cli.main import main

ROOT = Path(__file__).parents[1]
MAN = ROOT / "man"

ENVIRONMENT = (
    ("DAGSHUB_USER_TOKEN, DAGSHUB_TOKEN", "The access token, for the hub that DAGSHUB_CLIENT_HOST names."),
    ("DAGSHUB_CLIENT_HOST", "The hub's URL; https://dagshub.com if not set."),
    ("DAGFS_CACHE_DIR", "Where content is kept, unless --cache-dir says otherwise."),
    ("DAGFS_LOG_FORMAT", "text or json, unless --log-format says otherwise."),
    ("DAGFS_DEBUG", "Errors of the command line come with a traceback."),
    ("HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, NO_PROXY", "The way to the hub, in capitals or not."),
    ("SSL_CERT_FILE", "Whose certificates to trust."),
)
FILES = (
    ("~/.cache/dagfs", "Content and listings, one directory a hub; can be lost."),
    ("~/.local/state/dagfs/logs", "A log of each mount; `dagfs status` names it."),
    ("$XDG_RUNTIME_DIR/dagfs", "What is mounted, and a socket of each mount."),
)


def pages() -> dict[str, str]:
    """Give all pages by file name."""
    found = {"dagfs.1": _page("dagfs", main, click.Context(main, info_name="dagfs"))}
    for name, command in main.commands.items():
        title = f"dagfs-{name}"
        context = click.Context(command, info_name=f"dagfs {name}")
        found[f"{title}.1"] = _page(title, command, context)
    return found


def _page(title: str, command: click.Command, context: click.Context) -> str:
    lines = [
        f'.TH {_escape(title.upper())} 1 "" dagfs "User Commands"',
        ".SH NAME",
        f"{_escape(title)} \\- {_escape(_summary(command))}",
        ".SH SYNOPSIS",
        f".B {_escape(context.info_name or '')}",
        _escape(" ".join(command.collect_usage_pieces(context))),
        ".SH DESCRIPTION",
        *_paragraphs(command.help or ""),
        *_options(command, context),
    ]
    if isinstance(command, click.Group):
        lines += _commands(command, context)
    if title == "dagfs":
        lines += [*_terms("ENVIRONMENT", ENVIRONMENT), *_terms("FILES", FILES), *_terms("EXIT STATUS", _statuses())]
    return "\n".join([*lines, *_see_also(title)]) + "\n"


def _summary(command: click.Command) -> str:
    first = (command.help or "").strip().split("\n\n")[0].replace("\n", " ")
    sentence = re.split(r"(?<=[.:])\s", first)[0].rstrip(".:")
    return sentence[0].lower() + sentence[1:]


def _paragraphs(text: str) -> Iterator[str]:
    for paragraph in text.strip().split("\n\n"):
        yield ".PP"
        yield _escape(" ".join(paragraph.split()))


def _options(command: click.Command, context: click.Context) -> list[str]:
    records = [
        record
        for parameter in command.get_params(context)
        if isinstance(parameter, click.Option) and (record := parameter.get_help_record(context))
    ]
    return _terms("OPTIONS", records)


def _commands(group: click.Group, context: click.Context) -> Iterator[str]:
    yield ".SH COMMANDS"
    for name, command in group.commands.items():
        usage = " ".join(command.collect_usage_pieces(click.Context(command, parent=context)))
        yield from _term(f"{name} {usage}", " ".join((command.help or "").split("\n\n")[0].split()))


def _terms(title: str, pairs: object) -> list[str]:
    lines = [f".SH {title}"]
    for name, text in pairs:  # type: ignore[attr-defined]
        lines += _term(name, text)
    return lines


def _term(name: str, text: str) -> list[str]:
    return [".TP", f"\\fB{_escape(name)}\\fR", _escape(text) if text else "\\&"]


def _statuses() -> list[tuple[str, str]]:
    """Read them where they are told to users: docs/semantics.md."""
    text = (ROOT / "docs/semantics.md").read_text("utf-8").partition("## Exit statuses")[2].partition("\n## ")[0]
    return [(number, meaning.replace("`", "")) for number, meaning in re.findall(r"^\| (\d+) \| (.*) \|$", text, re.M)]


def _see_also(title: str) -> list[str]:
    others = [name for name in ("dagfs", *(f"dagfs-{command}" for command in main.commands)) if name != title]
    shown = others if title == "dagfs" else ["dagfs"]
    links = ", ".join(f"\\fB{_escape(name)}\\fR(1)" for name in shown)
    return [".SH SEE ALSO", f"{links}, \\fBfusermount3\\fR(1), \\fBdvc\\fR(1)"]


def _escape(text: str) -> str:
    """Make text that roff prints as it is: no backslash, hyphen, or dot at the beginning has its own meaning there."""
    plain = text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq")
    return f"\\&{plain}" if plain.startswith((".", "'")) else plain


def write(check: bool) -> int:
    """Write the pages, or count those that are not as they should be."""
    wanted = pages()
    there = {path.name: path.read_text("utf-8") for path in MAN.glob("*.1")}
    changed = sorted(name for name in wanted.keys() | there.keys() if wanted.get(name) != there.get(name))
    if check:
        for name in changed:
            print(f"man/{name} is not what the commands say: make man")
        return 1 if changed else 0
    MAN.mkdir(exist_ok=True)
    for name in changed:
        if name in wanted:
            (MAN / name).write_text(wanted[name], "utf-8")
        else:
            (MAN / name).unlink()
    print(f"{len(wanted)} pages, {len(changed)} of them changed")
    return 0


if __name__ == "__main__":
    sys.exit(write("--check" in sys.argv[1:]))
