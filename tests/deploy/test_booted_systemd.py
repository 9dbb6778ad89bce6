"""The units, on a systemd that is really booted; minutes of starts, watchdogs and ends."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.booted import SYSTEMD, Booted, booted
from support.hubs import hub
from support.repos import Truth, sample_repository

pytestmark = [
    pytest.mark.stress,
    pytest.mark.mount,
    pytest.mark.timeout(600),
    pytest.mark.skipif(os.geteuid() != 0 or not Path(SYSTEMD).exists(), reason="needs root and systemd"),
]

ROOT = Path(__file__).parents[2]
TOKEN = "0123456789abcdef"
OTHER = "setpriv --reuid 65534 --regid 65534 --clear-groups"
AS_ITS_USER = "setpriv --reuid dagfs --regid dagfs --clear-groups"


@pytest.fixture(scope="module")
def sample(tmp_path_factory) -> Truth:
    return sample_repository(tmp_path_factory.mktemp("booted") / "repo")


@pytest.fixture(scope="module")
def url(sample) -> Iterator[str]:
    with hub(sample.path, name="o/n", token=TOKEN) as running:
        yield running


def documented_status(runtime: str) -> str:
    """Give the command by which docs/systemd.md asks the mount whose sockets are there."""
    page = (ROOT / "docs/systemd.md").read_text()
    return re.search(rf"^sudo -u 'dagfs' (env XDG_RUNTIME_DIR={runtime} .* status)$", page, re.MULTILINE)[1]


def documented_commands() -> str:
    """Give the commands by which docs/systemd.md installs the units; there is no sudo, and no need of it."""
    (block,) = re.findall(r"```sh\n(sudo useradd.*?)```", (ROOT / "docs/systemd.md").read_text(), re.DOTALL)
    return block.replace("sudo ", "")


@pytest.fixture(scope="module")
def machine(tmp_path_factory, url) -> Iterator[Booted]:
    """With everything installed as docs/systemd.md says, but for the environment: it is this checkout's."""
    program = Path(sys.executable)
    libraries = [path for path in sys.path if Path(path).is_dir()]  # wherever the environment has them from
    shown = " ".join(map(str, (ROOT, program.resolve().parents[1], *libraries)))
    with booted(tmp_path_factory.mktemp("machine") / "log") as one:
        parents = " ".join(str(path) for path in [*ROOT.parents, *program.resolve().parents, *program.parents])
        one.run(f"""set -e
            chmod a+rx {parents}
            mkdir -p /opt/dagfs/bin /etc/dagfs
            for name in main fstab; do
                printf '%s\\n' '#!{program}' 'import sys; sys.path.insert(0, "{ROOT}")' \
                    "from dagfs.cli.$name import main" 'sys.exit(main())' > /opt/dagfs/bin/$name
                chmod 755 /opt/dagfs/bin/$name
            done
            mv /opt/dagfs/bin/main /opt/dagfs/bin/dagfs
            mv /opt/dagfs/bin/fstab /opt/dagfs/bin/mount.dagfs
            ln -s /opt/dagfs/bin/mount.dagfs /sbin/mount.dagfs
            ln -s /opt/dagfs/bin/mount.dagfs /sbin/mount.fuse.dagfs
            ln -sf ../proc/self/mounts /etc/mtab
            cd {ROOT}
            {documented_commands()}
            printf '%s\\n' DAGFS_REPO={url} DAGFS_MOUNTPOINT=/srv/images DAGSHUB_CLIENT_HOST={url.rsplit("/", 2)[0]} \
                DAGSHUB_USER_TOKEN={TOKEN} DAGFS_OPTIONS='--branch main --cache-size 1GiB' > /etc/dagfs/images.env
            mkdir /etc/systemd/system/dagfs-sealed@.service.d
            printf '%s\\n' '[Service]' ProtectHome=tmpfs 'BindReadOnlyPaths={shown}' \
                > /etc/systemd/system/dagfs-sealed@.service.d/checkout.conf
            systemctl daemon-reload
        """)
        yield one


def status_of(machine: Booted, runtime: str = "/run") -> dict:
    return json.loads(machine.run(f"{AS_ITS_USER} {documented_status(runtime)} --json"))[0]


@pytest.fixture
def started(machine) -> Iterator[Booted]:
    machine.run("systemctl start dagfs@images")
    yield machine
    machine.run("systemctl stop dagfs@images; systemctl reset-failed 'dagfs@*'; rm -rf /etc/systemd/system/dagfs@*.d;"
                " systemctl daemon-reload", check=False)  # fmt: skip


def test_a_start_returns_when_everybody_can_read_and_a_stop_when_nothing_is_left(machine, sample):
    machine.run("systemctl start dagfs@images")
    assert machine.run(f"{OTHER} cat /srv/images/README.md") == sample.files["README.md"].decode().strip()
    state, text, watchdog = machine.shows("dagfs@images", "SubState", "StatusText", "WatchdogUSec")
    assert state == "running"
    assert text == f"serving {status_of(machine)['host']}/o/n at {sample.head[:12]}"
    assert watchdog == "3min"
    machine.run("systemctl stop dagfs@images")
    assert machine.shows("dagfs@images", "ActiveState", "Result") == ["inactive", "success"]
    assert machine.run("findmnt /srv/images", check=False) == ""
    assert machine.run("pgrep -u dagfs", check=False) == ""


def test_a_worker_s_death_is_none_of_systemd_s_business(started):
    (main,) = started.shows("dagfs@images", "MainPID")
    (worker,) = status_of(started)["workers"]
    started.run(f"kill -9 {worker}; stat -f /srv/images")
    assert status_of(started)["generation"] == 2
    assert started.shows("dagfs@images", "MainPID", "NRestarts") == [main, "0"]


def test_a_reload_goes_on_with_the_installed_version_without_unmounting(started):
    (main,) = started.shows("dagfs@images", "MainPID")
    connection = started.run("findmnt -no MAJ:MIN /srv/images")
    started.run("systemctl reload dagfs@images")
    started.until("systemctl show dagfs@images -p StatusText | grep serving")
    assert status_of(started)["generation"] == 2
    assert started.shows("dagfs@images", "MainPID", "NRestarts", "SubState") == [main, "0", "running"]
    assert started.run("findmnt -no MAJ:MIN /srv/images") == connection


def test_a_service_that_was_killed_is_started_again_over_its_dead_mount(started, sample):
    (main,) = started.shows("dagfs@images", "MainPID")
    started.run(f"kill -9 {main}")
    started.until("systemctl show dagfs@images -p NRestarts | grep =1 && systemctl is-active dagfs@images")
    assert started.run("cat /srv/images/README.md") == sample.files["README.md"].decode().strip()


def test_the_watchdog_ends_a_supervisor_that_is_stuck_and_no_other(machine, sample):
    machine.run("""mkdir -p /etc/systemd/system/dagfs@images.service.d
        printf '[Service]\\nWatchdogSec=8\\n' > /etc/systemd/system/dagfs@images.service.d/short.conf
        systemctl daemon-reload; systemctl start dagfs@images; sleep 18""")
    assert machine.shows("dagfs@images", "NRestarts", "SubState") == ["0", "running"], "told again and again: it serves"
    (worker,) = status_of(machine)["workers"]
    machine.run(f"kill -STOP {worker}; stat -f /srv/images", timeout=30)
    main, *unharmed = machine.shows("dagfs@images", "MainPID", "NRestarts", "SubState")
    assert unharmed == ["0", "running"], "a stuck worker is dagfs' own business"
    machine.run(f"kill -STOP {main}")
    machine.until("systemctl show dagfs@images -p NRestarts | grep =1 && systemctl is-active dagfs@images")
    assert machine.run("cat /srv/images/README.md") == sample.files["README.md"].decode().strip()
    machine.run(
        "systemctl stop dagfs@images; rm -r /etc/systemd/system/dagfs@images.service.d; systemctl daemon-reload"
    )


def test_what_trying_again_does_not_heal_is_not_tried_again(machine):
    machine.run(
        """sed 's,^DAGFS_REPO=.*,&x,' /etc/dagfs/images.env > /etc/dagfs/wrong.env
        systemctl start dagfs@wrong""",
        check=False,
    )
    state, result, restarts = machine.shows("dagfs@wrong", "ActiveState", "Result", "NRestarts")
    assert (state, result, restarts) == ("failed", "exit-code", "0")
    assert machine.shows("dagfs@wrong", "ExecMainStatus") == ["3"]


def test_a_line_of_fstab_is_an_automount_that_mounts_when_somebody_looks(machine, url, sample):
    machine.run(f"""set -e
        echo {TOKEN} > /etc/dagfs/token; chmod 600 /etc/dagfs/token
        echo '{url} /data dagfs noauto,x-systemd.automount,x-systemd.idle-timeout=5s,_netdev,nofail,allow_other,'\
'branch=main,token_file=/etc/dagfs/token 0 0' > /etc/fstab
        systemctl daemon-reload
        systemctl start data.automount""")
    assert machine.run("findmnt -no FSTYPE /data") == "autofs"
    assert machine.run(f"{OTHER} cat /data/README.md") == sample.files["README.md"].decode().strip()
    assert machine.run("findmnt -no FSTYPE /data").split() == ["autofs", "fuse.dagfs"]
    assert machine.shows("data.mount", "SubState", "What") == ["mounted", url]
    machine.until("! systemctl is-active data.mount")  # nobody looks any more, not even the watch
    machine.until("! pgrep -f mount[.]dagfs")
    assert machine.run("findmnt -no FSTYPE /data") == "autofs"
    assert "README.md" in machine.run("ls /data").split()
    machine.run("systemctl stop data.automount; systemctl stop data.mount; : > /etc/fstab; systemctl daemon-reload")


def test_units_written_by_hand_mount_when_somebody_looks(machine, url, sample):
    page = (ROOT / "docs/systemd.md").read_text()
    units = re.findall(r"```ini\n# (/etc/systemd/system/data\.(?:auto)?mount)\n(.*?)```", page, re.DOTALL)
    assert len(units) == 2
    written = "".join(f"cat > {path} <<'UNIT'\n{text.replace('owner/name', url)}UNIT\n" for path, text in units)
    machine.run(f"""set -e
echo {TOKEN} > /etc/dagfs/token; chmod 600 /etc/dagfs/token
{written}
systemctl daemon-reload
systemctl start data.automount""")
    assert machine.run("findmnt -no FSTYPE /data") == "autofs"
    assert machine.run(f"{OTHER} cat /data/README.md") == sample.files["README.md"].decode().strip()
    assert machine.shows("data.mount", "SubState", "What") == ["mounted", url]
    machine.run("systemctl stop data.automount; systemctl stop data.mount; rm /etc/systemd/system/data.*;"
                " systemctl daemon-reload")  # fmt: skip
    machine.until("! pgrep -f mount[.]dagfs")


def test_a_sealed_service_serves_what_another_mounts(machine, sample):
    machine.run("systemctl start dagfs-sealed@images")
    assert machine.run(f"{OTHER} cat /srv/images/README.md") == sample.files["README.md"].decode().strip()
    (main,) = machine.shows("dagfs-sealed@images", "MainPID")
    limits = machine.run(f"cat /proc/{main}/status")
    assert "NoNewPrivs:\t1" in limits
    assert "Seccomp:\t2" in limits
    assert "CapBnd:\t0000000000000000" in limits
    (worker,) = status_of(machine, "/run/dagfs-sealed/images")["workers"]
    machine.run(f"kill -9 {worker}; stat -f /srv/images")
    machine.run("systemctl reload dagfs-sealed@images")
    machine.until("systemctl show dagfs-sealed@images -p StatusText | grep serving; stat -f /srv/images")
    machine.run(f"kill -9 {main}")
    machine.until(
        "systemctl show dagfs-sealed@images -p NRestarts | grep =1 && systemctl is-active dagfs-sealed@images"
    )
    assert machine.run("cat /srv/images/README.md") == sample.files["README.md"].decode().strip()
    machine.run("systemctl stop dagfs-sealed@images")
    machine.until("! findmnt /srv/images")
    machine.until("systemctl show dagfs-pass@images -p ActiveState | grep inactive")


def test_a_user_s_own_service_mounts_for_its_user(machine, url, sample):
    """As after a login, but for who starts the user's systemd."""
    page = (ROOT / "docs/systemd.md").read_text()
    ((place, install),) = re.findall(r"```sh\npython3 -m venv (\S+)\n\S+ install \.\n(.*?)```", page, re.DOTALL)
    (start,) = re.findall(r"```sh\n(systemctl --user .*?)```", page, re.DOTALL)
    machine.run(f"""set -e
        useradd --create-home ada
        install -d -o ada -g ada -m 700 /run/user/$(id -u ada)
        systemd-run --unit=login-of-ada --uid=ada --property=Delegate=yes --setenv=HOME=/home/ada \
            --setenv=XDG_RUNTIME_DIR=/run/user/$(id -u ada) {SYSTEMD} --user --unit=basic.target""")
    ada = (
        "setpriv --reuid ada --regid ada --init-groups env HOME=/home/ada XDG_RUNTIME_DIR=/run/user/$(id -u ada) sh -ec"
    )
    machine.until(f"{ada} 'systemctl --user is-active basic.target'")
    settings = [f"DAGFS_REPO={url}", "DAGFS_MOUNTPOINT=/home/ada/images", f"DAGSHUB_USER_TOKEN={TOKEN}"]
    settings.append(f"DAGSHUB_CLIENT_HOST={url.rsplit('/', 2)[0]}")
    machine.run(f"""{ada} 'mkdir -p {place}/bin
        ln -s /opt/dagfs/bin/dagfs {place}/bin/dagfs
        cd {ROOT}
        {install}
        printf "%s\\n" {" ".join(settings)} > ~/.config/dagfs/images.env
        {start}
        systemctl --user is-active dagfs@images'""")
    assert machine.run(f"{ada} 'cat ~/images/README.md'") == sample.files["README.md"].decode().strip()
    machine.run(f"{ada} 'systemctl --user stop dagfs@images'")
    assert machine.run("findmnt /home/ada/images", check=False) == ""
    machine.run("systemctl stop login-of-ada")
