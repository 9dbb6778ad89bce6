import threading

import pytest
from support.world import Values

from dagfs.model import Entry, Kind, Versioning
from dagfs.tree.numbers import KEPT, PAGE, NumberBook


def directory(path):
    return Entry(path, Kind.DIRECTORY, Versioning.GIT)


def book_of(values, kept=KEPT):
    """A book that counts from one."""
    return NumberBook(values, "b", kept, new_origin=lambda: 0)


def test_a_path_has_one_number_for_ever():
    values = Values()
    first = {f"d{i}": book_of(values).give(directory(f"d{i}"), early=False) for i in range(3 * PAGE)}
    assert sorted(first.values()) == list(range(1, 3 * PAGE + 1))
    again = book_of(values)
    assert {path: again.find(path) for path in first} == first
    assert all(again.record(number).entry.path == path for path, number in first.items())
    assert again.give(directory("new"), early=False) == 3 * PAGE + 1


def test_numbers_that_memory_forgot_are_found_in_the_store():
    book = book_of(Values(), kept=4)
    first = {f"d{i}": book.give(directory(f"d{i}"), early=False) for i in range(100)}
    assert {path: book.find(path) for path in first} == first
    assert all(book.record(number).entry.path == path for path, number in first.items())
    assert {path: book.give(directory(path), early=False) for path in first} == first


def test_unknown_numbers_and_paths_are_none():
    book = book_of(Values())
    book.give(directory("a"), early=False)
    assert [book.record(n) for n in (0, 2, 1 << 39)] == [None] * 3
    assert book.find("b") is None


def test_early_children_are_known_after_a_restart():
    values = Values()
    book = book_of(values)
    entry = Entry("a/f", Kind.FILE, Versioning.DVC, "h", 3)
    number = book.give(entry, early=True)
    assert book.give(entry, early=True) == number
    assert book_of(values).early_children("a") == {"f": number}
    assert book_of(values).record(number).entry == entry


def test_damage_of_a_page_never_gives_a_number_to_the_wrong_path():
    values = Values()
    book = book_of(values)
    for i in range(3 * PAGE):
        book.give(directory(f"d{i}"), early=False)
    values["b/page/1"] = values["b/page/1"][:-1]
    again = book_of(values)
    assert again.find(f"d{PAGE + 3}") is None
    assert again.find("d3") == 4
    assert again.find(f"d{2 * PAGE}") == 2 * PAGE + 1
    assert again.give(directory(f"d{PAGE + 3}"), early=False) == 3 * PAGE + 1


@pytest.mark.parametrize("damage", [b"damage", None])
def test_damage_of_the_last_page_does_not_free_its_numbers(damage):
    values = Values()
    book = book_of(values)
    for i in range(PAGE + 3):
        book.give(directory(f"d{i}"), early=False)
    values["b/page/1"] = damage
    again = book_of(values)
    assert again.give(directory("new"), early=False) > PAGE + 3
    assert book_of(values).find("new") == again.find("new")


def test_threads_that_ask_for_one_path_get_one_number():
    book = book_of(Values())
    got = []
    threads = [
        threading.Thread(target=lambda: got.extend(book.give(directory(f"d{i}"), early=False) for i in range(50)))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(got) == sorted(list(range(1, 51)) * 8)


def test_a_book_that_the_store_lost_gives_none_of_its_numbers_again():
    values = Values()
    book = NumberBook(values, "b")
    old = [book.give(directory(f"d{i}"), early=False) for i in range(2 * PAGE)]
    values.clear()
    again = NumberBook(values, "b")
    new = [again.give(directory(f"e{i}"), early=False) for i in range(2 * PAGE)]
    assert not set(old) & set(new)
    assert [again.record(number) for number in old] == [None] * len(old)
    assert [NumberBook(values, "b").find(f"e{i}") for i in range(2 * PAGE)] == new
