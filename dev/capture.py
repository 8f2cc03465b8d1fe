"""Records what stock Dask peers say to one another, one message a file, for tests/wire.

    python dev/capture.py tests/wire/captures [OP...]

With names of ops, only these are kept, beside what is there, and named after the release. A scheduler, two workers, a nanny and two clients of the installed release run in this process; between them stand
proxies that pass bytes on and keep the first good example of each message. Names of this machine are overwritten with
others of the same length, so that every length in the bytes stays right.
"""

import asyncio
import contextlib
import os
import platform
import re
import socket
import struct
import sys
import tempfile
import uuid
from pathlib import Path

import msgpack

FIELD = struct.Struct("<Q")


# ---- messages ------------------------------------------------------------------------------------------------------


async def read_message(reader):
    """The bytes of one message and its frames."""
    head = await reader.readexactly(16)
    (count,) = FIELD.unpack(head[8:])
    prelude = await reader.readexactly(8 * count)
    lengths = struct.unpack(f"<{count}Q", prelude)
    frames = [await reader.readexactly(length) for length in lengths]
    return head + prelude + b"".join(frames), frames


def document(frames):
    return msgpack.unpackb(frames[0], use_list=False, strict_map_key=False, object_pairs_hook=dict)


# An answer above this shows nothing that a shorter one does not.
BYTES_MAX = 8 * 1024


class Captures:
    """Keeps one message for each name: the first that stands alone, else the shortest."""

    def __init__(self):
        self.found = {}

    def offer(self, folder, op, raw, alone):
        name = f"{folder}/{op}"
        rank = (not alone, len(raw))
        if len(raw) > BYTES_MAX:
            return
        kept = self.found.get(name)
        if kept is None or (kept[0][0] and rank < kept[0]):
            self.found[name] = (rank, raw)

    def offer_all(self, folder, op, raw):
        """Keeps several examples, numbered, where one does not show all fields."""
        number = sum(name.startswith(f"{folder}/{op}.") for name in self.found) + 1
        if number <= 5:
            self.found[f"{folder}/{op}.{number}"] = ((False, len(raw)), raw)

    def write(self, folder, replace, ops):
        import distributed

        for old in () if ops else folder.glob("*/*.bin"):
            old.unlink()
        for name, (_, raw) in self.found.items():
            if ops and name.split("/")[1] not in ops:
                continue
            path = folder / (f"{name}.{distributed.__version__}.bin" if ops else f"{name}.bin")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(replace(raw))


class Proxy:
    """Stands before one server. `serves` says which: its streams and its RPCs go to folders of their own."""

    def __init__(self, captures, serves):
        self.captures, self.serves = captures, serves
        self.target = None

    async def start(self):
        self.server = await asyncio.start_server(self.accept, "127.0.0.1", 0)
        self.port = self.server.sockets[0].getsockname()[1]
        self.address = f"tcp://127.0.0.1:{self.port}"
        return self

    async def accept(self, reader, writer):
        try:
            there = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            writer.close()
            return
        state = {"stream": None, "op": None}
        await asyncio.gather(
            self.pump(reader, there[1], state, inward=True), self.pump(there[0], writer, state, inward=False)
        )

    async def pump(self, reader, writer, state, inward):
        try:
            raw, frames = await read_message(reader)
            self.captures.offer("handshake", "handshake", raw, True)
            writer.write(raw)
            while True:
                raw, frames = await read_message(reader)
                with contextlib.suppress(Exception):
                    self.look(raw, document(frames), state, inward)
                writer.write(raw)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    def look(self, raw, message, state, inward):
        if isinstance(message, tuple) and message and all(isinstance(item, dict) and "op" in item for item in message):
            if state["stream"]:
                folder = ("from_" if inward else "to_") + state["stream"]
                for item in message:
                    self.captures.offer(folder, item["op"], raw, len(message) == 1)
                    if item["op"] in ("compute-task", "update-graph") and len(message) == 1:
                        self.captures.offer_all(folder, item["op"], raw)
        elif inward and isinstance(message, dict) and "op" in message:
            op = message["op"]
            state["op"] = op if message.get("reply", True) else None
            if op in ("register-worker", "register-client"):
                state["stream"] = op.removeprefix("register-")
                state["op"] = op
            self.captures.offer(f"rpc_{self.serves}", op, raw, True)
        elif not inward and state["op"]:
            self.captures.offer(f"rpc_{self.serves}_answer", state["op"], raw, True)
            state["op"] = None


# ---- what must not be kept -----------------------------------------------------------------------------------------


def of_length(text, length):
    return (text * length)[:length] if length else ""


def replacer(folders):
    """Overwrites names of this machine and its folders with others of the same length."""
    words = {socket.gethostname(): "h", socket.getfqdn(): "h", platform.release(): "r", os.path.expanduser("~"): "~"}
    words |= {str(Path(folder)): "/d" for folder in folders}
    words |= {f"{uuid.getnode():012x}": "0"}
    pairs = [(word.encode(), of_length(letter, len(word)).encode()) for word, letter in words.items() if len(word) > 4]
    pairs.sort(key=lambda pair: -len(pair[0]))

    def replace(raw):
        for word, other in pairs:
            raw = raw.replace(word, other)
        for word, _ in pairs:
            assert word not in raw
        return raw

    return replace


# ---- traffic -------------------------------------------------------------------------------------------------------


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


async def until(condition, what, timeout=20):
    for _ in range(int(timeout / 0.02)):
        if condition():
            return
        await asyncio.sleep(0.02)
    print(f"gave up waiting for {what}", file=sys.stderr)


async def tried(what, awaitable, timeout=20):
    """Runs one step; one that fails does not end the recording."""
    try:
        return await asyncio.wait_for(awaitable, timeout)
    except Exception as error:
        print(f"{what}: {type(error).__name__}: {error}", file=sys.stderr)


def main(out, *ops):
    import dask

    scratch = tempfile.mkdtemp(prefix="capture-")
    dask.config.set(
        {
            "distributed.scheduler.dashboard.status.task-stream-length": 10,
            "distributed.scheduler.work-stealing-interval": "100ms",
            "distributed.scheduler.active-memory-manager.interval": "100ms",
            "distributed.scheduler.active-memory-manager.start": False,
            "distributed.client.heartbeat": "300ms",
            "distributed.admin.tick.interval": "1s",
            "distributed.worker.memory.pause": False,
            "temporary-directory": scratch,
        }
    )
    captures = Captures()
    asyncio.run(record(captures, scratch))
    here = Path(__file__).resolve()
    folders = [scratch, sys.prefix, sys.base_prefix, os.getcwd(), str(here.parent), str(here.parent.parent)]
    captures.write(Path(out), replacer(folders), ops)
    print(f"{len(captures.found)} messages")


async def record(captures, scratch):
    from distributed import Client, Nanny, Scheduler, Worker

    front = await Proxy(captures, "scheduler").start()
    async with Scheduler(port=0, dashboard=False, host="127.0.0.1") as scheduler:
        front.target = scheduler.port
        workers = []
        for name, resources in (("alice", {"GPU": 2}), ("bob", {})):
            side = await Proxy(captures, "worker").start()
            side.target = free_port()
            worker = Worker(
                front.address,
                name=name,
                nthreads=1,
                resources=resources,
                host="127.0.0.1",
                port=side.target,
                contact_address=side.address,
                local_directory=scratch,
                dashboard=False,
            )
            worker.periodic_callbacks["keep-alive"].callback_time = 200
            await worker
            workers.append(worker)
        async with Client(front.address, asynchronous=True, name="capture", heartbeat_interval="300ms") as client:
            for step in (
                results,
                failures,
                cancellation,
                movement,
                events_and_locks,
                variables_and_queues,
                datasets,
                actors,
                shuffles,
                management,
                diagnostics,
                plugins,
            ):
                await tried(step.__name__, step(client, scheduler, *workers), timeout=60)
            await tried("nannies", nannies(client, scheduler, front, scratch, captures), timeout=60)
            await tried("keepers", keepers(client, scheduler, front, scratch), timeout=60)
            await tried("ends", ends(client, scheduler, front, scratch, *workers), timeout=60)


async def results(client, scheduler, alice, bob):
    import dask
    import dask.array as da
    import numpy as np

    x = client.submit(pow, 2, 3, key="x", workers=["alice"])
    await x
    y = client.submit(lambda value: value + 1, x, key="y", workers=["bob"])
    assert await y == 9
    z = client.submit(sum, [x, y], key=("z", 0), resources={"GPU": 1}, priority=2.5)
    await z
    await client.gather([x, y, z])
    await client.gather([x], direct=True)
    array = client.persist(da.ones((4, 4), chunks=(2, 4)) + 1, retries=2)
    await client.gather(client.futures_of(array))
    with dask.annotate(executor="offload"):
        await client.compute(dask.delayed(len)("abc"))
    [data] = await client.scatter([np.arange(10)])
    await client.submit(np.sum, data)
    await client.scatter({"scattered": 1}, broadcast=True)
    await client.scatter([b"direct"], direct=True, workers=["alice"])
    # A bytes result leaves a worker as it is.
    await client.submit(bytes, 5, key="plain")
    del x, y, z, data, array
    await asyncio.sleep(0.3)


async def failures(client, scheduler, alice, bob):
    from distributed import Reschedule, get_worker, secede

    def fails():
        raise ValueError("bad row 7")

    await tried("fails", client.gather(client.submit(fails, key="fails", retries=1), errors="skip"))
    failed = client.submit(fails, key="fails-again")
    await failed.exception()
    await client.retry([failed])
    await failed.exception()

    def moves():
        worker = get_worker()
        if not hasattr(worker, "moved"):
            worker.moved = True
            raise Reschedule()

    await client.submit(moves, key="moves")

    def secedes():
        secede()
        return 1

    await client.submit(secedes, key="secedes")
    # Ask for a result that the scheduler has forgotten.
    lost = client.submit(pow, 3, 3, key="lost")
    await lost
    scheduler.client_releases_keys(keys=["lost"], client=client.id, stimulus_id="forget")
    await tried("lost", client.gather([lost], errors="skip"), 3)
    # Send a worker for data that is gone, which the scheduler does not know: it asks each second where to look.
    known = client.submit(pow, 4, 3, key="known", workers=["alice"])
    await known
    del alice.data["known"]
    acquire = {"op": "acquire-replicas", "who_has": {"known": [alice.contact_address]}, "nbytes": {"known": 28}}
    scheduler.stream_comms[bob.contact_address].send({**acquire, "stimulus_id": "acquire-replicas-1"})
    await asyncio.sleep(2.5)


async def cancellation(client, scheduler, alice, bob):
    import time

    slow = client.map(time.sleep, [0.2] * 10, pure=False)
    await asyncio.sleep(0.1)
    await client.cancel(slow[5:], reason="enough", msg="the user said so")
    await client.gather(slow[:5])


async def movement(client, scheduler, alice, bob):
    import time

    # Stealing: all tasks wait at alice although bob may run them.
    queued = client.map(
        lambda n: time.sleep(0.1) or n, range(20), pure=False, workers=["alice"], allow_other_workers=True
    )
    await client.gather(queued)
    data = client.map(lambda n: bytes(1000 + n), range(6), workers=["alice"])
    await client.gather(data)
    await client.replicate(data[:2], n=2)
    await asyncio.sleep(0.2)
    # Surplus replicas go by the active memory manager.
    await client.amm.start()
    await client.amm.running()
    await client.amm.run_once()
    await asyncio.sleep(1)
    await client.amm.stop()
    await client.replicate(data[2:4], n=2)
    await client.replicate(data[2:4], n=1)
    await tried("rebalance", client.rebalance(data))
    await tried("processing", client.processing())
    bob.status = type(bob.status).paused
    await asyncio.sleep(0.2)
    bob.status = type(bob.status).running
    await client.nthreads()
    await client.has_what()
    await client.who_has()
    await client.scheduler.ncores_running(workers=None)
    await client.scheduler.nbytes(keys=None, summary=True)


async def events_and_locks(client, scheduler, alice, bob):
    import distributed
    from distributed import Event, Lock, MultiLock, Semaphore

    await client.submit(distributed.print, "from a task", pure=False)
    await client.submit(lambda: distributed.get_worker().log_event(["one", "two"], {"n": 1}), pure=False)
    client.subscribe_topic("one", lambda event: None)
    await client.log_event("one", {"said": "hello"})
    await client.get_events("one")
    await tried("all events", client.get_events(), 5)
    await asyncio.sleep(0.3)
    client.unsubscribe_topic("one")
    event = Event("event", client=client)
    waiting = asyncio.create_task(event.wait(timeout=5))
    await asyncio.sleep(0.1)
    await event.set()
    await waiting
    await event.is_set()
    await event.clear()
    lock = Lock("lock")
    await lock.acquire(timeout=3)
    await lock.locked()
    await lock.release()
    semaphore = await Semaphore(name="semaphore", max_leases=2)
    await semaphore.acquire()
    await semaphore.get_value()
    await semaphore._refresh_leases()
    await semaphore.release()
    await tried("close of a semaphore", semaphore.close())
    await asyncio.sleep(0.1)
    many = MultiLock(names=["m1", "m2"], client=client)
    await many.acquire()
    await many.release()


async def variables_and_queues(client, scheduler, alice, bob):
    from distributed import Queue, Variable

    variable = Variable("variable", client=client)
    await variable.set({"a": [1, 2.5, None, b"raw"]})
    await variable.get()
    await variable.set(client.submit(pow, 5, 2, key="kept"))
    future = await variable.get()
    await future
    await asyncio.sleep(0.2)
    variable.delete()
    queue = await Queue("queue", client=client, maxsize=3)
    await queue.put(1)
    await queue.put(future)
    await queue.qsize()
    await queue.get()
    await queue.get(timeout=2)
    await tried("an empty queue", queue.get(timeout=0.1))
    await asyncio.sleep(0.2)
    queue.close()
    await asyncio.sleep(0.2)


async def datasets(client, scheduler, alice, bob):
    import dask.array as da

    array = client.persist(da.ones((4, 4), chunks=2).sum())
    await client.publish_dataset(array, name="foo")
    await client.list_datasets()
    found = await client.get_dataset("foo")
    await client.compute(found)
    await tried("a missing data set", client.get_dataset("missing"))
    await client.unpublish_dataset("foo")


class Counter:
    n = 0

    def increment(self):
        self.n += 1
        return self.n


async def actors(client, scheduler, alice, bob):
    counter = await client.submit(Counter, actor=True, key="counter", workers=["alice"])
    await counter.increment()
    await counter.n


async def shuffles(client, scheduler, alice, bob):
    import dask
    import dask.dataframe as dd
    import pandas as pd

    frame = dd.from_pandas(pd.DataFrame({"a": range(40), "b": range(40)}), npartitions=4)
    with dask.config.set({"dataframe.shuffle.method": "p2p"}):
        await client.compute(frame.shuffle("a").b.sum())
    await asyncio.sleep(0.5)


async def management(client, scheduler, alice, bob):
    await client.scheduler.identity(n_workers=-1)
    await client.wait_for_workers(2, timeout=5)
    await client.run(os.getpid)
    await client.get_versions()
    await client.set_metadata("a", {"b": 1})
    await client.get_metadata("a")
    await tried("missing metadata", client.get_metadata("missing"))
    await client.scheduler.set_resources(worker=bob.contact_address, resources={"MEM": 4.0})
    await client.scheduler.get_task_status(keys=["nothing"])
    await client.run_on_scheduler(os.getpid)
    await client.scheduler.adaptive_target()
    await client.scheduler.workers_to_close()
    await bob.set_resources(FPGA=1)


async def diagnostics(client, scheduler, alice, bob):
    import time

    from distributed.diagnostics.progressbar import TextProgressBar

    slow = client.submit(time.sleep, 0.6, pure=False)
    await asyncio.sleep(0.2)
    await client.call_stack([slow])
    bar = TextProgressBar([slow], scheduler=client.scheduler.address, start=False)
    await tried("progress", bar.listen(), 5)
    await client.get_task_stream(count=3)
    await client.profile()
    await client.get_worker_logs(n=2)
    await client.get_scheduler_logs(n=2)
    await client.scheduler.get_task_stream_index()
    await client.scheduler.start_task_metadata(name="m")
    await client.scheduler.stop_task_metadata(name="m")
    await client.story("x")
    await client.dump_cluster_state(os.path.join(os.environ.get("TMPDIR", "/tmp"), f"dump-{os.getpid()}"))
    # Without bokeh this fails; the question is what counts.
    await tried("a report", client.scheduler.performance_report(start=time.time() - 1, last_count=0, code="", mode=None))

    def fails():
        raise KeyError("k")

    failed = client.submit(fails, pure=False)
    await failed.exception()
    await tried("cause", client.scheduler.get_error_cause(keys=[failed.key]))
    await tried("run spec", client.scheduler.get_runspec(key=failed.key))
    from distributed.diagnostics.memory_sampler import MemorySampler

    sampler = MemorySampler()
    async with sampler.sample("s", client=client, interval=0.1):
        await asyncio.sleep(0.3)


async def plugins(client, scheduler, alice, bob):
    from distributed import NannyPlugin, WorkerPlugin

    class Quiet(WorkerPlugin):
        name = "quiet"

    class Nothing(NannyPlugin):
        name = "nothing"

    await client.register_plugin(Quiet())
    await client.unregister_worker_plugin("quiet")
    await client.register_plugin(Nothing())
    await client.scheduler.unregister_nanny_plugin(name="nothing")
    path = Path(alice.local_directory) / "uploaded.py"
    path.write_text("answer = 42\n")
    await client.upload_file(str(path))


async def nannies(client, scheduler, front, scratch, captures):
    from distributed import Nanny

    async with Nanny(front.address, name="carol", nthreads=1, local_directory=scratch, host="127.0.0.1") as nanny:
        await client.wait_for_workers(3, timeout=20)
        await tried("restart of workers", client.restart_workers([nanny.worker_address], timeout=20), 25)
        pid = nanny.pid
        os.kill(pid, 9)
        await asyncio.sleep(0.1)
        await until(lambda: nanny.pid not in (None, pid), "the nanny's next worker")
        await client.wait_for_workers(3, timeout=20)


async def keepers(client, scheduler, front, scratch):
    """A worker with our keeper comes back; the stock scheduler only has to look as if it were ours."""
    import threading

    from distributed import Worker

    for op in ("mainstay-inventory", "mainstay-erred", "mainstay-documents"):
        scheduler.stream_handlers[op] = lambda worker, **fields: None
    preload = str(Path(__file__).resolve().parents[1] / "src/server/keeper.py")
    kate = await Worker(front.address, name="kate", nthreads=2, local_directory=scratch, host="127.0.0.1", preload=[preload])
    keeper = kate.handle_scheduler.__self__
    keeper.epoch = 1
    introduce = keeper.introduce

    async def introduce_to_ours(*arguments):
        comm, answer = await introduce(*arguments)
        return comm, {**answer, "epoch": 2}

    keeper.introduce = introduce_to_ours
    gate = threading.Event()

    def fails():
        raise ValueError("bad row 7")

    kate.gate = gate
    held = client.submit(pow, 7, 2, key="held", workers=["kate"])
    waiting = client.submit(lambda: __import__("distributed").get_worker().gate.wait(20), key="runs", workers=["kate"])
    failed = client.submit(fails, key="failed", workers=["kate"])
    await held
    await failed.exception()
    await keeper.keep("uid-revision-0", b"document")
    scheduler.stream_comms[kate.contact_address].abort()
    await until(lambda: keeper.epoch == 2, "the worker to come back")
    gate.set()
    await asyncio.sleep(0.2)
    await kate.close()
    del held, waiting, failed


async def ends(client, scheduler, front, scratch, alice, bob):
    import time

    from distributed import Client, Worker

    kept = client.submit(lambda: bytes(2000), key="moved-by-retiring", workers=["bob"])
    await kept
    await client.retire_workers([bob.contact_address])
    # Data that nobody can compute again goes with its worker.
    lost = await client.scatter({"only-at-alice": 1}, hash=False)
    await scheduler.remove_worker(alice.contact_address, stimulus_id="gone")
    await asyncio.sleep(0.5)
    settings = {"nthreads": 1, "local_directory": scratch, "host": "127.0.0.1"}
    dan = await Worker(front.address, name="dan", **settings)
    async with Client(front.address, asynchronous=True, name="second") as second:
        waiting = second.submit(time.sleep, 0.5, pure=False)
        await asyncio.sleep(0.1)
        await tried("restart", second.restart(timeout=1, wait_for_workers=False), 20)
        del waiting
        await asyncio.sleep(0.2)
    eve = await Worker(front.address, name="eve", **settings)
    await eve.close_gracefully()
    frank = await Worker(front.address, name="frank", **settings)
    # The end of the scheduler ends the streams of all.
    await tried("end of the scheduler", scheduler.close())
    await asyncio.sleep(0.5)
    del kept, lost, dan, frank


if __name__ == "__main__":
    main(*sys.argv[1:])
