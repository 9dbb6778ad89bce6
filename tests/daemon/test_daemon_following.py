"""The thread that follows a branch, its table of commits, and when it may show one."""

from __future__ import annotations

import os
import threading
import time
from types import SimpleNamespace

import pytest

from dagfs.daemon import commits, following
from dagfs.daemon.commits import CommitTable
from dagfs.daemon.following import Follower, Hold
from dagfs.daemon.generation import Change
from dagfs.errors import BadToken, HubUnreachable, NotFound, RemoteUnavailable, UnknownRevision, Unsupported
from dagfs.model import Commit
from dagfs.repository.core import RESTING_BYTES, Rooms


def commit(number: int) -> Commit:
    return Commit(f"{number:040x}", 1_700_000_000.5 + number, "main")


def test_the_table_keeps_every_commit_and_the_current_one():
    table = CommitTable(commit(1))
    assert (table.current(), table.shown) == (1, commit(1))
    assert [table.add(commit(n)) for n in (2, 3)] == [2, 3]
    assert table.current() == 1
    table.select(3)
    assert (table.current(), table.shown) == (3, commit(3))
    assert [table.commit(n) for n in (0, 1, 2, 3, 4)] == [None, commit(1), commit(2), commit(3), None]
    assert time.time() - table.since < 60


def test_the_table_is_shared_with_processes_that_come_later():
    table = CommitTable(commit(1))
    child = os.fork()
    if child == 0:
        table.select(table.add(commit(2)))
        os._exit(0)
    os.waitpid(child, 0)
    assert table.shown == commit(2)


def test_a_mount_that_has_shown_all_it_can_says_so(monkeypatch):
    table = CommitTable(commit(1))
    monkeypatch.setattr(commits, "ORDINALS", 2)
    table.add(commit(2))
    with pytest.raises(Unsupported, match="mount again"):
        table.add(commit(3))
    assert table.shown == commit(1)


class Room:
    """Prepares and shows on command."""

    def __init__(self) -> None:
        self.commit = commit(1)
        self.events: list[str] = []
        self.failures: list[Exception] = []

    def prepare(self, new: Commit) -> Prepared:
        self.events.append(f"prepare {new.sha[-1]}")
        if self.failures:
            raise self.failures.pop(0)
        return Prepared(self, new)


class Prepared:
    def __init__(self, room: Room, new: Commit) -> None:
        self.room = room
        self.new = new

    def show(self, may) -> bool:
        if not may():
            return False
        self.room.events.append(f"show {self.new.sha[-1]}")
        self.room.commit = self.new
        return True

    def drop(self) -> None:
        self.room.events.append(f"drop {self.new.sha[-1]}")


class Hub:
    """Answers from a list, the last answer again and again; an error is raised."""

    def __init__(self, *answers) -> None:
        self.answers = list(answers)
        self.asked = 0

    def __call__(self) -> Commit:
        self.asked += 1
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


def follower(hub: Hub, room: Room, seconds: float = 1.0, hold: Hold | None = None, shown=lambda: None) -> Follower:
    return Follower(hub, room, seconds, hold or Hold(), shown)


def test_a_new_commit_is_prepared_then_shown_and_told():
    room, shown = Room(), []
    one = follower(Hub(commit(1), commit(2)), room, shown=lambda: shown.append(room.commit))
    assert one._step() is None
    assert room.events == []
    assert one._step() is None
    assert one._step() is None
    assert (room.events, shown) == (["prepare 2", "show 2"], [commit(2)])
    assert one.report()["next"] is None


def test_what_is_held_back_waits_and_is_replaced_by_what_came_later():
    room, quiet = Room(), [-1.0]
    one = follower(Hub(commit(2), commit(2), commit(3), commit(1), commit(3)), room, 5.0, Hold(lambda: quiet[0], 5.0))
    for _ in range(2):
        one._step()
    assert room.events == ["prepare 2"]
    assert one.report()["next"] == commit(2).sha
    assert "open" in one.report()["why"]
    one._step()
    assert room.events == ["prepare 2", "drop 2", "prepare 3"]
    one._step()  # the branch went back to what is shown
    assert room.events[3:] == ["drop 3"]
    assert one.report()["next"] is None
    quiet[0] = 4.9
    one._step()
    assert room.events[4:] == ["prepare 3"]
    quiet[0] = 5.0
    one._step()
    assert room.events[5:] == ["show 3"]


def test_a_new_epoch_is_the_moment_to_show_what_is_held_back():
    room, quiet = Room(), [-1.0]
    one = follower(Hub(commit(2)), room, 5.0, Hold(lambda: quiet[0], 5.0))
    assert one.epoch_begins() is None  # nothing waits: no opening is delayed
    one._step()
    one.epoch_begins().result(10)
    assert room.events == ["prepare 2"]  # some file is open still
    quiet[0] = 0.0
    one.epoch_begins().result(10)
    assert room.events == ["prepare 2", "show 2"]
    assert one.epoch_begins() is None


@pytest.mark.parametrize("error", [HubUnreachable("down"), UnknownRevision("gone"), BadToken("401"), KeyError("bug")])
def test_a_failure_leaves_the_commit_and_is_told_until_it_is_over(error):
    room = Room()
    one = follower(Hub(error, commit(2)), room)
    assert one._step() is not None
    assert str(error) in one.report()["error"]
    assert room.events == []
    assert one._step() is None
    assert one.report()["error"] is None
    assert room.events == ["prepare 2", "show 2"]


def test_a_preparation_that_fails_is_tried_again():
    room = Room()
    room.failures = [RemoteUnavailable("503")]
    one = follower(Hub(commit(2)), room)
    assert one._step() is not None
    assert one.report()["next"] == commit(2).sha
    assert one.report()["error"] == "503"
    one._step()
    assert room.events == ["prepare 2", "prepare 2", "show 2"]


def test_a_commit_that_could_not_be_prepared_and_is_gone_from_the_branch_is_forgotten():
    room = Room()
    room.failures = [RemoteUnavailable("503")]
    one = follower(Hub(commit(2), commit(1)), room)
    one._step()
    assert one.report()["next"] == commit(2).sha
    one._step()
    assert (one.report()["next"], one.report()["why"], one.report()["error"]) == (None, None, None)


def pauses(one: Follower, error, failures: range) -> list[float]:
    found = []
    for count in failures:
        one._told.failures = count
        found.append(one._pause(error))
    return found


def test_pauses_vary_a_little_grow_with_failures_and_end_at_a_bound():
    one = follower(Hub(commit(1)), Room(), 10.0)
    calm = pauses(one, None, range(200))
    assert 9 <= min(calm) < max(calm) <= 11
    failing = pauses(one, HubUnreachable("down"), range(1, 40))
    assert failing[0] >= 18
    assert failing[2] >= 72
    assert max(failing) <= following.LONGEST_PAUSE * 1.1
    assert min(failing[10:]) >= following.LONGEST_PAUSE * 0.9


def test_a_pause_is_as_long_as_the_hub_asks_for_or_the_user():
    error = HubUnreachable("429")
    error.__cause__ = RemoteUnavailable("HTTP 429", retry_after=3000.0)
    assert pauses(follower(Hub(commit(1)), Room(), 10.0), error, range(1, 2))[0] >= 2700
    rare = follower(Hub(commit(1)), Room(), 86_400.0)
    assert pauses(rare, HubUnreachable("down"), range(5, 6))[0] >= 77_000


def test_the_thread_asks_prepares_shows_and_ends():
    room, done = Room(), threading.Event()
    hub = Hub(commit(1), commit(2))
    one = follower(hub, room, 0.02, shown=done.set)
    one.start()
    assert done.wait(10)
    asked = hub.asked
    one.stop()
    assert not one._thread.is_alive()
    assert asked >= 2
    assert room.events == ["prepare 2", "show 2"]


def test_what_is_held_back_is_shown_without_another_question():
    room, done, quiet = Room(), threading.Event(), [-1.0]
    hub = Hub(commit(2))
    one = follower(hub, room, 0.02, Hold(lambda: quiet[0], 0.0), done.set)
    one.start()
    while not room.events:
        time.sleep(0.01)
    one._seconds = 1000.0  # from the next pause on
    while one.report()["again"] < time.time() + 500:
        time.sleep(0.01)
    asked = hub.asked
    quiet[0] = 0.0
    assert done.wait(10)
    one.stop()
    assert hub.asked == asked
    assert room.events == ["prepare 2", "show 2"]


class Tree:
    """Fails to list its root while `errors` last; notes what is done to it."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.done: list[object] = []

    def prepare(self) -> None:
        if self.errors:
            raise self.errors.pop(0)

    def prepare_like(self, other: Tree, most: int) -> None:
        self.done.append(("like", other))

    def rest(self, listings_bytes: int) -> None:
        self.done.append(("rest", listings_bytes))

    def close(self) -> None:
        self.done.append("closed")


def rooms(tree: Tree) -> Rooms:
    return Rooms(tree, SimpleNamespace(enabled=True), object())


class Generations:
    """What `Change` asks of the room of that name."""

    def __init__(self, *prepared: Rooms) -> None:
        self.commit = commit(1)
        self.current = rooms(Tree())
        self.prepared = list(prepared)
        self.given = 1

    def prepare(self, new: Commit) -> tuple[int, Rooms]:
        self.given += 1
        return self.given, self.prepared.pop(0)

    def switch(self, ordinal: int, to: Rooms, may, tell) -> bool:
        tell()
        self.current = to
        return may()


def test_a_preparation_that_failed_goes_on_with_the_same_rooms():
    """Each commit begun takes an ordinal, and there are not many; and what was listed is not asked for again."""
    next_rooms = rooms(Tree(RemoteUnavailable("503"), RemoteUnavailable("503")))
    room = Generations(next_rooms)
    change = Change(room, "", lambda: None)
    for _ in range(2):
        with pytest.raises(RemoteUnavailable):
            change.prepare(commit(2))
    ready = change.prepare(commit(2))
    assert (ready.ordinal, ready.rooms, room.given) == (2, next_rooms, 2)
    assert next_rooms.tree.done == [("like", room.current.tree)]


def test_what_is_begun_and_not_shown_is_closed():
    begun = [rooms(Tree(RemoteUnavailable("503"))), rooms(Tree()), rooms(Tree())]
    change = Change(Generations(*begun), "", lambda: None)
    with pytest.raises(RemoteUnavailable):
        change.prepare(commit(2))
    change.prepare(commit(3)).drop()
    assert change.prepare(commit(4)).show(lambda: True)
    change.forget()
    assert [one.tree.done[-1] == "closed" for one in begun] == [True, True, False]


def test_a_commit_without_the_mounted_directory_is_told_by_name():
    change = Change(Generations(rooms(Tree(NotFound("data/x")))), "data/x", lambda: None)
    with pytest.raises(UnknownRevision, match="no directory 'data/x'"):
        change.prepare(commit(2))


def test_rooms_at_rest_guess_nothing_and_keep_little():
    one = rooms(Tree())
    one.rest()
    assert not one.prefetcher.enabled
    assert one.tree.done == [("rest", RESTING_BYTES)]
