"""The part of Mainstay that runs in Python: on a stock Dask worker, to turn sources into task graphs.

Mainstay never unpickles anything, so whatever needs Python happens here: a PersistedCollection's source becomes
keys, dependencies and one opaque pickle a task (`build`), and so does the graph that a Client submits (`lower`).
The file is not installed anywhere. Mainstay sends its text to a worker through the worker's RPC `run_coroutine`
(src/server/builder.rs assembles that call), whose `function` is a pickle that evaluates to `serve`:

    {"op": "run_coroutine", "function": <pickle of serve>, "args": <pickle of (operation, request)>, "wait": true}
    -> {"status": "OK", "result": <Serialized: family dask, bytes: one msgpack document>}

`run_coroutine` and not an actor or a task: it takes no task's thread, needs no key in the engine, and ends with its
answer. The work runs in a thread of its own, so neither the worker's event loop nor its tasks wait for it; a source
that computes (`.compute()`, `len(frame)`, `set_index`) does so through the worker's own Client.

The request of `build` is a msgpack map:
    kind                "python" | "entrypoint" | "tasks"
    name                of the collection, for tracebacks
    label               a text unique to the object, which makes the keys of inline tasks unique (kind tasks)
    source              the text (kind python)
    callable, args, kwargs                          (kind entrypoint)
    tasks               [{key, call, args, kwargs, retries, priority, resources, workers, allowOtherWorkers, actor}]
    parameters          `params` in the source
    inputs              {variable: [header, frames]}, another collection's output as this one's document had it
    collections         the names to persist
    optimize_graph, optimize_options, actors {all, tasks}
    limits              {tasks, bytes}, optional
The request of `lower`: expr [header, frames], keys, annotations (a pickle), internal_priority ([[key, int]] or nil),
actors (nil, bool or keys), limits.

The document: version, then either `error` {kind, message, traceback, line, exception} or
    keys                every key: first those of the tasks, in their order, then those made elsewhere
    tasks               [[dependencies, order, data_producer, actor, annotation, run spec, name]], one for each key:
                        dependencies index `keys`, annotation indexes `annotations` or is nil, the run spec is a
                        pickle, name is the manifest's key of an inline task or nil
    annotations         [{retries, priority, workers, allow_other_workers, resources, executor}]
    outputs             [{name, type, keys (indices), header, frames, npartitions}], empty for `lower`
    statistics          {phase: seconds}
"""

import asyncio
import contextvars
import difflib
import functools
import graphlib
import importlib
import inspect
import io
import linecache
import operator
import pickle
import pkgutil
import sys
import threading
import time
import traceback
import types

import cloudpickle
import dask
import msgpack
from dask._task_spec import Alias, DataNode, Dict, List, Task, TaskRef, convert_legacy_graph, parse_input
from dask.base import collections_to_expr, tokenize, unpack_collections
from dask.core import flatten
from dask.utils import apply
from distributed.protocol import serialize
from distributed.protocol.pickle import dumps
from distributed.protocol.serialize import merge_and_deserialize

VERSION = 1
FILE = "<mainstay builder>"
MESSAGE_CHARACTERS_MAX = 2_000
TRACEBACK_CHARACTERS_MAX = 16_000
ANNOTATIONS = ("retries", "priority", "workers", "allow_other_workers", "resources", "executor")

# Peer-to-peer shuffles need a plugin in the scheduler, and a process without a Client would fall back to shuffling
# through its own disk.
dask.config.set({"dataframe.shuffle.method": "tasks", "array.rechunk.method": "tasks"})


async def serve(operation, request, dask_worker=None):
    """Answers one request; the entry point of the worker's RPC."""
    loop = asyncio.get_running_loop()
    answer = loop.create_future()

    def settle(document):
        if not answer.done():
            answer.set_result(document)

    def work():
        document = respond(operation, request)
        loop.call_soon_threadsafe(settle, document)

    # The context tells `get_client()` in a source which worker it is on. A daemon, because a source that never ends
    # must not keep the worker from exiting.
    thread = threading.Thread(
        target=contextvars.copy_context().run, args=(work,), name=f"mainstay-{operation}", daemon=True
    )
    thread.start()
    return await answer


def respond(operation, request):
    """One request in, one document out, whatever happens."""
    filename = None
    try:
        request = msgpack.unpackb(request, use_list=operation == "build", strict_map_key=False)
        filename = f"{request.get('name') or 'source'}.py"
        answer = {"build": build, "lower": lower}[operation](request)
        return msgpack.packb({"version": VERSION, **answer}, default=plain)
    except BaseException as error:  # a source may raise SystemExit too
        return msgpack.packb({"version": VERSION, "error": describe(error, filename)}, default=plain)


class Refused(Exception):
    """A request that cannot be met, with the kind of reason; `__cause__` is what Python had to say."""

    def __init__(self, kind, message):
        super().__init__(message)
        self.kind = kind


# ---- build


def build(request):
    """The graph of a PersistedCollection."""
    clock = Clock()
    inputs = {variable: merge_and_deserialize(*data) for variable, data in (request.get("inputs") or {}).items()}
    names = request.get("collections") or []
    if request["kind"] == "tasks":
        graph = graph_of_tasks(request["tasks"], request["label"], names, inputs)
        clock.phase("evaluate")
    else:
        evaluate = {"python": run_source, "entrypoint": call_entrypoint}[request["kind"]]
        values = evaluate(request, names, inputs)
        clock.phase("evaluate")
        graph = Graph()
        graph.add_values(values, request.get("optimize_graph", True), request.get("optimize_options") or {})
        clock.phase("optimize")
    graph.choose_actors(request.get("actors") or {})
    return document(graph, clock, request.get("limits") or {})


def run_source(request, names, inputs):
    """Runs a Python source and takes the named variables."""
    filename, source = f"{request['name']}.py", request["source"]
    # Tracebacks show the lines, and so do `inspect.getsource` and what is built on it.
    linecache.cache[filename] = (len(source), None, source.splitlines(keepends=True), filename)
    # As in a script: what is defined here is pickled by value, since no other process can import it.
    namespace = {"__name__": "__main__", "__file__": filename, "params": request.get("parameters") or {}, **inputs}
    try:
        exec(compile(source, filename, "exec", dont_inherit=True), namespace)
    except ImportError as error:
        raise import_failed(error) from error
    defined = [name for name, value in namespace.items() if not name.startswith("_") and not inspect.ismodule(value)]
    defined = [name for name in defined if name != "params" or name in names]
    return take(names, {name: namespace[name] for name in defined}, "the source")


def call_entrypoint(request, names, inputs):
    """Imports a function of the worker's image, calls it, and takes the named results."""
    function = resolve(request["callable"])
    kwargs = {**(request.get("kwargs") or {}), **inputs}
    if request.get("parameters"):
        kwargs["params"] = request["parameters"]
    for name in kwargs:
        if name not in (request.get("kwargs") or {}) and not accepts(function, name):
            what = "`parameters`" if name == "params" else f"the input `{name}`"
            raise Refused("BadOption", f"`{request['callable']}` has no argument `{name}`, so {what} would be ignored")
    try:
        result = function(*(request.get("args") or ()), **kwargs)
    except ImportError as error:
        raise import_failed(error) from error
    if isinstance(result, dict) and (not names or set(names) & set(result)):
        return take(names or list(result), result, f"the result of `{request['callable']}`")
    if isinstance(result, (tuple, list)) and len(names) == len(result) and len(names) != 1:
        return dict(zip(names, result))
    if len(names) == 1:
        return {names[0]: result}
    raise Refused(
        "NameNotDefined",
        f"`{request['callable']}` returned {describe_type(result)}, and `collections` names {len(names)}: it should "
        "return a dict of name to collection, or as many collections as are named",
    )


def take(names, values, where):
    """The named values, or a message that helps to find the right name."""
    shown = ", ".join(sorted(str(name) for name in values)[:20]) or "nothing"
    if not names:
        raise Refused("NameNotDefined", f"`collections` names nothing to persist; {where} defines: {shown}")
    for name in names:
        if name not in values:
            hint = close_to(name, values)
            raise Refused("NameNotDefined", f"{where} does not define `{name}`{hint}; it defines: {shown}")
    return {name: values[name] for name in names}


def resolve(path):
    """The object that `module:name` means."""
    module_name, _, attribute = path.partition(":")
    importlib.invalidate_caches()
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise import_failed(error) from error
    try:
        function = operator.attrgetter(attribute)(module)
    except AttributeError as error:
        hint = close_to(attribute, dir(module))
        raise Refused("CallableNotFound", f"the module `{module_name}` has no `{attribute}`{hint}") from None
    if not callable(function):
        raise Refused("CallableNotFound", f"`{path}` is {describe_type(function)}, not a function")
    return function


def accepts(function, name):
    """Whether a function can be called with this keyword."""
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return True
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    return takes_any or name in parameters


def import_failed(error):
    if isinstance(error, ModuleNotFoundError) and error.name:
        return Refused("ImportFailed", f"the worker image has no module `{error.name}`")
    return Refused("ImportFailed", f"an import failed on the worker: {error}")


# ---- graphs


class Graph:
    """Tasks by key, with what is to be kept of them."""

    def __init__(self):
        self.raw = {}
        self.annotations = {}
        self.outputs = []
        self.actors = set()
        self.names = {}
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

    def add_collections(self, collections, optimize, options):
        """Adds the tasks; gives by `id` each collection as its futures, and its keys."""
        from dask._expr import HLGExpr

        expressions, legacy = {}, {}
        for part in collections:
            expression = collections_to_expr([part], optimize).operands[0]
            (legacy if isinstance(expression, HLGExpr) else expressions)[id(part)] = part
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
            taken = {name: options[name] for name in options if optimizer and name in named_options(optimizer)}
            unused -= set(taken)
            rebuilt |= self.add_legacy(members, optimizer, taken)
        if unused:
            names = ", ".join(f"`{name}`" for name in sorted(unused))
            raise Refused("BadOption", f"no optimisation of these collections takes the option {names}")
        return rebuilt

    def add_expressions(self, collections, fuse):
        """Collections made of expressions, such as dataframes."""
        from dask._collections import new_collection
        from dask._expr import CompositeExpr
        from dask.base import _rebuild_composite_collection

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
            if isinstance(operand, CompositeExpr):
                result = _rebuild_composite_collection(part, operand, futures, cull_to_child_keys=True)
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
        annotated = any(layer.annotations for layer in graph.layers.values())
        if optimizer is not None:
            optimized = optimizer(graph, keys, **options)
            if annotated and not isinstance(optimized, HighLevelGraph):
                # Fusing single tasks would lose the annotations, which may be requirements.
                optimized = graph.cull(set(flatten(keys)))
            graph = optimized
        for layer in graph.layers.values() if annotated else ():
            for name, value in (layer.annotations or {}).items():
                self.annotate(name, {key: value(key) if callable(value) else value for key in layer})
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
        if name in ANNOTATIONS:
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
                raise Refused("UnknownReference", f"`actors` names `{name}`, which is no collection and no task")
            self.actors = self.actors | keys if chosen else self.actors - keys


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

    return Future(key)


def delayed(key):
    from dask.delayed import Delayed

    return Delayed(key, {key: future(key)})


# ---- inline tasks


def graph_of_tasks(tasks, label, names, inputs):
    """The graph of tasks that a manifest spells out; their functions are imported where and when they run."""
    graph = Graph()
    by_key = {}
    for task in tasks:
        if task["key"] in by_key:
            raise Refused("DuplicateKey", f"two tasks have the key `{task['key']}`")
        by_key[task["key"]] = task
    needs = {key: references([task.get("args"), task.get("kwargs")], "task") for key, task in by_key.items()}
    for key, needed in needs.items():
        for name in needed - set(by_key):
            raise Refused("UnknownReference", f"the task `{key}` needs `{name}`, which is no task")
    try:
        ordered = list(graphlib.TopologicalSorter(needs).static_order())
    except graphlib.CycleError as error:
        raise Refused("Cycle", "the tasks need each other: " + " -> ".join(reversed(error.args[1]))) from None
    used = set().union(*(references([t.get("args"), t.get("kwargs")], "input") for t in tasks)) if tasks else set()
    for name in used ^ set(inputs):
        raise Refused("UnknownReference", f"`{name}` is no input" if name in used else f"no task uses the input `{name}`")
    gathered = {name: graph_input(graph, value) for name, value in inputs.items()}
    keys = {}
    for name in ordered:
        task = by_key[name]
        args, kwargs = link([task.get("args") or [], task.get("kwargs") or {}], keys, gathered)
        # A task keeps its key, and its result, until what it does or what it needs is written differently.
        key = keys[name] = f"{name}-{tokenize(label, name, task['call'], args, kwargs)}"
        function = Task(None, pkgutil.resolve_name, task["call"])
        graph.raw[key] = call(key, function, *map(parse_input, args), **{k: parse_input(v) for k, v in kwargs.items()})
        graph.names[key] = name
        for field in ("retries", "priority", "workers", "resources"):
            if task.get(field) is not None:
                graph.annotate(field, {key: task[field]})
        if task.get("allowOtherWorkers") is not None:
            graph.annotate("allow_other_workers", {key: task["allowOtherWorkers"]})
        if task.get("actor"):
            graph.actors.add(key)
    needed = set().union(*needs.values()) if needs else set()
    for name in names or [task["key"] for task in tasks if task["key"] not in needed]:
        if name not in keys:
            raise Refused("NameNotDefined", f"`collections` names `{name}`, which is no task{close_to(name, keys)}")
        graph.outputs.append((name, "Actor" if keys[name] in graph.actors else "Delayed", delayed(keys[name]), [keys[name]]))
    return graph


def references(value, kind):
    """The names that `{kind: name}` refers to anywhere in a value."""
    if isinstance(value, dict):
        if set(value) == {kind}:
            return {value[kind]}
        value = list(value.values())
    if isinstance(value, list):
        return set().union(*(references(item, kind) for item in value)) if value else set()
    return set()


def link(value, tasks, inputs):
    """The value with references in place of `{task: name}` and `{input: name}`."""
    if isinstance(value, dict):
        if set(value) == {"task"}:
            return Alias(tasks[value["task"]])
        if set(value) == {"input"}:
            return Alias(inputs[value["input"]])
        return {name: link(item, tasks, inputs) for name, item in value.items()}
    if isinstance(value, list):
        return [link(item, tasks, inputs) for item in value]
    return value


def graph_input(graph, value):
    """The key under which another collection's whole output is there for a task."""
    value = dask.delayed(value)
    graph.raw.update(value.__dask_graph__())
    return value.key


# ---- lower


def lower(request):
    """The graph that a Client submitted: what a stock scheduler does in `update_graph` before it schedules."""
    clock = Clock()
    if not request["keys"]:
        return document(Graph(), clock, {})
    try:
        expression = merge_and_deserialize(*request["expr"])
    except Exception as error:
        # The words of a stock scheduler, which Clients know.
        raise RuntimeError(
            "Error during deserialization of the task graph. This frequently occurs if the workers and the Client "
            f"have different environments. {describe_error(error)}"
        ) from error
    clock.phase("read")
    graph = Graph()
    graph.raw = expression.__dask_graph__()
    defaults = pickle.loads(request["annotations"]) if request.get("annotations") else {}
    for name, value in defaults.items():
        graph.annotate(name, {key: value(key) if callable(value) else value for key in graph.raw})
    for name, by_key in (expression.__dask_annotations__() or {}).items():
        graph.annotate(name, by_key)
    keys = list(request["keys"])
    graph.outputs = [(None, None, None, keys)]
    actors = request.get("actors")
    graph.actors = set(keys) if actors is True else set(actors or ())
    graph.order = dict(request.get("internal_priority") or ()) or None
    answer = document(graph, clock, request.get("limits") or {})
    answer["outputs"] = []
    return answer


# ---- shuffles


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
        piece = (f"shuffle-split-{shuffle}", *flatten([partition], container=tuple), *flatten([source], container=tuple))
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
    return types.FunctionType(function.__code__, function.__globals__, function.__name__, function.__defaults__, closure)


def overlaps(old, new, index):
    """Which old chunks of an axis make a new one: [(old index, slice)]."""
    start = sum(new[:index])
    end, offset, found = start + new[index], 0, []
    for position, size in enumerate(old):
        if offset < end and start < offset + size:
            found.append((position, slice(max(start - offset, 0), min(end - offset, size))))
        offset += size
    return found


# These run in tasks.


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


# ---- the document


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
    annotations, tasks, nbytes = {}, [], 0
    # By value: other workers do not have this file.
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    pickler = type("Pickler", (Pickler,), {"by_value": {}})
    for key in keys:
        node = nodes[key]
        try:
            run_spec = pickle_task(key, node, pickler)
        except Exception as error:
            of = next((f" of `{output[0]}`" for output in graph.outputs if output[0] and key in cull(nodes, output[3])), "")
            raise Refused("NotSerializable", f"the task `{key}`{of} cannot be pickled: {describe_error(error)}") from error
        nbytes += len(run_spec)
        if nbytes > limit_bytes:
            raise Refused("TooLarge", f"the graph takes more than {limit_bytes} bytes: load data in tasks, not before")
        dependencies = sorted(index.setdefault(needed, len(index)) for needed in node.dependencies)
        annotation = annotation_of(key, graph.annotations.get(key), annotations)
        actor, name = key in graph.actors, graph.names.get(key)
        tasks.append([dependencies, order.get(key, 0), bool(node.data_producer), actor, annotation, run_spec, name])
    outputs = []
    for name, type_name, rebuilt, output_keys in graph.outputs:
        positions = [index.setdefault(key, len(index)) for key in output_keys]
        header, frames = serialize(rebuilt, on_error="raise") if name else ({}, [])
        output = {"name": name, "type": type_name, "keys": positions, "header": header, "frames": list(map(bytes, frames))}
        npartitions = getattr(rebuilt, "npartitions", None)  # any attribute of a Delayed is a Delayed
        outputs.append({**output, "npartitions": npartitions if isinstance(npartitions, int) else None})
    clock.phase("pickle")
    return {
        "keys": list(index),
        "tasks": tasks,
        "annotations": [value for value, _ in annotations.values()],
        "outputs": outputs,
        "statistics": clock.phases,
    }


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


def annotation_of(key, annotation, table):
    """The index of an annotation in the table of different ones."""
    if not annotation:
        return None
    if isinstance(annotation.get("workers"), str):
        annotation = {**annotation, "workers": [annotation["workers"]]}
    try:
        packed = msgpack.packb(annotation, default=plain)
    except TypeError as error:
        raise Refused("BadOption", f"the annotations of `{key}` are not plain data: {error}") from error
    return table.setdefault(packed, (annotation, len(table)))[1]


class Pickler(pickle.Pickler):
    """Pickles tasks at the speed of `pickle`, what other processes cannot import by value, and each such thing once.

    cloudpickle does the same, some ten times slower, and again for each task that uses a function of the source.
    """

    by_value = {}

    def reducer_override(self, value):
        if type(value) is Task and not value.kwargs:
            return Task, (value.key, value.func, *value.args)
        if isinstance(value, (types.FunctionType, type)):
            return self.reduce_definition(value)
        return NotImplemented

    def reduce_definition(self, value):
        if id(value) not in self.by_value:
            blob = None if is_importable(value) else cloudpickle.dumps(value, protocol=5)
            self.by_value[id(value)] = value, blob  # with the value, so that the id stays its own
        blob = self.by_value[id(value)][1]
        return NotImplemented if blob is None else (pickle.loads, (blob,))


def is_importable(definition):
    """Whether other processes find this function or class under its name."""
    module = sys.modules.get(definition.__module__)
    if module is None or module.__name__ in ("__main__", *cloudpickle.list_registry_pickle_by_value()):
        return False
    try:
        return operator.attrgetter(definition.__qualname__)(module) is definition
    except AttributeError:
        return module.__name__ == "builtins"  # `type(None)` and its like, which pickle knows


def pickle_fast(pickler, value):
    buffer = io.BytesIO()
    pickler(buffer, protocol=5).dump(value)
    return buffer.getvalue()


class Reduced:
    """Pickles as a call."""

    __slots__ = ("function", "args")

    def __init__(self, function, *args):
        self.function, self.args = function, args

    def __reduce__(self):
        return self.function, self.args


def pickle_task(key, node, pickler):
    """A run spec that any worker can decode: what the task is made of is unpickled when the task runs.

    Otherwise a function whose module a worker lacks would break that worker's connection, and it would exit.
    """
    try:
        blob = pickle_fast(pickler, node)
    except Exception:
        blob = dumps(node)
    values = Reduced(Dict, [(needed, TaskRef(needed)) for needed in node.dependencies])
    if node.is_coro:
        return pickle_fast(pickler, Reduced(Task, key, run_async, blob, values))
    loaded = Reduced(Task, None, pickle.loads, blob)
    if hasattr(operator, "call"):
        return pickle.dumps(Reduced(Task, key, operator.call, loaded, values), protocol=5)
    return pickle.dumps(Reduced(Task, key, apply, loaded, Reduced(List, values)), protocol=5)


def call(key, function, *args, **kwargs):
    """A task that calls what another task gives."""
    if hasattr(operator, "call"):
        return Task(key, operator.call, function, *args, **kwargs)
    return Task(key, apply, function, List(*args), Dict(kwargs))


async def run_async(blob, values):
    """Runs the task of a coroutine function, which the worker awaits only if it sees one."""
    return await pickle.loads(blob)(values)


# ---- texts


class Clock:
    """Measures phases."""

    def __init__(self):
        self.phases, self.since = {}, time.perf_counter()

    def phase(self, name):
        """Ends the phase of this name."""
        now = time.perf_counter()
        self.phases[name], self.since = now - self.since, now


def describe(error, filename):
    """An error as a person who wrote the source wants to read it, and as a Client can raise it."""
    cause = error.__cause__ if isinstance(error, Refused) and error.__cause__ is not None else error
    report = traceback.TracebackException.from_exception(cause)
    line = drop_own_frames(report, filename)
    if isinstance(error, Refused):
        kind, message = error.kind, str(error)
    elif isinstance(error, SyntaxError) and error.filename == filename:
        kind, message, line = "SyntaxError", f"{error.msg} (line {error.lineno})", error.lineno
    else:
        kind, message = "Raised", describe_error(error)
    text = None if cause is error and isinstance(error, Refused) else shorten("".join(report.format()), TRACEBACK_CHARACTERS_MAX)
    try:
        exception = dumps(error if not isinstance(error, Refused) else RuntimeError(message))
    except Exception:
        exception = pickle.dumps(RuntimeError(message))
    return {
        "kind": kind,
        "message": shorten(message, MESSAGE_CHARACTERS_MAX),
        "traceback": text,
        "line": line,
        "exception": exception,
    }


def drop_own_frames(report, filename):
    """Leaves the frames from the source's first on; gives the source's last line."""
    line = None
    while report is not None:
        frames = list(report.stack)
        own = [position for position, frame in enumerate(frames) if frame.filename == FILE]
        source = [position for position, frame in enumerate(frames) if frame.filename == filename]
        start = source[0] if source else own[-1] + 1 if own else 0
        report.stack = traceback.StackSummary.from_list(frames[start:])
        if source and line is None:
            line = frames[source[-1]].lineno
        report = report.__cause__ or (None if report.__suppress_context__ else report.__context__)
    return line


def describe_error(error):
    return "".join(traceback.format_exception_only(type(error), error)).strip()


def close_to(name, names):
    """A hint at what was probably meant."""
    close = difflib.get_close_matches(name, [str(other) for other in names], n=1)
    return f" (did you mean `{close[0]}`?)" if close else ""


def describe_type(value):
    """A short name that a person knows: DataFrame, Array, int."""
    return type(value).__name__


def shorten(text, characters_max):
    if len(text) <= characters_max:
        return text
    half = characters_max // 2 - 10
    return f"{text[:half]}\n ... \n{text[-half:]}"


def plain(value):
    """What msgpack does not know but keys and annotations may hold: numbers of NumPy, sets."""
    if hasattr(value, "item"):
        return value.item()
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    raise TypeError(f"{type(value).__name__} is not plain data")
