"""Dask collections and plain values as one graph."""

import inspect

import dask
from dask._task_spec import DataNode
from dask.base import collections_to_expr, tokenize, unpack_collections
from dask.core import flatten

from .annotations import ANNOTATIONS, value_for
from .errors import Refused, close_to, describe_type

class Graph:
    """Tasks by key, with what is to be kept of them."""

    def __init__(self):
        self.raw = {}
        self.annotations = {}
        self.outputs = []
        self.actors = set()
        self.names = {}
        self.packages = {}
        self.structures = {}
        self.order = None

    def add_values(self, values, optimize, options):
        """Adds Dask collections, containers of them and plain values, optimised together so that they share tasks."""
        parts = {}
        for name, value in values.items():
            parts[name] = ([value], None) if dask.is_dask_collection(value) else unpack_collections(value)
        rebuilt = self.add_collections([part for found, _ in parts.values() for part in found], optimize, options)
        for name, value in values.items():
            found, repack = parts[name]
            results = [rebuilt[id(part)] for part in found]
            keys = [key for result in results for key in result[1]]
            if not found:
                self.add_plain_value(name, value)
            elif repack is None:
                self.add_output(name, value, results[0][0], keys)
            else:
                self.add_output(name, value, repack([result[0] for result in results])[0], keys)
                places = [f"collection {position}: {len(keys)}" for position, (_, keys) in enumerate(results)]
                self.structures[name] = tokenize(repack(places))

    def add_collections(self, collections, optimize, options):
        """Adds the tasks; gives by `id` each collection as its futures, and its keys."""
        from dask._expr import HLGExpr

        expressions, legacy = {}, {}
        for part in collections:
            expression = collections_to_expr([part], optimize).operands[0]
            (legacy if isinstance(expression, HLGExpr) else expressions)[id(part)] = part
        if not optimize:
            refuse_options(options, "optimizeGraph is false")
        unused = set(options)
        rebuilt = {}
        if expressions:
            unused.discard("fuse")
            rebuilt |= self.add_expressions(expressions, optimize and options.get("fuse", True))
        groups = []  # optimisers are compared, not hashed: they may be bound to anything
        for part in legacy.values():
            optimizer = getattr(part, "__dask_optimize__", None) if optimize else None
            group = next((members for other, members in groups if other == optimizer), None)
            group.append(part) if group else groups.append((optimizer, [part]))
        for optimizer, members in groups:
            taken = {name: keys_in(options[name]) for name in options if optimizer and name in named_options(optimizer)}
            unused -= set(taken)
            rebuilt |= self.add_legacy(members, optimizer, taken)
        if unused:
            known = {"fuse"} if expressions else set()
            known |= {name for optimizer, _ in groups if optimizer for name in named_options(optimizer)}
            refuse_options(unused, f"these collections take {', '.join(sorted(known)) or 'none'}", known)
        return rebuilt

    def add_expressions(self, collections, fuse):
        """Collections made of expressions, such as dataframes."""
        if not isinstance(fuse, bool):
            raise Refused("BadOption", f"the option `fuse` is {fuse!r}: it has to be true or false")
        from dask import _expr, base
        from dask._collections import new_collection

        # Since 2026.7.0 there are collections of several expressions.
        composite = getattr(_expr, "CompositeExpr", ())
        expression = collections_to_expr(list(collections.values())).optimize()
        if fuse and any("dask.dataframe" in type(operand).__module__ for operand in expression.operands):
            from dask.dataframe.dask_expr._expr import optimize_blockwise_fusion

            expression = optimize_blockwise_fusion(expression)
        self.raw.update(expression.__dask_graph__())
        for name, by_key in (expression.__dask_annotations__() or {}).items():
            self.annotate(name, by_key)
        rebuilt = {}
        for (identity, part), operand, keys in zip(
            collections.items(), expression.operands, expression.__dask_keys__(), strict=True
        ):
            keys = list(flatten(keys))
            futures = {key: future(key) for key in keys}
            if isinstance(operand, composite):
                result = base._rebuild_composite_collection(part, operand, futures, cull_to_child_keys=True)
            else:
                # Optimisation may change the number of partitions, so the optimised collection is the one to rebuild.
                optimized = new_collection(operand)
                rebuild, state = (optimized if type(optimized) is type(part) else part).__dask_postpersist__()
                result = rebuild(futures, *state)
            rebuilt[identity] = (result, keys)
        return rebuilt

    def add_legacy(self, collections, optimizer, options):
        """Collections that hold a graph, such as arrays, bags and delayed values, of one optimiser."""
        from dask.highlevelgraph import HighLevelGraph

        graphs = []
        for part in collections:
            graph = part.__dask_graph__()
            if not isinstance(graph, HighLevelGraph):
                graph = HighLevelGraph.from_collections(str(id(part)), graph, dependencies=())
            graphs.append(graph)
        graph = HighLevelGraph.merge(*graphs)
        keys = [part.__dask_keys__() for part in collections]
        annotated = [layer.annotations for layer in graph.layers.values() if layer.annotations]
        if optimizer is not None:
            graph = optimize_annotated(graph, keys, optimizer, options) if annotated else optimizer(graph, keys, **options)
        for layer in graph.layers.values() if annotated else ():
            for name, value in (layer.annotations or {}).items():
                self.annotate(name, {key: value_for(name, value, key) for key in layer})
        self.raw.update(graph)
        rebuilt = {}
        for part in collections:
            part_keys = list(flatten(part.__dask_keys__()))
            rebuild, state = part.__dask_postpersist__()
            rebuilt[id(part)] = (rebuild({key: future(key) for key in part_keys}, *state), part_keys)
        return rebuilt

    def add_plain_value(self, name, value):
        """A value that is no Dask collection: one key that holds it, read as a Delayed."""
        key = f"{name}-{tokenize(value)}"
        self.raw[key] = DataNode(key, value)
        self.add_output(name, value, delayed(key), [key])

    def add_output(self, name, value, rebuilt, keys):
        self.outputs.append((name, describe_type(value), rebuilt, list(dict.fromkeys(keys))))

    def annotate(self, name, by_key):
        name = ANNOTATIONS.get(name)
        if name:
            for key, value in by_key.items():
                if value is not None:
                    self.annotations.setdefault(key, {})[name] = value

    def choose_actors(self, actors):
        """Marks the tasks that become actors: those of outputs, keys, or prefixes of keys by name."""
        wanted = {key for output in self.outputs for key in output[3]}
        if actors.get("all"):
            self.actors |= wanted
        for name, chosen in (actors.get("tasks") or {}).items():
            keys = {key for output in self.outputs if output[0] == name for key in output[3]}
            keys |= {key for key in self.raw if name in (key, str(key), self.names.get(key))}
            keys = keys or {key for key in self.raw if dask.utils.key_split(key) == name}
            if not keys:
                known = {output[0] for output in self.outputs} | set(self.names.values())
                known |= {dask.utils.key_split(key) for key in self.raw} if not self.names else set()
                hint = close_to(name, known)
                raise Refused("UnknownReference", f"`actors` names `{name}`, which is no collection and no task{hint}")
            self.actors = self.actors | keys if chosen else self.actors - keys


def optimize_annotated(graph, keys, optimizer, options):
    """Optimises as far as no annotation is lost: they may be requirements.

    Fusing single tasks would lose them, and fusing layers of different ones would ask for the requirements of both
    together. Layers of the same are fused; but Dask fails to compare functions of the key.
    """
    from dask.highlevelgraph import HighLevelGraph

    values = [value for layer in graph.layers.values() for value in (layer.annotations or {}).values()]
    if not any(map(callable, values)):
        with dask.config.set({"optimization.fuse.active": False, "optimization.annotations.fuse": False}):
            optimized = optimizer(graph, keys, **options)
        if isinstance(optimized, HighLevelGraph):
            return optimized
    return graph.cull(set(flatten(keys)))


def keys_in(value):
    """The value of an option, in which a list stands for a key that is a tuple: JSON has no tuples."""
    return [tuple(item) if isinstance(item, list) else item for item in value] if isinstance(value, list) else value


def refuse_options(options, why, known=()):
    """Refuses options that would do nothing."""
    if options:
        names = ", ".join(f"`{name}`{close_to(name, known)}" for name in sorted(options))
        raise Refused("BadOption", f"no optimisation takes the option {names}: {why}")


def named_options(optimizer):
    """The names of an optimisation's own options."""
    try:
        parameters = inspect.signature(optimizer).parameters.values()
    except (TypeError, ValueError):
        return set()
    return {parameter.name for parameter in parameters if parameter.kind is not parameter.VAR_KEYWORD} - {"dsk", "keys"}


def future(key):
    """A reference to a key's result, which a Client binds to itself when it reads it."""
    from distributed import Future

    # Not another one each time: a dataframe made of futures is named after them, and so is all that is made of it.
    return Future(key, _id=(str(key), 0))


def delayed(key):
    from dask.delayed import Delayed

    return Delayed(key, {key: future(key)})
