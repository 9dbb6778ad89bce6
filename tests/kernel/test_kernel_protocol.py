"""Encodings and the handshake, without a mount."""

from __future__ import annotations

import socket
import struct
from concurrent.futures import ThreadPoolExecutor

import pytest

from dagfs.answers import wait
from dagfs.errors import NoFuse
from dagfs.kernel import dirents
from dagfs.kernel.dirents import CHUNK_ROWS, Streams
from dagfs.kernel.handshake import INIT_OUT, MAX_BACKGROUND, Feature, Negotiated, encode_init, negotiate
from dagfs.kernel.protocol import ATTR, DIRENT, ENTRY_HEAD, NEGATIVE_ENTRY, Owner, encode_attr, encode_statfs
from dagfs.kernel.session import Session
from dagfs.model import Kind
from dagfs.vfs.memory import MemoryFs
from dagfs.vfs.seam import ROOT, Attributes, Directory, Figures

OWNER = Owner(1000, 1001)


def init_request(major: int, minor: int, flags: int, flags2: int = 0) -> bytes:
    body = struct.pack("=IIIII44x", major, minor, 131072, flags, flags2)
    return struct.pack("=IIQQIIIHH", 40 + len(body), 26, 7, 0, 0, 0, 0, 0, 0) + body


def converse(*requests: bytes) -> tuple[Negotiated | None, list[bytes], BaseException | None]:
    """Play the kernel over a socket that keeps message borders, as the device does."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs, ThreadPoolExecutor(1) as pool:
        agreed = pool.submit(negotiate, theirs.fileno())
        replies = []
        for request in requests:
            ours.send(request)
            replies.append(ours.recv(4096))
        error = agreed.exception(10)
        return (None if error else agreed.result()), replies, error


def test_features_that_the_kernel_does_not_offer_are_not_asked_for() -> None:
    offered = Feature.ASYNC_READ | Feature.MAX_PAGES | Feature.INIT_EXT
    agreed, (reply,), _ = converse(init_request(7, 45, int(offered) | 1 << 19, int(Feature.HAS_RESEND) >> 32))
    assert agreed == Negotiated(45, offered | Feature.HAS_RESEND, 131072)
    values = INIT_OUT.unpack(reply[16:])
    assert values[:5] == (7, 45, 131072, int(offered), MAX_BACKGROUND)
    assert values[8] == 256
    assert values[10] == int(Feature.HAS_RESEND) >> 32


def test_flags_beyond_32_bits_count_only_where_the_kernel_says_so() -> None:
    agreed, _, _ = converse(init_request(7, 31, int(Feature.ASYNC_READ), int(Feature.HAS_RESEND) >> 32))
    assert agreed is not None
    assert agreed.features == Feature.ASYNC_READ


def test_an_old_protocol_gets_the_short_answer_and_a_new_one_no_newer_than_tried() -> None:
    old, (reply,), _ = converse(init_request(7, 19, int(Feature.ASYNC_READ)))
    assert (old.minor if old else 0, len(reply)) == (19, 16 + 24)
    new, (reply,), _ = converse(init_request(7, 99, int(Feature.ASYNC_READ)))
    assert (new.minor if new else 0, len(reply)) == (45, 16 + 64)


def test_a_kernel_that_is_too_old_is_refused_by_a_clear_error() -> None:
    _, (reply,), error = converse(init_request(7, 18, 0))
    assert isinstance(error, NoFuse)
    assert "7.18" in str(error)
    assert struct.unpack("=IiQ", reply) == (16, -71, 7)


def test_a_newer_major_version_is_asked_to_begin_again() -> None:
    agreed, replies, _ = converse(init_request(8, 1, 0), init_request(7, 45, 1))
    assert INIT_OUT.unpack(replies[0][16:])[:2] == (7, 45)
    assert agreed is not None
    assert agreed.minor == 45


def test_a_conversation_that_does_not_begin_with_init_is_refused() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        ours.send(struct.pack("=IIQQIIIHH", 40, 1, 7, 0, 0, 0, 0, 0, 0))
        with pytest.raises(NoFuse, match="INIT"):
            negotiate(theirs.fileno())


def test_what_was_negotiated_survives_a_round_trip_through_json() -> None:
    agreed = Negotiated(45, Feature.HAS_RESEND | Feature.ASYNC_READ, 131072)
    assert Negotiated.from_json(agreed.to_json()) == agreed
    assert len(encode_init(agreed)) == 64


def test_layouts_have_the_kernels_sizes() -> None:
    assert (ATTR.size, ENTRY_HEAD.size + ATTR.size, DIRENT.size, INIT_OUT.size) == (88, 128, 24, 64)
    assert len(NEGATIVE_ENTRY) == 128
    assert len(encode_statfs(Figures(4096, 10, 3))) == 80


@pytest.mark.parametrize("mtime", [0.0, 1_600_000_000.75, -1.25, 4_000_000_000.0])
def test_times_are_whole_seconds_and_a_positive_rest(mtime: float) -> None:
    values = ATTR.unpack(encode_attr(Attributes(5, 6, Kind.FILE, 7, mtime), OWNER))
    seconds, nanoseconds = struct.unpack("=q", struct.pack("=Q", values[4]))[0], values[7]
    assert seconds + nanoseconds / 1e9 == mtime
    assert 0 <= nanoseconds < 10**9


def listing(count: int) -> Directory:
    fs = MemoryFs({f"d/{number:05d}{'x' * (number % 9)}": b"" for number in range(count)}, directories=["d"])
    return wait(fs.readdir(wait(fs.lookup(ROOT, b"d")).node))


def decode(stream: bytes, plus: bool) -> list[tuple[bytes, int, int, int]]:
    """Give name, inode, offset and type of each entry."""
    entries, place = [], 0
    while place < len(stream):
        place += 128 if plus else 0
        inode, following, length, kind = DIRENT.unpack_from(stream, place)
        name = stream[place + 24 : place + 24 + length]
        entries.append((name, inode, following, kind))
        place += 24 + length + -length % 8
    assert place == len(stream)
    return entries


@pytest.mark.parametrize("plus", [False, True])
@pytest.mark.parametrize("size", [4096, 32768])
@pytest.mark.parametrize("count", [0, 1, CHUNK_ROWS - 2, CHUNK_ROWS - 1, 2 * CHUNK_ROWS + 5])
def test_a_stream_has_every_entry_once_in_order_in_any_portions(plus: bool, size: int, count: int) -> None:
    directory, streams = listing(count), Streams(OWNER)
    give = streams.plus if plus else streams.plain
    seen, offset = [], 0
    while part := decode(give(directory, offset, size), plus):
        assert len(give(directory, offset, size)) <= size
        seen += part
        offset = part[-1][2]
    rows = [(name, inode, kind) for name, inode, kind in directory.rows(0, count)]
    assert [(name, inode, kind) for name, inode, _, kind in seen[2:]] == rows
    assert [name for name, *_ in seen[:2]] == [b".", b".."]
    assert [following for *_, following, _ in seen] == list(range(1, count + 3))


def test_an_offset_beyond_the_end_gives_nothing() -> None:
    directory, streams = listing(10), Streams(OWNER)
    for offset in (12, 13, CHUNK_ROWS, 1 << 40):
        assert streams.plain(directory, offset, 4096) == streams.plus(directory, offset, 4096) == b""


def test_the_chunks_that_are_kept_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dirents, "CHUNKS_KEPT", 2)
    streams = Streams(OWNER)
    directory = listing(5 * CHUNK_ROWS)
    for offset in range(0, 5 * CHUNK_ROWS, 100):
        streams.plain(directory, offset, 4096)
        assert len(streams._chunks) <= 2


def request(op: int, node: int, body: bytes = b"", unique: int = 9) -> bytes:
    return struct.pack("=IIQQIIIHH", 40 + len(body), op, unique, node, 0, 0, 0, 0, 0) + body


def ask(message: bytes, features: Feature, fs: MemoryFs | None = None) -> bytes | None:
    """Serve one message over a socket and give the reply, None when there is none."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        session = Session(theirs.fileno(), fs or MemoryFs({"a": b"x"}), Negotiated(45, features, 0), OWNER)
        session._serve(message)
        ours.setblocking(False)
        try:
            return ours.recv(1 << 17)
        except BlockingIOError:
            return None


def _errno(reply: bytes | None) -> int:
    assert reply is not None
    return -struct.unpack_from("=IiQ", reply)[1]


def test_opens_are_answered_where_the_kernel_would_take_enosys_for_an_error() -> None:
    modern = Feature.NO_OPEN_SUPPORT | Feature.NO_OPENDIR_SUPPORT
    for op in (14, 27):
        assert _errno(ask(request(op, ROOT, bytes(8)), modern)) == 38
        reply = ask(request(op, ROOT, bytes(8)), Feature(0))
        assert _errno(reply) == 0
        assert len(reply or b"") == 16 + 16
    assert _errno(ask(request(18, ROOT, bytes(24)), Feature(0))) == 0


@pytest.mark.parametrize(
    ("op", "number"), [(39, 25), (4, 30), (9, 30), (16, 30), (25, 38), (34, 38), (46, 38), (4095, 38)]
)
def test_operations_without_a_meaning_here_have_their_errno(op: int, number: int) -> None:
    assert _errno(ask(request(op, ROOT, bytes(64)), Feature(0))) == number


@pytest.mark.parametrize("op", [2, 36, 42])
def test_forgets_and_interrupts_get_no_reply(op: int) -> None:
    assert ask(request(op, ROOT, bytes(16)), Feature(0)) is None


def test_a_broken_file_system_is_an_error_and_not_a_hang() -> None:
    fs = MemoryFs({"a": b"x"})
    fs.failed = lambda *_: 1 / 0  # type: ignore[method-assign]
    fs.errors["getattr", ""] = KeyError("broken")  # type: ignore[index]
    assert _errno(ask(request(3, ROOT, bytes(16)), Feature(0), fs)) == 5
    assert _errno(ask(request(3, 4711, bytes(16)), Feature(0), fs)) == 5


def test_extended_attributes_answer_length_range_and_absence() -> None:
    name = b"user.dagfs.commit\0"
    assert ask(request(22, ROOT, struct.pack("=II", 0, 0) + name), Feature(0)) == struct.pack("=IiQII", 24, 0, 9, 40, 0)
    assert _errno(ask(request(22, ROOT, struct.pack("=II", 39, 0) + name), Feature(0))) == 34
    assert (ask(request(22, ROOT, struct.pack("=II", 40, 0) + name), Feature(0)) or b"")[16:] == b"0" * 40
    assert _errno(ask(request(22, ROOT, struct.pack("=II", 40, 0) + b"user.x\0"), Feature(0))) == 61
    assert _errno(ask(request(22, ROOT, struct.pack("=II", 40, 0) + b"security.x\0"), Feature(0))) == 95
