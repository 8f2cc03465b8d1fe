"""`priority` and `fifo_timeout`: the order in which tasks run on one thread.

A first task holds the worker until the scheduler has all graphs. Everything has its own priority where the order is
compared: neither scheduler promises anything among equals.
"""

import dask
import pytest
from dask.delayed import delayed
from differential_tasks import ran, sum_of
from distributed import futures_of
from pair import Queue


def task(label, value, *needs, name=None):
    return delayed(ran)(label, value, *needs, dask_key_name=f"{label}-{value if name is None else name}")


PRIORITIES = [0, 5, -3, 0.5, 100, -0.25, 5.5, 1e-3, -1e6]


def test_higher_goes_first(both, label):
    def run(side):
        with Queue(side, label) as queue:
            for priority in PRIORITIES:
                queue.persist(task(label, priority), priority=priority)
            return queue.order()

    assert both(run) == sorted(PRIORITIES, reverse=True)


def test_what_came_before_with_a_lower_priority_goes_after(both, label):
    def run(side):
        with Queue(side, label) as queue:
            for priority in (-1, 0, 0.5, 1, 2):
                queue.persist(task(label, priority), priority=priority)
            return queue.order()

    assert both(run) == [2, 1, 0.5, 0, -1]


def test_priorities_of_single_tasks(both, label):
    """What was said while a graph was made goes before what is said for all of it."""
    tasks = []
    for priority in PRIORITIES[1:]:
        with dask.annotate(priority=priority):
            tasks.append(task(label, priority))
    with dask.annotate(priority=lambda key: 50 if key.endswith("50") else 60):
        tasks += [task(label, 50), task(label, 60)]

    def run(side):
        with Queue(side, label) as queue:
            queue.persist(task(label, 7), *tasks, priority=7, optimize_graph=False)
            return queue.order()

    assert both(run) == sorted([*PRIORITIES[1:], 7, 50, 60], reverse=True)


def test_one_graph_goes_in_the_order_of_dask(both, label):
    """What is ready from the start; when the rest becomes ready, the next of these is running."""
    pairs = [[task(label, f"a{index}"), task(label, f"b{index}")] for index in range(4)]
    sums = [delayed(sum_of)([0], pair, dask_key_name=f"{label}-sum{index}") for index, pair in enumerate(pairs)]
    total = delayed(sum_of)(sums, dask_key_name=f"{label}-total")

    def run(side):
        with Queue(side, label) as queue:
            queue.persist(total)
            return queue.order()

    order = both(run)
    # Depth first: pair after pair, so that little is held.
    assert [value[1] for value in order] == sorted((value[1] for value in order), reverse=True)


def graph(label, name, count=3):
    return [task(label, f"{name}{index}") for index in range(count)]


def test_earlier_graphs_go_first(both, label):
    def run(side):
        with Queue(side, label) as queue:
            for name in "cab":
                queue.persist(*graph(label, name), fifo_timeout="0ms")
            return queue.order()

    order = both(run)
    assert [value[0] for value in order] == list("cccaaabbb")


def test_graphs_within_the_timeout_are_mixed(both, label):
    """They share a generation, so the place in each graph counts."""

    def run(side):
        with Queue(side, label) as queue:
            for name in "cab":
                queue.persist(*graph(label, name), fifo_timeout="1h")
            return [int(value[1]) for value in queue.order()]

    order = both(run)
    assert order in (sorted([0, 1, 2] * 3), sorted([0, 1, 2] * 3, reverse=True))


def test_a_higher_priority_goes_before_an_earlier_graph(both, label):
    def run(side):
        with Queue(side, label) as queue:
            queue.persist(*graph(label, "a"), fifo_timeout="0s", priority=1)
            queue.persist(*graph(label, "b"), fifo_timeout="0s", priority=0.5)
            queue.persist(*graph(label, "c"), fifo_timeout="0s", priority=1)
            return queue.order()

    assert [value[0] for value in both(run)] == list("aaacccbbb")


def test_only_the_later_graph_s_timeout_counts(both, label):
    """It is compared with the time since the generation began."""

    def run(side):
        with Queue(side, label) as queue:
            queue.persist(*graph(label, "a"), fifo_timeout="1h")
            queue.persist(*graph(label, "b"), fifo_timeout=0)
            queue.persist(*graph(label, "c"), fifo_timeout="60s")
            order = queue.order()
            return {value[0] for value in order[:3]}, [int(value[1]) for value in order[3:]]

    first, rest = both(run)
    assert first == {"a"} and rest in ([0, 0, 1, 1, 2, 2], [2, 2, 1, 1, 0, 0])


def test_a_known_key_keeps_its_priority(both, label):
    def run(side):
        with Queue(side, label) as queue:
            queue.persist(task(label, 10), priority=10)
            queue.persist(task(label, 1), priority=1)
            queue.persist(task(label, 5), priority=5)
            queue.persist(task(label, 1), priority=100)
            return queue.order()

    assert both(run) == [10, 5, 1]


def test_compute_takes_the_same(both, label):
    def run(side):
        with Queue(side, label) as queue:
            queue.persist(task(label, 9), priority=9)
            futures = [side.client.compute(task(label, priority), priority=priority, workers=Queue.WORKER) for priority in (3, 1, 2)]
            side.await_known(futures)
            queue.kept += futures
            return queue.order()

    assert both(run) == [9, 3, 2, 1]


def kept_status(kept):
    [future] = futures_of(kept)
    return future.status


@pytest.mark.parametrize(
    "text",
    ["60s", "0", "1.5 minutes", "100ms", ".5s", "1e3 ms", "s", " 3 s ", "10S", "2 h", "1_0s", 5, 0.25, "1W"],
)
def test_timeouts_that_are_taken(both, label, text):
    def run(side):
        return side.result(side.client.persist(task(label, 1), fifo_timeout=text))

    assert both(run) == 1


@pytest.mark.parametrize("text", ["soon", "-5s", "1h30m", "1 s 2", "5 µs", "", " ", "1 parsec", "1.2.3s", -1, "1e999s", None])
def test_timeouts_that_are_refused(both, label, text):
    def run(side):
        kept = side.client.persist(task(label, 1), fifo_timeout=text)
        side.wait(kept)
        return kept_status(kept), side.count(label)

    assert both(run) == ("error", 0)
