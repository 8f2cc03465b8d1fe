"""An API server, spoken to over one connection a thread."""

import base64
import http.client
import json
import ssl
import tempfile
import threading
import urllib.parse

import yaml

GROUP = "/apis/mainstay.dev/v1alpha1"
APPLY, MERGE = "application/apply-patch+yaml", "application/merge-patch+json"


class ApiServer:
    def __init__(self, kubeconfig):
        self.kubeconfig = kubeconfig
        config = yaml.safe_load(open(kubeconfig))
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        self.address = urllib.parse.urlsplit(cluster["server"])
        self.context = ssl.create_default_context(
            cadata=base64.b64decode(cluster["certificate-authority-data"]).decode()
        )
        with tempfile.NamedTemporaryFile() as certificate, tempfile.NamedTemporaryFile() as key:
            for file, field in ((certificate, "client-certificate-data"), (key, "client-key-data")):
                file.write(base64.b64decode(user[field]))
                file.flush()
            self.context.load_cert_chain(certificate.name, key.name)
        self.local = threading.local()

    def request(self, method, path, body=None, content="application/json"):
        """What the API server answers, as text."""
        try:
            response = self.answer(method, path, body, content)
        except http.client.RemoteDisconnected:
            # It closes connections on which nothing was said for long.
            del self.local.connection
            response = self.answer(method, path, body, content)
        text = response.read().decode()
        if response.status >= 300:
            raise RuntimeError(f"{method} {path}: {response.status} {text}")
        return text

    def answer(self, method, path, body, content):
        if not hasattr(self.local, "connection"):
            self.local.connection = http.client.HTTPSConnection(
                self.address.hostname, self.address.port, context=self.context
            )
        self.local.connection.request(method, path, body and json.dumps(body), {"Content-Type": content})
        return self.local.connection.getresponse()

    def get(self, path):
        return json.loads(self.request("GET", path))

    def apply(self, path, body):
        """What `kubectl apply --server-side` sends."""
        return self.request("PATCH", f"{path}?fieldManager=bench&force=true", body, APPLY)

    def status_writes(self):
        """How many writes of the statuses of collections the API server has counted."""
        wanted = ('resource="persistedcollections"', 'subresource="status"')
        lines = self.request("GET", "/metrics").splitlines()
        counts = [
            line for line in lines if line.startswith("apiserver_request_total{") and all(w in line for w in wanted)
        ]
        return sum(float(line.rpartition(" ")[2]) for line in counts if 'verb="GET"' not in line)


def collections(namespace):
    return f"{GROUP}/namespaces/{namespace}/persistedcollections"


def collection(name, source, **spec):
    about = {"apiVersion": "mainstay.dev/v1alpha1", "kind": "PersistedCollection", "metadata": {"name": name}}
    return {**about, "spec": {"source": source, **spec}}


def pod(name):
    """A pod that nobody starts."""
    containers = [{"name": "worker", "image": "none", "command": ["dask", "worker"]}]
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {"containers": containers}}
