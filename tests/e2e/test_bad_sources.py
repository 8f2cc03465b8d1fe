"""Sources and tasks that cannot work: each says so once, where the user looks, and then is quiet."""

from objects import collection, workers

NEEDS = "import dask\nfrom dask import delayed\n"
# Reason, what the message of GraphAccepted has, the source, the names.
BAD = {
    "syntax-error": ("SyntaxError", ["line 2"], "x = 1\ny = (3 +\n", ["x"]),
    "raises": ("SourceRaised", ["ValueError: no such year", "line 3"], "x = 1\n\nraise ValueError('no such year')\n", ["x"]),
    "exits": ("SourceRaised", ["SystemExit"], "import sys\nsys.exit(3)\n", ["x"]),
    "missing-name": ("NameNotDefined", ["`dayly`", "daily"], "daily = 1\n", ["dayly"]),
    "lock": ("NotSerializable", ["lock"], "import threading\nlock = threading.Lock()\n", ["lock"]),
    "missing-import": ("ImportFailed", ["acme_pipelines"], "import acme_pipelines\nx = 1\n", ["x"]),
    "missing-callable": ("ImportFailed", ["acme_pipelines"], {"entrypoint": {"callable": "acme_pipelines:build"}}, ["x"]),
    "cycle": ("InvalidSpec", ["circle", "a", "b"], {"tasks": [
        {"key": "a", "call": "operator:neg", "args": [{"task": "b"}]},
        {"key": "b", "call": "operator:neg", "args": [{"task": "a"}]}]}, ["a"]),
    "unknown-reference": ("InvalidSpec", ["takes the result of `b`"], {"tasks": [
        {"key": "a", "call": "operator:neg", "args": [{"task": "b"}]}]}, ["a"]),
    "unknown-output": ("InvalidSpec", ["`z` is no key of spec.source.tasks"], {"tasks": [
        {"key": "a", "call": "operator:neg", "args": [1]}]}, ["z"]),
    "keyword": ("InvalidSpec", ["`class` is a keyword of Python"], "x = 1", ["class"]),
}
# The last in a chain needs the first, which never works; beside it one that does.
FAILING = """\
from dask import delayed

def load(number):
    raise ValueError(f"bad row {number}")

bad = delayed(load)(7, dask_key_name="load-7")
after = delayed(abs)(bad, dask_key_name="after")
good = delayed(abs)(-3, dask_key_name="good")
"""
# Fails twice, then works; the count is on the disk of the one worker that may run it.
FLAKY = """\
from dask import delayed

def load():
    with open("/tmp/attempts", "a+") as attempts:
        attempts.write("x")
        attempts.seek(0)
        if len(attempts.read()) < 3:
            raise OSError("not yet")
    return 5

flaky = delayed(load)(dask_key_name="flaky")
"""
WRITES_A_COLLECTION_MAX = 12


def test_what_fails_says_why_and_is_quiet(with_temp_namespace, operator):
    story = with_temp_namespace
    restarts, writes = operator.restarts(), operator.status_writes()
    story.apply(workers("workers"))
    (pod,) = story.await_pods("workers")
    story.apply(
        *(collection(name, source, names) for name, (_, _, source, names) in BAD.items()),
        collection("failing", FAILING, ["after", "good"], retries=2),
        collection("flaky", FLAKY, ["flaky"], retries=2, workers={"names": [pod]}),
    )

    for name, (reason, words, _, _) in BAD.items():
        message = story.await_reason(name, reason, "GraphAccepted")
        assert all(word in message for word in words), f"{name}: {message}"
        assert story.condition(name, "Ready")[:2] == ("False", reason)
        assert story.condition(name, "Stalled")[:2] == ("True", reason)
        assert story.status(name)["phase"] == "Failed"
        assert story.await_event(name, "Warning", reason)
    settled = versions(story, BAD)

    # A task that always fails: what it raised, where, how often; what needs it is not run, what does not is.
    message = story.await_reason("failing", "TasksFailed")
    assert message == f"task load-7 failed after 3 attempts, last on {pod}: ValueError: bad row 7", message
    status = story.status("failing")
    (failure,) = status["failures"]
    assert (failure["key"], failure["attempts"], failure["worker"]) == ("load-7", 3, pod)
    assert failure["exception"] == "ValueError: bad row 7"
    assert "in load" in failure["traceback"] and "ValueError" in failure["traceback"]
    assert status["retries"] == {"limit": 2, "used": 2, "exhausted": 1, "workerLost": 0,
                                 "tasks": [{"key": "load-7", "failed": 3}]}
    assert status["tasks"]["erred"] == 2
    assert [output["inMemory"] for output in status["outputs"]] == [0, 1]
    story.await_event("failing", "Warning", "TasksFailed")

    status = story.await_ready("flaky")
    assert status["retries"] == {"limit": 2, "used": 2, "exhausted": 0, "workerLost": 0,
                                 "tasks": [{"key": "flaky", "failed": 2}]}
    assert status["failures"] == [] if "failures" in status else True
    script = """
error = None
try:
    client.get_dataset("failing/after").compute()
except ValueError as exception:
    error = str(exception)
answer = [error, client.get_dataset("flaky").compute(), client.get_dataset("failing/good").compute()]
"""
    assert story.run_client(script) == ["bad row 7", 5, 3]

    # Nobody wrote to those that were settled while all this went on.
    assert versions(story, BAD) == settled
    assert operator.restarts() == restarts
    written = operator.status_writes() - writes
    assert written <= WRITES_A_COLLECTION_MAX * (len(BAD) + 2), f"{written} writes"


def versions(story, names):
    """The resource versions of the collections."""
    versions = {item["metadata"]["name"]: item["metadata"]["resourceVersion"] for item in story.kubectl.items("pcol")}
    return {name: versions[name] for name in names}
