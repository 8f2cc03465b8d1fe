"""Where Mainstay means to differ from the stock scheduler: docs/differences.md says why.

Here both answers are given, so that a difference that goes away, or becomes another, is noticed.
"""

import contextlib
import json
import sys

import dask.array as da
import pytest
from dask.delayed import delayed
from differential_tasks import fail, hold, where
from harness import Mainstay, await_condition
from pair import WORKERS, Side, at_once


@pytest.fixture
def each(sides):
    """What a function sees of the stock scheduler, and of Mainstay."""
    return lambda function: at_once(sides, function)


def place(label, index=0):
    return delayed(where)(label, dask_key_name=f"{label}-{index}")


def test_what_waits_for_a_restricted_worker_waits_in_the_scheduler(each, label):
    gate = f"{label}-gate"
    tasks = [delayed(hold)(label, gate, dask_key_name=f"{label}-{index}") for index in range(6)]

    def run(side):
        kept = side.client.persist(tasks, workers="bob")
        side.await_count(label, 1)
        states = side.await_states(kept, "processing", "queued")
        side.open(gate)
        side.wait(kept)
        return {state: states.count(state) for state in sorted(states)}

    assert each(run) == [{"processing": 6}, {"processing": 2, "queued": 4}]


def test_what_waits_for_resources_waits_in_the_scheduler(each, label):
    gate = f"{label}-gate"
    tasks = [delayed(hold)(label, gate, dask_key_name=f"{label}-{index}") for index in range(4)]

    def run(side):
        kept = side.client.persist(tasks, resources={"GPU": 2})
        side.await_count(label, 1)
        states = side.await_states(kept, "processing", "queued")
        side.open(gate)
        side.wait(kept)
        return {state: states.count(state) for state in sorted(states)}

    assert each(run) == [{"processing": 4}, {"processing": 1, "queued": 3}]


def test_names_of_hosts_are_not_looked_up_in_addresses(each, label):
    def run(side):
        kept = side.client.persist(place(label), workers=side.addresses["bob"].replace("127.0.0.1", "localhost"))
        return side.await_states(kept, "memory", "no-worker")

    assert each(run) == [["memory"], ["no-worker"]]


@pytest.mark.parametrize("resources, stock, ours", [({"TAPE": 0.3000001}, "no-worker", "memory"), ({"FPGA": 0}, "no-worker", "memory")])
def test_small_amounts_of_resources(each, label, resources, stock, ours):
    def run(side):
        return side.await_states(side.client.persist(place(label), resources=resources), "memory", "no-worker")

    assert each(run) == [[stock], [ours]]


def test_negative_amounts_of_resources_are_refused(sides, label):
    """A stock worker has more of it while such a task runs."""
    _, ours = sides
    with ours.client.as_current():
        kept = ours.client.persist(place(label), resources={"GPU": -1})
        kind, message = ours.failure(kept)
        assert kind == "RuntimeError" and message.startswith("the annotation `resources` of"), message


def test_negative_retries_are_refused(each, label):
    def run(side):
        kept = side.client.persist(delayed(fail)(label, ValueError("no"), dask_key_name=label), retries=-1)
        return side.failure(kept)[0], side.count(label)

    assert each(run) == [("ValueError", 1), ("RuntimeError", 0)]


def test_other_workers_never_do_without_resources(sides, label):
    """A stock scheduler breaks: the task is `processing` for ever, on no worker."""
    _, ours = sides
    with ours.client.as_current():
        kept = ours.client.persist(place(label), workers="bob", allow_other_workers=True, resources={"FPGA": 1})
        assert ours.await_states(kept, "no-worker") == ["no-worker"]
        kept = ours.client.persist(place(label, 1), workers="bob", allow_other_workers=True, resources={"GPU": 1})
        assert ours.result(kept) == "alice"


def test_a_name_means_whoever_has_it_when_the_task_is_placed(own, label):
    both = own(first={}, second={})
    started, gate = f"{label}-started", f"{label}-gate"
    held = delayed(hold)(started, gate, dask_key_name=f"{label}-held")

    def run(side):
        holder = side.client.persist(held, workers="second")
        side.await_count(started, 1)
        waits = delayed(where)(label, holder, dask_key_name=f"{label}-waits")
        kept = side.client.persist(waits, workers="first")
        side.await_known(kept)
        side.processes["first"].kill()
        await_condition(lambda: "first" not in side.addresses, "it is gone")
        side.start_worker("first")
        side.await_workers("first")
        side.open(gate)
        return side.await_states(kept, "memory", "no-worker")

    assert at_once(both.sides, run) == [["no-worker"], ["memory"]]


def test_a_number_as_text_is_the_name_of_a_worker(own, label):
    both = own(**{"7": {}})

    def run(side):
        as_number = side.result(side.client.persist(place(label, 0), workers=[7]))
        return as_number, side.await_states(side.client.persist(place(label, 1), workers=["7"]), "memory", "no-worker")

    assert at_once(both.sides, run) == [("7", ["no-worker"]), ("7", ["memory"])]


# ---- manifests


def test_annotations_of_arrays_are_kept_in_manifests(each, own_manifest, label):
    source = """
import dask, dask.array as da
from differential_tasks import noting
with dask.annotate(workers="erin"):
    x = da.ones(6, chunks=2).map_blocks(noting, label=label, dtype=float) + 1
"""

    def run(side):
        variables = {"label": label}
        exec(source, variables)
        return side.result(side.client.persist(variables["x"], workers="bob")).sum(), side.ran_on(label)

    assert each(run)[0] == (12.0, ["bob"])
    ours = own_manifest(source, ["x"], workers={"names": ["bob"]})
    with ours.client.as_current():
        assert (ours.result(ours.client.get_dataset("case/x")).sum(), ours.ran_on(label)) == (12.0, ["erin"])


def test_a_graph_is_made_once_a_worker_matches(own_manifest):
    side = own_manifest("x = 1", ["x"], workers={"names": ["nobody"]}, built=False)
    side.scheduler.process.await_output(r"case: 0/0 waits for a worker: the selector name in \(nobody\) matches none")
    assert side.client.list_datasets() == ()


def test_options_reach_the_optimisation_in_manifests(each, own_manifest, label):
    def run(side):
        return side.result(side.client.persist(da.ones(2, chunks=1), harder=True)).tolist()

    assert each(run)[0] == [1.0, 1.0]
    side = own_manifest("import dask.array as da\nx = da.ones(2, chunks=1)", ["x"], optimizeOptions={"harder": True}, built=False)
    side.scheduler.process.await_output("no optimisation takes the option `harder`")


@pytest.fixture
def own_manifest(tmp_path, label):
    """Starts `mainstay local -f` with one collection, and workers bob and erin."""
    with contextlib.ExitStack() as stack:

        def start(source, collections, built=True, **fields):
            spec = {"source": {"python": f"label = params['label']\n{source}"}, "parameters": {"label": label}, "collections": collections, **fields}
            document = {"apiVersion": "mainstay.dev/v1alpha1", "kind": "PersistedCollection", "metadata": {"name": "case"}, "spec": spec}
            (tmp_path / "case.yaml").write_text(json.dumps(document))
            local = Mainstay(tmp_path, "-f", "case.yaml", "--workers", "0", "--python", sys.executable, stack=stack)
            side = Side("manifest", local)
            for name in ("bob", "erin"):
                side.start_worker(name, **WORKERS[name])
            side.await_workers("bob", "erin")
            await_condition(lambda: not built or side.client.list_datasets(), lambda: local.process.output)
            return side

        yield start
