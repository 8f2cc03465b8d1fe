"""Pickles tasks in pieces: what many tasks have in common is there once, and any worker can decode them."""

import functools
import importlib
import inspect
import io
import operator
import pickle
import sys
import types

import cloudpickle
from dask._task_spec import Alias, DataNode, Dict, GraphNode, List, Set, Task, TaskRef, Tuple
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
# Flags of a form: the tasks know their dependencies by key instead of by number; they are of coroutine functions.
KEYED, COROUTINE = 1, 2
PLAIN = {bool, bytes, float, int, str, type(None)}
CONTAINERS = {List, Tuple, Set, Dict}
# Longer pickles may have more than one frame.
ONE_FRAME_MAX = 60_000

# Functions of this file that tasks use go by value: other workers do not have it.
cloudpickle.register_pickle_by_value(sys.modules[__name__])


class RunSpecs:
    """The run specs of a graph, in pieces that Mainstay puts together when it sends a task (src/wire/pickle/run_spec.rs):

        Task(key, operator.call, Task(None, pickle.loads, head + blob), Dict({0: TaskRef(dependency), ...}))

    What a task is made of is unpickled when the task runs. Otherwise a function whose module a worker lacks would break
    that worker's connection, and it would exit. Inside a blob the dependencies have numbers, so tasks that do the same
    share one. A head is what the blobs of all tasks that call the same function begin with; it is part of their form.

    Packages are imported before that, where a worker decodes the first run spec that needs them: in the one thread of its
    event loop. Unpickling begins with the innermost module, and two threads that do so for the first time get half of a
    package (`_DeadlockError`, or "cannot import name").
    """

    def __init__(self):
        # [(flags, head, text of imports)], each once.
        self.forms, self.form_indices = [], {}
        # Each once, one after the other.
        self.blobs, self.starts, self.nbytes = [], {}, 0
        # By `id`: what is known of a function that tasks call.
        self.functions = {}
        # By the `id` of each: the pickles of all arguments of a task, with the packages that they name.
        self.pickled_arguments = {}
        self.pickler = Pickler()

    def add(self, node, package=None):
        """Takes a task in. Gives its form, where its blob begins, its length, and its dependencies as they are numbered.

        `package` is one that the task imports by itself.
        """
        called = getattr(node, "func", None)
        function = self.functions.get(id(called)) or self.add_function(called, node)
        if type(node) is Task and not node.kwargs and self.has_head(function):
            blob, packages, dependencies = self.arguments(node)
            if blob:
                form = function.form
                if package or packages:
                    form = self.form(function.flags, function.head, {*function.packages, *packages, package} - {None})
                return form, *self.place(blob), dependencies
        numbers, flags = {}, function.flags
        try:
            whole = numbered(node, numbers)
        except Unnumbered:
            whole = None
        dependencies = list(numbers)
        if whole is None or len(dependencies) != len(node.dependencies):
            flags, whole, dependencies = flags | KEYED, node, sorted(node.dependencies, key=str)
        blob, packages = self.pickler.dumps(whole)
        return self.form(flags, b"", {*packages, package} - {None}), *self.place(blob), dependencies

    def form(self, flags, head, packages):
        form = flags, head, tuple(sorted(packages))
        index = self.form_indices.setdefault(form, len(self.forms))
        if index == len(self.forms):
            self.forms.append(form)
        return index

    def run_coroutine(self):
        """The pickle of the function that runs coroutine functions, if there are any."""
        return cloudpickle.dumps(run_async, protocol=5) if any(flags & COROUTINE for flags, _, _ in self.forms) else None

    def place(self, blob):
        start = self.starts.setdefault(blob, self.nbytes)
        if start == self.nbytes:
            self.blobs.append(blob)
            self.nbytes += len(blob)
        return start, len(blob)

    def add_function(self, called, node):
        self.functions[id(called)] = function = Function(called, COROUTINE if node.is_coro else 0)
        return function

    def has_head(self, function):
        """Whether the tasks that call a function begin with something that is pickled once."""
        if function.form is None:
            function.calls += 1
            code = self.code_of(function)
            if code:
                function.head = pickle.PROTO + b"\x05" + named(Task) + pickle.MARK + pickle.NONE + code
                function.form = self.form(function.flags, function.head, function.packages)
        return function.form is not None

    def code_of(self, function):
        """The pickle of a function, without a memo; None if it has none that is worth it."""
        called = function.called
        is_builtin = isinstance(called, types.BuiltinFunctionType) and inspect.ismodule(called.__self__)
        if is_builtin or isinstance(called, (types.FunctionType, type)):
            pickled, package = self.pickler.definition(called)
            function.packages = frozenset([package] if package else [])
            return named(called) if pickled is None else called_with(pickle.loads, pickled)
        # A partial function, or the like: mostly each task has its own, but not always.
        if function.calls != 2:
            return None
        pickled, packages = self.pickler.dumps(called)
        function.packages = frozenset(packages)
        return called_with(pickle.loads, pickled)

    def arguments(self, node):
        """What follows the head in the blob of a task, the packages that it names, and the dependencies as it numbers them."""
        values, numbers, is_as_given = [], {}, True
        try:
            for value in node.args:
                if isinstance(value, TaskRef):
                    value = reference(numbers.setdefault(value.key, len(numbers)))
                elif isinstance(value, GraphNode):
                    value, is_as_given = numbered(value, numbers), False
                values.append(value)
        except Unnumbered:
            return None, (), None
        if len(numbers) != len(node.dependencies):
            return None, (), None
        # What the tasks hold has its id as long as they are there.
        identity = tuple(map(id, values)) if is_as_given else None
        found = self.pickled_arguments.get(identity)
        if found is None:
            pickled, packages = self.pickler.dumps(tuple(values))
            found = items_of(pickled, len(values)), packages
            if is_as_given:
                self.pickled_arguments[identity] = found
        return *found, list(numbers)


class Function:
    """What is known of a function that tasks call."""

    __slots__ = ("called", "flags", "head", "packages", "form", "calls")

    def __init__(self, called, flags):
        # With the function itself, so that its id stays its own.
        self.called, self.flags, self.calls = called, flags, 0
        # Of the tasks that call it.
        self.head = self.packages = self.form = None


def items_of(pickled, count):
    """The pickle of a tuple, made the end of the pickle of a call: its items without what is around them."""
    if count == 0:
        return pickle.TUPLE + pickle.REDUCE + pickle.STOP
    end = (b"", pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3, pickle.TUPLE)[min(count, 4)] + pickle.MEMOIZE + pickle.STOP
    # The protocol, and the length of the frame.
    start = 2 + 9 + (count > 3)
    if len(pickled) > ONE_FRAME_MAX or not pickled.endswith(end):
        return None
    return pickled[start : -len(end)] + pickle.TUPLE + pickle.REDUCE + pickle.STOP


def named(definition):
    """The pickle of a function or class by name, without a memo; None for those that have none."""
    module, name = definition.__module__, definition.__qualname__
    try:
        found = operator.attrgetter(name)(sys.modules[module])
    except (AttributeError, KeyError):
        return None
    return text(module) + text(name) + pickle.STACK_GLOBAL if found is definition else None


def called_with(function, argument):
    """The pickle of a call with bytes."""
    length = len(argument).to_bytes(8, "little")
    return named(function) + pickle.BINBYTES8 + length + argument + pickle.TUPLE1 + pickle.REDUCE


def text(value):
    encoded = value.encode()
    return pickle.BINUNICODE + len(encoded).to_bytes(4, "little") + encoded


@functools.cache
def reference(number):
    """What stands for a dependency in a blob."""
    return TaskRef(number)


class Unnumbered(Exception):
    """A part of a task knows its dependencies by key and cannot be told otherwise."""


def numbered(value, numbers):
    """What pickles as a part of a task with numbers in place of keys."""
    kind = type(value)
    if isinstance(value, TaskRef):
        return reference(numbers.setdefault(value.key, len(numbers)))
    if not isinstance(value, GraphNode):
        return value
    if kind is Alias:
        return Reduced(Alias, numbers.setdefault(value.target, len(numbers)))
    if kind is DataNode:
        return Reduced(DataNode, None, value.value)
    if kind is Task:
        args = [numbered(arg, numbers) for arg in value.args]
        kwargs = {name: numbered(arg, numbers) for name, arg in value.kwargs.items()}
        return Reduced(apply, Task, [None, value.func, *args], kwargs) if kwargs else Reduced(Task, None, value.func, *args)
    if kind in CONTAINERS and len(value.args) != 1:
        return Reduced(kind, *(numbered(arg, numbers) for arg in value.args))
    if kind in CONTAINERS:
        # It would take a single argument that is a container for itself.
        return Reduced(kind, kind.klass(numbered(arg, numbers) for arg in value.args))
    raise Unnumbered


@functools.cache
def text_of_imports(packages):
    return IMPORT_EACH.format(names=packages) if packages else None


def package_of(module):
    """What to import first of a module's packages; None for what every worker has."""
    root, _, rest = module.partition(".")
    if root == "dask":
        part = rest.partition(".")[0]
        return f"dask.{part}" if part in ("array", "bag", "dataframe", "datasets") else None
    return None if root in sys.stdlib_module_names or root in ("distributed", "cloudpickle", "tlz", "toolz") else root


def import_packages_of(frames):
    """Imports Dask's collections from the top if pickles name them, for the same reason as in `RunSpecs`."""
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


async def run_async(blob, values=()):
    """Runs the task of a coroutine function, which the worker awaits only if it sees one."""
    return await pickle.loads(blob)(values)


class Pickler(pickle.Pickler):
    """Pickles tasks at the speed of `pickle`, what other processes cannot import by value, and each such thing once.

    cloudpickle does the same, some ten times slower, and again for each task that uses a function of the source.
    """

    def __init__(self):
        self.buffer = io.BytesIO()
        super().__init__(self.buffer, protocol=5)
        # By `id`: a function or class; its pickle, or None if it is importable; then its package.
        self.definitions = {}

    def dumps(self, value):
        """The pickle, and the packages that it names."""
        self.packages = set()
        self.buffer.seek(0)
        self.buffer.truncate()
        self.clear_memo()
        try:
            self.dump(value)
        except Exception:
            return dumps(value), self.packages
        return self.buffer.getvalue(), self.packages

    def reducer_override(self, value):
        if type(value) is Reduced:
            return value.function, value.args
        if type(value) is TaskRef:
            return TaskRef, (value.key,)
        if type(value) is Task and not value.kwargs:
            return Task, (value.key, value.func, *value.args)
        if isinstance(value, (types.FunctionType, type)):
            pickled, package = self.definition(value)
            if package:
                self.packages.add(package)
            return NotImplemented if pickled is None else (pickle.loads, (pickled,))
        return NotImplemented

    def definition(self, value):
        """The pickle of a function or class, None if it is importable; and the package it is from."""
        if id(value) not in self.definitions:
            pickled = None if is_importable(value) else cloudpickle.dumps(value, protocol=5)
            # A function that a module's function has made goes by value, and what it uses is from that module.
            package = package_of(value.__module__) if is_module_elsewhere(value.__module__) else None
            # With the value itself, so that its id stays its own.
            self.definitions[id(value)] = value, pickled, package
        return self.definitions[id(value)][1:]


def is_importable(definition):
    """Whether other processes find this function or class under its name."""
    if not is_module_elsewhere(definition.__module__):
        return False
    module = sys.modules[definition.__module__]
    try:
        return operator.attrgetter(definition.__qualname__)(module) is definition
    except AttributeError:
        return module.__name__ == "builtins"  # `type(None)` and its like, which pickle knows


def is_module_elsewhere(name):
    """Whether other processes may have this module, which those of a source or of this file are not."""
    return name in sys.modules and name not in ("__main__", *cloudpickle.list_registry_pickle_by_value())


class Reduced:
    """Pickles as a call."""

    __slots__ = ("function", "args")

    def __init__(self, function, *args):
        self.function, self.args = function, args

    def __reduce__(self):
        return self.function, self.args
