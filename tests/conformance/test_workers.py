"""Workers come, die, pause, leave, and are of the wrong release."""

import asyncio
import os
import signal

import pytest
from conformance_tasks import Counter, die, fail_first, hold, inc, note, runs, total
from distributed import Client, wait
from distributed.core import Status, connect
from distributed.versions import get_versions
from harness import await_condition, served, workers_of


@pytest.fixture
def client(mainstay):
    with Client(mainstay.address) as client:
        yield client


def named(client):
    """Workers by name."""
    workers = workers_of(client)
    return {worker["name"]: {**worker, "address": address} for address, worker in workers.items()}


def test_clients_may_come_before_workers(mainstay, client):
    future = client.submit(inc, 1)
    scattered = client.submit(total, [future, 2])
    mainstay.start_worker()
    assert scattered.result() == 4


def test_workers_of_all_kinds(mainstay, client):
    mainstay.start_worker("--resources", "GPU=2 FAST=0.5", name="plain", threads=3)
    mainstay.start_worker(name="7")
    mainstay.start_worker(name="nannied", nanny=True)
    client.wait_for_workers(3)
    workers = named(client)
    assert {str(name) for name in workers} == {"plain", "7", "nannied"}
    assert workers["plain"]["resources"] == {"GPU": 2.0, "FAST": 0.5} and workers["plain"]["nthreads"] == 3
    assert workers["plain"]["nanny"] is None and workers["nannied"]["nanny"].startswith("tcp://127.0.0.1")
    assert client.submit(inc, 1, workers=["7"]).result() == 2
    assert client.submit(inc, 2, resources={"FAST": 0.5}).result() == 3


def test_a_name_that_is_taken_is_refused(mainstay, client):
    mainstay.start_worker(name="one")
    client.wait_for_workers(1)
    second = mainstay.start_worker("--no-dashboard", name="one")
    assert second.wait() != 0
    assert "name taken, one" in second.output
    assert len(named(client)) == 1


def test_a_killed_worker_takes_nothing_with_it(mainstay, client, tmp_path):
    first, second = mainstay.start_worker(name="first"), mainstay.start_worker(name="second")
    client.wait_for_workers(2)
    held = client.map(note, [tmp_path / f"held-{index}" for index in range(20)], range(20), workers="first", allow_other_workers=True)
    totals = client.submit(total, held, workers="second")
    assert totals.result() == 190
    started, gate = tmp_path / "started", tmp_path / "gate"
    running = [client.submit(hold, started, gate, name, workers=name, allow_other_workers=True) for name in ("first", "second")]
    await_condition(lambda: runs(started) == 2, "both run")
    first.kill()
    gate.touch()
    # What ran is run again, what was held is made again, what is elsewhere stays.
    assert client.gather(running) == ["first", "second"]
    assert client.gather(held) == list(range(20))
    assert totals.result() == 190
    assert list(named(client)) == ["second"] and second.is_alive()


def test_scattered_data_is_lost_with_its_worker(mainstay, client):
    first = mainstay.start_worker(name="first")
    client.wait_for_workers(1)
    data = client.scatter([1, 2], hash=False)
    mainstay.start_worker(name="second")
    client.wait_for_workers(2)
    assert set(client.who_has(data).values()) == {(named(client)["first"]["address"],)}
    first.kill()
    await_condition(lambda: all(future.status == "cancelled" for future in data), lambda: [future.status for future in data])


def test_a_nanny_brings_its_worker_back(mainstay, client, tmp_path):
    mainstay.start_worker(name="nannied", nanny=True)
    client.wait_for_workers(1)
    kept = client.submit(note, tmp_path / "runs", "kept")
    wait(kept)
    os.kill(client.run(os.getpid).popitem()[1], signal.SIGKILL)
    assert client.submit(inc, 1, pure=False).result() == 2
    assert kept.result() == "kept" and runs(tmp_path / "runs") == 2


def test_a_task_that_kills_workers_is_given_up(mainstay, client):
    mainstay.start_worker(name="nannied", nanny=True)
    client.wait_for_workers(1)
    future = client.submit(die)
    innocent = client.map(inc, range(20))
    error = future.exception()
    assert type(error).__name__ == "KilledWorker"
    assert client.gather(innocent) == list(range(1, 21))


def test_an_actor_is_lost_with_its_worker(mainstay, client):
    first = mainstay.start_worker(name="first")
    client.wait_for_workers(1)
    future = client.submit(Counter, actor=True)
    counter = future.result()
    assert counter.increment().result() == 1
    mainstay.start_worker(name="second")
    client.wait_for_workers(2)
    first.kill()
    await_condition(lambda: future.status == "error", lambda: future.status)
    with pytest.raises(RuntimeError, match="Worker holding Actor was lost"):
        future.result()


def test_a_replica_that_nobody_needs_is_dropped(mainstay, client):
    mainstay.start_worker(name="first")
    mainstay.start_worker(name="second")
    client.wait_for_workers(2)
    source = client.submit(bytes, 1_000_000, workers="first")
    lengths = [client.submit(len, source, workers=name, pure=False) for name in ("first", "second")]
    assert client.gather(lengths) == [1_000_000] * 2
    await_condition(lambda: len(client.who_has([source])[source.key]) == 1, lambda: client.who_has([source]))
    # The one that dropped it fetches it again.
    more = [client.submit(len, source, workers=name, pure=False) for name in ("first", "second")]
    assert client.gather(more) == [1_000_000] * 2


def test_a_worker_that_is_told_to_end_leaves(mainstay, client):
    first = mainstay.start_worker(name="first")
    mainstay.start_worker(name="second")
    client.wait_for_workers(2)
    futures = client.map(inc, range(10))
    wait(futures)
    first.end()
    await_condition(lambda: list(named(client)) == ["second"], lambda: named(client))
    assert client.gather(futures) == list(range(1, 11))


def test_a_paused_worker_gets_no_tasks(mainstay, client, tmp_path):
    # Without a limit nothing but this test pauses it.
    mainstay.start_worker("--memory-limit", "0", name="first")
    mainstay.start_worker(name="second")
    client.wait_for_workers(2)
    address = named(client)["first"]["address"]

    def set_status(status, dask_worker=None):
        dask_worker.status = Status[status]

    client.run(set_status, "paused", workers=[address])
    await_condition(lambda: named(client)["first"]["status"] == "paused", "it is paused")
    where = lambda index: __import__("distributed").get_worker().name
    assert set(client.gather(client.map(where, range(20)))) == {"second"}
    waiting = client.submit(where, 21, workers="first")
    client.run(set_status, "running", workers=[address])
    assert waiting.result() == "first"


def test_what_is_submitted_while_all_workers_are_paused_is_known(mainstay, client):
    mainstay.start_worker("--memory-limit", "0", name="first")
    client.wait_for_workers(1)
    address = named(client)["first"]["address"]

    def set_status(status, dask_worker=None):
        dask_worker.status = Status[status]

    client.run(set_status, "paused")
    await_condition(lambda: named(client)["first"]["status"] == "paused", "it is paused")
    waiting = client.submit(inc, 1, key="waiting")

    def state():
        return client.sync(client.scheduler.get_task_status, keys=["waiting"])["waiting"]

    await_condition(lambda: state() == "no-worker", state)
    client.run(set_status, "running", workers=[address])
    assert waiting.result() == 2


def test_a_worker_that_joins_takes_part(mainstay, client, tmp_path):
    mainstay.start_worker(name="first")
    client.wait_for_workers(1)
    started, gate = tmp_path / "started", tmp_path / "gate"
    futures = [client.submit(hold, started, gate, index) for index in range(10)]
    await_condition(lambda: runs(started) == 1, "one runs")
    mainstay.start_worker(name="second")
    await_condition(lambda: runs(started) == 2, "the second takes one")
    gate.touch()
    assert client.gather(futures) == list(range(10))


def test_retiring_a_worker_moves_its_data(mainstay, client, tmp_path):
    first = mainstay.start_worker(name="first")
    mainstay.start_worker(name="second")
    client.wait_for_workers(2)
    futures = [client.submit(note, tmp_path / f"{index}", index, workers="first", allow_other_workers=True) for index in range(5)]
    scattered = client.scatter([b"only there"], workers=["first"], hash=False)
    wait(futures)
    address = named(client)["first"]["address"]
    retired = client.retire_workers([address])
    assert list(retired) == [address]
    assert first.wait() == 0
    await_condition(lambda: list(named(client)) == ["second"], lambda: named(client))
    assert client.gather(futures) == list(range(5)) and client.gather(scattered) == [b"only there"]
    assert [runs(tmp_path / f"{index}") for index in range(5)] == [1] * 5


def test_a_worker_that_is_retired_and_not_closed_is_not_served_any_more(mainstay, client):
    first = mainstay.start_worker(name="first")
    mainstay.start_worker(name="second")
    client.wait_for_workers(2)
    scattered = client.scatter([b"only there"], workers=["first"], hash=False)
    address = named(client)["first"]["address"]
    assert list(client.retire_workers([address], close_workers=False)) == [address]
    assert list(named(client)) == ["second"] and client.gather(scattered) == [b"only there"]
    # It learns that from the answer to its next heartbeat.
    assert first.wait() == 0


def test_the_last_worker_is_not_retired_with_data(mainstay, client):
    mainstay.start_worker(name="only")
    client.wait_for_workers(1)
    scattered = client.scatter(5)
    assert client.retire_workers(names=["only"]) == {}
    assert scattered.result() == 5


# ---- what is no stock worker of a supported release


def registration(**changes):
    message = {
        "op": "register-worker", "reply": False, "address": "tcp://127.0.0.1:1", "status": "init", "nthreads": 1,
        "name": "stranger", "now": 0.0, "resources": {}, "memory_limit": None, "local_directory": "/nowhere", "services": {},
        "nanny": None, "pid": 1, "versions": get_versions(), "metrics": {}, "extra": {}, "stimulus_id": "test",
        "server_id": "Worker-stranger",
    }
    return {**message, **changes}


def of_release(release):
    versions = get_versions()
    return {**versions, "packages": {**versions["packages"], "distributed": release}}


def say(address, *messages, answers=1):
    """Says these on one comm, and gives what comes back."""

    async def main():
        comm = await connect(address, timeout=10)
        try:
            for message in messages:
                await comm.write(message)
            return [await asyncio.wait_for(comm.read(), 10) for _ in range(answers)]
        finally:
            comm.abort()

    return asyncio.run(main())


@pytest.mark.parametrize("release", ["2024.1.0", "2027.1.0", "garbage", None])
def test_a_worker_of_another_release_is_refused(mainstay, release):
    [answer] = say(mainstay.address, registration(versions=of_release(release)))
    assert answer["status"] == "error"
    assert "2026.8.0" in answer["message"] and (release or "unknown release") in answer["message"], answer
    await_condition(lambda: "refused a worker" in mainstay.process.output, "it is said on this side as well")


def test_a_collection_that_waits_for_workers_says_that_one_was_refused(tmp_path):
    manifest = tmp_path / "waits.yaml"
    manifest.write_text(
        "apiVersion: mainstay.dev/v1alpha1\nkind: PersistedCollection\nmetadata: {name: waits}\n"
        "spec: {source: {python: x = 1}, collections: [x]}\n"
    )
    with served(tmp_path / "served", "-f", str(manifest)) as mainstay:
        say(mainstay.address, registration(name="old", versions=of_release("2024.1.0")))
        mainstay.process.await_output(r"waits for a worker: old came and was refused: .*2024\.1\.0")


def test_a_client_of_another_release_is_refused(mainstay):
    message = {"op": "register-client", "client": "Client-old", "reply": False, "versions": of_release("2020.1.0")}
    [[answer]] = say(mainstay.address, message)
    assert answer["op"] == "stream-start" and "2020.1.0" in answer["error"] and "2026.8.0" in answer["error"]


def test_unknown_ops_do_no_harm(mainstay, client):
    [answer] = say(mainstay.address, {"op": "make_coffee", "reply": True, "milk": True})
    assert answer["status"] == "uncaught-error" and "make_coffee" in answer["exception_text"]
    mainstay.start_worker(name="first")
    client.wait_for_workers(1)
    # On the streams of a Client and of a worker.
    client._send_to_scheduler({"op": "make-tea"})
    client.run(lambda dask_worker: dask_worker.batched_send({"op": "boil-water", "hot": True}))
    assert client.submit(inc, 1).result() == 2
    assert list(named(client)) == ["first"]
    await_condition(lambda: "boil-water" in mainstay.process.output and "make-tea" in mainstay.process.output, "counted")


def test_what_cannot_be_says_so_in_one_sentence(mainstay, client):
    mainstay.start_worker(name="first")
    client.wait_for_workers(1)
    from distributed.diagnostics.plugin import SchedulerPlugin

    with pytest.raises(Exception, match="runs no Python, so run_on_scheduler cannot work"):
        client.run_on_scheduler(os.getpid)
    with pytest.raises(Exception, match="takes no scheduler plugins"):
        client.register_plugin(SchedulerPlugin(), name="mine")
    with pytest.raises(Exception, match="run by Mainstay"):
        client.sync(client.scheduler.terminate)
    assert client.submit(inc, 1).result() == 2


def test_lies_about_other_workers_are_not_believed(mainstay, client, tmp_path):
    mainstay.start_worker(name="first")
    client.wait_for_workers(1)
    started, gate = tmp_path / "started", tmp_path / "gate"
    future = client.submit(hold, started, gate, "the truth", key="held")
    await_condition(lambda: runs(started), "it runs")
    address = named(client)["first"]["address"]
    lie = {"op": "task-finished", "key": "held", "run_id": 1, "nbytes": 1, "type": b"", "typename": "int", "metadata": {},
           "thread": 1, "startstops": [], "status": "OK", "stimulus_id": "lie", "worker": address}
    say(mainstay.address, registration(), [lie, {**lie, "run_id": 0}], answers=1)
    await_condition(lambda: list(named(client)) == ["first"], "the stranger is gone")
    assert future.status == "pending"
    gate.touch()
    assert future.result() == "the truth"


def test_fail_first_then_elsewhere(mainstay, client, tmp_path):
    mainstay.start_worker(name="first")
    mainstay.start_worker(name="second")
    assert client.submit(fail_first, tmp_path / "runs", 3, retries=3).result() == 4
