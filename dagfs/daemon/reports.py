"""What `dagfs status` tells: the state files, completed by what the living daemons say."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from dagfs.config import Places
from dagfs.daemon.control import ask
from dagfs.daemon.state import MountState, Registry, alive, holding
from dagfs.kernel.mountinfo import is_ours
from dagfs.supervisor.policy import stopped

NOTHING_HIDDEN: dict[str, Any] = {"hidden": 0, "hidden_names": [], "refused_links": 0, "refused_link_names": []}

ANSWER_SECONDS = 5.0
"""A daemon that says nothing for so long does not serve, whatever its state file says."""


def reports(places: Places, path: Path | None = None, question: str = "status") -> list[dict[str, Any]]:
    """Give a report of each mount, or of the one that holds `path`; what ended and left no mount is forgotten.

    `question`: what each daemon is asked, "status" or "activity"; one of an older version answers with an "error".
    """
    registry = Registry(places.runtime)
    states = registry.states()
    if path is not None:
        holder = holding(states.values(), path)
        states = {name: state for name, state in states.items() if state == holder}
    return [report for name, state in states.items() if (report := _report(registry, name, state, question))]


def _report(registry: Registry, name: str, state: MountState, question: str) -> dict[str, Any] | None:
    unknown = dict.fromkeys(("follow", "hub", "missing", "not_kept"))
    report = {**asdict(state), "metrics": {}, "ways": [], **unknown, **NOTHING_HIDDEN}
    del report["born"], report["owner_born"]
    if not alive(state):
        if not is_ours(state.mountpoint):
            registry.remove(name)
            return None
        return report | {"state": "failed" if state.state == "failed" else "dead", "workers": ()}
    if state.state == "serving" and not state.descriptor and not is_ours(state.mountpoint):
        return report | {"state": "ending"}  # unmounted by somebody else; files are open, or it is about to end
    try:
        return report | next(ask(registry.socket(name), {"op": question}, ANSWER_SECONDS))
    except TimeoutError:
        return report | ({"state": "unresponsive", "reason": _silence(state)} if state.state == "serving" else {})
    except (OSError, ValueError, StopIteration):  # it starts or recovers, or had no room for its socket
        return report


def _silence(state: MountState) -> str:
    who = "its worker" if state.workers else "its daemon"
    said = f"{who} has not answered for {ANSWER_SECONDS:g} s"
    return f"{said}: it is stopped" if any(map(stopped, state.workers or (state.pid,))) else said
