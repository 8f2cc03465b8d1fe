"""The root file system of the worker image: Debian's own Python, what it links to, and stock dask.

A copy of the machine's Python takes seconds, where a debootstrap takes minutes and gives a larger image.
"""

import shutil
import subprocess
from pathlib import Path

from .build import install_packages
from .process import run

PYTHON = Path("/usr/bin/python3")
LEFT_OUT = ("test", "tests", "__pycache__", "idlelib", "tkinter", "ensurepip", "lib2to3", "config-3*", "include", "*.pyi")
LIBRARIES = Path("/lib/x86_64-linux-gnu")
# Loaded by name at run time, so that no binary lists them.
LOADED_BY_NAME = ["libnss_dns.so.2", "libnss_files.so.2", "libresolv.so.2", "libgcc_s.so.1", "libstdc++.so.6"]
DASK = """\
#!/usr/bin/python3
import sys
from dask.__main__ import main
# Processes that dask starts import this file: without the guard each would start workers of its own.
if __name__ == "__main__":
    sys.exit(main())
"""


def make_python(root, pip, requirements):
    """Fills the folder `root`."""
    install_packages(["python3", "busybox-static"])
    for folder in ("usr/bin", "usr/lib", "usr/lib64", "usr/local/bin", "usr/share", "etc", "proc", "sys", "dev", "run"):
        (root / folder).mkdir(parents=True)
    (root / "tmp").mkdir()
    (root / "tmp").chmod(0o1777)
    for name in ("bin", "lib", "lib64"):
        (root / name).symlink_to(f"usr/{name}")
    packages = copy_interpreter(root)
    run(pip, "install", "--quiet", "--no-deps", "--no-compile", "--target", packages, "--requirement", requirements)
    prune(packages)
    copy_libraries(root)
    add_shell(root)
    compile_modules(root)
    (root / "usr/local/bin/dask").write_text(DASK)
    (root / "usr/local/bin/dask").chmod(0o755)
    (root / "etc/passwd").write_text("root:x:0:0:root:/:/bin/sh\ndask:x:65532:65532:dask:/tmp:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\ndask:x:65532:\n")
    (root / "etc/nsswitch.conf").write_text("hosts: files dns\n")


def copy_interpreter(root):
    """Copies the interpreter and its standard library; returns the folder for packages."""
    interpreter = PYTHON.resolve()
    shutil.copy2(interpreter, root / "usr/bin")
    for name in ("python3", "python"):
        (root / "usr/bin" / name).symlink_to(interpreter.name)
    shutil.copytree(Path("/usr/lib") / interpreter.name, root / "usr/lib" / interpreter.name,
                    symlinks=False, ignore=shutil.ignore_patterns(*LEFT_OUT), ignore_dangling_symlinks=True)
    packages = root / "usr/local/lib" / interpreter.name / "dist-packages"
    packages.mkdir(parents=True)
    # Arrow looks up time zones here.
    if Path("/usr/share/zoneinfo").exists():
        shutil.copytree("/usr/share/zoneinfo", root / "usr/share/zoneinfo", symlinks=True)
    return packages


def prune(packages):
    """Removes what is there for building on, or for testing, the packages: a fifth of the image."""
    shutil.rmtree(packages / "bin", ignore_errors=True)
    for path in ("pandas/tests", "pyarrow/tests", "pyarrow/include", "pyarrow/src", "distributed/tests", "dask/tests"):
        shutil.rmtree(packages / path, ignore_errors=True)


def copy_libraries(root):
    """Copies every shared library that something in the image links to, as the machine's linker finds it."""
    wanted = {LIBRARIES / name for name in LOADED_BY_NAME}
    binaries = [PYTHON, *root.rglob("*.so"), *root.rglob("*.so.*")]
    listing = subprocess.run(["ldd", *binaries], capture_output=True, text=True).stdout
    for line in listing.splitlines():
        for word in line.split():
            if word.startswith("/") and not word.endswith(":") and not word.startswith(str(root)):
                wanted.add(Path(word))
    for library in wanted:
        # /lib is a link to /usr/lib on Debian, and so it is in the image.
        target = root / "usr" / str(library).removeprefix("/").removeprefix("usr/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(library, target)


def add_shell(root):
    """A shell and the usual small tools, for people who look into a pod."""
    busybox = shutil.which("busybox")
    shutil.copy2(busybox, root / "usr/bin/busybox")
    for name in run(busybox, "--list").split():
        if not (root / "usr/bin" / name).exists():
            (root / "usr/bin" / name).symlink_to("busybox")


def compile_modules(root):
    """Compiles all modules ahead: a worker imports dask in a third of the time.

    By hash and unchecked, because files in an image lose their time stamps.
    """
    version = PYTHON.resolve().name
    subprocess.run(
        [PYTHON, "-m", "compileall", "-q", "-j", "0", "--invalidation-mode", "unchecked-hash", "-s", root, "-p", "/",
         root / "usr/lib" / version, root / "usr/local/lib" / version],
        capture_output=True)  # some templates of packages are no valid Python
