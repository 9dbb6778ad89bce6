"""Whatever a message of the kernel holds, it gets one reply of its own, or none where none is due."""

from __future__ import annotations

import logging
import socket
import struct
from collections.abc import Iterator

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from support.fuzzing import fuzz
from support.world import World

from dagfs.errors import NoFuse
from dagfs.kernel.handshake import Feature, Negotiated, negotiate
from dagfs.kernel.protocol import BODY, IN_HEADER, OUT_HEADER, Op, Owner
from dagfs.kernel.session import SILENT, Session
from dagfs.model import Versioning

OPERATIONS = st.one_of(st.sampled_from([int(op) for op in Op]), st.integers(0, (1 << 32) - 1))
NODES = st.one_of(
    st.integers(0, 3), st.integers(0, (1 << 64) - 1), st.integers(0, 9).map(lambda slot: (1 << 24) + slot)
)
NUMBERS = st.sampled_from([0, 1, 4095, 4096, 1 << 17, (1 << 31) - 1, 1 << 32, (1 << 63) - 1, (1 << 64) - 1])
ODD = st.sampled_from([b"a", b"d", b"..", b"", b"n" * 255, b"n" * 300, b"\xff\xfe", b"a/b"])
XATTRS = st.sampled_from([b"user.dagfs.commit", b"user.dagfs.error", b"user.", b"security.x", b""])


def read_in(handle: int, offset: int, size: int, rest: bytes) -> bytes:
    return struct.pack("=QQI", handle, offset, size & 0xFFFF) + rest


BODIES = st.one_of(
    st.binary(max_size=80),
    st.builds(read_in, NUMBERS, NUMBERS, NUMBERS, st.binary(max_size=24)),
    ODD.map(lambda name: name + b"\0"),
    XATTRS.map(lambda name: struct.pack("=II", 64, 0) + name + b"\0"),
)


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with World({"a": b"abc", "d/b": b"x" * 5000}, versioning=Versioning.GIT, real_cache=True) as world:
        yield world


@pytest.fixture(autouse=True)
def _quiet():
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def replies(channel: socket.socket, expected: int) -> list[bytes]:
    """Give what was written: the last of `expected` may come from another thread."""
    found = []
    channel.settimeout(20 if expected else 0.0)
    try:
        while len(found) < expected:
            found.append(channel.recv(1 << 18))
        channel.settimeout(0.0)
        found.append(channel.recv(1 << 18))
    except (BlockingIOError, TimeoutError):
        pass
    return found


def served(world: World, message: bytes, features: Feature) -> list[bytes]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        session = Session(theirs.fileno(), world.vfs, Negotiated(45, features, 0), Owner(0, 0))
        session._serve(message)
        due = len(message) >= BODY and struct.unpack_from("=I", message, 4)[0] not in SILENT
        return replies(ours, int(due))


@fuzz
@given(OPERATIONS, st.integers(0, (1 << 64) - 1), NODES, BODIES, st.sampled_from([Feature(0), Feature.NO_OPEN_SUPPORT]))
def test_every_message_gets_one_reply_or_none_by_rule(world, op, unique, node, body, features):
    message = IN_HEADER.pack(BODY + len(body), op, unique, node, 0, 0, 0, 0, 0) + body
    told = served(world, message, features)
    assert len(told) == (op not in SILENT)
    for reply in told:
        length, error, answered = OUT_HEADER.unpack_from(reply)
        assert (length, answered) == (len(reply), unique)
        assert -4096 < error <= 0
        assert error == 0 or length == OUT_HEADER.size


@fuzz
@given(st.binary(max_size=120))
@example(b"")
@example(bytes(BODY - 1))
@example(bytes(BODY))
def test_bytes_that_are_no_message_break_nothing(world, message):
    assert len(served(world, message, Feature(0))) <= 1
    assert len(served(world, IN_HEADER.pack(BODY, Op.GETATTR, 7, 1, 0, 0, 0, 0, 0) + bytes(16), Feature(0))) == 1


@fuzz
@given(st.integers(0, 60), st.integers(5, 9), st.integers(0, (1 << 32) - 1), st.binary(max_size=40))
def test_a_first_message_is_an_agreement_or_a_named_error(op, major, flags, rest):
    body = struct.pack("=IIII", major, 31, 1 << 17, flags) + rest + bytes(64)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        ours.send(IN_HEADER.pack(BODY + len(body), op, 1, 0, 0, 0, 0, 0, 0) + body)
        ours.send(IN_HEADER.pack(BODY, Op.DESTROY, 2, 0, 0, 0, 0, 0, 0))  # what follows, if it reads on
        try:
            agreed = negotiate(theirs.fileno())
        except NoFuse:
            return
        assert int(agreed.features) <= sum(Feature)
