#!/usr/bin/env python3
"""Lowers a graph as a worker does for Mainstay, with nothing else going on, and prints how long it took: SHAPE COUNT."""

import json
import pickle
import re
import statistics
import sys
import time

import msgpack
from dask._expr import LLGExpr
from distributed.protocol import serialize
from distributed.protocol.serialize import to_serialize
from shapes import SHAPES
from sides import REPOSITORY

BUILDER = REPOSITORY / "src/server/builder"
REPETITIONS = 3


def builder():
    """The module `serve`, loaded as a worker loads it."""
    names = re.findall(r'include_str!\("builder/(\w+)\.py"\)', (REPOSITORY / "src/server/builder.rs").read_text())
    loader = {}
    exec((BUILDER / "load.py").read_text(), loader)
    files = [(name, (BUILDER / f"{name}.py").read_text()) for name in names if name != "load"]
    serve = loader["load"]("_mainstay_builder_bench", files)
    return sys.modules[serve.__module__] if serve.__module__ in sys.modules else serve.__globals__


def request(shape, count):
    graph, outputs = SHAPES[shape](count)
    header, frames = serialize(to_serialize(LLGExpr(graph)))
    keys = [list(key) if isinstance(key, tuple) else key for key in outputs]
    fields = {"expr": [header, list(map(bytes, frames))], "keys": keys, "annotations": pickle.dumps({})}
    return msgpack.packb({**fields, "internal_priority": None, "actors": None})


def main():
    respond = getattr(builder(), "respond")
    packed = request(sys.argv[1], int(sys.argv[2]))
    seconds = []
    for _ in range(REPETITIONS):
        began = time.process_time()
        document = respond("lower", packed)
        seconds.append(time.process_time() - began)
    answer = msgpack.unpackb(document, strict_map_key=False)
    assert "error" not in answer, answer["error"]
    print(json.dumps({"seconds": statistics.median(seconds), "bytes": len(document)}))


if __name__ == "__main__":
    main()
