"""A release that serves named namespaces needs no right outside of them."""

from kubectl import await_condition
from objects import collection, workers

RIGHTS = ["--as=system:serviceaccount:mainstay-system:mainstay"]


def test_roles_suffice_for_named_namespaces(with_temp_namespace, kubectl, operator):
    story = with_temp_namespace
    namespace = story.kubectl.namespace
    operator.narrow(f'watch.namespaces=["{namespace}"]')
    try:
        cluster_roles = kubectl.items("clusterroles", "--selector=app.kubernetes.io/name=mainstay")
        assert cluster_roles == []
        assert "yes" in story.kubectl("auth", "can-i", "get", "secrets", *RIGHTS)
        story.apply(workers(), collection("squares", "import dask.array as da\nsquares = da.arange(9) ** 2\n", ["squares"]))
        story.await_ready("squares")
        assert story.run_client("answer = int(client.get_dataset('squares').sum().compute())") == 204
        story.delete("squares")
        assert "watching" not in str(operator.lines("WARN"))
    finally:
        operator.narrow("watch.namespaces=[]")
    await_condition("the ClusterRole", lambda: kubectl.items("clusterroles", "--selector=app.kubernetes.io/name=mainstay"))
