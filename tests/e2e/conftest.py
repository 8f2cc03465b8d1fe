"""What the stories share: the cluster, the operator on it, and a namespace for each.

The cluster is that of the environment variable MAINSTAY_TEST_KUBECONFIG, or else this checkout's (`make cluster-up`). The
operator is installed there already: `make e2e` does so. Nothing here sleeps: `await_condition` has a deadline and a message.
"""

import os
import secrets
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from kubectl import ROOT, Kubectl, Refused  # noqa: E402
from operator_pod import Operator  # noqa: E402
from stories import Story  # noqa: E402

LABEL = "mainstay.dev/made-by=e2e"
# These go last: they change the installation, or look back at the others.
LAST = ["test_operator_restart", "test_several_operators", "test_named_namespaces", "test_afterwards"]


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: LAST.index(item.module.__name__) if item.module.__name__ in LAST else -1)


@pytest.fixture(scope="session")
def kubectl():
    kubeconfig = Path(os.environ.get("MAINSTAY_TEST_KUBECONFIG") or ROOT / ".cache" / "cluster" / "kubeconfig")
    if not kubeconfig.exists():
        pytest.exit(f"there is no cluster: {kubeconfig} does not exist; `make e2e` brings one up", 2)
    return Kubectl(kubeconfig)


@pytest.fixture(scope="session")
def operator(kubectl):
    operator = Operator(kubectl)
    operator.await_ready()
    return operator


@pytest.fixture
def with_temp_namespace(kubectl, operator, request):
    """A story in a namespace that goes with it. It is deleted without waiting; the last test sees whether it went."""
    words = request.node.name.removeprefix("test_").replace("_", "-")[:40].strip("-")
    name = f"e2e-{words}-{secrets.token_hex(2)}"
    kubectl("create", "namespace", name)
    kubectl("label", "namespace", name, LABEL)
    yield Story(kubectl.within(name))
    kubectl("delete", "namespace", name, "--wait=false")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Adds to a failure what a person would look at next."""
    report = yield
    if report.when == "call" and report.failed:
        story, operator = item.funcargs.get("with_temp_namespace"), item.funcargs.get("operator")
        if story:
            report.sections.append(("the namespace", look_around(story.kubectl)))
        if operator:
            report.sections.append(("the operator", look(operator.kubectl, "logs", "deployment/mainstay", "--tail=150")))
    return report


def look_around(kubectl):
    looks = [
        ("get", "pods,pcol,service,endpointslice", "--output=wide"),
        ("describe", "pcol"),
        ("get", "events", "--sort-by=.lastTimestamp"),
        ("logs", "--selector=mainstay.dev/role", "--tail=15", "--prefix", "--ignore-errors"),
    ]
    return "\n".join(look(kubectl, *words) for words in looks)


def look(kubectl, *words):
    try:
        return f"$ kubectl {' '.join(words)}\n{kubectl(*words)}"
    except Refused as refused:
        return str(refused)
