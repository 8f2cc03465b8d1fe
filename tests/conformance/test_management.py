"""Clients manage workers: plugins, files, restarts."""

import os

import pytest
from conformance_plugins import Environment, Mark
from conformance_tasks import inc
from distributed import Client, wait
from distributed.diagnostics.plugin import SchedulerPlugin
from harness import await_condition, served, workers_of


def marks(client, **options):
    return client.run(lambda dask_worker: getattr(dask_worker, "mark", None), **options)


@pytest.fixture
def own(tmp_path):
    """A scheduler with two workers that have nannies, and a Client."""
    with served(tmp_path) as mainstay:
        mainstay.start_worker(name="alice", nanny=True)
        mainstay.start_worker(name="bob", nanny=True)
        with Client(mainstay.address) as client:
            client.wait_for_workers(2)
            yield mainstay, client


def test_a_worker_plugin_is_on_all_workers_also_on_later_ones(own):
    mainstay, client = own
    answers = client.register_plugin(Mark(7))
    assert [answer["status"] for answer in answers.values()] == ["OK", "OK"]
    mainstay.start_worker(name="carol")
    client.wait_for_workers(3)
    assert list(marks(client).values()) == [7, 7, 7]
    client.unregister_worker_plugin("mark")
    assert list(marks(client).values()) == ["gone"] * 3
    with pytest.raises(ValueError, match="The worker plugin mark does not exist"):
        client.unregister_worker_plugin("mark")


def test_a_plugin_whose_setup_fails_fails_the_call(own):
    _, client = own
    with pytest.raises(ValueError, match="no value for the mark"):
        client.register_plugin(Mark(None))


def test_a_nanny_plugin_changes_what_workers_start_with(own):
    _, client = own
    client.register_plugin(Environment())
    client.restart()
    assert set(client.run(os.getenv, "MAINSTAY_MARK").values()) == {"of the nanny"}


def test_a_scheduler_plugin_is_refused_in_a_sentence(own):
    class Plugin(SchedulerPlugin):
        name = "own"

    with pytest.raises(NotImplementedError, match="runs no Python, so it takes no scheduler plugins"):
        own[1].register_plugin(Plugin())


def test_an_uploaded_file_is_a_module_for_tasks(own, tmp_path, monkeypatch):
    mainstay, client = own
    module = tmp_path / "uploaded_by_test.py"
    module.write_text("def answer(of):\n    return of + 41\n")
    client.upload_file(str(module))

    def call(value):
        from uploaded_by_test import answer

        return answer(value)

    assert client.submit(call, 1).result() == 42
    # Functions that are pickled by their name need it where graphs are lowered too.
    monkeypatch.syspath_prepend(tmp_path)
    from uploaded_by_test import answer

    mainstay.start_worker(name="carol")
    client.wait_for_workers(3)
    assert client.gather(client.map(answer, range(20))) == list(range(41, 61))


def test_restart_cancels_all_futures_and_starts_workers_anew(own):
    mainstay, client = own
    pids = set(client.run(os.getpid).values())
    with Client(mainstay.address, set_as_default=False) as other:
        mine, theirs = client.submit(inc, 1), other.submit(inc, 2)
        wait([mine, theirs])
        client.restart()
        assert (mine.status, theirs.status) == ("cancelled", "cancelled")
    assert not pids & set(client.run(os.getpid).values())
    assert client.submit(inc, 1).result() == 2
    assert len(workers_of(client)) == 2


def test_one_worker_is_restarted_and_its_results_are_computed_again(own):
    mainstay, client = own
    alice = next(address for address, worker in workers_of(client).items() if worker["name"] == "alice")
    future = client.submit(inc, 1, workers=[alice], allow_other_workers=True)
    wait(future)
    pid = client.run(os.getpid, workers=[alice])[alice]
    assert client.restart_workers([alice]) == {alice: "OK"}
    assert future.result() == 2
    await_condition(lambda: pid not in client.run(os.getpid).values(), "the same process")


def test_a_worker_without_a_nanny_is_not_started_again(own):
    mainstay, client = own
    carol = mainstay.start_worker(name="carol")
    client.wait_for_workers(3)
    with pytest.raises(TimeoutError, match=r"1 worker\(s\) not using Nannies were just shut down"):
        client.restart(timeout=4)
    assert carol.wait() == 0


def test_a_request_that_cannot_be_read_is_answered(own):
    async def ask(client):
        return await client.scheduler.scatter(data=7, client=client.id)

    _, client = own
    with pytest.raises(ValueError, match="mainstay cannot read `scatter`: "):
        client.sync(ask, client)
    # A number of copies is as good as all or one.
    [future] = client.scatter([1], broadcast=2)
    assert len(client.who_has([future])[future.key]) == 2


def test_replicas_are_made_and_dropped(own):
    mainstay, client = own
    mainstay.start_worker(name="carol")
    client.wait_for_workers(3)
    futures = client.scatter(list(range(5)), hash=False)

    def counts():
        return sorted(len(holders) for holders in client.who_has(futures).values())

    client.replicate(futures, n=2)
    assert counts() == [2] * 5
    client.replicate(futures)
    assert counts() == [3] * 5
    client.replicate(futures, n=1)
    await_condition(lambda: counts() == [1] * 5, counts)
    assert client.gather(futures) == list(range(5))


def test_rebalance_moves_results_from_a_full_worker(tmp_path):
    with served(tmp_path) as mainstay:
        mainstay.start_worker("--memory-limit", "500MiB", name="alice")
        mainstay.start_worker("--memory-limit", "500MiB", name="bob")
        with Client(mainstay.address) as client:
            client.wait_for_workers(2)
            alice = next(address for address, worker in workers_of(client).items() if worker["name"] == "alice")
            futures = client.map(b"x".__mul__, [20_000_000 + index for index in range(8)], workers=[alice])
            wait(futures)
            assert set(client.who_has(futures).values()) == {(alice,)}
            # What counts is the memory that workers measure.
            await_condition(lambda: workers_of(client)[alice]["metrics"]["memory"] > 220e6, lambda: workers_of(client)[alice])
            client.rebalance()
            moved = [holders for holders in client.who_has(futures).values() if holders != (alice,)]
            assert 2 <= len(moved) <= 5, moved
            assert [len(data) for data in client.gather(futures)] == [20_000_000 + index for index in range(8)]
