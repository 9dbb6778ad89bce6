"""A mount as it is watched: `dagfs top`, scrapes of Prometheus, logs as JSON."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import pty
import re
import select
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from http.client import HTTPException
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_families
from prometheus_client.parser import text_string_to_metric_families as text_families
from support.documents import blocks
from support.hubs import hub
from support.relay import Relay
from support.tools import needed
from support.waiting import until

from dagfs.cli.load import processes, rates
from dagfs.daemon.control import ask
from dagfs.daemon.families import families
from dagfs.daemon.logs import JsonLines
from dagfs.daemon.plan import mount_id
from dagfs.daemon.state import MountState, Registry, birth
from dagfs.devhub.behaviour import Fault

ROOT = Path(__file__).parents[2]
DASHBOARD = ROOT / "deploy/grafana/dagfs.json"
SECRET = '0123456789"abcdef0123456789'


def stall_images(request):
    if request.kind == "raw" and request.path.startswith("images/03"):
        return Fault(stall_after=10, stall_seconds=None)
    return None


@pytest.fixture
def port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def scraped(port: int, accept: str = "") -> str:
    request = urllib.request.Request(f"http://127.0.0.1:{port}/metrics", headers={"Accept": accept})
    with urllib.request.urlopen(request, timeout=20) as answer:
        return answer.read().decode()


def samples(text: str) -> dict[str, float]:
    """Give the values of a scrape, those of all labels of a name added up."""
    found: dict[str, float] = {}
    for family in text_families(text):
        for one in family.samples:
            found[one.name] = found.get(one.name, 0.0) + one.value
    return found


@contextlib.contextmanager
def readers(*paths: Path):
    running = [subprocess.Popen(["cat", path], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) for path in paths]
    try:
        yield running
    finally:
        for one in running:
            one.kill()
            one.wait(10)


def activity(home) -> dict:
    (path,) = (home.root / "run/dagfs").glob("*.sock")
    (answer,) = ask(path, {"op": "activity"}, 10)
    return answer


def test_top_names_the_processes_that_wait_and_what_for(sample, home, tmp_path):
    with hub(sample.path, fault=stall_images) as url, home.mounted(url, tmp_path / "data", "--no-prefetch") as data:
        with readers(data / "images/031.jpg", data / "images/032.jpg") as waiting:
            until(lambda: activity(home)["waiting_count"] == 2)
            shown = home.run("top", "--once", "--interval", "0.2").stdout
            for process, name in zip(waiting, ("031", "032"), strict=True):
                assert re.search(rf"\b{process.pid} +cat +1 +\d+\.\d s +read +images/{name}\.jpg", shown), shown
            assert "2 transfers under way" in shown
        (data / "images/001.jpg").read_bytes()
        slowest = activity(home)["slowest"]
        assert "images/001.jpg" in [one["path"] for one in slowest]
        assert len({one["path"] for one in slowest}) == len(slowest) <= 10


def test_top_in_a_terminal_is_live_and_ends_clean_on_ctrl_c(sample, home, tmp_path):
    with hub(sample.path) as url, home.mounted(url, tmp_path / "data"):
        pid, terminal = pty.fork()
        if pid == 0:
            words = [sys.executable, "-m", "dagfs", "top", "--interval", "0.1"]
            os.execve(sys.executable, words, home.environment() | {"TERM": "xterm", "COLUMNS": "100", "LINES": "30"})
        seen, status = b"", None
        try:
            while seen.count(b"serving") < 3:
                assert select.select([terminal], [], [], 20)[0], seen
                seen += os.read(terminal, 65536)
            os.write(terminal, b"\x03")
            with contextlib.suppress(OSError):  # EIO: it has ended
                while select.select([terminal], [], [], 20)[0]:
                    seen += os.read(terminal, 65536)
            status = os.waitpid(pid, 0)[1]
        finally:
            if status is None:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
            os.close(terminal)
        assert os.waitstatus_to_exitcode(status) == 0
        assert seen.count(b"\x1b[?1049h") == seen.count(b"\x1b[?1049l") == 1  # a screen of its own, given back
        assert seen.rindex(b"\x1b[?25h") > seen.rindex(b"\x1b[?25l")  # the cursor is there again
        assert b"Traceback" not in seen


def frames_of_top(home, lines: int, wanted: int = 3) -> list[str]:
    """Give what `dagfs top` draws on a terminal of so many lines, frame by frame."""
    pid, terminal = pty.fork()
    if pid == 0:
        words = [sys.executable, "-m", "dagfs", "top", "--interval", "0.1"]
        size = {"TERM": "xterm", "COLUMNS": "80", "LINES": str(lines)}
        os.execve(sys.executable, words, home.environment() | size)
    seen = b""
    try:
        while seen.count(b"\x1b[H") <= wanted:
            assert select.select([terminal], [], [], 20)[0], seen
            seen += os.read(terminal, 65536)
    finally:
        os.kill(pid, signal.SIGTERM)
        os.waitpid(pid, 0)
        os.close(terminal)
    return [re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", frame) for frame in seen.decode().split("\x1b[H")[1:-1]]


def test_mounts_share_the_lines_of_a_low_terminal(sample, home, tmp_path):
    with (
        hub(sample.path) as url,
        home.mounted(url, tmp_path / "one", "--no-prefetch") as one,
        home.mounted(url, tmp_path / "two", "--no-prefetch") as two,
    ):
        for place in (one, two):
            for path in sorted((place / "images").iterdir())[:12]:
                path.read_bytes()
        low, high = frames_of_top(home, 24)[-1], frames_of_top(home, 80)[-1]
    assert low.count("SLOWEST") == high.count("SLOWEST") == 2
    assert low.count("╰") == 2  # whole to their last lines
    assert low.count("images/") < high.count("images/")


@pytest.mark.parametrize("columns", [20, 40])
def test_a_narrow_terminal_cuts_no_figure_off(sample, home, tmp_path, columns):
    home.extra["COLUMNS"] = str(columns)
    with hub(sample.path) as url, home.mounted(url, tmp_path / "data") as data:
        (data / "images/001.jpg").read_bytes()
        lines = home.run("top", "--once", "--interval", "0.1").stdout.splitlines()
    assert {len(line) for line in lines} == {columns}
    inside = " ".join(" ".join(line.strip("│╭╮╰╯─ ") for line in lines).split())
    for words in ("bytes/s", "0/s", "transfers under", "of what it", "SLOWEST"):
        assert words in inside, inside


def test_top_of_nothing_says_so(home):
    assert home.run("top").stdout.strip() == "nothing is mounted"
    assert home.run("top", "/nowhere", check=False).returncode == 1


def test_a_mount_that_gives_no_figures_is_shown_all_the_same(home, tmp_path):
    """It starts, recovers, or is of a version that does not know the question."""
    state = MountState(
        *(str(tmp_path), "o/n", "http://h", "main", "c" * 40, "kernel", "0.0.1", "serving", os.getpid(), (), 1),
        *("log", "cache", birth(os.getpid())),
    )
    Registry(home.root / "run/dagfs").write(mount_id(tmp_path), state)
    shown = home.run("top", "--once", "--interval", "0.1").stdout
    assert "o/n at cccccccccccc (main)" in shown
    assert "does not answer now" in shown


def test_a_hub_that_is_away_is_shown_and_hides_no_other_row(sample, home, tmp_path):
    home.extra["COLUMNS"] = "80"
    with (
        hub(sample.path, name="o/n") as url,
        Relay(url) as way,
        home.mounted(f"{way.url}/o/n", tmp_path / "data", "--no-prefetch") as data,
    ):
        way.cut()
        with readers(data / "images/001.jpg"):
            until(lambda: activity(home)["hub"]["state"] == "failing")
            shown = home.run("top", "--once", "--interval", "0.1").stdout
            way.mend()
    assert "failing for" in shown
    assert [name for name in ("hub ", "reads ", "queue ", "cache ", "images/001.jpg") if name not in shown] == []


def test_rates_compare_two_looks_at_one_worker():
    before = {"workers": [1], "metrics": {"fetch.received_bytes": 100, "cache.hits": 1, "hub.requests.raw": 1}}
    after = {
        "workers": [1],
        "metrics": {"fetch.received_bytes": 300, "cache.hits": 4, "cache.misses": 1, "hub.requests.raw": 3},
    }
    found = rates(before, after, 2.0)
    assert (found.received_bytes, found.requests, found.reads, found.hits) == (100.0, 1.0, 2.0, 0.75)
    fresh = rates(before, after | {"workers": [2]}, 2.0)
    assert (fresh.received_bytes, fresh.hits) == (0.0, None)


def test_threads_are_counted_for_their_process(tmp_path):
    for thread in (7, 8):
        (tmp_path / str(thread)).mkdir()
        (tmp_path / str(thread) / "status").write_text("Name:\tloader\nTgid:\t7\n")
    (tmp_path / "7/comm").write_text("python\n")
    waiting = [
        {"pid": pid, "seconds": seconds, "operation": "read", "path": path}
        for pid, seconds, path in ((8, 3.0, "b"), (7, 1.0, "a"), (0, 2.0, "c"))
    ]
    found = processes(waiting, tmp_path)
    assert [(one.pid, one.command, one.requests, one.seconds, one.path) for one in found] == [
        (7, "python", 2, 3.0, "b"),
        (0, "in another container", 1, 2.0, "c"),
    ]


def test_scrapes_are_what_prometheus_reads_and_count_what_was_read(sample, home, tmp_path, port):
    with (
        hub(sample.path, fault=stall_images) as url,
        home.mounted(url, tmp_path / "data", "--no-prefetch", "--metrics", f"127.0.0.1:{port}") as data,
    ):
        for number in range(1, 6):
            (data / f"images/{number:03d}.jpg").read_bytes()
        with readers(data / "images/031.jpg"):
            until(lambda: samples(scraped(port))["dagfs_waiting_requests"] == 1)
            assert samples(scraped(port))["dagfs_longest_wait_seconds"] > 0
        text = scraped(port)
        found = samples(text)
        bodies = sum(len(sample.files[f"images/{number:03d}.jpg"]) for number in range(1, 6))
        assert found["dagfs_fetch_received_bytes_total"] >= bodies
        assert found["dagfs_cache_reads_total"] >= 5
        assert found["dagfs_wait_seconds_count"] >= 5
        assert found["dagfs_mount_info"] == 1
        assert [path for path in sample.files if Path(path).name in text] == []  # whoever reaches it may read it
        assert found["process_resident_memory_bytes"] > 1e6
        assert [family for family in text_families(text) if not family.documentation] == []
        assert len(list(open_families(scraped(port, "application/openmetrics-text; version=1.0.0")))) > 20
        promtool = needed("promtool", "apt install prometheus")
        checked = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, text=True, timeout=60)
        assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")


def test_with_libfuse_the_rest_is_told_and_nobody_is_said_to_wait(sample, home, tmp_path, port):
    options = ("--driver", "libfuse", "--metrics", f"127.0.0.1:{port}")
    with hub(sample.path) as url, home.mounted(url, tmp_path / "data", *options) as data:
        (data / "README.md").read_bytes()
        found = samples(scraped(port))
        shown = home.run("top", "--once", "--interval", "0.1").stdout
    assert found["dagfs_fetch_received_bytes_total"] >= len(sample.files["README.md"])
    assert "dagfs_waiting_requests" not in found
    assert "transfers under way" in shown
    assert "WAITING" not in shown


def restarts(port: int) -> float | None:
    try:
        return samples(scraped(port)).get("dagfs_worker_restarts_total")
    except (OSError, HTTPException):  # the worker that has taken this scrape is gone
        return None


def test_scrapes_go_on_after_the_worker_died_and_after_an_upgrade(sample, home, tmp_path, port):
    with (
        hub(sample.path) as url,
        home.mounted(url, tmp_path / "data", "--metrics", f"127.0.0.1:{port}") as data,
    ):
        (data / "README.md").read_bytes()
        report = home.status()[0]
        os.kill(report["workers"][0], signal.SIGKILL)
        until(lambda: restarts(port) == 1)
        os.kill(report["pid"], signal.SIGUSR2)
        until(lambda: restarts(port) == 2)
    with pytest.raises(OSError, match="refused"):
        scraped(port)


def test_an_address_in_use_is_told_before_anything_is_mounted(sample, home, tmp_path):
    (tmp_path / "data").mkdir()
    with socket.create_server(("127.0.0.1", 0)) as taken, hub(sample.path) as url:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        done = home.run("mount", url, tmp_path / "data", "--metrics", address, check=False)
    assert done.returncode == 2
    assert address in done.stderr
    assert not os.path.ismount(tmp_path / "data")


@pytest.mark.parametrize("address", ["9123", ":9123", "::1:9123", "127.0.0.1:0", "127.0.0.1:99999", "[::1]"])
def test_what_is_no_address_is_refused(home, address):
    done = home.run("mount", "o/n", "/nowhere", "--metrics", address, check=False)
    assert done.returncode == 2
    assert "127.0.0.1:9123" in done.stderr


def test_a_client_that_says_nothing_delays_no_unmount(sample, home, tmp_path, port):
    with hub(sample.path) as url, home.mounted(url, tmp_path / "data", "--metrics", f"127.0.0.1:{port}") as data:
        silent = socket.create_connection(("127.0.0.1", port))
        started = time.monotonic()
        home.run("unmount", data)
        assert time.monotonic() - started < 4
        silent.close()


def test_every_query_of_the_dashboard_names_a_metric_that_exists(sample, home, tmp_path, port):
    with hub(sample.path) as url, home.mounted(url, tmp_path / "data", "--metrics", f"127.0.0.1:{port}") as data:
        (data / "README.md").read_bytes()
        there = {one.name for family in text_families(scraped(port)) for one in family.samples}
    board = json.loads(DASHBOARD.read_text())
    queries = [target["expr"] for panel in board["panels"] for target in panel.get("targets", [])]
    assert len(queries) > 10
    named = {name for query in queries for name in re.findall(r"\b(?:dagfs|process)_\w+", query)}
    assert named - there == set()
    assert [query for query in queries if not re.search(r"\b(?:dagfs|process)_\w+", query)] == []
    rules = {"groups": [{"name": "board", "rules": [{"record": f"r:{n}", "expr": q} for n, q in enumerate(queries)]}]}
    path = tmp_path / "rules.yml"
    path.write_text(json.dumps(rules).replace("$__rate_interval", "5m").replace("$mountpoint", ".*"))
    promtool = needed("promtool", "apt install prometheus")
    checked = subprocess.run([promtool, "check", "rules", path], capture_output=True, text=True, timeout=60)
    assert checked.returncode == 0, checked.stderr


@contextlib.contextmanager
def prometheus(target: int, port: int, place: Path):
    """Run a Prometheus that scrapes a mount every half second; gives a function that asks it a query."""
    program = needed("prometheus", "apt install prometheus")
    jobs = [{"job_name": "dagfs", "static_configs": [{"targets": [f"127.0.0.1:{target}"]}]}]
    config = {"global": {"scrape_interval": "500ms"}, "scrape_configs": jobs}
    (place / "prometheus.yml").write_text(json.dumps(config))
    words = [program, f"--config.file={place}/prometheus.yml", f"--storage.tsdb.path={place}/tsdb"]
    with open(place / "prometheus.log", "w") as log:
        server = subprocess.Popen([*words, f"--web.listen-address=127.0.0.1:{port}"], stdout=log, stderr=log)

    def ask_it(query: str) -> list[Any]:
        url = f"http://127.0.0.1:{port}/api/v1/query?{urllib.parse.urlencode({'query': query})}"
        with (
            contextlib.suppress(ConnectionError, urllib.error.URLError),
            urllib.request.urlopen(url, timeout=10) as answer,
        ):
            return json.load(answer)["data"]["result"]
        return []

    try:
        yield ask_it
    finally:
        server.kill()
        server.wait(10)


def test_a_real_prometheus_answers_every_query_of_the_dashboard(sample, home, tmp_path, port):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        own = other.getsockname()[1]
    with (
        hub(sample.path) as url,
        home.mounted(url, tmp_path / "data", "--metrics", f"127.0.0.1:{port}") as data,
        prometheus(port, own, tmp_path) as answers,
    ):
        until(lambda: len(answers("count_over_time(dagfs_mount_info[1m])")) == 1)
        for path in sorted((data / "images").glob("*.jpg")):
            path.read_bytes()
        scrapes = "count_over_time(dagfs_cache_reads_total{result='hit'}[1m]) > 5 and dagfs_prefetch_guesses_total > 0"
        until(lambda: bool(answers(scrapes.replace("and", "and on (instance)"))))
        panels = json.loads(DASHBOARD.read_text())["panels"]
        queries = [target["expr"] for panel in panels for target in panel["targets"]]
        fitted = [query.replace("$__rate_interval", "1m").replace("$mountpoint", ".*") for query in queries]
        assert [query for query in fitted if not answers(query)] == []
        one = answers(next(query for query in fitted if "received_bytes" in query))
        assert one[0]["metric"]["mountpoint"] == str(data)


def test_a_counter_that_nobody_has_described_is_told_all_the_same():
    told = {family.name: counts for family, counts in families({"tier.lost-nodes": 3, "hub.requests.dvc": 2})}
    assert told["tier_lost_nodes"] == {"": 3}
    assert told["hub_requests"] == {"listing": 0, "raw": 0, "rest": 0, "dvc": 2}


def test_the_document_names_every_metric_and_no_other(sample, home, tmp_path, port):
    (tmp_path / "tier").mkdir()
    options = ("--metrics", f"127.0.0.1:{port}", "--shared-cache", tmp_path / "tier")
    with hub(sample.path) as url, home.mounted(url, tmp_path / "data", *options):
        found = list(text_families(scraped(port)))
    there = {f"{one.name}_total" if one.type == "counter" else one.name for one in found if "process_" not in one.name}
    named = set(re.findall(r"`(dagfs_\w+)`", (ROOT / "docs/observing.md").read_text()))
    assert named == there


@pytest.mark.parametrize(("key", "what"), [("scrape_configs", "config"), ("groups", "rules")])
def test_prometheus_accepts_what_the_document_gives_it(tmp_path, key, what):
    page = ROOT / "docs/observing.md"
    (block,) = [block for block in blocks(page) if block.language == "yaml" and f"{key}:" in block.text]
    path = tmp_path / "prometheus.yml"
    path.write_text(block.text)
    promtool = needed("promtool", "apt install prometheus")
    checked = subprocess.run([promtool, "check", what, path], capture_output=True, text=True, timeout=60)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    told = set(re.findall(r"`(dagfs_\w+)`", page.read_text()))
    assert set(re.findall(r"\bdagfs_\w+", block.text)) - told == set()


def test_a_log_of_json_is_one_object_a_line(sample, home, tmp_path):
    with (
        hub(
            sample.path,
            fault=lambda request: Fault(flip=3) if (request.kind, request.path) == ("raw", "images/005.jpg") else None,
        ) as url,
        home.mounted(url, tmp_path / "data", "--log-format", "json") as data,
    ):
        with pytest.raises(OSError, match="Input/output error"):
            (data / "images/005.jpg").read_bytes()
        report = home.status()[0]
        os.kill(report["workers"][0], signal.SIGKILL)
        until(lambda: home.status()[0]["generation"] == 2)
        lines = [json.loads(line) for line in Path(report["log"]).read_text().splitlines()]
    assert {"time", "level", "logger", "message", "pid", "thread"} <= set(lines[0])
    assert any("images/005.jpg" in line["message"] and line["level"] == "WARNING" for line in lines)
    assert any(line["logger"] == "dagfs.supervisor.loop" for line in lines)


def test_in_the_foreground_the_objects_go_to_stderr(sample, home, tmp_path):
    (tmp_path / "data").mkdir()
    with hub(sample.path) as url:
        words = [sys.executable, "-m", "dagfs", "mount", url, tmp_path / "data", "--foreground"]
        environment = home.environment() | {"DAGFS_LOG_FORMAT": "json"}
        with subprocess.Popen(words, env=environment, stderr=subprocess.PIPE, text=True) as daemon:
            until(lambda: [report["state"] for report in home.status()] == ["serving"])
            os.kill(home.status()[0]["workers"][0], signal.SIGKILL)
            until(lambda: home.status()[0]["generation"] == 2)
            daemon.terminate()
            lines = daemon.communicate(timeout=20)[1].splitlines()
    assert {json.loads(line)["logger"] for line in lines} == {"dagfs.daemon.mounting", "dagfs.supervisor.loop"}
    assert len(lines) >= 2


def test_a_secret_is_no_part_of_json_either():
    """Its quotes and backslashes are others in JSON."""
    formatter = JsonLines()
    formatter.hide(lambda: SECRET)
    try:
        int(SECRET)
    except ValueError:
        record = logging.LogRecord(
            "n", logging.ERROR, "f", 1, "at %s", (f"https://h/p?sig={SECRET} {SECRET}",), sys.exc_info()
        )
    told = json.loads(formatter.format(record))
    assert "[redacted]" in told["message"]
    assert "[redacted]" in told["traceback"]
    assert "abcdef" not in told["message"] + told["traceback"].replace("int(SECRET)", "")
