"""Tasks that have Clients, and actors, importable here and on workers."""

import asyncio
import threading
import time

from conformance_tasks import fail, inc, total
from differential_tasks import note
from distributed import Actor, Variable, get_client, get_worker, rejoin, secede, wait, worker_client


def sum_of_dict(values):
    return values["a"] + values["b"][0]


def needs_flag(name):
    if not Variable(name).get():
        raise RuntimeError("not yet")
    return 1


def note_after(label, _):
    note(label)


def by_get_client(number):
    inner = get_client()
    secede()
    return inner.submit(inc, number, pure=False).result()


def by_worker_client(number):
    with worker_client() as inner:
        return inner.submit(inc, number, pure=False).result()


def by_worker_client_kept(number):
    with worker_client(separate_thread=False) as inner:
        future = inner.submit(inc, number, pure=False)
    secede()
    return future.result()


def by_seceding(number):
    inner = get_client()
    secede()
    value = inner.gather(inner.map(inc, [number, number], pure=False))
    rejoin()
    return min(value)


def asks_and_fails():
    with worker_client() as inner:
        return inner.submit(fail, "from the inside", pure=False).result()


def scatters():
    with worker_client() as inner:
        big = inner.scatter([1, 2, 3, 4])
        future = inner.submit(total, big, pure=False)
        done, _ = wait([future])
        return [future.result(), inner.submit(len, inner.scatter("abc"), pure=False).result()], get_worker() is not None


def slow(seconds):
    time.sleep(min(seconds, 1))


def uses_actor(actor, by):
    return actor.increment(by).result(), isinstance(actor, Actor)


class Caller:
    def __init__(self, other):
        self.other = other

    def call(self):
        return self.other.increment().result()


class Asynchronous:
    async def add(self, one, other):
        await asyncio.sleep(0.01)
        return one + other

    async def fail(self):
        raise ValueError("asynchronously")


class Refusal(Exception):
    def __init__(self, code, *, reason="none"):
        super().__init__(code)
        self.code, self.reason = code, reason


def raises(kind):
    if kind == "class":
        raise Refusal(7)
    if kind == "unpicklable":
        error = ValueError("cannot leave")
        error.lock = threading.Lock()
        raise error
    if kind == "chained":
        try:
            1 / 0
        except ZeroDivisionError as error:
            raise KeyError("chained") from error
    if kind == "keyword":
        raise Refusal(7, reason="closed")
    error = ValueError("noted")
    error.add_note("a note") if hasattr(error, "add_note") else None
    raise error
