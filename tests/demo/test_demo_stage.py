"""What the demo starts ends with it; interrupts come when everything can be ended."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import subprocess
import sys
import threading
import urllib.request
from collections import Counter
from pathlib import Path

import pytest
from rich.console import Console

from dagfs.demo import stage as stage_module
from dagfs.demo.interrupts import Interrupted, Interrupts
from dagfs.demo.reading import read_all
from dagfs.demo.report import Place, Results, show
from dagfs.demo.stage import Stage
from dagfs.demo.traffic import Traffic, traffic
from dagfs.errors import UsageError


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[subprocess.Popen]:
    """Every process that a stage starts."""
    processes: list[subprocess.Popen] = []
    real = subprocess.Popen

    def start(*words, **options):
        processes.append(real(*words, **options))
        return processes[-1]

    monkeypatch.setattr(stage_module.subprocess, "Popen", start)
    return processes


def test_a_signal_is_raised_at_the_next_check_and_the_old_handlers_come_back() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    with Interrupts() as interrupts:
        interrupts.check()
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(Interrupted, match="SIGTERM") as caught:
            interrupts.check()
        assert caught.value.exit_status == 143
        interrupts.check()
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == before


def test_a_signal_that_was_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Interrupts() as interrupts:
            os.kill(os.getpid(), signal.SIGHUP)
            interrupts.check()
    finally:
        signal.signal(signal.SIGHUP, before)


def test_the_server_answers_counts_and_ends(tmp_path: Path, repository: Path, started) -> None:
    with Stage(tmp_path, Interrupts()).served(repository) as url:
        assert url.endswith("/demo/photographs")
        before = traffic(url)
        with urllib.request.urlopen(f"{url.replace('/demo/', '/api/v1/repos/demo/')}", timeout=10) as answer:
            size = len(answer.read())
        assert traffic(url).since(before) == Traffic(1, size, Counter())
    assert [process.poll() is not None for process in started] == [True]


def test_a_server_that_does_not_start_is_one_line(tmp_path: Path, started) -> None:
    (tmp_path / "not a repository").mkdir()
    stage = Stage(tmp_path, Interrupts())
    with (
        pytest.raises(UsageError, match=r"`dagfs serve` does not start: \w") as caught,
        stage.served(tmp_path / "not a repository"),
    ):
        pytest.fail("it served")
    assert "\n" not in str(caught.value)
    assert started[0].poll() is not None


def test_an_interrupt_ends_what_is_running(tmp_path: Path, started) -> None:
    with Interrupts() as interrupts:
        threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
        with pytest.raises(Interrupted):
            Stage(tmp_path, interrupts)._module("http.server", "0", "--bind", "127.0.0.1")
    assert started[0].poll() is not None


def test_a_process_that_ignores_sigterm_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage_module, "END_SECONDS", 0.2)
    stubborn = "import signal, sys, time; signal.signal(15, signal.SIG_IGN); print(flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", stubborn], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        stage_module._end(process)
        assert process.returncode == -signal.SIGKILL


def test_a_training_that_fails_is_named_with_its_status(tmp_path: Path, capfd) -> None:
    with pytest.raises(UsageError, match=r"`python -m training\.train` ended with exit status 1"):
        Stage(tmp_path, Interrupts()).train(tmp_path / "nothing", tmp_path / "out", 1)
    assert "labels.tsv: No such file" in capfd.readouterr().err


def test_a_mount_that_fails_keeps_its_message_and_status(tmp_path: Path) -> None:
    stage = Stage(tmp_path, Interrupts())
    with pytest.raises(UsageError) as caught, stage.mounted("http://127.0.0.1:9/a/b", "data"):
        pytest.fail("it mounted")
    assert caught.value.exit_status == 8
    assert not str(caught.value).startswith("dagfs:")
    assert stage.left_behind == []


def test_a_mount_that_cannot_be_ended_is_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(tmp_path, Interrupts())

    def call(*words: str) -> str:
        if words[0] == "unmount":
            raise UsageError("busy")
        return ""

    monkeypatch.setattr(stage, "_call", call)
    with contextlib.suppress(ZeroDivisionError), stage.mounted("url", "data"):
        raise ZeroDivisionError
    assert stage.left_behind == [tmp_path / "data"]


def test_a_reading_pass_decodes_every_image_that_the_labels_name(repository: Path, tmp_path: Path) -> None:
    assert read_all(repository) > 0
    (tmp_path / "labels.tsv").write_text("name\tcaption\tscore\nmissing.jpg\tx\t5\n")
    with pytest.raises(FileNotFoundError):
        read_all(tmp_path)


def place(title: str, *, digest: str = "same", loss: float = 0.5, seconds: float = 4.0) -> Place:
    epoch = {"train_loss": loss, "valid_loss": 0.25, "seconds": seconds, "first_batch_seconds": 0.75}
    return Place(title, {"embeddings_sha256": digest, "epochs": [epoch, epoch | {"seconds": 0.01}]}, 1.0)


def results(*places: Place) -> Results:
    cold = Traffic(35, 2_500_000, Counter({"a": 1, "b": 1, "c": 2}))
    return Results(places, cold, Traffic(0, 0, Counter()), Path("runs/demo"))


@pytest.mark.parametrize("other", [place("copy", digest="another"), place("copy", loss=0.50001)])
def test_trainings_that_differ_in_one_bit_are_not_identical(other: Place) -> None:
    assert results(place("mount"), place("again"), place("copy", seconds=3.0)).identical
    assert not results(place("mount"), place("again"), other).identical


def test_the_table_tells_times_bytes_and_where_the_plots_lie() -> None:
    console = Console(width=100, record=True, file=io.StringIO())
    show(console, results(place("mount, first time"), place("mount, again"), place("plain copy", seconds=2.0)))
    text = console.export_text()
    for expected in (
        "mount, first time",
        "4.00",
        "2.00",
        "25%",
        "50%",
        "3 files (1 more than once), 2.5 MB, 35 requests",
        "nothing, not one request",
        "are identical",
        "runs/demo/mount and runs/demo/copy",
    ):
        assert expected in text
