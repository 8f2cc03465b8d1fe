"""What a story does in the namespace it has to itself: shows of collections, Clients, workers."""

import json

from kubectl import Refused, await_condition
from objects import SCHEDULER, client_pod

CONNECT = f"""\
import json
from distributed import Client
client = Client("{SCHEDULER}", timeout=60)
"""


class Story:
    """One namespace, through kubectl."""

    def __init__(self, kubectl):
        self.kubectl = kubectl
        self.apply = kubectl.apply

    def apply_file(self, path):
        self.kubectl("apply", f"--filename={path}")

    def delete(self, name, seconds=90):
        """Deletes a collection; returns when it is gone."""
        self.kubectl("delete", "pcol", name, f"--timeout={seconds}s", timeout=seconds + 10)

    def patch(self, name, **spec):
        self.kubectl("patch", "pcol", name, "--type=merge", f"--patch={json.dumps({'spec': spec})}")

    def show(self, name):
        return self.kubectl.json("get", "pcol", name)

    def status(self, name):
        return self.show(name).get("status", {})

    def condition(self, name, type_):
        """The condition as `(status, reason, message)`."""
        for condition in self.status(name).get("conditions", []):
            if condition["type"] == type_:
                return condition["status"], condition["reason"], condition["message"]
        raise AssertionError(f"{name} has no condition {type_}")

    def await_ready(self, name, seconds=90):
        """What a user would run. Returns the status."""
        self._wait(name, "condition=Ready", seconds)
        return self.status(name)

    def await_reason(self, name, reason, type_="Ready", seconds=60):
        """Waits for a condition's reason, and returns its message."""
        self._wait(name, f"jsonpath={{.status.conditions[?(@.type=='{type_}')].reason}}={reason}", seconds)
        return self.condition(name, type_)[2]

    def await_gone(self, what, seconds=60):
        self.kubectl("wait", what, "--for=delete", f"--timeout={seconds}s", timeout=seconds + 10)

    def _wait(self, name, condition, seconds):
        try:
            self.kubectl("wait", f"pcol/{name}", f"--for={condition}", f"--timeout={seconds}s", timeout=seconds + 10)
        except Refused as refused:
            conditions = self.status(name).get("conditions", [])
            shown = "\n".join("{type}={status} {reason}: {message}".format(**condition) for condition in conditions)
            raise AssertionError(f"{refused}\n{shown}") from None

    def events(self, name):
        """What `kubectl describe` shows below Events, as `(type, reason, message)`."""
        events = self.kubectl.items("events", f"--field-selector=involvedObject.name={name}")
        return [(event["type"], event["reason"], event["message"]) for event in events]

    def await_event(self, name, type_, reason):
        """Waits for an Event, and returns its message."""
        def find():
            return [message for kind, why, message in self.events(name) if (kind, why) == (type_, reason)]
        return await_condition(f"the Event {type_} {reason} of {name}", find, 15)[0]

    def noted_parts(self, pods):
        """Which parts of a `noted` collection were run on these pods, each as often as it was."""
        read = [self.kubectl("exec", pod, "--", "sh", "-c", "cat /tmp/parts 2> /dev/null || true") for pod in pods]
        return sorted(int(index) for index in "".join(read).split())

    def container_restarts(self, pods):
        """How often each container of these pods was started again."""
        statuses = [self.kubectl.json("get", "pod", pod)["status"]["containerStatuses"] for pod in pods]
        return [status["restartCount"] for of_pod in statuses for status in of_pod]

    def run_client(self, script, answer="answer", seconds=120):
        """Runs a script with an unmodified `client` in a pod, and returns what it calls `answer`."""
        text = f"{CONNECT}{script}\nprint('answer:', json.dumps({answer}))\n"
        printed = self.run_python(text, seconds=seconds)
        return json.loads(printed.rpartition("answer:")[2])

    def run_python(self, script, *arguments, seconds=120):
        """Runs Python in a pod of the worker image that is no worker; returns what it printed."""
        if not self.kubectl.find("pod", "client"):
            self.apply(client_pod())
        self.kubectl("wait", "pod/client", "--for=condition=Ready", "--timeout=60s")
        return self.kubectl("exec", "-i", "client", "--", "python3", "-", *arguments, stdin=script, timeout=seconds)

    def pods_of(self, app):
        """The pods of a Deployment that are not ending."""
        pods = self.kubectl.items("pods", f"--selector=app={app}")
        return [pod["metadata"]["name"] for pod in pods if "deletionTimestamp" not in pod["metadata"]]

    def await_pods(self, app, count=1):
        """Waits for the containers of a Deployment to run, and returns the names of its pods."""
        self.kubectl("rollout", "status", f"deployment/{app}", "--timeout=90s")
        return await_condition(f"{count} pods of {app}", lambda: len(found := self.pods_of(app)) == count and found)
