"""Bytes as a hostile peer writes them."""

import contextlib
import struct
import time

import msgpack


def frames(*frames, nframes=None, lengths=None, total=None):
    """A message as Dask frames it, with lies where wanted."""
    lengths = [len(frame) for frame in frames] if lengths is None else lengths
    prelude = struct.pack("<Q", len(lengths) if nframes is None else nframes) + b"".join(struct.pack("<Q", n) for n in lengths)
    body = prelude + b"".join(frames)
    return struct.pack("<Q", len(body) if total is None else total) + body


def message(value):
    return frames(msgpack.packb(value, use_bin_type=True))


HANDSHAKE = message({"compression": None, "python": [3, 11, 7], "pickle-protocol": 5})


def assert_dropped(connection, seconds):
    """Reads until the other side closes."""
    end = time.monotonic() + seconds
    connection.settimeout(seconds)
    with contextlib.suppress(ConnectionError):
        while connection.recv(65536):
            assert time.monotonic() < end, "it goes on talking"
