"""Writes container images as OCI layout archives, without a registry or a container engine.

The same folders give the same bytes, and so the same digest, whenever and by whomever they are packed.
"""

import hashlib
import io
import json
import os
import stat
import tarfile
from pathlib import Path

MEDIA = "application/vnd.oci.image"


def write_image(archive, name, layers, config):
    """Packs the folders, one layer each, lowest first. Returns the digest of the image's manifest."""
    packed = [pack_layer(Path(f"{archive}.layer-{number}"), folder) for number, folder in enumerate(layers)]
    blobs = {}

    def blob(value):
        data = json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
        digest = "sha256:" + hashlib.sha256(data).hexdigest()
        blobs[digest] = data
        return {"digest": digest, "size": len(data)}

    configuration = blob({"architecture": "amd64", "os": "linux", "config": config,
                          "rootfs": {"type": "layers", "diff_ids": [layer["digest"] for _, layer in packed]}})
    manifest = blob({
        "schemaVersion": 2, "mediaType": f"{MEDIA}.manifest.v1+json",
        "config": {"mediaType": f"{MEDIA}.config.v1+json", **configuration},
        "layers": [{"mediaType": f"{MEDIA}.layer.v1.tar", **layer} for _, layer in packed],
    })
    index = {"schemaVersion": 2, "mediaType": f"{MEDIA}.index.v1+json", "manifests": [{
        "mediaType": f"{MEDIA}.manifest.v1+json", **manifest, "platform": {"os": "linux", "architecture": "amd64"},
        "annotations": {"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name.rsplit(":", 1)[-1]},
    }]}
    with tarfile.open(archive, "w") as tar:
        add_bytes(tar, "oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
        add_bytes(tar, "index.json", json.dumps(index).encode())
        for digest, data in blobs.items():
            add_bytes(tar, blob_path(digest), data)
        for path, layer in packed:
            tar.addfile(member(blob_path(layer["digest"]), layer["size"]), path.open("rb"))
            path.unlink()
    return manifest["digest"]


def pack_layer(path, folder):
    """Packs a folder into a tar archive; returns the archive's path, and its digest and size."""
    with path.open("wb") as file:
        hashing = HashingWriter(file)
        with tarfile.open(fileobj=hashing, mode="w|", format=tarfile.PAX_FORMAT, bufsize=1 << 20) as tar:
            for found in sorted(Path(folder).rglob("*")):
                add_path(tar, found, folder)
    return path, {"digest": "sha256:" + hashing.digest.hexdigest(), "size": hashing.size}


def add_path(tar, path, folder):
    mode = os.lstat(path).st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_ISLNK(mode)):
        return
    entry = tar.gettarinfo(path, str(path.relative_to(folder)))
    entry.mtime = entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    if entry.isreg():
        with path.open("rb") as content:
            tar.addfile(entry, content)
    else:
        tar.addfile(entry)


def blob_path(digest):
    return "blobs/sha256/" + digest.removeprefix("sha256:")


def member(name, size):
    entry = tarfile.TarInfo(name)
    entry.size = size
    return entry


def add_bytes(tar, name, data):
    tar.addfile(member(name, len(data)), io.BytesIO(data))


class HashingWriter:
    """Counts and hashes what is written through it."""

    def __init__(self, file):
        self.file, self.digest, self.size = file, hashlib.sha256(), 0

    def write(self, data):
        self.digest.update(data)
        self.size += len(data)
        return self.file.write(data)
