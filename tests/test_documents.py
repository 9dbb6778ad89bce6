"""The documents are held to their word: tests they name exist, commands and files they show are there."""

from __future__ import annotations

import ast
import functools
import re
from pathlib import Path

import click
import pytest

from dagfs import errors
from dagfs.cli.main import main

ROOT = Path(__file__).parent.parent
DOCUMENTS = sorted([ROOT / "README.md", ROOT / "SECURITY.md", *ROOT.glob("docs/*.md"), ROOT / "deploy/README.md"])


@functools.cache
def test_functions() -> set[str]:
    found = set()
    for path in (ROOT / "tests").rglob("test_*.py"):
        tree = ast.parse(path.read_text())
        found |= {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    return found


test_functions.__test__ = False


def code_of(document: Path) -> str:
    """Give what a document shows as code, one piece a line."""
    text = document.read_text()
    fenced = re.findall(r"```\w*\n(.*?)```", text, re.DOTALL)
    inline = re.findall(r"(?<!`)`([^`\n]+)`(?!`)", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    return "\n".join([*fenced, *inline])


def rows_of_promises() -> list[tuple[str, str]]:
    text = (ROOT / "docs/semantics.md").read_text()
    promises = text[text.index("## Promises") : text.index("## How a repository looks")]
    rows = [line.strip("|").rsplit("|", 1) for line in promises.splitlines() if line.startswith("|")]
    return [
        (promise.strip(), held.strip()) for promise, held in rows if "---" not in promise and held.strip() != "held by"
    ]


def test_every_promise_names_a_test_that_exists():
    rows = rows_of_promises()
    assert len(rows) > 15
    names = test_functions()
    missing = [held for _, held in rows for name in re.findall(r"`(\w+)`", held) or [held] if name not in names]
    assert missing == []


def test_every_fault_says_what_holds_it():
    rows = [row for row in (ROOT / "docs/reliability.md").read_text().splitlines() if row.startswith("|")]
    assert len(rows) > 50
    assert [row for row in rows if not row.strip("|").rsplit("|", 1)[1].strip()] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_test_that_a_document_names_exists(document):
    named = set(re.findall(r"`(test_\w+)`", document.read_text()))
    assert named - test_functions() == set()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_command_in_a_document_exists(document):
    shown = re.findall(r"(?:^|[\s=])dagfs ([a-z][a-z-]*)((?:(?! dagfs )[^\n])*)", code_of(document))
    for name, words in shown:
        assert name in main.commands, f"{document.name} shows dagfs {name}"
        command = main.commands[name]
        parts = [command, *getattr(command, "commands", {}).values()]
        known = {option for part in parts for parameter in part.params for option in parameter.opts}
        known |= {"--help", "-h", "--version"}
        for option in re.findall(r"(?<= )--[a-z-]+", words):
            assert option in known, f"{document.name} shows dagfs {name} {option}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_between_documents_leads_somewhere(document):
    for target in re.findall(r"\]\(([^)#:]+)\)", document.read_text()):
        assert (document.parent / target).exists(), f"{document.name} links to {target}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_make_target_in_a_document_exists(document):
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for target in re.findall(r"(?:^|\s)make ([a-z]+)", code_of(document)):
        assert target in targets, f"{document.name} shows make {target}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_dagfs_is_installed_from_where_it_is(document):
    """No package index has it."""
    assert re.findall(r"pip install [^\n]*?(?<![./])dagfs\b", document.read_text()) == []


def walk_commands(command: click.Command, name: str = "dagfs"):
    yield name, command
    if isinstance(command, click.Group):
        for child, found in command.commands.items():
            yield from walk_commands(found, f"{name} {child}")


@pytest.mark.parametrize(
    ("name", "command"), list(walk_commands(main)), ids=lambda value: value if isinstance(value, str) else ""
)
def test_every_command_says_what_it_does(name, command):
    assert command.help
    assert command.help.strip().split("\n")[0].endswith(".")


def test_every_failure_has_an_exit_status_of_its_own_and_the_document_tells_it():
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.UsageError)]
    statuses = sorted(kind.exit_status for kind in kinds)
    assert statuses == sorted(set(statuses))
    text = (ROOT / "docs/semantics.md").read_text().partition("## Exit statuses")[2]
    told = [int(number) for number in re.findall(r"^\| (\d+) \|", text, re.MULTILINE)]
    assert [number for number in told if number > 1] == statuses
