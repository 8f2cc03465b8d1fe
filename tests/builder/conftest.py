"""Runs src/server/builder/ the way Mainstay does, on a stock scheduler with stock workers in processes of their own.

No Mainstay binary takes part: the request goes straight to a worker's RPC server, and the built tasks are run by the
stock scheduler, or by hand.
"""

import array
import itertools
import operator
import pathlib
import pickle
import sys

import dask
import msgpack
import pytest
from dask._task_spec import Dict, List, Task, TaskRef
from dask.utils import apply
from distributed import Client, Future, LocalCluster, futures_of
from distributed.protocol import deserialize
from distributed.protocol.pickle import loads
from distributed.shuffle._core import P2PBarrierTask

FOLDER = pathlib.Path(__file__).parents[2] / "src/server/builder"
# Each after those that it imports, as in src/server/builder.rs.
FILES = ["errors", "annotations", "run_specs", "shuffles", "document", "graph", "tasks", "sources", "serve"]

BOOTSTRAP = "(lambda names: (exec(loader, names), names['load'](package, files))[1])({})"


def function_pickle():
    """The pickle of `eval(BOOTSTRAP, {"loader": …, "package": …, "files": …})`."""

    class Call:
        def __reduce__(self):
            files = [(name, (FOLDER / f"{name}.py").read_text()) for name in FILES]
            loader = (FOLDER / "load.py").read_text()
            return eval, (BOOTSTRAP, {"loader": loader, "package": "_mainstay_builder_test", "files": files})

    return pickle.dumps(Call())


@pytest.fixture(scope="session")
def cluster():
    # Spawned workers take over the path of this process.
    sys.path.insert(0, str(pathlib.Path(__file__).parent / "modules"))
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None, host="127.0.0.1") as cluster:
        yield cluster


@pytest.fixture(scope="session")
def client(cluster):
    with Client(cluster) as client:
        yield client


class Builder:
    """Asks a worker's builder and runs what it gives."""

    def __init__(self, client):
        self.client = client
        self.workers = list(client.nthreads())

    def ask(self, operation, request, worker=0):
        async def call():
            async with self.client.rpc(self.workers[worker]) as worker_rpc:
                return await worker_rpc.run_coroutine(
                    function=function_pickle(), args=pickle.dumps((operation, msgpack.packb(request))), wait=True
                )

        answer = self.client.sync(call)
        assert answer["status"] == "OK", answer
        result = answer["result"]
        assert type(result) is bytes
        document = msgpack.unpackb(result, use_list=False, strict_map_key=False)
        assert document["version"] == 3
        return document if "error" in document else document | {"tasks": tuple(rows(document))}

    def python(self, source, *collections, worker=0, **request):
        return self.ask(
            "build",
            {"kind": "python", "name": "daily-sales", "source": source, "collections": list(collections), **request},
            worker,
        )

    def persist(self, document, wanted=None):
        """Runs the tasks on the stock scheduler; gives the futures that keep the results."""
        assert "error" not in document, document["error"]
        keys = document["keys"]
        # Results made elsewhere are there already.
        graph = {key: Future(key, self.client) for key in keys[len(document["tasks"]) :]}
        for key, task in zip(keys, document["tasks"]):
            graph[key] = loads(task[5])
            assert graph[key].dependencies == {keys[index] for index in task[0]}
        for shuffle in document["shuffles"]:
            # A stock scheduler wants to see the spec; from Mainstay workers get it.
            barrier = f"shuffle-barrier-{shuffle['id']}"
            graph[barrier] = P2PBarrierTask(barrier, graph[barrier].func, *graph[barrier].args, spec=loads(shuffle["spec"]))
        wanted = wanted or [keys[index] for output in document["outputs"] for index in output["keys"]]
        actors = tuple(key for key, task in zip(keys, document["tasks"]) if task[3])
        return dict(zip(wanted, self.client.get(graph, wanted, sync=False, actors=actors or None)))

    def read(self, document):
        """What a stock Client gets from the datasets, once the keys are there."""
        futures = self.persist(document)
        result = {name: dask.compute(self.dataset(output))[0] for name, output in outputs(document).items()}
        del futures
        return result

    def dataset(self, output):
        """What `Client.get_dataset` gives."""
        collection = deserialize(output["header"], [bytes(frame) for frame in output["frames"]])
        for future in futures_of(collection):
            future.bind_client(self.client)
        return collection


def rows(document):
    """For each task: dependencies, order, data producer, actor, annotation, run spec, name."""
    columns = {"forms": "I", "starts": "I", "lengths": "I", "flags": "B", "dependency_counts": "I", "annotations": "I", "order": "q"}
    columns = [array.array(size, document[name]) for name, size in columns.items()]
    dependencies = iter(array.array("I", document["dependencies"]))
    names = document["names"] or [None] * document["tasks"]
    keys = document["keys"]
    for key, name, form, start, length, flags, count, annotation, order in zip(keys, names, *columns):
        places = list(itertools.islice(dependencies, count))
        run_spec = put_together(document, key, form, document["blobs"][start : start + length], [keys[n] for n in places])
        yield [places, order, bool(flags & 1), bool(flags & 2), annotation - 1 if annotation else None, run_spec, name]


class Call:
    """Pickles as a call."""

    def __init__(self, function, *args):
        self.function, self.args = function, args

    def __reduce__(self):
        return self.function, self.args


def put_together(document, key, form, blob, dependencies):
    """What src/wire/pickle/run_spec.rs makes of the pieces."""
    flags, head, imports = document["forms_table"][form]
    names = dependencies if flags & 1 else range(len(dependencies))
    values = [Call(Dict, *itertools.chain(*zip(names, map(TaskRef, dependencies))))] if dependencies else []
    if flags & 2:
        return pickle.dumps(Call(Task, key, Call(pickle.loads, document["run_coroutine"]), head + blob, *values))
    task = Call(Task, None, pickle.loads, head + blob)
    if imports:
        task = Call(operator.getitem, (Call(exec, imports, {}), task), 1)
    if document["operator_call"]:
        return pickle.dumps(Call(Task, key, operator.call, task, *values))
    return pickle.dumps(Call(Task, key, apply, task, Call(List, *values)))


def outputs(document):
    return {output["name"]: output for output in document["outputs"]}


@pytest.fixture(scope="session")
def builder(client):
    return Builder(client)
