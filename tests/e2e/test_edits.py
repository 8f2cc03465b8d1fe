"""Specs that change, and objects that come and go."""

from kubectl import await_condition
from objects import collection, workers

# Counts its runs in a file of the one worker.
COUNTED = """\
from dask import delayed

def count():
    with open("/tmp/{0}", "a") as runs:
        runs.write("x")
    return params["value"]

value = delayed(count)(dask_key_name=f"{0}-{{params['value']}}")
"""
BLOCKED = """\
import os, time
from dask import delayed

def hold(number):
    while not os.path.exists("/tmp/open"):
        time.sleep(0.05)
    return number

value = delayed(sum)([delayed(hold)(number) for number in range(6)])
"""


def test_edits_and_deletions_end_right(with_temp_namespace):
    story = with_temp_namespace
    story.apply(
        workers("workers"),
        collection("counted", COUNTED.format("counted"), ["value"], parameters={"value": 1}),
        collection("mended", COUNTED.format("mended") + "\nraise ValueError('not yet')\n", ["value"], parameters={"value": 2}),
        collection("replaced", COUNTED.format("replaced"), ["value"], parameters={"value": 3}),
    )
    (pod,) = story.await_pods("workers")

    def runs(name):
        return len(story.kubectl("exec", pod, "--", "cat", f"/tmp/{name}"))

    def values(*names):
        return story.run_client(f"answer = [client.get_dataset(name).compute() for name in {names!r}]")

    story.await_ready("counted")
    story.await_ready("replaced")
    story.await_reason("mended", "SourceRaised")

    # Under which conditions it runs is no reason to run it again; what it is made of is.
    uid = story.show("replaced")["metadata"]["uid"]
    story.patch("counted", priority=5, retries=3, resources={"IO": 0})
    story.patch("mended", source={"python": COUNTED.format("mended")})
    story.kubectl("delete", "pcol", "replaced", "--wait=false")
    await_condition("the new retries", lambda: story.status("counted")["retries"]["limit"] == 3)
    status = story.await_ready("counted")
    assert (status["observedGeneration"], status["priority"]["user"], status["retries"]["limit"]) == (2, 5, 3)
    assert runs("counted") == 1

    story.await_gone("pcol/replaced")
    story.apply(collection("replaced", COUNTED.format("replaced"), ["value"], parameters={"value": 30}))
    assert story.await_ready("mended")["observedGeneration"] == 2
    story.await_ready("replaced")
    assert story.show("replaced")["metadata"]["uid"] != uid
    assert runs("replaced") == 2
    assert values("counted", "mended", "replaced") == [1, 2, 30]

    story.patch("counted", parameters={"value": 10})
    await_condition("the new revision", lambda: story.status("counted")["observedGeneration"] == 3)
    story.await_ready("counted")
    assert values("counted") == [10]
    assert runs("counted") == 2

    # Deleted while it runs: it goes at once, and the worker is free for others when the tasks end.
    story.apply(collection("blocked", BLOCKED, ["value"]))
    await_condition("tasks that run", lambda: story.status("blocked").get("tasks", {}).get("processing"))
    story.delete("blocked")
    story.kubectl("exec", pod, "--", "touch", "/tmp/open")
    story.apply(collection("blocked", BLOCKED, ["value"]))
    story.await_ready("blocked")
    assert values("blocked") == [15]
    held = "answer = sorted(str(key) for key, holders in client.who_has().items() if holders)"
    assert len(story.run_client(held)) == 4
