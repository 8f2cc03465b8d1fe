"""Finds the peer-to-peer shuffles of a graph: the scheduler's part of them needs what only Python can read."""

from dask._task_spec import Alias, GraphNode, Task

# The functions that take an output partition; for each shuffle that they take it from, which arguments have its id and
# the partition. Source: distributed 2026.8.0, shuffle/_shuffle.py, _merge.py, _rechunk.py.
UNPACKS = {"shuffle_unpack": [(0, 1)], "merge_unpack": [(0, 2), (1, 2)], "rechunk_unpack": [(0, 1)]}


class Shuffle:
    """One shuffle: transfer tasks, a barrier that needs them all and has the `spec`, and tasks that need the barrier."""

    def __init__(self, spec):
        self.spec = spec
        self.partitions = list(spec.output_partitions)
        self.places = {partition: place for place, partition in enumerate(self.partitions)}
        # The place of the partition that a task takes, by the task's key.
        self.outputs = {}


def take_shuffles(nodes):
    """The shuffles of a graph, whose barriers are left without their specs: a worker that runs one has no use for it."""
    barriers = {key: node for key, node in nodes.items() if type(node).__name__ == "P2PBarrierTask"}
    if not barriers:
        return []
    shuffles = {node.spec.id: Shuffle(node.spec) for node in barriers.values()}
    for key, node in nodes.items():
        if not node.dependencies.isdisjoint(barriers):
            for identity, partition in partitions_taken(node):
                shuffle = shuffles.get(identity)
                if shuffle and partition in shuffle.places:
                    shuffle.outputs.setdefault(key, shuffle.places[partition])
    for key, node in barriers.items():
        nodes[key] = Task(key, node.func, *node.args, **node.kwargs).substitute(targets(nodes, node.dependencies))
    return list(shuffles.values())


def targets(nodes, keys):
    """What aliases among the keys stand for: a barrier has to need the transfers themselves, which begin anew with it."""
    found = {}
    for key in keys:
        target = key
        while isinstance(nodes.get(target), Alias):
            target = nodes[target].target
        if target != key:
            found[key] = target
    return found


def partitions_taken(part):
    """What a task takes, also as one that was fused with others: (the shuffle's id, the partition) each."""
    if isinstance(part, dict):
        parts = part.values()
    elif isinstance(part, (list, tuple)):
        parts = part
    elif isinstance(part, Task):
        for identity, partition in UNPACKS.get(getattr(part.func, "__name__", None), ()):
            if partition < len(part.args):
                yield part.args[identity], part.args[partition]
        parts = [*part.args, *part.kwargs.values()]
    else:
        return
    for inner in parts:
        if isinstance(inner, (GraphNode, dict, list, tuple)):
            yield from partitions_taken(inner)
