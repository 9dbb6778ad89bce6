"""The unmodified program is the interface: programs written in C and every way to read see the truth."""

from __future__ import annotations

import errno
import hashlib
import mmap
import os
import subprocess
import sys

import pytest
from PIL import Image
from support.hubs import hub
from support.repos import commit_all, new_repository, write_files
from support.walks import differences, looks_of, walk

WAYS = """
import hashlib, mmap, os, socket, sys
path, way = sys.argv[1:]
file = os.open(path, os.O_RDONLY | (os.O_DIRECT if way == "direct" else 0))
size = os.fstat(file).st_size
def all_of(read):
    data = b""
    while len(data) < size:
        piece = read(len(data))
        assert piece, f"short at {len(data)}"
        data += piece
    return data
def direct():
    buffer = mmap.mmap(-1, 1 << 20)
    return all_of(lambda at: bytes(buffer[: os.preadv(file, [buffer], at)]))
def sendfile():
    out = os.open("/dev/shm/dagfs-sendfile-%d" % os.getpid(), os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    os.unlink("/dev/shm/dagfs-sendfile-%d" % os.getpid())
    at = 0
    while at < size:
        at += os.sendfile(out, file, at, size - at)
    return os.pread(out, size, 0)
data = {
    "read": lambda: all_of(lambda at: os.read(file, 8192)),
    "pread": lambda: all_of(lambda at: os.pread(file, 100_003, at)),
    "mmap": lambda: mmap.mmap(file, size, mmap.MAP_PRIVATE, mmap.PROT_READ)[:],
    "shared mmap": lambda: mmap.mmap(file, size, mmap.MAP_SHARED, mmap.PROT_READ)[:],
    "direct": direct,
    "sendfile": sendfile,
}[way]()
print(hashlib.sha256(data).hexdigest())
"""


@pytest.mark.parametrize("way", ["read", "pread", "mmap", "shared mmap", "direct", "sendfile"])
def test_every_way_to_read_gives_the_same_bytes(sample, home, tmp_path, driver, way):
    with hub(sample.path) as url, home.mounted(url, tmp_path / "data", "--driver", driver) as data:
        done = subprocess.run(
            [sys.executable, "-c", WAYS, data / "large.bin", way], capture_output=True, text=True, timeout=60
        )
    assert done.stderr == ""
    assert done.stdout.strip() == hashlib.sha256(sample.files["large.bin"]).hexdigest()


def test_programs_in_c_see_the_truth(sample, home, tmp_path, driver):
    wanted = looks_of(sample)
    copies = {
        "cp": ["cp", "-a"],
        "rsync": ["rsync", "-a", "--no-owner", "--no-group"],
    }
    with hub(sample.path) as url, home.mounted(url, tmp_path / "data", "--driver", driver) as data:
        for name, command in copies.items():
            subprocess.run([*command, f"{data}/", tmp_path / name], check=True, timeout=90)
            subprocess.run(["chmod", "-R", "u+w", tmp_path / name], check=True)
            assert differences(walk(tmp_path / name), wanted) == []
        subprocess.run(
            f"tar -C {data} -cf - . | (mkdir {tmp_path}/tar && tar -C {tmp_path}/tar -xf -)", shell=True, check=True
        )
        subprocess.run(["chmod", "-R", "u+w", tmp_path / "tar"], check=True)
        assert differences(walk(tmp_path / "tar"), wanted) == []
        found = subprocess.run(["find", data, "-type", "f", "-print0"], capture_output=True, check=True, timeout=60)
        assert found.stdout.count(b"\0") == len(sample.files)
        total = subprocess.run(["du", "-sb", "--apparent-size", data], capture_output=True, check=True, text=True)
        directories = sum(row[0] == "directory" for row in wanted.values()) + 1
        assert int(total.stdout.split()[0]) - sum(map(len, sample.files.values())) <= 4096 * directories
        sums = subprocess.run(["sha256sum", data / "model.bin"], capture_output=True, check=True, text=True)
        assert sums.stdout.split()[0] == hashlib.sha256(sample.files["model.bin"]).hexdigest()


def test_image_libraries_read_the_mount(home, tmp_path, driver):
    cv2 = pytest.importorskip("cv2")
    repository = new_repository(tmp_path / "repo")
    Image.new("RGB", (64, 48), (200, 30, 90)).save(tmp_path / "red.png")
    write_files(repository, {"red.png": (tmp_path / "red.png").read_bytes()})
    commit_all(repository, "an image")
    with hub(repository) as url, home.mounted(url, tmp_path / "data", "--driver", driver) as data:
        with Image.open(data / "red.png") as image:
            assert image.convert("RGB").getpixel((10, 10)) == (200, 30, 90)
        assert cv2.imread(str(data / "red.png"))[10, 10].tolist() == [90, 30, 200]


def test_nothing_can_be_written(sample, home, tmp_path, driver):
    with hub(sample.path) as url, home.mounted(url, tmp_path / "data", "--driver", driver) as data:
        attempts = {
            "append": lambda: os.open(data / "README.md", os.O_WRONLY | os.O_APPEND),
            "create": lambda: os.open(data / "new", os.O_WRONLY | os.O_CREAT),
            "remove": lambda: os.unlink(data / "README.md"),
            "mkdir": lambda: os.mkdir(data / "new"),
            "rename": lambda: os.rename(data / "README.md", data / "other"),
            "chmod": lambda: os.chmod(data / "README.md", 0o777),
            "utime": lambda: os.utime(data / "README.md"),
            "symlink": lambda: os.symlink("x", data / "new"),
        }
        for name, attempt in attempts.items():
            with pytest.raises(OSError) as raised:  # noqa: PT011 -- the errno is looked at below
                attempt()
            assert raised.value.errno == errno.EROFS, name
        assert not os.access(data / "README.md", os.W_OK)
        assert os.access(data / "README.md", os.R_OK)


def test_wrong_paths_fail_as_on_a_local_disk(sample, home, tmp_path, driver):
    local = tmp_path / "local"
    write_files(local, {"README.md": b"x", "images/x": b"y"})

    def outcome(call):
        try:
            call()
        except OSError as error:
            return error.errno
        return 0

    with hub(sample.path) as url, home.mounted(url, tmp_path / "data", "--driver", driver) as data:
        for root in (data, local):
            calls = {
                "missing": lambda root=root: os.stat(root / "missing"),
                "missing inside a missing directory": lambda root=root: os.stat(root / "missing/x"),
                "below a file": lambda root=root: os.stat(root / "README.md/x"),
                "list a file": lambda root=root: os.listdir(root / "README.md"),
                "open a directory": lambda root=root: os.read(os.open(root / "images", os.O_RDONLY), 1),
                "read link of a file": lambda root=root: os.readlink(root / "README.md"),
                "name too long": lambda root=root: os.stat(root / ("n" * 256)),
            }
            found = {name: outcome(call) for name, call in calls.items()}
            if root == data:
                mounted = found
        assert mounted == found


def test_a_map_of_a_mounted_file_stays_readable_after_the_file_is_closed(sample, home, tmp_path):
    with hub(sample.path) as url, home.mounted(url, tmp_path / "data") as data:
        with open(data / "model.bin", "rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_WILLNEED)
            mapped = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
        assert hashlib.sha256(mapped).digest() == hashlib.sha256(sample.files["model.bin"]).digest()
        mapped.close()
