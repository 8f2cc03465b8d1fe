"""Worker pods that go, announced or not: what they held, and what is said of it."""

from kubectl import await_condition
from objects import collection, workers

# Values that are others each time that they are computed.
BLOCKS = """\
import os
import numpy as np
import dask.array as da

def block(block_info=None):
    return np.frombuffer(os.urandom(80), dtype="u8")

blocks = da.map_blocks(block, chunks=((10,) * 8,), dtype="u8")
"""
# Takes more memory than its container may have, the first time; what is in /scratch outlives the container.
HOG = """\
import os, dask

@dask.delayed
def hog():
    try:
        os.mkdir("/scratch/hogged")
    except FileExistsError:
        return "done"
    return len(bytearray(os.urandom(1024) * (2 << 20)))

hogged = hog()
"""
SUM = "answer = int(client.get_dataset('blocks').sum().compute() % 2**60)"


def patient_workers(replicas):
    """Workers whose pods have time to hand over what they hold."""
    deployment = workers("workers", replicas=replicas, nthreads=1)
    pod = deployment["spec"]["template"]["spec"]
    pod["terminationGracePeriodSeconds"] = 60
    pod["containers"][0]["lifecycle"] = {"preStop": {"exec": {"command": ["sleep", "50"]}}}
    return deployment


def persisted_blocks(story, replicas=2, **spec):
    """Blocks on several workers. Gives their pods, and the sum of the blocks."""
    story.apply(patient_workers(replicas), collection("blocks", BLOCKS, ["blocks"], **spec))
    pods = story.await_pods("workers", replicas)
    status = story.await_ready("blocks")
    assert status["outputs"][0]["inMemory"] == 8
    return pods, story.run_client(SUM)


def test_what_a_pod_holds_is_handed_over_before_it_is_deleted(with_temp_namespace):
    story = with_temp_namespace
    pods, total = persisted_blocks(story)
    victim = story.status("blocks")["workers"][0]["pod"]
    assert victim in pods
    # Its grace period is longer than this.
    story.kubectl("delete", "pod", victim, "--timeout=40s")
    assert story.status("blocks")["phase"] == "Persisted"
    assert story.run_client(SUM) == total, "nothing was computed again"
    assert not [event for event in story.events("blocks") if event[1] in ("Recomputing", "WorkerLost")]


def test_copies_outlive_a_pod_that_is_killed(with_temp_namespace):
    story = with_temp_namespace
    _, total = persisted_blocks(story, persistence={"replicas": 2})
    assert story.await_reason("blocks", "Replicated", "Replicated") == "every output key in memory is on 2 workers"
    victim = story.status("blocks")["workers"][0]["pod"]
    story.kubectl("delete", "pod", victim, "--grace-period=0", "--force")
    story.await_pods("workers", 2)

    def is_replicated():
        replicas, names = story.status("blocks")["replicas"], [share["pod"] for share in story.status("blocks")["workers"]]
        return replicas["short"] == 0 and victim not in names and len(names) == 2
    await_condition("copies on the pod that took its place", is_replicated)
    assert story.run_client(SUM) == total, "nothing was computed again"
    assert not [event for event in story.events("blocks") if event[1] == "Recomputing"]


def test_a_worker_that_is_killed_for_its_memory_is_named_with_the_reason(with_temp_namespace):
    story = with_temp_namespace
    deployment = workers("workers", nthreads=1, flags=["--memory-limit=0"])
    template = deployment["spec"]["template"]["spec"]
    template["volumes"].append({"name": "scratch", "emptyDir": {}})
    template["containers"][0]["volumeMounts"].append({"name": "scratch", "mountPath": "/scratch"})
    template["containers"][0]["resources"] = {"limits": {"memory": "512Mi"}}
    story.apply(deployment, collection("hog", HOG, ["hogged"]))
    [pod] = story.await_pods("workers")
    story.await_ready("hog")
    lost = await_condition("the reason", lambda: story.status("hog").get("lostWorkers"))
    assert [(one["pod"], one["reason"]) for one in lost] == [(pod, "OOMKilled")]
    assert "OOMKilled" in story.await_event("hog", "Warning", "WorkerLost")
    assert story.status("hog")["retries"]["workerLost"] == 1


def test_a_node_that_is_cordoned_is_emptied_only_where_others_stay(with_temp_namespace):
    story = with_temp_namespace
    _, total = persisted_blocks(story)
    [node] = {pod["spec"]["nodeName"] for pod in story.kubectl.items("pods", "--selector=app=workers")}
    story.kubectl("cordon", node)
    try:
        # It is the only node: its workers go on.
        story.apply(collection("more", "import dask\nmore = dask.delayed(sum)([1, 2])\n", ["more"]))
        story.await_ready("more")
        assert story.run_client(SUM) == total
    finally:
        story.kubectl("uncordon", node)
