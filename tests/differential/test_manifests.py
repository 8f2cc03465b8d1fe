"""The same sources as manifests through `mainstay local -f`, and as scripts with a Client of the stock scheduler."""

import contextlib
import json
import sys

import pytest
from differential_tasks import Counter
from distributed import Actor, futures_of
from harness import Mainstay, await_condition
from pair import WORKERS, Side

# What `persist` takes, and the fields of the spec that mean the same.
FIELDS = {
    "optimize_graph": "optimizeGraph",
    "workers": "workers",
    "allow_other_workers": "allowOtherWorkers",
    "resources": "resources",
    "retries": "retries",
    "priority": "priority",
    "fifo_timeout": "fifoTimeout",
    "actors": "actors",
}
ARRAY = """
import dask.array as da
from differential_tasks import noting
x = da.arange(12, chunks=(4,), dtype="i4").map_blocks(noting, label=label, dtype="i4") * 2
total = x.sum()
"""
FRAME = """
import dask.dataframe as dd
import pandas as pd
from differential_tasks import noting
table = pd.DataFrame({"k": [row % 5 for row in range(40)], "v": range(40), "name": [f"n{row}" for row in range(40)]})
frame = dd.from_pandas(table, npartitions=4)
frame = frame.map_partitions(noting, label=label, meta=frame._meta).assign(w=frame.v * 2)
means = frame.groupby("k").v.mean()
"""
KINDS = """
import dask
import dask.bag as db
from dask.delayed import delayed
from differential_tasks import ran
bag = db.range(6, npartitions=2).map(lambda x: x * x)
value = delayed(ran)(label, 5, delayed(ran)(label, 1, dask_key_name=f"{label}-b"), dask_key_name=f"{label}-a")
"""
PLACES = """
from dask.delayed import delayed
from differential_tasks import where
first = [delayed(where)(label, dask_key_name=f"{label}-{index}") for index in range(4)]
places = delayed(list)(first, dask_key_name=f"{label}-places")
set_of_places = delayed(set)(first, dask_key_name=f"{label}-set")
anywhere = delayed(len)(first, dask_key_name=f"{label}-anywhere")
"""
FAILING = """
from dask.delayed import delayed
from differential_tasks import fail_first
first = delayed(fail_first)(label, params["times"], 1, dask_key_name=f"{label}-first")
second = delayed(fail_first)(label, 0, 1, first, dask_key_name=f"{label}-second")
"""
ANNOTATED = """
import dask
from dask.delayed import delayed
from differential_tasks import fail_first, where
with dask.annotate(workers="erin", retries=3):
    there = delayed(where)(label, dask_key_name=f"{label}-there")
    flaky = delayed(fail_first)(f"{label}-flaky", 3, 1, dask_key_name=f"{label}-flaky")
with dask.annotate(retries=0):
    strict = delayed(fail_first)(f"{label}-flaky", 1, 1, dask_key_name=f"{label}-strict")
with dask.annotate(resources={"TAPE": 0.1}, workers="127.0.0.2"):
    tape = delayed(where)(label, dask_key_name=f"{label}-tape")
with dask.annotate(resources={"GPU": 3}):
    stuck = delayed(where)(label, dask_key_name=f"{label}-stuck")
rest = delayed(where)(label, dask_key_name=f"{label}-rest")
"""
ACTORS = """
from dask.delayed import delayed
from differential_tasks import Counter
counter = delayed(Counter)(3, label, dask_key_name=f"{label}-counter")
other = delayed(Counter)(5, label, dask_key_name=f"{label}-other")
"""
RAISED = """
from dask.delayed import delayed
from differential_tasks import Refusal, fail
refused = delayed(fail)(label, Refusal(7, reason="closed"), dask_key_name=f"{label}-refused")
"""
# Source, collections, parameters of `persist`, and more.
CASES = {
    "array": (ARRAY, ["x", "total"], {}),
    "array-raw": (ARRAY, ["x", "total"], {"optimize_graph": False}),
    "frame": (FRAME, ["frame", "means"], {}),
    "kinds": (KINDS, ["bag", "value"], {"priority": -1.5}),
    "name": (PLACES, ["places"], {"workers": ["bob"]}),
    "names": (PLACES, ["set_of_places"], {"workers": ["bob", "nobody"], "priority": 10}),
    "host": (PLACES, ["places"], {"workers": ["127.0.0.2"]}),
    "others": (PLACES, ["anywhere"], {"workers": ["nobody"], "allow_other_workers": True}),
    "gpu": (PLACES, ["places"], {"resources": {"GPU": 2}}),
    "fraction": (PLACES, ["places"], {"resources": {"TAPE": 0.3}, "fifo_timeout": "100ms"}),
    "two-resources": (PLACES, ["places"], {"resources": {"GPU": 1, "IO": 0.5}}),
    "impossible": (PLACES, ["places"], {"resources": {"GPU": 3}}),
    "impossible-there": (PLACES, ["places"], {"resources": {"GPU": 1}, "workers": ["erin"]}),
    "no-retries": (FAILING, ["first", "second"], {}, {"times": 1}),
    "retries": (FAILING, ["first", "second"], {"retries": 2}, {"times": 2}),
    "retries-used-up": (FAILING, ["first", "second"], {"retries": 2}, {"times": 3}),
    "annotated": (ANNOTATED, ["there", "flaky", "strict", "tape", "stuck", "rest"], {"workers": ["bob"], "retries": 1}),
    "actors": (ACTORS, ["counter", "other"], {"actors": True}),
    "no-actors": (ACTORS, ["counter", "other"], {"actors": False}),
    "one-actor": (ACTORS, ["counter", "other"], {"actors": "one-actor-counter"}),
    "raised": (RAISED, ["refused"], {"retries": 1}),
}


def spec(name):
    """The manifest of a case."""
    source, collections, options, *rest = CASES[name]
    fields = {FIELDS[option]: value for option, value in options.items()}
    if "workers" in fields:
        fields["workers"] = {"names": fields["workers"]}
    if "actors" in fields:
        actors = fields["actors"]
        fields["actors"] = {"tasks": {actors: True}} if isinstance(actors, str) else {"all": actors}
    parameters = {"label": name, **(rest[0] if rest else {})}
    python = f'label = params["label"]\n{source}'
    spec = {"source": {"python": python}, "parameters": parameters, "collections": collections, **fields}
    return {"apiVersion": "mainstay.dev/v1alpha1", "kind": "PersistedCollection", "metadata": {"name": name}, "spec": spec}


def run_script(side, name):
    """What a person writes who has a Client instead: the source, and a call of `persist`."""
    source, collections, options, *rest = CASES[name]
    variables = {"label": name, "params": rest[0] if rest else {}, "__name__": "__main__"}
    exec(source, variables)
    kept = side.client.persist([variables[one] for one in collections], **options)
    return dict(zip(collections, kept))


@pytest.fixture(scope="module")
def applied(tmp_path_factory, shared):
    """A `mainstay local -f` with all cases, and the same workers as the stock scheduler."""
    folder = tmp_path_factory.mktemp("manifests")
    (folder / "all.yaml").write_text("\n---\n".join(json.dumps(spec(name)) for name in CASES))
    with contextlib.ExitStack() as stack:
        local = Mainstay(folder, "-f", "all.yaml", "--workers", "0", "--python", sys.executable, stack=stack)
        side = Side("manifest", local)
        for name, options in WORKERS.items():
            side.start_worker(name, **options)
        side.await_workers(*WORKERS)
        yield side
        side.terminate_workers()
        assert "panicked" not in local.process.output, local.process.output


@pytest.fixture
def three(applied, sides):
    """The outputs of a case: persisted with a stock scheduler, and declared."""
    stock, _ = sides

    def outputs(name):
        collections = CASES[name][1]
        wanted = {f"{name}/{one}" for one in collections}
        # Declared outputs can be read once the graph is there.
        await_condition(lambda: wanted <= set(applied.client.list_datasets()), lambda: applied.scheduler.process.output)
        with applied.client.as_current():
            declared = {one: applied.client.get_dataset(f"{name}/{one}") for one in collections}
        with stock.client.as_current():
            persisted = run_script(stock, name)
        return (stock, persisted), (applied, declared)

    yield outputs


def plain(value):
    """Something that can be compared."""
    if isinstance(value, Actor):
        return "Actor", value.increment().result()
    if isinstance(value, Counter):
        return "Counter", value.count
    return value.to_dict() if hasattr(value, "to_dict") else value.tolist() if hasattr(value, "tolist") else value


# Cases whose tasks no worker may run.
STUCK = {"impossible", "impossible-there"}


@pytest.mark.parametrize("name", [name for name in CASES if name not in STUCK])
def test_results_runs_and_places(three, name):
    def seen(side, collections):
        with side.client.as_current():
            ended = {one: kept for one, kept in collections.items() if one != "stuck"}
            states = {one: set(side.await_states(kept, "memory", "erred")) for one, kept in ended.items()}
            outcomes = {one: plain(read(side, kept)) if states[one] == {"memory"} else side.outcome(kept) for one, kept in ended.items()}
        stuck = side.await_states(collections["stuck"], "no-worker") if "stuck" in collections else None
        return states, outcomes, stuck

    (stock, persisted), (applied, declared) = three(name)
    found = [seen(stock, persisted), seen(applied, declared)]
    assert found[1] == found[0]
    for one, kept in persisted.items():
        assert described(declared[one]) == described(kept)
    for label in (name, f"{name}-flaky"):
        assert counts(applied, label) == counts(stock, label)
    options = CASES[name][2]
    if name != "annotated" and not options.get("allow_other_workers"):
        assert set(stock.ran_on(name)) <= allowed(options) and set(applied.ran_on(name)) <= allowed(options)


def read(side, kept):
    [future, *more] = futures_of(kept)
    return future.result() if not more and "Counter" in str(future.type) else side.result(kept)


def counts(side, label):
    """How often things ran: keys may be others where an optimisation is another."""
    return sorted(side.runs(label).values())


def allowed(options):
    offers = {"alice": {"GPU": 2, "IO": 1}, "bob": {"IO": 0.5}, "dora": {}, "erin": {"TAPE": 0.3}}
    names = {"erin" if name == "127.0.0.2" else name for name in options.get("workers") or offers}
    return {name for name in names if all(offers[name].get(one, 0) >= amount for one, amount in (options.get("resources") or {}).items())}


def described(kept):
    """What is known of a collection without computing it."""
    names = ("chunks", "dtype", "divisions", "npartitions", "columns")
    if type(kept).__name__ == "Delayed":
        return "Delayed"
    found = {name: getattr(kept, name) for name in names if hasattr(kept, name)}
    if "columns" in found:
        found["columns"] = list(found["columns"])
    return type(kept).__name__, found, str(getattr(kept, "dtypes", None))


@pytest.mark.parametrize("name", sorted(STUCK))
def test_what_no_worker_may_run_waits(three, name):
    def seen(side, collections):
        keys = [f"{name}-{index}" for index in range(4)]
        await_condition(lambda: set(side.states_of(keys)) == {"no-worker"}, lambda: side.states_of(keys))
        return side.states(collections["places"]), futures_of(collections["places"])[0].status, side.count(name)

    (stock, persisted), (applied, declared) = three(name)
    assert seen(applied, declared) == seen(stock, persisted) == (["waiting"], "pending", 0)


def test_work_on_what_is_declared_computes_nothing_again(three):
    (_, persisted), (applied, declared) = three("frame")
    with applied.client.as_current():
        before = applied.count("frame")
        assert applied.result(declared["frame"].loc[3:5]).v.tolist() == [3, 4, 5]
        assert applied.result(declared["frame"].partitions[2].w.sum()) == sum(range(40, 60, 2))
        assert declared["frame"].divisions == persisted["frame"].divisions
        assert applied.count("frame") == before == 4
