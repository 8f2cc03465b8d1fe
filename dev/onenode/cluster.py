"""Brings a cluster up, takes it down, and tells how it is."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys

from . import control_plane, images, namespaces, node
from .build import KUBERNETES_BINARY, NODE_BINARIES, NODE_PACKAGES, build, install_packages
from .certificates import make_certificates, write_kubeconfig
from .layout import BIN, NODE_NAME
from .process import Failure, await_condition, forget_ended, locked, process_of, run, running, say, stop

USERS_INSIDE = ["controller-manager", "scheduler", "proxy", "kubelet", "coredns"]


class Launch:
    """Turns a daemon's command into one that runs in the cluster's namespaces, and says which cgroups it joins."""

    def __init__(self, layout, cgroups=()):
        self.layout, self.cgroups = layout, cgroups

    def __call__(self, command):
        # The kubelet and containerd look for runc and its like on the PATH.
        return ["env", f"PATH={BIN}:{os.environ['PATH']}", "GOMAXPROCS=2", *self.layout.inside(command)]


def up(layout):
    """Brings up what does not run yet, and returns when all of it works."""
    if os.geteuid() and not layout.api_only:
        raise Failure("a node needs root: run this with sudo, or set DEMO_KUBECONFIG to a cluster of yours")
    with locked(layout.lock):
        build([KUBERNETES_BINARY] if layout.api_only else [KUBERNETES_BINARY, *NODE_BINARIES])
        if not running(layout):
            clean(layout)  # what a crash or a restart of the machine left
            layout.forget_taken_ports()
        forget_ended(layout)
        make_certificates(layout)
        write_kubeconfig(layout, layout.kubeconfig, "admin", f"https://127.0.0.1:{layout.port('api-server')}")
        if layout.api_only:
            start_api(layout, Launch(layout))
        else:
            start_node(layout)
        say(f"the cluster is up: {layout.kubeconfig}")


def start_api(layout, launch):
    control_plane.start_etcd(layout, launch)
    control_plane.start_api_server(layout, launch)
    await_condition(layout, "API server is ready", lambda: kubectl_succeeds(layout, "get", "--raw", "/readyz"))


def start_node(layout):
    install_packages(NODE_PACKAGES)
    pause = images.pause()
    namespaces.make_namespaces(layout)
    launch = Launch(layout, namespaces.make_cgroups(layout))
    for user in USERS_INSIDE:
        write_kubeconfig(layout, layout.state / f"{user}.kubeconfig", user, "https://127.0.0.1:6443")
    node.start_forwarder(layout, launch.cgroups)
    node.start_containerd(layout, launch)
    start_api(layout, launch)
    control_plane.start_controllers(layout, launch)
    await_condition(layout, "containerd answers", lambda: node.containerd_answers(layout))
    images.load(layout, [pause])
    images.load(layout)
    node.start_kubelet(layout, launch)
    node.start_proxy(layout, launch)
    node.start_coredns(layout, launch)
    await_condition(layout, "node is ready", lambda: kubectl_succeeds(
        layout, "wait", "--for=condition=Ready", f"node/{NODE_NAME}", "--timeout=1s"))
    await_condition(layout, "Services are reachable", lambda: http_succeeds(layout, "127.0.0.1:10256/healthz"))
    await_condition(layout, "names resolve", lambda: http_succeeds(layout, "127.0.0.1:8181/ready"))
    await_condition(layout, "service accounts exist", lambda: kubectl_succeeds(layout, "get", "serviceaccount", "default"))


def kubectl_succeeds(layout, *words):
    command = [BIN / "kubectl", "--kubeconfig", layout.kubeconfig, *words]
    return not subprocess.run(command, capture_output=True, timeout=30).returncode


def http_succeeds(layout, address):
    """Whether a GET inside the node's namespaces is answered well."""
    program = f"import urllib.request; urllib.request.urlopen('http://{address}', timeout=2)"
    return not subprocess.run(layout.inside([sys.executable, "-c", program]), capture_output=True).returncode


def down(layout, purge=False):
    """Ends what `up` started and removes its state. Binaries, certificates and imported images stay, unless purged."""
    with locked(layout.lock):
        for name in ("kubelet", "coredns", "proxy", "forwarder"):
            stop(layout, name)
        for name in ("controller-manager", "scheduler", "api-server", "etcd"):
            stop(layout, name, signal.SIGKILL)  # their state goes too, so there is nothing to save
        if process_of(layout, "containerd"):
            with contextlib.suppress(Failure, subprocess.TimeoutExpired):
                node.remove_containers(layout)
        stop(layout, "containerd")
        clean(layout)
        if purge:
            shutil.rmtree(layout.state, ignore_errors=True)
        say("the cluster is down")


def clean(layout):
    """Removes processes, namespaces, cgroups and state of a cluster of which no daemon runs."""
    if not layout.api_only:
        namespaces.end_what_is_left(layout)
        namespaces.remove_namespaces(layout)
    for name in ("etcd", "kubelet", "cni", "var-log", "shims", "pids", "logs"):
        shutil.rmtree(layout.state / name, ignore_errors=True)


def load(layout):
    """Imports the images that have been made since."""
    if not process_of(layout, "containerd"):
        raise Failure("the cluster is not up: run `make cluster-up`")
    with locked(layout.lock):
        images.load(layout)


def status(layout):
    """Prints each daemon with its pid and memory, and the node; fails when the cluster is not up."""
    names = running(layout)
    for name in names:
        pid = process_of(layout, name)
        print(f"{name:<20} pid {pid:<8} {memory_mib(pid):5} MiB")
    if not names or not kubectl_succeeds(layout, "get", "--raw", "/readyz"):
        raise Failure("the cluster is not up")
    if not layout.api_only:
        print(run(BIN / "kubectl", "--kubeconfig", layout.kubeconfig, "get", "nodes", "-o", "wide"), end="")
    print(f"export KUBECONFIG={layout.kubeconfig}")


def memory_mib(pid):
    with open(f"/proc/{pid}/status") as lines:
        return next((int(line.split()[1]) // 1024 for line in lines if line.startswith("VmRSS")), 0)


def execute(layout, command):
    """Becomes the command, run where pod and Service addresses are reachable."""
    if not running(layout):
        raise Failure("the cluster is not up: run `make cluster-up`")
    environment = {**os.environ, "KUBECONFIG": str(layout.kubeconfig), "PATH": f"{BIN}:{os.environ['PATH']}"}
    command = layout.inside(command) if layout.api_only else ["nsenter", f"--net={layout.network_namespace}", *command]
    os.execvpe(command[0], command, environment)
