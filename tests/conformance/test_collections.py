"""Dask collections, computed and persisted by an unmodified Client; dask without a scheduler says what is right."""

import dask
import dask.array as da
import dask.bag as db
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
from conformance_tasks import add, inc, total
from distributed import Client, futures_of, wait
from harness import await_condition

SHUFFLE_BY_TASKS = {"dataframe.shuffle.method": "tasks", "array.rechunk.method": "tasks"}


def alone(collection):
    """What dask makes of a collection without any scheduler."""
    return collection.compute(scheduler="synchronous")


@pytest.fixture
def frame():
    rng = np.random.default_rng(1)
    columns = {"key": rng.integers(0, 20, 2000), "value": rng.normal(size=2000), "name": rng.choice(list("abcde"), 2000)}
    return pd.DataFrame(columns)


def equal(found, expected):
    columns = sorted(expected)
    found, expected = (table[columns].sort_values(columns).reset_index(drop=True) for table in (found, expected))
    # Dask keeps texts in Arrow, pandas where it likes.
    pd.testing.assert_frame_equal(found, expected, check_dtype=False)


def test_arrays(client):
    x = da.random.default_rng(1).normal(size=(200, 200), chunks=(50, 50))
    for expression in (x.sum(), (x @ x.T).mean(axis=0), x[::2, 5:], da.linalg.svd(x.rechunk((50, 200)))[1], x.std()):
        np.testing.assert_allclose(expression.compute(), alone(expression))


def test_an_array_that_is_persisted_is_computed_once(client):
    x = client.persist(da.ones((100, 100), chunks=50) + 1)
    wait(x)
    keys = {future.key for future in futures_of(x)}
    assert len(keys) == 4
    assert keys == {key for keys in client.has_what().values() for key in keys}
    assert (x.sum() + x.max()).compute() == 20002
    y = (x * 2).persist()
    assert y[0, 0].compute() == 4


def test_a_value_larger_than_one_shard(client):
    x = client.submit(np.arange, 9_000_000, dtype="f8").result()
    assert x.nbytes > 64 * 2**20 and x[-1] == 8_999_999
    sent = client.scatter(x)
    assert client.submit(np.sum, sent).result() == x.sum()


@pytest.mark.parametrize("method", [None, "tasks", "p2p"])
def test_rechunk(client, method):
    with dask.config.set({"array.rechunk.method": method}):
        x = da.arange(10_000, chunks=100).reshape((100, 100)).rechunk((100, 7))
        np.testing.assert_array_equal(x.compute(), np.arange(10_000).reshape((100, 100)))


def test_dataframes_with_the_default_configuration(client, frame):
    lazy = dd.from_pandas(frame, npartitions=6)
    pd.testing.assert_frame_equal(lazy.compute(), alone(lazy))
    found = lazy.groupby("name").value.agg(["sum", "count", "std"]).compute().sort_index()
    expected = frame.groupby("name").value.agg(["sum", "count", "std"])
    pd.testing.assert_frame_equal(found, expected, check_index_type=False)
    assert len(lazy[lazy.value > 0]) == (frame.value > 0).sum()
    small = pd.DataFrame({"name": list("abcde"), "rank": range(5)})
    equal(lazy.merge(small, on="name").compute(), frame.merge(small, on="name"))
    assert lazy.value.nunique().compute() == frame.value.nunique()
    assert lazy.describe().compute().loc["count", "value"] == 2000


@pytest.mark.parametrize("settings", [{}, SHUFFLE_BY_TASKS], ids=["default", "tasks"])
def test_shuffles(client, frame, settings):
    """By default a Client asks for a peer-to-peer shuffle."""
    lazy = dd.from_pandas(frame, npartitions=6)
    with dask.config.set(settings):
        equal(lazy.shuffle("key").compute(), frame)
        other = frame.groupby("key").value.mean().rename("mean").reset_index()
        joined = lazy.merge(dd.from_pandas(other, npartitions=4), on="key", how="inner")
        equal(joined.compute(), frame.merge(other, on="key"))
        indexed = lazy.set_index("value")
        assert indexed.index.compute().is_monotonic_increasing
        found = lazy.groupby("key").apply(lambda part: part.value.max() - part.value.min(), meta=("spread", "f8")).compute()
        expected = frame.groupby("key").value.agg(lambda part: part.max() - part.min())
        np.testing.assert_allclose(found.sort_index(), expected.sort_index())
        kept = client.persist(lazy.set_index("key", sorted=False))
        assert len(kept.loc[3].compute()) == (frame.key == 3).sum()


def test_bags(client):
    words = db.from_sequence("the quick brown fox jumps over the lazy dog".split(), npartitions=3)
    assert dict(words.frequencies().compute()) == dict(alone(words.frequencies()))
    assert sorted(words.map(str.upper).distinct().compute()) == sorted(alone(words.map(str.upper).distinct()))
    assert words.map(len).sum().compute() == 35
    kept = client.persist(words.filter(lambda word: "o" in word))
    assert sorted(kept.compute()) == ["brown", "dog", "fox", "over"]
    grouped = words.foldby(len, lambda count, _: count + 1, 0)
    assert sorted(grouped.compute()) == sorted(alone(grouped))


def test_delayed(client):
    parts = [dask.delayed(inc)(number) for number in range(10)]
    both = dask.delayed(total)(parts), dask.delayed(add)(parts[0], {"a": parts[1]}["a"])
    assert dask.compute(*both) == (55, 3)
    [kept] = dask.persist(both[0])
    assert kept.compute() == 55
    assert client.compute(both[0]).result() == 55
    assert client.compute([both[0], 7], sync=True) == [55, 7]


def test_annotations_of_layers(client, address_of):
    def name(dask_worker=None):
        from distributed import get_worker

        return get_worker().name

    with dask.annotate(workers="bob"):
        there = dask.delayed(name, pure=False)()
    with dask.annotate(resources={"GPU": 1}):
        with_gpu = dask.delayed(name, pure=False)()
    assert client.gather(client.compute([there, with_gpu], optimize_graph=False)) == ["bob", "alice"]


def test_compute_takes_persists_parameters(client, address_of):
    x = da.ones(10, chunks=2)
    kept = client.persist(x + 1, workers="bob", retries=2, priority=5, fifo_timeout="10s", optimize_graph=False)
    wait(kept)
    assert {holder for holders in client.who_has(kept).values() for holder in holders} == {address_of["bob"]}
    anywhere = client.persist(x + 2, workers="nobody", allow_other_workers=True)
    wait(anywhere)


def test_datasets(client, shared):
    x = client.persist(da.arange(100, chunks=10))
    client.publish_dataset(numbers=x)
    client.publish_dataset(7, name=("a", 1))
    with Client(shared.address, set_as_default=False) as other:
        assert set(other.list_datasets()) == {"numbers", ("a", 1)}
        found = other.get_dataset("numbers")
        assert other.compute(found.sum()).result() == 4950
        assert other.get_dataset(("a", 1)) == 7
        assert other.get_dataset("nothing", default=None) is None
        with pytest.raises(KeyError):
            other.get_dataset("nothing")
        with pytest.raises(KeyError, match="already"):
            other.publish_dataset(numbers=1)

        del x
        # It stays as long as it is published, whoever made it.
        assert other.compute(found.max()).result() == 99
        other.unpublish_dataset("numbers")
        other.unpublish_dataset(("a", 1))
        assert client.list_datasets() == ()
        del found
    await_condition(lambda: not any(client.has_what().values()), "it is freed when it is no longer published")


def test_a_dataset_outlives_its_client(client, shared):
    with Client(shared.address, set_as_default=False) as first:
        first.publish_dataset(outliving=first.persist(dd.from_pandas(pd.DataFrame({"a": range(10)}), npartitions=2)))
    assert client.get_dataset("outliving").a.sum().compute() == 45
    client.datasets["more"] = client.submit(inc, 1)
    assert client.datasets["more"].result() == 2
    del client.datasets["more"]
    client.unpublish_dataset("outliving")
