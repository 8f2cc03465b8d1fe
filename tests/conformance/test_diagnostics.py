"""Clients look for the cause of something: tasks are run again beside them, runs are measured and reported."""

import asyncio
import operator
import time

import pytest
from conformance_tasks import fail, inc
from distributed import Client, performance_report, wait
from distributed.core import connect
from distributed.diagnostics import MemorySampler
from harness import await_condition, served, workers_of


def test_a_task_is_run_again_beside_the_client(client):
    inputs = client.map(inc, [1, 2])
    total = client.submit(sum, inputs, key="total")
    wait(total)
    assert client.recreate_task_locally(total) == 5
    # Also when the Client has let go of what it reads, which is made again then.
    del inputs
    assert client.recreate_task_locally(total) == 5
    scattered = client.scatter(7)
    with pytest.raises(KeyError, match="data that was put there"):
        client.recreate_task_locally(scattered)


def test_a_failure_is_run_again_where_it_began(client):
    zero = client.submit(int, "0")
    ratio = client.submit(operator.truediv, 1, zero)
    after = client.submit(inc, ratio)
    wait(after)
    with pytest.raises(ZeroDivisionError):
        client.recreate_error_locally(after)
    with pytest.raises(ValueError, match="No errored futures"):
        client.recreate_error_locally(zero)


def test_a_report_says_what_was_done(client, tmp_path):
    with performance_report(filename=tmp_path / "report.html"):
        wait([*client.map(inc, range(10)), client.submit(fail, "on purpose")])  # this line is in the report
    page = (tmp_path / "report.html").read_text()
    assert "Dask Performance Report" in page and "number of tasks: 11" in page and "Threads: 3" in page
    assert "this line is in the report" in page
    assert "<tr><td>inc</td><td>10</td><td>0</td>" in page and "<tr><td>fail</td><td>1</td><td>1</td>" in page
    assert page.count("<rect") >= 11
    with pytest.raises(NotImplementedError, match="runs no Python"):
        client.run_on_scheduler(inc, 1)


def test_memory_is_sampled_until_it_is_not(client):
    sampler = MemorySampler()
    with sampler.sample("results", measure="managed", interval=0.01), sampler.sample("processes"):
        future = client.submit(b"x".__mul__, 1_000_000)
        wait(future)
        # What is in memory counts as soon as it is there; what processes take is told by heartbeats.
        time.sleep(0.1)
    (first, nothing), *_, (last, most) = sampler.samples["results"]
    assert nothing == 0 and most >= 1_000_000 and 0.05 < last - first < 30
    assert len(sampler.samples["results"]) > 3 and min(bytes for _, bytes in sampler.samples["processes"]) > 10_000_000
    with pytest.raises(ValueError, match="`colour` is no measure of memory; there are process, managed"):
        with sampler.sample(measure="colour"):
            pass


def test_hardware_is_measured(client):
    result = client.benchmark_hardware()
    assert set(result) == {"disk", "memory", "network"}
    assert all(bandwidth > 0 for of_sizes in result.values() for bandwidth in of_sizes.values())
    assert len(result["memory"]) > 1 and len(result["network"]) > 1


def test_who_follows_workers_is_told_of_those_that_come_and_go(tmp_path):
    async def follow(mainstay):
        comm = await connect(mainstay.address)
        await comm.write({"op": "subscribe_worker_status"})
        known = await comm.read()
        assert [worker["name"] for worker in known["workers"].values()] == ["alice"]
        assert not {"metrics", "last_seen"} & set(*known["workers"].values())
        bob = await asyncio.to_thread(mainstay.start_worker, name="bob")
        [(op, told)] = await comm.read()
        assert op == "add" and [worker["name"] for worker in told["workers"].values()] == ["bob"]
        await asyncio.to_thread(bob.kill)
        assert await comm.read() == (("remove", *told["workers"]),)
        await comm.close()

    with served(tmp_path) as mainstay:
        mainstay.start_worker(name="alice")
        with Client(mainstay.address) as client:
            client.wait_for_workers(1)
        asyncio.run(follow(mainstay))


def test_the_idlest_workers_are_the_first_to_go(shared, client):
    def to_close(**options):
        return list(client.sync(client.scheduler.workers_to_close, **options))

    alice, bob = (address for address, _ in sorted(workers_of(client).items(), key=lambda item: item[1]["name"]))
    held = client.submit(inc, 1, workers=[alice])
    wait(held)
    await_condition(lambda: to_close(n=1) == [bob], lambda: to_close(n=1))
    assert to_close(n=1, attribute="name") == ["bob"] and to_close(target=2) == [] and to_close(n=2) == [bob, alice]
    # There is room for what little there is, and one worker is to stay.
    assert to_close(minimum=1) == [bob]
