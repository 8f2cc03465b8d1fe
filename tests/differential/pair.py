"""The two sides: a stock scheduler and Mainstay, each with the same stock workers."""

import contextlib
import contextvars
import gc
import sys
from concurrent.futures import ThreadPoolExecutor

from dask.delayed import delayed
from differential_tasks import FOLDER, WAITED_FOR, hold, notes
from distributed import Client, futures_of, wait
from harness import DEADLINE_SECONDS, Mainstay, StockScheduler, await_condition, workers_of

# dora is for tests of order alone: what is to run one after the other runs there. erin has another host.
WORKERS = {
    "alice": {"threads": 2, "arguments": ["--resources", "GPU=2 IO=1"]},
    "bob": {"threads": 1, "arguments": ["--resources", "IO=0.5"]},
    "dora": {"threads": 1, "arguments": []},
    "erin": {"threads": 1, "arguments": ["--host", "127.0.0.2", "--resources", "TAPE=0.3"]},
}


class Side:
    """One scheduler with its workers, and a Client of it."""

    def __init__(self, name, scheduler):
        self.name, self.scheduler = name, scheduler
        self.notes_folder = scheduler.folder / "notes"
        self.notes_folder.mkdir()
        self.observer = scheduler.stack.enter_context(Client(scheduler.address, set_as_default=False))
        self.client = self.observer
        self.processes = {}

    def start_worker(self, name, threads=1, arguments=(), **options):
        worker = self.scheduler.start_worker(
            # Pausing and spilling depend on what else the machine does.
            "--memory-limit", "0", *arguments, name=name, threads=threads, **{FOLDER: str(self.notes_folder)}, **options
        )
        self.processes[name] = worker
        return worker

    def terminate_workers(self):
        """Has all end at the same time."""
        for worker in self.processes.values():
            if worker.is_alive():
                worker.child.terminate()

    @property
    def addresses(self):
        workers = workers_of(self.observer)
        return {str(worker["name"]): address for address, worker in workers.items()}

    def await_workers(self, *names):
        await_condition(lambda: set(names) <= set(self.addresses), lambda: f"{self.name} has {self.addresses}", 90)

    # ---- what tasks leave behind

    def notes(self, label):
        """[worker, key, value] of each run."""
        return notes(self.notes_folder / label)

    def count(self, label):
        return len(self.notes(label))

    def ran_on(self, label):
        return sorted({worker for worker, _, _ in self.notes(label)})

    def values(self, label):
        """In the order of the runs."""
        return [value for _, _, value in self.notes(label)]

    def runs(self, label):
        """How often each key ran."""
        keys = [key for _, key, _ in self.notes(label)]
        return {key: keys.count(key) for key in sorted(keys)}

    def await_count(self, label, count):
        await_condition(lambda: self.count(label) >= count, lambda: f"{self.name}: {label} ran {self.count(label)} times")

    def open(self, gate):
        (self.notes_folder / gate).touch()

    def open_all(self):
        """Lets go of tasks that a test that failed has left behind; they would hold up those that come after it."""
        for path in self.notes_folder.glob(f"*{WAITED_FOR}"):
            self.open(path.name.removesuffix(WAITED_FOR))

    def most_together(self, label):
        return max(int(path.name) for path in (self.notes_folder / f"{label}-most").iterdir())

    # ---- what a scheduler says

    def states(self, *collections):
        """What the scheduler says of each key, in order of the keys."""
        return self.states_of([future.key for future in futures_of(list(collections))])

    def states_of(self, keys):
        found = self.client.sync(self.client.scheduler.get_task_status, keys=list(keys))
        return [found[key] for key in sorted(keys, key=str)]

    def await_unknown(self, *keys):
        """Waits until the scheduler has forgotten these keys."""

        def are_unknown():
            # What was raised holds futures by its frames, in circles, which other threads may still look at.
            gc.collect()
            return not any(self.states_of(keys))

        await_condition(are_unknown, lambda: f"{self.name}: {self.states_of(keys)}")

    def await_states(self, collection, *states):
        """Waits until all keys of a collection are in one of these states."""
        await_condition(lambda: set(self.states(collection)) <= set(states), lambda: f"{self.name}: {self.states(collection)}")
        return self.states(collection)

    def await_known(self, *collections):
        """Waits until the scheduler has the graphs."""
        await_condition(lambda: all(self.states(*collections)), lambda: f"{self.name}: {self.states(*collections)}")

    def holders(self, *collections):
        """The workers that hold something of these collections."""
        names = {address: name for name, address in self.addresses.items()}
        who_has = self.client.who_has(futures_of(list(collections)))
        return sorted({names[address] for addresses in who_has.values() for address in addresses})

    def held(self, *collections):
        """Waits until all keys of these collections are in memory, and nothing else is; gives the keys."""
        wanted = sorted({str(future.key) for future in futures_of(list(collections))})

        def found():
            return sorted({str(key) for keys in self.client.has_what().values() for key in keys})

        await_condition(lambda: found() == wanted, lambda: f"{self.name} holds {found()}, not {wanted}")
        return wanted

    def wait(self, *collections):
        """Waits until all of it has ended, one way or the other."""
        futures = futures_of(list(collections))
        try:
            wait(futures, timeout=DEADLINE_SECONDS)
        except TimeoutError:
            raise AssertionError(f"{self.name}: after {DEADLINE_SECONDS} s: {self.states(futures)}") from None

    def result(self, collection, **options):
        """What a collection, or each of a list, computes to here."""
        futures = self.client.compute(collection, **options)
        self.wait(futures)
        return self.client.gather(futures)

    def failure(self, collection):
        """The type and the words of what a collection of one key failed with. Unlike `outcome` it asks for nothing."""
        self.wait(collection)
        [future] = futures_of(collection)
        error = future.exception()
        return type(error).__name__, str(error)

    def outcome(self, collection):
        """The result, or the type and the words of the exception."""
        try:
            return self.result(collection)
        except Exception as error:
            return type(error).__name__, str(error)


class Queue:
    """What stands in the queue of one worker behind a task that holds it."""

    WORKER = "dora"

    def __init__(self, side, label):
        self.side, self.label = side, label
        held = delayed(hold)(f"{label}-held", f"{label}-gate", dask_key_name=f"{label}-held")
        self.kept = [side.client.persist(held, workers=self.WORKER, priority=1e6)]
        side.await_count(f"{label}-held", 1)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.side.open(f"{self.label}-gate")

    def persist(self, *tasks, **options):
        """Adds graphs, one after the other."""
        kept = self.side.client.persist(list(tasks), workers=self.WORKER, **options)
        # Each has arrived before the next is sent.
        self.side.await_known(kept)
        self.kept += kept

    def order(self):
        """Lets the tasks run, and gives their values in the order of the runs."""
        self.side.open(f"{self.label}-gate")
        self.side.wait(self.kept)
        return self.side.values(self.label)


@contextlib.contextmanager
def pair(folder, workers):
    """Both sides, with the same workers."""
    with contextlib.ExitStack() as stack:
        stock = StockScheduler(folder / "stock", stack=stack)
        ours = Mainstay(folder / "ours", "--workers", "0", "--python", sys.executable, stack=stack)
        sides = [Side("stock", stock), Side("ours", ours)]
        for name, options in workers.items():
            for side in sides:
                side.start_worker(name, **options)
        for side in sides:
            side.await_workers(*workers)
        yield sides
        for side in sides:
            side.client = side.observer
            side.terminate_workers()
        assert ours.process.is_alive() and "panicked" not in ours.process.output, ours.process.output


@contextlib.contextmanager
def clients(sides):
    """New Clients for a test; when they have gone nothing is left on the workers."""
    with contextlib.ExitStack() as stack:
        for side in sides:
            side.client = stack.enter_context(Client(side.scheduler.address, set_as_default=False))
        yield
    for side in sides:
        side.client = side.observer
        side.open_all()

        def left():
            return {worker: keys for worker, keys in side.observer.has_what().items() if keys}

        await_condition(lambda: not left(), lambda: f"{side.name} still holds {left()}")


def in_turn(sides, function):
    """What a function sees of each side, one after the other."""
    found = []
    for side in sides:
        with side.client.as_current():
            found.append(function(side))
        gc.collect()
    return found


def at_once(sides, function):
    """What a function sees of each side; they have nothing in common but this process."""

    def run(side):
        with side.client.as_current():
            return function(side)

    pool = ThreadPoolExecutor(len(sides))
    try:
        runs = [pool.submit(contextvars.copy_context().run, run, side) for side in sides]
        return [run.result() for run in runs]
    finally:
        # A side that hangs goes on once its Client is closed.
        pool.shutdown(wait=False)
