"""The operator as the chart installs it: its pod, what it logs, and what it writes to the API server."""

import json
import os
import re
import subprocess

from kubectl import ROOT, Refused, await_condition

HELM = os.environ.get("HELM", str(ROOT / ".cache" / "bin" / "helm"))
NAMESPACE = "mainstay-system"
RELEASE = "mainstay"
STATUS_WRITES = re.compile(
    r'^apiserver_request_total\{(?=[^}]*resource="persistedcollections")(?=[^}]*subresource="status")'
    r'(?=[^}]*verb="(?:APPLY|PATCH|PUT|UPDATE)")[^}]*\} (\d+)', re.MULTILINE)


class Operator:
    """The release `mainstay` in the namespace `mainstay-system`."""

    def __init__(self, kubectl):
        self.kubectl = kubectl.within(NAMESPACE)
        self.earlier_logs = []
        # Pods that still ran when the release was given fewer rights.
        self.narrowed = set()

    def pod(self):
        """The name of its one pod that runs."""
        pods = self.kubectl.items("pods", "--selector=app.kubernetes.io/component=operator")
        running = [pod for pod in pods if "deletionTimestamp" not in pod["metadata"] and pod["status"]["phase"] == "Running"]
        return running[0]["metadata"]["name"] if len(running) == 1 else None

    def pods(self):
        """The names of its pods that are ready."""
        pods = self.kubectl.items("pods", "--selector=app.kubernetes.io/component=operator")
        is_ready = [{"type": "Ready", "status": "True"}]
        ready = [pod for pod in pods if "deletionTimestamp" not in pod["metadata"] and is_ready == [
            {"type": condition["type"], "status": condition["status"]}
            for condition in pod["status"].get("conditions", []) if condition["type"] == "Ready"]]
        return [pod["metadata"]["name"] for pod in ready]

    def await_pods(self, count):
        await_condition(f"{count} pods of the operator that are ready", lambda: len(self.pods()) == count, 60)

    def scale(self, count):
        """As `replicaCount` does."""
        self.earlier_logs += [self._logs_of(pod) for pod in self.pods()] if count == 1 else []
        self.helm("upgrade", RELEASE, ROOT / "charts" / "mainstay", "--reuse-values", "--set", f"replicaCount={count}")
        self.await_pods(count)
        await_condition("the other pods to go", lambda: len(self.kubectl.items(
            "pods", "--selector=app.kubernetes.io/component=operator")) == count, 60)

    def metrics(self, pod):
        """What a pod tells a collector of metrics; nothing while it is starting."""
        try:
            return self.kubectl("get", "--raw", f"/api/v1/namespaces/{NAMESPACE}/pods/{pod}:8080/proxy/metrics")
        except Refused:
            return ""

    def await_ready(self):
        """Waits for the pod that is there when the tests begin, and notes when it was made."""
        self.kubectl("rollout", "status", f"deployment/{RELEASE}", "--timeout=90s")
        pod = self.kubectl.json("get", "pod", self.pod())
        self.created = pod["metadata"]["creationTimestamp"].removesuffix("Z")

    def logs(self):
        """All that was logged since the tests began, also by pods that are gone."""
        return "".join([*self.earlier_logs, self._logs_of(self.pod())])

    def lines(self, level):
        """The messages of one level, as dicts."""
        documents = (json.loads(line) for line in self.logs().splitlines() if line.startswith("{"))
        return [document for document in documents if document.get("level") == level]

    def requests(self):
        """What it asked of the API server, from before the tests began, as the audit log of this checkout's cluster has it."""
        log = self.kubectl.kubeconfig.parent / "logs" / "audit.log"
        requests = map(json.loads, log.read_text().splitlines())
        return [request for request in requests if request["requestReceivedTimestamp"] > self.created]

    def restarts(self):
        pod = self.kubectl.json("get", "pod", self.pod())
        return sum(status["restartCount"] for status in pod["status"]["containerStatuses"])

    def replace(self, change):
        """Does what gives the operator another pod, and waits for that one."""
        old = self.pod()
        self.earlier_logs.append(self._logs_of(old))
        change(old)
        self.kubectl("rollout", "status", f"deployment/{RELEASE}", "--timeout=90s")
        return await_condition("another pod of the operator", lambda: self.pod() not in (None, old) and self.pod())

    def restart(self):
        """Deletes the pod; its Deployment makes another."""
        return self.replace(lambda pod: self.kubectl("delete", "pod", pod, "--wait=true"))

    def narrow(self, *settings):
        """An upgrade to fewer rights: the pod that is there lacks them until the next one is ready."""
        self.narrowed.add(self.pod())
        self.upgrade(*settings)

    def upgrade(self, *settings):
        """`helm upgrade` with values, in JSON, on top of those that the release has."""
        words = [word for setting in settings for word in ("--set-json", setting)]
        self.replace(lambda _: self.helm("upgrade", RELEASE, ROOT / "charts" / "mainstay", "--reuse-values", *words))

    def helm(self, *words):
        environment = {**os.environ, "KUBECONFIG": str(self.kubectl.kubeconfig)}
        done = subprocess.run([HELM, *map(str, words), "--namespace", NAMESPACE], env=environment, capture_output=True,
                              text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def status_writes(self):
        """How often the status of any collection was written, as the API server counts."""
        return sum(map(int, STATUS_WRITES.findall(self.kubectl("get", "--raw", "/metrics"))))

    def _logs_of(self, pod):
        return self.kubectl("logs", pod, "--tail=-1") if pod else ""
