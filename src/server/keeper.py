"""The keeper: lets a stock `dask worker` outlive the loss of its scheduler, and brings what it holds to the next one.

A preload, loaded by the environment variable DASK_DISTRIBUTED__WORKER__PRELOAD (a path or a URL); image and command stay
stock. A worker without it closes when its connection to the scheduler ends, and all that it held is gone.

With it, when the connection to Mainstay is lost:
1. The worker keeps its data, its tasks go on, and it starts what it was told to start. Above its memory threshold
   (`distributed.worker.memory.pause`) it starts nothing, as always.
2. It tries to connect again, for `mainstay.keeper.grace` (10 minutes; DASK_MAINSTAY__KEEPER__GRACE). Then it closes as stock.
3. It leaves a scheduler whose connection is whole as well, when it finds one of a later epoch at the same address: a scheduler
   that is stopped, or cut off from all but its workers, does not end its connections, and the Service leads to who took its place.
4. When it is let in, it drops what it has not started, and says what it holds, runs and failed at. Nothing of what it said
   before counts any more: it is another registration, with a new outbox.

To the scheduler (src/server/reunion.rs and documents.rs are the other side):
    register-worker     `extra` has mainstay {keeps, why, epoch}: whether it keeps, else why not, and whom it comes from;
                        its answer has `epoch`, which grows with each scheduler: an older one is not gone back to
    mainstay-inventory  on the stream, before all else, in parts of `PART_KEYS_MAX` keys:
                        keys, nbytes, types       what is in memory; types are places in `type_pickles`
                        actors                    those of the keys that are actors and live here
                        runs                      {key, run_id, has_thread, is_wanted, resources} of what was started; one that is not
                                  wanted was given up, but has its thread to its end
    mainstay-erred      the fields of task-erred, for what failed and was not dropped since
    mainstay-documents  names: what was laid down here
    worker-status-change        ends the inventory
From the scheduler, by RPC:
    mainstay-adopt      {epoch, address}: register there, if that epoch is the highest so far
    mainstay-keep       {name, document}: lay down these bytes, in the scratch space
    mainstay-kept       {name}: give them again
    mainstay-drop       {names}: they are of no use any more

It replaces two methods of the worker and relies on others. So it is active only in releases that it was tested with, and
only where their source is as released; elsewhere the worker is stock.
"""

import asyncio
import hashlib
import inspect
import logging
import os
import pathlib
import time
import weakref

import dask
import distributed
from dask.utils import parse_timedelta, typename
from distributed.batched import BatchedSend
from distributed.comm import connect
from distributed.core import Server, Status
from distributed.protocol import pickle
from distributed.shuffle._worker_plugin import _ShuffleRunManager
from distributed.spans import SpansWorkerExtension
from distributed.versions import get_versions
from distributed.worker import Worker
from distributed.worker_state_machine import FreeKeysEvent, WorkerState

logger = logging.getLogger("distributed.worker.mainstay")

RELEASES = (
    "2025.11.0",
    "2025.12.0",
    "2026.1.0",
    "2026.1.1",
    "2026.1.2",
    "2026.1.3",
    "2026.3.0",
    "2026.6.0",
    "2026.7.0",
    "2026.7.1",
    "2026.8.0",
)
# What is replaced, and what has to be as it is known for that to be right. It is the same in all of these releases.
SOURCES = (
    Worker._register_with_scheduler,
    Worker.handle_scheduler,
    Worker.batched_send,
    Worker.heartbeat,
    Worker.get_metrics,
    Worker.get_startup_information,
    Server.handle_stream,
    SpansWorkerExtension.heartbeat,
    WorkerState._handle_free_keys,
    _ShuffleRunManager.fail,
)
SOURCES_SHA256 = "fb935f39b58452b27119b6d4c12d12c0d9f6e6c584a6cacd137ed76d4702d9c4"

GRACE = "10 minutes"
# Connecting and registering together; then another attempt is made.
ATTEMPT_SECONDS = 20.0
# Of these, to connect. Within that time `connect` tries again and again by itself, with ever longer pauses: so it is short at
# first. Where nobody refuses either, it takes longer: that may be a slow network.
FIRST_CONNECT_SECONDS = 1.0
LAST_CONNECT_SECONDS = 3.0
FIRST_PAUSE_SECONDS = 0.05
# Short, so that all workers are back soon after a scheduler is.
LAST_PAUSE_SECONDS = 0.5
# It is looked for a later scheduler once in so many heartbeats, which are the rarer the more workers there are.
LOOK_HEARTBEATS = 5
LOOK_SECONDS = 5.0
PART_KEYS_MAX = 10_000
# Data, or a run that a thread is busy with; the others have not started.
STARTED = {"memory", "executing", "long-running", "error", "cancelled"}
RUNNING = {"executing", "long-running"}
ALIVE = {Status.running, Status.paused, Status.closing_gracefully}


async def dask_setup(worker):
    """Called by the worker before it registers for the first time."""
    if "mainstay" in worker.startup_information:
        return
    grace = parse_timedelta(dask.config.get("mainstay.keeper.grace", GRACE))
    why_not = why_stock(grace)
    if why_not:
        logger.warning("this worker will not outlive the loss of its scheduler: %s", why_not)
        worker.startup_information["mainstay"] = lambda worker: {"keeps": False, "why": why_not}
        return
    Keeper(worker, grace).take_over()


def why_stock(grace):
    """Why the worker has to stay as it is, if it has to."""
    if grace <= 0:
        return "mainstay.keeper.grace is 0"
    if distributed.__version__ not in RELEASES:
        return f"the keeper was not tested with distributed {distributed.__version__}, but with {', '.join(RELEASES)}"
    try:
        source = "".join(inspect.getsource(method) for method in SOURCES)
    except OSError as error:
        return f"the source of distributed cannot be read: {error}"
    if hashlib.sha256(source.encode()).hexdigest() != SOURCES_SHA256:
        return f"distributed {distributed.__version__} is not as it was released"
    return None


class Superseded(OSError):
    """A scheduler that was there before the one that the worker was with last."""


class Keeper:
    """What a worker does about its scheduler, in place of two of its methods."""

    def __init__(self, worker, grace):
        self.worker = worker
        self.grace = grace
        # Of the scheduler that the worker belongs to; None before the first, and with a stock one.
        self.epoch = None
        # Set when the worker is told to go elsewhere, so that it does not wait for its next attempt.
        self.called = asyncio.Event()
        self.connect_seconds = FIRST_CONNECT_SECONDS
        # Files by the names of what was laid down.
        self.documents = {}

    def take_over(self):
        worker = self.worker
        worker.startup_information["mainstay"] = lambda worker: {"keeps": True, "epoch": self.epoch}
        worker.handlers["mainstay-adopt"] = self.adopt
        worker.handlers["mainstay-keep"] = self.keep
        worker.handlers["mainstay-kept"] = self.kept
        worker.handlers["mainstay-drop"] = self.drop
        worker._register_with_scheduler = self.register
        worker.handle_scheduler = self.handle_scheduler

    async def register(self):
        """Replaces Worker._register_with_scheduler: registers for the first time, as stock does."""
        worker = self.worker
        self.stop_callbacks()
        if worker.contact_address is None:
            worker.contact_address = worker.address
        while True:
            try:
                comm, answer = await self.introduce(worker.status)
                break
            except OSError:
                logger.info("Waiting to connect to: %26s", worker.scheduler.address)
                await asyncio.sleep(0.1)
        if answer["status"] != "OK":
            await comm.close()
            logger.error("Unable to connect to scheduler: %s", answer.get("message", answer))
            raise ValueError(f"Unexpected response from register: {answer!r}")
        self.epoch = answer.get("epoch")
        worker.batched_stream.start(comm)
        worker.status = Status.running
        await self.add_plugins(answer)
        logger.info("        Registered to: %26s", worker.scheduler.address)
        self.start_callbacks()
        worker.loop.add_callback(worker.handle_scheduler, comm)

    async def handle_scheduler(self, comm):
        """Replaces Worker.handle_scheduler: what the scheduler says, and after it the next one."""
        worker = self.worker
        try:
            while True:
                looking = asyncio.create_task(self.look_for_a_later_one())
                try:
                    await worker.handle_stream(comm)
                finally:
                    looking.cancel()
                if self.epoch is None or worker.status not in ALIVE:
                    break
                comm = await self.come_back()
        except TimeoutError as error:
            logger.error("%s; closing", error)
        finally:
            await worker.close(reason="worker-handle-scheduler-connection-broken")

    async def look_for_a_later_one(self):
        """Goes to a scheduler of a later epoch if one is found at the address of this one; never ends otherwise."""
        worker = self.worker
        while self.epoch is not None:
            await asyncio.sleep(LOOK_HEARTBEATS * worker.periodic_callbacks["heartbeat"].callback_time / 1000)
            address = worker.scheduler.address
            try:
                epoch = await asyncio.wait_for(self.epoch_at(address), LOOK_SECONDS)
            except (OSError, asyncio.TimeoutError):
                # It will be found once it answers.
                continue
            if epoch is not None and epoch > self.epoch:
                return await self.adopt(epoch, address)

    async def epoch_at(self, address):
        # Not on a comm that is there: that leads to where the stream does.
        comm = await connect(address, **self.worker.connection_args)
        try:
            await comm.write({"op": "identity", "n_workers": 0, "reply": True, "close": True}, serializers=["msgpack"])
            return (await comm.read(deserializers=["msgpack"])).get("epoch")
        finally:
            comm.abort()

    async def come_back(self):
        """Registers again, and gives the comm, when the inventory has been sent."""
        worker = self.worker
        self.stop_callbacks()
        began = time.monotonic()
        pause, self.connect_seconds = FIRST_PAUSE_SECONDS, FIRST_CONNECT_SECONDS
        logger.warning("lost the scheduler; holding %d keys for %.0f s", len(worker.data), self.grace)
        while worker.status in ALIVE:
            self.called.clear()
            try:
                comm = await self.register_again()
            except (OSError, asyncio.TimeoutError) as error:
                logger.info("not back yet: %s", str(error) or type(error).__name__)
                if isinstance(error.__cause__, asyncio.TimeoutError):
                    self.connect_seconds = min(self.connect_seconds * 1.5, LAST_CONNECT_SECONDS)
            else:
                logger.warning("back after %.2f s with %d keys", time.monotonic() - began, len(worker.data))
                self.start_callbacks()
                return comm
            if time.monotonic() - began > self.grace:
                raise TimeoutError(f"no scheduler for {self.grace:.0f} s")
            try:
                await asyncio.wait_for(self.called.wait(), pause)
            except asyncio.TimeoutError:
                pause = min(pause * 1.5, LAST_PAUSE_SECONDS)
        raise TimeoutError("the worker was closed while it had no scheduler")

    async def register_again(self):
        worker = self.worker
        # The status that it has is said when all else has been: until then it is given nothing.
        comm, answer = await asyncio.wait_for(self.introduce(Status.init, self.connect_seconds), ATTEMPT_SECONDS)
        outbox = BatchedSend(interval="2ms", loop=worker.loop)
        try:
            if answer["status"] != "OK":
                raise OSError(answer.get("message", answer))
            epoch = answer.get("epoch")
            if epoch is None or epoch < self.epoch:
                raise Superseded(f"the scheduler is of epoch {epoch}, not of {self.epoch} or later")
            self.epoch = epoch
            # An outbox cannot be used again. From here on this one takes messages; it sends them once it is started.
            outbox.comm = comm
            worker.batched_stream = outbox
            self.drop_what_has_not_started()
            for part in self.inventory():
                await comm.write([part], on_error="raise")
            worker._send_worker_status_change(f"mainstay-back-{time.time()}")
            outbox.start(comm)
            await self.add_plugins(answer)
        except BaseException:
            comm.abort()
            # Nobody has to wait for it to have sent what it has.
            outbox.stopped.set()
            raise
        return comm

    async def introduce(self, status, timeout=None):
        """Connects and says who the worker is; gives the comm with the scheduler's answer."""
        worker = self.worker
        began = time.time()
        comm = await connect(worker.scheduler.address, timeout, **worker.connection_args)
        try:
            comm.name = "Worker->Scheduler"
            comm._server = weakref.ref(worker)
            metrics = await worker.get_metrics()
            if "spans" in worker.extensions:
                # Otherwise the next heartbeat fails over what this call has left there.
                worker.extensions["spans"].heartbeat()
            registration = {
                "op": "register-worker",
                "reply": False,
                "address": worker.contact_address,
                "status": status.name,
                "nthreads": worker.state.nthreads,
                "name": worker.name,
                "now": time.time(),
                "resources": worker.state.total_resources,
                "memory_limit": worker.memory_manager.memory_limit,
                "local_directory": worker.local_directory,
                "services": worker.service_ports,
                "nanny": worker.nanny,
                "pid": os.getpid(),
                "versions": get_versions(),
                "metrics": metrics,
                "extra": await worker.get_startup_information(),
                "stimulus_id": f"worker-connect-{time.time()}",
                "server_id": worker.id,
            }
            await comm.write(registration, serializers=["msgpack"])
            answer = await comm.read(deserializers=["msgpack"])
        except BaseException:
            comm.abort()
            raise
        if answer.get("warning"):
            logger.warning(answer["warning"])
        ended = time.time()
        worker._update_latency(ended - began)
        worker.scheduler_delay = answer["time"] - (began + ended) / 2
        return comm, answer

    async def add_plugins(self, answer):
        new = {name: plugin for name, plugin in answer["worker-plugins"].items() if name not in self.worker.plugins}
        await asyncio.gather(*(self.worker.plugin_add(name=name, plugin=plugin) for name, plugin in new.items()))

    def stop_callbacks(self):
        for name in ("keep-alive", "heartbeat"):
            self.worker.periodic_callbacks[name].stop()

    def start_callbacks(self):
        for name in ("keep-alive", "heartbeat"):
            self.worker.periodic_callbacks[name].start()

    def drop_what_has_not_started(self):
        """Lets the next scheduler say where that runs. Shuffles begin anew: who takes part in them is not known any more."""
        worker = self.worker
        waiting = [task.key for task in worker.state.tasks.values() if task.state not in STARTED]
        if waiting:
            worker.handle_stimulus(FreeKeysEvent(keys=waiting, stimulus_id=f"mainstay-back-{time.time()}"))
        shuffles = worker.extensions.get("shuffle")
        for run in list(shuffles.shuffle_runs._active_runs.values()) if shuffles else []:
            shuffles.shuffle_fail(run.id, run.run_id, "the scheduler of the shuffle is gone")

    def inventory(self):
        """What the worker holds, runs and failed at, as messages. All at one moment: what happens later is said later."""
        tasks = list(self.worker.state.tasks.values())
        held = [task for task in tasks if task.state == "memory"]
        started = [task for task in tasks if task.state in RUNNING or task.previous in RUNNING]
        parts = []
        # The data that a run reads is said before it.
        for held, started in [*((part, []) for part in split(held)), *(([], part) for part in split(started))]:
            # By identity: not every type can be hashed.
            types = {id(task.type): task.type for task in held}
            place_of = {each: place for place, each in enumerate(types)}
            parts.append(
                {
                    "op": "mainstay-inventory",
                    "keys": [task.key for task in held],
                    "nbytes": [task.nbytes or 0 for task in held],
                    "types": [place_of[id(task.type)] for task in held],
                    "type_pickles": [pickled_type(each) for each in types.values()],
                    "actors": [task.key for task in held if task.key in self.worker.state.actors],
                    "runs": [describe_run(task) for task in started],
                }
            )
        for task in tasks:
            if task.state == "error":
                parts.append(
                    {
                        "op": "mainstay-erred",
                        "key": task.key,
                        "run_id": task.run_id,
                        "exception": task.exception,
                        "traceback": task.traceback,
                        "exception_text": task.exception_text,
                        "traceback_text": task.traceback_text,
                    }
                )
        parts.append({"op": "mainstay-documents", "names": list(self.documents)})
        return parts

    async def adopt(self, epoch, address):
        """The RPC `mainstay-adopt`: leaves the scheduler that the worker has for a later one."""
        if self.epoch is None or epoch <= self.epoch:
            return {"status": "refused", "epoch": self.epoch}
        logger.warning("called by the scheduler of epoch %s at %s", epoch, address)
        self.epoch = epoch
        self.worker.scheduler = self.worker.rpc(address)
        self.worker.batched_stream.abort()
        self.called.set()
        return {"status": "OK", "epoch": epoch}

    async def keep(self, name, document):
        """The RPC `mainstay-keep`."""
        file = f"mainstay-{hashlib.sha256(name.encode()).hexdigest()}"
        path = pathlib.Path(self.worker.local_directory, file)
        await asyncio.to_thread(path.write_bytes, document)
        self.documents[name] = path
        return {"status": "OK"}

    async def kept(self, name):
        """The RPC `mainstay-kept`."""
        path = self.documents.get(name)
        return {"status": "OK", "document": await asyncio.to_thread(path.read_bytes) if path else None}

    async def drop(self, names):
        """The RPC `mainstay-drop`."""
        for name in names:
            if path := self.documents.pop(name, None):
                path.unlink(missing_ok=True)
        return {"status": "OK"}


def split(tasks):
    return [tasks[place : place + PART_KEYS_MAX] for place in range(0, len(tasks), PART_KEYS_MAX)]


def describe_run(task):
    state = task.state if task.previous is None else task.previous
    resources = (task.annotations or {}).get("mainstay-resources", task.resource_restrictions)
    return {
        "key": task.key,
        "run_id": task.run_id,
        "has_thread": state == "executing",
        "is_wanted": task.previous is None,
        "resources": resources,
    }


def pickled_type(value_type):
    """As in a task-finished: some types cannot be pickled, and are named."""
    try:
        return pickle.dumps(value_type)
    except Exception:
        return pickle.dumps(typename(value_type))
