"""Workers that lie, flood, or claim to be others: what they do stays on their own connection."""

import asyncio
import contextlib
import socket

import pytest
from conformance_tasks import hold, inc, runs
from distributed import Client
from distributed.core import connect
from distributed.protocol import to_serialize
from distributed.versions import get_versions
from harness import await_condition, resume, served, stop, workers_of
from hostile import HANDSHAKE, assert_dropped, message

MEMORY_BYTES = 48 * 2**20


@pytest.fixture(scope="module")
def mainstay(tmp_path_factory):
    with served(tmp_path_factory.mktemp("victim"), log="info") as mainstay:
        mainstay.start_worker(name="honest")
        with Client(mainstay.address, set_as_default=False) as client:
            client.wait_for_workers(1)
            mainstay.client = client
            yield mainstay


@pytest.fixture
def client(mainstay):
    """Once a test is over, the honest worker is the only one and works, and the memory is as it was."""
    before = mainstay.process.memory()
    yield mainstay.client
    await_condition(lambda: names(mainstay.client) == ["honest"], lambda: f"there are {names(mainstay.client)}")
    assert mainstay.client.submit(inc, 1, pure=False).result(timeout=30) == 2
    await_condition(lambda: mainstay.process.memory() < before + MEMORY_BYTES,
                    lambda: f"memory grew from {before} to {mainstay.process.memory()}", 20)


def names(client):
    return [worker["name"] for worker in workers_of(client).values()]


def registration(**changes):
    message = {
        "op": "register-worker", "reply": False, "address": "tcp://127.0.0.1:1", "status": "running", "nthreads": 1,
        "name": "liar", "now": 0.0, "resources": {}, "memory_limit": None, "local_directory": "/nowhere", "services": {},
        "nanny": None, "pid": 1, "versions": get_versions(), "metrics": {}, "extra": {}, "stimulus_id": "test",
        "server_id": "Worker-liar",
    }
    return {**message, **changes}


def finished(key, run_id, nbytes=1, **more):
    return {"op": "task-finished", "key": key, "run_id": run_id, "nbytes": nbytes, "type": b"", "typename": "int",
            "metadata": {}, "thread": 1, "startstops": [], "status": "OK", "stimulus_id": "lie", **more}


@contextlib.asynccontextmanager
async def stream(scheduler, **changes):
    """The comm of a worker of our making, with the answer to its registration."""
    comm = await connect(scheduler, timeout=10)
    try:
        await comm.write(registration(**changes))
        yield comm, await asyncio.wait_for(comm.read(), 20)
    finally:
        comm.abort()


async def drain(comm):
    """Reads until the other side closes."""
    with contextlib.suppress(OSError):
        async with asyncio.timeout(20):
            while True:
                await comm.read()


def lie(mainstay, *batches, **changes):
    """Registers, says all of this, and waits until it is heard; returns what registering was answered."""

    async def main():
        async with stream(mainstay.address, **changes) as (comm, answer):
            if answer["status"] == "OK":
                for batch in [*batches, [{"op": "close-stream"}]]:
                    await comm.write(batch)
                await drain(comm)
            return answer

    return asyncio.run(main())


@pytest.fixture
def held(client, tmp_path):
    """A task that runs on the honest worker; in the end it gives what it should."""
    started, gate = tmp_path / "started", tmp_path / "gate"
    future = client.submit(hold, started, gate, "the truth", key=f"held-{tmp_path.name}", workers=["honest"])
    await_condition(lambda: runs(started), "it runs")
    yield future
    assert future.status == "pending"
    gate.touch()
    assert future.result(timeout=30) == "the truth"


def test_results_of_others_are_not_believed(mainstay, held):
    [victim] = workers_of(mainstay.client)
    guesses = [finished(held.key, run_id, worker=victim) for run_id in (0, 1, 2, 2**32, 2**63, 2**64 - 1)]
    guesses += [{**finished(held.key, 1), "op": "task-erred", "exception": to_serialize(ValueError("lie")), "traceback": to_serialize(None), "exception_text": "lie",
                 "traceback_text": "", "worker": victim}]
    lie(mainstay, guesses, [{"op": "reschedule", "key": held.key, "worker": victim},
                                    {"op": "release-worker-data", "key": held.key, "worker": victim},
                                    {"op": "long-running", "key": held.key, "run_id": 1, "compute_duration": 1e300}])


def test_results_of_nothing_are_forgotten(mainstay, client):
    lie(mainstay, [finished(f"nothing-{number}", number) for number in range(1000)],
        [{"op": "add-keys", "keys": [f"nothing-{number}" for number in range(1000)]}])
    assert not [key for key in client.who_has() if "nothing" in key]


@pytest.mark.parametrize("nbytes", [2**63, 2**64 - 1, -1, "many", None])
def test_sizes_that_cannot_be(mainstay, client, nbytes):
    """Of a task that it was really given."""

    async def main():
        async with stream(mainstay.address) as (comm, _):
            future = client.submit(inc, 7, workers=["liar"], allow_other_workers=True, key=f"sized-{nbytes}")
            async with asyncio.timeout(20):
                while True:
                    for message in await comm.read():
                        if message.get("op") == "compute-task":
                            await comm.write([finished(message["key"], message["run_id"], nbytes)])
                            return future

    future = asyncio.run(main())
    # The liar is gone, and with it what it may have had.
    assert future.result(timeout=30) == 8


def test_a_flood_of_events_is_not_kept(mainstay, client):
    large = [{"op": "log-event", "topic": "flood", "msg": "x" * 5_000_000}]
    small = [{"op": "log-event", "topic": f"flood-{number}", "msg": "x"} for number in range(20_000)]
    lie(mainstay, *[large] * 40, *[small] * 5)
    assert len(client.get_events("flood") or ()) <= 7


def test_a_flood_of_registrations_is_told_in_few_lines(mainstay, client):
    before = mainstay.process.output.count("refused a worker")
    for _ in range(50):
        answer = lie(mainstay, versions={})
        assert answer["status"] == "error"
    # So many at once, and again in ten seconds.
    assert mainstay.process.output.count("refused a worker") - before <= 3 * 8


def test_a_name_that_is_there_is_taken(mainstay, client):
    answer = lie(mainstay, name="honest")
    assert answer["status"] == "error" and "name taken" in answer["message"]


def test_an_address_that_is_there_is_taken(mainstay, client):
    [victim] = workers_of(client)
    answer = lie(mainstay, address=victim)
    assert answer["status"] == "error" and f"listens at {victim}" in answer["message"]


def test_names_that_command_terminals_are_refused(mainstay, client):
    for name in ("\x1b[2Jgone", "two\nlines", "x" * 5000):
        answer = lie(mainstay, name=name)
        assert answer["status"] == "error" and "control characters" in answer["message"]


def test_who_is_gone_does_not_hold_its_name(tmp_path):
    """A worker that is stopped answers nobody, though its comm stands: another one may have its name."""
    with served(tmp_path / "run") as mainstay, Client(mainstay.address, set_as_default=False) as client:
        first = mainstay.start_worker(name="one")
        client.wait_for_workers(1)
        [address] = workers_of(client)
        stop(first.pid)
        mainstay.start_worker(name="one")
        await_condition(lambda: [*workers_of(client)] not in ([], [address]), "the second is let in", 30)
        assert client.submit(inc, 1).result(timeout=30) == 2
        resume(first.pid)


def test_who_breaks_the_protocol_again_and_again_is_kept_out(mainstay, client):
    def register():
        """From a host of its own; what it is answered."""
        where = ("127.0.0.1", mainstay.port)
        with socket.create_connection(where, timeout=10, source_address=("127.0.0.10", 0)) as connection:
            connection.sendall(HANDSHAKE + message(registration()))
            received = b""
            while not any(word in received for word in (b"heartbeat-interval", b"broken the protocol")):
                received += connection.recv(65536)
            connection.sendall(message([{"op": 7}]))
            assert_dropped(connection, 10)
            return received

    assert all(b"heartbeat-interval" in register() for _ in range(3))
    assert b"have broken the protocol several times" in register()


def test_unknown_ops_are_counted_and_cut(mainstay, client):
    lie(mainstay, [{"op": "x" * 100_000}, {"op": "\x1b[31mred"}, {"op": "boil-water", "hot": True}])
    await_condition(lambda: "boil-water" in mainstay.process.output, "it is told")
    assert "x" * 2000 not in mainstay.process.output and "\x1b[31m" not in mainstay.process.output


@pytest.mark.parametrize("nonsense", [[{"op": "task-finished"}], [["no", "map"]], {"no": "batch"}, [{"op": 7}]])
def test_a_message_that_is_none_ends_the_connection(mainstay, client, nonsense):
    async def main():
        async with stream(mainstay.address) as (comm, answer):
            assert answer["status"] == "OK"
            await comm.write(nonsense)
            await drain(comm)

    asyncio.run(main())
