"""Builds the binaries of the cluster from the Go modules beside this folder, each once per version of its module."""

import hashlib
import os
import shutil
import subprocess

from .layout import BIN, CACHE_LOCK, DEV
from .process import Failure, locked, run, say

KUBERNETES = "v1.37.2"
CONTAINERD = "v2.4.2"

VERSION = "k8s.io/component-base/version"
KUBERNETES_FLAGS = (
    f"-X {VERSION}.gitVersion={KUBERNETES} -X {VERSION}.gitMajor=1 -X {VERSION}.gitMinor=37"
    f" -X {VERSION}.gitTreeState=clean -X {VERSION}.gitCommit=unknown"
)
CONTAINERD_FLAGS = f"-X github.com/containerd/containerd/v2/version.Version={CONTAINERD}"
CONTAINERD_TAGS = "no_btrfs no_devmapper no_zfs no_aufs urfave_cli_no_docs"
CONTAINERD_COMMANDS = "github.com/containerd/containerd/v2/cmd"
PLUGINS = "github.com/containernetworking/plugins/plugins"

# The names by which the one binary of Kubernetes is called.
HYPER = ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy", "kubelet", "kubectl"]


class Binary:
    """One binary: its package in one of our modules, and how to build it.

    Without cgo unless it needs it: cgo changes the package `net`, and with it nearly everything would compile twice.
    """

    def __init__(self, name, module, package=".", tags="", flags="", cgo=False):
        self.name, self.module, self.package = name, DEV / module, package
        self.tags, self.flags, self.cgo = tags, flags, cgo

    def stamp(self):
        """A digest of all that decides what the binary is, but for the Go release."""
        digest = hashlib.sha256(repr((self.package, self.tags, self.flags, self.cgo)).encode())
        for path in sorted([*self.module.glob("go.*"), *self.module.glob("*.go")]):
            digest.update(path.read_bytes())
        return digest.hexdigest()

    def is_built(self):
        stamp = BIN / ".stamps" / self.name
        return (BIN / self.name).exists() and stamp.exists() and stamp.read_text() == self.stamp()

    def build(self):
        say(f"building {self.name}")
        BIN.mkdir(parents=True, exist_ok=True)
        fresh = BIN / f".{self.name}.new"
        command = ["go", "build", "-trimpath", "-buildvcs=false", "-mod=readonly", "-tags", self.tags,
                   "-ldflags", f"-s -w {self.flags}", "-o", fresh, self.package]
        done = subprocess.run([str(word) for word in command], cwd=self.module, stdin=subprocess.DEVNULL,
                              stdout=2, env={**os.environ, "CGO_ENABLED": "1" if self.cgo else "0"})
        if done.returncode:
            raise Failure(f"cannot build {self.name} from {self.module}")
        # A daemon that runs the old file keeps it.
        fresh.replace(BIN / self.name)
        (BIN / ".stamps").mkdir(exist_ok=True)
        (BIN / ".stamps" / self.name).write_text(self.stamp())


KUBERNETES_BINARY = Binary("hyper", "kubernetes", flags=KUBERNETES_FLAGS)
NODE_BINARIES = [
    *(Binary(name, "containerd", f"{CONTAINERD_COMMANDS}/{name}", CONTAINERD_TAGS, CONTAINERD_FLAGS)
      for name in ("containerd", "containerd-shim-runc-v2", "ctr")),
    # The kubelet gives every sandbox a seccomp profile, which a runc without the tag refuses.
    Binary("runc", "containerd", "github.com/opencontainers/runc", "seccomp urfave_cli_no_docs", cgo=True),
    *(Binary(path.split("/")[1], "containerd", f"{PLUGINS}/{path}")
      for path in ("main/bridge", "main/loopback", "ipam/host-local", "meta/portmap")),
    Binary("coredns", "coredns"),
]
HELM = Binary("helm", "helm", "helm.sh/helm/v4/cmd/helm")

# Commands of cargo's registry, each with its version. They are not part of Cargo.lock: nothing of them goes into the binary.
CARGO_TOOLS = {"cargo-deny": "0.20.2", "cargo-cyclonedx": "0.5.9"}

NODE_PACKAGES = ["iproute2", "iptables", "util-linux"]
RUNC_PACKAGES = ["gcc", "libc6-dev", "libseccomp-dev", "pkg-config"]


def build(binaries):
    """Builds those that are missing or of another version."""
    with locked(CACHE_LOCK):
        missing = [binary for binary in binaries if not binary.is_built()]
        if missing and not shutil.which("go"):
            raise Failure("go is needed to build the cluster, and is not on the PATH")
        if any(binary.name == "runc" for binary in missing):
            install_packages(RUNC_PACKAGES)
        if KUBERNETES_BINARY in missing:
            say("the first build of Kubernetes takes about ten minutes on two cores")
        for binary in missing:
            binary.build()
        for name in HYPER if KUBERNETES_BINARY in missing else ():
            (BIN / name).unlink(missing_ok=True)
            (BIN / name).symlink_to("hyper")


def cargo_tool(name):
    """Installs a command of cargo; gives its path."""
    version, folder = CARGO_TOOLS[name], BIN.parent / "cargo-tools"
    binary, stamp = folder / "bin" / name, folder / f"{name}.version"
    with locked(CACHE_LOCK):
        if not binary.exists() or not stamp.exists() or stamp.read_text() != version:
            say(f"building {name}")
            cargo = os.environ.get("CARGO", "cargo").split()
            # Optimising it takes longer than it ever runs.
            run(*cargo, "install", "--quiet", "--debug", "--locked", "--force", "--root", folder, "--version", version, name)
            stamp.write_text(version)
    return binary


def install_packages(names):
    """Installs the Debian packages that are not there yet."""
    missing = [name for name in names if not is_installed(name)]
    if not missing:
        return
    if not shutil.which("apt-get"):
        raise Failure(f"install these first: {' '.join(missing)}")
    say(f"installing Debian packages: {' '.join(missing)}")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    run("apt-get", "update", "-qq", env=environment)
    run("apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing, env=environment)


def is_installed(package):
    """Whether dpkg has the package unpacked and configured."""
    query = ["dpkg-query", "--show", "--showformat=${db:Status-Status}", package]
    return "installed" == subprocess.run(query, capture_output=True, text=True).stdout
