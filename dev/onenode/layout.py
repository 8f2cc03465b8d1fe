"""Where everything is, and what it is called.

Names that the whole machine sees (namespaces, cgroups, a folder in /run) carry a hash of the checkout's path, so that two
checkouts can each have a cluster up at the same time.
"""

import hashlib
import socket
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
DEV = REPOSITORY / "dev"
CACHE = REPOSITORY / ".cache"
BIN = CACHE / "bin"
IMAGES = CACHE / "images"
# Held while something below .cache that clusters share is made.
CACHE_LOCK = CACHE / "lock"

# All inside the node's own network namespace, so the same for every cluster.
NODE_NAME = "node"
NODE_IP = "172.30.0.1"
POD_CIDR = "10.244.0.0/16"
SERVICE_CIDR = "10.96.0.0/16"
KUBERNETES_SERVICE_IP = "10.96.0.1"


class Layout:
    """The paths, names and ports of one cluster; `api_only` is the one without a node, for API server tests."""

    def __init__(self, api_only=False):
        digest = hashlib.sha256(str(REPOSITORY).encode()).hexdigest()[:8]
        self.api_only = api_only
        self.name = f"mainstay-{digest}" + ("-api" if api_only else "")
        self.state = CACHE / ("cluster-api" if api_only else "cluster")
        self.pki = self.state / "pki"
        self.lock = CACHE / f"{self.state.name}.lock"
        self.logs = self.state / "logs"
        self.pids = self.state / "pids"
        self.kubeconfig = self.state / "kubeconfig"
        # Unix sockets live here: their paths may not exceed 107 bytes, however deep the checkout is.
        self.run = Path("/run") / self.name
        self.containerd_socket = self.run / "containerd.sock"
        self.network_namespace = self.run / "net"
        self.mount_namespace = self.run / "mnt"

    def inside(self, command):
        """The command, run inside the node's namespaces."""
        if self.api_only:
            return list(command)
        return ["nsenter", f"--net={self.network_namespace}", f"--mount={self.mount_namespace}", *command]

    def port(self, what):
        """A port of the host's loopback for `what`: the one of last time, unless someone else has it by now."""
        path = self.state / "ports" / what
        if path.exists():
            return int(path.read_text())
        path.parent.mkdir(parents=True, exist_ok=True)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        path.write_text(f"{port}\n")
        return port

    def forget_taken_ports(self):
        """Drops the ports that others took while this cluster was down. Call it only when nothing of it runs."""
        for path in (self.state / "ports").glob("*"):
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind(("127.0.0.1", int(path.read_text())))
                except OSError:
                    path.unlink()
