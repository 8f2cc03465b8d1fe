"""The operator's pod goes away and another comes: nobody has to do anything."""

from kubectl import await_condition
from objects import collection, noted, workers

SQUARES = "import dask.array as da\nsquares = da.arange(params['count'], chunks=10) ** 2\n"
# Fails every other time that it runs; the count is on the disk of its worker.
FLAKY = """\
from dask import delayed

def load():
    with open("/tmp/runs", "a+") as runs:
        runs.write("x")
        runs.seek(0)
        if len(runs.read()) % 2:
            raise OSError("not this time")
    return 5

flaky = delayed(load)(dask_key_name="flaky")
"""


def reads(name):
    return {name: {"persistedCollection": name, "output": name}}


def endpoint(story):
    """Where the Service of the namespace's scheduler leads."""
    slice_ = story.kubectl.find("endpointslice", "mainstay-scheduler")
    return slice_ and slice_["endpoints"][0]["addresses"][0]


def test_collections_come_back_after_the_operator(with_temp_namespace, operator):
    story = with_temp_namespace
    story.apply(
        workers("workers", replicas=2),
        collection("squares", SQUARES, ["squares"], parameters={"count": 100}),
        collection("gone", SQUARES, ["squares"], parameters={"count": 50}),
        collection("broken", "x = (", ["x"]),
        # A chain, the last first.
        collection("total", "total = doubled.sum()\n", ["total"], inputs=reads("doubled")),
        collection("doubled", "doubled = squares * 2\n", ["doubled"], inputs=reads("squares")),
    )
    pods = story.await_pods("workers", 2)
    story.apply(collection("flaky", FLAKY, ["flaky"], retries=5, workers={"names": [pods[0]]}))
    before = story.await_ready("flaky")
    story.await_ready("squares")
    story.await_ready("gone")
    story.await_ready("total")
    story.await_reason("broken", "SyntaxError")
    old = endpoint(story)
    assert old == operator.kubectl.json("get", "pod", operator.pod())["status"]["podIP"]

    def restart(pod):
        operator.kubectl("delete", "pod", pod, "--wait=false")
        # Deleted while nobody is there to free its memory: the next operator lets it go.
        story.kubectl("delete", "pcol", "gone", "--wait=false")
    operator.replace(restart)
    address = operator.kubectl.json("get", "pod", operator.pod())["status"]["podIP"]
    await_condition("the Service to lead to the other pod", lambda: endpoint(story) == address)

    story.await_gone("pcol/gone")
    status = await_condition(
        "the collection on the workers that came back",
        lambda: (status := story.status("squares"))["phase"] == "Persisted" and status["outputs"][0]["inMemory"] == 10 and status,
        120)
    assert {share["pod"] for share in status["workers"]} <= set(pods)
    story.await_ready("squares")
    total = "answer = int(client.get_dataset('squares').sum().compute())"
    assert story.run_client(total) == sum(number**2 for number in range(100))
    await_condition("the chain to be built", lambda: "total" in story.run_client("answer = list(client.list_datasets())"))
    assert story.run_client("answer = int(client.get_dataset('total').compute())") == 2 * sum(n**2 for n in range(100))
    assert story.await_ready("total")["observedGeneration"] == 1
    # What was counted before goes on, and so does the order.
    status = await_condition(
        "the flaky one once more",
        lambda: (status := story.status("flaky"))["phase"] == "Persisted" and status["retries"]["used"] != 1 and status, 60)
    assert (before["retries"]["used"], status["retries"]["used"]) == (1, 2)
    assert status["retries"]["tasks"] == [{"key": "flaky", "failed": 2}]
    assert status["priority"] == before["priority"]
    assert story.condition("broken", "Ready")[:2] == ("False", "SyntaxError")
    assert operator.restarts() == 0


def test_nothing_is_computed_again_where_workers_keep(with_temp_namespace, operator):
    story = with_temp_namespace
    story.apply(workers("workers", replicas=2, keeper=True), noted(count=400, seconds=0.05))
    pods = story.await_pods("workers", 2)

    await_condition("the first parts", lambda: len(story.noted_parts(pods)) > 40)
    # An upgrade, and what no pod is asked about: both in the middle of the work.
    operator.replace(lambda pod: operator.kubectl("delete", "pod", pod, "--wait=false"))
    await_condition("more parts", lambda: len(story.noted_parts(pods)) > 200)
    operator.replace(lambda pod: operator.kubectl("delete", "pod", pod, "--grace-period=0", "--force"))
    story.await_ready("noted")
    assert story.run_client("answer = client.get_dataset('noted/total').compute()") == sum(range(400))
    operator.restart()
    await_condition(
        "the collection with the next operator",
        lambda: story.run_client("answer = 'noted/total' in client.list_datasets()"))
    assert story.run_client("answer = client.get_dataset('noted/total').compute()") == sum(range(400))
    story.await_ready("noted")
    assert story.noted_parts(pods) == list(range(400))
    assert story.container_restarts(pods) == [0, 0]
