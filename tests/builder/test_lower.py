"""What a stock Client submits."""

import pickle
import subprocess
import sys

import cloudpickle
import dask
import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
from distributed.protocol import serialize
from distributed.protocol.serialize import to_serialize


class Recorder:
    """A Client's `update-graph` messages, kept from the scheduler."""

    def __init__(self, client, monkeypatch):
        self.messages = []
        send = client._send_to_scheduler
        monkeypatch.setattr(
            client,
            "_send_to_scheduler",
            lambda message: self.messages.append(message) if message["op"] == "update-graph" else send(message),
        )

    def request(self):
        [message] = self.messages
        expression, annotations = message["expr_ser"], message["annotations"].data
        return {
            "expr": [expression.header, list(map(bytes, expression.frames))],
            "keys": list(message["keys"]),
            "annotations": pickle.dumps(annotations),
            "internal_priority": list((message["internal_priority"] or {}).items()),
            "actors": message["actors"],
        }


@pytest.fixture
def submitted(client, monkeypatch):
    return Recorder(client, monkeypatch)


def lower_and_run(builder, request, monkeypatch):
    monkeypatch.undo()
    document = builder.ask("lower", request)
    assert document.get("outputs") == (), document
    keys = request["keys"]
    results = builder.client.gather([builder.persist(document, keys)[key] for key in keys])
    return document, dict(zip(keys, results))


def test_submit_and_map(builder, client, submitted, monkeypatch):
    futures = client.map(lambda x: x + 1, [1, 2, 3], retries=2, resources={"GPU": 1}, priority=4, pure=False)
    request = submitted.request()
    monkeypatch.undo()
    document = builder.ask("lower", request)
    assert len(document["tasks"]) == 3 and len(document["annotation_table"]) == 1
    assert document["annotation_table"] == ({"retries": 2, "resources": {"GPU": 1}, "priority": 4},)
    assert sorted(task[1] for task in document["tasks"]) == [0, 1, 2]
    del futures


def test_an_array(builder, client, submitted, monkeypatch):
    x = da.arange(10, chunks=5)
    with dask.annotate(retries=1):
        y = x + 1
    future = client.compute(y.sum(), workers=["alice"], allow_other_workers=True, optimize_graph=False)
    document, results = lower_and_run(builder, submitted.request(), monkeypatch)
    assert list(results.values()) == [55]
    assert {"retries": 1, "workers": ("alice",), "allow_other_workers": True} in document["annotation_table"]
    del future


def test_persist_of_collections(builder, client, submitted, monkeypatch):
    frame = dd.from_pandas(pd.DataFrame({"a": range(10)}), npartitions=3)
    persisted = client.persist([frame, frame.a.sum(), da.ones(4, chunks=2)])
    document, results = lower_and_run(builder, submitted.request(), monkeypatch)
    assert len(results) == 6
    del persisted


def test_callable_annotations(builder, client, submitted, monkeypatch):
    future = client.persist(da.ones(3, chunks=1), optimize_graph=False)
    request = submitted.request() | {"annotations": cloudpickle.dumps({"priority": lambda key: key[1]})}
    monkeypatch.undo()
    document = builder.ask("lower", request)
    assert sorted(a["priority"] for a in document["annotation_table"]) == [0, 1, 2]
    del future


def test_what_is_persisted_already_is_a_dependency(builder, client, monkeypatch):
    base = client.persist(da.arange(4, chunks=2))
    recorder = Recorder(client, monkeypatch)
    future = client.compute((base + 1).sum())
    document, results = lower_and_run(builder, recorder.request(), monkeypatch)
    assert list(results.values()) == [10]
    assert {("arange" in str(key)) for key in document["keys"][len(document["tasks"]) :]} == {True}
    del future


def test_an_actor(builder, client, submitted, monkeypatch):
    future = client.submit(dict, actor=True)
    request = submitted.request()
    monkeypatch.undo()
    document = builder.ask("lower", request)
    assert [task[3] for task in document["tasks"]] == [True]
    del future


def test_several_frames_and_shards(builder, client, submitted, monkeypatch):
    future = client.submit(np.sum, np.arange(100_000))
    request = submitted.request()
    header, frames = request["expr"]
    assert len(frames) >= 1
    document, results = lower_and_run(builder, request, monkeypatch)
    assert list(results.values()) == [np.arange(100_000).sum()]
    del future


def test_no_keys_no_tasks(builder):
    # What `recreate_error_locally` sends.
    header, frames = serialize({"a": to_serialize(1)})
    document = builder.ask("lower", {"expr": [header, list(map(bytes, frames))], "keys": []})
    assert document.get("error") is None and document["tasks"] == ()


def test_a_graph_that_the_worker_cannot_read(builder):
    broken = b"\x80\x04\x8c\x0elacking_module\x8c\x01f\x93)R."
    request = {"expr": [{"serializer": "pickle", "writeable": []}, [broken]], "keys": ["x"]}
    found = builder.ask("lower", request)["error"]
    assert found["kind"] == "Raised"
    assert "Error during deserialization of the task graph" in found["message"]
    assert "lacking_module" in found["message"]
    assert isinstance(pickle.loads(found["exception"]), RuntimeError)


FRAME = pd.DataFrame({"a": [3, 1, 2, 0, 5, 4] * 20, "b": range(120), "c": ["x", "y", None] * 40})
FRAME["d"] = FRAME.c.astype("category")


@pytest.mark.parametrize(
    "operation",
    [
        lambda frame: frame.shuffle("a"),
        lambda frame: frame.shuffle("a").partitions[1],
        lambda frame: frame.set_index("b", npartitions=3),
        lambda frame: frame.sort_values("a"),
        lambda frame: frame.groupby(["a", "c"]).agg(n=("b", "count"), top=("b", "max")),
        lambda frame: frame.groupby("a").apply(lambda rows: rows.b.sum(), meta=(None, "i8")),
        lambda frame: frame.merge(frame[["a", "b"]], on="a", suffixes=("_l", "_r")),
        lambda frame: frame.merge(frame.assign(e=1)[["b", "e"]], on="b", how="outer"),
        lambda frame: frame.drop_duplicates(["a", "c"], split_out=3),
        lambda frame: frame.c.value_counts(split_out=2),
    ],
)
def test_peer_to_peer_shuffles_are_taken_out(builder, client, submitted, monkeypatch, operation):
    with dask.config.set({"dataframe.shuffle.method": "tasks", "scheduler": "sync"}):
        expected = operation(dd.from_pandas(FRAME, npartitions=4)).compute()
    with dask.config.set({"dataframe.shuffle.method": "p2p", "scheduler": "sync"}):
        collection = operation(dd.from_pandas(FRAME, npartitions=4))
        future = client.persist(collection, retries=3)
    document, results = lower_and_run(builder, submitted.request(), monkeypatch)
    found = pd.concat([results[key] for key in sorted(results) if len(results[key])])
    assert found.dtypes.equals(expected.dtypes) if found.ndim == 2 else found.dtype == expected.dtype
    pd.testing.assert_frame_equal(tidy(found), tidy(expected), check_dtype=False)
    assert all(task[4] is not None for task in document["tasks"])
    check_shuffles(document)
    del future


def check_shuffles(document):
    """Each shuffle comes with what it makes, and with the tasks that take that."""
    barriers = {key for key in document["keys"] if str(key).startswith("shuffle-barrier-")}
    assert barriers == {f"shuffle-barrier-{shuffle['id']}" for shuffle in document["shuffles"]}
    for shuffle in document["shuffles"]:
        spec = pickle.loads(shuffle["spec"])
        numbers = np.frombuffer(shuffle["partitions"], dtype="i8").tolist()
        if shuffle["axes"]:
            numbers = list(zip(*[iter(numbers)] * shuffle["axes"]))
        assert (shuffle["id"], numbers) == (spec.id, list(spec.output_partitions))
        outputs = np.frombuffer(shuffle["outputs"], dtype="u4").tolist()
        places = np.frombuffer(shuffle["places"], dtype="u4").tolist()
        barrier = document["keys"].index(f"shuffle-barrier-{spec.id}")
        assert sorted(outputs) == [place for place, task in enumerate(document["tasks"]) if barrier in task[0]]
        assert len(outputs) == len(places) and set(places) <= set(range(len(numbers)))


@pytest.mark.parametrize(
    "package, make",
    [
        ("dask.dataframe", lambda: dd.from_pandas(FRAME, npartitions=4).shuffle("a")),
        ("dask.dataframe", lambda: dd.from_pandas(FRAME, npartitions=4).pipe(lambda frame: frame.merge(frame, on="a"))),
        ("dask.array", lambda: da.ones((20, 20), chunks=(20, 3)).rechunk((4, 7), method="p2p")),
    ],
)
def test_what_shuffles_import_late_is_imported_where_run_specs_are_decoded(
    builder, client, submitted, monkeypatch, package, make
):
    """As all packages: a thread that begins with the innermost module while another begins at the top breaks its import."""
    with dask.config.set({"dataframe.shuffle.method": "p2p"}):
        future = client.persist(make())
    document, _ = lower_and_run(builder, submitted.request(), monkeypatch)
    [barrier, *_] = [task for key, task in zip(document["keys"], document["tasks"]) if str(key).startswith("shuffle-barrier-")]
    transfer = document["tasks"][barrier[0][0]]
    decode = f"import pickle, sys; pickle.loads(sys.stdin.buffer.read()); print({package!r} in sys.modules)"
    decoded = subprocess.run([sys.executable, "-c", decode], input=transfer[5], capture_output=True, check=True)
    assert decoded.stdout.decode().strip() == "True"
    del future


def tidy(frame):
    """The same rows in the same order, whatever order they came in."""
    frame = frame.reset_index().astype(str)
    return frame.sort_values(list(frame.columns)).reset_index(drop=True)


@pytest.mark.parametrize("optimize", [True, False])
def test_peer_to_peer_rechunks_are_taken_out(builder, client, submitted, monkeypatch, optimize):
    numbers = np.arange(400).reshape(20, 20)
    array = (da.from_array(numbers, chunks=(20, 3)) + 1).rechunk((4, 7), method="p2p") * 2
    future = client.compute(array, optimize_graph=optimize)
    document, results = lower_and_run(builder, submitted.request(), monkeypatch)
    np.testing.assert_array_equal(list(results.values())[0], (numbers + 1) * 2)
    check_shuffles(document)
    del future
