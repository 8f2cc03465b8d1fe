"""Manifests through `mainstay local`, read by an unmodified Client; the same source without a scheduler says what is right."""

import base64
import contextlib
import re

import dask
import distributed
import numpy as np
import pandas as pd
import pytest
from conformance_tasks import runs
from distributed import Client, futures_of, wait
from harness import Mainstay, await_condition, run_local

ARRAYS = """
import dask.array as da

x = da.random.default_rng(params["seed"]).normal(size=(300, 50), chunks=(100, 50))
correlation = da.corrcoef(x, rowvar=False)
total = x.sum()
"""
FRAMES = """
import dask.dataframe as dd
import pandas as pd

table = pd.DataFrame({"k": [n % 7 for n in range(200)], "v": range(200)})
lazy = dd.from_pandas(table, npartitions=5)
cleaned = lazy[lazy.v > 10].assign(w=lambda t: t.v * 2)
by_k = cleaned.groupby("k").agg({"v": "mean", "w": "max"})
indexed = lazy.set_index("v", sorted=True).rename(columns=str.upper)
shuffled = lazy.shuffle("k")
joined = lazy.merge(cleaned, on="v")
"""
ALL_KINDS = """
import dask
import dask.bag as db

def is_prime(number):
    return number > 1 and all(number % divisor for divisor in range(2, int(number**0.5) + 1))

class Model:
    def __init__(self, factor):
        self.factor = factor

@dask.delayed
def fit(numbers):
    return Model(sum(numbers))

primes = db.range(100, npartitions=4).filter(is_prime)
model = fit([1, 2, 3])
both = {"primes": primes.count(), "nested": [dask.delayed(len)("four"), 5]}
plain = {"threshold": 0.5, "names": ("a", "b")}
nothing = None
"""
COMPUTES = """
import dask.array as da
import dask.dataframe as dd
import pandas as pd

total = int(da.ones(100, chunks=10).sum().compute())
frame = dd.from_pandas(pd.DataFrame({"a": [3, 1, 2] * 20}), npartitions=4)
rows = len(frame)
indexed = frame.set_index("a")
"""


def indent(text, spaces=6):
    return "".join(f"{' ' * spaces}{line}\n" for line in text.strip().splitlines())


def collection(name, source, collections, **fields):
    extra = "".join(f"  {field}: {value}\n" for field, value in fields.items())
    body = source if source.startswith("  source:") else f"  source:\n    python: |\n{indent(source)}"
    return (f"apiVersion: mainstay.dev/v1alpha1\nkind: PersistedCollection\nmetadata: {{name: {name}}}\nspec:\n{body}"
            f"  collections: [{', '.join(collections)}]\n{extra}---\n")


def manifest(notes):
    secret = base64.b64encode(b"hidden = params['word'] * 2").decode()
    return "".join([
        collection("arrays", ARRAYS, ["x", "correlation", "total"], parameters="{seed: 7}", retries=2, priority=10),
        collection("arrays-raw", ARRAYS, ["total"], parameters="{seed: 7}", optimizeGraph="false"),
        collection("frames", FRAMES, ["cleaned", "by_k", "indexed", "shuffled", "joined"], resources="{GPU: 1}",
                   optimizeOptions="{fuse: false}"),
        collection("kinds", ALL_KINDS, ["primes", "model", "both", "plain", "nothing"]),
        collection("computes", COMPUTES, ["total", "rows", "indexed"]),
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: pipelines}\n"
        f"data:\n  squares.py: |\n{indent('import dask.array as da' + chr(10) + 'squares = da.arange(10, chunks=3) ** 2', 4)}---\n",
        f"apiVersion: v1\nkind: Secret\nmetadata: {{name: private}}\ndata: {{word.py: {secret}}}\n---\n",
        collection("from-config", "  source: {pythonFrom: {configMapKeyRef: {name: pipelines, key: squares.py}}}\n", ["squares"]),
        collection("from-secret", "  source: {pythonFrom: {secretKeyRef: {name: private, key: word.py}}}\n", ["hidden"],
                   parameters="{word: ab}"),
        collection("entry", '  source: {entrypoint: {callable: "conformance_sources:build", args: [5], kwargs: {step: 2}}}\n',
                   ["numbers", "mean"], parameters="{offset: 1}"),
        collection("sum-of-inputs", "doubled = base * 2\ntotal = doubled.sum()\n", ["doubled", "total"],
                   inputs="{base: {persistedCollection: arrays, output: x}}"),
        collection("inline", f"""  source:
    tasks:
    - {{key: a, call: "conformance_tasks:inc", args: [1]}}
    - {{key: b, call: "conformance_tasks:inc", args: [{{task: a}}], resources: {{GPU: 1}}}}
    - {{key: c, call: "conformance_tasks:fail_first", args: ["{notes}/inline", 2], retries: 2}}
    - {{key: sum, call: "conformance_tasks:total", args: [[{{task: a}}, {{task: b}}, {{task: c}}]]}}
    - {{key: model, call: "conformance_tasks:Counter", kwargs: {{start: {{task: sum}}}}, actor: true}}
""", ["sum", "model", "b"]),
        collection("selected", "import dask\nwhere = dask.delayed(lambda: __import__('distributed').get_worker().name)()",
                   ["where"], workers="{names: [worker-1]}"),
        collection("labelled", "import dask.array as da\nx = da.ones(4, chunks=2)", ["x"],
                   workers="{matchLabels: {disk: nvme}, matchExpressions: [{key: zone, operator: In, values: [a, b]}]}"),
        collection("preferred", "import dask.array as da\nx = da.ones(4, chunks=2) + 1", ["x"],
                   workers="{matchLabels: {disk: tape}}", allowOtherWorkers="true", fifoTimeout="100ms"),
        collection("retried", f"import dask, conformance_tasks\nruns = dask.delayed(conformance_tasks.fail_first)('{notes}/retried', 3)",
                   ["runs"], retries=3),
        collection("actors", "import dask, conformance_tasks\ncounter = dask.delayed(conformance_tasks.Counter)(40)", ["counter"],
                   actors="{all: true}"),
    ])


def variables(source, **params):
    """What the source defines, evaluated here."""
    namespace = {"params": params}
    with dask.config.set({"dataframe.shuffle.method": "tasks"}):
        exec(source, namespace)
    return namespace


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    folder = tmp_path_factory.mktemp("local")
    (folder / "notes").mkdir()
    (folder / "all.yaml").write_text(manifest(folder / "notes"))
    with contextlib.ExitStack() as stack:
        mainstay = Mainstay(folder, "-f", "all.yaml", "--workers", "2", "--threads", "1", "--resources", "GPU=1",
                            "--labels", "disk=nvme,zone=b", stack=stack)
        mainstay.process.await_output("^Serving until stopped")
        yield mainstay


@pytest.fixture
def client(local):
    with Client(local.address) as client:
        yield client


def alone(value):
    return dask.compute(value, scheduler="synchronous")[0]


def test_all_are_persisted(local, client):
    output = local.process.output
    assert "cannot be built" not in output and "failed after" not in output, output
    names = set(client.list_datasets())
    assert {"arrays", "arrays/x", "arrays/correlation", "arrays/total", "arrays-raw", "arrays-raw/total"} <= names
    for name in names:
        kept = client.get_dataset(name)
        wait(kept)


def test_arrays(client):
    expected = variables(ARRAYS, seed=7)
    for name in ("x", "correlation", "total"):
        np.testing.assert_allclose(client.get_dataset(f"arrays/{name}").compute(), alone(expected[name]))
    np.testing.assert_allclose(client.get_dataset("arrays-raw").compute(), alone(expected["total"]))
    x = client.get_dataset("arrays/x")
    np.testing.assert_allclose((x.T @ x).compute(), alone(expected["x"].T @ expected["x"]))


def test_all_outputs_of_a_collection_together(client):
    kept = client.get_dataset("arrays")
    assert set(kept) == {"x", "correlation", "total"}
    np.testing.assert_allclose(kept["total"].compute(), kept["x"].compute().sum())


@pytest.mark.skipif(distributed.__version__ < "2026.6.0", reason="Clients take one name")
def test_outputs_of_several_collections_together(client):
    assert client.get_dataset(["arrays/x", "arrays-raw"])[0].shape == (300, 50)


def test_dataframes(client):
    expected = variables(FRAMES)
    for name in ("cleaned", "by_k", "indexed"):
        found = client.get_dataset(f"frames/{name}")
        pd.testing.assert_frame_equal(found.compute().sort_index(), alone(expected[name]).sort_index())
    assert client.get_dataset("frames/indexed").divisions == expected["indexed"].divisions
    for name in ("shuffled", "joined"):
        found = client.get_dataset(f"frames/{name}").compute().sort_values("v").reset_index(drop=True)
        pd.testing.assert_frame_equal(found, alone(expected[name]).sort_values("v").reset_index(drop=True))
    # And on top of what is in memory.
    top = client.get_dataset("frames/cleaned").groupby("k").w.sum().compute().sort_index()
    pd.testing.assert_series_equal(top, alone(expected["cleaned"]).groupby("k").w.sum())


def test_other_kinds(client):
    assert client.get_dataset("kinds/primes").compute()[:5] == [2, 3, 5, 7, 11]
    assert client.get_dataset("kinds/model").compute().factor == 6
    assert client.get_dataset("kinds/plain").compute() == {"threshold": 0.5, "names": ("a", "b")}
    assert client.get_dataset("kinds/nothing").compute() is None
    both = client.get_dataset("kinds/both")
    assert alone_with(client, both) == {"primes": 25, "nested": [4, 5]}


def alone_with(client, value):
    return dask.compute(value, scheduler=client)[0]


def test_sources_that_compute_while_they_are_evaluated(client):
    assert client.get_dataset("computes/total").compute() == 100
    assert client.get_dataset("computes/rows").compute() == 60
    assert client.get_dataset("computes/indexed").index.compute().tolist() == [1] * 20 + [2] * 20 + [3] * 20


def test_texts_of_other_objects_and_functions_of_modules(client):
    assert client.get_dataset("from-config").compute().tolist() == [n**2 for n in range(10)]
    assert client.get_dataset("from-secret").compute() == "abab"
    assert client.get_dataset("entry/numbers").compute().tolist() == [1, 3, 5]
    assert client.get_dataset("entry/mean").compute() == 3


def test_inputs_are_the_other_collections_keys(client):
    x = alone(variables(ARRAYS, seed=7)["x"])
    np.testing.assert_allclose(client.get_dataset("sum-of-inputs/total").compute(), x.sum() * 2)
    np.testing.assert_allclose(client.get_dataset("sum-of-inputs/doubled").compute(), x * 2)


def test_inline_tasks_and_actors(client, local):
    assert client.get_dataset("inline/sum").compute() == 2 + 3 + 3
    assert runs(local.folder / "notes/inline") == 3
    [future] = futures_of(client.get_dataset("inline/model"))
    counter = future.result()
    assert counter.increment().result() == 9
    [future] = futures_of(client.get_dataset("actors"))
    assert future.result().increment(2).result() == 42


def test_where_and_how_often(client, local):
    assert client.get_dataset("selected").compute() == "worker-1"
    assert client.get_dataset("labelled").sum().compute() == 4
    assert client.get_dataset("preferred").sum().compute() == 8
    assert client.get_dataset("retried").compute() == 4 == runs(local.folder / "notes/retried")


def test_declared_datasets_are_not_a_clients_to_change(client):
    with pytest.raises(KeyError, match="declared by the PersistedCollection"):
        client.publish_dataset(7, name="arrays")
    with pytest.raises(Exception, match="belongs to a PersistedCollection"):
        client.unpublish_dataset("arrays/x")
    assert client.get_dataset("arrays/x").shape == (300, 50)


def test_what_is_released_stays_while_it_is_declared(client, local):
    x = client.get_dataset("arrays/x")
    keys = [future.key for future in futures_of(x)]
    x.sum().compute()
    client.cancel(x)
    del x
    with Client(local.address, set_as_default=False) as other:
        assert all(other.who_has(keys).values())


def test_a_killed_worker_is_replaced_and_its_results_made_again(client, local):
    """The last test: actors do not survive this."""
    import os
    import signal

    pids = client.run(os.getpid)
    os.kill(pids.popitem()[1], signal.SIGKILL)
    expected = variables(ARRAYS, seed=7)

    def others():
        # The dead one may still be among those that are asked.
        return set(client.run(os.getpid, on_error="ignore").values()) - set(pids.values())

    await_condition(lambda: len(client.nthreads()) == 2 and others(), "another worker takes its place")
    x = client.get_dataset("arrays/x")
    wait(x)
    np.testing.assert_allclose(x.compute(), alone(expected["x"]))


def test_once_ends_with_success(tmp_path):
    text = collection("numbers", "import dask.array as da\nx = da.arange(10, chunks=5)\ntotal = x.sum()", ["x", "total"])
    run = run_local(tmp_path / "once", text, "--workers", "1", "--builder")
    assert run.wait() == 0, run.output
    assert re.search(r"^numbers/x: Array, 2 keys, 80 B$", run.output, re.MULTILINE), run.output


def test_an_interrupt_ends_workers_too(tmp_path):
    import signal

    text = collection("numbers", "import dask.array as da\nx = da.arange(10, chunks=5)", ["x"])
    with contextlib.ExitStack() as stack:
        folder = tmp_path / "run"
        folder.mkdir()
        (folder / "c.yaml").write_text(text)
        mainstay = Mainstay(folder, "-f", "c.yaml", "--workers", "1", stack=stack)
        mainstay.process.await_output("^Serving until stopped")
        with Client(mainstay.address) as client:
            [pid] = client.run(__import__("os").getpid).values()
            mainstay.process.child.send_signal(signal.SIGINT)
            assert mainstay.process.wait() == 0
        await_condition(lambda: not is_running(pid), "the worker has ended")


def is_running(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().split(")")[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
