"""Tasks that use the scheduler themselves, and actors."""

import dask.array as da
import pytest
from conformance_tasks import Counter, inc, total
from distributed import Client, get_client, get_worker, rejoin, secede, worker_client


def test_a_task_that_submits_tasks(client):
    def parent(numbers):
        with worker_client() as inner:
            return sum(inner.gather(inner.map(inc, numbers)))

    assert client.submit(parent, [1, 2, 3]).result() == 9
    # More parents than threads: each leaves its thread while it waits.
    futures = [client.submit(parent, [10 * index, index], workers="bob") for index in range(4)]
    assert client.gather(futures) == [sum((10 * index, index)) + 2 for index in range(4)]


def test_secede_and_rejoin(client):
    def parent(number):
        inner = get_client()
        future = inner.submit(inc, number)
        secede()
        value = future.result()
        rejoin()
        return value, get_worker().name

    values = client.gather(client.map(parent, range(3), workers="bob"))
    assert values == [(1, "bob"), (2, "bob"), (3, "bob")]


def test_a_collection_that_a_task_computes(client):
    def parent():
        return float(da.ones(20, chunks=5).sum().compute())

    assert client.submit(parent, workers="bob").result() == 20.0


def test_a_task_gives_futures_and_datasets(client):
    def publish(name):
        with worker_client() as inner:
            inner.publish_dataset(inner.submit(inc, 41), name=name)

    client.submit(publish, "from-a-task").result()
    assert client.get_dataset("from-a-task").result() == 42
    client.unpublish_dataset("from-a-task")


def test_actors(client):
    counter = client.submit(Counter, 5, actor=True, workers="bob").result()
    assert counter.increment().result() == 6
    assert [counter.increment(by=2).result() for _ in range(3)] == [8, 10, 12]
    assert counter.count == 12
    with pytest.raises(KeyError, match="no such thing"):
        counter.fail().result()

    def use(counter):
        return counter.increment(10).result()

    # From a task on the other worker, and on its own.
    assert client.submit(use, counter, workers="alice", pure=False).result() == 22
    assert client.submit(use, counter, workers="bob", pure=False).result() == 32


def test_actors_are_found_by_other_clients(client, shared):
    future = client.submit(Counter, actor=True, key="shared-counter")
    future.result()
    client.publish_dataset(future, name="counter")
    with Client(shared.address, set_as_default=False) as other:
        counter = other.get_dataset("counter").result()
        assert counter.increment().result() == 1
    client.unpublish_dataset("counter")


def test_printing_and_warning_reach_the_client(client, capfd):
    def speak():
        from distributed import print

        print("hello from a task")

    client.submit(speak).result()
    from harness import await_condition

    heard = []
    await_condition(lambda: heard.append(capfd.readouterr().out) or "hello from a task" in "".join(heard), "it is printed")


def test_a_big_map_over_scattered_data(client):
    data = client.scatter(list(range(200)), broadcast=True, hash=False)
    assert client.submit(total, data[:100]).result() == 4950
