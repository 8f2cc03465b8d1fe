"""Collections that read one another, and follow."""

from kubectl import await_condition
from objects import collection, workers

BASE = "from dask import delayed\nvalue = delayed(int, pure=True)(params['value'])\n"
# Counts its runs in a file of the one worker.
READER = """\
from dask import delayed

def add(value):
    with open("/tmp/reader", "a") as runs:
        runs.write("x")
    return value + 1

more = delayed(add)(value)
"""
TOP = "most = more * 10\n"


def reads(name, output):
    return {output: {"persistedCollection": name, "output": output}}


def test_readers_follow_what_they_read(with_temp_namespace):
    story = with_temp_namespace
    # What reads comes first, and its input is broken when it comes.
    story.apply(
        workers("workers"),
        collection("top", TOP, ["most"], inputs=reads("reader", "more")),
        collection("reader", READER, ["more"], inputs=reads("base", "value")),
    )
    (pod,) = story.await_pods("workers")
    nobody = "base/value: there is no PersistedCollection `base`, or its own status says why it cannot be built"
    assert story.await_reason("reader", "WaitingForInput") == f"waits for the input {nobody}"
    assert story.condition("reader", "Stalled")[0] == "False"
    story.apply(collection("base", "value = (", ["value"], parameters={"value": 1}))
    for name, waits in (("reader", "base/value: "), ("top", "reader/more: its collection waits for the input base/value: ")):
        await_condition(f"{name} to stall", lambda name=name: story.condition(name, "Stalled")[0] == "True")
        _, reason, message = story.condition(name, "Ready")
        assert reason == "WaitingForInput"
        assert message.startswith(f"waits for the input {waits}its collection failed: SyntaxError in line 1")

    def runs():
        return len(story.kubectl("exec", pod, "--", "sh", "-c", "cat /tmp/reader 2> /dev/null || true"))

    def follows(count):
        await_condition(f"run {count} of the reader", lambda: runs() == count)
        await_condition("all of the chain", lambda: all(story.status(name)["phase"] == "Persisted" for name in ("reader", "top")))

    story.patch("base", source={"python": BASE})
    follows(1)
    generation = story.show("reader")["metadata"]["generation"]

    # Another value is another input; the same one is not, whatever the source says.
    story.patch("base", parameters={"value": 2})
    follows(2)
    story.patch("base", source={"python": f"# The same.\n{BASE}"})
    await_condition("the edit", lambda: story.status("base")["observedGeneration"] == story.show("base")["metadata"]["generation"])
    story.await_ready("base")
    assert story.status("reader")["observedGeneration"] == story.show("reader")["metadata"]["generation"] == generation

    # It goes: what was made of it stays.
    story.delete("base")
    message = story.await_reason("reader", "InputMissing", "GraphAccepted")
    assert message.endswith(f"it stays as it is while an input is missing: {nobody}")
    assert story.condition("reader", "Ready")[0] == "True"
    assert story.await_event("reader", "Warning", "InputMissing") == message

    # It comes back, and reads what reads it.
    story.apply(collection("base", BASE, ["value"], parameters={"value": 4}, inputs=reads("top", "most")))
    cycle = "inputs form a cycle: base → top → reader → base; take one of these inputs away"
    for name in ("base", "top", "reader"):
        assert story.await_reason(name, "InputCycle") == cycle
        assert story.condition(name, "Stalled") == ("True", "InputCycle", cycle)
    assert story.await_event("top", "Warning", "InputCycle") == cycle
    value = "answer = client.get_dataset('top').compute()"
    assert story.run_client(value) == 30
    story.patch("base", inputs=None)
    await_condition("the new value", lambda: story.run_client(value) == 50)
    follows(3)
    assert story.condition("top", "Stalled")[0] == "False"
