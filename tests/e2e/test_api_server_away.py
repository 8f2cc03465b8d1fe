"""The API server does not answer for a while: what is known is computed, and the status catches up."""

import contextlib
import os
import signal
import time

import pytest
from kubectl import ROOT, await_condition
from objects import collection, workers

pytestmark = pytest.mark.skipif("MAINSTAY_TEST_KUBECONFIG" in os.environ, reason="the API server of that cluster is not ours to stop")

PID = ROOT / ".cache" / "cluster" / "pids" / "api-server"
# More than a Lease of Kubernetes' own components lasts without renewal.
AWAY_SECONDS = 20
# 24 s of work for two threads.
PARTS = """\
import time
from dask import delayed

def part(index):
    time.sleep(0.1)
    return time.time()

parts = [delayed(part)(index) for index in range(480)]
"""


@contextlib.contextmanager
def stopped(pid):
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def test_work_goes_on_without_an_api_server(with_temp_namespace, operator):
    story = with_temp_namespace
    story.apply(workers("workers"), collection("parts", PARTS, ["parts"]))
    await_condition("the first parts", lambda: story.status("parts").get("tasks", {}).get("memory", 0) > 20)
    api_server = int(PID.read_text().split()[0])
    with stopped(api_server):
        away = time.time()
        time.sleep(AWAY_SECONDS)
        back = time.time()
    # Kubernetes' own components have to find their way back as well, so this is not about seconds.
    story.await_ready("parts", 60)
    ends = story.run_client("import dask; answer = sorted(dask.compute(client.get_dataset('parts'))[0])")
    meanwhile = [away, *(end for end in ends if away < end < back), back]
    longest = max(later - earlier for earlier, later in zip(meanwhile, meanwhile[1:], strict=False))
    assert len(ends) == 480 and longest < 2, longest
    # Each ran once: none has ended after all of them were there.
    assert ends == story.run_client("import dask; answer = sorted(dask.compute(client.get_dataset('parts'))[0])")
    assert operator.restarts() == 0
