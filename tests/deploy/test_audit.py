"""`make audit` fails on what is known, and never takes silence for health."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts/audit.py"


@pytest.fixture
def audit(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("audit", SCRIPT)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    assert spec.loader is not None
    spec.loader.exec_module(module)
    return module


def answering(audit, monkeypatch, **services):
    """Let pip-audit print what each service is to say, and note what it was asked for."""
    asked: list[tuple[str, list[str]]] = []

    def run(command, **_options):
        service = command[command.index("-s") + 1]
        asked.append((service, Path(command[command.index("-r") + 1]).read_text().split()))
        answer = services[service]
        if isinstance(answer, Exception):
            raise answer
        text = answer if isinstance(answer, str) else json.dumps({"dependencies": answer, "fixes": []})
        return SimpleNamespace(stdout=text, stderr="requests.ConnectionError: no route", returncode=1)

    monkeypatch.setattr(audit.subprocess, "run", run)
    return asked


GOOD = {"name": "good", "version": "1", "vulns": []}
BAD = {"name": "Bad_One", "version": "2", "vulns": [{"id": "PYSEC-1", "fix_versions": ["3"]}]}
UNKNOWN = {"name": "bad-one", "version": "2", "skip_reason": "Dependency not found on PyPI"}
PACKAGES = ["bad-one==2", "good==1"]


def test_a_known_vulnerability_fails_the_build_and_is_named(audit, monkeypatch, capsys):
    answering(audit, monkeypatch, pypi=[GOOD, BAD])
    assert audit.judge(PACKAGES, audit.ask_all(PACKAGES)) == 1
    assert "bad-one==2 has PYSEC-1" in capsys.readouterr().out


def test_packages_without_known_vulnerabilities_pass(audit, monkeypatch, capsys):
    asked = answering(audit, monkeypatch, pypi=[GOOD, BAD | {"vulns": []}])
    assert audit.judge(PACKAGES, audit.ask_all(PACKAGES)) == 0
    assert "NOT AUDITED" not in capsys.readouterr().out
    assert asked == [("pypi", PACKAGES)]


def test_what_one_service_does_not_know_another_is_asked_for(audit, monkeypatch):
    asked = answering(audit, monkeypatch, pypi=[GOOD, UNKNOWN], osv=[BAD])
    assert audit.judge(PACKAGES, audit.ask_all(PACKAGES)) == 1
    assert asked == [("pypi", PACKAGES), ("osv", ["bad-one==2"])]


@pytest.mark.parametrize("silence", ["", "<html>", "[]", [UNKNOWN], subprocess.TimeoutExpired("pip-audit", 1)])
def test_silence_is_said_aloud_and_fails_no_build(audit, monkeypatch, capsys, silence):
    answering(audit, monkeypatch, pypi=silence, osv=silence)
    assert audit.judge(PACKAGES, audit.ask_all(PACKAGES)) == 0
    assert "NOT AUDITED, no vulnerability service answered for them: 2 of 2 packages" in capsys.readouterr().out


def test_the_packages_are_those_that_users_run(audit):
    names = {package.partition("==")[0] for package in audit.installed("dagfs", frozenset())}
    assert {"pycurl", "requests", "diskcache", "pyyaml", "certifi"} <= names
    assert not names & {"pytest", "dvc", "torch", "bandit"}


def test_bandit_has_no_finding_that_is_not_ignored_in_place():
    done = subprocess.run(
        [sys.executable, "-m", "bandit", "-q", "-r", "dagfs", "training"],
        cwd=SCRIPT.parents[1],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout
