"""`dagfs.mount()` in scripts and notebooks: it ends with the block, the process, or the kernel of a notebook."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from support.commands import DETACH, Home
from support.hubs import hub

import dagfs
from dagfs import errors, scripting
from dagfs.cli.mount import mount as command
from dagfs.daemon.plan import absolute
from dagfs.kernel.mountinfo import is_ours

NOTEBOOK = """
import sys, traceback
names = {"__name__": "__main__"}
for line in iter(sys.stdin.readline, ""):
    cell = bytes.fromhex(line).decode()
    try:
        exec(cell, names)
        print("done", flush=True)
    except BaseException as error:
        print("failed", type(error).__name__, str(error).replace(chr(10), " "), flush=True)
"""


class Notebook:
    """A kernel that runs one cell after another, as Jupyter's does, and can be interrupted and killed."""

    def __init__(self, home: Home, where: Path) -> None:
        self.kernel = subprocess.Popen(
            [sys.executable, "-c", NOTEBOOK],
            env=home.environment(),
            cwd=where,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def start(self, cell: str) -> None:
        self.kernel.stdin.write(cell.encode().hex() + "\n")
        self.kernel.stdin.flush()

    def hear(self) -> str:
        return self.kernel.stdout.readline().strip()

    def run(self, cell: str) -> str:
        self.start(cell)
        return self.hear()

    def interrupt(self) -> None:
        self.kernel.send_signal(signal.SIGINT)

    def end(self) -> int:
        self.kernel.stdin.close()
        return self.kernel.wait(30)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """Where notebooks lie; whatever they mount at `data` goes with the test."""
    yield tmp_path
    if is_ours(str(tmp_path / "data")):
        subprocess.run([*DETACH, str(tmp_path / "data")], timeout=10)


@pytest.fixture
def url(many) -> Iterator[str]:
    with hub(many.path) as running:
        yield running


@pytest.fixture
def notebook(home: Home, place: Path, url: str) -> Iterator[Notebook]:
    """`url` first: the hub's process, forked later, would hold the kernel's standard input open."""
    with started(home, place) as one:
        yield one


@contextlib.contextmanager
def started(home: Home, place: Path) -> Iterator[Notebook]:
    one = Notebook(home, place)
    try:
        yield one
    finally:
        one.kernel.kill()
        one.kernel.wait(10)


def mounted(place: Path) -> bool:
    return is_ours(str(place / "data"))


def await_end(place: Path, home: Home, seconds: float = 40) -> None:
    deadline = time.monotonic() + seconds
    while mounted(place) or home.status():
        assert time.monotonic() < deadline, home.status()
        time.sleep(0.1)


def test_importing_dagfs_imports_nothing_else():
    program = "import sys; before = set(sys.modules); import dagfs; print(*sorted(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout.split() == ["dagfs"]


def test_the_package_says_what_it_has():
    assert all(hasattr(dagfs, name) for name in dagfs.__all__)
    assert dagfs.DagfsError is errors.DagfsError
    with pytest.raises(AttributeError, match="nothing_of_the_kind"):
        dagfs.nothing_of_the_kind  # noqa: B018


def test_a_block_has_the_files_and_leaves_nothing_behind(notebook, url, place, home, many):
    cell = f"""
import dagfs, os
with dagfs.mount({url!r}, "data") as path:
    assert os.path.ismount(path)
    bodies = {{name: (path / "data" / name).read_bytes() for name in os.listdir(path / "data")}}
assert len(bodies) == 20
assert not os.path.exists("data")
"""
    assert notebook.run(cell) == "done"
    assert not mounted(place)
    assert home.status() == []


def test_the_file_system_is_served_by_another_process(notebook, url, home):
    assert notebook.run(f"import dagfs; data = dagfs.mount({url!r}, 'data')") == "done"
    [state] = home.status()
    assert notebook.kernel.pid not in (state["pid"], *state["workers"])
    assert state["owner"] == notebook.kernel.pid
    assert notebook.run("assert data.status()['state'] == 'serving'; data.unmount(); data.unmount()") == "done"
    assert notebook.run("assert data.status() == {}") == "done"
    assert home.status() == []


def test_a_mount_is_a_path(notebook, url):
    cell = f"""
import dagfs, os
data = dagfs.mount({url!r}, "data")
assert len(os.listdir(data)) > 0 and os.path.join(data, "data") == str(data.path / "data")
assert open(os.path.join(data, "data", sorted(os.listdir(data.path / "data"))[0]), "rb").read()
"""
    assert notebook.run(cell) == "done"


def test_an_interrupted_block_unmounts_and_runs_again(notebook, url, place):
    cell = f"""
import dagfs, time
with dagfs.mount({url!r}, "data") as path:
    print("inside", flush=True)
    time.sleep(60)
"""
    for _ in range(2):
        notebook.start(cell)
        assert notebook.hear() == "inside"
        notebook.interrupt()
        assert notebook.hear().startswith("failed KeyboardInterrupt")
        assert not mounted(place)


@pytest.mark.parametrize("delay", [0.0, 0.2, 0.4, 0.7])
def test_an_interrupt_while_it_is_mounted_leaves_nothing_and_the_cell_runs_again(notebook, url, place, home, delay):
    cell = f"import dagfs\ndata = dagfs.mount({url!r}, 'data')\nassert len(list((data.path / 'data').iterdir())) == 20"
    assert notebook.run("import dagfs, time") == "done"
    notebook.start("print('begun', flush=True)\n" + cell)
    assert notebook.hear() == "begun"
    time.sleep(delay)
    notebook.interrupt()
    told = notebook.hear()
    if told.startswith("failed"):
        await_end(place, home)
        told = notebook.run(cell)
    assert told == "done"


def test_running_a_cell_again_replaces_its_mount(notebook, url, home):
    cell = f"data = dagfs.mount({url!r}, 'data'); assert len(list((data.path / 'data').iterdir())) == 20"
    assert notebook.run("import dagfs") == "done"
    assert notebook.run(cell) == "done"
    first = home.status()[0]["pid"]
    assert notebook.run(cell) == "done"
    [state] = home.status()
    assert state["pid"] != first


def test_a_mount_ends_with_the_script(notebook, url, place, home):
    assert notebook.run(f"import dagfs; dagfs.mount({url!r}, 'data')") == "done"
    assert notebook.end() == 0
    assert not mounted(place)
    assert home.status() == []
    assert not (place / "data").exists()


def test_a_killed_kernel_takes_its_mount_along(notebook, url, place, home):
    assert notebook.run(f"import dagfs; dagfs.mount({url!r}, 'data')") == "done"
    notebook.kernel.kill()
    await_end(place, home)


def test_a_kernel_that_was_started_again_need_not_wait_for_the_old_ones_mount(notebook, url, place, home):
    cell = f"import dagfs; data = dagfs.mount({url!r}, 'data'); assert len(list((data.path / 'data').iterdir())) == 20"
    assert notebook.run(cell) == "done"
    notebook.kernel.kill()
    notebook.kernel.wait(10)
    with started(home, place) as fresh:
        assert fresh.run(cell) == "done"
        assert [state["owner"] for state in home.status()] == [fresh.kernel.pid]
        assert fresh.end() == 0


def test_the_end_of_a_forked_child_leaves_its_parents_mount_alone(notebook, url):
    cell = f"""
import atexit, dagfs, os
data = dagfs.mount({url!r}, "data")
with data as path:
    child = os.fork()
    if child == 0:
        data.__exit__(None, None, None)
        atexit._run_exitfuncs()
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert len(os.listdir(path / "data")) == 20
"""
    assert notebook.run(cell) == "done"


def test_a_mount_that_is_not_ours_is_left_alone(notebook, url, place, home):
    with home.mounted(url, place / "data"):
        told = notebook.run(f"import dagfs; dagfs.mount({url!r}, 'data')")
        assert told.startswith("failed AlreadyMounted")
        assert mounted(place)
    (place / "full").mkdir()
    (place / "full/file").touch()
    assert notebook.run(f"dagfs.mount({url!r}, 'full')").startswith("failed MountPointNotEmpty")


def test_errors_are_those_of_the_command_in_one_line(notebook, url, place):
    assert notebook.run("import dagfs") == "done"
    host = url.rsplit("/", 2)[0]
    told = notebook.run(f"dagfs.mount('ada/nothing', 'data', host={host!r})")
    assert told.startswith("failed UnknownRepository no repository")
    assert notebook.run(f"dagfs.mount({url!r}, 'data', rev='nothing')").startswith("failed UnknownRevision")
    assert notebook.run("dagfs.mount('not a repository', 'data')").startswith("failed UsageError")
    assert notebook.run(f"dagfs.mount({url!r}, 'data', cache_size='much')").startswith("failed UsageError")
    assert notebook.run("dagfs.mount('a/b', 'data', brnch='main')").startswith(
        "failed TypeError mount() got an unexpected"
    )
    assert not (place / "data").exists()


def test_a_file_beside_the_notebook_with_a_librarys_name_does_no_harm(notebook, url, place):
    for name in ("click.py", "requests.py", "dagfs.py"):
        (place / name).write_text("raise SystemExit('the wrong file')")
    assert notebook.run(f"import sys; sys.path.remove(''); import dagfs; dagfs.mount({url!r}, 'data')") == "done"


def test_every_option_of_the_command_is_a_keyword():
    values = {click.Path: "file", click.Choice: "kernel", click.IntRange: 60}
    for option in command.params:
        if isinstance(option, click.Option) and option.name not in ("foreground", "owner"):
            value = True if option.is_flag else values.get(type(option.type), "10GiB")
            [word] = scripting._words({option.name: value})
            assert word == (option.opts[0] if option.is_flag else f"{option.opts[0]}={value}")
    assert list(scripting._words({"branch": None, "offline": False})) == []


def test_the_mount_ends_with_any_process_that_is_named_under_libfuse_as_well(url, place, home):
    (place / "data").mkdir()
    refused = home.run("mount", url, place / "data", "--owner", str(2**22 - 1), check=False)
    assert (refused.returncode, "there is no process" in refused.stderr) == (2, True)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as owner:
        home.run("mount", url, place / "data", "--driver", "libfuse", "--owner", str(owner.pid))
        owner.communicate(b"\n")
    await_end(place, home)
    assert absolute(place / "data").exists()
    assert os.listdir(place / "data") == []
