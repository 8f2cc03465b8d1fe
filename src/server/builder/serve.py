"""The part of Mainstay that runs in Python: on a stock Dask worker, to turn sources into task graphs.

Mainstay never unpickles anything, so whatever needs Python happens here: a PersistedCollection's source becomes
keys, dependencies and opaque pickles (`build`), and so does the graph that a Client submits (`lower`).
These files are not installed anywhere. Mainstay sends their text to a worker through the worker's RPC `run_coroutine`
(src/server/builder.rs assembles that call), whose `function` is a pickle that evaluates to `load(...)` and so to `serve`:

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
    tasks               [{key, call, args, kwargs, retries, priority, resources, workers, allowOtherWorkers, actor}];
                        workers is a selector, which goes into the document as it is
    parameters          `params` in the source
    inputs              {variable: [header, frames]}, another collection's output as this one's document had it
    collections         the names to persist
    optimize_graph, optimize_options, actors {all, tasks}
    limits              {tasks, bytes}, optional
The request of `lower`: expr [header, frames], keys, annotations (a pickle), internal_priority ([[key, int]] or nil),
actors (nil, bool or keys), limits.
The request of `watch`: setup (the pickle of a progress bar's function). Its document: version, and error or keys,
complete, by_prefix.
The request of `dump`: state, url, format, storage_options. Its document: version, and error if it could not be written.

The document: version, then either `error` {kind, message, traceback, line, exception} or
    keys                every key: first those of the tasks, in their order, then those made elsewhere
    tasks               how many there are
    forms, starts, lengths      32 bits each for every task: its form, and where its blob is in `blobs`
    flags               8 bits each: 1 for a data producer, 2 for an actor
    dependency_counts   32 bits each
    annotations         32 bits each: a place in `annotation_table`, counted from 1, or 0
    order               64 bits each
    dependencies        32 bits each: places in `keys`, those of one task after those of another, in the order in which
                        its blob numbers them
    names               nil, or for each task nil or the manifest's key of an inline task
    forms_table         [[flags, head, text of imports or nil]], what run specs have in common: see `run_specs.py`
    blobs               the different blobs, one after the other
    operator_call       whether workers have `operator.call`
    run_coroutine       the pickle of the function that runs blobs of coroutine functions; nil if there are none
    annotation_table    [{retries, priority, workers, allow_other_workers, resources, executor}]
    wanted              what `lower` was asked for: places in `keys`, 32 bits each
    outputs             [{name, type, keys (indices), header, frames, npartitions, structure}], empty for `lower`;
                        structure is nil, or for a container of collections a text that is equal for equal ones
    shuffles            [{id, spec, axes, partitions, outputs, places}], the peer-to-peer shuffles: the pickle of the spec;
                        all output partitions, 64 bits each, or for each of `axes` unless that is nil; places in `keys` of
                        tasks that take one, and the place of what they take, 32 bits each
    statistics          {phase: seconds}
"""

import asyncio
import contextlib
import contextvars
import functools
import pickle
import sys
import threading

import distributed
import msgpack
from dask.utils import key_split
from distributed import Client, Future, wait
from distributed.cluster_dump import write_state
from distributed.protocol.serialize import merge_and_deserialize
from distributed.worker import _worker_cvar

from .annotations import plain, value_for
from .document import Clock, collector_pause, document
from .errors import Refused, describe, describe_error
from .graph import Graph, refuse_options
from .run_specs import import_packages_of
from .sources import call_entrypoint, run_source
from .tasks import graph_of_tasks

if sys.version_info < (3, 12):
    # Up to Python 3.11 the cached properties of a class compute one value at a time, whatever the instance. Dask's expressions
    # have them call one another, so that two graphs in the making could wait for each other for ever. As Python 3.12 has it:
    functools.cached_property.lock = property(lambda _: contextlib.nullcontext(), lambda *_: None)

VERSION = 3
# How long futures that a source made are kept for the graph that needs them.
HOLD_SECONDS = 60

# Whether this thread evaluates a source.
in_source = contextvars.ContextVar("in_source", default=False)
default_client_elsewhere = distributed.default_client


def default_client(given=None):
    """In a source, the worker's own Client, as `get_client()` gives it.

    Dask looks for a default Client to decide how to shuffle and what to lock with; without one it would take this process
    for the only one, and shuffle through its disk.
    """
    return distributed.get_client() if in_source.get() and not given else default_client_elsewhere(given)


distributed.default_client = default_client


async def serve(operation, request, dask_worker=None):
    """Answers one request; the entry point of the worker's RPC."""
    loop = asyncio.get_running_loop()
    answer = loop.create_future()

    def settle(document):
        if not answer.done():
            answer.set_result(document)

    def work():
        # As in a task: `get_client()`, and so `.compute()`, in a source mean the worker's own Client.
        _worker_cvar.set(dask_worker)
        in_source.set(operation == "build")
        document = respond(operation, request)
        loop.call_soon_threadsafe(settle, document)

    # A daemon, because a source that never ends must not keep the worker from exiting.
    threading.Thread(target=work, name=f"mainstay-{operation}", daemon=True).start()
    return await answer


def respond(operation, request):
    """One request in, one document out, whatever happens."""
    filename = None
    try:
        request = msgpack.unpackb(request, use_list=operation == "build", strict_map_key=False)
        filename = f"{request.get('name') or 'source'}.py"
        answer = {"build": build, "lower": lower, "watch": watch, "dump": dump}[operation](request)
        return msgpack.packb({"version": VERSION, **answer}, default=plain)
    except BaseException as error:  # a source may raise SystemExit too
        return msgpack.packb({"version": VERSION, "error": describe(error, filename)}, default=plain)


def build(request):
    """The graph of a PersistedCollection."""
    clock = Clock()
    for _, frames in (request.get("inputs") or {}).values():
        import_packages_of(frames)
    inputs = {variable: merge_and_deserialize(*data) for variable, data in (request.get("inputs") or {}).items()}
    names = request.get("collections") or []
    if request["kind"] == "tasks":
        refuse_options(request.get("optimize_options") or {}, "inline tasks are not optimised")
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
    with collector_pause:
        answer = document(graph, clock, request.get("limits") or {})
    hold(answer["keys"][answer["tasks"] :])
    return answer


def watch(request):
    """What the function of a progress bar counts; a stock scheduler would run it in itself."""
    setup = pickle.loads(request["setup"])
    names = setup.__code__.co_freevars if hasattr(setup, "__code__") else ()
    found = {name: cell.cell_contents for name, cell in zip(names, setup.__closure__ or ())} if names else {}
    if "keys" not in found or found.get("group_by", key_split) is not key_split:
        raise Refused("Unsupported", "only bars of keys, or of groups by the name of the key, are supported")
    return {"keys": list(found["keys"]), "complete": bool(found.get("complete")), "by_prefix": "group_by" in found}


def dump(request):
    """Writes the state of everything to a URL: a worker has the packages for it, and may write there."""

    async def state():
        return request["state"]

    asyncio.run(write_state(state, request["url"], request["format"], **request["storage_options"]))
    return {}


def hold(keys):
    """Waits for what a source persisted itself, and keeps it until Mainstay has the graph that needs these keys.

    Until the results are there, Mainstay may still be at the graph that makes them, and not know the keys.
    """
    try:
        client = Client.current()
    except ValueError:
        return  # nothing here made futures: they are other collections'
    futures = [Future(key, client) for key in keys if key in client.futures]
    if futures:
        wait(futures)
        timer = threading.Timer(HOLD_SECONDS, futures.clear)
        timer.daemon = True
        timer.start()


def lower(request):
    """The graph that a Client submitted: what a stock scheduler does in `update_graph` before it schedules."""
    with collector_pause:
        return lower_graph(request, Clock())


def lower_graph(request, clock):
    if not request["keys"]:
        return document(Graph(), clock, {})
    try:
        import_packages_of(request["expr"][1])
        expression = merge_and_deserialize(*request["expr"])
    except Exception as error:
        # The words of a stock scheduler, which Clients know.
        raise RuntimeError(
            "Error during deserialization of the task graph. This frequently occurs if the workers and the Client "
            f"have different environments. {describe_error(error)}"
        ) from error
    clock.phase("read")
    graph = Graph()
    # A Client that wants nothing but keys that are there sends a dict, which is empty.
    is_dict = isinstance(expression, dict)
    graph.raw = expression if is_dict else expression.__dask_graph__()
    defaults = pickle.loads(request["annotations"]) if request.get("annotations") else {}
    for name, value in defaults.items():
        graph.annotate(name, {key: value_for(name, value, key) for key in graph.raw})
    for name, by_key in ({} if is_dict else expression.__dask_annotations__() or {}).items():
        graph.annotate(name, by_key)
    keys = list(request["keys"])
    graph.outputs = [(None, None, None, keys)]
    actors = request.get("actors")
    graph.actors = set(keys) if actors is True else set(actors or ())
    for key in graph.actors:
        if key not in graph.raw and key not in keys:
            raise KeyError(key)  # as a stock scheduler does
    graph.order = dict(request.get("internal_priority") or ()) or None
    return document(graph, clock, request.get("limits") or {})
