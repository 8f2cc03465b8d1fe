"""Bytes that no Dask sends: the peer is dropped in time, the memory stays, and a stock Client notices nothing."""

import contextlib
import os
import socket
import struct
import time

import msgpack
import pytest
from conformance_tasks import inc
from distributed import Client
from harness import await_condition, served
from hostile import HANDSHAKE, assert_dropped, frames, message

# How soon a peer is gone; faults.md wants 10 ms, which a busy machine does not always give.
AT_ONCE_SECONDS = 2
# A handshake has 5 s.
HANDSHAKE_SECONDS = 8
# A first message has 10 s.
FIRST_MESSAGE_SECONDS = 15
MEMORY_BYTES = 24 * 2**20


@pytest.fixture(scope="module")
def victim(tmp_path_factory):
    with served(tmp_path_factory.mktemp("victim")) as mainstay:
        mainstay.start_worker(name="first")
        with Client(mainstay.address, set_as_default=False) as client:
            client.wait_for_workers(1)
            assert client.submit(inc, 1).result() == 2
            mainstay.client = client
            yield mainstay


@pytest.fixture(autouse=True)
def unharmed(victim):
    """The process lives, its memory is as it was, and a Client is served."""
    before = victim.process.memory()
    yield
    assert victim.process.is_alive()
    assert victim.client.submit(inc, os.urandom(4).__hash__(), pure=False).result(timeout=20)
    await_condition(lambda: victim.process.memory() < before + MEMORY_BYTES,
                    lambda: f"memory grew from {before} to {victim.process.memory()}", seconds=10)


NESTED = b"\x91" * 100_000 + b"\xc0"

BEFORE_HANDSHAKE = {
    "random bytes": os.urandom(64),
    "http": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "2 GiB announced": struct.pack("<Q", 2**31) + bytes(64),
    "16 GiB announced": struct.pack("<Q", 2**34) + bytes(64),
    "2**36 announced": struct.pack("<Q", 2**36) + bytes(64),
    "2**64-1 announced": struct.pack("<Q", 2**64 - 1) + bytes(64),
    "many frames announced": frames(nframes=2**40, lengths=[], total=64) + bytes(64),
    "lengths that overflow": frames(lengths=[2**63, 2**63], total=64) + bytes(64),
    "nested arrays": frames(NESTED),
    "nested maps": frames(b"\x81\xa1x" * 100_000 + b"\xc0"),
    "array32 of 2**32-1": frames(b"\xdd\xff\xff\xff\xff"),
    "map32 of 2**32-1": frames(b"\xdf\xff\xff\xff\xff"),
    "unknown ext": frames(b"\xc7\x04\x55abcd"),
    "reserved byte": frames(b"\xc1"),
    "empty frame": frames(b""),
    "no frames": frames(),
    "no map": message([1, 2, 3]),
    "a pickle": frames(msgpack.packb({"x": {"__Pickled__": 1}}), b"\x80\x04cos\nsystem\n(S'true'\ntR."),
}
AFTER_HANDSHAKE = {
    "random bytes": os.urandom(64),
    "2 GiB announced": struct.pack("<Q", 2**31) + bytes(64),
    "nested arrays": frames(NESTED),
    "no op": message({"reply": True}),
    "op of a wrong type": message({"op": 7, "reply": True}),
    "no map": message("identity"),
    "register-worker without fields": message({"op": "register-worker", "reply": False}),
    "register-client without fields": message({"op": "register-client", "reply": False}),
}


@contextlib.contextmanager
def peer(victim):
    # From another address than workers and Clients, whose hosts may send more.
    with socket.create_connection(("127.0.0.1", victim.port), timeout=10, source_address=("127.0.0.9", 0)) as connection:
        yield connection


@pytest.mark.parametrize("name", BEFORE_HANDSHAKE)
def test_nonsense_instead_of_a_handshake(victim, name):
    with peer(victim) as connection:
        with contextlib.suppress(ConnectionError):
            connection.sendall(BEFORE_HANDSHAKE[name])
        assert_dropped(connection, AT_ONCE_SECONDS)


@pytest.mark.parametrize("name", AFTER_HANDSHAKE)
def test_nonsense_after_a_handshake(victim, name):
    with peer(victim) as connection:
        connection.sendall(HANDSHAKE)
        with contextlib.suppress(ConnectionError):
            connection.sendall(AFTER_HANDSHAKE[name])
        assert_dropped(connection, AT_ONCE_SECONDS)


def test_a_request_that_makes_no_sense_is_answered_or_dropped(victim):
    with peer(victim) as connection:
        connection.sendall(HANDSHAKE + message({"op": "scatter", "data": {"__Serialized__": 5}, "reply": True}))
        received = b""
        while (chunk := connection.recv(65536)) and b"exception_text" not in received:
            received += chunk
        assert not chunk or b"scatter" in received


def test_nonsense_on_the_stream_of_a_client(victim):
    from distributed.versions import get_versions

    register = message({"op": "register-client", "client": "Client-evil", "reply": False, "versions": get_versions()})
    for nonsense in (message([{"op": "update-graph"}]), message([["no", "map"]]), frames(NESTED), message({"no": "batch"})):
        with peer(victim) as connection:
            connection.sendall(HANDSHAKE + register + nonsense)
            assert_dropped(connection, AT_ONCE_SECONDS)


def test_large_messages_of_strangers_are_not_kept(victim):
    """Many peers announce as much as they may, send it slowly, and stall."""
    before = victim.process.memory()
    with contextlib.ExitStack() as stack:
        peers = [stack.enter_context(peer(victim)) for _ in range(8)]
        for connection in peers:
            with contextlib.suppress(ConnectionError, TimeoutError):
                connection.sendall(struct.pack("<Q", 2**30) + struct.pack("<QQ", 1, 2**30 - 16) + bytes(2**20))
        assert victim.process.memory() < before + MEMORY_BYTES
        for connection in peers:
            assert_dropped(connection, AT_ONCE_SECONDS)


def test_strangers_share_what_they_may_send(victim):
    """A first message may have a megabyte, but not that of everybody at once."""
    before = victim.process.memory()
    with contextlib.ExitStack() as stack:
        peers = [stack.enter_context(peer(victim)) for _ in range(64)]
        for connection in peers:
            with contextlib.suppress(ConnectionError):
                connection.sendall(HANDSHAKE + struct.pack("<QQQ", 2**20 - 8, 1, 2**20 - 24) + bytes(900_000))
        assert victim.process.memory() < before + MEMORY_BYTES
        for connection in peers:
            assert_dropped(connection, FIRST_MESSAGE_SECONDS)


def test_silent_peers_are_closed(victim):
    """A thousand of them, in the face of which a registered worker and a Client go on."""
    started = time.monotonic()
    with contextlib.ExitStack() as stack:
        peers = []
        for _ in range(1000):
            connection = stack.enter_context(socket.socket())
            connection.settimeout(10)
            connection.connect(("127.0.0.1", victim.port))
            peers.append(connection)
        assert victim.client.submit(inc, 7, pure=False).result(timeout=10) == 8
        for connection in peers:
            assert_dropped(connection, max(0.1, started + HANDSHAKE_SECONDS + 5 - time.monotonic()))


def test_a_handshake_that_comes_byte_by_byte_is_cut_off(victim):
    with peer(victim) as connection:
        end = time.monotonic() + HANDSHAKE_SECONDS + 5
        with contextlib.suppress(ConnectionError):
            for byte in HANDSHAKE[:20] * 100:
                connection.sendall(bytes([byte]) if time.monotonic() < end else b"")
                time.sleep(0.2)
                assert time.monotonic() < end, "still open"
