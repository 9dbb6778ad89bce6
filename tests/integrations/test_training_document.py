"""docs/training.md is held to its word: its commands run beside a mount as they stand there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from support.hubs import hub
from support.snippets import snippets

from dagfs.demo.dataset import build_repository

ROOT = Path(__file__).parents[2]
TRAINING = ROOT / "docs/training.md"
ELSEWHERE = ("dagfs mount", "pip install", "--node-rank")
"""What the fixture does, what would change the environment, and what test_several_processes.py runs."""

BEFORE = """
set -euo pipefail
python() { "$PYTHON" "$@"; }
torchrun() { "$PYTHON" -m torch.distributed.run "$@"; }
"""


def commands() -> list[str]:
    blocks = re.findall(r"```sh\n(.*?)```", TRAINING.read_text(), re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    return [line for line in lines if not any(word in line for word in ELSEWHERE)]


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_repository(tmp_path_factory.mktemp("photographs") / "repo", 16)


def test_the_commands_of_the_document_run_as_they_stand_there(photographs, home, tmp_path):
    shown = commands()
    assert len(shown) == 4
    (program,) = snippets(TRAINING)["TensorFlow"]
    environment = {**os.environ, "PYTHON": sys.executable, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}

    def run(words: list[str]) -> str:
        done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=500)
        assert done.returncode == 0, done.stderr[-4000:]
        return done.stdout

    with hub(photographs) as url, home.mounted(url, tmp_path / "data"):
        for line in shown:
            printed = run(["bash", "-c", BEFORE + line])
            assert printed.count("\n") == 16 if "predict" in line else "epoch 2: " in printed
        assert run([sys.executable, "-c", program]).split() == ["6", "2"]
    for place in ("runs/train", "runs/train-tensorflow"):
        with Image.open(tmp_path / place / "losses.png") as image:
            assert image.format == "PNG"
