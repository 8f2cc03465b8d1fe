"""Futures between tasks, Clients and executors; actors called every way; what is raised and where."""

import concurrent.futures
import gc
import pickle
import traceback

import pytest
from conformance_tasks import add, fail, inc, total
from differential_tasks import Counter, hold, keys_of_worker, note, where
from distributed import Actor, Client, Future, Variable, as_completed, fire_and_forget, wait
from futures_tasks import (
    asks_and_fails,
    Asynchronous,
    by_get_client,
    by_seceding,
    by_worker_client,
    by_worker_client_kept,
    Caller,
    needs_flag,
    note_after,
    raises,
    scatters,
    slow,
    sum_of_dict,
    uses_actor,
)
from harness import await_condition
from test_coordination import said


def outcome(future):
    """The status, and what it gives or raises."""
    return said(future.result, timeout=60), future.status


# ---- futures


def test_futures_are_arguments(both, label):
    def run(side):
        one, two = (side.client.submit(inc, number, key=f"{label}-{number}") for number in range(2))
        found = [side.client.submit(add, one, other=two, key=f"{label}-add").result()]
        found += [side.client.submit(total, [one, two, 5], key=f"{label}-total").result()]
        found += [side.client.submit(sum_of_dict, {"a": one, "b": [two]}, key=f"{label}-dict").result()]
        found += [[future.result() for future in side.client.map(add, [one, two], [1, two], key=f"{label}-map")]]
        return found

    assert both(run) == [3, 8, 3, [2, 4]]


def test_keys_of_every_kind(both, label):
    def run(side):
        keys = [label, (label, 1), (label, 1, "a"), (label, (1, 2.5))]
        futures = [side.client.submit(inc, index, key=key) for index, key in enumerate(keys)]
        found = [future.key for future in futures], side.client.gather(futures)
        return found, [repr(future).split(",")[0] for future in futures], side.client.submit(inc, 1, key=5).result()

    both(run)


def test_a_future_that_is_gone(both, label):
    def run(side):
        future = side.client.submit(inc, 1, key=label)
        found = [future.result(), future.release()]
        side.await_unknown(label)
        found += [future.status, said(future.result, timeout=5)[0], future.done(), future.cancelled()]
        return found

    both(run)


def test_gather_with_errors(both, label):
    def run(side):
        good, bad = side.client.submit(inc, 1, key=f"{label}-good"), side.client.submit(fail, "bad row", key=f"{label}-bad")
        after = side.client.submit(inc, bad, key=f"{label}-after")
        found = [said(side.client.gather, [good, after]), side.client.gather([good, after], errors="skip")]
        found += [[type(error).__name__ for error in (bad.exception(), after.exception())], outcome(after)]
        lines = traceback.format_tb(bad.traceback())
        return found + [any("conformance_tasks" in line for line in lines), [line for line in lines if "in fail" in line] != []]

    assert both(run)[3:] == [(("ValueError", "bad row"), "error"), True, True]


def test_as_completed(both, label):
    def run(side):
        slow = side.client.submit(hold, f"{label}-slow", f"{label}-gate", "slow", key=f"{label}-slow")
        quick, bad = side.client.submit(inc, 1, key=f"{label}-quick"), side.client.submit(fail, "bad", key=f"{label}-bad")
        completed = as_completed([slow])
        completed.update([quick, bad])
        first = sorted(next(completed).key for _ in range(2))
        counts = completed.count(), completed.has_ready(), completed.is_empty()
        completed.add(side.client.submit(inc, 2, key=f"{label}-added"))
        third = next(completed).key
        side.open(f"{label}-gate")
        last = [future.result() for future in completed]
        results = sorted(as_completed([quick, slow], with_results=True), key=lambda pair: pair[0].key)
        raising = said(lambda: list(as_completed([bad], with_results=True)))
        kept = list(as_completed([bad, quick], with_results=True, raise_errors=False))
        # How many come at once is a race within the Client.
        batched = sum(len(batch) for batch in as_completed([quick, slow]).batches())
        too_late = said(lambda: list(as_completed([Future(f"{label}-never", side.client)], timeout=0.1)))
        return first, counts, third, last, [value for _, value in results], raising, sorted(future.status for future, _ in kept), batched, too_late

    assert both(run)[3] == ["slow"]


def test_wait(both, label):
    def run(side):
        held = side.client.submit(hold, f"{label}-held", f"{label}-gate", key=f"{label}-held")
        quick = side.client.submit(inc, 1, key=f"{label}-quick")
        done, pending = wait([held, quick], return_when="FIRST_COMPLETED")
        found = [len(done), len(pending), said(wait, [held], timeout=0.05)[0], said(held.result, timeout="50ms")[0]]
        side.open(f"{label}-gate")
        return found + [len(wait([held, quick]).done), len(wait(quick).not_done)]

    assert both(run)[:3] == [1, 1, "TimeoutError"]


def test_cancelled_futures(both, label):
    def run(side):
        held = side.client.submit(hold, f"{label}-held", f"{label}-gate", key=f"{label}-held", workers="dora")
        side.await_count(f"{label}-held", 1)
        after = side.client.submit(inc, held, key=f"{label}-after")
        side.await_known([after])
        with Client(side.scheduler.address, set_as_default=False) as other:
            with other.as_current():
                theirs = pickle.loads(pickle.dumps(held))
            # What a Client sends is heard in order: after this one the scheduler knows that the other wants it. It runs where
            # no thread goes on with what was cancelled.
            assert other.submit(inc, 1, key=f"{label}-order", workers="bob").result() == 2
            side.client.cancel(held, reason="no more")
            found = [held.status, held.cancelled(), held.done(), said(held.result)[0], theirs.status]
            # So is what the scheduler says: what it was told of this one comes after what it says of the others.
            assert side.client.submit(inc, 1, key=f"{label}-order", workers="bob").result() == 2
            found += [theirs.status, after.status]
            other.cancel(theirs, force=True)
            found += [theirs.status]
            await_condition(lambda: after.cancelled(), lambda: after.status)
            found += [said(after.result)[0], type(said(after.exception)).__name__]
        side.open(f"{label}-gate")
        completed = said(lambda: [future.key for future in as_completed([held])])
        gathered = said(side.client.gather, [held]), side.client.gather([held], errors="skip")
        return found, completed, gathered[0][0], gathered[1]

    both(run)


def test_a_task_that_waits_is_cancelled(both, label):
    def run(side):
        dora = side.addresses["dora"]
        held = side.client.submit(hold, f"{label}-held", f"{label}-gate", key=f"{label}-held", workers="dora")
        side.await_count(f"{label}-held", 1)
        waits = side.client.submit(note, label, key=f"{label}-waits", workers="dora")
        side.await_known([waits])
        waits.cancel()
        # It goes to the worker by way of the scheduler, and is not waited for.
        await_condition(lambda: waits.key not in side.client.run(keys_of_worker, workers=[dora])[dora], "the worker to drop it")
        side.open(f"{label}-gate")
        held.result()
        again = side.client.submit(inc, 1, key=f"{label}-waits", workers="dora")
        return outcome(again), side.count(label), waits.status

    both(run)


def test_retry(both, label):
    def run(side):
        flag = Variable(label, side.client)
        flag.set(False)
        future = side.client.submit(needs_flag, label, key=f"{label}-needs")
        after = side.client.submit(inc, future, key=f"{label}-after")
        found = [outcome(after)]
        flag.set(True)
        after.retry()
        found += [outcome(after), outcome(future)]
        flag.delete()
        return found

    assert both(run) == [(("RuntimeError", "not yet"), "error"), (2, "finished"), (1, "finished")]


def test_fire_and_forget(both, label):
    def run(side):
        # The stock scheduler keeps for ever what has ended before it is heard that it may be forgotten.
        future = side.client.submit(hold, label, f"{label}-gate", key=f"{label}-one")
        fire_and_forget(future)
        assert side.client.submit(inc, 1, key=f"{label}-order").result() == 2
        side.open(f"{label}-gate")
        del future
        fire_and_forget([side.client.submit(note_after, label, side.client.submit(inc, 1, key=f"{label}-two"), key=f"{label}-three")])
        side.await_count(label, 2)
        side.await_unknown(*(f"{label}-{name}" for name in ("one", "two", "three")))
        return side.count(label)

    assert both(run) == 2


def test_datasets_with_futures(both, label):
    def run(side):
        futures = side.client.map(inc, range(3), key=label)
        side.client.publish_dataset(**{label: {"all": futures, "first": futures[0]}})
        del futures
        gc.collect()
        with Client(side.scheduler.address, set_as_default=False) as other:
            found = other.get_dataset(label)
            values = other.gather(found["all"]), found["first"].result(), label in other.datasets, label in other.list_datasets()
            again = said(other.publish_dataset, 1, name=label)
            other.unpublish_dataset(label)
            return values, again[0], said(other.get_dataset, label), other.get_dataset(label, default=7), said(other.unpublish_dataset, label)

    assert both(run)[0] == ([1, 2, 3], 1, True, True)


# ---- from inside tasks


def test_tasks_with_clients_of_their_own(both, label):
    def run(side):
        ways = [by_get_client, by_worker_client, by_worker_client_kept, by_seceding]
        futures = [side.client.submit(way, 5, key=f"{label}-{way.__name__}", workers="dora") for way in ways]
        found = [outcome(future) for future in futures]
        many = side.client.map(by_worker_client, range(8), key=f"{label}-many", workers="dora")
        return found, side.client.gather(many)

    found, many = both(run)
    assert [value for value, _ in found] == [6, 6, 6, 6] and many == list(range(1, 9))


def test_what_a_task_asks_and_fails(both, label):
    def run(side):
        return outcome(side.client.submit(asks_and_fails, key=label, workers="alice"))

    assert both(run) == (("ValueError", "from the inside"), "error")


def test_tasks_scatter_and_wait(both, label):
    def run(side):
        return outcome(side.client.submit(scatters, key=label))

    assert both(run) == (([10, 3], True), "finished")


# ---- executors


def test_the_executor(both, label):
    def run(side):
        with side.client.get_executor(pure=False) as executor:
            one = executor.submit(inc, 1)
            found = [one.result(timeout=30), one.done(), list(executor.map(add, range(4), range(4)))]
            bad = executor.submit(fail, "no luck")
            found += [type(bad.exception()).__name__, said(bad.result)]
            done, pending = concurrent.futures.wait([one, bad])
            found += [len(done), len(pending), sorted(f is one for f in concurrent.futures.as_completed([one, bad]))]
            found += [said(executor.map(fail, ["first", "second"]).__next__), said(lambda: list(executor.map(slow, [30], timeout=0.1)))[0]]
        found += [said(executor.submit, inc, 1)]
        with side.client.get_executor(workers="bob", retries=1, pure=False) as executor:
            found += [executor.submit(where, label).result()]
        return found

    assert both(run)[-1] == "bob"


def test_the_executor_cancels(both, label):
    def run(side):
        executor = side.client.get_executor(pure=False, workers="dora")
        held = executor.submit(hold, f"{label}-held", f"{label}-gate")
        side.await_count(f"{label}-held", 1)
        waits = executor.submit(note, label)
        found = [waits.cancel(), waits.cancelled(), said(waits.result)[0], held.done()]
        side.open(f"{label}-gate")
        executor.shutdown()
        return found, held.done(), held.cancelled()

    both(run)


# ---- actors


def test_actors_of_clients(both, label):
    def run(side):
        future = side.client.submit(Counter, 1, label, actor=True, key=label)
        actor = future.result()
        call = actor.increment(2)
        found = [isinstance(actor, Actor), type(call).__name__, call.result(), call.done(), actor.count]
        found += [said(actor.fail().result), said(lambda: actor.nothing), said(getattr, actor, "_private", None)]
        found += [sorted(name for name in dir(actor) if name in ("count", "increment", "fail", "where"))]
        found += [[actor.increment(1).result() for _ in range(3)], actor.increment(by=10).result(timeout=30)]
        return found, repr(actor).split(":")[0], side.client.submit(uses_actor, actor, 5, key=f"{label}-use").result()

    both(run)


def test_actors_of_several_clients(both, label):
    def run(side):
        future = side.client.submit(Counter, 0, label, actor=True, key=label)
        future.result()
        side.client.publish_dataset(future, name=label)
        with Client(side.scheduler.address, set_as_default=False) as other:
            theirs = other.get_dataset(label).result()
            found = theirs.increment().result(), future.result().increment().result(), theirs.count
        side.client.unpublish_dataset(label)
        return found

    assert both(run) == (1, 2, 2)


def test_actors_of_actors(both, label):
    def run(side):
        inner = side.client.submit(Counter, 0, label, actor=True, key=f"{label}-inner", workers="alice")
        outer = side.client.submit(Caller, inner, actor=True, key=f"{label}-outer", workers="bob").result()
        return [outer.call().result() for _ in range(2)], inner.result().count

    assert both(run) == ([1, 2], 2)


def test_asynchronous_actors(both, label):
    def run(side):
        actor = side.client.submit(Asynchronous, actor=True, key=label).result()
        return actor.add(1, 2).result(), said(actor.fail().result)

    assert both(run) == (3, ("ValueError", "asynchronously"))


def test_actors_that_are_let_go(both, label):
    def run(side):
        future = side.client.submit(Counter, 0, label, actor=True, key=label)
        actor = future.result()
        found = [actor.increment().result()]
        del future
        # The actor keeps its task.
        gc.collect()
        found += [actor.increment().result()]
        del actor
        gc.collect()
        side.await_unknown(label)
        return found

    assert both(run) == [1, 2]


def test_an_actor_whose_worker_dies(own, label):
    both = own(first={}, second={})

    def run(side):
        future = side.client.submit(Counter, 0, label, actor=True, key=label, workers=["first"])
        actor = future.result()
        assert actor.increment().result() == 1
        after = side.client.submit(uses_actor, actor, 1, key=f"{label}-after", workers=["second"])
        found = [outcome(after)]
        side.processes["first"].kill()
        await_condition(lambda: future.status == "error", lambda: future.status)
        found += [said(lambda: actor.increment().result())[0], said(lambda: actor.count)[0], said(future.result)[0]]
        again = side.client.submit(uses_actor, future, 2, key=f"{label}-again")
        return found + [said(again.result)[0]]

    both(run)


@pytest.mark.parametrize("kind", ["class", "unpicklable", "chained", "keyword", "notes"])
def test_what_is_raised(both, label, kind):
    def run(side):
        future = side.client.submit(raises, kind, key=label)
        error = future.exception(timeout=60)
        cause = type(error.__cause__).__name__
        notes = getattr(error, "__notes__", None)
        return type(error).__name__, str(error)[:40], cause, notes, future.status, future.traceback() is not None

    both(run)


