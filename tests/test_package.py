"""What holds for the files of the repository, whatever is in them."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODULE_LINES = 400

# Put together here, so that this file does not name them itself.
REGISTRY_HOSTS = tuple(
    ".".join(parts)
    for parts in (
        ("pypi", "org"),
        ("files", "pythonhosted", "org"),
        ("download", "pytorch", "org"),
        ("deb", "debian", "org"),
        ("security", "debian", "org"),
        ("registry", "npmjs", "org"),
    )
)
MACHINE_PATHS = tuple("/".join(("", *parts)) for parts in (("work",), ("opt", "wheels"), ("root", ".pyenv")))
UNWANTED = re.compile(
    "|".join(
        [re.escape(host) for host in REGISTRY_HOSTS]
        + [r"(?<![\w.)}\"*~-])" + re.escape(path) + r"(?![\w-])" for path in MACHINE_PATHS]  # at the start of a path
    )
)


def repository_files() -> list[Path]:
    """Give what git tracks or would add; in an unpacked sdist, everything."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if listed.returncode:
        return [path for path in ROOT.rglob("*") if path.is_file()]
    return [path for name in listed.stdout.split("\0") if name and (path := ROOT / name).is_file()]


def unwanted_in(path: Path) -> Iterator[str]:
    try:
        lines = path.read_text("utf-8").splitlines()
    except UnicodeDecodeError:
        return
    for number, line in enumerate(lines, 1):
        for found in UNWANTED.finditer(line):
            yield f"{path.name}:{number}: {found.group()}"


def test_no_file_names_a_package_registry_or_a_path_of_one_machine() -> None:
    assert [place for path in repository_files() for place in unwanted_in(path)] == []


@pytest.mark.parametrize("word", [REGISTRY_HOSTS[0], "cd /" + "work/main", "'/" + "opt/wheels'"])
def test_a_planted_name_is_found(tmp_path: Path, word: str) -> None:
    (tmp_path / "README.md").write_text(f"first\nsee {word}\n")
    assert len(list(unwanted_in(tmp_path / "README.md"))) == 1


@pytest.mark.parametrize("word", ["mnt/work/data", "https://host/work/tree", "/workers", "$(HOME)/work"])
def test_ordinary_words_are_left_alone(tmp_path: Path, word: str) -> None:
    (tmp_path / "README.md").write_text(f"see {word}\n")
    assert list(unwanted_in(tmp_path / "README.md")) == []


def test_no_module_outgrows_a_reader() -> None:
    lengths = {
        str(path.relative_to(ROOT)): len(path.read_text("utf-8").splitlines())
        for package in ("dagfs", "training", "scripts")
        for path in (ROOT / package).rglob("*.py")
    }
    assert {name: length for name, length in lengths.items() if length > MODULE_LINES} == {}


def test_the_command_of_the_package_is_there() -> None:
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    module, _, function = re.search(r'^dagfs = "([^:"]+)(:)(\w+)"$', text, re.MULTILINE).groups()  # type: ignore[union-attr]  # fails as it should when absent
    source = ROOT.joinpath(*module.split(".")).with_suffix(".py").read_text("utf-8")
    assert re.search(rf"^def {function}\(", source, re.MULTILINE)


def test_every_dependency_says_why_it_is_there():
    text = (ROOT / "pyproject.toml").read_text()
    part = text[text.index("\ndependencies = [") : text.index("[project.scripts]")]
    packages = [line for line in part.splitlines() if re.search(r'"[\w.-]+([<>=]=?[\d.]+)?",', line)]
    assert len(packages) > 25
    assert [line for line in packages if "#" not in line] == []
