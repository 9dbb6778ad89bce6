"""What becomes of requests while the hub refuses the token, and how a failing hub is told of."""

from __future__ import annotations

from pathlib import Path

import pytest

from dagfs.errors import NotFound, RemoteUnavailable, Stalled
from dagfs.hub import auth
from dagfs.hub.auth import Token
from dagfs.hub.curl.standing import GRACE_SECONDS, LONGEST_PAUSE, Standing


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


def of_file(clock: Clock, path: Path) -> Standing:
    path.write_text("old")
    return Standing(Token("file /t", "old", path, lambda path: path.read_text()), clock)


def asked(standing: Standing, clock: Clock, seconds: float) -> int:
    """Count the requests that reach the hub while eight readers ask ten times a second and get nothing but 401."""
    count = 0
    for _ in range(round(seconds * 10)):
        for _ in range(8):
            if standing.hindrance() is None:
                standing.refused("old")
                count += 1
        clock.now += 0.1
    return count


def test_a_storm_of_refusals_asks_the_hub_ever_more_seldom(clock, tmp_path):
    standing = of_file(clock, tmp_path / "token")
    first, second, later = (asked(standing, clock, 60) for _ in range(3))
    assert first <= 12
    assert second <= 2
    assert later <= 60 / LONGEST_PAUSE + 1


def test_another_token_is_tried_at_once(clock, tmp_path, monkeypatch):
    monkeypatch.setattr(auth, "RECHECK_SECONDS", 0.0)
    standing = of_file(clock, tmp_path / "token")
    asked(standing, clock, 600)
    assert standing.hindrance() is not None
    (tmp_path / "token").write_text("newer")
    assert standing.hindrance() is None
    assert standing.report()["state"] == "token refused"
    standing.heard(None)
    assert standing.report()["state"] == "ok"


def test_readers_wait_for_a_new_token_as_long_as_one_may_come(clock, tmp_path):
    standing = of_file(clock, tmp_path / "token")
    assert standing.refused("old").retry_after is not None
    clock.now += GRACE_SECONDS
    assert standing.refused("old").retry_after is None
    assert Standing(Token("environment variable X", "old"), clock).refused("old").retry_after is None


def test_a_hub_without_answers_is_told_with_reason_and_time(clock, tmp_path):
    standing = of_file(clock, tmp_path / "token")
    standing.heard(RemoteUnavailable("no route"))
    clock.now += 70
    standing.heard(Stalled("no byte for 30 s"))
    assert standing.report() == {"state": "failing", "error": "no byte for 30 s", "seconds": 70}
    standing.heard(NotFound("HTTP 404"))
    assert standing.report() == {"state": "ok", "error": "", "seconds": 0}
