"""Runs kubectl as a user would, and waits for what it shows."""

import json
import os
import subprocess
import time
from dataclasses import dataclass, replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
KUBECTL = os.environ.get("KUBECTL", str(ROOT / ".cache" / "bin" / "kubectl"))
PAUSE = 0.5


class Refused(Exception):
    """kubectl ended with an error; its text is what the user read."""


def await_condition(what, probe, seconds=60):
    """Asks `probe` until its answer is true, and returns it. `what` completes: waited in vain for ..."""
    deadline = time.monotonic() + seconds
    while True:
        answer = probe()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {seconds} s in vain for {what}; last seen: {answer!r}")
        time.sleep(PAUSE)


@dataclass(frozen=True)
class Kubectl:
    """kubectl with one kubeconfig, in one namespace."""

    kubeconfig: Path
    namespace: str = "default"

    def within(self, namespace):
        return replace(self, namespace=namespace)

    def __call__(self, *words, stdin=None, timeout=120):
        """Runs kubectl and returns what it printed.

        # Raises
        `Refused` with the text of its error.
        """
        done = subprocess.run(self._command(words), input=stdin, capture_output=True, text=True, timeout=timeout, check=False)
        if done.returncode:
            raise Refused(f"kubectl {' '.join(map(str, words))}: {done.stderr.strip()}{done.stdout.strip()}")
        return done.stdout

    def start(self, *words):
        """Starts kubectl, and returns the process with its input and output as text."""
        return subprocess.Popen(self._command(words), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def _command(self, words):
        return [KUBECTL, f"--kubeconfig={self.kubeconfig}", f"--namespace={self.namespace}", *map(str, words)]

    def json(self, *words):
        return json.loads(self(*words, "--output=json"))

    def find(self, *words):
        """One object, or None if it is not there."""
        text = self("get", *words, "--ignore-not-found", "--output=json")
        return json.loads(text) if text.strip() else None

    def items(self, kind, *words):
        return self.json("get", kind, *words)["items"]

    def apply(self, *objects):
        """Creates or changes objects, each a dict."""
        bundle = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
        return self("apply", "--filename=-", stdin=json.dumps(bundle))

    def refusal(self, manifest):
        """What a user reads who applies a manifest that the API server does not take."""
        try:
            self("apply", "--dry-run=server", "--filename=-", stdin=manifest)
        except Refused as refused:
            return str(refused)
        raise AssertionError(f"was accepted:\n{manifest}")
