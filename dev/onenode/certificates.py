"""Certificates and kubeconfigs, made once with openssl and kept until the state is purged."""

import base64

from .layout import KUBERNETES_SERVICE_IP, NODE_IP, NODE_NAME
from .process import run

DAYS = 3650
KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
API_SERVER_NAMES = ",".join([
    "IP:127.0.0.1", f"IP:{NODE_IP}", f"IP:{KUBERNETES_SERVICE_IP}", "DNS:localhost", "DNS:kubernetes",
    "DNS:kubernetes.default", "DNS:kubernetes.default.svc", "DNS:kubernetes.default.svc.cluster.local",
])
# User: subject. RBAC knows these names.
CLIENTS = {
    "admin": "/O=system:masters/CN=admin",
    "controller-manager": "/CN=system:kube-controller-manager",
    "scheduler": "/CN=system:kube-scheduler",
    "proxy": "/CN=system:kube-proxy",
    "kubelet": f"/O=system:nodes/CN=system:node:{NODE_NAME}",
    "coredns": "/CN=coredns",
}


def make_certificates(layout):
    """All keys and certificates of the cluster; nothing when they are there."""
    done = layout.pki / "done"
    if done.exists():
        return
    layout.pki.mkdir(parents=True, exist_ok=True, mode=0o700)
    authority(layout, "ca")
    authority(layout, "front-proxy-ca")
    certificate(layout, "apiserver", "/CN=kube-apiserver", "serverAuth", names=API_SERVER_NAMES)
    certificate(layout, "apiserver-to-kubelet", "/O=system:masters/CN=kube-apiserver-kubelet-client", "clientAuth")
    certificate(layout, "front-proxy", "/CN=front-proxy-client", "clientAuth", signer="front-proxy-ca")
    certificate(layout, "kubelet-server", f"/O=system:nodes/CN=system:node:{NODE_NAME}", "serverAuth",
                names=f"IP:{NODE_IP},IP:127.0.0.1,DNS:{NODE_NAME}")
    for user, subject in CLIENTS.items():
        certificate(layout, user, subject, "clientAuth")
    run("openssl", "genrsa", "-out", layout.pki / "service-accounts.key", "2048")
    run("openssl", "rsa", "-in", layout.pki / "service-accounts.key", "-pubout",
        "-out", layout.pki / "service-accounts.pub")
    done.touch()


def authority(layout, name):
    run("openssl", "req", "-x509", *KEY, "-days", DAYS, "-subj", f"/CN={name}",
        "-keyout", layout.pki / f"{name}.key", "-out", layout.pki / f"{name}.crt")


def certificate(layout, name, subject, usage, names=None, signer="ca"):
    pki = layout.pki
    extensions = f"basicConstraints=CA:FALSE\nkeyUsage=digitalSignature\nextendedKeyUsage={usage}\n"
    extensions += f"subjectAltName={names}\n" if names else ""
    (pki / f"{name}.ext").write_text(extensions)
    run("openssl", "req", *KEY, "-subj", subject, "-keyout", pki / f"{name}.key", "-out", pki / f"{name}.csr")
    run("openssl", "x509", "-req", "-in", pki / f"{name}.csr", "-CA", pki / f"{signer}.crt",
        "-CAkey", pki / f"{signer}.key", "-CAcreateserial", "-days", DAYS,
        "-extfile", pki / f"{name}.ext", "-out", pki / f"{name}.crt")
    (pki / f"{name}.csr").unlink()
    (pki / f"{name}.ext").unlink()


def write_kubeconfig(layout, path, user, server):
    """A kubeconfig that holds the certificates itself, so that it can be copied anywhere."""
    def encoded(name):
        return base64.b64encode((layout.pki / name).read_bytes()).decode()

    text = f"""\
apiVersion: v1
kind: Config
clusters: [{{name: {layout.name}, cluster: {{server: "{server}", certificate-authority-data: {encoded("ca.crt")}}}}}]
users: [{{name: {user}, user: {{client-certificate-data: {encoded(f"{user}.crt")}, client-key-data: {encoded(f"{user}.key")}}}}}]
contexts: [{{name: {layout.name}, context: {{cluster: {layout.name}, user: {user}}}}}]
current-context: {layout.name}
"""
    if not path.exists() or path.read_text() != text:
        path.touch(mode=0o600)
        path.write_text(text)
