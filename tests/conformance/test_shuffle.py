"""Peer-to-peer shuffles with Dask's default settings: what comes out, whatever happens to the workers meanwhile."""

import contextlib
import zlib

import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
from conformance_tasks import pass_on, runs, spread
from distributed import Client, wait
from harness import Mainstay, await_condition, resume, stop, workers_of

ROWS = 2_000


@pytest.fixture
def table(request):
    # Each test has data of its own, and so shuffles of its own.
    rng = np.random.default_rng(zlib.crc32(request.node.name.encode()))
    return pd.DataFrame({"key": rng.integers(0, 20, ROWS), "value": rng.permutation(ROWS), "name": rng.choice(list("abcde"), ROWS)})


@pytest.fixture
def frame(table):
    return dd.from_pandas(table, npartitions=6)


def rounds(client):
    """The shuffles that a worker has heard the end of, with the number of their last run."""
    found = {}
    told = client.run(lambda dask_worker: dict(dask_worker.extensions["shuffle"].shuffle_runs._stale_run_ids))
    for of_worker in told.values():
        for shuffle, run in of_worker.items():
            found[shuffle] = max(run, found.get(shuffle, 0))
    return found


def await_nothing_left(client):
    """Once results are there, no worker has data of a shuffle."""

    def left():
        return client.run(lambda dask_worker: len(dask_worker.extensions["shuffle"].shuffle_runs._runs))

    await_condition(lambda: not any(left().values()), lambda: f"runs of shuffles are left: {left()}")


@pytest.fixture
def shuffles(client):
    """Counts the peer-to-peer shuffles that a test makes."""
    before = len(rounds(client))

    def count():
        await_nothing_left(client)
        return len(rounds(client)) - before

    return count


def equal(found, expected):
    columns = sorted(expected)
    found, expected = (part[columns].sort_values(columns).reset_index(drop=True) for part in (found, expected))
    # Dask keeps texts in Arrow, pandas where it likes.
    pd.testing.assert_frame_equal(found, expected, check_dtype=False)


def test_a_dataframe_is_shuffled(client, shuffles, table, frame):
    parts = client.compute(frame.shuffle("key").to_delayed(), sync=True)
    equal(pd.concat(parts), table)
    keys = [set(part.key) for part in parts]
    assert sum(map(len, keys)) == table.key.nunique(), "each key is in one partition"
    assert shuffles() == 1


def test_only_some_of_the_partitions(client, shuffles, frame):
    shuffled = frame.shuffle("key")
    some = shuffled.partitions[[1, 4]].compute()
    whole = client.compute(shuffled.to_delayed(), sync=True)
    equal(some, pd.concat([whole[1], whole[4]]))
    assert shuffles() == 2


def test_dataframes_are_joined(client, shuffles, table, frame):
    other = table.groupby("key").value.mean().rename("mean").reset_index().loc[3:]
    right = dd.from_pandas(other, npartitions=4)
    for how in ("inner", "left", "outer"):
        equal(frame.merge(right, on="key", how=how).compute(), table.merge(other, on="key", how=how))
    assert shuffles() >= 2


def test_an_index_is_set(client, shuffles, table, frame):
    pd.testing.assert_frame_equal(frame.set_index("value").compute(), table.set_index("value").sort_index(), check_dtype=False)
    assert shuffles() == 1


def test_groups_are_brought_together(client, shuffles, table, frame):
    found = frame.groupby("key").apply(spread, meta=("spread", "i8")).compute().sort_index()
    expected = table.groupby("key")[["value"]].apply(spread)
    np.testing.assert_array_equal(found, expected)
    assert shuffles() == 1


def test_an_array_is_rechunked(client, shuffles):
    numbers = np.arange(60**2).reshape((60, 60))
    x = da.from_array(numbers, chunks=(60, 1)).rechunk((1, 60))
    np.testing.assert_array_equal((x + 1).compute(), numbers + 1)
    assert shuffles() == 1


def test_an_array_is_rechunked_along_all_its_axes(client, shuffles):
    numbers = np.arange(24**3).reshape((24, 24, 24))
    x = da.from_array(numbers, chunks=(24, 5, 4)).rechunk((4, 24, 7), method="p2p")
    np.testing.assert_array_equal(x.compute(), numbers)
    assert shuffles() >= 1


def test_several_at_once(client, shuffles, table, frame):
    numbers = np.arange(40**2).reshape((40, 40))
    wanted = [
        frame.shuffle("key"),
        frame.shuffle("name"),
        frame.set_index("value"),
        frame.merge(frame[["value"]].rename(columns={"value": "key"}), on="key"),
        da.from_array(numbers, chunks=(40, 1)).rechunk((1, 40)),
    ]
    by_key, by_name, indexed, joined, array = client.gather(client.compute(wanted))
    equal(by_key, table)
    equal(by_name, table)
    pd.testing.assert_frame_equal(indexed, table.set_index("value").sort_index(), check_dtype=False)
    equal(joined, table.merge(table[["value"]].rename(columns={"value": "key"}), on="key"))
    np.testing.assert_array_equal(array, numbers)
    assert shuffles() >= 5


def test_a_shuffle_within_a_task(client, shuffles, table):
    def shuffle_here(table):
        return dd.from_pandas(table, npartitions=4).shuffle("key").compute()

    equal(client.submit(shuffle_here, table).result(), table)
    assert shuffles() == 1


def test_an_error_in_an_input_is_the_error(client, shuffles, frame):
    def check(part):
        if part.value.eq(7).any():
            raise ValueError("bad partition")
        return part

    with pytest.raises(ValueError, match="bad partition"):
        frame.map_partitions(check, meta=frame._meta).shuffle("key").compute()
    await_nothing_left(client)


def test_a_shuffle_that_nobody_wants_any_more_is_dropped(client, table, frame, tmp_path):
    started, gate = tmp_path / "started", tmp_path / "gate"
    held = frame.map_partitions(pass_on, started, gate, meta=frame._meta).shuffle("key")
    future = client.compute(held)
    await_condition(lambda: runs(started), "an input is made")
    future.cancel()
    del future
    gate.touch()
    await_nothing_left(client)
    equal(frame.shuffle("key").compute(), table)


# ---- workers come and go -------------------------------------------------------------------------------------------


@pytest.fixture
def fleet(mainstay):
    """Three workers, of which some will not see the end."""
    workers = {name: mainstay.start_worker("--preload", "dask.dataframe", name=name, threads=2) for name in ("one", "two", "three")}
    with Client(mainstay.address) as client:
        client.wait_for_workers(3)
        yield client, workers


def held_at(stage, frame, started, gate):
    """A shuffle that goes on when the gate is there: some of its inputs, or what is made of its outputs, wait for it."""
    if stage == "unpack":
        return frame.shuffle("key").map_partitions(pass_on, started, gate, meta=frame._meta)
    late = frame.partitions[-2:].map_partitions(pass_on, started, gate, meta=frame._meta)
    return dd.concat([frame.partitions[:-2], late]).shuffle("key")


@pytest.mark.parametrize("stage", ["transfer", "unpack"])
def test_a_worker_is_killed_in_the_middle(fleet, table, frame, tmp_path, stage):
    client, workers = fleet
    started, gate = tmp_path / "started", tmp_path / "gate"
    future = client.compute(held_at(stage, frame, started, gate))
    await_condition(lambda: runs(started) >= 2, "some of it waits")
    workers["two"].kill()
    await_condition(lambda: len(workers_of(client)) == 2, "it is known to be gone")
    gate.touch()
    equal(future.result(60), table)
    await_nothing_left(client)


def test_two_workers_are_killed_one_after_the_other(fleet, table, frame, tmp_path):
    client, workers = fleet
    gates = [tmp_path / "first-gate", tmp_path / "second-gate"]
    started = [tmp_path / "first", tmp_path / "second"]
    shuffled = held_at("transfer", frame, started[0], gates[0])
    future = client.compute(shuffled.map_partitions(pass_on, started[1], gates[1], meta=frame._meta))
    for name, begun, gate in zip(("two", "three"), started, gates):
        await_condition(lambda: runs(begun), "some of it waits")
        workers[name].kill()
        gate.touch()
    equal(future.result(60), table)
    await_nothing_left(client)


def test_several_shuffles_with_a_worker_killed_in_between(fleet, table, frame, tmp_path):
    client, workers = fleet
    started, gate = tmp_path / "started", tmp_path / "gate"
    other = table.groupby("key").value.mean().rename("mean").reset_index()
    late = frame.map_partitions(pass_on, started, gate, meta=frame._meta)
    numbers = np.arange(50**2).reshape((50, 50))
    wanted = [
        dd.concat([frame, late]).shuffle("key"),
        late.merge(dd.from_pandas(other, npartitions=4), on="key", broadcast=False),
        frame.set_index("value"),
        frame.groupby("key").apply(spread, meta=("spread", "i8")),
        da.from_array(numbers, chunks=(50, 1)).rechunk((1, 50)),
    ]
    futures = client.compute(wanted)
    await_condition(lambda: runs(started) >= 2, "some of it waits")
    workers["one"].kill()
    gate.touch()
    twice, joined, indexed, spreads, array = client.gather(futures)
    equal(twice, pd.concat([table, table]))
    equal(joined, table.merge(other, on="key"))
    pd.testing.assert_frame_equal(indexed, table.set_index("value").sort_index(), check_dtype=False)
    np.testing.assert_array_equal(spreads.sort_index(), table.groupby("key")[["value"]].apply(spread))
    np.testing.assert_array_equal(array, numbers)
    await_nothing_left(client)


def test_a_worker_that_hangs_is_killed_in_the_end(fleet, table, frame, tmp_path):
    client, workers = fleet
    started, gate = tmp_path / "started", tmp_path / "gate"
    future = client.compute(held_at("transfer", frame, started, gate))
    await_condition(lambda: runs(started) >= 2, "some of it waits")
    stop(workers["two"].pid)
    gate.touch()
    wait(future, timeout=3, return_when="FIRST_COMPLETED") if future.done() else None
    workers["two"].kill()
    resume_if_alive(workers["two"])
    equal(future.result(60), table)
    await_nothing_left(client)


def resume_if_alive(worker):
    if worker.is_alive():
        resume(worker.pid)


def test_a_worker_is_retired_in_the_middle(fleet, table, frame, tmp_path):
    client, workers = fleet
    started, gate = tmp_path / "started", tmp_path / "gate"
    future = client.compute(held_at("unpack", frame, started, gate))
    await_condition(lambda: runs(started) >= 2, "some of it waits")
    [address] = [address for address, worker in workers_of(client).items() if worker["name"] == "three"]
    client.retire_workers([address])
    gate.touch()
    equal(future.result(60), table)
    await_nothing_left(client)


def test_a_worker_joins_in_the_middle(mainstay, fleet, table, frame, tmp_path):
    client, _ = fleet
    started, gate = tmp_path / "started", tmp_path / "gate"
    future = client.compute(held_at("transfer", frame, started, gate))
    await_condition(lambda: runs(started) >= 2, "some of it waits")
    mainstay.start_worker(name="four", threads=4)
    client.wait_for_workers(4)
    gate.touch()
    equal(future.result(60), table)
    await_nothing_left(client)


def test_what_is_lost_after_a_shuffle_is_made_again(fleet, table, frame):
    client, workers = fleet
    numbers = np.arange(50**2).reshape((50, 50))
    shuffled, array = client.persist([frame.shuffle("key"), da.from_array(numbers, chunks=(50, 1)).rechunk((1, 50))])
    wait([shuffled, array])
    await_nothing_left(client)
    before = rounds(client)
    workers["one"].kill()
    equal(shuffled.compute(), table)
    np.testing.assert_array_equal(array.compute(), numbers)
    await_nothing_left(client)
    assert max(rounds(client).values()) > max(before.values()), "there was another run"


# ---- declared collections ------------------------------------------------------------------------------------------

SOURCE = """
import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd

table = pd.DataFrame({"k": [n % 7 for n in range(700)], "v": range(700)})
lazy = dd.from_pandas(table, npartitions=5)
shuffled = lazy.shuffle("k")
joined = lazy.merge(lazy.assign(w=lazy.v * 2)[["v", "w"]], on="v", broadcast=False)
indexed = lazy.assign(v=-lazy.v).set_index("v")
array = da.from_array(np.arange(2500).reshape((50, 50)), chunks=(50, 1)).rechunk((1, 50))
"""
MANIFEST = f"""
apiVersion: mainstay.dev/v1alpha1
kind: PersistedCollection
metadata: {{name: shuffles}}
spec:
  source:
    python: |
{"".join(f"      {line}" for line in SOURCE.strip().splitlines(keepends=True))}
  collections: [shuffled, joined, indexed, array]
"""


def test_a_declared_collection_is_shuffled_and_mended(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/shuffles.yaml").write_text(MANIFEST)
    with contextlib.ExitStack() as stack:
        mainstay = Mainstay(tmp_path / "run", "-f", "shuffles.yaml", "--workers", "0", stack=stack)
        workers = [mainstay.start_worker(name=name, threads=2) for name in ("one", "two", "three")]
        client = stack.enter_context(Client(mainstay.address))
        await_condition(lambda: "shuffles/array" in client.list_datasets(), "it is built")
        check_declared(client)
        assert len(rounds(client)) >= 4, "shuffled, both sides of joined, indexed and array"
        workers[1].kill()
        check_declared(client)
        workers[0].kill()
        mainstay.start_worker(name="four")
        check_declared(client)
        await_nothing_left(client)


def check_declared(client):
    table = pd.DataFrame({"k": [n % 7 for n in range(700)], "v": range(700)})
    kept = {name: client.get_dataset(f"shuffles/{name}") for name in ("shuffled", "joined", "indexed", "array")}
    wait(list(kept.values()))
    equal(kept["shuffled"].compute(), table)
    equal(kept["joined"].compute(), table.assign(w=table.v * 2))
    expected = table.assign(v=-table.v).set_index("v").sort_index()
    pd.testing.assert_frame_equal(kept["indexed"].compute(), expected, check_dtype=False)
    np.testing.assert_array_equal(kept["array"].compute(), np.arange(2500).reshape((50, 50)))
