"""Workers that are stopped: their comms stand, and nothing is heard of them."""

import time

import pytest
from conformance_tasks import hold, inc, note, runs, total
from distributed import Client, wait
from harness import await_condition, resume, stop, workers_of


@pytest.fixture
def client(mainstay):
    with Client(mainstay.address) as client:
        yield client


def await_event(client, action):
    """Waits until it is told of a worker that it is silent, or speaks again."""

    def actions():
        return [event["action"] for _, event in client.get_events("all")]

    await_condition(lambda: action in actions(), lambda: f"no {action} in {actions()}")


def test_a_stopped_worker_is_relieved_of_its_work_and_keeps_its_data(mainstay, client, tmp_path):
    first = mainstay.start_worker(name="first")
    mainstay.start_worker(name="second")
    client.wait_for_workers(2)
    here = {"workers": "first", "allow_other_workers": True}
    held = [client.submit(note, tmp_path / f"held-{index}", index, **here) for index in range(10)]
    wait(held)
    started, gate = tmp_path / "started", tmp_path / "gate"
    running = client.submit(hold, started, gate, "done", **here)
    waiting = client.map(inc, range(20), **here)
    await_condition(lambda: runs(started) == 1, "it runs")
    stop(first.pid)
    stopped = time.monotonic()
    try:
        gate.touch()
        assert client.gather([running, *waiting]) == ["done", *range(1, 21)]
        assert runs(started) == 2
        # As docs/reliability.md promises.
        assert time.monotonic() - stopped < 15
    finally:
        resume(first.pid)
    await_event(client, "worker-heard")
    assert client.submit(total, held, workers="second").result() == 45
    assert [runs(tmp_path / f"held-{index}") for index in range(10)] == [1] * 10
    # It is a worker like others.
    assert client.submit(inc, 1, workers="first", pure=False).result() == 2
    assert {worker["name"] for worker in workers_of(client).values()} == {"first", "second"}


def test_what_is_on_a_stopped_worker_is_read_where_it_is_as_well(mainstay, client):
    first = mainstay.start_worker(name="first")
    mainstay.start_worker(name="second")
    mainstay.start_worker(name="third")
    client.wait_for_workers(3)
    source = client.submit(bytes, 1000, workers=["first"])
    # Otherwise one of the copies is dropped before long.
    client.amm.stop()
    client.replicate(source, workers=["first", "second"])
    stop(first.pid)
    try:
        await_event(client, "worker-silent")
        assert client.submit(len, source, workers="third").result(timeout=60) == 1000
    finally:
        resume(first.pid)
    await_event(client, "worker-heard")


def test_a_graph_is_lowered_elsewhere_when_its_worker_is_stopped(mainstay, client):
    builder = mainstay.start_worker(name="builder-1")
    mainstay.start_worker(name="second")
    client.wait_for_workers(2)
    stop(builder.pid)
    try:
        assert client.submit(inc, 1).result() == 2
    finally:
        resume(builder.pid)
    await_event(client, "worker-heard")
    assert client.submit(inc, 2).result() == 3


def test_a_scheduler_that_was_stopped_takes_nobody_for_silent(mainstay, client, tmp_path):
    workers = [mainstay.start_worker(name=name) for name in ("first", "second")]
    client.wait_for_workers(2)
    started, gate = tmp_path / "started", tmp_path / "gate"
    running = client.submit(hold, started, gate, "done")
    await_condition(lambda: runs(started) == 1, "it runs")
    stop(mainstay.process.pid)
    # Longer than a worker may be silent.
    stopped = client.loop.time()
    await_condition(lambda: client.loop.time() - stopped > 12, "the clock goes on")
    resume(mainstay.process.pid)
    gate.touch()
    assert running.result() == "done" and runs(started) == 1
    assert "nothing is heard" not in mainstay.process.output
    assert all(worker.is_alive() for worker in workers)
