"""Graphs of tasks that a manifest spells out."""

import graphlib
import hashlib
import pkgutil

import dask
import msgpack
from dask._task_spec import Alias, Task, parse_input
from dask.base import tokenize, unpack_collections

from .errors import Refused, close_to
from .graph import Graph, delayed
from .run_specs import call, package_of


def graph_of_tasks(tasks, label, names, inputs):
    """The graph of tasks that a manifest spells out; their functions are imported where and when they run."""
    graph = Graph()
    by_key = {}
    for task in tasks:
        if task["key"] in by_key:
            raise Refused("DuplicateKey", f"two tasks have the key `{task['key']}`")
        by_key[task["key"]] = task
    needs, used = {}, set()
    for key, task in by_key.items():
        needs[key] = set()
        find_references([task.get("args"), task.get("kwargs")], {"task": needs[key], "input": used})
    for key, needed in needs.items():
        for name in needed - set(by_key):
            raise Refused("UnknownReference", f"the task `{key}` needs `{name}`, which is no task")
    try:
        ordered = list(graphlib.TopologicalSorter(needs).static_order())
    except graphlib.CycleError as error:
        raise Refused("Cycle", "the tasks need each other: " + " -> ".join(reversed(error.args[1]))) from None
    for name in used ^ set(inputs):
        raise Refused(
            "UnknownReference", f"`{name}` is no input" if name in used else f"no task uses the input `{name}`"
        )
    gathered = {name: graph_input(graph, value) for name, value in inputs.items()}
    keys = {}
    for name in ordered:
        task = by_key[name]
        args, kwargs = link([task.get("args") or [], task.get("kwargs") or {}], keys, gathered)
        # A task keeps its key, and its result, until what it does or what it needs is written differently.
        key = keys[name] = f"{name}-{token([label, name, task['call'], args, kwargs])}"
        function = Task(None, pkgutil.resolve_name, task["call"])
        graph.raw[key] = call(key, function, *map(parse_input, args), **{k: parse_input(v) for k, v in kwargs.items()})
        graph.names[key] = name
        graph.packages[key] = package_of(task["call"].partition(":")[0])
        for field in ("retries", "priority", "workers", "resources"):
            if task.get(field) is not None:
                graph.annotate(field, {key: task[field]})
        if task.get("allowOtherWorkers") is not None:
            graph.annotate("allow_other_workers", {key: task["allowOtherWorkers"]})
        if task.get("actor"):
            graph.actors.add(key)
    needed = set().union(*needs.values()) if needs else set()
    for name in names or [task["key"] for task in tasks if task["key"] not in needed]:
        if name not in keys:
            raise Refused("NameNotDefined", f"`collections` names `{name}`, which is no task{close_to(name, keys)}")
        graph.outputs.append(
            (name, "Actor" if keys[name] in graph.actors else "Delayed", delayed(keys[name]), [keys[name]])
        )
    return graph


def find_references(value, found):
    """Collects by kind the names that `{kind: name}` refers to anywhere in a value."""
    if isinstance(value, dict):
        if len(value) == 1:
            [(kind, name)] = value.items()
            if kind in found:
                found[kind].add(name)
                return
        value = value.values()
    elif not isinstance(value, list):
        return
    for item in value:
        find_references(item, found)


def token(value):
    """A text that is another for another value: plain data with references in it, for which `tokenize` is slow."""
    packed = msgpack.packb(value, default=lambda alias: msgpack.ExtType(0, alias.target.encode()))
    return hashlib.md5(packed, usedforsecurity=False).hexdigest()


def link(value, tasks, inputs):
    """The value with references in place of `{task: name}` and `{input: name}`."""
    if isinstance(value, dict):
        if set(value) == {"task"}:
            return Alias(tasks[value["task"]])
        if set(value) == {"input"}:
            return Alias(inputs[value["input"]])
        return {name: link(item, tasks, inputs) for name, item in value.items()}
    if isinstance(value, list):
        return [link(item, tasks, inputs) for item in value]
    return value


def graph_input(graph, value):
    """The key under which another collection's whole output is there for a task."""
    # The same input has the same key each time that the graph is made, and so have the tasks that take it.
    name = f"input-{tokenize(value)}"
    if not dask.is_dask_collection(value):
        # Each collection by itself: `delayed` cannot take a container of dataframes apart.
        parts, repack = unpack_collections(value)
        [value] = repack([dask.delayed(part) for part in parts])
    value = dask.delayed(value, name=name)
    graph.raw.update(value.__dask_graph__())
    return value.key
