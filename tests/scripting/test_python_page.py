"""docs/python.md is copied and pasted: every block of it runs, against a hub that has its repository."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.commands import Home
from support.hubs import hub
from support.repos import commit_all, dvc, git, new_repository, write_files

PAGE = Path(__file__).parents[2] / "docs/python.md"
KAGGLE = """
class UserSecretsClient:
    def get_secret(self, name):
        return "t0ken"
"""


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import pandas

    root = new_repository(tmp_path_factory.mktemp("page") / "repo")
    images = {f"images/{number:03}.jpg": bytes([number]) * 500 for number in range(5)}
    write_files(root, {**images, "labels.csv": b"name,score\na,1\nb,2\n", "model.bin": bytes(range(250))})
    (root / "data").mkdir()
    pandas.DataFrame({"id": [1, 2, 3]}).to_parquet(root / "data/part-0.parquet")
    dvc(root, "repo = Repo.init(); repo.add(['data', 'images'])")
    commit_all(root, "all that the page names")
    git(root, "tag", "v1.2")
    git(root, "branch", "feature/x")
    return root


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(), re.DOTALL)


def test_every_block_of_the_page_runs(repository, home: Home, tmp_path):
    assert len(blocks("python")) >= 6
    (tmp_path / "kaggle_secrets.py").write_text(KAGGLE)
    *ordinary, kaggle = blocks("python")
    assert "/kaggle/temp" in kaggle
    kaggle = kaggle.replace("/kaggle/temp", str(tmp_path / "temp"))
    program = "\n".join([*ordinary, kaggle, "assert len(bodies) == 5 and len(tail) == 100 and len(table) == 3"])
    program += "\nassert list(labels.score) == [1, 2] and list(part.id) == [1, 2, 3]\n"
    (tmp_path / "page.py").write_text(program)
    with hub(repository, name="owner/name", token="t0ken") as url:
        home.extra |= {"DAGSHUB_CLIENT_HOST": url.rsplit("/", 2)[0], "DAGSHUB_USER_TOKEN": "t0ken"}
        done = subprocess.run(
            [sys.executable, "page.py"],
            cwd=tmp_path,
            env={**home.environment(), "PYTHONPATH": f"{home.extra['PYTHONPATH']}:{tmp_path}"},
            capture_output=True,
            text=True,
            timeout=100,
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.splitlines()[0] == "5"
