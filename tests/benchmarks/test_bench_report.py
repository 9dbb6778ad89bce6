"""Tables between markers are renewed, and nothing else of a document changes."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from report import Table, Unmarked, renew, renew_documents

ROOT = Path(__file__).parents[2]

TABLE = Table("speed", "make bench", ["work", "s"], [["read", "1.0"]], ["A note."])
DOCUMENT = (
    "before\n\n<!-- bench:speed -->\nold\n<!-- /bench:speed -->\n\nafter <!-- bench:other -->x<!-- /bench:other -->\n"
)


def test_a_table_has_its_command_its_rows_and_its_notes() -> None:
    assert TABLE.markdown() == "`make bench`\n\n| work | s |\n| --- | --- |\n| read | 1.0 |\n\nA note."


def test_a_row_that_does_not_fit_its_head_is_refused() -> None:
    with pytest.raises(ValueError, match="speed"):
        Table("speed", "make bench", ["work", "s"], [["read"]]).markdown()


def test_only_what_is_between_the_markers_changes_and_twice_is_once() -> None:
    text, found = renew(DOCUMENT, {"speed": "new", "absent": "never"})
    assert text == DOCUMENT.replace("old", "new")
    assert found == {"speed"}
    assert renew(text, {"speed": "new"}) == (text, {"speed"})


@pytest.mark.parametrize(
    "text",
    [
        "<!-- bench:speed -->\nno end",
        "<!-- /bench:speed -->\n<!-- bench:speed -->",
        "<!-- bench:speed --><!-- /bench:speed --><!-- bench:speed --><!-- /bench:speed -->",
    ],
)
def test_broken_markers_are_an_error_and_not_a_lost_table(text: str) -> None:
    with pytest.raises(Unmarked):
        renew(text, {"speed": "new"})


def test_documents_are_renewed_and_homeless_tables_are_named(tmp_path: Path) -> None:
    document, other = tmp_path / "a.md", tmp_path / "b.md"
    document.write_text(DOCUMENT)
    other.write_text("no markers")
    homeless = Table("homeless", "make bench", ["a"], [["b"]])
    assert renew_documents([document, other], [TABLE, homeless]) == {"homeless"}
    assert document.read_text() == DOCUMENT.replace("old", TABLE.markdown())
    assert other.read_text() == "no markers"


def test_each_marker_in_the_documents_is_well_formed_and_has_a_table() -> None:
    sources = "".join(path.read_text() for path in (ROOT / "benchmarks").glob("*.py"))
    for document in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        names = re.findall(r"<!-- bench:([\w-]+) -->", document.read_text())
        assert renew(document.read_text(), dict.fromkeys(names, ""))[1] == set(names)
        assert [name for name in names if f'"{name}"' not in sources] == [], document.name
