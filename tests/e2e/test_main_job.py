"""From `kubectl apply` to a number in a notebook, and back to free memory."""

from kubectl import ROOT, await_condition
from objects import SCHEDULER, workers

HOLDINGS = """
answer = {
    "datasets": sorted(client.list_datasets()),
    "who_has": {str(key): list(holders) for key, holders in client.who_has().items() if holders},
    "has_what": [list(map(str, keys)) for keys in client.has_what().values()],
    "data": list(client.run(lambda dask_worker: len(dask_worker.data)).values()),
}
"""


def test_flights_become_a_number(with_temp_namespace):
    story = with_temp_namespace
    story.apply_file(ROOT / "examples" / "workers.yaml")
    story.apply(workers("other"))
    story.apply_file(ROOT / "examples" / "flights.yaml")
    status = story.await_ready("flights", 180)

    columns, row = story.kubectl("get", "pcol").splitlines()
    assert columns.split() == ["NAME", "PHASE", "PROGRESS", "TASKS", "ERRED", "RETRIES", "SIZE", "AGE"]
    tasks = status["tasks"]["total"]
    assert row.split()[:6] == ["flights", "Persisted", "100%", str(tasks), "0", "0"]
    wide = story.kubectl("get", "pcol", "--output=wide").splitlines()[1]
    assert "True" in wide and "Persisted" in wide and "all 2 outputs are in memory" in wide

    assert status["phase"] == "Persisted" and status["progress"] == "100%"
    assert status["observedGeneration"] == story.show("flights")["metadata"]["generation"]
    assert tasks > 12 and status["tasks"]["erred"] == 0
    assert status["retries"] == {"limit": 2, "used": 0, "exhausted": 0, "workerLost": 0}
    assert status["priority"]["user"] == 10
    flights, delays = status["outputs"]
    assert (flights["name"], flights["type"], flights["keys"], flights["inMemory"]) == ("flights", "DataFrame", 12, 12)
    assert (delays["name"], delays["keys"]) == ("delays", delays["inMemory"])
    assert status["nbytes"] == flights["nbytes"] + delays["nbytes"] > 10_000_000
    assert {share["pod"] for share in status["workers"]} <= set(story.pods_of("workers"))
    assert status["workerCount"] == len(status["workers"]) > 0
    assert {condition["type"]: condition["status"] for condition in status["conditions"]} == {
        "Ready": "True", "Reconciling": "False", "Stalled": "False", "SourceResolved": "True", "GraphAccepted": "True",
        "WorkersAvailable": "True"}
    assert "2 outputs" in story.await_event("flights", "Normal", "Persisted")
    assert story.show("flights")["metadata"]["finalizers"] == ["mainstay.dev/release"]

    # The example's own reader, an unmodified Client, compares with what pandas makes of the same files.
    read = (ROOT / "examples" / "read.py").read_text()
    assert "pandas says the same" in story.run_python(read, SCHEDULER, "/data/flights")

    held = story.run_client(HOLDINGS)
    assert held["datasets"] == ["flights", "flights/delays", "flights/flights"]
    # Outputs alone stay; what was fetched for a computation may be there twice.
    assert len(held["who_has"]) == flights["keys"] + delays["keys"] <= sum(held["data"])

    story.delete("flights")
    assert story.kubectl.find("pcol", "flights") is None
    assert "free" in story.await_event("flights", "Normal", "Released")
    held = story.run_client(HOLDINGS)
    assert (held["datasets"], held["who_has"], [keys for keys in held["has_what"] if keys]) == ([], {}, [])
    await_condition("the workers to drop the data", lambda: sum(story.run_client(HOLDINGS)["data"]) == 0, 30)
