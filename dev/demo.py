#!/usr/bin/env python3
"""From nothing to a number in a notebook: `demo.py up` shows Mainstay at work, `demo.py down` removes it all.

With DEMO_KUBECONFIG it uses the cluster of that kubeconfig, whose nodes must have the two images (README in this folder).
"""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
DEV, BIN, EXAMPLES = REPOSITORY / "dev", REPOSITORY / ".cache" / "bin", REPOSITORY / "examples"
SYSTEM, NAMESPACE = "mainstay-system", "analytics"
OPERATOR_IMAGE, WORKER_IMAGE = "mainstay.dev/operator:dev", "mainstay.dev/worker:dev"
PATIENCE_SECONDS = 300
BEGAN = time.monotonic()
TERMINAL = sys.stdout.isatty()


class Failure(Exception):
    """What went wrong, for the person who watches."""


def say(text=""):
    print(text, flush=True)


def step(number, text):
    say(f"\n{bold(f'[{number}/6]')} {bold(text)}  {faint(f'({time.monotonic() - BEGAN:.0f} s)')}")


def bold(text):
    return f"\033[1m{text}\033[0m" if TERMINAL else text


def faint(text):
    return f"\033[2m{text}\033[0m" if TERMINAL else text


def run(*command, show=True, **options):
    """Runs a command; its output is shown, or returned when `show` is off."""
    words = [str(word) for word in command]
    defaults = {"stdin": subprocess.DEVNULL, "stdout": None if show else subprocess.PIPE}
    done = subprocess.run(words, text=True, check=False, **{**defaults, **options})
    if done.returncode:
        raise Failure(f"this failed: {' '.join(words)}")
    return done.stdout


class Kubernetes:
    """The cluster of the demo, and the commands to reach it."""

    def __init__(self):
        self.given = os.environ.get("DEMO_KUBECONFIG")
        self.config = self.given or run(DEV / "cluster", "kubeconfig", show=False).strip()
        self.commands = {}

    def command(self, name):
        """kubectl or helm: ours, or with a cluster that is not ours the one that is installed."""
        if name not in self.commands:
            installed = shutil.which(name) if self.given else None
            self.commands[name] = installed or run(DEV / "prepare", name, show=False).strip()
        return [self.commands[name], "--kubeconfig", self.config]

    def kubectl(self, *words, **options):
        return run(*self.command("kubectl"), *words, **options)

    def helm(self, *words, **options):
        return run(*self.command("helm"), *words, **options)

    def hint(self, words):
        """A kubectl command for people to type."""
        return f"  {self.command('kubectl')[0]} --kubeconfig {self.config} {words}"


def up():
    kubernetes = Kubernetes()
    step(1, "A Kubernetes to run on")
    if kubernetes.given:
        say(f"Using the cluster of {kubernetes.given}, as DEMO_KUBECONFIG says.")
        say(f"Its nodes must have the images {OPERATOR_IMAGE} and {WORKER_IMAGE}: `make images` writes them to .cache/images/.")
    else:
        run(DEV / "cluster", "up", stdout=subprocess.DEVNULL)
    kubernetes.kubectl("get", "nodes")

    step(2, "The images: the operator, and a worker with stock dask")
    digest = "as-found" if kubernetes.given else make_images()

    try:
        step(3, "Mainstay, installed with Helm")
        install(kubernetes, digest)
        step(4, "Workers: a plain Deployment of stock `dask worker`")
        start_workers(kubernetes)
        step(5, "A collection: kubectl apply -f examples/flights.yaml")
        kubernetes.kubectl("-n", NAMESPACE, "apply", "-f", EXAMPLES / "flights.yaml")
        follow(kubernetes)
        say()
        kubernetes.kubectl("-n", NAMESPACE, "get", "pcol")
        say()
        show_status(kubernetes)
        step(6, "An unmodified distributed.Client reads it: examples/read.py")
        read(kubernetes)
    except Failure:
        explain(kubernetes)
        raise
    say(f"\n{bold('That is all.')} It took {time.monotonic() - BEGAN:.0f} s, and the collection stays in memory until you delete it:")
    say(kubernetes.hint(f"-n {NAMESPACE} get pcol flights -o wide"))
    say(kubernetes.hint(f"-n {NAMESPACE} delete pcol flights"))
    say("`make demo-down` removes all of it.")


def make_images():
    """Makes the images, loads them into the cluster, and returns what tells the operator's image from an older one."""
    run(DEV / "prepare", "operator", "worker", stdout=subprocess.DEVNULL)
    run(DEV / "cluster", "load")
    images = REPOSITORY / ".cache" / "images"
    for name in ("operator", "worker"):
        size = (images / f"{name}.tar").stat().st_size
        say(f"mainstay.dev/{name}:dev  {size / 2**20:.0f} MiB")
    return json.loads((images / "operator.json").read_text())["digest"]


def install(kubernetes, digest):
    repository, tag = OPERATOR_IMAGE.split(":")
    kubernetes.helm(
        "upgrade", "--install", "mainstay", REPOSITORY / "charts" / "mainstay", "--namespace", SYSTEM, "--create-namespace",
        "--set", f"image.repository={repository},image.tag={tag},image.pullPolicy=IfNotPresent",
        # The tag stays the same when the image changes: this makes a new pod then.
        "--set-string", rf"podAnnotations.mainstay\.dev/image={digest}",
        "--hide-notes", show=False)
    kubernetes.kubectl("-n", SYSTEM, "rollout", "status", "deployment/mainstay", "--timeout=120s")


def start_workers(kubernetes):
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {
        "name": NAMESPACE, "labels": {"pod-security.kubernetes.io/enforce": "restricted"}}}
    kubernetes.kubectl("apply", "-f", "-", stdin=None, input=json.dumps(namespace))
    kubernetes.kubectl("-n", NAMESPACE, "apply", "-f", EXAMPLES / "workers.yaml")
    kubernetes.kubectl("-n", NAMESPACE, "rollout", "status", "deployment/workers", "--timeout=180s")


def follow(kubernetes):
    """Shows how the collection comes along, until it is Ready."""
    began, shown = time.monotonic(), None
    while True:
        pcol = json.loads(kubernetes.kubectl("-n", NAMESPACE, "get", "pcol", "flights", "-o", "json", show=False))
        status, line = pcol.get("status", {}), progress_line(pcol.get("status", {}))
        if TERMINAL:
            print(f"\r\033[K{line}  {time.monotonic() - began:.0f} s", end="", flush=True)
        elif line != shown:
            say(line)
            shown = line
        conditions = {condition["type"]: condition for condition in status.get("conditions", [])}
        if status.get("observedGeneration") == pcol["metadata"]["generation"]:
            if is_true(conditions, "Ready"):
                break
            if is_true(conditions, "Stalled"):
                raise Failure(f"the collection cannot go on: {conditions['Stalled'].get('message')}")
        if time.monotonic() - began > PATIENCE_SECONDS:
            raise Failure(f"the collection is not Ready after {PATIENCE_SECONDS} s")
        time.sleep(0.5)
    say()
    say(f"Ready after {time.monotonic() - began:.1f} s.")


def is_true(conditions, name):
    return conditions.get(name, {}).get("status") == "True"


def progress_line(status):
    """One line, as in: flights  Running  [#########-----------]  45%  9 of 20 tasks, 4 running."""
    percent = status.get("progress", "0%")
    tasks = status.get("tasks", {})
    width = 30
    filled = width * int(percent.rstrip("%")) // 100
    bar = "█" * filled + "░" * (width - filled) if TERMINAL else "#" * filled + "-" * (width - filled)
    running = tasks.get("processing", 0)
    counts = f"{tasks.get('total', 0)} tasks" + (f", {running} running" if running else "")
    size = f", {status['size']} in memory" if status.get("nbytes") else ""
    return f"flights  {status.get('phase', 'Pending'):<9}  {bar}  {percent:>4}  {counts}{size}"


def show_status(kubernetes):
    """The status as kubectl prints it, without the rest of the object."""
    text = kubernetes.kubectl("-n", NAMESPACE, "get", "pcol", "flights", "-o", "yaml", show=False)
    lines = text.splitlines()
    say("\n".join(lines[lines.index("status:"):]))


def read(kubernetes):
    program = (EXAMPLES / "read.py").read_text()
    address = "tls://mainstay-scheduler:8786"
    kubernetes.kubectl("-n", NAMESPACE, "exec", "-i", "deployment/workers", "--", "python", "-", address, "/data/flights",
                       stdin=None, input=program)


def explain(kubernetes):
    """Shows what is known about a failure, and where there is more."""
    say(f"\n{bold('Something went wrong.')} The pods, the last events, and what the operator wrote last:\n")
    for words in (
        ["get", "pods", "-A", "-o", "wide"],
        ["-n", NAMESPACE, "get", "events", "--sort-by=.lastTimestamp"],
        ["-n", SYSTEM, "logs", "deployment/mainstay", "--tail=20"],
    ):
        subprocess.run([*kubernetes.command("kubectl"), *words], check=False)
        say()
    say("To look further:")
    say(kubernetes.hint(f"-n {NAMESPACE} describe pcol flights"))
    say(kubernetes.hint(f"-n {NAMESPACE} logs deployment/workers"))
    say(kubernetes.hint(f"-n {SYSTEM} logs deployment/mainstay"))


def down():
    kubernetes = Kubernetes()
    if not kubernetes.given:
        run(DEV / "cluster", "down")
        return
    quiet = {"show": False}
    if "persistedcollections" in kubernetes.kubectl("api-resources", "--api-group=mainstay.dev", "-o", "name", **quiet):
        # First, while the operator is there: it frees the workers' memory and then lets the objects go.
        kubernetes.kubectl("-n", NAMESPACE, "delete", "pcol", "--all", "--timeout=60s")
    # Workers before the operator: they take half a minute to give up a scheduler that is gone.
    kubernetes.kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found", "--timeout=120s")
    kubernetes.helm("uninstall", "mainstay", "--namespace", SYSTEM, "--ignore-not-found", "--wait")
    kubernetes.kubectl("delete", "namespace", SYSTEM, "--ignore-not-found", "--timeout=120s")
    kubernetes.kubectl("delete", "crd", "persistedcollections.mainstay.dev", "--ignore-not-found")


if __name__ == "__main__":
    verbs = {"up": up, "down": down}
    if len(sys.argv) != 2 or sys.argv[1] not in verbs:
        sys.exit("usage: demo.py up|down")
    try:
        verbs[sys.argv[1]]()
    except Failure as failure:
        sys.exit(f"\ndemo: {failure}")
    except KeyboardInterrupt:
        sys.exit(130)
