"""Functions for tasks, importable here and on workers. Files stand for what a test waits for and counts."""

import os
import pathlib
import time


def inc(number):
    return number + 1


def add(one, other):
    return one + other


def sums(array, bag, nested):
    [nested] = nested
    return [int(array.sum()), len(bag), int(nested["array"].sum()) + sum(nested["all"])]


def spread(part):
    return part.value.max() - part.value.min()


def total(numbers):
    return sum(numbers)


def fail(message):
    raise ValueError(message)


def runs(path):
    """How often something was noted in a file."""
    path = pathlib.Path(path)
    return len(path.read_text().splitlines()) if path.exists() else 0


def note(path, value=None):
    """Leaves a line in a file; gives `value`."""
    with open(path, "a") as file:
        file.write(f"{value}\n")
    return value


def fail_first(path, times):
    """Raises as often as said, then gives how often it ran."""
    note(path)
    if runs(path) <= times:
        raise ValueError(f"failure {runs(path)}")
    return runs(path)


def hold(started, gate, value=None):
    """Says that it runs, and goes on until the gate is there."""
    note(started, value)
    while not pathlib.Path(gate).exists():
        time.sleep(0.01)
    return value


def pass_on(value, started, gate):
    """The value itself, once the gate is there."""
    hold(started, gate)
    return value


def die():
    """Takes its worker with it, once its nanny knows that it has started: a nanny whose worker dies before gives up."""
    time.sleep(1)
    os._exit(1)


class Counter:
    """An actor."""

    count = 0

    def __init__(self, start=0):
        self.count = start

    def increment(self, by=1):
        self.count += by
        return self.count

    def fail(self):
        raise KeyError("no such thing")


def slow_note(path, value=None):
    time.sleep(0.02)
    return note(path, value)


def fail_after(started, gate, path, times):
    """Waits at the gate, and then raises as often as said."""
    hold(started, gate)
    return fail_first(path, times)
