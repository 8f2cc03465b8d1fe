"""What a source says of single tasks: checked and in plain values."""

import math
import numbers

import msgpack

from .errors import Refused, describe_error

# What of `dask.annotate` says how a task is to be run; by the names that a stock scheduler takes too.
ANNOTATIONS = {name: name for name in ("retries", "priority", "workers", "allow_other_workers", "resources", "executor")}
ANNOTATIONS |= {"restrictions": "workers", "loose_restrictions": "allow_other_workers"}
RETRIES_MAX = 2**32 - 1
AMOUNT_MAX = 1e12


class AnnotationTable:
    """The different annotations of a graph, each once and checked once."""

    def __init__(self):
        self.indices, self.values = {}, []

    def index(self, key, annotation):
        """The place of a task's annotation in `values`, counted from 1; 0 for none."""
        if not annotation:
            return 0
        try:
            packed = msgpack.packb(annotation, default=plain)
        except Exception as error:
            raise Refused("BadOption", f"the annotations of `{key}` are not plain data: {error}") from None
        if packed not in self.indices:
            found = msgpack.unpackb(packed, strict_map_key=False)
            self.values.append({name: checked(key, name, value) for name, value in found.items()})
            self.indices[packed] = len(self.values)
        return self.indices[packed]


def value_for(name, value, key):
    """The value of an annotation for one task: it may be a function of the key."""
    if not callable(value):
        return value
    try:
        return value(key)
    except Exception as error:
        message = f"the annotation `{name}` cannot be had for `{key}`: {describe_error(error)}"
        raise Refused("BadOption", message) from error


def checked(key, name, value):
    """The value as Mainstay reads it."""
    check, needed = CHECKS[name]
    result = check(value)
    if result is None:
        raise Refused("BadOption", f"the annotation `{name}` of `{key}` is {value!r}: it has to be {needed}")
    return result


def whole_number(value):
    return int(value) if is_number(value) and value == int(value) and 0 <= value <= RETRIES_MAX else None


def finite_number(value):
    return +value if is_number(value) else None


def names(value):
    """Names of workers; or the selector of an inline task, which the manifest's checks have seen."""
    if isinstance(value, dict):
        return value
    value = value if isinstance(value, list) else [value]
    return value if all(isinstance(name, str) or is_number(name) for name in value) else None


def boolean(value):
    return bool(value) if isinstance(value, bool) or value in (0, 1) else None


def amounts(value):
    is_good = isinstance(value, dict) and all(
        isinstance(name, str) and is_number(amount) and 0 <= amount <= AMOUNT_MAX for name, amount in value.items()
    )
    return {name: +amount for name, amount in value.items()} if is_good else None


def text(value):
    return value if isinstance(value, str) else None


def is_number(value):
    return isinstance(value, (int, float)) and math.isfinite(value)


CHECKS = {
    "retries": (whole_number, "a whole number from 0"),
    "priority": (finite_number, "a finite number"),
    "workers": (names, "a list of names or addresses of workers"),
    "allow_other_workers": (boolean, "True or False"),
    "resources": (amounts, "a dict of amounts by name, such as {'GPU': 1}, each from 0 to 1e12"),
    "executor": (text, "the name of an executor"),
}


def plain(value):
    """What msgpack does not know but keys and annotations may hold: numbers of NumPy and others, sets."""
    if hasattr(value, "item"):
        return value.item()
    if isinstance(value, numbers.Real):
        return float(value)
    if isinstance(value, (set, frozenset)):
        return sorted(value, key=str)
    raise TypeError(f"{type(value).__name__} is not plain data")
