import json
import random

import pytest

from dagfs.metrics import Metrics
from dagfs.model import Content, ContentId, Entry, Kind, Urgency, Versioning
from dagfs.prefetch.annotations import AnnotationSource
from dagfs.prefetch.ledger import IN_ORDER, PATIENCE, SCATTERED, WASTE_MAX, Ledger, Waste
from dagfs.prefetch.neighbours import NeighbourSource
from dagfs.prefetch.prefetcher import IN_FLIGHT_MAX, Planner, Prefetcher
from dagfs.prefetch.ready import READY_MAX
from dagfs.prefetch.scatter import ScatterSource
from dagfs.prefetch.seam import FileRef
from dagfs.prefetch.table import parse

KB = 1 << 10


class Tree:
    """A catalogue of files in sorted directories; `data`: what small files hold."""

    def __init__(self, paths, size=100 * KB, data=None):
        self.data = data or {}
        self.size = size
        rows = {}
        for path in sorted([*paths, *self.data]):
            rows.setdefault(path.rpartition("/")[0], []).append(path)
        self.files = {
            path: FileRef(path, directory, position, self.content(path))
            for directory, listed in rows.items()
            for position, path in enumerate(listed)
        }
        self.listed = {directory: [self.files[path] for path in listed] for directory, listed in rows.items()}

    def content(self, path):
        size = len(self.data[path]) if path in self.data else self.size
        return Content(ContentId("md5", path), Entry(path, Kind.FILE, Versioning.DVC), None, size)

    def find(self, path):
        return self.files.get(path)

    def at(self, directory, position):
        listed = self.listed.get(directory, [])
        return listed[position] if position < len(listed) else None

    def rows(self, directory):
        return len(self.listed.get(directory, []))


class Run:
    """A program that opens files, and a cache where what was prepared arrives `lag` openings later."""

    def __init__(self, tree, *, lag=0, sources=None):
        self.tree = tree
        self.lag = lag
        self.here = set()
        self.coming = []
        self.prepared = []
        self.classes = set()
        self.looks = 0
        self.misses = []
        self.metrics = Metrics()
        made = sources or (lambda run: [AnnotationSource(tree, run), NeighbourSource(tree)])
        self.planner = Planner(made(self), self.cached, self.metrics)

    def cached(self, content):
        self.looks += 1
        return content.key in self.here

    def read(self, content, span, urgency):
        return self.tree.data[content.entry.path][span.start : span.end]

    def open(self, *paths):
        for path in paths:
            file = self.tree.files[path]
            due = [key for at, key in self.coming if at <= len(self.misses) + len(self.here) and self.lag == 0]
            self.here.update(due)
            if file.content.key not in self.here:
                self.misses.append(path)
            chosen = self.planner.opened(file)
            self.here.add(file.content.key)
            self.prepared += [content.entry.path for content, _ in chosen]
            self.classes.update(urgency for _, urgency in chosen)
            if self.lag == 0:
                self.here.update(content.key for content, _ in chosen)


def numbered(n, directory="img"):
    return [f"{directory}/{i:05}.jpg" for i in range(n)]


def test_files_opened_in_listing_order_are_fetched_ahead():
    run = Run(Tree(numbered(300)))
    run.open(*numbered(300))
    assert run.misses == numbered(3)
    assert sorted(run.prepared) == numbered(300)[3:]


def test_two_openings_in_order_are_no_reason_to_guess():
    run = Run(Tree(numbered(300)))
    run.open(*numbered(2))
    assert run.prepared == []


def test_random_order_is_guessed_at_hardly_ever():
    paths = numbered(5000)
    run = Run(Tree(paths))
    run.open(*random.Random(1).sample(paths, 1000))
    assert len(run.prepared) <= 10


def test_files_that_threads_open_a_little_out_of_order_are_fetched_ahead():
    paths = numbered(400)
    run = Run(Tree(paths))
    run.open(*[path for i in range(0, 400, 4) for path in (paths[i + 1], paths[i], paths[i + 3], paths[i + 2])])
    assert len(run.misses) <= 20


def test_every_second_file_of_one_of_two_workers_is_fetched_ahead():
    run = Run(Tree(numbered(300)))
    run.open(*numbered(300)[::2])
    assert set(run.prepared) <= set(numbered(300)[::2])
    assert len(run.misses) == 3


def test_workers_that_go_through_different_parts_are_told_apart():
    run = Run(Tree(numbered(600)))
    paths = numbered(600)
    run.open(*[path for pair in zip(paths[:300], paths[300:], strict=True) for path in pair])
    assert len(run.misses) <= 12  # three each, and some more until the first hits let the bet grow
    assert len(run.prepared) == len(set(run.prepared)) == 600 - len(run.misses)


def test_one_name_in_many_directories_is_no_order_of_a_listing():
    run = Run(Tree([f"d{i}/{n}" for i in range(50) for n in ("a", "b")]))
    run.open(*[f"d{i}/a" for i in range(50)])
    assert run.prepared == []


def labels(order, form="tsv"):
    if form == "tsv":
        return "".join(f"{name}\ta caption, with words\t5.{i}\n" for i, name in enumerate(order)).encode()
    if form == "csv":
        return ("id,file,score\n" + "".join(f'{i},"{name}",1.5\n' for i, name in enumerate(order))).encode()
    if form == "jsonl":
        return "".join(json.dumps({"score": 1, "file_name": name}) + "\n" for name in order).encode()
    if form == "json":
        return json.dumps({"info": {}, "images": [{"id": 7, "file_name": name} for name in order]}).encode()
    return "".join(f"{name}\n" for name in order).encode()


def shuffled(n, seed=3):
    return random.Random(seed).sample([f"{i:05}.jpg" for i in range(n)], n)


@pytest.mark.parametrize("form", ["tsv", "csv", "json", "jsonl", "txt"])
def test_rows_of_an_annotation_file_are_fetched_in_their_order(form):
    order = shuffled(300)
    paths = [f"images/{name}" for name in order]
    run = Run(Tree(paths, data={f"labels.{form}": labels(order, form)}))
    run.open(f"labels.{form}", *paths)
    assert len(run.misses) == 1 + 3
    assert run.prepared == paths[3:]


@pytest.mark.parametrize(
    "cell", ["images/{}.jpg", "./images/{}.jpg", "{}", "images/{}", "/elsewhere/images/{}.jpg", "images\\{}.jpg"]
)
def test_the_way_from_a_row_to_a_path_is_learnt(cell):
    order = [name[:-4] for name in shuffled(200)]
    paths = [f"data/images/{name}.jpg" for name in order]
    run = Run(Tree(paths, data={"data/labels.csv": labels([cell.format(name) for name in order], "csv")}))
    run.open("data/labels.csv", *paths)
    assert len(run.misses) == 4


def test_a_file_that_is_opened_without_its_annotation_having_been_read_is_no_clue():
    order = shuffled(300)
    run = Run(Tree([f"images/{n}" for n in order], data={"labels.tsv": labels(order)}))
    run.open(*[f"images/{n}" for n in order][:50])
    assert run.prepared == []


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xfe\x00",
        b"[" * 100_000,
        b"{}",
        b"[1,2]",
        b'{"a":[{"b":1}]}',
        b"null",
        b'"\n"\n,,,\n',
        b"\0\0\0",
        b'[{"a":"b"},3]',
    ],
)
@pytest.mark.parametrize("form", ["csv", "tsv", "txt", "json", "jsonl", "lst", "jpg"])
def test_an_annotation_file_that_makes_no_sense_is_passed_over(form, data):
    for column in parse(f"x.{form}", data):
        assert all(isinstance(column.cell(row), str) for row in range(len(column)))


def test_columns_that_cannot_be_names_are_not_kept():
    columns = parse("x.csv", b"".join(b"%d.jpg,train,same\n" % i for i in range(100)))
    assert [column.cell(0) for column in columns] == ["0.jpg"]


def test_a_row_is_found_by_its_file_name():
    (column,) = parse("x.txt", b"a/1.jpg\nb/1.jpg\nb/2.jpg\n")
    assert list(column.rows_of("1.jpg")) == [0, 1]
    assert list(column.rows_of("3.jpg")) == []


def test_a_bet_starts_small_grows_with_hits_and_is_bounded():
    ledger = Ledger(Waste(), IN_ORDER)
    assert ledger.allowance == IN_ORDER.first
    for n in range(20):
        key = ContentId("md5", str(n))
        ledger.charge(key, 10)
        assert ledger.opened(key)
    assert ledger.allowance == IN_ORDER.most
    assert ledger.outstanding == 0


def test_guesses_that_are_not_opened_cost_the_first_bet_again_and_again_and_no_more():
    run = Run(Tree([f"d{d:04}/{i:03}" for d in range(500) for i in range(20)]))
    for d in range(500):
        run.open(*[f"d{d:04}/{i:03}" for i in range(3)])
    assert 0 < len(run.prepared) * 100 * KB <= (1 + 1500 / PATIENCE) * (IN_ORDER.first + 100 * KB)


def test_waste_ends_all_guessing_of_the_mount():
    waste = Waste()
    first, second = Ledger(waste, IN_ORDER), Ledger(waste, SCATTERED)
    for n in range(100 * PATIENCE):
        if first.allowance:
            first.charge(ContentId("md5", f"never {n}"), 1 << 20)
        first.opened(ContentId("md5", str(n)))
    assert WASTE_MAX <= waste.total <= WASTE_MAX + IN_ORDER.first
    assert first.allowance == second.allowance == 0


def test_an_old_guess_makes_room_for_new_ones():
    ledger = Ledger(Waste(), IN_ORDER)
    ledger.charge(ContentId("md5", "old"), IN_ORDER.first)
    for n in range(PATIENCE + 4 + 1):
        assert ledger.allowance == 0
        ledger.opened(ContentId("md5", str(n)))
    assert ledger.allowance == IN_ORDER.first


def test_bytes_in_flight_are_bounded_while_nothing_arrives():
    run = Run(Tree(numbered(3000), size=1 << 20), lag=1)
    run.open(*numbered(300))
    assert run.planner.bytes_in_flight <= IN_FLIGHT_MAX + (1 << 20)
    assert len(run.prepared) - 300 <= 70


class Endless:
    """Guesses files of 1 MiB that are all opened in the end."""

    stakes = IN_ORDER
    urgency = Urgency.PREFETCH

    def __init__(self, name):
        self.name = name
        self.tree = Tree([f"{name}/{i:05}" for i in range(2000)], size=1 << 20)
        self.next = 0

    def opened(self, file):
        pass

    def patience(self):
        return PATIENCE

    def guesses(self, count):
        self.next += 1
        return [self.tree.files[f"{self.name}/{self.next:05}"]]


def test_bytes_in_flight_are_bounded_over_all_sources():
    sources = [Endless("a"), Endless("b"), Endless("c")]
    planner = Planner(sources, lambda content: False, Metrics())
    for i in range(1, 100):
        for source in sources:
            planner.opened(source.tree.files[f"{source.name}/{i:05}"])
            assert planner.bytes_in_flight <= IN_FLIGHT_MAX
    assert planner.bytes_in_flight == IN_FLIGHT_MAX


def scattered(tree):
    made = lambda run: [AnnotationSource(tree, run), NeighbourSource(tree), ScatterSource(tree, run.cached)]  # noqa: E731
    return Run(tree, sources=made)


def at_random(paths, seed=1):
    return random.Random(seed).sample(paths, len(paths))


def test_a_small_directory_read_at_random_is_fetched_after_two_openings():
    paths = numbered(200)
    run = scattered(Tree(paths))
    run.open(*at_random(paths))
    assert len(run.misses) <= 2 + 200 // 32, "64 guesses for each miss"
    assert sorted({*run.prepared, *run.misses}) == paths
    assert run.classes == {Urgency.PREFETCH}


def test_a_shuffled_epoch_of_a_large_directory_misses_few_files_and_fetches_none_twice():
    paths = numbered(5000)
    run = scattered(Tree(paths))
    run.open(*at_random(paths))
    assert len(run.misses) < 0.2 * len(paths)
    assert len(run.prepared) + len(run.misses) == len({*run.prepared, *run.misses}) == len(paths)
    assert run.classes == {Urgency.BET, Urgency.PREFETCH}, "the whole link only once it has paid"


@pytest.mark.parametrize("share", [1000, 100])
def test_a_sparse_subset_costs_a_bounded_bet_in_idle_time(share):
    paths = numbered(20_000)
    run = scattered(Tree(paths))
    run.open(*random.Random(2).sample(paths, 20_000 // share))
    unread = len(run.prepared) - (20_000 // share - len(run.misses))
    assert 0 < unread * 100 * KB <= WASTE_MAX
    assert run.classes == {Urgency.BET}


def test_who_reads_in_order_is_never_taken_for_random():
    run = scattered(Tree(numbered(2000)))
    run.open(*numbered(2000))
    assert not any("scatter" in name for name in run.metrics.snapshot())


def test_a_shuffled_table_is_followed_and_not_bet_against():
    order = at_random(numbered(3000))
    table = "".join(f"{path.rpartition('/')[2]}\t1\n" for path in order).encode()
    run = scattered(Tree(order, data={"labels.tsv": table}))
    run.open("labels.tsv", *order[:600])
    counted = run.metrics.snapshot()
    assert counted.get("prefetch.guesses.scatter", 0) <= 64
    assert run.misses == ["labels.tsv", *order[:3]]


def test_a_warm_directory_read_at_random_is_not_looked_through():
    paths = numbered(5000)
    tree = Tree(paths)
    run = scattered(tree)
    run.here.update(file.content.key for file in tree.files.values())
    run.open(*at_random(paths)[:1000])
    assert run.prepared == []
    assert run.looks <= 1000


def test_what_is_cached_or_guessed_already_is_not_asked_for_again():
    run = Run(Tree(numbered(100)))
    run.here.update(run.tree.files[path].content.key for path in numbered(50))
    run.open(*numbered(100))
    assert sorted(run.prepared) == numbered(100)[50:]


class Cache:
    def __init__(self):
        self.prepared = []
        self.awake = []

    def awaken(self, content):
        self.awake.append(content.entry.path)

    def cached(self, content):
        return False

    def prepare(self, content, span, urgency):
        self.prepared.append((content.entry.path, span, urgency.name))


def test_the_prefetcher_runs_its_planner_elsewhere_and_once_at_a_time():
    tree, cache, jobs = Tree(numbered(50)), Cache(), []
    prefetcher = Prefetcher(Planner([NeighbourSource(tree)], cache.cached, Metrics()), cache, jobs.append)
    for path in numbered(4):
        prefetcher.opened(tree.files[path])
    assert len(jobs) == 1
    assert cache.prepared == []
    jobs.pop()()
    assert cache.prepared[0] == (numbered(50)[3], None, "PREFETCH")
    prefetcher.opened(tree.files[numbered(50)[4]])
    assert len(jobs) == 1


def test_one_switch_turns_it_off():
    tree, cache, jobs = Tree(numbered(50)), Cache(), []
    prefetcher = Prefetcher(Planner([NeighbourSource(tree)], cache.cached, Metrics()), cache, jobs.append)
    prefetcher.opened(tree.files[numbered(1)[0]])
    prefetcher.enabled = False
    for path in numbered(50):
        prefetcher.opened(tree.files[path])
    for job in jobs:
        job()
    assert cache.prepared == []


def test_a_first_bet_that_covers_much_of_a_directory_does_not_prove_itself():
    """480 files of the first bet are 30 % of 1,600: nothing but hits may take the link from a reader."""
    run = scattered(Tree(numbered(1600)))
    run.lag = 1  # nothing that was guessed arrives
    run.open(*at_random(numbered(1600))[:200])
    assert len(run.prepared) > 0.2 * 1600
    assert run.classes == {Urgency.BET}


def test_bets_on_their_way_are_asked_for_again_once_they_have_paid():
    paths, order = numbered(1600), at_random(numbered(1600))
    run = scattered(Tree(paths))
    run.lag = 1
    run.open(*order[:100])
    bets = set(run.prepared)
    run.here.update(run.tree.files[path].content.key for path in order[100:120] if path in bets)
    run.prepared.clear()
    run.open(*order[100:130])
    assert Urgency.PREFETCH in run.classes
    again = [path for path in run.prepared if path in bets]
    assert len(again) > 100
    assert len(again) == len(set(again))


def lots(sources, opened):
    """Give how many openings each job of a prefetcher has looked at; whatever is guessed is there at once."""
    here, jobs, seen = set(), [], []

    class Everything(Cache):
        def cached(self, content):
            return content.key in here

        def prepare(self, content, span, urgency):
            here.add(content.key)

    cache = Everything()
    planner = Planner(sources(cache), cache.cached, Metrics())
    prefetcher = Prefetcher(planner, cache, jobs.append)
    for file in opened:
        here.add(file.content.key)
        prefetcher.opened(file)
        seen.append(len(jobs))
        while jobs:
            jobs.pop()()
    return seen


def test_openings_that_were_foreseen_in_order_are_looked_at_in_lots():
    tree = Tree(numbered(1000))
    assert sum(lots(lambda _: [NeighbourSource(tree)], [tree.files[path] for path in numbered(1000)])) < 400


def test_each_opening_in_no_order_is_looked_at_at_once():
    """Its guesses lie ahead by hundreds from the start, and each hit or miss decides how many more there may be."""
    tree = Tree(numbered(1000))
    opened = [tree.files[path] for path in at_random(numbered(1000))]
    sources = lambda cache: [NeighbourSource(tree), ScatterSource(tree, cache.cached)]  # noqa: E731 -- as above
    assert sum(lots(sources, opened)) == 1000


def test_who_leaves_a_cached_directory_early_is_fetched_ahead_of_in_the_next():
    """What lies ready in the first is bounded in bytes, and must not end the guesses about the second."""
    first, second = numbered(1000, "first"), numbered(300, "second")
    run = Run(Tree([*first, *second]))
    run.here.update(run.tree.files[path].content.key for path in first)
    run.open(*first[:50])
    run.open(*second)
    assert len(run.misses) <= 16


def test_cached_files_ahead_are_brought_into_memory_once_each_and_within_a_bound():
    paths = numbered(1000)
    run = Run(Tree(paths))
    run.here.update(run.tree.files[path].content.key for path in paths)
    awake = []
    for count, path in enumerate(paths, 1):
        run.open(path)
        awake += [content.entry.path for content in run.planner.awaken]
        assert len(set(awake) - set(paths[:count])) * 100 * KB <= READY_MAX + 100 * KB
    assert awake == paths[3:]
    assert run.prepared == []
