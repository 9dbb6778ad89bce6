"""Connected buckets through a real mount: `.dagshub/storage/PROTOCOL/BUCKET/...`, as it was when it was listed."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
from pathlib import Path

import pytest
from support.buckets import TOP, bucket, files_under, put, requests_of
from support.commands import asked
from support.contents import noise
from support.histories import history
from support.hubs import VARIANTS, hub
from support.repos import ODD_NAMES, commit_all, new_repository, write_files
from support.waiting import until

from dagfs.devhub.behaviour import Behaviour, Fault, LastToken, Paging
from dagfs.fetch.seam import WHOLE_MAX

LARGE = WHOLE_MAX + 3_000_000
OBJECTS = (
    {f"{i:03d}.bin": noise(700 * i, i) for i in range(40)}
    | {"sub/deep/er/leaf.txt": b"leaf\n", "sub/large.bin": noise(LARGE, 1), "empty": b""}
    | {f"odd names/{name}": name.encode() for name in ODD_NAMES}
)


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = new_repository(tmp_path_factory.mktemp("with-buckets") / "project")
    write_files(root, {"README.md": b"# project\n", "src/a.py": b"a\n", "src/b.py": b"b\n"})
    commit_all(root, "first")
    return root


@pytest.fixture(scope="session")
def objects(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bucket that no test changes."""
    return bucket(tmp_path_factory.mktemp("bucket") / "bucket", OBJECTS)


def fails_with(number: int, path: Path, offset: int = 0) -> None:
    with pytest.raises(OSError) as raised, open(path, "rb", buffering=0) as file:  # noqa: PT011 -- the errno counts
        os.pread(file.fileno(), 4096, offset)
    assert raised.value.errno == number, raised.value


def beginning(path: Path, size: int = 4096) -> bytes:
    with open(path, "rb", buffering=0) as file:
        return os.pread(file.fileno(), size, 0)


def forget(path: Path) -> None:
    """Have the kernel drop the pages of a file."""
    fd = os.open(path, os.O_RDONLY)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)


def kill_worker(home) -> None:
    (worker,) = home.status()[0]["workers"]
    os.kill(worker, signal.SIGKILL)
    until(lambda: home.status()[0]["workers"] not in ([worker], []))


# What is shown


@pytest.mark.parametrize("itself", [False, True], ids=["children only", "the folder first"])
@pytest.mark.parametrize("last", LastToken)
def test_buckets_of_each_protocol_are_shown_whatever_their_pages_are_like(
    repository, objects, home, tmp_path, last, itself
):
    storages = {"s3:first": objects, "gs:second.bucket": objects, "azure:third": objects}
    behaviour = Behaviour(last_token=last, folder_lists_itself=itself)
    with hub(repository, storages=storages, behaviour=behaviour) as url, home.mounted(url, tmp_path / "data") as data:
        assert sorted(os.listdir(data / TOP)) == ["azure", "gs", "s3"]
        for place in ("s3/first", "gs/second.bucket", "azure/third"):
            assert files_under(data / TOP / place) == OBJECTS


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_byte_of_a_bucket_is_true_under_each_variant_of_the_hub(repository, objects, home, tmp_path, variant):
    with (
        hub(repository, storages={"s3:first": objects}, behaviour=VARIANTS[variant]) as url,
        home.mounted(url, tmp_path / "data") as data,
    ):
        sizes = {path: (data / TOP / "s3/first" / path).stat().st_size for path in OBJECTS}
        assert sizes == {path: len(content) for path, content in OBJECTS.items()}
        assert files_under(data / TOP / "s3/first") == OBJECTS
        if "another origin" in variant:
            assert asked(url)["leaks"] == []


def test_the_libfuse_driver_shows_buckets_as_well(repository, objects, home, tmp_path):
    with (
        hub(repository, storages={"s3:first": objects}) as url,
        home.mounted(url, tmp_path / "data", "--driver", "libfuse") as data,
    ):
        assert files_under(data / TOP / "s3/first") == OBJECTS


def test_names_with_prefixes_are_directories_and_share_them(repository, home, tmp_path):
    one, two = bucket(tmp_path / "one", {"a/1": b"1"}), bucket(tmp_path / "two", {"2": b"2"})
    whole = bucket(tmp_path / "whole", {"raw/3": b"3", "4": b"4"})
    storages = {"s3:lake/raw/2024": one, "s3:lake/clean": two, "gs:pond": whole, "gs:pond/raw": whole / "raw"}
    with hub(repository, storages=storages) as url, home.mounted(url, tmp_path / "data") as data:
        assert sorted(os.listdir(data / TOP / "s3/lake")) == ["clean", "raw"]
        assert files_under(data / TOP / "s3/lake") == {"raw/2024/a/1": b"1", "clean/2": b"2"}
        assert files_under(data / TOP / "gs") == {"pond/raw/3": b"3", "pond/4": b"4"}
        with pytest.raises(FileNotFoundError):
            (data / TOP / "s3/lake/raw/2023").stat()


def test_buckets_are_found_where_the_root_does_not_list_them(repository, objects, home, tmp_path, driver):
    behaviour = Behaviour(root_lists_storages=False)
    with (
        hub(repository, storages={"s3:first": objects}, behaviour=behaviour) as url,
        home.mounted(url, tmp_path / "data", "--driver", driver) as data,
    ):
        assert sorted(os.listdir(data)) == ["README.md", "src"]
        assert (data / ".dagshub").is_dir()
        assert (data / TOP / "s3/first/sub/deep/er/leaf.txt").read_bytes() == b"leaf\n"
        assert os.listdir(data / ".dagshub") == ["storage"]
        inode = (data / ".dagshub").stat().st_ino
        if driver == "kernel":
            kill_worker(home)
        assert (data / ".dagshub").stat().st_ino == inode
        assert (data / TOP / "s3/first/001.bin").read_bytes() == OBJECTS["001.bin"]


def test_without_storages_there_is_no_such_directory_and_the_hub_is_asked_once(repository, home, tmp_path):
    with (
        hub(repository, behaviour=Behaviour(own_bucket=False)) as url,
        home.mounted(url, tmp_path / "data") as data,
    ):
        for _ in range(3):
            with pytest.raises(FileNotFoundError):
                os.stat(data / ".dagshub")
            assert not (data / TOP / "s3").exists()
        assert sorted(os.listdir(data)) == ["README.md", "src"]
        assert requests_of(url, "storage") == 2  # which there are, and the own bucket


def test_what_git_has_there_is_shown_beside_the_buckets(home, objects, tmp_path):
    root = new_repository(tmp_path / "project")
    mine = {".dagshub/notes.txt": b"n", ".dagshub/storage/s3/own.txt": b"o", ".dagshub/storage/readme": b"r"}
    write_files(root, mine | {"a": b"a"})
    commit_all(root, "first")
    none = Behaviour(own_bucket=False)
    with hub(root, behaviour=none) as url, home.mounted(url, tmp_path / "data") as data:
        assert files_under(data) == mine | {"a": b"a"}
    with hub(root, storages={"s3:first": objects}) as url, home.mounted(url, tmp_path / "data") as data:
        assert sorted(os.listdir(data / TOP / "s3")) == ["first", "own.txt", "project"]
        assert {path: (data / path).read_bytes() for path in mine} == mine
        assert (data / TOP / "s3/first/001.bin").read_bytes() == OBJECTS["001.bin"]
        assert home.status()[0]["hidden"] == 0


def test_who_never_looks_there_costs_the_hub_nothing(repository, objects, home, tmp_path):
    with hub(repository, storages={"s3:first": objects}) as url, home.mounted(url, tmp_path / "data") as data:
        assert sorted(os.listdir(data)) == [".dagshub", "README.md", "src"]
        assert files_under(data / "src") == {"a.py": b"a\n", "b.py": b"b\n"}
        home.run("warm", data)
        assert (requests_of(url, "storage"), requests_of(url, "s3")) == (0, 0)


def test_extended_attributes_tell_of_objects(repository, objects, home, tmp_path):
    with hub(repository, storages={"s3:first": objects}) as url, home.mounted(url, tmp_path / "data") as data:
        path = data / TOP / "s3/first/001.bin"
        os.listdir(path.parent)
        marks = {name: os.getxattr(path, f"user.dagfs.{name}") for name in ("versioning", "hash", "cached")}
        assert marks == {"versioning": b"bucket", "hash": b"", "cached": b"0"}
        path.read_bytes()
        assert os.getxattr(path, "user.dagfs.cached") == b"1"
        assert os.getxattr(data / TOP / "s3/project/README.md", "user.dagfs.hash")  # the S3 endpoint tells ETags


def test_a_folder_of_a_bucket_can_be_mounted(repository, objects, home, tmp_path):
    with (
        hub(repository, storages={"s3:first": objects}) as url,
        home.mounted(url, tmp_path / "data", "--subdir", f"{TOP}/s3/first/sub") as data,
    ):
        assert files_under(data) == {p.removeprefix("sub/"): d for p, d in OBJECTS.items() if p.startswith("sub/")}


# Pages


def test_a_bucket_comes_page_by_page_and_a_failed_page_alone_is_asked_for_again(repository, home, tmp_path):
    many = bucket(tmp_path / "many", {f"{i:05d}": b"%d" % i for i in range(4_500)})

    def fault(request):
        third = "/storage/content/" in request.path and request.kind == "storage" and request.number == 3
        return Fault(status=503) if third else None

    with (
        hub(repository, storages={"s3:many": many}, fault=fault) as url,
        home.mounted(url, tmp_path / "data", "--subdir", f"{TOP}/s3") as data,
    ):
        asked(url, reset=True)
        names = os.listdir(data / "many")
        assert sorted(names) == [f"{i:05d}" for i in range(4_500)]
        assert sum((data / "many" / name).stat().st_size for name in names) == sum(len(str(i)) for i in range(4_500))
        assert requests_of(url, "storage") <= 5 + 1 + 3  # pages, the failed one, what there is and the own bucket


@pytest.mark.stress
@pytest.mark.timeout(600)
def test_a_bucket_of_200_000_objects_is_listed_once_and_costs_less_than_100_bytes_each(repository, home, tmp_path):
    folder = tmp_path / "many"
    folder.mkdir()
    for i in range(200_000):
        os.close(os.open(folder / f"object-{i:06d}.jpg", os.O_CREAT | os.O_WRONLY))
    with hub(repository, storages={"s3:many": folder}) as url, home.mounted(url, tmp_path / "data") as data:
        os.listdir(data / TOP / "s3")
        asked(url, reset=True)
        (worker,) = home.status()[0]["workers"]
        before = resident(worker)
        started = subprocess.run(["ls", "-f", data / TOP / "s3/many"], stdout=subprocess.PIPE, timeout=300)
        assert started.stdout.count(b"\n") == 200_002
        assert (data / TOP / "s3/many/object-000001.jpg").stat().st_size == 0
        assert requests_of(url, "storage") <= 202
        assert resident(worker) - before < 200_000 * 100 + (64 << 20)  # and what a page needs while it is parsed


def resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize("paging", [Paging.REPEATED, Paging.ENDLESS, Paging.BARREN])
def test_pages_that_never_end_are_an_error_and_nothing_else_is_touched(repository, objects, home, tmp_path, paging):
    behaviour = Behaviour(paging=paging)
    with (
        hub(repository, storages={"s3:first": objects}, behaviour=behaviour) as url,
        home.mounted(url, tmp_path / "data") as data,
    ):
        with pytest.raises(OSError) as raised:  # noqa: PT011 -- the errno is what counts
            os.listdir(data / TOP / "s3/first")
        assert raised.value.errno == errno.EIO
        assert requests_of(url, "storage") < 1_100
        assert (data / "README.md").read_bytes() == b"# project\n"
        assert (data / TOP / "s3/first/001.bin").read_bytes() == OBJECTS["001.bin"]


# The repository's own bucket


@pytest.mark.parametrize("token", [None, "s3cret"])
def test_the_own_bucket_comes_through_s3_where_the_storage_api_is_without_it(repository, home, tmp_path, token):
    home.extra = {"DAGSHUB_USER_TOKEN": token} if token else {}
    with hub(repository, token=token) as url:
        home.extra |= {"DAGSHUB_CLIENT_HOST": url.rsplit("/", 2)[0]}
        with home.mounted(url, tmp_path / "data") as data:
            own = data / TOP / "s3/project"
            assert files_under(own) == {"README.md": b"# project\n", "src/a.py": b"a\n", "src/b.py": b"b\n"}
            for absent in ("README", "README.md/x", "src/c.py", "sr"):
                assert not (own / absent).exists()
            assert os.listdir(data / TOP) == ["s3"]


def test_odd_names_and_large_objects_come_through_s3(sample, home, tmp_path):
    with hub(sample.path) as url, home.mounted(url, tmp_path / "data") as data:
        name = url.rsplit("/", 1)[1]
        found = files_under(data / TOP / "s3" / name)
        assert {path: content for path, content in found.items() if path in sample.files} == found
        assert sample.dvc[sample.head] <= set(found)
        assert len([path for path in found if path.startswith(("odd git/", "odd dvc/"))]) == 2 * len(ODD_NAMES)


def test_the_own_bucket_comes_through_the_storage_api_where_that_answers(repository, objects, home, tmp_path):
    with hub(repository, storages={"s3:project": objects}) as url, home.mounted(url, tmp_path / "data") as data:
        assert files_under(data / TOP / "s3/project") == OBJECTS
        assert requests_of(url, "s3") == 0


def test_an_object_whose_etag_is_listed_is_never_of_another_version(home, tmp_path):
    """It was not read before it changed."""
    root = new_repository(tmp_path / "project")
    write_files(root, {"same": b"old", "other": b"o" * 100})
    commit_all(root, "first")
    with hub(root) as url, home.mounted(url, tmp_path / "data", "--no-prefetch") as data:
        own = data / TOP / "s3/project"
        assert sorted(os.listdir(own)) == ["other", "same"]
        write_files(root, {"same": b"new"})
        commit_all(root, "second")
        fails_with(errno.ESTALE, own / "same")
        assert (own / "other").read_bytes() == b"o" * 100
    asked_before = None
    with hub(root) as url:
        for _ in range(2):
            with home.mounted(url, tmp_path / "data") as data:
                assert (data / TOP / "s3/project/same").read_bytes() == b"new"
                asked_before, now = requests_of(url, "s3"), asked_before
        assert now == asked_before  # a remount found it by its ETag


# One version of each object, as long as the mount lives


@pytest.fixture
def changing(tmp_path):
    """A bucket that the test changes."""
    content = {"small": b"first version", "grown": b"1", "gone": b"here", "large": noise(LARGE, 5), "kept": b"kept"}
    return bucket(tmp_path / "changing", content)


def test_an_object_that_changed_since_it_was_listed_is_stale(repository, changing, home, tmp_path, driver):
    with (
        hub(repository, storages={"s3:first": changing}) as url,
        home.mounted(url, tmp_path / "data", "--no-prefetch", "--driver", driver) as data,
    ):
        there = data / TOP / "s3/first"
        assert sorted(os.listdir(there)) == ["gone", "grown", "kept", "large", "small"]
        put(changing / "grown", b"much longer")
        (changing / "gone").unlink()
        (changing / "late").write_bytes(b"late")
        fails_with(errno.ESTALE, there / "grown")
        fails_with(errno.ESTALE, there / "gone")
        assert not (there / "late").exists()
        assert (there / "grown").stat().st_size == 1
        assert b"has changed in the bucket" in os.getxattr(there / "grown", "user.dagfs.error")
        assert (there / "kept").read_bytes() == b"kept"
    with hub(repository, storages={"s3:first": changing}) as url, home.mounted(url, tmp_path / "data") as data:
        assert files_under(data / TOP / "s3/first") == files_under(changing)  # a remount looks again


@pytest.mark.parametrize("killed", [False, True], ids=["one worker", "a killed worker between"])
def test_a_large_object_that_changes_in_mid_read_is_stale_and_never_a_mix(repository, changing, home, tmp_path, killed):
    with (
        hub(repository, storages={"s3:first": changing}) as url,
        home.mounted(url, tmp_path / "data", "--no-prefetch") as data,
    ):
        path, old = data / TOP / "s3/first/large", (changing / "large").read_bytes()
        assert beginning(path) == old[:4096]
        put(changing / "large", noise(LARGE, 6))
        if killed:
            kill_worker(home)
        fails_with(errno.ESTALE, path, LARGE - 5_000)
        assert beginning(path) == old[:4096]


def test_a_small_object_that_was_read_stays_of_its_version_or_is_stale(repository, changing, home, tmp_path):
    """The cache loses it, and its worker dies, before it is read again."""
    with (
        hub(repository, storages={"s3:first": changing}) as url,
        home.mounted(url, tmp_path / "data", "--no-prefetch") as data,
    ):
        path = data / TOP / "s3/first/small"
        assert path.read_bytes() == b"first version"
        home.run("warm", path)  # waits until it is on the disk
        put(changing / "small", b"other version")
        assert path.read_bytes() == b"first version"
        forget(path)
        assert path.read_bytes() == b"first version"  # from the cache
        empty_the_files(home)
        forget(path)
        kill_worker(home)
        fails_with(errno.ESTALE, path)


def empty_the_files(home) -> None:
    """Remove all whole files of the cache, and nothing that was noted beside them."""
    for stored in (home.root / "cache").rglob("files/md5/*/*"):
        stored.unlink()


def test_the_listing_is_the_same_for_the_life_of_a_mount(repository, changing, home, tmp_path):
    with hub(repository, storages={"s3:first": changing}) as url, home.mounted(url, tmp_path / "data") as data:
        there = data / TOP / "s3/first"
        names = os.listdir(there)
        (changing / "0-new").write_bytes(b"new")
        inodes = {name: (there / name).stat().st_ino for name in names}
        kill_worker(home)
        assert os.listdir(there) == names
        assert {name: (there / name).stat().st_ino for name in names} == inodes
        assert (there / "kept").read_bytes() == b"kept"
    with hub(repository, storages={"s3:first": changing}) as url, home.mounted(url, tmp_path / "data") as data:
        assert sorted(os.listdir(data / TOP / "s3/first")) == sorted([*names, "0-new"])


@pytest.mark.parametrize("changed", [False, True], ids=["the same bucket", "another bucket"])
def test_a_listing_that_is_lost_is_made_again_or_stale_and_never_shows_one_object_as_another(
    repository, changing, home, tmp_path, changed
):
    """The cache is cleared under the mount, and its worker dies: the kernel still knows the nodes."""
    with (
        hub(repository, storages={"s3:first": changing}) as url,
        home.mounted(url, tmp_path / "data", "--no-prefetch") as data,
    ):
        there = data / TOP / "s3/first"
        names = sorted(os.listdir(there))
        sizes = {name: (there / name).stat().st_size for name in names}
        if changed:
            (changing / "a first name").write_bytes(b"x")
        home.run("cache", "clear")
        kill_worker(home)
        if changed:
            for name in names:
                fails_with(errno.ESTALE, there / name)
        else:
            assert {name: len((there / name).read_bytes()) for name in names} == sizes
            assert files_under(there) == files_under(changing)


def test_a_remount_asks_for_one_byte_of_what_is_unchanged_and_for_all_of_the_rest(repository, changing, home, tmp_path):
    with hub(repository, storages={"s3:first": changing}) as url:
        with home.mounted(url, tmp_path / "data") as data:
            files_under(data / TOP / "s3/first")
            home.run("warm", data / TOP / "s3/first")
        put(changing / "small", b"other version")
        asked(url, reset=True)
        with home.mounted(url, tmp_path / "data") as data:
            assert files_under(data / TOP / "s3/first") == files_under(changing)
            figures = home.status()[0]["metrics"]
        assert figures["fetch.renewed"] >= 4
        assert asked(url)["bytes"]["storage"] < 100_000  # listings; the large object came from the cache


def test_a_followed_branch_changes_and_the_buckets_snapshot_does_not(changing, home, tmp_path):
    made = history(tmp_path / "project")
    with (
        hub(made.root, storages={"s3:first": changing}) as url,
        home.mounted(url, tmp_path / "data", "--follow", "1", "--no-prefetch") as data,
    ):
        there = data / TOP / "s3/first"
        names = sorted(os.listdir(there))
        assert (there / "small").read_bytes() == b"first version"
        (changing / "late").write_bytes(b"late")
        asked(url, reset=True)
        made.commit()
        until(lambda: (data / "version").read_bytes() == b"2\n", "version 2")
        assert sorted(os.listdir(there)) == names
        assert (there / "small").read_bytes() == b"first version"
        assert (there / "kept").read_bytes() == b"kept"
        assert requests_of(url, "storage") == 1  # the bytes of `kept`


# Offline, warm, prefetch


def test_offline_serves_the_buckets_as_the_last_mount_saw_them(repository, changing, home, tmp_path, driver):
    with hub(repository, storages={"s3:first": changing}) as url:
        with home.mounted(url, tmp_path / "data", "--no-prefetch") as data:
            os.listdir(data / TOP / "s3/first")
            home.run("warm", data / TOP / "s3/first/small", data / TOP / "s3/first/large")
        asked(url, reset=True)
        with home.mounted(url, tmp_path / "data", "--offline", "--driver", driver) as data:
            there = data / TOP / "s3/first"
            assert sorted(os.listdir(there)) == ["gone", "grown", "kept", "large", "small"]
            assert (there / "small").read_bytes() == b"first version"
            assert (there / "large").read_bytes() == (changing / "large").read_bytes()
            fails_with(errno.ENETUNREACH, there / "kept")
            missing = home.status()[0]["missing"]
            assert missing["paths"] == [f"{TOP}/s3/first/kept"]
            if driver == "kernel":
                kill_worker(home)
                assert (there / "small").read_bytes() == b"first version"
        assert requests_of(url, "storage") == 0


def test_warm_fetches_a_bucket_that_it_is_asked_for(repository, objects, home, tmp_path):
    with (
        hub(repository, storages={"s3:first": objects}) as url,
        home.mounted(url, tmp_path / "data", "--no-prefetch") as data,
    ):
        os.listdir(data / TOP / "s3")
        home.run("warm", data / TOP / "s3/first")
        asked(url, reset=True)
        assert files_under(data / TOP / "s3/first") == OBJECTS
        assert requests_of(url, "storage") == 0


def test_reading_in_order_fetches_the_next_objects_ahead(repository, objects, home, tmp_path):
    with hub(repository, storages={"s3:first": objects}) as url, home.mounted(url, tmp_path / "data") as data:
        there = data / TOP / "s3/first"
        names = sorted(name for name in os.listdir(there) if name.endswith(".bin"))
        for name in names[:8]:
            (there / name).read_bytes()
        until(lambda: os.getxattr(there / names[12], "user.dagfs.cached") == b"1")


def test_an_annotation_file_in_a_bucket_names_the_objects_that_come_next(repository, home, tmp_path):
    rows = [f"{i * 7 % 60:03d}.jpg" for i in range(60)]
    labels = "".join(f"{name}\ta squirrel\n" for name in rows).encode()
    folder = bucket(tmp_path / "pictures", {name: noise(3_000, 1) for name in rows} | {"labels.tsv": labels})
    with hub(repository, storages={"gs:pictures": folder}) as url, home.mounted(url, tmp_path / "data") as data:
        there = data / TOP / "gs/pictures"
        os.listdir(there)
        assert (there / "labels.tsv").read_bytes() == labels
        for name in rows[:6]:
            (there / name).read_bytes()
        until(lambda: os.getxattr(there / rows[9], "user.dagfs.cached") == b"1")
