"""`actors`: objects that stay where they are."""

import pytest
from dask.delayed import delayed
from differential_tasks import Counter, call_increment, ran
from distributed import Actor, futures_of
from harness import await_condition


def counter(label, start=0, name="counter"):
    return delayed(Counter)(start, label, dask_key_name=f"{label}-{name}")


def test_all_are_actors(both, label):
    counters = [counter(label, start, f"c{start}") for start in range(3)]

    def run(side):
        kept = side.client.persist(counters, actors=True)
        actors = [future.result() for future in futures_of(kept)]
        found = [isinstance(actor, Actor) for actor in actors], [actor.increment(5).result() for actor in actors]
        again = [future.result().increment().result() for future in futures_of(kept)]
        # It stays where it is.
        stays = all(actor.where().result() in side.holders(one) for actor, one in zip(actors, kept))
        return found, again, [actor.count for actor in actors], stays, side.runs(label)

    assert both(run) == (
        ([True] * 3, [5, 6, 7]), [6, 7, 8], [6, 7, 8], True, {f"{label}-c{start}": 1 for start in range(3)},
    )


@pytest.mark.parametrize("actors", [None, False])
def test_none_is_an_actor(both, label, actors):
    value = counter(label, 3)

    def run(side):
        [future] = futures_of(side.client.persist(value, actors=actors))
        found = future.result()
        return type(found).__name__, found.increment(), future.result().count

    assert both(run) == ("Counter", 4, 3)


def test_only_outputs_are_actors(both, label):
    base = delayed(ran)(label, 4, dask_key_name=f"{label}-base")

    def run(side):
        kept = side.client.persist(delayed(Counter)(base, dask_key_name=f"{label}-counter"), actors=True)
        return futures_of(kept)[0].result().increment().result(), side.values(label)

    assert both(run) == (5, [4])


@pytest.mark.parametrize("given", ["key", "tuple", "collection"])
def test_some_are_actors(both, label, given):
    one, other = counter(label, 1, "one"), counter(label, 2, "other")
    actors = {"key": one.key, "tuple": (one.key,), "collection": one}[given]

    def run(side):
        kept = side.client.persist([one, other], actors=actors)
        return [type(future.result()).__name__ for future in futures_of(kept)]

    assert both(run) == ["Actor", "Counter"]


# A dict is what the documentation of `persist` has; the Client of this release sends it as one key.
@pytest.mark.parametrize("given", ["nothing", ("nothing",), ["nothing"], {"nothing": True}], ids=["key", "tuple", "list", "dict"])
def test_actors_that_are_not_in_the_graph(both, label, given):
    def run(side):
        kept = side.client.persist(counter(label, 1), actors=given)
        side.wait(kept)
        [future] = futures_of(kept)
        return future.status, type(future.exception()).__name__ if future.status == "error" else type(future.result()).__name__

    assert both(run)[0] == "error"


def test_other_tasks_use_them(both, label):
    base = counter(label, 10)

    def run(side):
        kept = side.client.persist(base, actors=True)
        side.wait(kept)
        calls = [delayed(call_increment)(kept, by, dask_key_name=f"{label}-{by}") for by in (1, 2)]
        # On a worker of its own and on another.
        first = side.result(side.client.persist(calls[0], workers=side.holders(kept)))
        second = side.result(side.client.persist(calls[1], workers=[name for name in ("alice", "bob") if name not in side.holders(kept)]))
        return first, second, futures_of(kept)[0].result().count

    assert both(run) == (11, 13, 13)


def test_with_workers_and_resources(both, label):
    def run(side):
        there = side.client.persist(counter(label, 1, "there"), actors=True, workers="erin")
        gpu = side.client.persist(counter(label, 1, "gpu"), actors=True, resources={"GPU": 1})
        return [futures_of(one)[0].result().where().result() for one in (there, gpu)]

    assert both(run) == ["erin", "alice"]


def test_what_its_methods_raise(both, label):
    def run(side):
        actor = futures_of(side.client.persist(counter(label), actors=True))[0].result()
        try:
            actor.fail().result()
        except KeyError as error:
            return str(error), actor.increment().result()

    assert both(run) == ("'no such thing'", 1)


def test_one_that_cannot_be_made(both, label):
    def run(side):
        kept = side.client.persist(delayed(Counter)(1, 2, 3, 4, dask_key_name=f"{label}-bad"), actors=True)
        return side.outcome(kept)[0]

    assert both(run) == "TypeError"


def test_one_that_is_lost_with_its_worker(own, label):
    both = own(first={}, second={})

    def run(side):
        kept = side.client.persist(counter(label), actors=True, workers="first", allow_other_workers=True)
        [future] = futures_of(kept)
        assert future.result().increment().result() == 1
        side.processes["first"].kill()
        await_condition(lambda: future.status == "error", lambda: future.status)
        error = future.exception()
        return type(error).__name__, str(error).startswith("Worker holding Actor was lost"), side.count(label)

    assert both(run) == ("RuntimeError", True, 1)
