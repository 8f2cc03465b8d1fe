"""Who goes first, by the status alone: priority, generation, position, overrides."""

from kubectl import await_condition
from objects import collection, workers

# Says in a file of the one worker when it runs, and holds on until it may go.
NOTED = """\
import os, time
from dask import delayed

def note(name):
    with open("/tmp/order", "a") as order:
        order.write(name + "\\n")
    while not os.path.exists("/tmp/open"):
        time.sleep(0.05)
    return name

values = [delayed(note)(f"{params['name']}-{part}", dask_key_name=f"{params['name']}-{part}") for part in range(4)]
"""


def test_the_status_says_who_goes_first(with_temp_namespace):
    story = with_temp_namespace
    story.apply(workers("workers", nthreads=1))
    (pod,) = story.await_pods("workers")

    def noted(name, **fields):
        return collection(name, NOTED, ["values"], parameters={"name": name}, fifoTimeout="0s", **fields)

    def priority(name):
        return story.status(name).get("priority", {})

    def await_position(name, position):
        await_condition(f"{name} at position {position}", lambda: priority(name).get("position") == position)

    # It fills the worker; what comes after it waits.
    story.apply(noted("first"))
    await_condition("the first to run", lambda: story.status("first").get("tasks", {}).get("processing"))
    story.apply(noted("second"))
    await_position("first", 1)
    await_position("second", 2)
    # The worker gets at once what goes before all that it has not started.
    story.apply(noted("urgent", priority=0.5))
    await_condition("the urgent on the worker", lambda: story.status("urgent").get("tasks", {}).get("processing") == 4)
    assert priority("first")["generation"] < priority("second")["generation"] < priority("urgent")["generation"]
    assert story.status("second")["matchingWorkers"] == 1

    # A change counts at once; an override changes single tasks, and one that matches nothing is named.
    story.patch("second", priority=2, overrides=[{"keys": "second-3", "priority": -1}, {"keys": "secnod-*", "retries": 1}])
    await_position("second", 1)
    await_condition("the override to be named", lambda: "secnod-*" in story.condition("second", "GraphAccepted")[2])
    story.kubectl("exec", pod, "--", "touch", "/tmp/open")
    for name in ("first", "second", "urgent"):
        story.await_ready(name)
    assert "position" not in priority("second")
    order = story.kubectl("exec", pod, "--", "cat", "/tmp/order").split()
    # One of the first ran already, and the worker had been given another.
    assert order[0].startswith("first-") and len(order) == 12, order
    ranks = {key: position for position, key in enumerate(order)}
    second, urgent, first = ([ranks[f"{name}-{part}"] for part in range(4)] for name in ("second", "urgent", "first"))
    assert max(second[:3]) < min(urgent) and max(urgent) < max(first) < second[3], order
