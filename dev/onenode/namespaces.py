"""The room in which the node's daemons run: a network and a mount namespace, and a cgroup.

The kubelet and containerd insist on some paths and kernel settings of the machine. In the mount namespace these are ours,
so that nothing of the host is changed, clusters do not meet, and all mounts go when the namespace goes.
"""

import contextlib
import os
import signal
import time
from pathlib import Path

from .layout import NODE_IP
from .process import run

CGROUPS = Path("/sys/fs/cgroup")

# Path that a daemon insists on: folder of the cluster's state that is seen there.
PRIVATE_FOLDERS = {
    "/var/lib/kubelet": "kubelet",
    "/var/lib/cni": "cni",
    "/var/log": "var-log",
    "/run/containerd": "shims",
}
# The kubelet sets these for the whole machine. It is shown its wishes as fulfilled instead.
KERNEL_SETTINGS = {
    "vm/overcommit_memory": 1, "vm/panic_on_oom": 0, "kernel/panic": 10, "kernel/panic_on_oops": 1,
    "kernel/keys/root_maxkeys": 1000000, "kernel/keys/root_maxbytes": 25000000,
}


def make_namespaces(layout):
    """Makes the namespaces and keeps them by a mount each, so that they stay without a process."""
    if is_mounted(layout.mount_namespace):
        return
    layout.run.mkdir(parents=True, exist_ok=True)
    # A mount namespace can only be kept on a mount that is not shared with others.
    run("mount", "--bind", layout.run, layout.run)
    run("mount", "--make-private", layout.run)
    layout.network_namespace.touch()
    layout.mount_namespace.touch()
    run("unshare", f"--net={layout.network_namespace}", f"--mount={layout.mount_namespace}", "--propagation=private",
        "sh", "-ec", setup_script(layout))


def setup_script(layout):
    """What is done once inside of the new namespaces."""
    lines = [f"ip link set lo up; ip address add {NODE_IP}/32 dev lo; echo 1 > /proc/sys/net/ipv4/ip_forward"]
    for target, name in PRIVATE_FOLDERS.items():
        source = layout.state / name
        source.mkdir(parents=True, exist_ok=True)
        Path(target).mkdir(parents=True, exist_ok=True)
        lines.append(f"mount --bind '{source}' {target}")
    settings = layout.state / "kernel-settings"
    settings.mkdir(parents=True, exist_ok=True)
    for name, value in KERNEL_SETTINGS.items():
        source = settings / name.replace("/", ".")
        source.write_text(f"{value}\n")
        lines.append(f"mount --bind '{source}' /proc/sys/{name}")
    return "\n".join(lines)


def remove_namespaces(layout):
    """Lets go of the namespaces; the kernel ends their mounts and links with them."""
    for path in (layout.network_namespace, layout.mount_namespace, layout.run):
        while is_mounted(path):
            run("umount", "--lazy", path)
    for path in layout.run.glob("*") if layout.run.exists() else ():
        path.unlink() if not path.is_dir() else run("rm", "-rf", "--one-file-system", path)
    with contextlib.suppress(FileNotFoundError):
        layout.run.rmdir()


def is_mounted(path):
    with open("/proc/self/mountinfo") as mounts:
        return any(line.split()[4] == str(path) for line in mounts)


def is_unified():
    """Whether the machine has cgroup v2 alone."""
    return (CGROUPS / "cgroup.controllers").exists()


def hierarchies():
    """The root of every cgroup hierarchy: one a controller in v1, a single one in v2."""
    if is_unified():
        return [CGROUPS]
    return [path for path in CGROUPS.iterdir() if (path / "cgroup.procs").exists()]


def make_cgroups(layout):
    """Makes the cluster's cgroups, and returns those that the daemons join."""
    daemons = []
    for root in hierarchies():
        for cgroup in (root / layout.name, root / layout.name / "daemons"):
            cgroup.mkdir(exist_ok=True)
            # In v1 a cpuset takes no process before it has processors and memory.
            for name in ("cpuset.cpus", "cpuset.mems"):
                if (root / name).exists() and not is_unified():
                    (cgroup / name).write_text((root / name).read_text())
        if is_unified():
            controllers = (root / "cgroup.controllers").read_text().split()
            for cgroup in (root, root / layout.name):
                (cgroup / "cgroup.subtree_control").write_text(" ".join(f"+{name}" for name in controllers))
        if is_unified() or root.name in ("pids", "memory", "cpuacct"):
            daemons.append(root / layout.name / "daemons")
    return daemons


def end_what_is_left(layout):
    """Kills all processes of the cluster's cgroup and removes it."""
    tree = CGROUPS / layout.name if is_unified() else CGROUPS / "pids" / layout.name
    deadline = time.monotonic() + 10
    while (pids := processes_in(tree)) and time.monotonic() < deadline:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)
    for root in hierarchies():
        for folder, _, _ in os.walk(root / layout.name, topdown=False):
            with contextlib.suppress(OSError):
                os.rmdir(folder)


def processes_in(tree):
    return [int(pid) for path in tree.rglob("cgroup.procs") for pid in read_quietly(path).split()]


def read_quietly(path):
    """The file's text; none when its cgroup has just gone."""
    try:
        return path.read_text()
    except OSError:
        return ""
