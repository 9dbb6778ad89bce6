import itertools
import random

import pytest

from dagfs import memory
from dagfs.fetch.seam import WHOLE_MAX
from dagfs.metrics import Metrics
from dagfs.model import Content, ContentId, Entry, Kind, Span, Urgency, Versioning
from dagfs.reader import AHEAD_MAX, AHEAD_SHARE, BLOCK, FILES_KEPT, RUN, STREAMS_KEPT, Reader, Streams

MB = 1 << 20
SIZE = 1 << 30


class Recorder:
    """A cache that answers every read and notes what it was asked for."""

    def __init__(self):
        self.asked = []

    def size(self, content, urgency):
        return content.size

    def cached(self, content):
        return False

    def read(self, content, span, urgency):
        self.asked.append(("read", span, urgency))
        return bytes(span.size)

    def prepare(self, content, span, urgency):
        self.asked.append(("prepare", span, urgency))


def file(size, name="x"):
    return Content(ContentId("md5", name), Entry(name, Kind.FILE, Versioning.DVC), None, size)


def ahead(streams, reads):
    return [span for start, end in reads for span in streams.plan(start, end)]


def sequence(start, end, step=128 << 10):
    return [(at, min(at + step, end)) for at in range(start, end, step)]


def covered(spans):
    return sum(span.size for span in spans)


def test_a_small_file_is_read_as_it_is():
    cache = Recorder()
    assert len(Reader(cache, Metrics()).read(file(WHOLE_MAX), 5, 10)) == 10
    assert cache.asked == [("read", Span(5, 15), Urgency.READER)]


def test_reads_are_clipped_to_the_file():
    reader = Reader(Recorder(), Metrics())
    assert len(reader.read(file(100), 90, 50)) == 10
    assert reader.read(file(100), 100, 50) == b""
    assert reader.read(file(0), 0, 50) == b""


def test_random_reads_fetch_nothing_but_what_is_read():
    cache = Recorder()
    reader = Reader(cache, Metrics())
    places = random.Random(1).sample(range(10 * MB, SIZE - MB, 4 * MB), 50)
    for place in places:
        reader.read(file(SIZE), place + 5, 4096)
    assert cache.asked == [("read", Span(p + 5, p + 5 + 4096), Urgency.READER) for p in places]


def test_the_reader_is_asked_for_before_the_read_ahead():
    cache = Recorder()
    Reader(cache, Metrics()).read(file(SIZE), 0, 128 << 10)
    urgencies = [urgency for _, _, urgency in cache.asked]
    assert urgencies == sorted(urgencies)
    assert urgencies[-1] is Urgency.READ_AHEAD


def test_sequential_reading_fetches_each_byte_ahead_once_and_all_of_them():
    streams = Streams(100 * MB + 17, lambda: None)
    spans = ahead(streams, sequence(0, 100 * MB + 17))
    assert [(span.start, span.end) for span in spans] == sorted((span.start, span.end) for span in spans)
    assert all(a.end == b.start for a, b in itertools.pairwise(spans))
    assert spans[0].start == BLOCK
    assert spans[-1].end == 100 * MB + 17


def test_read_ahead_doubles_from_one_mib_to_its_bound_in_bounded_runs():
    streams = Streams(SIZE, lambda: None)
    furthest, distances = 0, []
    for start, end in sequence(0, SIZE // 2):
        spans = streams.plan(start, end)
        assert all(span.size <= RUN for span in spans)
        furthest = max([furthest, *(span.end for span in spans)])
        distances.append(furthest - end)
    assert MB <= distances[0] <= MB + BLOCK
    assert max(distances) <= AHEAD_MAX + BLOCK
    assert max(distances) > AHEAD_MAX // 2
    assert min(distances[64:]) > 0  # the reader never catches up with what was asked for


def test_parts_that_come_out_of_order_are_one_stream():
    reads = sequence(0, 64 * MB)
    shuffled = [read for i in range(0, len(reads), 4) for read in (reads[i : i + 4])[::-1]]
    straight = covered(ahead(Streams(SIZE, lambda: None), reads))
    assert covered(ahead(Streams(SIZE, lambda: None), shuffled)) == pytest.approx(straight, rel=0.5)


def test_several_readers_of_one_file_do_not_disturb_each_other():
    streams = Streams(SIZE, lambda: None)
    places = [100 * MB * i for i in range(1, STREAMS_KEPT + 1)]
    turns = [[read for place in places for read in [(place + t, place + t + MB)]] for t in range(0, 16 * MB, MB)]
    spans = [span for turn in turns for span in ahead(streams, turn)]
    for place in places:
        assert covered(s for s in spans if place <= s.start < place + 100 * MB) >= 16 * MB


def test_columns_of_a_parquet_file_and_page_faults_fetch_nothing_ahead():
    """As the kernel asks for two columns of 200 KB, 400 KB apart, in each row group of 5 MB."""
    streams = Streams(SIZE, lambda: None)
    for group in range(5 * MB, 200 * MB, 5 * MB):
        for column in (group, group + (784 << 10)):
            assert ahead(streams, sequence(column, column + (384 << 10))) == []


def test_a_run_in_the_middle_of_a_file_is_read_ahead_after_half_a_mib():
    streams = Streams(SIZE, lambda: None)
    runs = [bool(streams.plan(*read)) for read in sequence(100 * MB, 101 * MB)]
    assert runs.index(True) == 3


def test_the_beginning_of_a_file_is_read_ahead_once_when_only_its_header_is_read():
    streams = Streams(SIZE, lambda: None)
    assert covered(ahead(streams, [(0, 16 << 10), (16 << 10, 48 << 10), (48 << 10, 64 << 10)])) == MB


def test_a_single_read_far_in_fetches_nothing_ahead():
    assert Streams(SIZE, lambda: None).plan(500 * MB, 500 * MB + 4096) == []


def test_state_is_bounded():
    reader = Reader(Recorder(), Metrics())
    for n in range(2 * FILES_KEPT):
        for place in range(0, SIZE, 64 * MB):
            reader.read(file(SIZE, str(n)), place, 10)
    assert len(reader._files) == FILES_KEPT
    assert all(len(streams._streams) <= STREAMS_KEPT for streams in reader._files.values())


def test_the_window_shrinks_with_the_memory_that_is_left_and_grows_again():
    left = [64 << 30]
    streams = Streams(SIZE, lambda: left[0])
    widest = 0
    for start, end in sequence(0, 256 * MB):
        widest = max([widest, *(span.end - end for span in streams.plan(start, end))])
    assert widest > AHEAD_MAX // 2
    left[0] = 128 * MB
    spans = ahead(streams, sequence(256 * MB, 512 * MB))
    assert spans, "it goes on reading ahead"
    for start, end in sequence(512 * MB, 600 * MB):
        for span in streams.plan(start, end):
            assert span.end - end <= left[0] // AHEAD_SHARE + BLOCK
    left[0] = 0
    assert ahead(streams, sequence(600 * MB, 700 * MB)), "never less than the first window"
    left[0] = 64 << 30
    last = [span.end - end for start, end in sequence(700 * MB, 1000 * MB) for span in streams.plan(start, end)]
    assert max(last) > AHEAD_MAX // 2


def test_memory_is_the_least_of_what_machine_and_container_leave(tmp_path, monkeypatch):
    limit, use = tmp_path / "limit", tmp_path / "use"
    monkeypatch.setattr(memory, "GROUPS", ((limit, use),))
    machine = memory.available_bytes()
    assert 0 < machine < 1 << 50
    limit.write_text(f"{200 * MB}\n")
    use.write_text(f"{100 * MB}\n")
    assert memory.available_bytes() == 150 * MB
    limit.write_text("max\n")
    assert memory.available_bytes() > 150 * MB
    monkeypatch.setattr(memory, "MEMINFO", tmp_path / "nowhere")
    assert memory.available_bytes() is None


def test_a_window_that_ends_at_a_bound_of_parts_is_not_doubled_before_half_of_it_was_read():
    streams, start, step = Streams(SIZE, lambda: None), 10 * MB + 300_000, 128 << 10
    given = [span.end for at in range(start, start + 4 * MB, step) for span in streams.plan(at, at + step)]
    assert max(given) <= start + 8 * MB  # as much again as was read, not twice
