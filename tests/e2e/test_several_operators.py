"""Two operators: whatever happens to the one that serves a namespace, the other goes on with it, and nothing is computed again."""

import contextlib
import os
import re
import signal
import time
from pathlib import Path

import pytest
from kubectl import await_condition
from objects import noted, workers

def holder(story):
    """The pod that has the namespace's Lease, and by which epoch."""
    lease = story.kubectl.find("lease", "mainstay-scheduler")
    identity = lease and lease["spec"].get("holderIdentity")
    return identity and (identity.rsplit("_", 1)[0], int(lease["metadata"]["annotations"]["mainstay.dev/epoch"]))


def process_of(pod):
    """The operator's process in a pod, seen from this node."""
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            is_operator = (folder / "cmdline").read_bytes().split(b"\0")[1:2] == [b"operator"]
            if is_operator and f"POD_NAME={pod}".encode() in (folder / "environ").read_bytes().split(b"\0"):
                return int(folder.name)
    raise AssertionError(f"{pod} has no process here")


@pytest.mark.skipif("MAINSTAY_TEST_KUBECONFIG" in os.environ, reason="the processes of that cluster are elsewhere")
def test_a_namespace_is_handed_over_and_taken_over(with_temp_namespace, operator):
    story = with_temp_namespace
    operator.scale(2)
    story.apply(workers("workers", replicas=2, keeper=True), noted(count=1200, seconds=0.2))
    pods = story.await_pods("workers", 2)

    def check(happening, what, seconds):
        """Has another epoch begin, in time, and then tasks be told to workers by it."""
        before, begun = holder(story), time.monotonic()
        happening(before[0])
        after = await_condition(f"another holder after {what}", lambda: (now := holder(story)) and now[1] > before[1] and now, 30)
        taken = time.monotonic() - begun
        assert taken < seconds, f"{what}: {taken:.1f} s"
        works = re.compile(f'mainstay_tasks{{namespace="{story.kubectl.namespace}",state="processing"}} [1-9]')
        await_condition(f"work after {what}", lambda: works.search(operator.metrics(after[0])), 30)

    await_condition("the first parts", lambda: len(story.noted_parts(pods)) > 40)
    # kubectl takes a second or two of it.
    check(lambda pod: operator.kubectl("delete", "pod", pod, "--wait=false"), "its end", 5)
    operator.await_pods(2)
    # Its container is started again.
    check(lambda pod: os.kill(process_of(pod), signal.SIGKILL), "a crash of the process", 20)
    stopped = process_of(holder(story)[0])
    try:
        check(lambda pod: os.kill(stopped, signal.SIGSTOP), "a stop", 20)
        await_condition("workers with the other", lambda: len(story.noted_parts(pods)) > 400, 60)
    finally:
        os.kill(stopped, signal.SIGCONT)
    story.await_ready("noted", 180)
    assert story.run_client("answer = client.get_dataset('noted/total').compute()") == sum(range(1200))
    assert story.noted_parts(pods) == list(range(1200))
    assert story.container_restarts(pods) == [0, 0]
    operator.scale(1)
