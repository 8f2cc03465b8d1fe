"""Plays the same events to the model of a worker and to the stock worker's own state machine: both must say the same.

`SEQUENCES` names the file that the simulation wrote: a line of JSON for each sequence, with what the model answered. Where the
stock worker follows the order of a set, which is any, sets here are walked in the order of keys, as the model does.
"""

import heapq
import json
import os

import distributed.worker_state_machine as machine
import pytest
from distributed.collections import HeapSet
from distributed.worker_state_machine import TaskState, WorkerState

ADDRESS = "tcp://here:1"
ID = "test"


class Ordered(set):
    """A set of keys, or of tasks, in the order of keys."""

    def __iter__(self):
        return iter(sorted(super().__iter__(), key=lambda each: getattr(each, "key", each)))


class OrderedTask(TaskState):
    __slots__ = ()

    def __post_init__(self):
        super().__post_init__()
        for name in ("dependencies", "dependents", "waiting_for_data", "waiters"):
            setattr(self, name, Ordered())


class OneHeap(HeapSet):
    """A heap where a task that is put in again has one place. In the stock one its former place may count: that is an
    accident which shows only in the order in which a worker starts what it has, and the model leaves it out."""

    __slots__ = ()

    def add(self, value):
        if value not in self._data:
            self._heap = [entry for entry in self._heap if entry[2]() is not value]
            heapq.heapify(self._heap)
        super().add(value)


class NoDice:
    def random(self):
        return 0.0


@pytest.fixture(autouse=True)
def ordered_tasks_of_eight_bytes(monkeypatch):
    monkeypatch.setattr(machine, "TaskState", OrderedTask)
    monkeypatch.setattr(machine, "HeapSet", OneHeap)
    monkeypatch.setattr(machine, "sizeof", lambda value: 8)


def sequences():
    with open(os.environ["SEQUENCES"]) as file:
        yield from map(json.loads, file)


def new_state(nthreads):
    state = WorkerState(nthreads=nthreads, address=ADDRESS, resources={"GPU": 2.0}, validate=False)
    state.rng = NoDice()
    return state


def who_has(inputs):
    return {key: holders for key, _, holders in inputs}


def nbytes(inputs):
    return {key: size for key, size, _ in inputs}


def event(described):
    op, key = described["op"], described.get("key")
    if op == "compute-task":
        inputs = described["inputs"]
        return machine.ComputeTaskEvent.dummy(
            key,
            run_id=described["run_id"],
            who_has=who_has(inputs),
            nbytes=nbytes(inputs),
            priority=tuple(described["priority"]),
            resource_restrictions=described["resources"],
            stimulus_id=ID,
        )
    if op == "acquire-replicas":
        inputs = described["inputs"]
        return machine.AcquireReplicasEvent(who_has=who_has(inputs), nbytes=nbytes(inputs), stimulus_id=ID)
    if op == "gathered":
        data = dict.fromkeys(described["keys"], 1)
        return machine.GatherDepSuccessEvent(worker=described["worker"], total_nbytes=0, data=data, stimulus_id=ID)
    if op == "executed":
        return machine.ExecuteSuccessEvent.dummy(
            key, 1, run_id=described["run_id"], nbytes=described["nbytes"], stimulus_id=ID
        )
    if op == "execution-failed":
        failure = machine.ExecuteFailureEvent.dummy(key, run_id=described["run_id"], stimulus_id=ID)
        failure.exception_text = described["text"]
        return failure
    return {
        "free-keys": lambda: machine.FreeKeysEvent(keys=described["keys"], stimulus_id=ID),
        "remove-replicas": lambda: machine.RemoveReplicasEvent(keys=described["keys"], stimulus_id=ID),
        "steal-request": lambda: machine.StealRequestEvent(key=key, stimulus_id=described["stimulus_id"]),
        "refresh-who-has": lambda: machine.RefreshWhoHasEvent(who_has=described["who_has"], stimulus_id=ID),
        "remove-worker": lambda: machine.RemoveWorkerEvent(worker=described["worker"], stimulus_id=ID),
        "pause": lambda: machine.PauseEvent(stimulus_id=ID),
        "unpause": lambda: machine.UnpauseEvent(stimulus_id=ID),
        "retry-busy-worker": lambda: machine.RetryBusyWorkerEvent(worker=described["worker"], stimulus_id=ID),
        "find-missing": lambda: machine.FindMissingEvent(stimulus_id=ID),
        "gather-busy": lambda: machine.GatherDepBusyEvent(worker=described["worker"], total_nbytes=0, stimulus_id=ID),
        "gather-failed": lambda: machine.GatherDepNetworkFailureEvent(
            worker=described["worker"], total_nbytes=0, stimulus_id=ID
        ),
        "rescheduled": lambda: machine.RescheduleEvent(key=key, stimulus_id=ID),
        "seceded": lambda: machine.SecedeEvent(key=key, compute_duration=1.0, stimulus_id=ID),
    }[op]()


def answer(instruction):
    describe = {
        machine.Execute: lambda: ["execute", instruction.key],
        machine.GatherDep: lambda: ["gather", instruction.worker, sorted(instruction.to_gather)],
        machine.RetryBusyWorkerLater: lambda: ["retry-later", instruction.worker],
        machine.TaskFinishedMsg: lambda: ["task-finished", instruction.key, instruction.run_id, instruction.nbytes],
        machine.TaskErredMsg: lambda: ["task-erred", instruction.key, instruction.run_id, instruction.exception_text],
        machine.RescheduleMsg: lambda: ["reschedule", instruction.key],
        machine.LongRunningMsg: lambda: [
            "long-running",
            instruction.key,
            instruction.run_id,
            instruction.compute_duration,
        ],
        machine.ReleaseWorkerDataMsg: lambda: ["release-worker-data", instruction.key],
        machine.AddKeysMsg: lambda: ["add-keys", sorted(instruction.keys)],
        machine.RequestRefreshWhoHasMsg: lambda: ["request-refresh-who-has", sorted(instruction.keys)],
        machine.StealResponseMsg: lambda: [
            "steal-response",
            instruction.key,
            instruction.state,
            instruction.stimulus_id,
        ],
    }
    return describe[type(instruction)]()


def shown(task):
    return f"{task.state}(flight)" if task.previous == "flight" else task.state


def play(state, described):
    """What the stock worker does about an event; nothing when it exits of it."""
    try:
        answers = [answer(instruction) for instruction in state.handle_stimulus(event(described))]
    except (AssertionError, RuntimeError, machine.InvalidTransition):
        return None
    state.in_flight_workers = {worker: Ordered(keys) for worker, keys in state.in_flight_workers.items()}
    return answers


def test_the_model_says_what_the_stock_worker_says():
    compared = 0
    for sequence in sequences():
        state = new_state(sequence["nthreads"])
        for number, step in enumerate(sequence["events"]):
            where = f"sequence {sequence['seed']}, event {number}: {step['event']}"
            answers = play(state, step["event"])
            assert answers == step["answers"], where
            compared += 1
            if answers is None:
                break
            states = {key: shown(task) for key, task in sorted(state.tasks.items())}
            assert states == step["states"], where
    assert compared > 0
    print(f"{compared} events")
