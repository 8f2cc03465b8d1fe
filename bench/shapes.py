"""Graphs of the kinds that people run, of about a given number of tasks: `shape(count)` gives a graph and its outputs."""

import math

from dask._task_spec import Task, TaskRef


def one(*values):
    return 1


def task(key, *needs):
    return Task(key, one, *map(TaskRef, needs))


def independent(count):
    graph = {("i", n): task(("i", n)) for n in range(count)}
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


SHAPES = {shape.__name__: shape for shape in (independent, tree, shuffle, chains, stencil, chain)}
