"""`workers` and `allow_other_workers`: which workers run what."""

import dask
import dask.array as da
import pytest
from dask.delayed import delayed
from differential_tasks import hold, noting, ran, where
from distributed import futures_of
from harness import await_condition

EVERYWHERE = ["alice", "bob", "dora", "erin"]


def places(label, count=6):
    return [delayed(where)(label, dask_key_name=f"{label}-{index}") for index in range(count)]


def address(side, name):
    return side.addresses[name]


# What is given as `workers`, and who then runs the tasks.
SELECTIONS = {
    "name": (lambda side: "bob", ["bob"]),
    "list": (lambda side: ["bob"], ["bob"]),
    "tuple": (lambda side: ("erin",), ["erin"]),
    "set": (lambda side: {"alice"}, ["alice"]),
    "two": (lambda side: ["alice", "bob"], ["alice", "bob"]),
    "address": (lambda side: address(side, "bob"), ["bob"]),
    "list-of-addresses": (lambda side: [address(side, "erin"), address(side, "dora")], ["dora", "erin"]),
    "host-and-port": (lambda side: address(side, "bob").removeprefix("tcp://"), ["bob"]),
    "host": (lambda side: "127.0.0.2", ["erin"]),
    "host-of-several": (lambda side: "127.0.0.1", ["alice", "bob", "dora"]),
    "host-or-name": (lambda side: ["127.0.0.2", "bob"], ["bob", "erin"]),
    "known-and-unknown": (lambda side: ["nobody", "dora"], ["dora"]),
    "none": (lambda side: None, EVERYWHERE),
    "empty-list": (lambda side: [], EVERYWHERE),
    "empty-text": (lambda side: "", EVERYWHERE),
}


@pytest.mark.parametrize("selection", SELECTIONS)
def test_workers(both, label, selection):
    given, allowed = SELECTIONS[selection]
    tasks = places(label)

    def run(side):
        kept = side.client.persist(tasks, workers=given(side))
        side.wait(kept)
        # Where the task ran is where the result is.
        assert set(side.holders(kept)) <= set(allowed)
        found = set(side.result(kept))
        assert found == set(side.ran_on(label))
        return found <= set(allowed), side.runs(label)

    assert both(run) == (True, {f"{label}-{index}": 1 for index in range(6)})


@pytest.mark.parametrize("selection", ["nobody", "127.0.0.3", "tcp://127.0.0.1:1", "bo", "BOB", "10.0.0.1:40000", ["nobody", "noone"]])
def test_workers_that_are_not_there(both, label, selection):
    """The tasks wait for them."""
    tasks = places(label, 2)

    def run(side):
        kept = side.client.persist(tasks, workers=selection)
        states = side.await_states(kept, "no-worker")
        return states, [future.status for future in futures_of(kept)], side.count(label)

    assert both(run) == (["no-worker"] * 2, ["pending"] * 2, 0)


def test_all_tasks_of_a_graph_are_restricted(both, label):
    first = [delayed(where)(label, dask_key_name=f"{label}-first-{index}") for index in range(4)]
    last = delayed(where)(label, first, dask_key_name=f"{label}-last")

    def run(side):
        kept = side.client.persist(last, workers="erin")
        return side.result(kept), side.ran_on(label), side.count(label)

    assert both(run) == ("erin", ["erin"], 5)


def test_blocks_of_an_array(both, label):
    x = da.ones(8, chunks=2).map_blocks(noting, label=label, dtype=float)

    def run(side):
        kept = side.client.persist(x, workers=["bob"])
        side.wait(kept)
        holders = side.holders(kept)
        return side.result(kept.sum()), side.ran_on(label), holders, side.count(label)

    assert both(run) == (8.0, ["bob"], ["bob"], 4)


def test_data_moves_to_where_the_tasks_may_run(both, label):
    first, second = ([delayed(ran)(label, index, dask_key_name=f"{label}-{name}-{index}") for index in range(2)] for name in "ab")

    def run(side):
        a = side.client.persist(first, workers="alice")
        b = side.client.persist(second, workers="erin")
        both_of_them = delayed(where)(f"{label}-where", [*a, *b], dask_key_name=f"{label}-where")
        return side.result(side.client.persist(both_of_them, workers="dora")), side.ran_on(label), side.count(label)

    assert both(run) == ("dora", ["alice", "erin"], 4)


# ---- allow_other_workers


@pytest.mark.parametrize("allow", [True, False, None])
def test_allow_other_workers_when_the_workers_are_there(both, label, allow):
    """They are taken as long as they are there."""
    tasks = places(label, 3)

    def run(side):
        # One after the other, since tasks that would wait may be stolen if others are allowed.
        for task in tasks:
            side.wait(side.client.persist(task, workers="bob", allow_other_workers=allow))
        return side.ran_on(label)

    assert both(run) == ["bob"]


def test_allow_other_workers_when_none_is_there(both, label):
    tasks = places(label)

    def run(side):
        kept = side.client.persist(tasks, workers=["nobody", "127.0.0.9"], allow_other_workers=True)
        return set(side.result(kept)) <= set(EVERYWHERE), side.count(label)

    assert both(run) == (True, 6)


def test_allow_other_workers_alone(both, label):
    tasks = places(label)

    def run(side):
        kept = side.client.persist(tasks, allow_other_workers=True)
        return set(side.result(kept)) <= set(EVERYWHERE), side.count(label)

    assert both(run) == (True, 6)


@pytest.mark.parametrize("allow", ["yes", 2, []])
def test_allow_other_workers_is_true_or_false(both, label, allow):
    def run(side):
        try:
            side.client.persist(places(label), workers="bob", allow_other_workers=allow)
        except TypeError as error:
            return str(error)

    assert both(run) == "allow_other_workers= must be True, False, or None"


def test_compute_takes_the_same(both, label):
    tasks = places(label, 3)

    def run(side):
        there = side.result(tasks, workers="erin")
        anywhere = side.result(places(f"{label}-more", 1), workers="nobody", allow_other_workers=True)
        return there, anywhere[0] in EVERYWHERE

    assert both(run) == (["erin"] * 3, True)


# ---- dask.annotate


def test_workers_of_single_tasks(both, label):
    """What was said while a graph was made goes before what is said for all of it."""
    with dask.annotate(workers="bob"):
        there = delayed(where)(label, dask_key_name=f"{label}-there")
    with dask.annotate(workers=["alice", "erin"]):
        either = delayed(where)(label, dask_key_name=f"{label}-either")
    rest = delayed(where)(label, there, either, dask_key_name=f"{label}-rest")

    def run(side):
        kept = side.client.persist([there, either, rest], workers="dora", optimize_graph=False)
        there_, either_, rest_ = side.result(kept)
        return there_, either_ in ("alice", "erin"), rest_

    assert both(run) == ("bob", True, "dora")


def test_other_workers_for_single_tasks(both, label):
    with dask.annotate(allow_other_workers=True):
        loose = delayed(where)(label, dask_key_name=f"{label}-loose")
    with dask.annotate(allow_other_workers=False):
        strict = delayed(where)(label, dask_key_name=f"{label}-strict")

    def run(side):
        kept = side.client.persist([loose, strict], workers="nobody", optimize_graph=False)
        all_loose = side.client.persist([strict], workers="nobody", allow_other_workers=True, optimize_graph=False)
        side.wait(kept[0])
        side.await_states(kept[1], "no-worker")
        return side.result(kept[0]) in EVERYWHERE, side.states(all_loose)

    assert both(run) == (True, ["no-worker"])


def test_annotating_the_call(both, label):
    tasks, others = places(label, 3), places(f"{label}-other", 3)

    def run(side):
        with dask.annotate(workers="bob", retries=1):
            there = side.client.persist(tasks)
            # What is said in the call goes before what is said around it.
            other = side.client.persist(others, workers="erin")
        return side.result(there), side.result(other)

    assert both(run) == (["bob"] * 3, ["erin"] * 3)


def test_a_function_of_the_key(both, label):
    with dask.annotate(workers=lambda key: "bob" if key.endswith("1") else "erin"):
        tasks = places(label, 2)

    def run(side):
        return side.result(side.client.persist(tasks, optimize_graph=False))

    assert both(run) == ["erin", "bob"]


def test_annotations_of_an_array_are_kept_without_optimisation(both, label):
    with dask.annotate(workers="erin"):
        x = da.ones(6, chunks=2).map_blocks(noting, label=label, dtype=float)
    with dask.annotate(workers="bob"):
        y = (x + 1).map_blocks(noting, label=f"{label}-more", dtype=float)

    def run(side):
        kept = side.client.persist(y, optimize_graph=False)
        return side.result(kept.sum()), side.ran_on(label), side.ran_on(f"{label}-more")

    assert both(run) == (12.0, ["erin"], ["bob"])


def test_annotations_of_an_array_are_lost_by_optimisation(both, label):
    with dask.annotate(workers="nobody"):
        x = da.ones(6, chunks=2).map_blocks(noting, label=label, dtype=float) + 1

    def run(side):
        return side.result(side.client.persist(x).sum()), side.count(label)

    assert both(run) == (12.0, 3)


def test_annotations_that_mean_nothing_do_no_harm(both, label):
    with dask.annotate(colour="green", notes={"deep": [1, (2, 3)]}):
        task = delayed(ran)(label, 1, dask_key_name=label)

    def run(side):
        with dask.annotate(flavour="sweet"):
            return side.result(side.client.persist(task, optimize_graph=False))

    assert both(run) == 1


def test_a_key_that_is_known_keeps_its_workers(both, label):
    started, gate = f"{label}-started", f"{label}-gate"
    held = delayed(hold)(started, gate, dask_key_name=f"{label}-held")
    tasks = places(label, 2)

    def run(side):
        holder = side.client.persist(held, workers="bob")
        side.await_count(started, 1)
        kept = side.client.persist(tasks, workers="bob")
        side.await_known(kept)
        again = side.client.persist(tasks, workers="erin")
        side.await_known(again)
        side.open(gate)
        side.wait(futures_of([holder, *again]))
        return side.result(again), side.runs(label)

    assert both(run) == (["bob"] * 2, {f"{label}-{index}": 1 for index in range(2)})


# ---- workers that come and go


def test_a_worker_that_comes_later(own, label):
    both = own(first={})
    tasks = places(label, 2)
    loose = places(f"{label}-loose", 2)

    def run(side):
        kept = side.client.persist(tasks, workers=["second"])
        by_host = side.client.persist(places(f"{label}-host", 1), workers="127.0.0.2")
        states = side.await_states([kept, by_host], "no-worker")
        # Who may go elsewhere does not wait for it.
        elsewhere = side.result(loose, workers="second", allow_other_workers=True)
        side.start_worker("second", arguments=["--host", "127.0.0.2"])
        return states, elsewhere, side.result(kept), side.result(by_host)

    assert both(run) == (["no-worker"] * 3, ["first"] * 2, ["second"] * 2, ["second"])


def test_a_worker_that_goes(own, label):
    both = own(first={}, second={})
    tasks = places(label, 2)
    loose = places(f"{label}-loose", 2)

    def run(side):
        kept = side.client.persist([*tasks, *loose], workers="first", allow_other_workers=None)
        free = side.client.persist(places(f"{label}-free", 2), workers="first", allow_other_workers=True)
        side.wait(futures_of([kept, free]))
        before = side.holders(kept, free)
        side.processes["first"].kill()
        await_condition(lambda: "first" not in side.addresses, "it is gone")
        # What must be there is lost until such a worker comes; what may be elsewhere is made again.
        side.wait(futures_of(free))
        side.await_states(kept, "no-worker")
        return before, side.holders(free), side.states(kept), side.count(f"{label}-free")

    assert both(run) == (["first"], ["second"], ["no-worker"] * 4, 4)
