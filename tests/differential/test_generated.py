"""Random graphs of small tasks with random parameters, from fixed seeds.

Compared is what both schedulers promise: results, failures, how often each task ran that a good result needs, and that
it ran where it was allowed to. What nobody waits for any more after a failure may or may not have run.
"""

import contextlib
import random

import dask
import pytest
from dask.delayed import delayed
from differential_tasks import fail_first
from distributed import futures_of

# Which workers each restriction allows; None allows all.
WORKERS = {
    None: {"alice", "bob", "dora", "erin"},
    "bob": {"bob"},
    ("alice", "erin"): {"alice", "erin"},
    "127.0.0.2": {"erin"},
    ("nobody", "dora"): {"dora"},
}
RESOURCES = {
    None: {"alice", "bob", "dora", "erin"},
    ("GPU", 1): {"alice"},
    ("IO", 0.25): {"alice", "bob"},
    ("IO", 1): {"alice"},
    ("TAPE", 0.1): {"erin"},
}


class Graph:
    """Layers of tasks, each of which adds its value to the sum of some of the layers before."""

    def __init__(self, seed, label):
        self.random = random.Random(seed)
        self.label, self.tasks, self.allowed, self.failures, self.retries, self.needs = label, {}, {}, {}, {}, {}
        # What is said for the whole graph; single tasks may say otherwise.
        self.options = {"retries": self.random.choice([None, 1, 2]), "priority": self.random.choice([0, 3, -0.5])}
        self.options["fifo_timeout"] = self.random.choice(["60s", "0s", "100ms"])
        self.workers = self.random.choice([None, None, ("alice", "erin")])
        self.options["workers"] = list(self.workers) if self.workers else None
        layers = self.random.randint(2, 5)
        for layer in range(layers):
            for index in range(self.random.randint(1, 6)):
                self.add(f"{layer}-{index}", layer)
        self.outputs = self.random.sample(sorted(self.tasks), min(len(self.tasks), self.random.randint(1, 4)))

    def add(self, name, layer):
        earlier = [other for other in sorted(self.tasks) if int(other[0]) < layer]
        needs = self.random.sample(earlier, min(len(earlier), self.random.randint(0, 4)))
        own = {}
        workers, resources = self.workers, None
        if self.random.random() < 0.3:
            resources = self.random.choice(list(RESOURCES))
            fitting = [one for one in WORKERS if one and WORKERS[one] & RESOURCES[resources]]
            workers = self.random.choice(fitting)
            own["workers"] = [workers] if isinstance(workers, str) else list(workers)
            if resources:
                own["resources"] = dict([resources])
        if self.random.random() < 0.3:
            own["priority"] = self.random.choice([-2, 0.25, 7])
        retries = self.options["retries"] or 0
        if self.random.random() < 0.3:
            retries = own["retries"] = self.random.choice([0, 1, 3])
        self.allowed[name] = WORKERS[workers] & RESOURCES[resources]
        self.failures[name] = self.random.choice([0, 0, 0, 0, 0, 1, 2])
        self.retries[name], self.needs[name] = retries, needs
        annotated = dask.annotate(**own) if own else contextlib.nullcontext()
        with annotated:
            self.tasks[name] = delayed(fail_first)(
                self.label, self.failures[name], 1, *(self.tasks[need] for need in needs), dask_key_name=self.key(name)
            )

    def key(self, name):
        return f"{self.label}-{name}"

    def ancestors(self, name):
        return {name}.union(*(self.ancestors(need) for need in self.needs[name]))

    def fails(self, name):
        return any(self.failures[one] > self.retries[one] for one in self.ancestors(name))

    def value(self, name):
        return 1 + sum(self.value(need) for need in self.needs[name])


@pytest.mark.parametrize("seed", range(24))
def test_random_graphs(both, label, seed):
    graph = Graph(seed, label)
    outputs = [graph.tasks[name] for name in graph.outputs]

    def run(side):
        kept = side.client.persist(outputs, optimize_graph=False, **graph.options)
        side.wait(kept)
        states = dict(zip(graph.outputs, (future.status for future in futures_of(kept))))
        found = {name: side.outcome(one) for name, one in zip(graph.outputs, kept)}
        allowed = {graph.key(name): workers for name, workers in graph.allowed.items()}
        astray = [run for run in side.notes(label) if run[0] not in allowed[run[1]]]
        runs = side.runs(label)
        good = [name for name in graph.outputs if not graph.fails(name)]
        side.held(*(one for name, one in zip(graph.outputs, kept) if name in good))
        needed = {one for name in good for one in graph.ancestors(name)}
        at_most = all(runs.get(graph.key(name), 0) <= min(graph.failures[name], graph.retries[name]) + 1 for name in graph.tasks)
        # Which of several failures came first is nobody's promise.
        kinds = {name: one if isinstance(one, int) else one[0] for name, one in found.items()}
        return states, kinds, astray, {name: runs.get(graph.key(name)) for name in sorted(needed)}, at_most

    states, kinds, astray, runs, at_most = both(run)
    assert kinds == {name: "ValueError" if graph.fails(name) else graph.value(name) for name in graph.outputs}
    assert states == {name: "error" if graph.fails(name) else "finished" for name in graph.outputs}
    assert runs == {name: graph.failures[name] + 1 for name in runs} and astray == [] and at_most


def test_the_seeds_cover_what_there_is(label):
    graphs = [Graph(seed, label) for seed in range(24)]
    outputs = [(graph, name) for graph in graphs for name in graph.outputs]
    failed = [graph.fails(name) for graph, name in outputs]
    assert 5 < sum(failed) < len(failed) - 5
    assert sum(len(graph.tasks) for graph in graphs) > 200
    assert {len(allowed) for graph in graphs for allowed in graph.allowed.values()} >= {1, 2, 4}


@pytest.mark.parametrize("seed", range(4))
def test_random_graphs_together(both, label, seed):
    """Several at the same time, with other parameters for the keys that they share."""
    graph = Graph(100 + seed, label)
    generator = random.Random(seed)
    # All retries suffice, whoever comes first with a task.
    enough = {"retries": 2}
    parts = [generator.sample(sorted(graph.tasks), min(3, len(graph.tasks))) for _ in range(3)]
    undone = [name for name in graph.tasks if graph.fails(name) and graph.retries[name] < graph.failures[name]]

    def run(side):
        kept = []
        for number, part in enumerate(parts):
            options = {**enough, "priority": number - 1, "fifo_timeout": "0s"}
            kept.append(side.client.persist([graph.tasks[name] for name in part], optimize_graph=False, **options))
        for one in kept:
            side.wait(one)
        # What was let go of before another graph needed it runs again, so runs are not compared.
        found = [[side.outcome(one) for one in part] for part in kept]
        return [[one if isinstance(one, int) else one[0] for one in part] for part in found]

    found = both(run)
    assert undone or all(isinstance(one, int) for part in found for one in part)
