"""What a stock Client submits."""

import pickle

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
    assert len(document["tasks"]) == 3 and len(document["annotations"]) == 1
    assert document["annotations"] == ({"retries": 2, "resources": {"GPU": 1}, "priority": 4},)
    assert sorted(task[1] for task in document["tasks"]) == [0, 1, 2]
    del futures


def test_an_array(builder, client, submitted, monkeypatch):
    x = da.arange(10, chunks=5)
    with dask.annotate(retries=1):
        y = x + 1
    future = client.compute(y.sum(), workers=["alice"], allow_other_workers=True, optimize_graph=False)
    document, results = lower_and_run(builder, submitted.request(), monkeypatch)
    assert list(results.values()) == [55]
    assert {"retries": 1, "workers": ("alice",), "allow_other_workers": True} in document["annotations"]
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
    assert sorted(a["priority"] for a in document["annotations"]) == [0, 1, 2]
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


def test_peer_to_peer_shuffles_name_the_setting(builder, client, submitted, monkeypatch):
    frame = dd.from_pandas(pd.DataFrame({"a": range(10), "b": range(10)}), npartitions=3)
    with dask.config.set({"dataframe.shuffle.method": "p2p"}):
        future = client.persist(frame.shuffle("a"))
    request = submitted.request()
    monkeypatch.undo()
    found = builder.ask("lower", request)["error"]
    assert found["kind"] == "Unsupported"
    assert "dataframe.shuffle.method" in found["message"]
    assert "dataframe.shuffle.method" in str(pickle.loads(found["exception"]))
    del future
