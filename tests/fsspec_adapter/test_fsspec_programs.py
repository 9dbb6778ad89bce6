"""Programs that read `dagshub://`: pandas, pyarrow, PyTorch's workers; and what a mount and they share."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest
from support.commands import asked
from support.hubs import hub
from support.repos import commit_all, dvc, new_repository, write_files

pytestmark = pytest.mark.integration

ROWS = 60_000


def split(url: str) -> tuple[str, str]:
    parts = url.split("/")
    return "/".join(parts[:3]), "/".join(parts[3:])


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with a CSV file in git, and Parquet files of real pyarrow in DVC, one of them large."""
    import pandas

    root = new_repository(tmp_path_factory.mktemp("tables") / "repo")
    noise = random.Random(1)
    frame = pandas.DataFrame({"id": range(ROWS), "text": [noise.randbytes(100).hex() for _ in range(ROWS)]})
    (root / "data").mkdir()
    for part in range(3):
        frame[part * 100 : part * 100 + 100].to_parquet(root / f"data/part-{part}.parquet")
    frame.to_parquet(root / "large.parquet", row_group_size=ROWS // 20, compression=None)
    write_files(root, {"labels.csv": frame[:500].to_csv(index=False).encode()})
    dvc(root, "repo = Repo.init(); repo.add(['data', 'large.parquet'])")
    commit_all(root, "tables")
    return root


PANDAS = """
import json, sys
import pandas
host, name = sys.argv[1:]
options = {"host": host, "prefetch": False}
labels = pandas.read_csv(f"dagshub://{name}/labels.csv", storage_options=options)
part = pandas.read_parquet(f"dagshub://{name}/data/part-1.parquet", storage_options=options)
print(json.dumps([len(labels), int(labels.id.sum()), part.id.tolist()[:2], len(part)]))
"""


def test_pandas_reads_csv_and_parquet_with_one_request_for_each(tables, home, run):
    with hub(tables) as url:
        expected = [500, sum(range(500)), [100, 101], 100]
        assert json.loads(run(PANDAS, *split(url))) == expected
        assert asked(url)["raw_paths"] == {"labels.csv": 1, "data/part-1.parquet": 1}
        asked(url, reset=True)
        assert json.loads(run(PANDAS, *split(url))) == expected
        assert set(asked(url)["requests"]) == {"own", "rest"}  # which commit it is now


ARROW = """
import json, sys
import fsspec, pyarrow.dataset as ds, pyarrow.parquet as pq
from pyarrow.fs import FSSpecHandler, PyFileSystem
host, name = sys.argv[1:]
fs = fsspec.filesystem("dagshub", host=host, prefetch=False)
arrow = PyFileSystem(FSSpecHandler(fs))
table = ds.dataset(f"{name}/data", filesystem=arrow, format="parquet").to_table()
large = pq.ParquetFile(f"{name}/large.parquet", filesystem=arrow)
group = large.read_row_group(7, columns=["id"])
print(json.dumps([table.num_rows, sorted(table["id"].to_pylist())[-1], group["id"][0].as_py()]))
"""


def test_pyarrow_reads_a_data_set_and_one_row_group_without_the_rest(tables, home, run):
    with hub(tables) as url:
        assert json.loads(run(ARROW, *split(url))) == [300, 299, 7 * ROWS // 20]
        counted = asked(url)
    assert {path: count for path, count in counted["raw_paths"].items() if path.startswith("data/")} == {
        f"data/part-{part}.parquet": 1 for part in range(3)
    }
    assert counted["bytes"]["raw"] < 6 << 20 < (tables / "large.parquet").stat().st_size


READ = """
import hashlib, sys
import fsspec
host, name, *paths = sys.argv[1:]
fs = fsspec.filesystem("dagshub", host=host, prefetch=False)
for path in paths:
    print(hashlib.sha256(fs.cat_file(f"{name}/{path}")).hexdigest())
"""
FILES = ["labels.csv", "data/part-0.parquet", "large.parquet"]


@pytest.mark.mount
def test_what_a_mount_has_read_costs_fsspec_no_request(tables, home, run, tmp_path):
    from hashlib import sha256

    with hub(tables) as url, home.mounted(url, tmp_path / "data", "--no-prefetch") as data:
        truth = [sha256((data / path).read_bytes()).hexdigest() for path in FILES]
        asked(url, reset=True)
        assert run(READ, *split(url), *FILES).split() == truth
        assert set(asked(url)["requests"]) == {"own", "rest"}


@pytest.mark.mount
def test_what_fsspec_has_read_costs_a_mount_no_request(tables, home, run, tmp_path):
    from hashlib import sha256

    with hub(tables) as url:
        told = run(READ, *split(url), *FILES).split()
        with home.mounted(url, tmp_path / "data", "--no-prefetch") as data:
            asked(url, reset=True)
            assert [sha256((data / path).read_bytes()).hexdigest() for path in FILES] == told
            assert "raw" not in asked(url)["requests"]


WORKERS = """
import multiprocessing, sys
import fsspec, torch
from torch.utils.data import DataLoader, Dataset
host, name, method = sys.argv[1:]

class Rows(Dataset):
    def __init__(self):
        self.fs = fsspec.filesystem("dagshub", host=host, prefetch=False)
        self.paths = [path for path in self.fs.find(f"{name}/data") if path.endswith(".parquet")]
        self.open = self.fs.open(self.paths[0])
        self.head = self.open.read(10)  # the parent has threads and connections by now

    def __len__(self):
        return 3 * len(self.paths)

    def __getitem__(self, index):
        self.open.seek(0)
        assert self.open.read(10) == self.head
        return len(self.fs.cat_file(self.paths[index % len(self.paths)])), self.fs.commit(name)

if __name__ == "__main__":
    rows = Rows()
    fresh = torch.utils.data.DataLoader(rows, num_workers=2, multiprocessing_context=method, collate_fn=list)
    print(sys.stdin.readline(), end="", flush=True)
    found = [row for batch in fresh for row in batch]
    assert found == [rows[index] for index in range(len(rows))]
    print(len(found), {commit for _, commit in found} == {rows.fs.commit(name)})
"""


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_of_a_data_loader_read_the_parents_commit(tables, home, tmp_path, method):
    """Also when the branch has moved between the start of the parent and that of its workers."""
    import shutil

    copy = shutil.copytree(tables, tmp_path / "copy", symlinks=True)
    program = tmp_path / "workers.py"
    program.write_text(WORKERS)
    with hub(copy) as url:
        command = [sys.executable, str(program), *split(url), method]
        with subprocess.Popen(
            command, env=home.environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as parent:
            try:
                while asked(url)["requests"].get("raw", 0) == 0:
                    assert parent.poll() is None
                write_files(copy, {"data.dvc": b"outs: []\n"})
                commit_all(copy, "no data any more", when=1_800_000_000)
                out, _ = parent.communicate("go\n", timeout=90)
            finally:
                parent.kill()
        assert (parent.returncode, out) == (0, "go\n9 True\n")


FORKS = """
import os, sys, threading
import fsspec
host, name = sys.argv[1:]
fs = fsspec.filesystem("dagshub", host=host, prefetch=False)
body = fs.cat_file(f"{name}/labels.csv")
stop = threading.Event()

def busy():
    while not stop.is_set():
        fs.cat_file(f"{name}/labels.csv")  # so that locks are held when the fork comes

threads = [threading.Thread(target=busy) for _ in range(2)]
for thread in threads:
    thread.start()
for number in range(8):
    child = os.fork()
    if child == 0:
        good = fs.cat_file(f"{name}/labels.csv") == body and len(fs.cat_file(f"{name}/data/part-2.parquet")) > 0
        sys.exit(0 if good else 1)  # an ordinary end, with all that is done at exit
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
stop.set()
for thread in threads:
    thread.join()
assert fs.cat_file(f"{name}/labels.csv") == body
assert len(fs.cat_file(f"{name}/data/part-0.parquet")) > 0
print("done")
"""


def test_children_forked_while_other_threads_read_read_as_well(tables, home, run):
    with hub(tables) as url:
        assert run(FORKS, *split(url)) == "done\n"


PICKLES = """
import pickle, sys
import fsspec
host, name = sys.argv[1:]
fs = fsspec.filesystem("dagshub", host=host, prefetch=False)
file = fs.open(f"{name}/labels.csv")
file.seek(5)
same_fs, same_file = pickle.loads(pickle.dumps((fs, file)))
assert same_fs.cat_file(f"{name}/labels.csv") == fs.cat_file(f"{name}/labels.csv")
assert same_file.read(20) == file.read(20)
assert same_file.size == file.size
print("done")
"""


def test_file_systems_and_open_files_are_pickled(tables, home, run):
    with hub(tables) as url:
        assert run(PICKLES, *split(url)) == "done\n"


def test_the_token_is_in_no_pickle(home):
    program = """
import fsspec, pickle
fs = fsspec.filesystem("dagshub")
assert b"s3cret" not in pickle.dumps(fs)
assert "s3cret" not in fs.to_json() + repr(fs)
print("done")
"""
    home.extra["DAGSHUB_USER_TOKEN"] = "s3cret"
    done = subprocess.run([sys.executable, "-c", program], env=home.environment(), capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("done\n", "")
