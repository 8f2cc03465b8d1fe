"""The images of the cluster: each is made again when what goes into it has changed, and imported when its digest has."""

import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path

from . import node, worker_image
from .build import install_packages
from .layout import CACHE, CACHE_LOCK, DEV, IMAGES, REPOSITORY
from .oci import write_image
from .process import Failure, locked, run, say

NOT_ROOT = "65532:65532"
OPERATOR_IMAGE = "mainstay.dev/operator:dev"
WORKER_IMAGE = "mainstay.dev/worker:dev"
PACKER = Path(__file__).with_name("oci.py")


class Image:
    """An image's archive, with a note of what it was made from and of its digest."""

    def __init__(self, name):
        self.name = name
        self.folder = IMAGES / name.split("/")[1].split(":")[0]
        self.archive = self.folder.with_suffix(".tar")
        self.note = self.folder.with_suffix(".json")

    def is_made_from(self, inputs):
        return self.archive.exists() and self.note.exists() and json.loads(self.note.read_text())["inputs"] == inputs

    @property
    def digest(self):
        return json.loads(self.note.read_text())["digest"]

    def make(self, sources, recipe, config):
        """Makes the image unless it was made from the same sources. `recipe` fills a folder and returns the layers."""
        inputs = digest_of([*sources, PACKER], config)
        with locked(CACHE_LOCK):
            if self.is_made_from(inputs):
                return self
            say(f"making image {self.name}")
            self.note.unlink(missing_ok=True)
            IMAGES.mkdir(parents=True, exist_ok=True)
            layers = recipe(self.folder)
            digest = write_image(self.archive, self.name, layers, config)
            self.note.write_text(json.dumps({"inputs": inputs, "digest": digest}))
            return self


def digest_of(paths, *words):
    """A digest of files, and of all in folders, by content."""
    digest = hashlib.sha256(repr(words).encode())
    for path in paths:
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file():
                digest.update(file.read_bytes())
    return digest.hexdigest()


def emptied(folder):
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def pause():
    source = DEV / "images" / "pause.c"

    def recipe(folder):
        install_packages(["gcc", "libc6-dev"])
        run("gcc", "-static", "-Os", "-s", "-o", emptied(folder) / "pause", source)
        return [folder]

    return Image(node.PAUSE_IMAGE).make([source], recipe, {
        "Entrypoint": ["/pause"], "User": NOT_ROOT})


def operator():
    """Mainstay's binary, and nothing else but a folder for temporary files."""
    binary = build_operator()

    def recipe(folder):
        emptied(folder)
        shutil.copy2(binary, folder / "mainstay")
        (folder / "tmp").mkdir()
        (folder / "tmp").chmod(0o1777)
        return [folder]

    return Image(OPERATOR_IMAGE).make([binary], recipe, {
        "Entrypoint": ["/mainstay"], "User": NOT_ROOT})


def build_operator():
    """Builds the binary without a single shared library.

    The flag is for the last crate alone: given to all it would break procedural macros, which are shared libraries.
    MAINSTAY_PROFILE=dev takes what `cargo build` has compiled: quick to make again, and slow to run.
    """
    cargo, profile = os.environ.get("CARGO", "cargo"), os.environ.get("MAINSTAY_PROFILE", "release")
    say("building the operator")
    command = [cargo, "rustc", "--profile", profile, "--locked", "--bin", "mainstay", "--",
               "-C", "target-feature=+crt-static"]
    if subprocess.run(command, cwd=REPOSITORY, stdin=subprocess.DEVNULL, stdout=2).returncode:
        raise Failure("cannot build the operator")
    metadata = run(cargo, "metadata", "--no-deps", "--format-version=1", cwd=REPOSITORY)
    binary = Path(json.loads(metadata)["target_directory"]) / ("debug" if profile == "dev" else profile) / "mainstay"
    if b"/lib64/ld-linux" in binary.read_bytes()[:4096]:
        raise Failure(f"{binary} needs shared libraries, which the image has not: was another cargo at work there?")
    return binary


def worker():
    """Debian's Python with stock dask, and the flights in a layer of their own."""
    requirements = DEV / "images" / "worker-requirements.txt"
    sources = [Path(worker_image.__file__), requirements, DEV / "flights.py", worker_image.PYTHON]

    def recipe(folder):
        environment = venv()
        emptied(folder)
        worker_image.make_python(folder / "python", environment / "bin" / "pip", requirements)
        shutil.copytree(flights(), folder / "data" / "data" / "flights")
        return [folder / "python", folder / "data"]

    return Image(WORKER_IMAGE).make(sources, recipe, {
        "Cmd": ["python3"], "User": NOT_ROOT, "WorkingDir": "/tmp",
        "Env": ["PATH=/usr/local/bin:/usr/bin:/bin", "HOME=/tmp", "PYTHONUNBUFFERED=1"]})


def environment(name, requirements, recipe):
    """A virtual environment in a folder that `recipe` fills, unless it was made from the same requirements."""
    folder = CACHE / name
    stamp, inputs = folder / "made-from", digest_of(requirements)
    with locked(CACHE_LOCK):
        if stamp.exists() and stamp.read_text() == inputs:
            return folder
        say(f"making the virtual environment {name}")
        install_packages(["python3", "python3-venv"])
        recipe(folder)
        stamp.write_text(inputs)
        return folder


def venv(name="venv", requirements=DEV / "requirements.txt"):
    """One of the same Python as the worker image: by default, that of the tests."""

    def recipe(folder):
        run(worker_image.PYTHON, "-m", "venv", "--clear", folder)
        run(folder / "bin" / "pip", "install", "--quiet", "--requirement", requirements)

    return environment(name, [requirements, DEV / "images" / "worker-requirements.txt"], recipe)


def bench_venv():
    return venv("bench-venv", REPOSITORY / "bench" / "requirements.txt")


def releases():
    """The older releases of `distributed` that are tested too, oldest first."""
    names = [path.stem for path in (DEV / "releases").glob("*.txt")]
    return sorted(names, key=lambda name: tuple(map(int, name.split("."))))


def release_venv(release):
    """The environment of the tests with another release of dask in front of its own: the other packages are the same."""
    tests, requirements = venv(), DEV / "releases" / f"{release}.txt"

    def recipe(folder):
        run(worker_image.PYTHON, "-m", "venv", "--clear", "--without-pip", folder)
        [packages] = folder.glob("lib/python3*/site-packages")
        run(tests / "bin" / "pip", "install", "--quiet", "--no-deps", "--target", packages, "--requirement", requirements)
        [others] = tests.glob("lib/python3*/site-packages")
        (packages / "others.pth").write_text(f"{others}\n")

    return environment(f"venv-{release}", [requirements], recipe)


def flights():
    """The folder with the flights in Parquet."""
    folder, source = CACHE / "flights", DEV / "flights.py"
    stamp, inputs = CACHE / "flights.made-from", digest_of([source])
    with locked(CACHE_LOCK):
        if stamp.exists() and stamp.read_text() == inputs:
            return folder
        say("writing the flights")
        run(venv() / "bin" / "python", source, emptied(folder))
        stamp.write_text(inputs)
        return folder


def load(layout, images=None):
    """Imports into the cluster's containerd what it does not have yet: by default, all that have been made."""
    if images is None:
        images = [image for image in map(Image, (OPERATOR_IMAGE, WORKER_IMAGE)) if image.note.exists()]
    known = dict(line.split()[0:3:2] for line in run(*node.ctr(layout, "images", "ls")).splitlines()[1:])
    for image in images:
        if known.get(image.name) != image.digest:
            say(f"importing {image.name}")
            run(*node.ctr(layout, "images", "import", image.archive))
