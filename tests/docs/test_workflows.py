"""The workflows are what their service accepts, let nobody in, and do what the documents say."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from support.documents import ROOT, blocks, pages

sys.path.insert(0, str(ROOT / "scripts"))

import release

WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
BIN = Path(sys.executable).parent
MAKEFILE = (ROOT / "Makefile").read_text()


def document(name: str) -> dict:
    return yaml.safe_load((ROOT / f".github/workflows/{name}.yml").read_text())


def steps() -> list[dict]:
    return [step for name in ("ci", "release") for job in document(name)["jobs"].values() for step in job["steps"]]


def test_the_workflows_fit_their_schema():
    done = subprocess.run(
        [BIN / "check-jsonschema", "--builtin-schema", "vendor.github-workflows", *WORKFLOWS],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_workflows_let_nobody_in():
    done = subprocess.run([BIN / "zizmor", "--offline", "--quiet", *WORKFLOWS], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_action_is_pinned_to_a_commit_and_says_its_version():
    text = "\n".join(path.read_text() for path in WORKFLOWS)
    used = re.findall(r"uses: (.*)", text)
    assert len(used) > 5
    assert [line for line in used if not re.fullmatch(r"[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", line)] == []
    assert len({line.partition("@")[0] for line in used}) == len(set(used))  # one version of each


def test_every_target_and_script_of_the_workflows_exists():
    targets = set(re.findall(r"^([a-z]+):", MAKEFILE, re.MULTILINE))
    commands = "\n".join(step["run"] for step in steps() if "run" in step)
    assert set(re.findall(r"\bmake ([a-z]+)", commands)) - targets == set()
    scripts = re.findall(r"\bscripts/[\w.-]+", commands)
    assert scripts
    assert [name for name in scripts if not (ROOT / name).is_file()] == []


@pytest.mark.parametrize("runner", [".ci/run", ".github/workflows/ci.yml"])
def test_ci_runs_whatever_a_document_says_runs_its_commands(runner):
    """A block that something else runs is run by nobody where CI leaves that out."""
    text = (ROOT / runner).read_text()
    recipes = dict(re.findall(r"^([a-z]+):.*\n((?:\t.*\n)+)", MAKEFILE, re.MULTILINE))
    run = text + "".join(recipes[target] for target in re.findall(r"\bmake ([a-z]+)", text))
    assert "-n 4 --dist loadfile" in run  # make test, which is all but the two kinds below
    tests = {path.relative_to(ROOT).as_posix(): path.read_text() for path in (ROOT / "tests").rglob("test_*.py")}
    for block in (block for page in pages() for block in blocks(page) if block.how == "run by"):
        names = [name for name, code in tests.items() if block.why == name or re.search(rf"def {block.why}\(", code)]
        for name in names or [block.why]:
            mark = re.search(r"^pytestmark = [^=]*?mark\.integration", tests.get(name, ""), re.MULTILINE)
            if mark or name.startswith("tests/integrations/"):
                assert "-m integration" in run, block.where
            elif name not in tests or re.search(r"^pytestmark = [^=]*?mark\.stress", tests[name], re.MULTILINE):
                assert name in run or name == ".ci/run", block.where


def test_the_tests_run_on_every_python_that_the_package_names():
    classifiers = re.findall(r"Python :: (3\.\d+)", (ROOT / "pyproject.toml").read_text())
    assert document("ci")["jobs"]["test"]["strategy"]["matrix"]["python"] == classifiers


def test_nothing_is_published_without_approval_and_provenance():
    jobs = document("release")["jobs"]
    publish = jobs["publish"]
    assert (publish["environment"], publish["permissions"]["id-token"]) == ("pypi", "write")
    uses = [step.get("uses", "") for step in publish["steps"]]
    attested = next(n for n, one in enumerate(uses) if "attest-build-provenance" in one)
    assert attested < next(n for n, one in enumerate(uses) if "pypi-publish" in one)
    assert [name for name, job in jobs.items() if name != "publish" and "id-token" in job["permissions"]] == []
    assert "secrets." not in (ROOT / ".github/workflows/release.yml").read_text()


@pytest.mark.parametrize("target", ["stress", "bench"])
def test_what_a_release_runs_by_hand_is_a_target(target):
    assert re.search(rf"^{target}: setup", MAKEFILE, re.MULTILINE)


CHANGELOG = """# Changelog

## 0.3.0 (unreleased)

- new

## 0.2.0 (2026-01-31)

- old
- older

## 0.1.0 (2025-01-31)
"""


def test_tag_version_and_changelog_must_agree():
    assert release.complaints("v0.2.0", "0.2.0", CHANGELOG) == []
    assert release.notes("0.2.0", CHANGELOG)[1] == "- old\n- older"
    for tag, version, word in (
        ("v0.2.1", "0.2.0", "the tag is v0.2.1"),
        ("v0.3.0", "0.3.0", "unreleased"),
        ("v0.4.0", "0.4.0", "no part for 0.4.0"),
        ("v0.1.0", "0.1.0", "says nothing"),
        ("v1", "1", "no version of the kind"),
    ):
        assert word in " ".join(release.complaints(tag, version, CHANGELOG)), version


def test_the_changelog_has_a_part_for_the_version_of_now():
    assert release.notes(release.version(), (ROOT / "CHANGELOG.md").read_text())[1]
