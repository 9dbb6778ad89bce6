"""Work with answers that are known now or later (`model.Answer`), without a thread that waits."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from dagfs.model import Answer

T = TypeVar("T")
U = TypeVar("U")


def then(answer: Answer[T], step: Callable[[T], Answer[U]]) -> Answer[U]:
    """Apply `step` to the answer: at once when it is known, else in the thread that completes it."""
    if not isinstance(answer, Future):
        return step(answer)
    if answer.done():
        return step(answer.result())
    later: Future[U] = Future()
    answer.add_done_callback(lambda done: _continue(done, step, later))
    return later


def wait(answer: Answer[T], timeout: float | None = None) -> T:
    """Block until the answer is known; `timeout` in seconds. Raises what the answer ends with."""
    return answer.result(timeout) if isinstance(answer, Future) else answer


def settle(later: Future[U], answer: Callable[[], Answer[U]]) -> None:
    """Complete `later` with what `answer()` gives or raises, following it when it is itself a promise."""
    try:
        value = answer()
    except BaseException as error:  # noqa: BLE001 -- the promise carries it to whoever waits
        later.set_exception(error)
        return
    if isinstance(value, Future):
        value.add_done_callback(lambda done: settle(later, done.result))
    else:
        later.set_result(value)


def _continue(done: Future[T], step: Callable[[T], Answer[U]], later: Future[U]) -> None:
    settle(later, lambda: step(done.result()))
