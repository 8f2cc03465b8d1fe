"""How etcd, the API server, the controllers and the scheduler are started."""

from pathlib import Path

from .layout import BIN, NODE_IP, SERVICE_CIDR
from .process import start

AUDIT_POLICY = Path(__file__).with_name("audit-policy.yaml")
# Fast enough to be of no matter in tests: the defaults make a namespace wait seconds for its service account.
GENEROUS = ["--kube-api-qps=500", "--kube-api-burst=1000"]


def ports(layout):
    """The ports of etcd (clients and peers) and of the API server."""
    if layout.api_only:
        return layout.port("etcd"), layout.port("etcd-peers"), layout.port("api-server")
    return 2379, 2380, 6443


def start_etcd(layout, launch):
    clients, peers, _ = ports(layout)
    start(layout, "etcd", launch([
        BIN / "etcd", "--data-dir", layout.state / "etcd", "--log-level", "warn",
        "--listen-client-urls", f"http://127.0.0.1:{clients}", "--advertise-client-urls", f"http://127.0.0.1:{clients}",
        "--listen-peer-urls", f"http://127.0.0.1:{peers}", "--quota-backend-bytes", 2 << 30,
        "--unsafe-no-fsync",  # it need not outlive the machine
    ]), launch.cgroups)


def start_api_server(layout, launch):
    etcd, _, port = ports(layout)
    pki = layout.pki
    start(layout, "api-server", launch([
        BIN / "kube-apiserver", f"--etcd-servers=http://127.0.0.1:{etcd}",
        f"--bind-address={'127.0.0.1' if layout.api_only else '0.0.0.0'}", f"--secure-port={port}",
        f"--advertise-address={NODE_IP}", f"--service-cluster-ip-range={SERVICE_CIDR}",
        "--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction", "--allow-privileged=true",
        f"--client-ca-file={pki}/ca.crt", f"--tls-cert-file={pki}/apiserver.crt",
        f"--tls-private-key-file={pki}/apiserver.key",
        f"--kubelet-certificate-authority={pki}/ca.crt", "--kubelet-preferred-address-types=InternalIP",
        f"--kubelet-client-certificate={pki}/apiserver-to-kubelet.crt",
        f"--kubelet-client-key={pki}/apiserver-to-kubelet.key",
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
        f"--service-account-key-file={pki}/service-accounts.pub",
        f"--service-account-signing-key-file={pki}/service-accounts.key",
        f"--requestheader-client-ca-file={pki}/front-proxy-ca.crt",
        "--requestheader-allowed-names=front-proxy-client", "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        "--requestheader-group-headers=X-Remote-Group", "--requestheader-username-headers=X-Remote-User",
        f"--proxy-client-cert-file={pki}/front-proxy.crt", f"--proxy-client-key-file={pki}/front-proxy.key",
        f"--audit-policy-file={AUDIT_POLICY}", f"--audit-log-path={layout.logs}/audit.log", "--audit-log-maxsize=100",
        "--audit-log-maxbackup=1", "--profiling=false", *(ALONE if layout.api_only else ["--enable-aggregator-routing=true"]),
    ]), launch.cgroups)


# Without controllers no namespace gets its default service account, and without a node nobody reaches a Service.
ALONE = ["--disable-admission-plugins=ServiceAccount", "--endpoint-reconciler-type=none"]


def start_controllers(layout, launch):
    pki = layout.pki
    start(layout, "controller-manager", launch([
        BIN / "kube-controller-manager", f"--kubeconfig={layout.state}/controller-manager.kubeconfig",
        "--bind-address=127.0.0.1", "--leader-elect=false", "--use-service-account-credentials=true",
        f"--service-account-private-key-file={pki}/service-accounts.key", f"--root-ca-file={pki}/ca.crt",
        f"--cluster-signing-cert-file={pki}/ca.crt", f"--cluster-signing-key-file={pki}/ca.key",
        "--profiling=false", *GENEROUS,
    ]), launch.cgroups)
    start(layout, "scheduler", launch([
        BIN / "kube-scheduler", f"--kubeconfig={layout.state}/scheduler.kubeconfig",
        "--bind-address=127.0.0.1", "--leader-elect=false", "--profiling=false", *GENEROUS,
    ]), launch.cgroups)
