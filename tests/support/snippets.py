"""The Python code in a document, so that a test runs what its reader copies."""

from __future__ import annotations

import re
from pathlib import Path

INTEGRATIONS = Path(__file__).parents[2] / "docs/integrations.md"


def snippets(document: Path) -> dict[str, list[str]]:
    """Give the Python blocks under each second-level heading that has some."""
    found = {}
    for section in re.split(r"^## ", document.read_text(), flags=re.MULTILINE)[1:]:
        blocks = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
        if blocks:
            found[section.partition("\n")[0]] = blocks
    return found
