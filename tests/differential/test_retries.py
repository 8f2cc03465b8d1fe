"""`retries`: how often tasks run, what they fail with, and whom that concerns."""

import dask
import pytest
from dask.delayed import delayed
from differential_tasks import Refusal, die, fail, fail_first, ran, reschedule_first
from distributed import futures_of


def failing(label, times, name="task", *needs):
    """A task that fails so often and then gives 1."""
    return delayed(fail_first)(label, times, 1, *needs, dask_key_name=f"{label}-{name}")


@pytest.mark.parametrize(
    "times, retries, runs, outcome",
    [
        (0, None, 1, 1),
        (0, 3, 1, 1),
        (1, 1, 2, 1),
        (2, 5, 3, 1),
        (1, None, 1, ("ValueError", "failure 1")),
        (1, 0, 1, ("ValueError", "failure 1")),
        (3, 2, 3, ("ValueError", "failure 3")),
        (2, True, 2, ("ValueError", "failure 2")),
    ],
)
def test_how_often_it_runs(both, label, times, retries, runs, outcome):
    task = failing(label, times)

    def run(side):
        kept = side.client.persist(task, retries=retries)
        side.wait(kept)
        [future] = futures_of(kept)
        return side.outcome(kept), future.status, side.count(label)

    assert both(run) == (outcome, "finished" if outcome == 1 else "error", runs)


def test_each_task_has_its_own(both, label):
    tasks = [failing(label, times, f"{times}") for times in range(5)]
    total = delayed(sum)(tasks[:4], dask_key_name=f"{label}-total")

    def run(side):
        kept = side.client.persist([*tasks, total], retries=3)
        side.wait(kept)
        return side.outcome(kept[5]), [future.status for future in futures_of(kept)], side.runs(label)

    total, states, runs = both(run)
    assert (total, states) == (4, ["finished"] * 4 + ["error", "finished"])
    assert runs == {f"{label}-{times}": min(times + 1, 4) for times in range(5)}


def test_a_chain_of_tasks_that_fail(both, label):
    first = failing(label, 2, "first")
    second = failing(label, 1, "second", first)
    third = failing(label, 2, "third", second)

    def run(side):
        return side.result(side.client.persist(third, retries=2)), side.runs(label)

    assert both(run) == (3, {f"{label}-first": 3, f"{label}-second": 2, f"{label}-third": 3})


def test_what_fails_fails_what_needs_it(both, label):
    bad = failing(label, 9, "bad")
    needs = failing(label, 0, "needs", bad)
    needs_more = failing(label, 0, "more", needs)
    fine = failing(label, 1, "fine")
    beside = failing(label, 0, "beside", fine)

    def run(side):
        kept = side.client.persist([needs_more, needs, beside, bad], retries=1)
        side.wait(kept)
        states = [future.status for future in futures_of(kept)]
        found = [side.outcome(one) for one in kept]
        # Who asks for it later gets the same, and nothing runs again.
        later = side.client.persist(failing(label, 0, "later", needs))
        return states, found, side.outcome(later), side.runs(label), side.states(kept, later)

    error = ("ValueError", "failure 2")
    states, found, later, runs, _ = both(run)
    assert (states, found, later) == (["error", "error", "finished", "error"], [error, error, 2, error], error)
    assert runs == {f"{label}-{name}": count for name, count in [("bad", 2), ("beside", 1), ("fine", 2)]}


@pytest.mark.parametrize(
    "error",
    [KeyError("key"), ZeroDivisionError("1/0"), Refusal(7, reason="closed"), OSError(2, "gone"), ValueError(), StopIteration(3), AssertionError("no")],
    ids=lambda error: type(error).__name__,
)
def test_what_is_raised(both, label, error):
    task = delayed(fail)(label, error, dask_key_name=f"{label}-task")

    def run(side):
        kept = side.client.persist(task, retries=1)
        side.wait(kept)
        [future] = futures_of(kept)
        found = future.exception()
        return type(found).__name__, found.args, side.count(label), future.traceback() is not None

    assert both(run) == (type(error).__name__, error.args, 2, True)


def test_retries_of_single_tasks(both, label):
    """What was said while a graph was made goes before what is said for all of it, more and fewer."""
    with dask.annotate(retries=3):
        more = failing(label, 3, "more")
    with dask.annotate(retries=0):
        none = failing(label, 1, "none")
    with dask.annotate(retries=lambda key: 2 if "even" in key else 0):
        by_key = [failing(label, 2, "even"), failing(label, 2, "odd")]
    rest = failing(label, 1, "rest")

    def run(side):
        kept = side.client.persist([more, none, *by_key, rest], retries=1, optimize_graph=False)
        side.wait(kept)
        return [side.outcome(one) for one in kept], side.runs(label)

    found, runs = both(run)
    assert found == [1, ("ValueError", "failure 1"), 1, ("ValueError", "failure 1"), 1]
    assert runs == {f"{label}-{name}": count for name, count in [("even", 3), ("more", 4), ("none", 1), ("odd", 1), ("rest", 2)]}


def test_compute_takes_the_same(both, label):
    def run(side):
        return side.result(failing(label, 2), retries=2), side.count(label)

    assert both(run) == (1, 3)


def test_retry_by_hand(both, label):
    bad = failing(label, 3, "bad")
    needs = failing(label, 0, "needs", bad)

    def run(side):
        kept = side.client.persist([bad, needs], retries=1)
        side.wait(kept)
        seen = [[future.status for future in futures_of(kept)], side.runs(label)]
        # All retries were used; by hand it is one run more each time.
        for _ in range(2):
            side.client.retry(futures_of(kept[1]))
            side.wait(kept)
            seen.append(side.runs(label))
        return [*seen, side.outcome(kept[1])]

    failed, later = f"{label}-bad", f"{label}-needs"
    assert both(run) == [["error"] * 2, {failed: 2}, {failed: 3}, {failed: 4, later: 1}, 2]


def test_asking_again_for_what_failed(both, label):
    bad = failing(label, 1, "bad")

    def run(side):
        first = side.client.persist(bad)
        side.wait(first)
        second = side.client.persist(bad, retries=5)
        return side.outcome(second), side.count(label)

    assert both(run) == (("ValueError", "failure 1"), 1)


def test_forgotten_failures_run_anew(both, label):
    """Once nobody wants them."""
    bad = failing(label, 1, "bad")

    def run(side):
        first = side.client.persist(bad)
        side.wait(first)
        del first
        side.await_unknown(bad.key)
        second = side.client.persist(bad)
        return side.outcome(second), side.count(label)

    assert both(run) == (1, 2)


def test_reschedule_is_no_failure(both, label):
    task = delayed(reschedule_first)(label, 3, dask_key_name=f"{label}-task")

    def run(side):
        return side.result(side.client.persist(task)), side.count(label)

    assert both(run) == (4, 4)


def test_a_task_that_kills_workers(own, label):
    """The deaths of workers do not use retries up, and more than three end the task."""
    both = own(first={"nanny": True})
    killer = delayed(die)(f"{label}-killer", dask_key_name=f"{label}-killer")
    needs = delayed(ran)(label, 1, killer, dask_key_name=f"{label}-needs")
    fine = failing(label, 1, "fine")

    def run(side):
        kept = side.client.persist([killer, needs], retries=5)
        side.wait(kept)
        found = [type(future.exception()).__name__ for future in futures_of(kept)]
        return found, side.count(f"{label}-killer"), side.result(side.client.persist(fine, retries=1)), side.runs(label)

    assert both(run) == (["KilledWorker"] * 2, 4, 1, {f"{label}-fine": 2})
