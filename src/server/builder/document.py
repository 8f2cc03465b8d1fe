"""The document that Mainstay reads: a graph culled, ordered and pickled."""

import time

import dask
from dask._task_spec import DataNode, convert_legacy_graph
from distributed.protocol import serialize

from .annotations import AnnotationTable
from .errors import Refused, describe_error
from .run_specs import pickle_task
from .shuffles import TaskShuffles


def document(graph, clock, limits):
    """All that Mainstay needs of a graph: culled, ordered and pickled."""
    wanted = [key for output in graph.outputs for key in output[3]]
    nodes = cull(convert_legacy_graph(graph.raw), wanted)
    limit_tasks, limit_bytes = limits.get("tasks", float("inf")), limits.get("bytes", float("inf"))
    if len(nodes) > limit_tasks:
        raise Refused("TooLarge", f"the graph has {len(nodes)} tasks, more than {limit_tasks}: use larger partitions")
    barriers = [node for node in nodes.values() if type(node).__name__ == "P2PBarrierTask"]
    if barriers:
        nodes = cull(TaskShuffles(nodes, barriers, graph.annotations).nodes, wanted)
        graph.order = None
    order = graph.order or order_of(nodes)
    keys = sorted(nodes, key=lambda key: order.get(key, 0))
    clock.phase("order")
    index = {key: position for position, key in enumerate(keys)}
    annotations, tasks, nbytes = AnnotationTable(), [], 0
    by_value = {}
    for key in keys:
        node = nodes[key]
        try:
            run_spec = pickle_task(key, node, by_value, graph.packages.get(key))
        except Exception as error:
            what = describe_task(key, nodes, graph.outputs)
            raise Refused("NotSerializable", f"{what} cannot be pickled: {describe_error(error)}") from None
        nbytes += len(run_spec)
        if nbytes > limit_bytes:
            raise Refused("TooLarge", f"the graph takes more than {limit_bytes} bytes: load data in tasks, not before")
        dependencies = sorted(index.setdefault(needed, len(index)) for needed in node.dependencies)
        annotation = annotations.index(key, graph.annotations.get(key))
        actor, name = key in graph.actors, graph.names.get(key)
        tasks.append([dependencies, order.get(key, 0), bool(node.data_producer), actor, annotation, run_spec, name])
    outputs = []
    for name, type_name, rebuilt, output_keys in graph.outputs:
        positions = [index.setdefault(key, len(index)) for key in output_keys]
        header, frames = serialize(rebuilt, on_error="raise") if name else ({}, [])
        output = {
            "name": name,
            "type": type_name,
            "keys": positions,
            "header": header,
            "frames": list(map(bytes, frames)),
            "structure": graph.structures.get(name),
        }
        npartitions = getattr(rebuilt, "npartitions", None)  # any attribute of a Delayed is a Delayed
        outputs.append({**output, "npartitions": npartitions if isinstance(npartitions, int) else None})
    clock.phase("pickle")
    return {
        "keys": list(index),
        "tasks": tasks,
        "annotations": annotations.values,
        "outputs": outputs,
        "statistics": clock.phases,
    }


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
    try:
        return dask.order.order(nodes)
    except RuntimeError as error:
        if "Cycle" in str(error):
            raise Refused("Cycle", str(error)) from None
        raise


class Clock:
    """Measures phases."""

    def __init__(self):
        self.phases, self.since = {}, time.perf_counter()

    def phase(self, name):
        """Ends the phase of this name."""
        now = time.perf_counter()
        self.phases[name], self.since = now - self.since, now
