"""Tasks that a manifest spells out."""

import copy
import os
import pathlib
import pickle
import subprocess
import sys

import pytest
from conftest import outputs

LOAD = {"key": "load-0", "call": "acme.io:load", "args": ["part"]}
ADD = {"key": "sum", "call": "acme.io:add", "args": [{"task": "load-0"}, 10], "kwargs": {"bonus": {"task": "load-0"}}}


def build(builder, *tasks, label="uid-1", collections=(), worker=0, **request):
    return builder.ask(
        "build",
        {
            "kind": "tasks",
            "name": "nightly",
            "label": label,
            "tasks": list(tasks),
            "collections": list(collections),
            **request,
        },
        worker,
    )


def test_results_flow_from_task_to_task(builder):
    document = build(builder, ADD, LOAD)
    assert builder.read(document) == {"sum": 18}
    assert {task[6] for task in document["tasks"]} == {"load-0", "sum"}
    assert [output["type"] for output in document["outputs"]] == ["Delayed"]


def test_references_inside_lists_and_maps(builder):
    total = {
        "key": "total",
        "call": "acme.io:total",
        "args": [{"parts": [{"task": "load-0"}, 1], "extra": {"value": {"task": "load-0"}}}],
    }
    assert builder.read(build(builder, LOAD, total)) == {"total": 9}


def test_named_tasks_are_kept_and_others_culled(builder):
    other = {"key": "other", "call": "acme.io:load", "args": ["x"]}
    document = build(builder, LOAD, ADD, other, collections=["load-0"])
    assert builder.read(document) == {"load-0": 4}
    assert len(document["tasks"]) == 1
    assert builder.read(build(builder, LOAD, ADD, other)) == {"sum": 18, "other": 1}


def test_keys_are_those_of_the_object_and_of_what_is_written(builder):
    def keys(document):
        return {task[6]: key for key, task in zip(document["keys"], document["tasks"])}

    first = keys(build(builder, LOAD, ADD))
    assert keys(build(builder, ADD, LOAD, worker=1)) == first
    elsewhere = keys(build(builder, LOAD, ADD, label="uid-2"))
    assert not set(first.values()) & set(elsewhere.values())
    changed = copy.deepcopy(ADD) | {"args": [1]}
    second = keys(build(builder, LOAD, changed))
    assert second["load-0"] == first["load-0"] and second["sum"] != first["sum"]
    changed = LOAD | {"kwargs": {"scale": 2}}
    third = keys(build(builder, changed, ADD))
    assert third["load-0"] != first["load-0"] and third["sum"] != first["sum"]


def test_changing_only_how_a_task_runs_keeps_its_key(builder):
    before = build(builder, LOAD, ADD)
    after = build(builder, LOAD | {"retries": 5, "priority": 2}, ADD)
    assert before["keys"] == after["keys"]


def test_requirements_of_single_tasks(builder):
    task = LOAD | {
        "retries": 5,
        "priority": 1.5,
        "resources": {"GPU": 1},
        "workers": {"match_labels": {"disk": "nvme"}, "match_expressions": [], "names": ["w-0"]},
        "allowOtherWorkers": True,
    }
    document = build(builder, task, ADD)
    by_name = {task[6]: task for task in document["tasks"]}
    assert by_name["sum"][4] is None
    assert document["annotation_table"] == (
        {
            "retries": 5,
            "priority": 1.5,
            "workers": {"match_labels": {"disk": "nvme"}, "match_expressions": (), "names": ("w-0",)},
            "resources": {"GPU": 1},
            "allow_other_workers": True,
        },
    )


def test_an_actor(builder):
    counter = {"key": "counter", "call": "acme.io:Counter", "args": [3], "actor": True}
    document = build(builder, counter)
    assert [output["type"] for output in document["outputs"]] == ["Actor"]
    futures = builder.persist(document)
    actor = builder.dataset(outputs(document)["counter"]).compute()
    assert actor.increment().result() == 4
    del futures
    assert build(builder, counter | {"actor": False}, actors={"tasks": {"counter": True}})["tasks"][0][3]


def test_inputs_of_tasks(builder):
    first = builder.python("import dask.array as da\nx = da.arange(4, chunks=2)", "x")
    futures = builder.persist(first)
    data = [outputs(first)["x"]["header"], outputs(first)["x"]["frames"]]
    task = {"key": "length", "call": "builtins:len", "args": [{"input": "x"}]}
    document = build(builder, task, inputs={"x": data})
    assert builder.read(document) == {"length": 4}
    del futures


def test_an_input_of_tasks_may_be_a_container(builder):
    source = """
import dask, dask.bag as db, dask.dataframe as dd, pandas as pd
frame = dd.from_pandas(pd.DataFrame({"a": range(6)}), npartitions=3)
x = {"frame": frame, "all": [db.range(4, npartitions=2), dask.delayed(len)("ab"), (frame.a.sum(), 5)]}
plain = {"limit": 3}
"""
    first = builder.python(source, "x", "plain")
    futures = builder.persist(first)
    inputs = {name: [output["header"], output["frames"]] for name, output in outputs(first).items()}
    tasks = [
        {"key": "frame", "call": "operator:getitem", "args": [{"input": "x"}, "frame"]},
        {"key": "all", "call": "operator:getitem", "args": [{"input": "x"}, "all"]},
        {"key": "limit", "call": "operator:getitem", "args": [{"input": "plain"}, "limit"]},
    ]
    read = builder.read(build(builder, *tasks, inputs=inputs))
    assert list(read.pop("frame").a) == list(range(6))
    assert read == {"all": [[0, 1, 2, 3], 2, (15, 5)], "limit": 3}
    del futures


def test_tasks_keep_their_keys_while_their_inputs_are_the_same(builder):
    source = "import dask.array as da\nx = {'a': da.arange(4, chunks=2), 'b': [da.ones(3, chunks=1), 5]}\ny = da.ones(2)"
    first = builder.python(source, "x", "y")
    inputs = {name: [output["header"], output["frames"]] for name, output in outputs(first).items()}
    task = {"key": "lengths", "call": "builtins:len", "args": [[{"input": "x"}, {"input": "y"}]]}

    def key(worker):
        document = build(builder, task, inputs=inputs, worker=worker)
        return [document["keys"][index] for index in outputs(document)["lengths"]["keys"]]

    assert key(0) == key(1)


def test_a_missing_module_fails_the_task_and_not_the_worker(builder, client):
    document = build(builder, {"key": "gone", "call": "lacking_module:f"}, {"key": "odd", "call": "acme.io:lod"})
    futures = {task[6]: builder.persist(document)[key] for key, task in zip(document["keys"], document["tasks"])}
    with pytest.raises(ModuleNotFoundError, match="lacking_module"):
        futures["gone"].result()
    with pytest.raises(AttributeError, match="module 'acme.io' has no attribute 'lod'"):
        futures["odd"].result()
    assert len(client.nthreads()) == 2


@pytest.mark.parametrize("has_package", [True, False])
def test_packages_are_imported_where_run_specs_are_decoded(builder, has_package):
    """In the event loop and from the top: threads that unpickle their first tasks at once get half of a package."""
    document = builder.python("from acme.io import load\nfrom dask import delayed\nx = delayed(load)('part-0')", "x")
    decode = "import pickle, sys; pickle.loads(sys.stdin.buffer.read()); print('acme' in sys.modules)"
    path = str(pathlib.Path(__file__).parent / "modules") if has_package else ""
    environment = {**os.environ, "PYTHONPATH": path}
    run_spec = document["tasks"][0][5]
    decoded = subprocess.run([sys.executable, "-c", decode], input=run_spec, capture_output=True, env=environment, check=True)
    assert decoded.stdout.decode().strip() == str(has_package)


def test_what_a_task_raises_is_its_own(builder):
    document = build(builder, {"key": "fail", "call": "acme.io:fail"})
    with pytest.raises(ValueError, match="bad row 7"):
        builder.persist(document)[document["keys"][0]].result()


@pytest.mark.parametrize(
    "tasks, request_fields, kind, message",
    [
        ([LOAD, LOAD], {}, "DuplicateKey", "two tasks have the key `load-0`"),
        ([ADD], {}, "UnknownReference", "the task `sum` needs `load-0`, which is no task"),
        (
            [LOAD | {"args": [{"task": "sum"}]}, ADD],
            {},
            "Cycle",
            "the tasks need each other: ",
        ),
        ([LOAD], {"collections": ["load-1"]}, "NameNotDefined", "which is no task (did you mean `load-0`?)"),
        ([LOAD | {"args": [{"input": "x"}]}], {}, "UnknownReference", "`x` is no input"),
        ([LOAD], {"actors": {"tasks": {"model": True}}}, "UnknownReference", "`model`"),
        ([LOAD], {"actors": {"tasks": {"laod-0": True}}}, "UnknownReference", "no task (did you mean `load-0`?)"),
        ([LOAD], {"optimize_options": {"fuse": True}}, "BadOption", "`fuse`: inline tasks are not optimised"),
    ],
)
def test_tasks_that_make_no_graph(builder, tasks, request_fields, kind, message):
    found = build(builder, *tasks, **request_fields)["error"]
    assert found["kind"] == kind
    assert message in found["message"]


def test_the_package_of_a_call_is_imported_before_the_task_runs(builder):
    document = build(builder, {"key": "a", "call": "shop:double", "args": [4]})
    # Two threads that import it for the first time while they run tasks may each get half of it.
    assert "shop" not in sys.modules
    task = pickle.loads(document["tasks"][0][5])
    assert "shop" in sys.modules
    assert task({}) == 8
