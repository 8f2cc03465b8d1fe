"""The objects that stories apply, as dicts."""

WORKER_IMAGE = "mainstay.dev/worker:dev"
SCHEDULER = "tls://mainstay-scheduler:8786"
TLS = [
    {"name": "DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION", "value": "true"},
    {"name": "DASK_DISTRIBUTED__COMM__TLS__CA_FILE", "value": "/tls/ca.crt"},
    *({"name": f"DASK_DISTRIBUTED__COMM__TLS__{role}__{kind}", "value": f"/tls/tls.{ending}"}
      for role in ("WORKER", "CLIENT") for kind, ending in (("CERT", "crt"), ("KEY", "key"))),
]
TLS_VOLUME = {"name": "tls", "secret": {"secretName": "mainstay-tls"}}
TLS_MOUNT = {"name": "tls", "mountPath": "/tls", "readOnly": True}
POD_NAME = {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}


def collection(name, source=None, collections=None, **spec):
    """A PersistedCollection. `source` is Python text, or the whole field as a dict."""
    source = {"python": source} if isinstance(source, str) else source
    names = {"collections": collections} if collections else {}
    return {
        "apiVersion": "mainstay.dev/v1alpha1",
        "kind": "PersistedCollection",
        "metadata": {"name": name},
        "spec": {"source": source, **names, **spec},
    }


NOTED = """\
import time
from dask import delayed

def part(index, seconds):
    with open("/tmp/parts", "a") as parts:
        print(index, file=parts)
    time.sleep(seconds)
    return index

parts = [delayed(part)(index, params["seconds"]) for index in range(params["count"])]
total = delayed(sum)(parts)
"""


def noted(count, seconds):
    """A collection whose parts each leave a line on the disk of their worker; its keys are others each time that its graph is made."""
    return collection("noted", NOTED, ["parts", "total"], parameters={"count": count, "seconds": seconds})


def worker_pod(labels=(), flags=(), annotations=(), image=WORKER_IMAGE, keeper=False, **pod):
    """The template of a pod that runs the stock `dask worker`, with the keeper or not. `pod` goes into its spec."""
    preload = [{"name": "DASK_DISTRIBUTED__WORKER__PRELOAD", "value": "/mainstay/keeper.py"}] if keeper else []
    mount = [{"name": "keeper", "mountPath": "/mainstay"}] if keeper else []
    volume = [{"name": "keeper", "configMap": {"name": "mainstay-keeper"}}] if keeper else []
    return {
        "metadata": {"labels": {"mainstay.dev/role": "worker", **dict(labels)}, "annotations": dict(annotations)},
        "spec": {
            "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": 2,
            "containers": [{
                "name": "worker",
                "image": image,
                "imagePullPolicy": "IfNotPresent",
                "args": ["dask", "worker", SCHEDULER, "--name", "$(POD_NAME)", "--no-nanny", "--no-dashboard", *flags],
                "env": [POD_NAME, *TLS, *preload],
                "volumeMounts": [TLS_MOUNT, *mount],
            }],
            "volumes": [TLS_VOLUME, *volume],
            **pod,
        },
    }


def workers(name="workers", replicas=1, nthreads=2, labels=(), flags=(), annotations=(), keeper=False):
    """A Deployment of stock workers."""
    labels = {"app": name, **dict(labels)}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": worker_pod(labels, ["--nthreads", str(nthreads), *flags], annotations, keeper=keeper),
        },
    }


def pod(name, template):
    """One pod of a template, that nothing replaces."""
    return {"apiVersion": "v1", "kind": "Pod", **template, "metadata": {**template["metadata"], "name": name}}


def client_pod():
    """A pod for Clients to run in, with `kubectl exec`."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "client"},
        "spec": {
            "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": 0,
            "containers": [{
                "name": "client", "image": WORKER_IMAGE, "imagePullPolicy": "IfNotPresent", "args": ["sleep", "infinity"],
                "env": TLS,
                "volumeMounts": [TLS_MOUNT],
            }],
            "volumes": [TLS_VOLUME],
        },
    }


def config_map(name, **data):
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


def secret(name, **data):
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": data}
