"""Does peer-to-peer shuffles by plain tasks."""

import functools
import sys
import types

import cloudpickle
from dask._task_spec import Alias, List, Task, TaskRef
from dask.core import flatten
from dask.utils import apply

from .errors import Refused

# Functions of this file that tasks use go by value: other workers do not have it.
cloudpickle.register_pickle_by_value(sys.modules[__name__])


class TaskShuffles:
    """Peer-to-peer shuffles, done by plain tasks: they need a plugin in the scheduler, yet are a Client's default.

    Such a shuffle is: transfer tasks, each given an input partition; a barrier, which needs them all and has the `spec`;
    unpack tasks, which need the barrier and each give an output partition. Transfers become tasks that give pieces by
    output partition, unpacks become tasks that join pieces, and the keys of both stay as they are.

    Source: distributed 2026.8.0, shuffle/_shuffle.py, _merge.py, _rechunk.py; dask 2026.8.0, dataframe/dask_expr/.
    """

    # Where the arguments have the shuffle's id, followed by the partition.
    TRANSFERS = {"_shuffle_transfer": 1, "assign_index_merge_transfer": 4, "rechunk_transfer": 1}
    UNPACKS = {"shuffle_unpack", "merge_unpack", "rechunk_unpack"}

    def __init__(self, nodes, barriers, annotations):
        self.nodes = unfused(nodes, self.UNPACKS | set(self.TRANSFERS))
        self.annotations = annotations
        self.specs = {barrier.spec.id: barrier.spec for barrier in barriers}
        self.inputs = {shuffle: {} for shuffle in self.specs}
        for key, node in list(self.nodes.items()):
            if function_name(node) in self.TRANSFERS:
                self.nodes[key] = self.transfer(key, node)
        for key, node in list(self.nodes.items()):
            if function_name(node) in self.UNPACKS:
                self.nodes[key] = getattr(self, function_name(node))(key, *node.args)
        keys = {self.nodes.pop(barrier.key).key for barrier in barriers}
        whole = all(len(self.inputs[barrier.spec.id]) == len(barrier.dependencies) for barrier in barriers)
        if not whole or any(keys & node.dependencies for node in self.nodes.values()):
            raise Refused(
                "Unsupported",
                "the graph has a peer-to-peer shuffle of an unknown kind: set the Dask configuration "
                '{"dataframe.shuffle.method": "tasks", "array.rechunk.method": "tasks"} where the graph is made',
            )

    def transfer(self, key, node):
        name, args = function_name(node), node.args
        shuffle, partition = args[self.TRANSFERS[name] :][:2]
        self.inputs[shuffle][partition] = key
        if name == "rechunk_transfer":
            return Task(key, apply, same, List(args[0]))
        split = functools.partial(split_frame, self.specs[shuffle].column)
        if name == "assign_index_merge_transfer":
            # It adds the column with the output partitions, then calls what is a variable of its closure.
            split = with_variable(node.func, "merge_transfer", split)
        return Task(key, split, *args)

    def piece(self, key, shuffle, partition, source, take, what):
        """The reference to one piece of an input, made where that input is."""
        piece = (
            f"shuffle-split-{shuffle}",
            *flatten([partition], container=tuple),
            *flatten([source], container=tuple),
        )
        self.nodes[piece] = Task(piece, take, TaskRef(self.inputs[shuffle][source]), what)
        if key in self.annotations:
            self.annotations[piece] = self.annotations[key]
        return TaskRef(piece)

    def joined(self, key, shuffle, partition):
        """The arguments of `join_frames` for an output partition."""
        spec, sources = self.specs[shuffle], sorted(self.inputs[shuffle])
        pieces = (self.piece(key, shuffle, partition, source, dict.get, partition) for source in sources)
        return List(*pieces), spec.meta, spec.column

    def shuffle_unpack(self, key, shuffle, partition, barrier):
        return Task(key, join_frames, *self.joined(key, shuffle, partition))

    def merge_unpack(self, key, left, right, partition, left_barrier, right_barrier, *how):
        sides = (Task(None, join_frames, *self.joined(key, shuffle, partition)) for shuffle in (left, right))
        return Task(key, merge_frames, *sides, *how)

    def rechunk_unpack(self, key, shuffle, partition, barrier):
        from dask.array.chunk import getitem
        from dask.array.core import concatenate3

        spec = self.specs[shuffle]
        axes = [overlaps(old, new, index) for old, new, index in zip(spec.old, spec.new, partition)]

        def nested(source, cuts):
            if len(source) == len(axes):
                return self.piece(key, shuffle, partition, source, getitem, cuts)
            return List(*(nested((*source, index), (*cuts, cut)) for index, cut in axes[len(source)]))

        return Task(key, concatenate3, nested((), ()))


def unfused(nodes, names):
    """The tasks, those taken apart again in which a function of these names was fused with others."""
    result = {}
    for key, node in nodes.items():
        if isinstance(node, Task) and node.has_subgraph():
            inner, output, needs = node.args[:3]
            inner = unfused(inner, names)
            if any(function_name(part) in names for part in inner.values()):
                renamed = {need: reference.key for need, reference in zip(needs, node.args[3:])}
                result |= {part: task.substitute(renamed) for part, task in inner.items()}
                if output != key:
                    result[key] = Alias(key, output)
                continue
        result[key] = node
    return result


def function_name(node):
    return getattr(getattr(node, "func", None), "__name__", None)


def with_variable(function, name, value):
    """The function with another value for one variable of its closure."""
    variables = zip(function.__code__.co_freevars, function.__closure__)
    closure = tuple(types.CellType(value) if found == name else cell for found, cell in variables)
    return types.FunctionType(
        function.__code__, function.__globals__, function.__name__, function.__defaults__, closure
    )


def overlaps(old, new, index):
    """Which old chunks of an axis make a new one: [(old index, slice)]."""
    start = sum(new[:index])
    end, offset, found = start + new[index], 0, []
    for position, size in enumerate(old):
        if offset < end and start < offset + size:
            found.append((position, slice(max(start - offset, 0), min(end - offset, size))))
        offset += size
    return found


def same(value):
    return value


def split_frame(column, frame, shuffle, partition):
    """The rows of a frame by the output partition that a column names."""
    groups = frame.groupby(column, sort=False, observed=True)
    return {int(output): rows.drop(columns=column) for output, rows in groups}


def join_frames(pieces, meta, column):
    from dask.dataframe.dispatch import concat

    pieces = [piece for piece in pieces if piece is not None]
    return concat(pieces) if pieces else meta.drop(columns=column, errors="ignore")


def merge_frames(left, right, how, left_on, right_on, result_meta, suffixes, left_index, right_index, indicator=False):
    from dask.dataframe.multi import merge_chunk

    return merge_chunk(
        left,
        right,
        how=how,
        left_on=left_on,
        right_on=right_on,
        result_meta=result_meta,
        suffixes=suffixes,
        left_index=left_index,
        right_index=right_index,
        indicator=indicator,
    )
