"""The document that Mainstay reads: a graph culled, ordered and pickled."""

import array
import gc
import operator
import sys
import threading
import time

import dask
from dask._task_spec import DataNode, GraphNode, convert_legacy_graph
from dask.core import istask
from distributed.protocol import serialize
from distributed.protocol.pickle import dumps

from .annotations import AnnotationTable
from .errors import Refused, describe_error
from .run_specs import RunSpecs, text_of_imports
from .shuffles import take_shuffles

# Of each task, with the size of the numbers.
COLUMNS = {
    "forms": "I",
    "starts": "I",
    "lengths": "I",
    "flags": "B",
    "dependency_counts": "I",
    "annotations": "I",
    "order": "q",
}
# Flags of a task.
DATA_PRODUCER, ACTOR = 1, 2


def document(graph, clock, limits):
    """All that Mainstay needs of a graph: culled, ordered and pickled."""
    wanted = [key for output in graph.outputs for key in output[3]]
    nodes = cull(convert_legacy_graph(graph.raw), wanted)
    limit_tasks, limit_bytes = limits.get("tasks", float("inf")), limits.get("bytes", float("inf"))
    if len(nodes) > limit_tasks:
        raise Refused("TooLarge", f"the graph has {len(nodes)} tasks, more than {limit_tasks}: use larger partitions")
    shuffles = take_shuffles(nodes)
    if shuffles:
        nodes = cull(nodes, wanted)
    clock.phase("cull")
    order = graph.order or order_of(nodes)
    keys = sorted(nodes, key=lambda key: order.get(key, 0))
    clock.phase("order")
    index = {key: position for position, key in enumerate(keys)}
    run_specs, annotations, rows, dependencies = RunSpecs(), AnnotationTable(), [], []
    for key in keys:
        node = nodes[key]
        try:
            form, start, length, needed = run_specs.add(node, graph.packages.get(key))
        except Exception as error:
            what = describe_task(key, nodes, graph.outputs)
            raise Refused("NotSerializable", f"{what} cannot be pickled: {describe_error(error)}") from None
        if run_specs.nbytes > limit_bytes:
            raise Refused("TooLarge", f"the graph takes more than {limit_bytes} bytes: load data in tasks, not before")
        dependencies.extend([index.setdefault(other, len(index)) for other in needed])
        flags = DATA_PRODUCER * bool(node.data_producer) + ACTOR * (key in graph.actors)
        annotation = annotations.index(key, graph.annotations.get(key))
        rows.append((form, start, length, flags, len(needed), annotation, order.get(key, 0)))
    outputs = [output_of(*output, index, graph.structures) for output in graph.outputs]
    wanted = [place for output in outputs if output["name"] is None for place in output["keys"]]
    clock.phase("pickle")
    columns = zip(COLUMNS.items(), zip(*rows) if rows else [()] * len(COLUMNS))
    return {
        "keys": list(index),
        "tasks": len(keys),
        **{name: packed(size, column) for (name, size), column in columns},
        "dependencies": packed("I", dependencies),
        "names": [graph.names.get(key) for key in keys] if graph.names else None,
        "forms_table": [(flags, head, text_of_imports(packages)) for flags, head, packages in run_specs.forms],
        "blobs": b"".join(run_specs.blobs),
        "operator_call": hasattr(operator, "call"),
        "run_coroutine": run_specs.run_coroutine(),
        "annotation_table": annotations.values,
        "wanted": packed("I", wanted),
        "outputs": [output for output in outputs if output["name"] is not None],
        "shuffles": [shuffle_of(shuffle, index) for shuffle in shuffles],
        "statistics": clock.phases,
    }


def output_of(name, type_name, rebuilt, keys, index, structures):
    """What is kept, with the places of its keys; those that no task of the graph makes are added."""
    positions = [index.setdefault(key, len(index)) for key in keys]
    header, frames = serialize(rebuilt, on_error="raise") if name else ({}, [])
    npartitions = getattr(rebuilt, "npartitions", None)  # any attribute of a Delayed is a Delayed
    return {
        "name": name,
        "type": type_name,
        "keys": positions,
        "header": header,
        "frames": list(map(bytes, frames)),
        "structure": structures.get(name),
        "npartitions": npartitions if isinstance(npartitions, int) else None,
    }


def shuffle_of(shuffle, index):
    """What workers have to be told of a shuffle, what it makes, and which tasks take that."""
    flat = [partition if isinstance(partition, tuple) else (partition,) for partition in shuffle.partitions]
    is_chunk = all(part is partition for part, partition in zip(flat, shuffle.partitions))
    return {
        "id": shuffle.spec.id,
        "spec": dumps(shuffle.spec),
        "axes": len(flat[0]) if flat and is_chunk else None,
        "partitions": packed("q", [int(number) for partition in flat for number in partition]),
        "outputs": packed("I", [index[key] for key in shuffle.outputs]),
        "places": packed("I", shuffle.outputs.values()),
    }


def packed(size, numbers):
    """Numbers in little-endian order."""
    result = array.array(size, numbers)
    if sys.byteorder == "big":
        result.byteswap()
    return result.tobytes()


def describe_task(key, nodes, outputs):
    """A task by the output that needs it."""
    for name, _, _, keys in outputs:
        if name and keys == [key]:
            return f"the value of `{name}`" if isinstance(nodes[key], DataNode) else f"the task of `{name}`"
        if name and key in cull(nodes, keys):
            return f"the task `{key}` of `{name}`"
    return f"the task `{key}`"


def cull(nodes, wanted):
    """The tasks that the wanted keys need."""
    needed, found = list(wanted), {}
    while needed:
        key = needed.pop()
        if key in nodes and key not in found:
            found[key] = nodes[key]
            needed.extend(nodes[key].dependencies)
    return found


def order_of(nodes):
    """The place of each task in the order that `dask.order` gives."""
    if not any(node.dependencies for node in nodes.values()):
        # What it would give too: the last by name first.
        return {key: place for place, key in enumerate(sorted(nodes, key=str, reverse=True))}
    keys = set(nodes).union(*(node.dependencies for node in nodes.values()))
    ranks = {key: Rank(rank) for rank, key in enumerate(sorted(keys, key=str))}
    stand_ins = {ranks[key]: StandIn(node, ranks) if istask(node) else DataStandIn(node, ranks) for key, node in nodes.items()}
    try:
        order = dask.order.order(stand_ins)
    except RuntimeError:
        return order_of_cycle(nodes)
    return {key: order[ranks[key]] for key in nodes}


def order_of_cycle(nodes):
    """Fails with the keys that need one another."""
    try:
        return dask.order.order(nodes)
    except RuntimeError as error:
        if "Cycle" in str(error):
            raise Refused("Cycle", str(error)) from None
        raise


class Rank(int):
    """A number in place of a key: keys that are tuples are hashed anew each time that they are looked up.

    As texts they have the order of the texts of the keys, by which `dask.order` breaks ties.
    """

    __slots__ = ()

    def __str__(self):
        return f"{int(self):010}"


class StandIn(GraphNode):
    """What `dask.order` has to know of a task."""

    __slots__ = ("dependencies",)

    def __init__(self, node, ranks):
        self.dependencies = frozenset([ranks[key] for key in node.dependencies])


class DataStandIn(DataNode):
    """The same of a node that is not run."""

    __slots__ = ("dependencies",)

    __init__ = StandIn.__init__


class CollectorPause:
    """While graphs are lowered, the garbage collector does not look again and again at millions of objects that stay."""

    def __init__(self):
        self.lock, self.depth, self.was_enabled = threading.Lock(), 0, False

    def __enter__(self):
        with self.lock:
            if self.depth == 0:
                self.was_enabled = gc.isenabled()
                gc.disable()
            self.depth += 1

    def __exit__(self, *_):
        with self.lock:
            self.depth -= 1
            if self.depth == 0 and self.was_enabled:
                gc.enable()


collector_pause = CollectorPause()


class Clock:
    """Measures phases."""

    def __init__(self):
        self.phases, self.since = {}, time.perf_counter()

    def phase(self, name):
        """Ends the phase of this name."""
        now = time.perf_counter()
        self.phases[name], self.since = now - self.since, now
