"""`collections`, `optimize_graph` and options: what is persisted, under which keys, and what it is afterwards."""

import dask
import dask.array as da
import dask.bag as db
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
from dask.delayed import delayed
from differential_tasks import noting, ran
from distributed import Client, futures_of


def listed(label, key, value, *needs):
    """A task with a name of its own, that notes its runs."""
    return delayed(ran)(label, value, *needs, dask_key_name=f"{label}-{key}")


def table(rows=60):
    return pd.DataFrame({"k": [row % 5 for row in range(rows)], "v": np.arange(rows) * 0.5, "name": [f"n{row}" for row in range(rows)]})


def test_an_array_keeps_chunks_and_dtype(both, label):
    x = da.arange(20, chunks=(6,), dtype="i4").map_blocks(noting, label=label, dtype="i4") * 2

    def run(side):
        kept = side.client.persist(x)
        side.wait(kept)
        assert kept.chunks == x.chunks and kept.dtype == x.dtype and kept.name == x.name
        assert side.held(kept) == sorted(map(str, kept.__dask_keys__()))
        assert side.states(kept) == ["memory"] * 4
        # Work on it does not compute it again.
        found = side.result(kept[5:8].sum()), side.result(kept.max()), side.result(kept).tolist()
        assert side.count(label) == 4
        return found

    assert both(run) == (36, 38, list(range(0, 40, 2)))


def test_a_dataframe_keeps_divisions_and_dtypes(both_in_turn, label):
    frame = dd.from_pandas(table(), npartitions=4)
    frame = frame.map_partitions(noting, label=label, meta=frame._meta).assign(w=frame.v * 2)

    def run(side):
        kept = side.client.persist(frame)
        side.wait(kept)
        assert kept.divisions == frame.divisions and (kept.dtypes == frame.dtypes).all()
        before = side.count(label)
        found = {
            "loc": side.result(kept.loc[10:12]).v.tolist(),
            "sum": side.result(kept.w.sum()),
            "by k": side.result(kept.groupby("k").v.sum()).tolist(),
            "partition": side.result(kept.partitions[1]).index.tolist(),
            "rows": side.result(kept.map_partitions(len)).tolist(),
            "keys": side.held(kept),
        }
        assert side.count(label) == before == 4
        return found

    assert both_in_turn(run)["loc"] == [5.0, 5.5, 6.0]


def test_a_bag(both, label):
    bag = db.from_sequence(range(10), npartitions=3).map(lambda x: x**2).filter(lambda x: x % 2 == 0)

    def run(side):
        kept = side.client.persist(bag)
        assert kept.npartitions == 3
        return side.result(kept), side.result(kept.sum()), side.held(kept)

    assert both(run)[:2] == ([0, 4, 16, 36, 64], 120)


def test_a_delayed_value(both, label):
    value = listed(label, "a", 1, listed(label, "b", 2))

    def run(side):
        kept = side.client.persist(value)
        assert kept.key == value.key
        return side.result(kept), side.held(kept), side.runs(label)

    found = both(run)
    # What is made on the way is let go of.
    assert found == (3, [f"{label}-a"], {f"{label}-a": 1, f"{label}-b": 1})


@pytest.mark.parametrize("kind", [list, tuple, lambda values: dict.fromkeys(values).keys() | set()])
def test_one_or_many(both, label, kind):
    values = [listed(label, index, index) for index in range(3)]

    def run(side):
        one = side.client.persist(values[0])
        many = side.client.persist(kind(values))
        assert isinstance(many, list)
        return type(one).__name__, side.result(one), sorted(side.result(many)), side.runs(label)

    assert both(run) == ("Delayed", 0, [0, 1, 2], {f"{label}-{index}": 1 for index in range(3)})


def test_mixed_kinds_together(both, label):
    collections = [da.ones(6, chunks=3), db.range(4, npartitions=2), listed(label, "a", 5), da.ones(6, chunks=3).sum()]

    def run(side):
        kept = side.client.persist(collections)
        types = [type(one).__name__ for one in kept]
        return types, side.result(kept[0]).tolist(), [side.result(one) for one in kept[1:]], side.held(kept)

    assert both(run)[:3] == (["Array", "Bag", "Delayed", "Array"], [1.0] * 6, [[0, 1, 2, 3], 5, 6.0])


def test_nested_containers_and_plain_values(both, label):
    x = da.ones(4, chunks=2)
    nested = {"sum": x.sum(), "list": [listed(label, "a", 1), 7, (listed(label, "b", 2), "text")], "plain": {"deep": None}}

    def run(side):
        kept, number = dask.persist(nested, 7, scheduler=side.client)
        assert number == 7 and kept["plain"] == {"deep": None} and kept["list"][1] == 7
        side.wait(futures_of(kept))
        return side.result(kept), side.runs(label), len(side.held(kept))

    found, runs, held = both(run)
    assert found == {"sum": 4.0, "list": [1, 7, (2, "text")], "plain": {"deep": None}}
    assert runs == {f"{label}-a": 1, f"{label}-b": 1} and held == 3


def test_compute_of_containers_and_plain_values(both, label):
    values = [listed(label, "a", 1), 7, {"b": [listed(label, "b", 2)]}, None]

    def run(side):
        futures = side.client.compute(values)
        return [type(one).__name__ for one in futures], side.client.gather(futures)

    assert both(run) == (["Future", "int", "Future", "NoneType"], [1, 7, {"b": [2]}, None])


def test_compute_without_traversal(both, label):
    inner = listed(label, "a", 1)

    def run(side):
        return side.result([inner, 7], traverse=False), side.runs(label)

    assert both(run) == ([1, 7], {f"{label}-a": 1})


def test_what_two_persist_runs_once_and_is_held_until_the_last_goes(both, label):
    base = listed(label, "base", 1)
    one, other = [base, listed(label, "one", 2, base)], [base, listed(label, "other", 3, base)]

    def run(side):
        first, second = side.client.persist(one), side.client.persist(other)
        side.wait(futures_of([*first, *second]))
        seen = [side.held(first, second), side.client.gather(side.client.compute([*first, *second]))]
        del first
        seen += [side.held(second), side.result(second[0]), side.runs(label)]
        del second
        side.held()
        return seen

    keys = [f"{label}-{name}" for name in ("base", "one", "other")]
    assert both(run) == [keys, [1, 3, 1, 4], [keys[0], keys[2]], 1, dict.fromkeys(keys, 1)]


def test_what_two_clients_persist_is_held_until_the_last_goes(both, label):
    value = listed(label, "a", 1)

    def run(side):
        with Client(side.scheduler.address, set_as_default=False) as other:
            first, second = side.client.persist(value), other.persist(value)
            side.wait(futures_of([first, second]))
            del first
            # Whatever the scheduler was told is done once it has answered this Client.
            side.client.sync(side.client.scheduler.identity)
            assert other.compute(second, sync=True) == 1
            seen = side.held(second), side.runs(label)
            del second
        side.held()
        return seen

    assert both(run) == ([f"{label}-a"], {f"{label}-a": 1})


def test_persisting_again_and_building_on_it(both, label):
    value = listed(label, "a", 1)

    def run(side):
        kept = side.client.persist(value)
        again = side.client.persist(kept)
        more = side.client.persist(listed(label, "b", 10, again))
        side.wait(futures_of([again, more]))
        again_from_source = side.client.persist(value)
        return side.result(more), side.result(again_from_source), side.runs(label), side.held(kept, again, more)

    a, b = f"{label}-a", f"{label}-b"
    assert both(run) == (11, 1, {a: 1, b: 1}, [a, b])


def test_what_is_made_on_the_way_is_released(both, label):
    first = [listed(label, f"first-{index}", index) for index in range(4)]
    second = [listed(label, f"second-{index}", 10, *first) for index in range(2)]
    last = listed(label, "last", 0, *second)

    def run(side):
        kept = side.client.persist([last, second[0]])
        side.wait(kept)
        side.held(kept)
        # What was let go of is made again for those who want it later.
        late = side.client.persist(first[1])
        return side.result(kept[0]), side.result(late), side.runs(label), side.held(kept, late)

    total, again, runs, held = both(run)
    assert (total, again, runs[f"{label}-first-1"], sum(runs.values())) == (32, 1, 2, 8)
    assert held == sorted([last.key, second[0].key, first[1].key])


# ---- optimize_graph and options


def chain(label):
    x = da.ones(4, chunks=2)
    return x.map_blocks(noting, label=f"{label}-a", dtype=x.dtype).map_blocks(noting, label=f"{label}-b", dtype=x.dtype) + 1


@pytest.mark.parametrize("optimize", [True, False])
def test_optimize_graph(both, label, optimize):
    x = chain(label)

    def run(side):
        kept = side.client.persist(x, optimize_graph=optimize)
        side.wait(kept)
        # Under which keys the layers ran says whether they were fused.
        return side.result(kept).tolist(), side.runs(f"{label}-a"), side.runs(f"{label}-b"), side.held(kept)

    result, first, second, held = both(run)
    assert result == [2.0] * 4 and len(held) == 2
    assert (list(first) == held) is (list(first) == list(second)) is optimize


def test_optimize_graph_of_a_dataframe(both_in_turn, label):
    frame = dd.from_pandas(table(), npartitions=3)
    frame = frame.map_partitions(noting, label=label, meta=frame._meta)[["v", "k"]].assign(w=1)[["w"]]

    def run(side):
        found = []
        for optimize in (True, False):
            kept = side.client.persist(frame, optimize_graph=optimize)
            found += [side.result(kept.w.sum()), side.held(kept), list(kept.columns), kept.npartitions]
            del kept
            side.held()
        return found, side.runs(label)

    found, _ = both_in_turn(run)
    assert (found[0], found[4]) == (60, 60)


def test_optimize_graph_of_delayed_values_and_bags(both, label):
    value = listed(label, "b", 2, listed(label, "a", 1))
    bag = db.range(6, npartitions=2).map(lambda x: x + 1).map(lambda x: x * 2)

    def run(side):
        found = []
        for optimize in (True, False):
            kept = side.client.persist([value, bag], optimize_graph=optimize)
            found.append((side.result(kept), side.held(kept)))
            del kept
            side.held()
        return found, side.runs(label)

    found, runs = both(run)
    assert [result for result, _ in found] == [[3, [2, 4, 6, 8, 10, 12]]] * 2
    assert runs == {f"{label}-a": 2, f"{label}-b": 2}


@pytest.mark.parametrize("options", [{"fuse_subgraphs": True}, {"inline_functions_fast_functions": ()}, {"rename_fused_keys": False}, {"harder": True}])
def test_options_of_the_optimisation(both, label, options):
    x = chain(label)

    def run(side):
        try:
            found = side.client.compute(x, sync=True, **options).tolist()
        except Exception as error:
            found = type(error).__name__, str(error)
        return found, side.runs(f"{label}-a"), side.runs(f"{label}-b")

    both(run)


def test_persist_ignores_options_of_the_optimisation(both, label):
    x = chain(label)

    def run(side):
        return side.result(side.client.persist(x, harder=True)).tolist(), side.runs(f"{label}-a")

    assert both(run)[0] == [2.0] * 4


@pytest.mark.parametrize("bad", [[[1]], "text", 7, {"a": 1}])
def test_what_is_no_collection_is_refused_by_persist(both, bad):
    def run(side):
        try:
            side.client.persist(bad)
        except Exception as error:
            return type(error).__name__

    assert both(run) in ("AssertionError", "TypeError")


def test_keys_of_all_kinds(both, label):
    keys = ["plain", (label, 0), (label, (1, 2.5)), (label, "a", -1)]
    values = [delayed(ran)(label, index, dask_key_name=key) for index, key in enumerate(keys)]

    def run(side):
        kept = side.client.persist(values)
        return side.result(kept), side.held(kept), side.runs(label)

    assert both(run)[0] == [0, 1, 2, 3]


def test_shuffles_and_rechunks_give_the_same(both_in_turn):
    frame = dd.from_pandas(table(), npartitions=4)
    x = da.arange(64, chunks=8).reshape(8, 8)

    def run(side):
        kept = side.client.persist([frame.shuffle("k"), frame.merge(frame, on="k"), frame.set_index("v"), x.rechunk((2, 8))])
        sums = [side.result(kept[0].v.sum()), side.result(kept[1].v_x.sum()), side.result(kept[2]).index.tolist()]
        return sums, kept[2].npartitions, side.result(kept[3]).tolist(), kept[3].chunks

    both_in_turn(run)
