"""`resources`: who has them, how many tasks take them at a time, and what nobody can give."""

import dask
import pytest
from dask.delayed import delayed
from differential_tasks import together, where
from distributed import futures_of


def places(label, count=4):
    return [delayed(where)(label, dask_key_name=f"{label}-{index}") for index in range(count)]


# alice offers GPU=2 IO=1, bob IO=0.5, erin TAPE=0.3.
@pytest.mark.parametrize(
    "resources, workers, allowed",
    [
        ({"GPU": 1}, None, ["alice"]),
        ({"GPU": 2}, None, ["alice"]),
        ({"GPU": 2.0, "IO": 1}, None, ["alice"]),
        ({"GPU": 0.001}, None, ["alice"]),
        ({"IO": 0.5}, None, ["alice", "bob"]),
        ({"IO": 0.51}, None, ["alice"]),
        ({"IO": 0.1}, "bob", ["bob"]),
        ({"TAPE": 0.3}, None, ["erin"]),
        ({"TAPE": 0.1}, ["alice", "erin"], ["erin"]),
        ({"TAPE": 0.1}, "127.0.0.2", ["erin"]),
        ({}, "bob", ["bob"]),
        (None, "bob", ["bob"]),
    ],
)
def test_who_has_them(both, label, resources, workers, allowed):
    tasks = places(label)

    def run(side):
        kept = side.client.persist(tasks, resources=resources, workers=workers)
        return set(side.result(kept)) <= set(allowed), side.count(label)

    assert both(run) == (True, 4)


@pytest.mark.parametrize(
    "resources, workers",
    [
        ({"GPU": 3}, None),
        ({"FPGA": 1}, None),
        ({"GPU": 1, "TAPE": 0.1}, None),
        ({"GPU": 1}, "bob"),
        ({"IO": 1.5}, None),
        ({"TAPE": 0.300001}, None),
        ({"GPU": 1}, "127.0.0.2"),
    ],
)
def test_what_nobody_can_give(both, label, resources, workers):
    """The tasks wait for a worker that can; all others go on."""
    tasks = places(label, 2)

    def run(side):
        kept = side.client.persist(tasks, resources=resources, workers=workers)
        others = side.client.persist(places(f"{label}-others", 2))
        side.wait(others)
        states = side.await_states(kept, "no-worker")
        return states, [future.status for future in futures_of(kept)], side.count(label)

    assert both(run) == (["no-worker"] * 2, ["pending"] * 2, 0)


@pytest.mark.parametrize(
    "resources, workers, most",
    [
        # Of two threads.
        ({"GPU": 1}, None, 2),
        ({"GPU": 2}, None, 1),
        ({"GPU": 1.5}, None, 1),
        ({"GPU": 1, "IO": 0.6}, None, 1),
        ({"GPU": 0.25}, None, 2),
        # Of two workers.
        ({"IO": 0.5}, ["alice", "bob"], 3),
    ],
)
def test_how_many_at_a_time(both, label, resources, workers, most):
    """Never more than the worker has, and as many as it has."""
    tasks = [delayed(together)(label, most, dask_key_name=f"{label}-{index}") for index in range(6)]

    def run(side):
        side.wait(side.client.persist(tasks, resources=resources, workers=workers))
        return side.most_together(label)

    assert both(run) == most


def test_resources_of_single_tasks(both, label):
    with dask.annotate(resources={"TAPE": 0.2}):
        tape = delayed(where)(label, dask_key_name=f"{label}-tape")
    with dask.annotate(resources={"FPGA": 1}):
        impossible = delayed(where)(label, dask_key_name=f"{label}-impossible")
    rest = delayed(where)(label, tape, dask_key_name=f"{label}-rest")

    def run(side):
        # They take the place of those of the call, and are not added to them.
        kept = side.client.persist([tape, impossible, rest], resources={"GPU": 1}, optimize_graph=False)
        found = side.result([kept[0], kept[2]])
        return found, side.await_states(kept[1], "no-worker")

    assert both(run) == (["erin", "alice"], ["no-worker"])


def test_resources_and_workers_of_single_tasks(both, label):
    with dask.annotate(workers="alice"):
        task = delayed(where)(label, dask_key_name=f"{label}-task")

    def run(side):
        impossible = side.client.persist(task, resources={"TAPE": 0.1}, optimize_graph=False)
        return side.await_states(impossible, "no-worker")

    assert both(run) == ["no-worker"]


def test_a_worker_that_comes_later(own, label):
    both = own(first={"arguments": ["--resources", "GPU=1"]})
    tasks = places(label, 3)

    def run(side):
        kept = side.client.persist(tasks, resources={"GPU": 2})
        states = side.await_states(kept, "no-worker")
        side.start_worker("second", arguments=["--resources", "GPU=2"])
        return states, side.result(kept)

    assert both(run) == (["no-worker"] * 3, ["second"] * 3)


def test_what_is_held_is_given_back_by_tasks_that_fail(both, label):
    def refuse():
        raise ValueError("no")

    tasks = [delayed(refuse)(dask_key_name=f"{label}-refused-{index}") for index in range(5)]

    def run(side):
        failed = side.client.persist(tasks, resources={"GPU": 2}, retries=1)
        side.wait(failed)
        return side.outcome(failed[0]), side.result(places(label, 2), resources={"GPU": 2})

    assert both(run) == (("ValueError", "no"), ["alice"] * 2)
