"""What someone with all rights in one namespace, or none at all, tries against the operator and against another namespace."""

import base64
import json
import secrets
from textwrap import dedent

import pytest
from kubectl import Refused, await_condition
from objects import POD_NAME, collection, pod, secret, worker_pod, workers

ACCOUNT = "--as=system:serviceaccount:mainstay-system:mainstay"
HELD = "from dask import delayed\nvalue = delayed(lambda: 'the truth')(dask_key_name='held')\n"

# Runs in a pod of the attacker, who has the certificates of the own namespace. Each attack gives what came of it.
ATTACKS = dedent("""
    import asyncio, json, pickle, socket, ssl, struct, sys
    import msgpack
    from distributed import Client
    from distributed.core import connect, rpc
    from distributed.security import Security
    from distributed.versions import get_versions

    (victim, victim_worker, own, own_worker, operator_http), results = json.loads(sys.argv[1]), {}

    def message(*frames):
        frames = [msgpack.packb(frames[0]), *frames[1:]]
        body = struct.pack("<Q", len(frames)) + b"".join(struct.pack("<Q", len(f)) for f in frames) + b"".join(frames)
        return struct.pack("<Q", len(body)) + body

    HANDSHAKE = message({"compression": None, "python": [3, 11, 7], "pickle-protocol": 5})
    BOMB = message({"x": {"__Pickled__": 1}}, pickle.dumps(print))

    def answer(address, data, context=None):
        "What the other side says to bytes: nothing, if it closes, perhaps with an alert of TLS."
        host, port = address.rsplit("/", 1)[-1].rsplit(":", 1)
        try:
            with socket.create_connection((host, int(port)), 10) as plain:
                connection = context.wrap_socket(plain) if context else plain
                connection.settimeout(10)
                connection.sendall(data)
                received = connection.recv(1000)
                return "" if received.startswith(b"\\x15\\x03") else received.hex()
        except (OSError, ssl.SSLError):
            return ""

    def context(certificate=True):
        made = ssl.create_default_context()
        made.check_hostname, made.verify_mode = False, ssl.CERT_NONE
        if certificate:
            made.load_cert_chain("/tls/tls.crt", "/tls/tls.key")
        return made

    for name, address in {"scheduler": victim, "worker": victim_worker}.items():
        results[f"plain bytes to the {name} of another namespace"] = answer(address, HANDSHAKE)
        results[f"a pickle in plain to the {name}"] = answer(address, BOMB)
        results[f"TLS without a certificate to the {name}"] = answer(address, HANDSHAKE, context(False))
        results[f"TLS with our certificate to the {name}"] = answer(address, HANDSHAKE, context())
        results[f"a pickle with our certificate to the {name}"] = answer(address, BOMB, context())
    results["our own scheduler, so that the others mean something"] = bool(answer(own, HANDSHAKE, context()))

    security = Security()

    async def said(address, *messages):
        comm = await connect(address, timeout=10, **security.get_connection_args("client"))
        try:
            for each in messages:
                await comm.write(each)
            return await asyncio.wait_for(comm.read(), 20)
        finally:
            comm.abort()

    def registration(**changes):
        return {"op": "register-worker", "reply": False, "address": own_worker, "status": "running", "nthreads": 1,
                "name": "w", "now": 0.0, "resources": {}, "memory_limit": None, "local_directory": "/", "services": {},
                "nanny": None, "pid": 1, "versions": get_versions(), "metrics": {}, "extra": {}, "stimulus_id": "x",
                "server_id": "Worker-x", **changes}

    def refused(**changes):
        return asyncio.run(said(own, registration(**changes))).get("message", "")

    me = socket.gethostbyname(socket.gethostname())
    results["a worker at the address of another pod"] = refused()
    results["a worker at an address of another namespace"] = refused(address=victim_worker)
    results["a worker that is not encrypted"] = refused(address=f"tcp://{me}:1")
    results["a worker whose name commands a terminal"] = refused(address=f"tls://{me}:1", name="\\x1b[2J")

    with Client(own, timeout=30) as client:
        before = client.sync(client.scheduler.identity, n_workers=-1)["workers"]
        client.sync(client.scheduler.unregister, address=own_worker)
        after = client.sync(client.scheduler.identity, n_workers=-1)["workers"]
        results["having the worker of another pod leave"] = sorted(after) == sorted(before)
        results["datasets of another namespace"] = sorted(client.list_datasets())
        keys = str(client.who_has())
        results["keys of another namespace"] = "held" in keys
        try:
            client.run_on_scheduler(print)
            results["code on the scheduler"] = "ran"
        except Exception as error:
            results["code on the scheduler"] = str(error)[:100]
    import urllib.request
    metrics = urllib.request.urlopen(f"http://{operator_http}/metrics", timeout=10).read().decode()
    results["names of tasks in metrics"] = '"held"' in metrics
    results["a token of the API server"] = __import__("os").path.exists("/var/run/secrets/kubernetes.io")
    print("answer:", json.dumps(results))
""")


@pytest.fixture
def victim(kubectl):
    """A namespace of somebody else, with a collection in memory."""
    from stories import Story

    name = f"e2e-victim-{secrets.token_hex(2)}"
    kubectl("create", "namespace", name)
    kubectl("label", "namespace", name, "mainstay.dev/made-by=e2e")
    story = Story(kubectl.within(name))
    story.apply(workers("workers"), collection("precious", HELD, ["value"]))
    story.await_ready("precious")
    yield story
    # It has noticed nothing.
    assert story.condition("precious", "Ready")[:2] == ("True", "Persisted")
    assert story.run_client("answer = client.get_dataset('precious').compute()") == "the truth"
    kubectl("delete", "namespace", name, "--wait=false")


def worker_address(story):
    def find():
        return story.run_client('answer = list(client.sync(client.scheduler.identity, n_workers=-1)["workers"])')
    return await_condition("a worker", find)[0]


def scheduler_address(story):
    return f"tls://mainstay-scheduler.{story.kubectl.namespace}.svc:8786"


def test_comms_lead_nowhere(with_temp_namespace, victim, operator):
    story = with_temp_namespace
    story.apply(workers("workers"), collection("own", "x = 1", ["x"]))
    story.await_ready("own")
    http = operator.kubectl.json("get", "service", "mainstay")["spec"]["clusterIP"]
    addresses = [scheduler_address(victim), worker_address(victim), scheduler_address(story), worker_address(story), f"{http}:8080"]
    printed = story.run_python(ATTACKS, json.dumps(addresses), seconds=240)
    results = json.loads(printed.rpartition("answer:")[2])

    assert results.pop("our own scheduler, so that the others mean something") is True
    comms = {what: came for what, came in results.items() if " to the " in what}
    assert len(comms) == 10 and set(comms.values()) == {""}, comms
    assert "which is not its pod's address" in results["a worker at the address of another pod"]
    assert "which is not its pod's address" in results["a worker at an address of another namespace"]
    assert "comms are tls://" in results["a worker that is not encrypted"]
    assert "control characters" in results["a worker whose name commands a terminal"]
    assert results["having the worker of another pod leave"] is True
    assert results["datasets of another namespace"] == ["own", "own/x"]
    assert results["keys of another namespace"] is False
    assert "runs no Python" in results["code on the scheduler"]
    assert results["names of tasks in metrics"] is False
    assert results["a token of the API server"] is False


def test_collections_reach_nothing_of_others(with_temp_namespace, victim, operator):
    story = with_temp_namespace
    story.apply(workers("workers"))
    story.await_pods("workers")
    [theirs] = victim.await_pods("workers")
    token = base64.b64encode(b"x").decode()
    story.apply(
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "docker"}, "type": "kubernetes.io/dockerconfigjson",
         "data": {".dockerconfigjson": base64.b64encode(b'{"auths": {}}').decode()}},
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "password"}, "type": "kubernetes.io/basic-auth",
         "data": {"password": token}},
        secret("opaque", **{"x.py": "hunter2 = undefined_name_of_a_secret\n"}),
        *(collection(name, {"pythonFrom": {"secretKeyRef": {"name": of, "key": key}}}, ["x"]) for name, of, key in (
            ("reads-key", "mainstay-tls", "tls.key"), ("reads-authority", "mainstay-ca", "ca.key"),
            ("reads-docker", "docker", ".dockerconfigjson"), ("reads-password", "password", "password"),
            ("reads-opaque", "opaque", "x.py"))),
        collection("on-their-pod", "x = 1", ["x"], workers={"names": [theirs]}),
        collection("on-their-worker", "x = 1", ["x"], workers={"names": [worker_address(victim)]}),
        collection("their-input", "y = x", ["y"], inputs={"x": {"persistedCollection": "precious", "output": "value"}}),
        collection("shouts", "raise ValueError('\\x1b[2J\\u202e' + 'x' * 100_000)", ["x"]),
    )
    for name in ("reads-key", "reads-authority", "reads-docker", "reads-password"):
        assert "is not of type Opaque" in story.await_reason(name, "SourceInvalid", "SourceResolved")
    story.await_reason("reads-opaque", "SourceRaised", "GraphAccepted")
    assert "undefined_name" not in json.dumps(story.show("reads-opaque"))
    for name in ("on-their-pod", "on-their-worker"):
        story.await_reason(name, "NoMatchingWorker", "WorkersAvailable")
    assert "precious" in story.await_reason("their-input", "WaitingForInput", "GraphAccepted")
    message = story.await_reason("shouts", "SourceRaised", "GraphAccepted")
    assert not any(character in message for character in "\x1b\u202e") and len(message) < 40_000
    assert "hunter2" not in operator.logs() and "undefined_name" not in operator.logs()


# What is tried, the spec, and what the user reads at once.
BOMBS = {
    "a million tasks": ({"source": {"tasks": [{"key": str(n), "call": "m:f"} for n in range(1_000_000)]}}, "too large|limit"),
    "more tasks than may be": ({"source": {"tasks": [{"key": str(n), "call": "m:f"} for n in range(20_000)]}}, "at most"),
    "a long text": ({"source": {"python": "x = 1\n" + "#" * 1_400_000}, "collections": ["x"]}, "Too long|too long|may not be"),
    "a long key": ({"source": {"tasks": [{"key": "k" * 1_000_000, "call": "m:f"}]}}, "Too long|too long|may not be"),
    "an endless priority": ({"source": {"python": "x = 1"}, "collections": ["x"], "priority": 2**64}, "less than or equal"),
    "a key twice": ({"source": {"tasks": [{"key": "a", "call": "m:f"}] * 2}}, "Duplicate value"),
}


def test_specs_that_are_bombs_are_refused(with_temp_namespace, operator):
    import re

    story = with_temp_namespace
    restarts = operator.restarts()
    for what, (spec, expected) in BOMBS.items():
        manifest = {"apiVersion": "mainstay.dev/v1alpha1", "kind": "PersistedCollection", "metadata": {"name": "bomb"}, "spec": spec}
        with pytest.raises(Refused) as refused:
            story.kubectl("create", "--filename=-", stdin=json.dumps(manifest))
        assert re.search(expected, str(refused.value)), f"{what}: {str(refused.value)[:300]}"
    # What only the operator can see.
    chain = [{"key": f"t{n}", "call": "operator:neg", "args": [{"task": f"t{n - 1}"} if n else 1]} for n in range(1000)]
    story.apply(
        workers("workers"),
        collection("circle", {"tasks": [{"key": "a", "call": "operator:neg", "args": [{"task": "b"}]},
                                        {"key": "b", "call": "operator:neg", "args": [{"task": "a"}]}]}, ["a"]),
        collection("unknown", {"tasks": [{"key": "a", "call": "operator:neg", "args": [{"task": "z"}]}]}, ["a"]),
        collection("deep", {"tasks": chain}, ["t999"]),
        collection("greedy", "x = 1", ["x"], resources={"GPU": 1e9}),
    )
    story.await_reason("circle", "InvalidSpec")
    story.await_reason("unknown", "InvalidSpec")
    story.await_reason("greedy", "InsufficientResources", "WorkersAvailable")
    story.await_ready("deep")
    assert operator.restarts() == restarts


def test_the_operator_has_no_right_that_it_does_not_need(with_temp_namespace):
    story = with_temp_namespace
    wanted = ["list secrets", "watch secrets", "create secrets", "patch secrets/other", "delete secrets/mainstay-tls", "get pods",
              "create pods", "create pods/exec", "delete pods", "create deployments", "delete persistedcollections",
              "update persistedcollections", "create persistedcollections", "list namespaces", "get nodes", "impersonate users",
              "escalate clusterroles", "bind clusterroles", "create rolebindings", "create serviceaccounts/token",
              "patch customresourcedefinitions", "list configmaps", "delete services", "* *"]
    allowed = []
    for right in wanted:
        try:
            story.kubectl("auth", "can-i", *right.split(), ACCOUNT)
            allowed.append(right)
        except Refused:
            pass
    assert allowed == []
    assert "yes" in story.kubectl("auth", "can-i", "patch", "secrets/mainstay-tls", ACCOUNT)


def test_there_is_nothing_to_run_in_the_operator_pod(operator):
    for command in ("sh", "/bin/bash", "python3", "/bin/busybox"):
        with pytest.raises(Refused, match="not found|no such file|executable file|stat"):
            operator.kubectl("exec", "deployment/mainstay", "--", command)
    status = operator.kubectl.json("get", "pod", operator.pod())
    spec = status["spec"]
    assert spec["securityContext"]["runAsNonRoot"] and spec["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault"
    [container] = spec["containers"]
    assert container["securityContext"]["readOnlyRootFilesystem"]
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}


def test_plain_comms_are_told_of(with_temp_namespace, operator):
    """A namespace that is asked for it explicitly; workers of either kind that do not fit are named."""
    story = with_temp_namespace
    namespace = story.kubectl.namespace
    plain = worker_pod()
    plain["spec"]["containers"][0]["args"][2] = "tcp://mainstay-scheduler:8786"
    plain["spec"]["containers"][0].update(env=[POD_NAME], volumeMounts=[])
    plain["spec"]["volumes"] = []
    story.apply(pod("naked", plain), collection("one", "x = 1", ["x"]))
    message = story.await_reason("one", "WorkerRefused", "WorkersAvailable")
    assert "naked" in message and "tls://" in message
    operator.upgrade(f'tls.plainNamespaces=["{namespace}"]')
    try:
        story.await_ready("one")
        def told():
            return "PlainComms" in story.kubectl("get", "events", "--field-selector=involvedObject.name=mainstay-scheduler")
        await_condition("the Event", told, 30)
    finally:
        operator.upgrade("tls.plainNamespaces=[]")
