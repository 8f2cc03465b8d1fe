"""Workers with the keeper outlive the scheduler, and the next one takes over what they have.

Every task leaves a note where it runs: what was finished, or was running, has one when all is over.
"""

import asyncio
import contextlib
import random
import socket
import socketserver
import threading
import time

import pytest
from conformance_tasks import note, runs
from distributed import Client, wait
from distributed.core import connect
from harness import KEEPER, Mainstay, await_condition, resume, served, stop, workers_of

PERSISTED = r"^numbers/total: \w+, 1 key"
MANIFEST = """
apiVersion: mainstay.dev/v1alpha1
kind: PersistedCollection
metadata: {name: numbers}
spec:
  source:
    python: |
      import dask
      from conformance_tasks import %(task)s

      names = %(names)s
      parts = [
          dask.delayed(%(task)s)(%(arguments)s, **({"dask_key_name": f"part-{index}"} if names else {}))
          for index in range(%(count)d)
      ]
      total = dask.delayed(sum)(parts, dask_key_name="total")
  collections: [parts, total]
  retries: %(retries)d
"""
MANY = """
apiVersion: mainstay.dev/v1alpha1
kind: PersistedCollection
metadata: {name: numbers}
spec:
  source:
    python: |
      import dask.array as da
      import numpy as np

      def part():
          with open("RAN", "a") as ran:
              ran.write(".")
          return np.ones(1)

      many = da.map_blocks(part, chunks=((1,) * 12_000,), meta=np.empty(0))
  collections: [many]
"""


def manifest(task, arguments, count, retries=0, names=True):
    """Parts and their sum. Without names the keys are others each time that the graph is made."""
    return MANIFEST % {"task": task, "arguments": arguments, "count": count, "retries": retries, "names": names}


@contextlib.contextmanager
def keeping(folder, text):
    """A `mainstay local` with a manifest and without workers."""
    folder.mkdir(exist_ok=True)
    (folder / "collection.yaml").write_text(text)
    with contextlib.ExitStack() as stack:
        mainstay = Mainstay(folder, "--workers", "0", "-f", "collection.yaml", stack=stack)
        yield mainstay
        assert mainstay.process.is_alive(), mainstay.process.output
        assert "panicked" not in mainstay.process.output, mainstay.process.output


def replace(mainstay):
    """Kills it, as a crash does, and starts another in its place."""
    mainstay.process.kill()
    mainstay.succeed()


def total_of(mainstay):
    with Client(mainstay.address) as client:
        return client.get_dataset("numbers/total").compute()


def notes(folder):
    return {path.name: runs(path) for path in folder.glob("note-*")}


def noting(folder, count, **options):
    return manifest("slow_note", f"f'{folder}/note-{{index}}', index", count, **options)


def once_each(count):
    return {f"note-{index}": 1 for index in range(count)}


@pytest.mark.parametrize("nanny", [False, True])
def test_a_killed_scheduler_costs_nothing(tmp_path, nanny):
    with keeping(tmp_path / "run", noting(tmp_path, 200)) as mainstay:
        workers = [mainstay.start_keeping_worker(nanny=nanny) for _ in range(3)]
        for done in (50, 120):
            await_condition(lambda done=done: len(notes(tmp_path)) >= done, lambda: f"{len(notes(tmp_path))} parts")
            replace(mainstay)
        mainstay.process.await_output(PERSISTED)
        assert total_of(mainstay) == sum(range(200))
        assert all(worker.is_alive() for worker in workers)
    assert notes(tmp_path) == once_each(200)


def test_it_may_be_killed_at_any_moment(tmp_path):
    seed = random.randrange(1_000_000)
    print("seed", seed)
    draw = random.Random(seed)
    with keeping(tmp_path / "run", noting(tmp_path, 200)) as mainstay:
        for _ in range(2):
            mainstay.start_keeping_worker(threads=2)
        await_condition(lambda: notes(tmp_path), "the first part")
        for _ in range(6):
            time.sleep(draw.uniform(0, 1.5))
            mainstay.process.kill()
            time.sleep(draw.uniform(0, 0.5))
            mainstay.succeed()
        mainstay.process.await_output(PERSISTED)
        assert total_of(mainstay) == sum(range(200))
    assert notes(tmp_path) == once_each(200)


def test_a_graph_of_random_keys_is_kept(tmp_path):
    with keeping(tmp_path / "run", noting(tmp_path, 100, names=False)) as mainstay:
        for _ in range(3):
            mainstay.start_keeping_worker()
        await_condition(lambda: len(notes(tmp_path)) >= 30, "30 parts")
        replace(mainstay)
        mainstay.process.await_output(PERSISTED)
        assert total_of(mainstay) == sum(range(100))
        # Nothing runs now, and the copies of the graph are read once more.
        replace(mainstay)
        mainstay.process.await_output(PERSISTED)
        assert total_of(mainstay) == sum(range(100))
    assert notes(tmp_path) == once_each(100)


def test_a_copy_of_the_graph_that_is_lost_with_its_worker_is_replaced(tmp_path):
    def copies(dask_worker):
        return dask_worker.name, list(dask_worker.handle_scheduler.__self__.documents)

    with keeping(tmp_path / "run", noting(tmp_path, 20, names=False)) as mainstay:
        workers = {f"w{number}": mainstay.start_keeping_worker(name=f"w{number}") for number in range(3)}
        mainstay.process.await_output(PERSISTED)
        with Client(mainstay.address) as client:

            def holders():
                return [name for name, documents in client.run(copies, on_error="ignore").values() if documents]

            first = await_condition(lambda: len(holders()) == 2 and holders(), "two copies")
            workers[first[0]].kill()
            await_condition(lambda: first[0] not in holders() and len(holders()) == 2, "two copies again")


def test_what_runs_goes_on_without_a_scheduler(tmp_path):
    started, gate = tmp_path / "started", tmp_path / "gate"
    with keeping(tmp_path / "run", manifest("hold", f"'{started}', '{gate}', index", 2)) as mainstay:
        mainstay.start_keeping_worker(threads=2)
        await_condition(lambda: runs(started) == 2, "both run")
        mainstay.process.kill()
        gate.touch()
        mainstay.succeed()
        mainstay.process.await_output(PERSISTED)
        assert total_of(mainstay) == 1
    assert runs(started) == 2


def test_what_still_runs_is_known_by_its_old_run(tmp_path):
    started, gate = tmp_path / "started", tmp_path / "gate"
    with keeping(tmp_path / "run", manifest("hold", f"'{started}', '{gate}', index", 2)) as mainstay:
        mainstay.start_keeping_worker(threads=2)
        await_condition(lambda: runs(started) == 2, "both run")
        replace(mainstay)
        with Client(mainstay.address) as client:
            await_condition(lambda: sum(map(len, client.processing().values())) == 2, lambda: client.processing())
        gate.touch()
        mainstay.process.await_output(PERSISTED)
    assert runs(started) == 2


def test_a_failure_without_a_scheduler_counts_once(tmp_path):
    started, gate, path = tmp_path / "started", tmp_path / "gate", tmp_path / "note-0"
    with keeping(tmp_path / "run", manifest("fail_after", f"'{started}', '{gate}', '{path}', 2", 1, retries=1)) as mainstay:
        mainstay.start_keeping_worker()
        await_condition(lambda: runs(started) == 1, "it runs")
        mainstay.process.kill()
        gate.touch()
        await_condition(lambda: runs(path) == 1, "it has failed")
        mainstay.succeed()
        mainstay.process.await_output("failed after 2 attempts: ValueError: failure 2")
    assert runs(path) == 2


def test_stock_workers_beside_ones_that_keep(tmp_path):
    with keeping(tmp_path / "run", noting(tmp_path, 60)) as mainstay:
        keeps, stock = mainstay.start_keeping_worker(name="keeps"), mainstay.start_worker(name="stock")
        mainstay.process.await_output(PERSISTED)
        with Client(mainstay.address) as client:
            by_name = {worker["name"]: address for address, worker in workers_of(client).items()}
            held = {name: set(client.has_what()[address]) for name, address in by_name.items()}
        assert held["keeps"] and held["stock"]
        mainstay.process.kill()
        assert stock.wait() == 0 and keeps.is_alive()
        mainstay.succeed()
        mainstay.process.await_output(PERSISTED)
        assert total_of(mainstay) == sum(range(60))
    lost = {f"note-{key.removeprefix('part-')}": 2 for key in held["stock"] - held["keeps"] if key.startswith("part-")}
    assert notes(tmp_path) == {**once_each(60), **lost}


@pytest.mark.parametrize(
    ("written", "instead", "grace", "why"),
    [
        ("", "", "0s", "mainstay.keeper.grace is 0"),
        ('SOURCES_SHA256 = "', 'SOURCES_SHA256 = "0', "10 minutes", "is not as it was released"),
        ("distributed.__version__ not in RELEASES", "True", "10 minutes", "was not tested with distributed"),
    ],
    ids=["grace", "source", "release"],
)
def test_where_it_is_not_known_to_be_right_the_worker_is_stock(tmp_path, written, instead, grace, why):
    keeper, text = tmp_path / "keeper.py", KEEPER.read_text()
    assert written in text
    keeper.write_text(text.replace(written, instead) if written else text)
    with served(tmp_path / "run") as mainstay:
        worker = mainstay.start_keeping_worker(keeper=keeper, DASK_MAINSTAY__KEEPER__GRACE=grace)
        with Client(mainstay.address) as client:
            assert client.submit(sum, [1, 2]).result() == 3
        assert why in mainstay.process.output
        mainstay.process.kill()
        assert worker.wait() == 0 and why in worker.output
        mainstay.succeed()


def test_a_worker_waits_only_for_so_long(tmp_path):
    with served(tmp_path / "run") as mainstay:
        worker = mainstay.start_keeping_worker(DASK_MAINSTAY__KEEPER__GRACE="1s")
        worker.await_output("Registered to")
        mainstay.process.kill()
        assert worker.wait() == 0 and "no scheduler for 1 s; closing" in worker.output
        mainstay.succeed()


def test_a_client_is_told_and_finds_what_it_had(tmp_path):
    """Its futures are cancelled, by itself; the same tasks, asked for again in time, are there."""
    with served(tmp_path / "run") as mainstay:
        mainstay.start_keeping_worker()
        paths = [tmp_path / f"note-{index}" for index in range(10)]
        with Client(mainstay.address) as client:
            futures = client.map(note, paths, range(10))
            wait(futures)
            replace(mainstay)
            await_condition(lambda: all(future.cancelled() for future in futures), "the futures are cancelled")
            client.wait_for_workers(1)
            again = client.map(note, paths, range(10))
            assert client.gather(again) == list(range(10))
    assert notes(tmp_path) == once_each(10)


def test_the_last_scheduler_has_a_worker(tmp_path):
    """A worker is called away by a later epoch, and by no earlier one."""

    async def call(worker, **fields):
        comm = await connect(worker)
        await comm.write({"op": "mainstay-adopt", "reply": True, **fields})
        answer = await comm.read()
        await comm.close()
        return answer

    with served(tmp_path / "one") as one:
        one.start_keeping_worker()
        # Epochs are times there.
        between = round(time.time() * 1000)
        with served(tmp_path / "other") as other, Client(one.address) as client, Client(other.address) as client_of_other:
            client.wait_for_workers(1)
            [worker] = workers_of(client)
            assert asyncio.run(call(worker, epoch=1, address=other.address))["status"] == "refused"
            assert client.submit(sum, [1, 2]).result() == 3
            assert asyncio.run(call(worker, epoch=between, address=other.address))["status"] == "OK"
            assert client_of_other.submit(sum, [1, 2]).result() == 3
            assert not workers_of(client)
            # It is with a later one now.
            assert asyncio.run(call(worker, epoch=between, address=one.address))["status"] == "refused"


class Way:
    """A port that leads to a scheduler, as a Service does: what was connected to one stays with it."""

    def __init__(self, address):
        self.target = address
        way = self

        class Connection(socketserver.BaseRequestHandler):
            def handle(self):
                host, port = way.target.removeprefix("tcp://").split(":")
                # Refused where nobody listens.
                with contextlib.suppress(OSError), socket.create_connection((host, int(port))) as there:
                    back = threading.Thread(target=way.pass_on, args=(there, self.request))
                    back.start()
                    way.pass_on(self.request, there)
                    back.join()

        self.server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Connection)
        self.server.daemon_threads = True
        self.address = f"tcp://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @staticmethod
    def pass_on(source, target):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()


def test_a_later_scheduler_is_found_though_the_former_does_not_end_its_comm(tmp_path):
    paths = [str(tmp_path / f"note-{index}") for index in range(10)]
    with served(tmp_path / "one") as one, Way(one.address) as way:
        one.start_keeping_worker(address=way.address)
        with Client(one.address) as former:
            futures = former.map(note, paths, range(10))
            wait(futures)
            stop(one.process.pid)
            try:
                with served(tmp_path / "other") as other, Client(other.address) as client:
                    way.target = other.address
                    client.wait_for_workers(1, timeout=30)
                    assert client.gather(client.map(note, paths, range(10))) == list(range(10))
            finally:
                resume(one.process.pid)
    assert notes(tmp_path) == once_each(10)


def test_much_is_taken_over_in_parts(tmp_path):
    """An inventory of several messages, and nothing of it runs again."""
    ran = tmp_path / "ran"
    with keeping(tmp_path / "run", MANY.replace("RAN", str(ran))) as mainstay:
        mainstay.start_keeping_worker(threads=2)
        mainstay.process.await_output(r"^numbers/many: \w+, 12000 keys")
        replace(mainstay)
        mainstay.process.await_output(r"^numbers/many: \w+, 12000 keys")
    assert len(ran.read_text()) == 12_000
