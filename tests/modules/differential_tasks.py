"""Tasks that note, in the folder of the scheduler they run for, which worker ran them under which key."""

import json
import os
import pathlib
import time

from conformance_tasks import inc
from distributed import Reschedule, get_client, get_worker

# Names that folder on workers, so that both schedulers can be given the very same graph.
FOLDER = "DIFFERENTIAL_FOLDER"
# Ends the name of a file that says that a task waits for a gate.
WAITED_FOR = ".waited-for"
# After this time a nanny has heard that its worker has started.
STARTED_SECONDS = 1


def folder():
    return pathlib.Path(os.environ[FOLDER])


def note(label, value=None):
    worker = get_worker()
    line = json.dumps([str(worker.name), str(worker.get_current_task()), value])
    with open(folder() / label, "a") as file:
        file.write(f"{line}\n")


def notes(path):
    """All that was noted under a label: [worker, key, value]."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def ran(label, value=None, *needs):
    """Notes that it ran, and gives the value, with the sum of what it needs."""
    note(label, value)
    return value + sum(needs) if needs else value


def sum_of(*values):
    """Something that depends on other tasks, and leaves no note."""


def noting(block, label=None):
    """Notes that it saw a block or partition of a collection, and gives it on."""
    note(label)
    return block


def where(label, *needs):
    """The name of the worker that runs it."""
    note(label)
    return str(get_worker().name)


def hold(label, gate, value=None):
    """Notes that it runs, and goes on until the gate is there."""
    note(label, value)
    (folder() / f"{gate}{WAITED_FOR}").touch()
    while not (folder() / gate).exists():
        time.sleep(0.005)
    return value


def runs_of_this(label):
    key = str(get_worker().get_current_task())
    return sum(1 for _, found, _ in notes(folder() / label) if found == key)


class Refusal(Exception):
    """An exception that only workers and readers with this module know."""

    def __init__(self, code, *, reason):
        super().__init__(code, reason)
        self.code, self.reason = code, reason

    def __reduce__(self):
        return refusal, (self.code, self.reason)


def refusal(code, reason):
    return Refusal(code, reason=reason)


def fail_first(label, times, value=None, *needs):
    """Raises as often as said, then gives the value with the sum of what it needs."""
    note(label, value)
    count = runs_of_this(label)
    if count <= times:
        raise ValueError(f"failure {count}")
    return value + sum(needs) if needs else value


def fail(label, error):
    note(label)
    raise error


def reschedule_first(label, times):
    """Asks to be run elsewhere, or again, as often as said."""
    note(label)
    if runs_of_this(label) <= times:
        raise Reschedule
    return runs_of_this(label)


def together(label, count):
    """Goes on once so many run at the same time; gives how many did at most."""
    mine = folder() / f"{label}-running"
    mine.mkdir(exist_ok=True)
    token = mine / str(get_worker().get_current_task()).replace("/", "_")
    token.touch()
    most = folder() / f"{label}-most"
    try:
        while True:
            now = len(list(mine.iterdir()))
            most.mkdir(exist_ok=True)
            (most / str(now)).touch()
            if now >= count or (folder() / f"{label}-enough").exists():
                (folder() / f"{label}-enough").touch()
                break
            time.sleep(0.005)
        # Who else may run does so now.
        time.sleep(0.05)
        (most / str(len(list(mine.iterdir())))).touch()
    finally:
        token.unlink()


def die(label):
    """Takes its worker with it, once its nanny knows that it has started: a nanny whose worker dies before gives up."""
    note(label)
    time.sleep(STARTED_SECONDS)
    os._exit(1)


class Counter:
    """An actor."""

    count = 0

    def __init__(self, start=0, label=None):
        self.count = start
        if label:
            note(label, start)

    def increment(self, by=1):
        self.count += by
        return self.count

    def where(self):
        return str(get_worker().name)

    def fail(self):
        raise KeyError("no such thing")


def call_increment(counter, by):
    """What an actor answers to another task."""
    return counter.increment(by).result()


def take_turns(_, path, lock):
    """Adds to a file what would be lost if two did so at once."""
    path = pathlib.Path(path)
    with lock:
        text = path.read_text()
        time.sleep(0.01)
        path.write_text(text + "x")


def pass_through_queue(queue, count):
    """Puts futures into a queue, and gives what they are when they come out."""
    client = get_client()
    for number in range(count):
        queue.put(client.submit(inc, number))
    return [future.result() for future in queue.get(batch=count)]


def keys_of_worker(dask_worker):
    """All that a worker knows, whatever its state."""
    return [str(key) for key in dask_worker.state.tasks]
