"""Queue, Variable, Lock, Semaphore, MultiLock and Event, from two Clients and from inside tasks, and when one of them dies."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time

import dask
import pytest
from conformance_tasks import fail, inc, note, runs
from distributed import Client, Event, Lock, MultiLock, Queue, Semaphore, Variable, get_client, wait
from harness import await_condition, environment, served


@pytest.fixture
def other(shared):
    with Client(shared.address, set_as_default=False) as other:
        yield other


@contextlib.contextmanager
def in_background(function, *arguments):
    """Runs a function that waits; gives a list that has its result when it is done."""
    results = []
    thread = threading.Thread(target=lambda: results.append(function(*arguments)), daemon=True)
    thread.start()
    yield results
    thread.join(30)
    assert results, "it still waits"


@contextlib.contextmanager
def process(source, shared):
    """A Python of its own with a Client `client`, killed without a word in the end."""
    head = f"from distributed import *; client = Client({shared.address!r})\n"
    command = [sys.executable, "-c", head + source]
    with subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, text=True) as child:
        try:
            yield child
        finally:
            child.kill()


def held(client):
    """The keys that workers hold."""
    return {key for keys in client.has_what().values() for key in keys}


# ---- events


def test_an_event_wakes_all(client, other):
    event, same = Event("fire", client), Event("fire", other)
    assert not event.is_set() and not event.wait(timeout="50ms")
    with in_background(event.wait) as first, in_background(same.wait, 20) as second:
        time.sleep(0.1)
        assert not first and not second
        same.set()
    assert (first, second) == ([True], [True])
    assert event.is_set() and event.wait(timeout=0)
    event.clear()
    assert not same.is_set()


def test_tasks_wait_for_events(client):
    def waits(event):
        return event.wait(timeout=30), event.is_set()

    event = Event("start")
    futures = client.map(waits, [event] * 2, pure=False)
    event.set()
    assert client.gather(futures) == [(True, True)] * 2
    event.clear()


# ---- locks and semaphores


def test_a_lock_has_one_holder(client, other):
    lock, same = Lock("l"), Lock("l", scheduler_rpc=other.scheduler, loop=other.loop)
    assert not lock.locked()
    assert lock.acquire() and same.locked()
    assert not same.acquire(blocking=False)
    assert not same.acquire(timeout=0.05)
    with in_background(same.acquire) as acquired:
        time.sleep(0.1)
        assert not acquired
        assert lock.release()
    assert same.locked()
    with pytest.raises(RuntimeError, match="Released too often"):
        lock.release()
    same.release()
    assert not lock.locked()


def test_tasks_exclude_one_another(client, tmp_path):
    def change(path, lock):
        with lock:
            text = path.read_text()
            time.sleep(0.01)
            path.write_text(text + "x")

    path = tmp_path / "shared"
    path.write_text("")
    client.gather(client.map(change, [path] * 8, lock=Lock("file"), pure=False))
    assert path.read_text() == 8 * "x"


def test_a_semaphore_has_so_many_leases(client, other):
    semaphore = Semaphore(2, "pair")
    same = Semaphore(2, "pair", scheduler_rpc=other.scheduler, loop=other.loop)
    assert semaphore.acquire() and same.acquire()
    assert semaphore.get_value() == 2
    assert not semaphore.acquire(timeout=0.05)
    assert same.release() and semaphore.acquire(timeout=5)
    with pytest.raises(ValueError, match="Inconsistent max leases: 3, expected: 2"):
        Semaphore(3, "pair").acquire()
    semaphore.release(), semaphore.release()
    assert semaphore.get_value() == 0
    semaphore.close()
    with pytest.raises(RuntimeError, match="Semaphore or Lock `pair` not known"):
        same.acquire()


def test_a_semaphore_bounds_tasks(client, tmp_path):
    def use(index, folder, semaphore):
        with semaphore:
            (folder / str(index)).touch()
            together = len(list(folder.iterdir()))
            time.sleep(0.02)
            (folder / str(index)).unlink()
        return together

    semaphore = Semaphore(2, "database")
    folder = tmp_path / "users"
    folder.mkdir()
    counts = client.gather(client.map(use, range(9), folder=folder, semaphore=semaphore))
    assert max(counts) <= 2
    semaphore.close()


def test_the_lease_of_a_dead_client_ends(client, shared):
    source = "lock = Lock('dead'); lock.acquire(); print('has it', flush=True); import time; time.sleep(600)"
    with dask.config.set({"distributed.scheduler.locks.lease-timeout": "2s"}):
        lock = Lock("dead")
        lock.acquire() and lock.release()
        with process(source, shared) as child:
            assert child.stdout.readline() == "has it\n"
            assert not lock.acquire(timeout=0.1)
            child.kill()
            started = time.monotonic()
            assert lock.acquire(timeout=60)
            assert 0.5 < time.monotonic() - started < 20
        lock.release()


def test_the_lease_of_a_dead_task_ends(tmp_path_factory):
    with served(tmp_path_factory.mktemp("leases")) as mainstay, Client(mainstay.address) as client:
        with dask.config.set({"distributed.scheduler.locks.lease-timeout": "2s"}):
            lock = Lock("worked")
            lock.acquire() and lock.release()
            worker = mainstay.start_worker()
            marker = mainstay.folder / "has"

            def die_with(lock):
                lock.acquire()
                note(marker)
                time.sleep(600)

            client.submit(die_with, lock, retries=0)
            await_condition(lambda: runs(marker), "the task has the lock")
            assert lock.locked()
            worker.kill()
            assert lock.acquire(timeout=60)
            lock.release()


def test_a_waiter_that_is_killed_gets_nothing(client, shared):
    lock = Lock("queue-of-the-dead")
    lock.acquire()
    source = "print('asks', flush=True); Lock('queue-of-the-dead').acquire(); print('got it', flush=True)"
    with process(source, shared) as child:
        assert child.stdout.readline() == "asks\n"
        time.sleep(1)
    # It was killed; without it nobody else waits.
    lock.release()
    assert lock.acquire(timeout=5)
    lock.release()


# ---- multi-locks


def test_multi_locks(client, other):
    both, one, any_of = MultiLock(["a", "b"], client), MultiLock(["b", "c"], other), MultiLock(["b", "c"], other)
    assert both.acquire()
    assert not MultiLock(["b", "c"], client).acquire(timeout=0.05)
    assert any_of.acquire(num_locks=1)
    with in_background(one.acquire) as acquired:
        time.sleep(0.1)
        assert not acquired
        both.release()
        time.sleep(0.1)
        # `c` is still taken.
        assert not acquired
        any_of.release()
    assert acquired == [True]
    one.release()
    with pytest.raises(ValueError, match="not yet acquired"):
        one.release()


def test_tasks_that_take_locks_in_different_orders(client, tmp_path):
    def take(names, path):
        with MultiLock(list(names)):
            note(path)
        return True

    orders = ["ab", "bc", "ca", "abc", "cba", "ba"] * 2
    assert all(client.gather(client.map(take, orders, path=tmp_path / "taken", pure=False)))
    assert runs(tmp_path / "taken") == len(orders)


# ---- variables


def test_a_variable_is_for_all(client, other):
    variable, same = Variable("v", client), Variable("v", other)
    with pytest.raises(TimeoutError):
        same.get(timeout="50ms")
    with in_background(same.get, 20) as got:
        variable.set({"a": [1, 2.5, None, b"raw"], 7: True})
    assert got == [{"a": (1, 2.5, None, b"raw"), 7: True}]
    variable.set(2)
    assert same.get() == 2
    variable.delete()
    with pytest.raises(TimeoutError):
        await_condition(lambda: same.get(timeout=0.2) is None, "it is deleted", 10)


def test_a_variable_keeps_its_future(client, other):
    variable = Variable("future", client)
    variable.set(client.submit(inc, 1, key="kept-by-variable"))
    await_condition(lambda: "kept-by-variable" in held(client), "it is computed")
    got = Variable("future", other).get()
    assert got.key == "kept-by-variable" and got.result() == 2
    # What is in it is let go when something else is; who got it has it still.
    variable.set(client.submit(inc, 2, key="next-in-variable"))
    assert got.result() == 2
    del got
    await_condition(lambda: held(client) == {"next-in-variable"}, lambda: held(client))
    variable.delete()
    await_condition(lambda: not held(client), lambda: held(client))


def test_a_variable_outlives_its_client(shared):
    with Client(shared.address, set_as_default=False) as first:
        Variable("outlives", first).set(first.submit(inc, 10))
    with Client(shared.address, set_as_default=False) as second:
        variable = Variable("outlives", second)
        assert variable.get(timeout=5).result() == 11
        variable.delete()
        await_condition(lambda: not held(second), lambda: held(second))


def test_a_variable_gives_what_failed(client, other):
    future = client.submit(fail, "no luck")
    wait(future)
    variable = Variable("failed", client)
    variable.set(future)
    got = Variable("failed", other).get()
    with pytest.raises(ValueError, match="no luck"):
        got.result()
    variable.delete()


def test_a_future_that_nobody_knows_is_not_set(client, other):
    future = client.submit(inc, 1)
    future.result()
    future.release()
    await_condition(lambda: not held(client), "it is gone")
    with pytest.raises(TimeoutError, match="unknown to scheduler"):
        Variable("unknown", client).set(future, timeout="200ms")


def test_a_reader_that_dies_keeps_nothing(client, shared):
    variable = Variable("read-by-the-dead", client)
    variable.set(client.submit(inc, 1, key="told"))
    # It says nothing on its stream after what it is told here.
    source = (
        "client.sync(client.scheduler.variable_get, name='read-by-the-dead', client=client.id, timeout=5)\n"
        "print('told', flush=True); import time; time.sleep(600)"
    )
    with process(source, shared) as child:
        assert child.stdout.readline() == "told\n"
        variable.set(0)
        time.sleep(0.2)
        assert held(client) == {"told"}
    await_condition(lambda: not held(client), lambda: held(client))
    variable.delete()


def test_tasks_read_and_write_variables(client):
    def turn_up(variable, by):
        client = get_client()
        variable.set(client.submit(inc, by))
        return Variable(variable.name).get().result()

    variable = Variable("in-tasks", client)
    assert client.submit(turn_up, variable, 5).result() == 6
    assert variable.get().result() == 6
    variable.delete()


# ---- queues


def test_a_queue_is_for_all(client, other):
    queue, same = Queue("q", client), Queue("q", other)
    for item in (1, "two", [3, None], {"four": 4.0}):
        queue.put(item)
    assert same.qsize() == 4
    assert [same.get(), queue.get()] == [1, "two"]
    assert same.get(batch=True) == [(3, None), {"four": 4.0}]
    assert same.get(batch=True) == []
    with pytest.raises(TimeoutError):
        queue.get(timeout="50ms")
    with in_background(same.get) as got:
        queue.put("late")
    assert got == ["late"]
    with in_background(lambda: same.get(batch=3)) as got:
        for item in range(3):
            queue.put(item)
    assert got == [[0, 1, 2]]
    with pytest.raises(NotImplementedError, match="simultaneous use"):
        queue.get(batch=2, timeout=1)
    queue.close(), same.close()
    with pytest.raises(KeyError):
        await_condition(lambda: queue.qsize() is None, "it is closed", 10)


def test_a_full_queue_makes_wait(client, other):
    queue, same = Queue("small", client, maxsize=1), Queue("small", other)
    queue.put(1)
    with pytest.raises(TimeoutError):
        same.put(2, timeout="50ms")
    with in_background(same.put, 3) as put:
        time.sleep(0.1)
        assert not put
        assert queue.get() == 1
    assert queue.get(timeout=5) == 3
    queue.close(), same.close()


def test_a_queue_keeps_its_futures(client, other):
    queue, same = Queue("futures", client), Queue("futures", other)
    queue.put(client.submit(inc, 1, key="queued"))
    queue.put(client.submit(fail, "queued badly"))
    await_condition(lambda: held(client) == {"queued"}, lambda: held(client))
    got = same.get()
    assert got.result() == 2
    with pytest.raises(ValueError, match="queued badly"):
        same.get().result()
    del got
    await_condition(lambda: not held(client), lambda: held(client))
    queue.put(client.submit(inc, 2, key="left-over"))
    await_condition(lambda: held(client) == {"left-over"}, lambda: held(client))
    queue.close(), same.close()
    await_condition(lambda: not held(client), lambda: held(client))


def test_tasks_pass_futures_through_queues(client):
    def produce(queue, numbers):
        inner = get_client()
        for number in numbers:
            queue.put(inner.submit(inc, number))

    def consume(queue, count):
        return sum(future.result() for future in queue.get(batch=count))

    queue = Queue("between-tasks", client)
    produced = client.submit(produce, queue, [1, 2, 3])
    consumed = client.submit(consume, queue, 3, workers="alice")
    assert consumed.result() == 9
    assert produced.result() is None
    queue.close()


def test_a_reader_that_dies_takes_nothing(client, shared):
    queue = Queue("read-by-the-dead", client)
    source = "q = Queue('read-by-the-dead'); print('reads', flush=True); q.get(); print('got it', flush=True)"
    with process(source, shared) as child:
        assert child.stdout.readline() == "reads\n"
        time.sleep(1)
    queue.put("for the living")
    assert queue.get(timeout=5) == "for the living"
    queue.close()


def test_a_task_that_waits_dies_with_its_worker(tmp_path_factory):
    """Its work is done by the next worker, and what it waited for is still there."""
    with served(tmp_path_factory.mktemp("dying")) as mainstay, Client(mainstay.address) as client:
        first = mainstay.start_worker()
        queue, marker = Queue("work", client), mainstay.folder / "waits"

        def take(queue):
            note(marker)
            return queue.get()

        future = client.submit(take, queue)
        await_condition(lambda: runs(marker), "the task waits")
        time.sleep(0.5)
        os.kill(first.pid, signal.SIGKILL)
        await_condition(lambda: not client.sync(client.scheduler.identity)["workers"], "the worker is gone")
        queue.put("work")
        mainstay.start_worker()
        assert future.result(timeout=60) == "work"


# ---- events of topics


def test_topics_between_clients_and_tasks(client, other):
    heard = []
    other.subscribe_topic("news", lambda event: heard.append(event[1]))

    def listen():
        inner, told = get_client(), []
        inner.subscribe_topic("news", lambda event: told.append(event[1]))
        inner.log_event("ready", "listens")
        while {"n": 2} not in told:
            time.sleep(0.01)
        inner.unsubscribe_topic("news")
        return told

    listening = client.submit(listen)
    await_condition(lambda: client.get_events("ready"), "the task listens")
    for number in range(3):
        client.log_event("news", {"n": number})
    assert {"n": 2} in listening.result()
    await_condition(lambda: len(heard) == 3, lambda: heard)
    client.log_event(["news", "more"], "both")
    await_condition(lambda: heard[-1] == "both", lambda: heard)
    assert client.get_events("more")[-1][1] == "both"
    other.unsubscribe_topic("news")
    # What is unsubscribed and what is logged travel on different comms.
    time.sleep(0.3)
    client.log_event("news", "unheard")
    assert client.get_events("news")[-1][1] == "unheard"
    time.sleep(0.2)
    assert heard[-1] == "both"
    with pytest.raises(ValueError, match="No event handler"):
        other.unsubscribe_topic("nothing")
