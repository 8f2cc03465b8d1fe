"""Clients manage workers and look into them: plugins, files, restarts, replicas, stacks, profiles, dumps."""

import os

import pytest
from conformance_plugins import Environment, Mark
from conformance_tasks import fail, hold, inc
from distributed import Client, get_task_metadata, get_task_stream, get_worker, wait
from distributed.cluster_dump import DumpArtefact
from distributed.comm import CommClosedError
from distributed.diagnostics.plugin import InstallPlugin, SchedulerPlugin, UploadDirectory
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


def test_what_installs_packages_does_so_on_all_workers_also_on_later_ones(own):
    mainstay, client = own

    def install():
        os.environ["MAINSTAY_INSTALLED"] = "yes"

    plugin = InstallPlugin(install, restart_workers=False)
    client.register_plugin(plugin)
    mainstay.start_worker(name="carol")
    client.wait_for_workers(3)
    assert list(client.run(os.getenv, "MAINSTAY_INSTALLED").values()) == ["yes"] * 3
    client.unregister_scheduler_plugin(plugin.name)
    with pytest.raises(ValueError, match="does not exist"):
        client.unregister_scheduler_plugin(plugin.name)
    with pytest.raises(ZeroDivisionError):
        client.register_plugin(InstallPlugin(lambda: 1 / 0, restart_workers=False))
    # By nannies, before their workers are started again.
    client.register_plugin(InstallPlugin(install, restart_workers=True))
    client.wait_for_workers(3)
    with pytest.raises(NotImplementedError, match="runs no Python"):
        client.register_plugin(SchedulerPlugin(), name="mine")


def test_events_say_which_workers_and_clients_come_and_go(own):
    mainstay, client = own
    carol = mainstay.start_worker(name="carol")
    client.wait_for_workers(3)
    address = next(address for address, worker in workers_of(client).items() if worker["name"] == "carol")
    carol.kill()

    def actions():
        return [event["action"] for _, event in client.get_events(address)]

    expected = ["add-worker", "worker-status-change", "remove-worker"]
    await_condition(lambda: actions() == expected, actions)
    everything = [event for _, event in client.get_events("all")]
    assert {"action": "remove-worker", "worker": address, "expected": False} in everything
    assert {"action": "add-client", "client": client.id} in everything


def test_a_worker_that_ends_in_a_call_ends_it(own):
    mainstay, client = own
    mainstay.start_worker(name="carol")
    client.wait_for_workers(3)
    address = next(address for address, worker in workers_of(client).items() if worker["name"] == "carol")
    with pytest.raises(CommClosedError):
        client.run(os._exit, 0, workers=[address])


def test_an_uploaded_folder_is_a_package_for_workers_also_for_later_ones(own, tmp_path):
    mainstay, client = own
    package = tmp_path / "uploaded_folder"
    package.mkdir()
    (package / "uploaded_within.py").write_text("answer = 42\n")
    client.register_plugin(UploadDirectory(package, restart_workers=True, update_path=True))
    client.wait_for_workers(2)
    mainstay.start_worker(name="carol", nanny=True)
    client.wait_for_workers(3)

    def find():
        from uploaded_within import answer

        return answer

    assert list(client.run(find).values()) == [42] * 3
    with pytest.raises(NotImplementedError, match="takes no scheduler plugins"):
        client.register_plugin(UploadDirectory(package, mode="scheduler"))


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
    client.replicate(futures, workers=["127.0.0.1"])
    assert counts() == [3] * 5
    with pytest.raises(ValueError, match="delete"):
        client.replicate(futures, n=0)
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
            with pytest.raises(KeyError, match="nobody"):
                client.rebalance(workers=["nobody"])


def test_stacks_profiles_and_logs_are_those_of_the_workers(own, tmp_path):
    _, client = own
    gate = tmp_path / "gate"
    held = client.submit(hold, tmp_path / "started", gate, "late")
    await_condition((tmp_path / "started").exists, "the task has not started")
    # The key of a task that waits for it leads there too, once its graph is known.
    dependent = client.submit(inc, held)
    [stacks] = await_condition(lambda: client.call_stack([dependent]), "no stack").values()
    assert list(stacks) == [held.key] and "hold" in "".join(map(str, stacks[held.key]))
    assert [list(stacks) for stacks in client.call_stack().values()] == [[held.key]]
    await_condition(lambda: client.profile(start=0)["count"] > 0, "nothing is in the profile")
    assert set(client.profile(start=0, merge_workers=False)) <= set(workers_of(client))
    gate.touch()
    assert held.result() == "late"
    dependent.release()
    logs = client.get_worker_logs()
    assert set(logs) == set(workers_of(client)) and any("Registered" in str(lines) for lines in logs.values())
    assert "kubectl logs" in str(client.get_scheduler_logs())


def test_profiles_are_as_deep_as_stacks(own, tmp_path):
    def deep(frames, gate):
        # Dask looks every 10 ms, and 60 frames are some 120 levels of its answer.
        while not gate.exists():
            if frames:
                return deep(frames - 1, gate)
        return frames

    _, client = own
    gate = tmp_path / "gate"
    future = client.submit(deep, 60, gate)

    def depth(profile):
        return 1 + max(map(depth, profile["children"].values()), default=0)

    await_condition(lambda: depth(client.profile(start=0)) > 60, lambda: client.profile(start=0))
    gate.touch()
    assert future.result() == 0


def test_the_task_stream_has_what_ran_since_somebody_looked(own):
    _, client = own
    with get_task_stream(client=client) as stream:
        futures = client.map(inc, range(10))
        failed = client.submit(fail, "on purpose")
        wait([*futures, failed])
    assert {record["key"] for record in stream.data} == {future.key for future in [*futures, failed]}
    assert {(record["status"], record["worker"] in workers_of(client)) for record in stream.data} == {("OK", True), ("error", True)}
    assert len(client.get_task_stream(count=3)) == 3


def test_what_tasks_note_is_collected(own):
    def note_itself(value):
        task = get_worker().state.tasks[get_worker().get_current_task()]
        task.metadata["value"] = value
        return value

    _, client = own
    with get_task_metadata() as tasks:
        futures = client.map(note_itself, range(3))
        wait(futures)
    assert tasks.metadata == {future.key: {"value": value} for value, future in enumerate(futures)}
    assert set(tasks.state.values()) == {"memory"}


def test_a_dump_and_a_story_say_what_happened(own, tmp_path):
    _, client = own
    future = client.submit(inc, 1, key="told")
    wait(future)
    client.dump_cluster_state(str(tmp_path / "dump"), format="yaml")
    dump = DumpArtefact.from_url(str(tmp_path / "dump.yaml"))
    assert [task["key"] for task in dump.scheduler_tasks_in_state("memory")] == ["told"]
    assert len(dump.dump["workers"]) == 2
    # By a worker, which is where the URL is looked up.
    client.dump_cluster_state(f"file://{tmp_path}/by-url", exclude=["state"])
    dump = DumpArtefact.from_url(f"file://{tmp_path}/by-url.msgpack.gz")
    assert dump.dump["scheduler"]["tasks"]["told"]["nbytes"] and "state" not in dump.dump["scheduler"]["tasks"]["told"]
    with pytest.raises(ValueError, match="Unsupported format 'json'"):
        client.dump_cluster_state(f"file://{tmp_path}/by-url", format="json")
    states = [tuple(row[2:4]) for row in client.story("told") if row[0] == "scheduler"]
    assert states[-1] == ("processing", "memory"), states


def test_a_client_may_keep_replicas_from_being_dropped(own):
    _, client = own
    assert client.amm.running() is True
    client.amm.stop()
    assert client.amm.running() is False
    client.amm.start()
    client.amm.run_once()
