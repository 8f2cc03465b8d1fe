"""Where tasks run, and in which order."""

from kubectl import await_condition
from objects import collection, workers

# Each task tells where and when it ran.
TRACES = """\
import os, time
import dask.bag as db

def trace(number):
    begun = time.time()
    time.sleep(params["seconds"])
    return os.environ["POD_NAME"], begun, time.time()

traces = db.range(params["tasks"], npartitions=params["tasks"]).map(trace)
"""
# Holds what it runs on until somebody makes the file.
GATE = """\
import os, time
from dask import delayed

def hold():
    while not os.path.exists("/tmp/open"):
        time.sleep(0.05)

gate = delayed(hold)(dask_key_name="gate")
"""
READ = "answer = {name: client.get_dataset(name).compute() for name in %r}"


def most_at_once(traces):
    """The most tasks that ran at the same time."""
    changes = sorted([(begun, 1) for _, begun, _ in traces] + [(ended, -1) for _, _, ended in traces])
    return max(sum(change for _, change in changes[:count]) for count in range(1, len(changes) + 1))


def test_tasks_run_where_and_when_they_may(with_temp_namespace):
    story = with_temp_namespace
    fast = {"tasks": 12, "seconds": 0.05}
    story.apply(
        workers("nvme", nthreads=4, labels={"disk": "nvme"}, flags=["--resources", "IO=2 SLOT=1"]),
        workers("plain"),
        workers("gpu", replicas=0, annotations={"mainstay.dev/resources": "GPU=1"}),
        collection("labelled", TRACES, ["traces"], parameters=fast, workers={"matchLabels": {"disk": "nvme"}}),
        collection("not-nvme", TRACES, ["traces"], parameters=fast,
                   workers={"matchExpressions": [{"key": "disk", "operator": "DoesNotExist"}]}),
        collection("two-at-once", TRACES, ["traces"], parameters={"tasks": 8, "seconds": 0.2}, resources={"IO": 1}),
        collection("no-such-label", TRACES, ["traces"], parameters=fast, workers={"matchLabels": {"disk": "tape"}}),
        collection("prefers", TRACES, ["traces"], parameters=fast, workers={"matchLabels": {"disk": "tape"}},
                   allowOtherWorkers=True),
        collection("needs-gpu", TRACES, ["traces"], parameters=fast, resources={"GPU": 1}),
        collection("needs-more-io", TRACES, ["traces"], parameters=fast, resources={"IO": 3}),
    )
    (nvme,), (plain,) = story.await_pods("nvme"), story.await_pods("plain")
    placed = ["labelled", "not-nvme", "two-at-once", "prefers"]
    for name in placed:
        story.await_ready(name)
    traces = story.run_client(READ % placed)
    assert {pod for pod, _, _ in traces["labelled"]} == {nvme}
    assert {pod for pod, _, _ in traces["not-nvme"]} == {plain}
    assert {pod for pod, _, _ in traces["two-at-once"]} == {nvme}
    assert most_at_once(traces["two-at-once"]) == 2
    assert {pod for pod, _, _ in traces["prefers"]} <= {nvme, plain}

    # What no worker may take says why, and goes on when one comes.
    message = story.await_reason("no-such-label", "NoMatchingWorker", "WorkersAvailable")
    assert message == "the selector disk=tape matches no pod; 2 workers run, none of them has it"
    assert story.condition("no-such-label", "Ready")[:2] == ("False", "NoMatchingWorker")
    story.await_event("no-such-label", "Warning", "NoMatchingWorker")
    message = story.await_reason("needs-gpu", "InsufficientResources", "WorkersAvailable")
    assert "resource GPU: 1" in message and "no worker declares any" in message
    story.await_event("needs-gpu", "Warning", "InsufficientResources")
    message = story.await_reason("needs-more-io", "InsufficientResources", "WorkersAvailable")
    assert "resource IO: 3" in message and f"nearest is {nvme} with IO: 2" in message

    story.kubectl("label", "pod", plain, "disk=tape")
    story.kubectl("scale", "deployment/gpu", "--replicas=1")
    story.patch("needs-more-io", resources={"IO": 2})
    for name in ("no-such-label", "needs-gpu", "needs-more-io"):
        story.await_ready(name)
    assert story.condition("needs-gpu", "WorkersAvailable")[0] == "True"
    (gpu,) = story.await_pods("gpu")
    traces = story.run_client(READ % ["no-such-label", "needs-gpu", "needs-more-io"])
    assert {pod for pod, _, _ in traces["no-such-label"]} == {plain}
    assert {pod for pod, _, _ in traces["needs-gpu"]} == {gpu}
    assert most_at_once(traces["needs-gpu"]) == most_at_once(traces["needs-more-io"]) == 1

    # Of two that wait for the same slot, the one of higher priority goes first, though it came last.
    slot = {"resources": {"SLOT": 1}, "fifoTimeout": "0s"}
    story.apply(collection("gate", GATE, ["gate"], **slot))
    await_condition("the gate to hold the slot", lambda: story.status("gate").get("tasks", {}).get("processing"))
    for name, priority in [("low", -1), ("normal", 0), ("high", 0.5)]:
        story.apply(collection(name, TRACES, ["traces"], parameters={"tasks": 3, "seconds": 0}, priority=priority, **slot))
        story.await_reason(name, "GraphAccepted", "GraphAccepted")
    story.kubectl("exec", nvme, "--", "touch", "/tmp/open")
    for name in ("low", "normal", "high"):
        story.await_ready(name)
    traces = story.run_client(READ % ["low", "normal", "high"])
    order = sorted((begun, name) for name in traces for _, begun, _ in traces[name])
    assert [name for _, name in order] == ["high"] * 3 + ["normal"] * 3 + ["low"] * 3
