"""From the outside: a real API server, the operator, and what people see of it.

There is no node. Pods are objects that nobody starts, with the addresses of fake workers on loopback; the operator runs
beside them as it would in its pod.
"""

import concurrent.futures
import contextlib
import json
import subprocess
import time

from figures import factor, quantile, table
from kubernetes import MERGE, ApiServer, collection, collections, pod
from process import await_condition
from sides import BUILDER, MAINSTAY, REPOSITORY, Place, environment, free_port

TITLE = "From the outside"
# Where nobody empties a namespace, a name serves once.
NAMESPACE, WITHOUT_WORKERS, ELSEWHERE = (f"{name}-{int(time.time())}" for name in ("bench", "waiting", "elsewhere"))
WORKERS, THREADS = 200, 8
TASKS = 100
# Between a collection and the next; the status of the former is written meanwhile, or later.
PAUSE_SECONDS = 0.1
# About 400 bytes of status, for an object that nobody watches.
STATUS = {"phase": "Running", "progress": "50%", "conditions": [], "observedGeneration": 1}
FAILURE = {"exception": "x" * 200, "attempts": 1, "worker": "worker-0", "traceback": ""}
MANY = """
from dask._task_spec import Task
from dask.bag import Bag

count = params["count"]
numbers = Bag({("x", n): Task(("x", n), int) for n in range(count)}, "x", count)
"""


def counts(is_quick):
    if is_quick:
        return {"applied": 20, "kubectl": 3, "waiting": 500, "persisted": 100, "idle_seconds": 10, "tasks": 100_000}
    return {"applied": 200, "kubectl": 10, "waiting": 9_000, "persisted": 1_000, "idle_seconds": 60, "tasks": 1_000_000}


@contextlib.contextmanager
def api_server():
    """An API server that ends with the benchmark, unless it was there before."""
    command = [REPOSITORY / "dev/cluster", "--api"]
    was_up = subprocess.run([*command, "status"], capture_output=True).returncode == 0
    kubeconfig = subprocess.run([*command, "up"], stdout=subprocess.PIPE, text=True, check=True).stdout.strip()
    try:
        yield ApiServer(kubeconfig)
    finally:
        if not was_up:
            subprocess.run([*command, "down"], check=True)


def prepare(api):
    """The CRD, namespaces with nothing in them, and the workers' pods."""
    kubectl(api, "apply", "--server-side", "--force-conflicts", "-f", REPOSITORY / "crds")
    kubectl(api, "wait", "--for=condition=Established", "crd/persistedcollections.mainstay.dev")
    for namespace in (NAMESPACE, WITHOUT_WORKERS, ELSEWHERE):
        about = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}
        api.apply(f"/api/v1/namespaces/{namespace}", about)
    await_condition(lambda: served(api), "collections are served", 0.2)
    addresses = {BUILDER: "127.0.0.1", **{f"fake-{n}": f"127.0.{1 + n // 250}.{1 + n % 250}" for n in range(WORKERS)}}
    for name, address in addresses.items():
        path = f"/api/v1/namespaces/{NAMESPACE}/pods/{name}"
        api.apply(path, pod(name))
        status = {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]}
        api.request("PATCH", f"{path}/status", {"status": status}, MERGE)


def served(api):
    with contextlib.suppress(RuntimeError):
        return api.get(collections(NAMESPACE))


def kubectl(api, *words):
    command = [REPOSITORY / ".cache/bin/kubectl", "--kubeconfig", api.kubeconfig, *words]
    subprocess.run(command, check=True, capture_output=True)


class Operator(Place):
    """The operator with its workers, all of them idle."""

    def __init__(self, api, stack):
        super().__init__(stack)
        self.api = api
        http, first = free_port(), free_port()
        # An EndpointSlice may not point at loopback; nobody comes by this one.
        command = [
            MAINSTAY,
            "operator",
            "--namespaces",
            f"{NAMESPACE},{WITHOUT_WORKERS}",
            "--pod-ip",
            "10.255.255.254",
            "--plain-namespaces",
            "*",
            "--log-level",
            "info",
        ]
        command += ["--http-port", http, "--port-from", first]
        self.process = self.start(command, "operator", env={**environment(), "KUBECONFIG": api.kubeconfig})
        port = self.process.await_output(r"serving a namespace.*port=\D*(\d+)")[1]
        self.address = f"tcp://127.0.0.1:{port}"
        self.start_mb = self.process.memory() / 1e6

    def start_workers(self):
        self.builder = self.start_worker(self.address, BUILDER, "--host", "127.0.0.1")
        flags = ["--workers", WORKERS, "--threads", THREADS, "--bind", "127.0.1.1"]
        self.workers = self.start_fake("workers", self.address, *flags)
        self.process.await_idle()

    def status(self, name):
        status = self.api.get(f"{collections(NAMESPACE)}/{name}").get("status", {})
        assert status.get("phase") != "Failed", status
        return status


def inline(name, count):
    """So many tasks, of which one takes the results of the others."""
    tasks = [{"key": f"{name}-{n}", "call": "builtins:int"} for n in range(count - 1)]
    last = {"key": name, "call": "builtins:sum", "args": [[{"task": task["key"]} for task in tasks]]}
    return collection(name, {"tasks": [*tasks, last]})


def first_task(operator, apply, name, tasks):
    """How many seconds pass from a call that applies a collection to its first task on the wire."""
    operator.workers.counters()
    body, began, first, seen = inline(name, tasks), time.time(), 0, 0
    apply(body)

    def done():
        nonlocal first, seen
        counters = operator.workers.counters()
        first, seen = first or counters["first"], seen + counters["tasks"]
        return seen >= tasks

    await_condition(done, f"{name} has run", 0.02)
    return first - began


def latencies(api, operator, count, by_kubectl):
    """Milliseconds from an apply to the first task, and of status writes in between."""
    other = f"{collections(ELSEWHERE)}/other"
    api.apply(other, inline("other", 1))
    applied, patched = [], []

    def through_api(body):
        api.apply(f"{collections(NAMESPACE)}/{body['metadata']['name']}", body)

    def through_kubectl(body):
        path = operator.folder / "collection.json"
        path.write_text(json.dumps(body))
        kubectl(api, "apply", "--namespace", NAMESPACE, "-f", path)

    for number in range(3 + count):
        began = time.time()
        status = {**STATUS, "failures": [{**FAILURE, "key": f"{number}"}]}
        api.request("PATCH", f"{other}/status", {"status": status}, MERGE)
        patched.append((time.time() - began) * 1e3)
        applied.append(first_task(operator, through_api, f"applied-{number}", TASKS) * 1e3)
        time.sleep(PAUSE_SECONDS)
    commands = [first_task(operator, through_kubectl, f"kubectl-{number}", TASKS) * 1e3 for number in range(by_kubectl)]
    # The first ones import what the others find.
    return {"applied_ms": applied[3:], "patched_ms": patched[3:], "kubectl_ms": commands}


def idle(api, operator, waiting, persisted, seconds):
    """What the operator takes with collections that stay as they are: so many without workers, and so many computed."""
    figures = {"waiting": waiting, "persisted": persisted, "workers": WORKERS, "seconds": seconds}
    figures |= {"start_mb": operator.start_mb, "workers_mb": operator.process.memory() / 1e6}
    create(api, WITHOUT_WORKERS, waiting, "Pending")
    operator.process.await_idle()
    figures["waiting_mb"] = operator.process.memory() / 1e6
    began = time.time()
    create(api, NAMESPACE, persisted, "Persisted")
    figures["persisted_s"] = time.time() - began
    operator.process.await_idle()
    writes, cpu = api.status_writes(), operator.process.cpu()
    time.sleep(seconds)
    figures["share"] = (operator.process.cpu() - cpu) / seconds
    return {**figures, "writes": api.status_writes() - writes, "memory_mb": operator.process.memory() / 1e6}


def create(api, namespace, count, phase):
    """Applies so many collections, and waits until all have come that far."""
    missing = {f"idle-{number}" for number in range(count)}
    with concurrent.futures.ThreadPoolExecutor(16) as threads:
        list(threads.map(lambda name: api.apply(f"{collections(namespace)}/{name}", inline(name, 1)), missing))

    def have_come():
        items = api.get(collections(namespace))["items"]
        missing.difference_update(
            item["metadata"]["name"] for item in items if item.get("status", {}).get("phase") == phase
        )
        return not missing

    await_condition(have_come, f"{count:,} collections are {phase}", 2)


def status_of_many(api, operator, count):
    """How often the status is written while a large collection runs, and how large it gets."""
    name, sizes = "many", []
    # Objects are written once more when they come to rest.
    time.sleep(3)
    writes, began = api.status_writes(), time.time()
    source = {"python": MANY}
    body = collection(name, source, parameters={"count": count}, collections=["numbers"], optimizeGraph=False)
    api.apply(f"{collections(NAMESPACE)}/{name}", body)

    def persisted():
        status = operator.status(name)
        sizes.append(len(json.dumps(status, separators=(",", ":"))))
        return status.get("phase") == "Persisted"

    await_condition(persisted, f"{name} is persisted", 0.5)
    took = time.time() - began
    return {
        "tasks": count,
        "seconds": took,
        "writes": api.status_writes() - writes,
        "largest": max(sizes),
        "bytes": sizes[-1],
    }


def run(is_quick, say, wanted=""):
    how = counts(is_quick)
    results = {}
    with api_server() as api, contextlib.ExitStack() as stack:
        prepare(api)
        operator = Operator(api, stack)
        operator.start_workers()
        say("the API server and the operator are up")
        results["latency"] = latencies(api, operator, how["applied"], how["kubectl"])
        say(f"apply to first task: {quantile(results['latency']['applied_ms'], 0.5):.1f} ms")
        results["idle"] = idle(api, operator, how["waiting"], how["persisted"], how["idle_seconds"])
        say(
            f"idle, persisted in {results['idle']['persisted_s']:.0f} s: {results['idle']['memory_mb']:.0f} MB, {results['idle']['share']:.2%} of a core"
        )
        results["status"] = status_of_many(api, operator, how["tasks"])
        say(f"{results['status']['writes']:.0f} status writes in {results['status']['seconds']:.1f} s")
    return results


def show(results):
    latency, still, status = results["latency"], results["idle"], results["status"]
    rows = [
        [
            what,
            len(values),
            *(f"{quantile(values, share):.1f}" for share in (0.5, 0.99)),
            ratio(values, latency["patched_ms"]),
        ]
        for what, values in [
            ("a status write of 400 B (PATCH)", latency["patched_ms"]),
            (f"apply of {TASKS} inline tasks, warm workers → first task on the wire", latency["applied_ms"]),
            ("the same with the command `kubectl apply`, its own start included", latency["kubectl_ms"]),
        ]
    ]
    busy = f"status writes a second while {status['tasks']:,} tasks are built and run"
    more = [
        [f"operator's memory at its start, and with {still['workers']} workers", megabytes(still, "start", "workers")],
        [f"and with {still['waiting']:,} collections that have no workers", megabytes(still, "waiting")],
        [f"and with {still['persisted']:,} more that are persisted", megabytes(still, "memory")],
        ["its CPU then, while nothing happens", f"{still['share']:.2%} of a core"],
        [f"its status writes then, in {still['seconds']} s", f"{still['writes']:.0f}"],
        [f"from the first to the last of {still['persisted']:,} persisted", f"{still['persisted_s']:.0f} s"],
        [busy, f"{status['writes'] / status['seconds']:.2f} ({status['writes']:.0f} in {status['seconds']:.0f} s)"],
        ["the largest status of them", f"{status['largest']:,} B"],
    ]
    return f"{table(['what', 'times', 'p50 ms', 'p99 ms', 'p50 in PATCHes'], rows)}\n\n{table(['what', ''], more)}"


def megabytes(figures, *names):
    return ", ".join(f"{figures[f'{name}_mb']:.1f} MB" for name in names)


def ratio(values, unit):
    return factor(quantile(values, 0.5) / quantile(unit, 0.5))
