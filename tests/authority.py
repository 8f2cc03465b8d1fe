"""Certificates as an authority of one's own gives them, made with openssl."""

import subprocess

from distributed.security import Security

KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
EXTENSIONS = "basicConstraints=CA:FALSE\nkeyUsage=digitalSignature\nextendedKeyUsage=serverAuth,clientAuth\n"


class Authority:
    """Signs certificates; its files are in a folder of its own."""

    def __init__(self, folder):
        self.folder = folder
        folder.mkdir(parents=True)
        self.file = folder / "ca.crt"
        openssl("req", "-x509", *KEY, "-days", 1, "-subj", f"/CN={folder.name}", "-keyout", folder / "ca.key", "-out", self.file)

    def give(self, name, days=1):
        """The files of another certificate; with less than a day it has expired."""
        request, certificate, key = (self.folder / f"{name}.{ending}" for ending in ("csr", "crt", "key"))
        extensions = self.folder / "extensions"
        extensions.write_text(EXTENSIONS)
        openssl("req", *KEY, "-subj", f"/CN={name}", "-keyout", key, "-out", request)
        openssl("x509", "-req", "-in", request, "-CA", self.file, "-CAkey", self.folder / "ca.key", "-CAcreateserial",
                "-days", days, "-extfile", extensions, "-out", certificate)
        return Files(self.file, certificate, key)


class Files:
    """What one side of a comm is started with."""

    def __init__(self, authorities, certificate, key):
        self.authorities, self.certificate, self.key = authorities, certificate, key

    @property
    def flags(self):
        return ["--tls-ca-file", self.authorities, "--tls-cert", self.certificate, "--tls-key", self.key]

    @property
    def security(self):
        return Security(tls_ca_file=str(self.authorities), tls_client_cert=str(self.certificate),
                        tls_client_key=str(self.key), require_encryption=True)

    def copy_to(self, folder):
        folder.mkdir(parents=True, exist_ok=True)
        copies = Files(folder / "ca.crt", folder / "tls.crt", folder / "tls.key")
        copies.become(self)
        return copies

    def become(self, *others):
        """Has the files say what others say: all of their authorities, and the certificate of the last."""
        put(self.authorities, "".join(other.authorities.read_text() for other in others))
        put(self.certificate, others[-1].certificate.read_text())
        put(self.key, others[-1].key.read_text())


def put(path, text):
    """Replaces a file at once, as a mounted Secret is replaced."""
    path.with_suffix(".new").write_text(text)
    path.with_suffix(".new").replace(path)


def openssl(*words):
    done = subprocess.run(["openssl", *map(str, words)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
