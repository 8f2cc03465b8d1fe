"""The operator's pod goes away and another comes: nobody has to do anything."""

from kubectl import await_condition
from objects import collection, workers

SQUARES = "import dask.array as da\nsquares = da.arange(params['count'], chunks=10) ** 2\n"


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
    )
    story.await_ready("squares")
    story.await_ready("gone")
    story.await_reason("broken", "SyntaxError")
    pods = story.await_pods("workers", 2)
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
    assert story.condition("broken", "Ready")[:2] == ("False", "SyntaxError")
    assert operator.restarts() == 0
