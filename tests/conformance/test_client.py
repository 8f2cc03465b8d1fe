"""What people do with a Client every day."""

import asyncio
import sys

import pytest
from conformance_tasks import add, fail, fail_first, hold, inc, note, runs, total
from distributed import Client, Future, as_completed, fire_and_forget, wait
from distributed.diagnostics.progressbar import MultiProgressBar, TextProgressBar, progress
from harness import WORKER_PYTHONS, await_condition


def test_submit_map_and_gather(client):
    assert client.submit(inc, 1).result() == 2
    futures = client.map(inc, range(20))
    assert client.gather(futures) == list(range(1, 21))
    assert client.gather({"a": futures[0], "b": [futures[1]]}) == {"a": 1, "b": [2]}
    assert client.submit(add, 1, other=2).result() == 3
    assert client.map(add, range(3), range(3), batch_size=2)[2].result() == 4


def test_futures_are_arguments_of_other_tasks(client):
    one, two = client.submit(inc, 0), client.submit(inc, 1)
    assert client.submit(add, one, two).result() == 3
    assert client.submit(total, [one, two, 10]).result() == 13
    # A key may be any that Dask knows.
    named = client.submit(add, one, {"a": two}["a"], key=("named", 0))
    assert (named.key, named.result()) == (("named", 0), 3)


def test_wait_and_as_completed(client, tmp_path):
    gate = tmp_path / "gate"
    held = client.submit(hold, tmp_path / "started", gate, "late")
    quick = client.submit(inc, 1)
    done, not_done = wait([held, quick], return_when="FIRST_COMPLETED")
    assert (done, not_done) == ({quick}, {held})
    assert (quick.status, held.status) == ("finished", "pending")
    with pytest.raises(TimeoutError):
        held.result(timeout=0.1)
    completed = as_completed([held, quick], with_results=True)
    assert next(completed)[1] == 2
    gate.touch()
    assert next(completed)[1] == "late"


def test_what_a_task_raises_is_raised_here(client):
    future = client.submit(fail, "bad row 7")
    with pytest.raises(ValueError, match="^bad row 7$"):
        future.result()
    assert future.status == "error"
    assert isinstance(future.exception(), ValueError)
    assert future.traceback().tb_frame.f_code.co_name in ("fail", "<module>", "__call__") or future.traceback()
    dependent = client.submit(inc, future)
    with pytest.raises(ValueError, match="bad row 7"):
        dependent.result()
    with pytest.raises(ValueError, match="bad row 7"):
        client.gather([client.submit(inc, 1), dependent])
    assert client.gather([client.submit(inc, 1), dependent], errors="skip") == [2]


def test_an_exception_of_a_class_of_ones_own(client):
    class Refusal(Exception):
        def __init__(self, code, *, reason):
            super().__init__(code, reason)
            self.code, self.reason = code, reason

        def __reduce__(self):
            return _rebuilt, (Refusal, self.code, self.reason)

    def _rebuilt(kind, code, reason):
        return kind(code, reason=reason)

    def refuse():
        raise Refusal(7, reason="closed")

    error = client.submit(refuse).exception()
    assert type(error).__name__ == "Refusal" and (error.code, error.reason) == (7, "closed")


def test_what_cannot_be_unpickled_fails_the_task_only(client):
    class Poison:
        def __reduce__(self):
            return eval, ("1 / 0",)

    with pytest.raises((ZeroDivisionError, RuntimeError)):
        client.submit(id, Poison()).result()
    assert client.submit(inc, 1).result() == 2

    def make():
        class Locked:
            def __reduce__(self):
                raise TypeError("cannot leave")

        return Locked()

    with pytest.raises(Exception, match="cannot leave|serialize"):
        client.submit(make).result()
    assert client.submit(inc, 2).result() == 3


def test_retries(client, tmp_path):
    assert client.submit(fail_first, tmp_path / "two", 2, retries=2).result() == 3
    future = client.submit(fail_first, tmp_path / "many", 9, retries=2)
    with pytest.raises(ValueError, match="failure 3"):
        future.result()
    assert runs(tmp_path / "many") == 3


def test_retry_by_hand(client, tmp_path):
    future = client.submit(fail_first, tmp_path / "runs", 1)
    dependent = client.submit(inc, future)
    wait(dependent)
    assert (future.status, dependent.status) == ("error", "error")
    client.retry([dependent])
    assert dependent.result() == 3
    assert future.result() == 2


def test_higher_priority_runs_first(client, tmp_path):
    gate, order = tmp_path / "gate", tmp_path / "order"
    held = client.submit(hold, tmp_path / "started", gate, workers="bob")
    await_condition(lambda: runs(tmp_path / "started"), "the holder starts")
    futures = [
        client.submit(note, order, (priority, index), priority=priority, workers="bob", pure=False)
        for priority in (-5, 0, 5)
        for index in range(3)
    ]
    # All are known to the scheduler before the first may start.
    await_condition(lambda: all(states(client, futures).values()), "all are known")
    gate.touch()
    wait([held, *futures])
    found = [eval(line)[0] for line in order.read_text().splitlines()]
    # One was on the worker already, behind the holder; all others go by priority.
    assert found[1:] == sorted(found[1:], reverse=True)


def states(client, futures):
    keys = [future.key for future in futures]
    return client.sync(client.scheduler.get_task_status, keys=keys)


def test_resources_are_never_taken_twice(client, tmp_path):
    started, gate = tmp_path / "started", tmp_path / "gate"
    futures = [client.submit(hold, started, gate, index, resources={"GPU": 1}) for index in range(4)]
    await_condition(lambda: runs(started) == 2, "two run")
    gate.touch()
    assert client.gather(futures) == [0, 1, 2, 3]
    # Two are on the worker, though it has one thread left for others.
    big = client.submit(inc, 1, resources={"GPU": 2})
    assert big.result() == 2


def test_resources_that_nobody_has_wait(client):
    future = client.submit(inc, 1, resources={"FPGA": 1}, allow_other_workers=False)
    await_condition(lambda: states(client, [future])[future.key] == "no-worker", "it waits for a worker")
    assert future.status == "pending"


def test_workers_and_other_workers(client, address_of):
    def where(index, dask_worker=None):
        from distributed import get_worker

        return get_worker().name

    assert set(client.gather(client.map(where, range(6), workers="bob"))) == {"bob"}
    assert set(client.gather(client.map(where, range(6, 12), workers=["alice"]))) == {"alice"}
    assert set(client.gather(client.map(where, range(12, 18), workers=address_of["bob"]))) == {"bob"}
    assert client.submit(where, 20, workers="nobody", allow_other_workers=True).result() in ("alice", "bob")
    lost = client.submit(where, 21, workers="nobody")
    await_condition(lambda: states(client, [lost])[lost.key] == "no-worker", "it waits for a worker")


def test_cancel(client, tmp_path):
    started, gate = tmp_path / "started", tmp_path / "gate"
    held = client.submit(hold, started, gate, workers="bob")
    await_condition(lambda: runs(started), "it runs")
    waiting = client.submit(note, tmp_path / "ran", workers="bob")
    dependent = client.submit(inc, waiting)
    waiting.cancel()
    assert waiting.cancelled()
    await_condition(lambda: dependent.status == "cancelled", lambda: dependent.status)
    gate.touch()
    held.result()
    assert client.submit(inc, 1, workers="bob").result() == 2
    assert runs(tmp_path / "ran") == 0


def test_what_nobody_wants_leaves_the_workers(client, shared):
    future = client.submit(bytes, 1000, key="wanted")
    future.result()
    assert "wanted" in {key for keys in client.has_what().values() for key in keys}
    del future
    await_condition(lambda: not any(client.has_what().values()), "it is freed")
    in_data = lambda dask_worker: list(dask_worker.data)
    await_condition(lambda: not any(client.run(in_data).values()), "the workers have freed it")


def test_scatter(client, address_of):
    assert client.scatter(7).result() == 7
    assert client.gather(client.scatter([1, 2, 3])) == [1, 2, 3]
    assert client.gather(client.scatter({"a": 1})) == {"a": 1}
    assert client.scatter(b"there", workers=["bob"]).result() == b"there"
    everywhere = client.scatter(list(range(5)), broadcast=True, hash=False)
    direct = client.scatter(["direct"], direct=True, hash=False)
    assert client.gather(direct) == ["direct"]
    assert client.submit(total, everywhere).result() == 10
    for holders in client.who_has(everywhere).values():
        assert set(holders) == set(address_of.values())
    one = client.scatter({"only": 1}, workers=[address_of["alice"]], hash=False)["only"]
    assert list(client.who_has([one]).values()) == [(address_of["alice"],)]


def test_gather_from_workers_directly(client):
    futures = client.map(inc, range(10))
    assert client.gather(futures, direct=True) == list(range(1, 11))


def test_what_a_scheduler_knows(client, address_of):
    info = client.sync(client.scheduler.identity, n_workers=-1)
    assert info["address"] == client.scheduler.address and info["type"] == "Scheduler"
    assert {worker["name"]: worker["nthreads"] for worker in info["workers"].values()} == {"alice": 2, "bob": 1}
    assert info["workers"][address_of["alice"]]["resources"] == {"GPU": 2.0}
    assert client.nthreads() == client.ncores() == {address_of["alice"]: 2, address_of["bob"]: 1}
    future = client.submit(inc, 1, workers="alice")
    future.result()
    assert client.who_has([future]) == {future.key: (address_of["alice"],)}
    assert client.has_what()[address_of["alice"]] == (future.key,)
    assert client.nbytes(summary=False) == {future.key: 28}
    assert client.processing() == {address: () for address in address_of.values()}
    assert client.dashboard_link and repr(client).startswith("<Client: 'tcp://127.0.0.1")
    client.wait_for_workers(2, timeout=5)
    with pytest.raises(TimeoutError):
        client.wait_for_workers(3, timeout=0.2)


@pytest.mark.skipif(WORKER_PYTHONS != [sys.executable], reason="they do not: the workers are of other releases")
def test_versions_agree(client):
    versions = client.get_versions(check=True)
    assert versions["scheduler"]["packages"]["distributed"] == versions["client"]["packages"]["distributed"]
    assert len(versions["workers"]) == 2


def test_run_on_all_workers(client, address_of):
    def twice(number, dask_worker=None):
        return dask_worker.name, number * 2

    assert client.run(twice, 4) == {address: (name, 8) for name, address in address_of.items()}
    assert client.run(twice, 1, workers=[address_of["bob"]]) == {address_of["bob"]: ("bob", 2)}
    with pytest.raises(ValueError, match="no good"):
        client.run(fail, "no good")
    returned = client.run(fail, "no good", on_error="return")
    assert {type(error) for error in returned.values()} == {ValueError}
    nannied = client.run(lambda: "from the nanny", nanny=True)
    assert list(nannied.values()) == ["from the nanny"]


def test_events(client):
    heard = []
    client.subscribe_topic("weather", lambda event: heard.append(event[1]))

    def speak():
        # What is subscribed and what is logged travel on different comms.
        client.log_event("weather", {"wind": 7})
        return heard

    await_condition(speak, "it is heard")
    client.submit(lambda: __import__("distributed").get_worker().log_event("weather", {"rain": 1}), pure=False).result()
    await_condition(lambda: any("rain" in msg for msg in heard), "what a task logs is heard")
    logged = [msg for _, msg in client.get_events("weather")]
    assert logged[0] == {"wind": 7} and logged[-len(heard):] == heard
    assert logged[-1]["worker"].startswith("tcp://127.0.0.1")
    assert "weather" in client.get_events()
    client.unsubscribe_topic("weather")


def test_metadata(client):
    client.set_metadata(["run", "started"], 5)
    client.set_metadata("plain", [1, 2])
    assert client.get_metadata(["run", "started"]) == 5
    assert client.get_metadata(["run"]) == {"started": 5}
    assert list(client.get_metadata("plain")) == [1, 2]
    assert client.get_metadata(["run", "ended"], default=None) is None
    with pytest.raises(KeyError):
        client.get_metadata(["nothing"])
    # What is said of a task goes with it.
    future = client.submit(inc, 1)
    wait(future)
    client.set_metadata(future.key, "mine")
    assert client.get_metadata(future.key) == "mine"
    key = future.key
    del future
    await_condition(lambda: client.get_metadata(key, default=None) is None, "the task is forgotten")


def test_events_say_what_became_of_graphs(client):
    assert client.submit(inc, 1).result() == 2
    client.submit(inc, 2, key="cancelled").cancel()

    def own():
        return [event for _, event in client.get_events(client.id)]

    expected = ["add-client", "update-graph", "update-graph", "cancel"]
    await_condition(lambda: [event["action"] for event in own()] == expected, own)
    assert own()[1] == {"action": "update-graph", "status": "OK", "metrics": {"tasks": 1}}
    assert own()[1] in [event for _, event in client.get_events("scheduler")]


@pytest.mark.parametrize("bar", ["text", "by prefix"])
def test_progress(client, tmp_path, bar, capsys):
    """The bars of `distributed.progress`, without a terminal or a notebook."""
    gate = tmp_path / "gate"
    held = client.submit(hold, tmp_path / "started", gate, 1)
    first = client.map(inc, range(4), key=[f"first-{index}" for index in range(4)])
    sums = client.submit(total, [held, *first], key="sum-0")
    await_condition(lambda: runs(tmp_path / "started"), "it runs")
    wait(first)
    seen = []

    class Bar(MultiProgressBar if bar == "by prefix" else TextProgressBar):
        def _draw_bar(self, **response):
            seen.append(response)
            if bar == "text":
                super()._draw_bar(**response)
            gate.touch()

        def _draw_stop(self, **response):
            seen.append("stopped")

    watched = Bar([sums], **({"start": False} if bar == "text" else {}))
    client.sync(watched.listen)
    assert seen[-1] == "stopped" and seen[-2]["status"] == "finished"
    if bar == "text":
        assert (seen[0]["all"], seen[-2]["all"], seen[-2]["remaining"]) == (6, 6, 0)
        assert seen[0]["remaining"] in (1, 2)
    else:
        assert seen[-2]["all"].keys() >= {"hold", "sum"} and set(seen[-2]["remaining"].values()) == {0}


def test_progress_of_what_fails(client, capsys):
    progress(client.submit(fail, "bad row 7"), notebook=False)
    future = client.submit(fail, "bad row 8")
    bar = TextProgressBar([future], start=False)
    client.sync(bar.listen)
    assert bar.status == "error"


def test_fire_and_forget(client, tmp_path):
    path = tmp_path / "ran"
    fire_and_forget(client.submit(note, path, 1))
    await_condition(lambda: runs(path), "it ran though nobody waits for it")
    fire_and_forget(client.submit(fail, "nobody listens"))


def test_an_asynchronous_client(shared):
    async def main():
        async with Client(shared.address, asynchronous=True, set_as_default=False) as client:
            futures = client.map(inc, range(5))
            assert await client.gather(futures) == [1, 2, 3, 4, 5]
            assert await client.submit(add, futures[0], 5) == 6
            [data] = await client.scatter([3])
            assert await data == 3

    asyncio.run(main())


def test_two_clients_want_the_same(client, shared, tmp_path):
    with Client(shared.address, set_as_default=False) as other:
        one = client.submit(note, tmp_path / "runs", "x", key="common")
        two = other.submit(note, tmp_path / "runs", "x", key="common")
        assert one.result() == two.result() == "x"
        assert runs(tmp_path / "runs") == 1
        del one
        assert Future("common", client=other).result() == "x"


def test_a_client_that_dies_lets_go(shared, client):
    import subprocess
    import sys

    program = f"""
import os
from distributed import Client
client = Client("{shared.address}")
future = client.submit(bytes, 100, key="orphan")
future.result()
os._exit(1)
"""
    subprocess.run([sys.executable, "-c", program], check=False)
    await_condition(lambda: not any(client.has_what().values()), "what it held is freed")


def test_many_small_tasks(client):
    futures = client.map(inc, range(1000))
    assert client.submit(total, futures).result() == sum(range(1, 1001))
