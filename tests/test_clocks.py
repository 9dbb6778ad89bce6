"""No wait and no deadline follows the wall clock: it may be stepped, and nothing may hang or end early for that."""

from __future__ import annotations

import ast
from pathlib import Path

DAGFS = Path(__file__).parents[1] / "dagfs"

WALL = {"time.time", "time.time_ns", "datetime.now", "datetime.utcnow", "datetime.datetime.now"}

ALLOWED = {
    "cli/login.py": "whether a token of the DagsHub client has expired, as daemon/serving.py",
    "cli/status.py": "says in how many seconds the branch is asked again",
    "daemon/commits.py": "tells users since when a commit is shown",
    "daemon/doctor/hub.py": "whether a token of the DagsHub client has expired, as daemon/serving.py",
    "daemon/following.py": "tells users when the branch was asked, and will be",
    "daemon/serving.py": "whether a token of the DagsHub client has expired: it says so in wall time",
    "fsspec_adapter/core.py": "whether a token of the DagsHub client has expired, as daemon/serving.py",
    "hub/probe.py": "compares this machine's clock with the hub's, for `dagfs doctor`",
    "hub/reply.py": "Retry-After may be a date, of a hub that does not say what time it has; the wait is bounded",
    "hub/curl/sigv4.py": "a signature names its time, and the hub compares it with its own",
    "store/lent.py": "as store/lookup.py",
    "store/lookup.py": "compared with the times of files, which are wall times",
    "store/layout.py": "names this run of the machine, where the kernel does not",
}


def readers_of_the_wall_clock() -> set[str]:
    found = set()
    for path in DAGFS.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in WALL:
                found.add(path.relative_to(DAGFS).as_posix())
    return {name for name in found if not name.startswith("devhub/")}  # a server, whose links expire in wall time


def test_only_what_compares_wall_times_reads_the_wall_clock():
    assert readers_of_the_wall_clock() == set(ALLOWED)
