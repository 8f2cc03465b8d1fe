"""How the node is started: containerd, the kubelet, kube-proxy and CoreDNS, with their configuration."""

import json
import subprocess
import sys

from .layout import BIN, DEV, NODE_IP, NODE_NAME, POD_CIDR
from .process import run, start

PAUSE_IMAGE = "mainstay.dev/pause:dev"


def start_containerd(layout, launch):
    bridge = {
        "cniVersion": "1.0.0", "name": "pods", "plugins": [
            {"type": "bridge", "bridge": "pods0", "isGateway": True, "hairpinMode": True, "ipam": {
                "type": "host-local", "dataDir": "/var/lib/cni/addresses",
                "ranges": [[{"subnet": "10.244.0.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
            {"type": "portmap", "capabilities": {"portMappings": True}},
        ],
    }
    write(layout.state / "net.d" / "10-pods.conflist", json.dumps(bridge, indent=1))
    write(layout.state / "containerd.toml", f"""\
version = 3
root = "{layout.state}/containerd"
state = "{layout.run}/containerd"
disabled_plugins = ["io.containerd.internal.v1.opt", "io.containerd.snapshotter.v1.blockfile", "io.containerd.snapshotter.v1.erofs", "io.containerd.differ.v1.erofs", "io.containerd.nri.v1.nri", "io.containerd.tracing.processor.v1.otlp"]
oom_score = 0

[grpc]
  address = "{layout.containerd_socket}"

[plugins."io.containerd.cri.v1.images"]
  snapshotter = "overlayfs"
  [plugins."io.containerd.cri.v1.images".pinned_images]
    sandbox = "{PAUSE_IMAGE}"

[plugins."io.containerd.cri.v1.runtime"]
  # Root may lack CAP_SYS_RESOURCE, in a virtual machine or container of its own, and then lowering a score fails.
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  disable_apparmor = true
  disable_hugetlb_controller = true
  tolerate_missing_hugetlb_controller = true
  enable_selinux = false
  [plugins."io.containerd.cri.v1.runtime".cni]
    bin_dirs = ["{BIN}"]
    conf_dir = "{layout.state}/net.d"
  [plugins."io.containerd.cri.v1.runtime".containerd]
    default_runtime_name = "runc"
    [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
        BinaryName = "{BIN}/runc"
        SystemdCgroup = false
        Root = "{layout.run}/runc"
""")
    start(layout, "containerd", launch([BIN / "containerd", "-c", layout.state / "containerd.toml"]), launch.cgroups)


def containerd_answers(layout):
    return not subprocess.run(ctr(layout, "version"), capture_output=True).returncode


def ctr(layout, *words):
    """The command that speaks to the cluster's containerd. It goes inside, where the snapshots are mounted."""
    return layout.inside([str(BIN / "ctr"), "-a", str(layout.containerd_socket), "-n", "k8s.io", *words])


def remove_containers(layout):
    """Removes all containers, so that containerd lets go of their file systems."""
    tasks = run(*ctr(layout, "tasks", "ls", "-q"), timeout=20).split()
    if tasks:
        subprocess.run(ctr(layout, "tasks", "rm", "--force", *tasks), capture_output=True, timeout=30)
    containers = run(*ctr(layout, "containers", "ls", "-q"), timeout=20).split()
    if containers:
        subprocess.run(ctr(layout, "containers", "rm", *containers), capture_output=True, timeout=30)


def start_kubelet(layout, launch):
    write(layout.state / "kubelet.yaml", f"""\
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: 0.0.0.0
authentication: {{anonymous: {{enabled: false}}, webhook: {{enabled: true}}, x509: {{clientCAFile: "{layout.pki}/ca.crt"}}}}
authorization: {{mode: Webhook}}
tlsCertFile: "{layout.pki}/kubelet-server.crt"
tlsPrivateKeyFile: "{layout.pki}/kubelet-server.key"
containerRuntimeEndpoint: unix://{layout.containerd_socket}
cgroupDriver: cgroupfs
cgroupRoot: /{layout.name}
failCgroupV1: false
failSwapOn: false
oomScoreAdj: 0
clusterDNS: [{NODE_IP}]
clusterDomain: cluster.local
# Pods reach nothing outside of the node, so they need no name server but CoreDNS.
resolvConf: ""
maxPods: 250
evictionHard: {{memory.available: 100Mi, nodefs.available: 1%, imagefs.available: 1%, nodefs.inodesFree: 1%}}
# No registry has our images: one that is collected would be gone.
imageGCHighThresholdPercent: 100
imageGCLowThresholdPercent: 99
registryPullQPS: 0
eventRecordQPS: 0
kubeAPIQPS: 200
kubeAPIBurst: 400
serializeImagePulls: false
""")
    start(layout, "kubelet", launch([
        BIN / "kubelet", f"--config={layout.state}/kubelet.yaml", f"--kubeconfig={layout.state}/kubelet.kubeconfig",
        f"--hostname-override={NODE_NAME}", f"--node-ip={NODE_IP}",
    ]), launch.cgroups)


def start_proxy(layout, launch):
    write(layout.state / "proxy.yaml", f"""\
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
clientConnection: {{kubeconfig: "{layout.state}/proxy.kubeconfig"}}
hostnameOverride: {NODE_NAME}
clusterCIDR: {POD_CIDR}
mode: iptables
bindAddress: {NODE_IP}
healthzBindAddress: 127.0.0.1:10256
metricsBindAddress: 127.0.0.1:10249
conntrack: {{maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}}
""")
    start(layout, "proxy", launch([BIN / "kube-proxy", f"--config={layout.state}/proxy.yaml"]), launch.cgroups)


COREDNS_RIGHTS = """\
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: coredns}
rules:
- {apiGroups: [""], resources: [endpoints, services, pods, namespaces], verbs: [list, watch]}
- {apiGroups: [discovery.k8s.io], resources: [endpointslices], verbs: [list, watch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: coredns}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: coredns}
subjects: [{kind: User, name: coredns, apiGroup: rbac.authorization.k8s.io}]
"""


def start_coredns(layout, launch):
    write(layout.state / "coredns.yaml", COREDNS_RIGHTS)
    run(BIN / "kubectl", "--kubeconfig", layout.kubeconfig, "apply", "-f", layout.state / "coredns.yaml")
    write(layout.state / "Corefile", f"""\
.:53 {{
  bind {NODE_IP}
  errors
  ready 127.0.0.1:8181
  kubernetes cluster.local in-addr.arpa {{
    kubeconfig "{layout.state}/coredns.kubeconfig" {layout.name}
    ttl 1
  }}
}}
""")
    start(layout, "coredns", launch([BIN / "coredns", "-conf", layout.state / "Corefile"]), launch.cgroups)


def start_forwarder(layout, cgroups):
    """Lets the host reach the API server. It is started outside, listens there, and then goes inside by itself."""
    start(layout, "forwarder", [
        sys.executable, DEV / "onenode" / "forward.py", layout.network_namespace,
        f"{layout.port('api-server')}:127.0.0.1:6443",
    ], cgroups)


def write(path, text):
    """Writes only what changed: kube-proxy exits when its file is touched."""
    if path.exists() and path.read_text() == text:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
