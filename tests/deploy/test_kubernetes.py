"""The manifests are valid, and their pods run: in namespaces of this machine, without Kubernetes."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from support.hubs import hub
from support.repos import Truth, sample_repository

from dagfs.cli.main import main

ROOT = Path(__file__).parents[2]
MANIFESTS = sorted((ROOT / "deploy/kubernetes").glob("*.yaml"))
VERSIONS = ("1.29", kubernetes_validate.latest_version())
TOKEN = "0123456789abcdef"
SECONDS_TO_END = 5


def documents(manifest: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(manifest.read_text()))


def pod_of(manifest: Path) -> dict[str, Any]:
    (job,) = (each for each in documents(manifest) if each["kind"] == "Job")
    return job["spec"]["template"]["spec"]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda path: path.stem)
def test_a_manifest_is_valid(manifest, version):
    for document in documents(manifest):
        kubernetes_validate.validate(document, version, strict=True)


def test_a_misspelt_field_would_be_found():
    document = documents(MANIFESTS[0])[1]
    document["spec"]["template"]["spec"]["initContainers"][0]["startProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(document, VERSIONS[0], strict=True)


@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda path: path.stem)
def test_a_sidecar_is_native_ready_before_the_training_and_ends_within_the_grace_period(manifest):
    pod = pod_of(manifest)
    for sidecar in pod["initContainers"]:
        assert sidecar["restartPolicy"] == "Always"
        assert sidecar["startupProbe"]["exec"]
    assert pod["terminationGracePeriodSeconds"] >= SECONDS_TO_END * (1 + len(pod["initContainers"]))
    assert "preStop" in pod["initContainers"][-1]["lifecycle"]
    (mounts,) = (each for each in pod["containers"][0]["volumeMounts"] if each["name"] == "mounts")
    assert mounts["mountPropagation"] == "HostToContainer"


def test_what_serves_in_the_unprivileged_pod_has_no_right_at_all_and_what_has_rights_has_no_secret():
    giver, server = pod_of(ROOT / "deploy/kubernetes/unprivileged.yaml")["initContainers"]
    allowed = server["securityContext"]
    assert allowed["capabilities"] == {"drop": ["ALL"]}
    assert (allowed["allowPrivilegeEscalation"], allowed["runAsNonRoot"]) == (False, True)
    assert "privileged" not in allowed
    assert {each["name"] for each in giver["volumeMounts"]} == {"mounts", "pass"}
    assert "env" not in giver


@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda path: path.stem)
def test_the_commands_of_a_manifest_are_commands_of_dagfs(manifest):
    for sidecar in pod_of(manifest)["initContainers"]:
        words = sidecar.get("args") or shlex.split(sidecar["command"][2].partition("exec dagfs ")[2])
        assert_parsed(main, words)
        for hook in (sidecar["startupProbe"], sidecar.get("lifecycle", {}).get("preStop")):
            if hook and hook["exec"]["command"][0] == "dagfs":
                assert_parsed(main, hook["exec"]["command"][1:])


def assert_parsed(command: Any, words: list[str]) -> None:
    """Let click parse the words of a command, and those of the one that it becomes."""
    if "dagfs" in words:
        assert_parsed(main, words[words.index("dagfs") + 1 :])
    while hasattr(command, "commands"):
        command, words = command.commands[words[0]], words[1:]
    command.make_context("dagfs", list(words))


@pytest.fixture(scope="module")
def sample(tmp_path_factory) -> Truth:
    return sample_repository(tmp_path_factory.mktemp("pods") / "repo")


@pytest.fixture(scope="module")
def url(sample) -> Iterator[str]:
    with hub(sample.path, name="o/n", token=TOKEN) as running:
        yield running


@pytest.mark.mount
@pytest.mark.skipif(os.geteuid() != 0, reason="containers are made by root")
@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda path: path.stem)
def test_a_pod_reads_survives_the_end_of_its_sidecar_and_ends_in_time(
    manifest, url, sample, tmp_path, device_for_users
):
    for parent in list(tmp_path.parents)[:3]:
        parent.chmod(parent.stat().st_mode | 0o055)
    program = tmp_path / "bin/dagfs"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexport PYTHONPATH={ROOT}\nexec {shlex.quote(sys.executable)} -m dagfs "$@"\n')
    program.chmod(0o755)
    (tmp_path / "pod").mkdir()
    plan = {"spec": pod_of(manifest), "place": str(tmp_path / "pod"), "repo": url, "programs": str(program.parent),
            "token": TOKEN, "script": "cat /mnt/dagfs/data/README.md", "kill": True}  # fmt: skip
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    words = ["unshare", "--mount", "--propagation", "private", sys.executable, ROOT / "tests/support/pods.py"]
    done = subprocess.run([*words, tmp_path / "plan.json"], cwd=ROOT, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stdout + done.stderr
    said = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert [each["read"] for each in said if "read" in each] == [sample.files["README.md"].decode()] * 2
    ends = {each["ended"]: each["seconds"] for each in said if "ended" in each}
    assert list(ends) == [each["name"] for each in reversed(plan["spec"]["initContainers"])]
    assert max(ends.values()) < SECONDS_TO_END + 2  # and the start of an interpreter
    assert said[-1] == {"left": []}
