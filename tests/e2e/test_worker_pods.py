"""Worker pods that die, do not start, or are not what Mainstay knows."""

from kubectl import await_condition
from objects import collection, config_map, pod, worker_pod, workers

# Eight blocks that wait for a file when they are computed, so that a loss can be looked at.
BLOCKS = """\
import os, time
import numpy as np
import dask.array as da

def block(block_info=None):
    while not os.path.exists("/tmp/open"):
        time.sleep(0.05)
    return np.full((10,), block_info[None]["chunk-location"][0])

blocks = da.map_blocks(block, chunks=((10,) * 8,), dtype=int)
"""
# Python runs it first: what asks for the release of distributed, as a worker does to register, is told another one.
OTHER_RELEASE = """\
import importlib.metadata as metadata
release = metadata.version
metadata.version = lambda package: "2025.1.0" if package == "distributed" else release(package)
"""


def test_what_a_dead_worker_held_is_computed_again(with_temp_namespace):
    story = with_temp_namespace
    story.apply(workers("workers", replicas=2, nthreads=1), collection("blocks", BLOCKS, ["blocks"]))
    pods = story.await_pods("workers", 2)
    for name in pods:
        story.kubectl("exec", name, "--", "touch", "/tmp/open")
    status = story.await_ready("blocks")
    assert {share["pod"] for share in status["workers"]} == set(pods)

    victim, survivor = pods
    story.kubectl("exec", survivor, "--", "rm", "/tmp/open")
    story.kubectl("delete", "pod", victim, "--grace-period=0", "--force")
    message = story.await_reason("blocks", "Recomputing")
    assert "lost outputs are computed again" in message
    status = story.status("blocks")
    assert status["phase"] == "Degraded"
    assert 0 < status["outputs"][0]["inMemory"] < 8
    story.await_event("blocks", "Warning", "Recomputing")

    for name in story.await_pods("workers", 2):
        story.kubectl("exec", name, "--", "touch", "/tmp/open")
    status = story.await_ready("blocks")
    assert status["phase"] == "Persisted" and status["outputs"][0]["inMemory"] == 8
    assert victim not in {share["pod"] for share in status["workers"]}
    total = "answer = int(client.get_dataset('blocks').sum().compute())"
    assert story.run_client(total) == 10 * sum(range(8))


def test_pods_that_become_no_worker_are_named(with_temp_namespace):
    story = with_temp_namespace
    no_image = worker_pod(image="mainstay.dev/no-such-worker:dev")
    no_image["spec"]["containers"][0]["imagePullPolicy"] = "Never"
    other = worker_pod()
    other["spec"]["volumes"].append({"name": "patch", "configMap": {"name": "other-release"}})
    container = other["spec"]["containers"][0]
    container["volumeMounts"].append({"name": "patch", "mountPath": "/patch"})
    container["env"].append({"name": "PYTHONPATH", "value": "/patch"})
    story.apply(
        collection("squares", "import dask.array as da\nsquares = da.arange(9, chunks=3) ** 2\n", ["squares"]),
        collection("nowhere", "x = 1", ["x"], workers={"names": ["no-image"]}),
        config_map("other-release", **{"sitecustomize.py": OTHER_RELEASE}),
    )
    message = story.await_reason("squares", "NoWorkers", "WorkersAvailable")
    assert "no worker runs in this namespace; start pods with `dask worker" in message
    assert story.condition("squares", "Ready")[:2] == ("False", "NoWorkers")

    story.apply(pod("no-image", no_image))
    message = story.await_reason("squares", "WorkerPodFailing", "WorkersAvailable")
    assert "worker pod no-image cannot pull its image: ErrImageNeverPull" in message
    assert "mainstay.dev/no-such-worker:dev" in message
    story.await_event("squares", "Warning", "WorkerPodFailing")

    # A worker of a release that nobody has tested is told so, and ends.
    story.apply(pod("other-release", other))

    def refusal():
        logs = [story.kubectl("logs", "other-release", *which) for which in ((), ("--previous",)) if has_run(story, which)]
        return next((line for log in logs for line in log.splitlines() if "2025.1.0" in line), None)
    line = await_condition("the refusal in the worker's log", refusal)
    assert "2025.1.0" in line and "2026.8.0" in line, line

    story.apply(workers("good"))
    story.await_ready("squares")
    assert "no-image cannot pull its image" in story.await_reason("nowhere", "WorkerPodFailing", "WorkersAvailable")


def has_run(story, which):
    """Whether the pod has logs: of its container, or of the container before that."""
    statuses = story.kubectl.json("get", "pod", "other-release")["status"].get("containerStatuses", [{}])
    return statuses[0].get("restartCount", 0) > 0 if which else "waiting" not in statuses[0].get("state", {"waiting": 1})
