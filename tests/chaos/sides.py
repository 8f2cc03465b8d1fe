"""The same job under the same loss, with Mainstay and with stock Dask.

A job is a graph whose tasks each leave a file where it ran, in a directory of the node, so that what ran twice shows.
Mainstay gets it as a `PersistedCollection`. Stock Dask gets it from a Client in a pod, which hands it in again whenever it is lost:
that is what a person would do there.
"""

import secrets
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "e2e"))

from kubectl import Refused, await_condition  # noqa: E402
from objects import client_pod, collection, worker_pod  # noqa: E402
from operator_pod import Operator  # noqa: E402
from stories import Story  # noqa: E402

TASKS = 400
TASK_SECONDS = 0.1
WORKERS = 3
THREADS = 2
# A round with this many seconds behind it is given up.
PATIENCE = 300
# Below the node's /tmp, where anybody may write.
NOTES = f"/notes/mainstay-chaos-{secrets.token_hex(3)}"

GRAPH = f"""\
import pathlib
import time
import uuid
from dask import delayed

def part(index, job):
    time.sleep({TASK_SECONDS})
    pathlib.Path("{NOTES}", job, f"{{index}}-{{uuid.uuid4().hex}}").touch()
    return index

def total(parts):
    return sum(parts)
"""
SOURCE = GRAPH + f"""
parts = [delayed(part)(index, params["job"], dask_key_name=("part-" + params["job"], index)) for index in range({TASKS})]
total = delayed(total)(parts, dask_key_name="total-" + params["job"])
"""
# Hands the job in until its result is there, and holds it until told to read it again.
NOTEBOOK = GRAPH + f"""
import sys
from distributed import Client

job, address = sys.argv[1:]
parts = [delayed(part)(index, job, dask_key_name=("part-" + job, index)) for index in range({TASKS})]
whole = delayed(total)(parts, dask_key_name="total-" + job)
handed_in = 0
while True:
    try:
        client = Client(address, timeout=30)
        handed_in += 1
        future = client.compute(whole)
        print("result", future.result(), handed_in, flush=True)
        break
    except Exception as error:
        print("lost", type(error).__name__, file=sys.stderr, flush=True)
        time.sleep(0.5)
sys.stdin.readline()
try:
    client.wait_for_workers({WORKERS}, timeout=60)
    print("held", future.result(timeout=60), flush=True)
except Exception as error:
    print("held", type(error).__name__, flush=True)
"""


def noting(pod):
    """The pod with the directory of the node in which tasks leave their files."""
    pod["spec"]["volumes"].append({"name": "notes", "hostPath": {"path": "/tmp", "type": "Directory"}})
    pod["spec"]["containers"][0]["volumeMounts"].append({"name": "notes", "mountPath": "/notes"})
    return pod


def deployment(name, replicas, template):
    template["metadata"]["labels"]["app"] = name
    return {
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": name}}, "template": template},
    }


class Side:
    """A namespace with workers, and a pod that sees their notes."""

    def __init__(self, kubectl):
        self.namespace = f"chaos-{self.name}-{secrets.token_hex(2)}"
        kubectl("create", "namespace", self.namespace)
        self.story = Story(kubectl.within(self.namespace))
        self.kubectl = self.story.kubectl
        self.story.apply(*self.objects(), noting(self.client_pod()))
        self.story.await_pods("workers", WORKERS)
        self.kubectl("wait", "pod/client", "--for=condition=Ready", "--timeout=60s")

    def close(self):
        self.in_client("rm", "-rf", NOTES)
        self.kubectl("delete", "namespace", self.namespace, "--wait=false")

    def in_client(self, *words):
        return self.kubectl("exec", "client", "--", *words)

    def prepare(self, job):
        """All is as in the beginning, and there is a place for notes."""
        self.story.await_pods("workers", WORKERS)
        self.in_client("mkdir", "-p", f"{NOTES}/{job}")

    def runs(self, job):
        """How often each part was run."""
        counts = [0] * TASKS
        for note in self.in_client("ls", f"{NOTES}/{job}").split():
            counts[int(note.partition("-")[0])] += 1
        return counts

    def kill_worker(self, which):
        pods = self.story.pods_of("workers")
        if pods:
            self.kill(pods[which % len(pods)])

    def kill(self, pod, kubectl=None):
        """SIGKILL, and nobody is asked."""
        try:
            (kubectl or self.kubectl)("delete", "pod", pod, "--grace-period=0", "--force", "--wait=false")
        except Refused as refused:
            # It is being replaced already.
            if "NotFound" not in str(refused):
                raise


class Mainstay(Side):
    name = "mainstay"
    title = "Mainstay"

    def __init__(self, kubectl):
        self.operator = Operator(kubectl)
        self.operator.await_ready()
        super().__init__(kubectl)

    client_pod = staticmethod(client_pod)

    def objects(self):
        template = noting(worker_pod(flags=["--nthreads", str(THREADS)], keeper=True))
        return [deployment("workers", WORKERS, template)]

    def begin(self, job):
        self.story.apply(collection(job, SOURCE, ["total"], parameters={"job": job}))

    def kill_scheduler(self):
        pod = self.operator.pod()
        if pod:
            self.kill(pod, self.operator.kubectl)

    def await_result(self, job):
        """The result, and how often somebody had to hand the job in again."""
        self.story.await_ready(job, PATIENCE)
        return self.read(job), 0

    def read_held(self, job):
        """The result after the scheduler was killed while nothing ran, or None if it is gone."""
        await_condition("another pod of the operator", self.operator.pod, 60)
        return self.read(job)

    def read(self, job):
        return self.story.run_client(f"answer = client.get_dataset({job!r}).compute()")

    def end(self, job):
        self.story.delete(job)


class Stock(Side):
    name = "stock"
    title = "stock Dask"

    def client_pod(self):
        pod = client_pod()
        pod["spec"].update(volumes=[])
        pod["spec"]["containers"][0].update(env=[], volumeMounts=[])
        return pod

    def objects(self):
        def stock(pod, *command):
            pod["spec"]["volumes"] = []
            pod["spec"]["containers"][0].update(args=["dask", *command], env=pod["spec"]["containers"][0]["env"][:1], volumeMounts=[])
            pod["metadata"]["labels"] = {}
            return pod
        scheduler = stock(worker_pod(), "scheduler", "--no-dashboard")
        worker = stock(worker_pod(), "worker", "tcp://scheduler:8786", "--nthreads", str(THREADS), "--no-nanny", "--no-dashboard")
        service = {
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": "scheduler"},
            "spec": {"selector": {"app": "scheduler"}, "ports": [{"port": 8786}]},
        }
        return [service, deployment("scheduler", 1, scheduler), deployment("workers", WORKERS, noting(worker))]

    def begin(self, job):
        self.notebook = self.kubectl.start("exec", "-i", "client", "--", "python3", "-c", NOTEBOOK, job, "tcp://scheduler:8786")

    def kill_scheduler(self):
        for pod in self.story.pods_of("scheduler"):
            self.kill(pod)

    def await_result(self, job):
        word, value, handed_in = self.notebook.stdout.readline().split()
        assert word == "result", word
        return int(value), int(handed_in) - 1

    def read_held(self, job):
        self.story.await_pods("scheduler")
        self.notebook.stdin.write("\n")
        self.notebook.stdin.flush()
        _, _, value = self.notebook.stdout.readline().strip().partition(" ")
        return int(value) if value.isdigit() else None

    def end(self, job):
        self.notebook.stdin.close()
        self.notebook.wait(timeout=60)
