"""Pickles tasks, so that any worker can decode them."""

import functools
import importlib
import io
import operator
import pickle
import sys
import types

import cloudpickle
from dask._task_spec import Dict, List, Task, TaskRef, Tuple
from dask.utils import apply
from distributed.protocol.pickle import dumps

# Imports packages from the top, and leaves it to the task to fail of one that is not there.
IMPORT_EACH = """\
for name in {names!r}:
    try:
        __import__(name)
    except Exception:
        pass
"""

# Functions of this file that tasks use go by value: other workers do not have it.
cloudpickle.register_pickle_by_value(sys.modules[__name__])


def pickle_task(key, node, by_value, package=None):
    """A run spec that any worker can decode: what the task is made of is unpickled when the task runs.

    Otherwise a function whose module a worker lacks would break that worker's connection, and it would exit. `by_value`
    is a dict that the tasks of a graph share. `package` is one that the task imports by itself.

    Packages are imported before that, where run specs are decoded: in the one thread of the worker's event loop. Unpickling
    begins with the innermost module, and two threads that do so for the first time get half of a package
    (`_DeadlockError`, or "cannot import name").
    """
    packages = {package} if package else set()
    try:
        blob = pickle_by_value(node, by_value, packages)
    except Exception:
        blob = dumps(node)
    values = Reduced(Dict, [(needed, TaskRef(needed)) for needed in node.dependencies])
    if node.is_coro:
        return pickle_by_value(Reduced(Task, key, run_async, blob, values), by_value)
    loaded = Reduced(Task, None, pickle.loads, blob)
    if packages:
        loaded = Reduced(operator.getitem, (Reduced(exec, text_of_imports(frozenset(packages)), {}), loaded), 1)
    if hasattr(operator, "call"):
        return pickle.dumps(Reduced(Task, key, operator.call, loaded, values), protocol=5)
    return pickle.dumps(Reduced(Task, key, apply, loaded, Reduced(List, values)), protocol=5)


@functools.cache
def text_of_imports(packages):
    return IMPORT_EACH.format(names=tuple(sorted(packages)))


def package_of(module):
    """What to import first of a module's packages; None for what every worker has."""
    root, _, rest = module.partition(".")
    if root == "dask":
        part = rest.partition(".")[0]
        return f"dask.{part}" if part in ("array", "bag", "dataframe", "datasets") else None
    return None if root in sys.stdlib_module_names or root in ("distributed", "cloudpickle", "tlz", "toolz") else root


def import_packages_of(frames):
    """Imports Dask's collections from the top if pickles name them, for the same reason as `pickle_task`."""
    for name in ("dask.array", "dask.bag", "dask.dataframe"):
        if any(name.encode() in bytes(frame) for frame in frames):
            try:
                importlib.import_module(name)
            except Exception:
                pass  # unpickling says what is missing


def call(key, function, *args, **kwargs):
    """A task that calls what another task gives."""
    if hasattr(operator, "call"):
        return Task(key, operator.call, function, *args, **kwargs)
    return Task(key, apply, function, Tuple(*args), Dict(kwargs))


async def run_async(blob, values):
    """Runs the task of a coroutine function, which the worker awaits only if it sees one."""
    return await pickle.loads(blob)(values)


class Pickler(pickle.Pickler):
    """Pickles tasks at the speed of `pickle`, what other processes cannot import by value, and each such thing once.

    cloudpickle does the same, some ten times slower, and again for each task that uses a function of the source.
    """

    def __init__(self, buffer, by_value, packages):
        super().__init__(buffer, protocol=5)
        # Of what it names, to be imported first.
        self.packages = packages
        # By `id`: a function or class; its pickle, or None if it is importable; then its package.
        self.by_value = by_value

    def reducer_override(self, value):
        if type(value) is Task and not value.kwargs:
            return Task, (value.key, value.func, *value.args)
        if isinstance(value, (types.FunctionType, type)):
            return self.reduce_definition(value)
        return NotImplemented

    def reduce_definition(self, value):
        if id(value) not in self.by_value:
            blob = None if is_importable(value) else cloudpickle.dumps(value, protocol=5)
            package = package_of(value.__module__) if blob is None else None
            # With the value itself, so that its id stays its own.
            self.by_value[id(value)] = value, blob, package
        _, blob, package = self.by_value[id(value)]
        if package:
            self.packages.add(package)
        return NotImplemented if blob is None else (pickle.loads, (blob,))


def is_importable(definition):
    """Whether other processes find this function or class under its name."""
    module = sys.modules.get(definition.__module__)
    if module is None or module.__name__ in ("__main__", *cloudpickle.list_registry_pickle_by_value()):
        return False
    try:
        return operator.attrgetter(definition.__qualname__)(module) is definition
    except AttributeError:
        return module.__name__ == "builtins"  # `type(None)` and its like, which pickle knows


def pickle_by_value(value, by_value, packages=None):
    buffer = io.BytesIO()
    Pickler(buffer, by_value, set() if packages is None else packages).dump(value)
    return buffer.getvalue()


class Reduced:
    """Pickles as a call."""

    __slots__ = ("function", "args")

    def __init__(self, function, *args):
        self.function, self.args = function, args

    def __reduce__(self):
        return self.function, self.args
