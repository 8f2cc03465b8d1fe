"""Graphs of the kinds that people run, of about a given number of tasks: `shape(count)` gives a graph and its outputs."""

import math

from dask._task_spec import Task, TaskRef
from dask.highlevelgraph import HighLevelGraph, MaterializedLayer


def one(*values):
    return 1


def task(key, *needs, call=one, args=()):
    return Task(key, call, *args, *map(TaskRef, needs))


def independent(count, **how):
    graph = {("i", n): task(("i", n), **how) for n in range(count)}
    return graph, list(graph)


def tree(count, fan_in=8):
    level = [("t", 0, n) for n in range(count * (fan_in - 1) // fan_in)]
    graph, depth = {key: task(key) for key in level}, 0
    while len(level) > 1:
        depth += 1
        groups = [level[start : start + fan_in] for start in range(0, len(level), fan_in)]
        level = [("t", depth, n) for n in range(len(groups))]
        graph |= {key: task(key, *group) for key, group in zip(level, groups)}
    return graph, level


def shuffle(count):
    """Each of p outputs reads a piece of each of p inputs."""
    p = max(2, math.isqrt(count))
    graph = {("in", n): task(("in", n)) for n in range(p)}
    graph |= {("piece", n, m): task(("piece", n, m), ("in", n)) for n in range(p) for m in range(p)}
    graph |= {("out", m): task(("out", m), *(("piece", n, m) for n in range(p))) for m in range(p)}
    return graph, [("out", m) for m in range(p)]


def chains(count, width=100):
    length = max(1, count // width)
    graph = {(f"c{n}", 0): task((f"c{n}", 0)) for n in range(width)}
    graph |= {(f"c{n}", k): task((f"c{n}", k), (f"c{n}", k - 1)) for n in range(width) for k in range(1, length)}
    return graph, [(f"c{n}", length - 1) for n in range(width)]


def stencil(count, width=100):
    rows = max(2, count // width)
    graph = {("s", 0, n): task(("s", 0, n)) for n in range(width)}
    for row in range(1, rows):
        for n in range(width):
            near = [("s", row - 1, m) for m in (n - 1, n, n + 1) if 0 <= m < width]
            graph[("s", row, n)] = task(("s", row, n), *near)
    return graph, [("s", rows - 1, n) for n in range(width)]


def chain(count):
    """One task after the other."""
    return chains(count, width=1)


# Of every four tasks one is plain; the others differ in priority, in what they take, and in where they may run.
ANNOTATIONS = [
    {},
    {"priority": 10, "resources": {"GPU": 1}},
    {"priority": -5, "workers": [f"fake-{n}" for n in range(8)], "allow_other_workers": False},
    {"priority": 3, "workers": [f"fake-{n}" for n in range(0, 16, 4)], "resources": {"GPU": 2}, "retries": 2},
]


def mixed(count):
    """Independent tasks with requirements of four kinds."""
    layers, outputs = {}, []
    for kind, annotations in enumerate(ANNOTATIONS):
        keys = [(f"m{kind}", n) for n in range(kind, count, len(ANNOTATIONS))]
        layers[f"m{kind}"] = MaterializedLayer({key: task(key) for key in keys}, annotations=annotations or None)
        outputs += keys
    return HighLevelGraph(layers, {name: set() for name in layers}), outputs


SHAPES = {shape.__name__: shape for shape in (independent, tree, shuffle, chains, stencil, chain, mixed)}
