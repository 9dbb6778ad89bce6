"""The unit, the compose file and the Dockerfile say the same, and nothing in them hides the mount."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from dagfs import errors
from dagfs.cli.main import main

ROOT = Path(__file__).parents[2]
UNIT = ROOT / "deploy/dagfs@.service"
USERS_UNIT = ROOT / "deploy/user/dagfs@.service"
PASSING, SEALED = ROOT / "deploy/sealed/dagfs-pass@.service", ROOT / "deploy/sealed/dagfs-sealed@.service"
EXPOSURE = {UNIT: 7.1, PASSING: 4.2, SEALED: 1.1}
"""What `systemd-analyze security` makes of the units, of 10; docs/systemd.md states it."""

OWN_MOUNT_NAMESPACE = re.compile(
    r"Private(Tmp|Devices|Mounts|Network|IPC|Users)|Protect(System|Home|KernelTunables|KernelModules|KernelLogs"
    r"|ControlGroups|Proc|Clock|Hostname)|ProcSubset|ReadOnlyPaths|ReadWritePaths|InaccessiblePaths|ExecPaths|NoExecPaths"
    r"|TemporaryFileSystem|BindPaths|BindReadOnlyPaths|RootDirectory|RootImage|MountImages|ExtensionImages|DynamicUser"
    r"|LoadCredential|MountFlags"
)
NO_NEW_PRIVILEGES = re.compile(
    r"NoNewPrivileges|SystemCall\w+|Restrict(AddressFamilies|Namespaces|Realtime|SUIDSGID|FileSystems)|LockPersonality"
    r"|MemoryDenyWriteExecute"
)


def directives(unit: Path = UNIT) -> list[tuple[str, str]]:
    """Give a unit's (name, value) pairs, in order."""
    lines = unit.read_text("utf-8").splitlines()
    return [(name, value) for name, sign, value in (line.partition("=") for line in lines) if sign and name[0] != "#"]


def value_of(name: str, unit: Path = UNIT) -> str:
    return next(value for other, value in directives(unit) if other == name)


def service() -> dict[str, Any]:
    return compose()["services"]["dagfs"]


def compose() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "deploy/compose.yaml").read_text("utf-8"))


def docker(word: str) -> list[str]:
    text = (ROOT / "Dockerfile").read_text("utf-8").replace("\\\n", " ")
    return re.findall(rf"^{word} +(.*)$", text, re.MULTILINE)


def assert_command_exists(words: list[str]) -> None:
    """Let click itself parse the words; only what it would run is left out."""
    command = main.commands[words[0]]
    command.make_context(words[0], words[1:])


@pytest.mark.parametrize(
    "unit", [UNIT, USERS_UNIT, PASSING, SEALED], ids=lambda path: f"{path.parent.name}/{path.name}"
)
def test_systemd_finds_nothing_wrong_with_a_unit(tmp_path: Path, unit: Path) -> None:
    """All of them together, since they name each other; a user's is looked at as the system's, for want of a login."""
    if not shutil.which("systemd-analyze"):
        pytest.skip("no systemd-analyze: package systemd")
    for each in {PASSING, SEALED, unit}:
        text = re.sub(r"(/opt|%h/.local/share)/dagfs/bin/dagfs", sys.executable, each.read_text("utf-8"))
        (tmp_path / each.name).write_text(text)
    words = ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", str(tmp_path / unit.name)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.mark.parametrize("unit", EXPOSURE, ids=lambda path: path.name)
def test_a_unit_is_as_exposed_as_the_document_says(tmp_path: Path, unit: Path) -> None:
    if not shutil.which("systemd-analyze"):
        pytest.skip("no systemd-analyze: package systemd")
    (tmp_path / unit.name).write_text(unit.read_text("utf-8").replace("/opt/dagfs/bin/dagfs", sys.executable))
    words = ["systemd-analyze", "security", "--offline=true", str(tmp_path / unit.name)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    told = re.search(r"Overall exposure level for \S+: ([0-9.]+)", done.stdout)
    assert told, done.stderr
    assert float(told[1]) <= EXPOSURE[unit]
    assert f"| `{unit.name}` | {EXPOSURE[unit]} |" in (ROOT / "docs/systemd.md").read_text()


def test_the_units_end_a_stuck_supervisor_later_than_dagfs_itself_gives_up() -> None:
    from dagfs.supervisor.policy import UNSERVED
    from dagfs.supervisor.watch import MISSED, PERIOD

    for unit in (UNIT, USERS_UNIT, SEALED):
        assert int(value_of("WatchdogSec", unit)) > UNSERVED + (MISSED + 2) * PERIOD
        assert (value_of("Type", unit), value_of("ExecReload", unit)) == ("notify", "/bin/kill -USR2 $MAINPID")
        assert value_of("OOMPolicy", unit) == "continue"


def test_what_serves_in_the_sealed_unit_may_nothing_and_what_mounts_hides_nothing() -> None:
    assert value_of("CapabilityBoundingSet", SEALED) == ""
    assert value_of("NoNewPrivileges", SEALED) == "yes"
    assert [name for name, _ in directives(PASSING) if OWN_MOUNT_NAMESPACE.fullmatch(name)] == []
    assert [name for name, _ in directives(USERS_UNIT) if OWN_MOUNT_NAMESPACE.fullmatch(name)] == []
    assert [name for name, _ in directives(USERS_UNIT) if NO_NEW_PRIVILEGES.fullmatch(name)] == []


def test_the_compose_file_is_one_by_its_specification() -> None:
    words = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    assert subprocess.run([*words, ROOT / "deploy/compose.yaml"], timeout=60).returncode == 0


def test_systemd_would_find_a_misspelt_directive(tmp_path: Path) -> None:
    if not shutil.which("systemd-analyze"):
        pytest.skip("no systemd-analyze: package systemd")
    unit = tmp_path / "dagfs@.service"
    unit.write_text(UNIT.read_text("utf-8").replace("/opt/dagfs/bin/dagfs", sys.executable).replace("UMask", "Umasque"))
    words = ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", str(unit)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert "Umasque" in done.stdout + done.stderr


def test_nothing_in_the_unit_hides_the_mount_or_disarms_fusermount() -> None:
    names = [name for name, _ in directives()]
    assert [name for name in names if OWN_MOUNT_NAMESPACE.fullmatch(name)] == []
    assert [name for name in names if NO_NEW_PRIVILEGES.fullmatch(name)] == []
    assert OWN_MOUNT_NAMESPACE.fullmatch("PrivateTmp")
    assert NO_NEW_PRIVILEGES.fullmatch("SystemCallFilter")


def test_the_unit_tries_again_exactly_where_a_later_try_may_work() -> None:
    final = {int(word) for word in value_of("RestartPreventExitStatus").split()}
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.UsageError)]
    assert final == {kind.exit_status for kind in kinds if not issubclass(kind, errors.HubUnreachable)}


def test_the_commands_of_the_unit_are_commands_of_dagfs() -> None:
    start = value_of("ExecStart").replace("$DAGFS_OPTIONS", "--branch main").replace("${DAGFS_REPO}", "owner/name")
    for line in (start, value_of("ExecStop")):
        program, *words = line.replace("${DAGFS_MOUNTPOINT}", "/srv/images").split()
        assert program == "/opt/dagfs/bin/dagfs"
        assert_command_exists(words)


def test_the_environment_file_of_the_readme_has_what_the_unit_uses() -> None:
    used = set(re.findall(r"\$\{?(DAGFS_[A-Z]+)", UNIT.read_text("utf-8")))
    readme = (ROOT / "docs/systemd.md").read_text("utf-8")
    assert used == {"DAGFS_REPO", "DAGFS_MOUNTPOINT", "DAGFS_OPTIONS"}
    assert {name for name in used if not re.search(rf"^{name}=", readme, re.MULTILINE)} == set()


def test_a_wrong_option_in_a_command_would_be_found() -> None:
    with pytest.raises(click.UsageError):
        assert_command_exists(["mount", "--forground", "owner/name", "/mnt"])


def test_the_sidecar_s_command_and_healthcheck_are_commands_of_dagfs() -> None:
    assert_command_exists(service()["command"])
    health = docker("HEALTHCHECK")[0]
    assert re.search(r'dagfs status \\"\$DAGFS_MOUNTPOINT\\"', health)
    assert f"DAGFS_MOUNTPOINT={service()['command'][-1]}" in docker("ENV")[0]


def test_the_mount_point_lies_below_what_the_containers_share() -> None:
    sidecar, training = (compose()["services"][name]["volumes"][0] for name in ("dagfs", "training"))
    assert sidecar["source"] == training["source"]
    assert (sidecar["bind"]["propagation"], training["bind"]["propagation"]) == ("rshared", "rslave")
    mountpoint = Path(service()["command"][-1])
    assert mountpoint.parent == Path(sidecar["target"])


def test_the_image_runs_as_a_numbered_ordinary_user_with_the_capabilities_of_the_unit() -> None:
    user = docker("USER")[-1]
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user)
    assert f"--uid {user.partition(':')[0]} " in " ".join(docker("RUN"))
    assert service()["cap_drop"] == ["ALL"]
    assert {f"CAP_{name}" for name in service()["cap_add"]} == set(value_of("CapabilityBoundingSet").split())


def test_what_the_wheel_is_built_from_reaches_the_builder_and_nothing_else() -> None:
    lines = (ROOT / ".dockerignore").read_text("utf-8").split("\n")
    allowed = {line[1:] for line in lines if line.startswith("!")}
    copied = {name for words in docker("COPY") if "--from" not in words for name in words.split()[:-1]}
    assert "*" in lines
    assert copied == allowed
    assert all((ROOT / name).exists() for name in allowed)
