"""Both schedulers as processes on loopback, with what they are driven by and what is measured of them."""

import contextlib
import json
import os
import pathlib
import resource
import socket
import subprocess
import sys
import tempfile

from process import Process, await_condition, cpu

REPOSITORY = pathlib.Path(__file__).parents[1]
RELEASE = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", REPOSITORY / "target")) / "release"
MAINSTAY = pathlib.Path(os.environ.get("MAINSTAY", RELEASE / "mainstay"))
FAKE_WORKER = pathlib.Path(os.environ.get("FAKE_WORKER", RELEASE / "examples/fake-worker"))
NAMES = ("dask", "mainstay")
BUILDER = "builder-0"

# A thousand workers have two connections each, and their process as many again.
resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)


def stock_command():
    return [
        sys.executable,
        "-m",
        "distributed.cli.dask_scheduler",
        "--host",
        "127.0.0.1",
        "--port",
        "0",
        "--no-dashboard",
    ]


def mainstay_command():
    return [MAINSTAY, "local", "--workers", "0", "--port", "0"]


SIDES = {
    "dask": (stock_command, r"Scheduler at:\s+(tcp://\S+)"),
    "mainstay": (mainstay_command, r"^Serving Dask at (tcp://\S+)$"),
}


class Fake:
    """One of the fake worker's commands, which counts something."""

    def __init__(self, *words):
        self.child = subprocess.Popen(
            [FAKE_WORKER, *map(str, words)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def counters(self):
        """What it counted since the last call."""
        self.child.stdin.write("\n")
        self.child.stdin.flush()
        counted = json.loads(self.child.stdout.readline())
        if "error" in counted:
            raise RuntimeError(f"a fake worker: {counted['error']}")
        return counted

    def cpu(self):
        return cpu(self.child)

    def end(self):
        self.child.stdin.close()
        self.child.wait(20)


def ping_pong_us():
    """A round trip on loopback."""
    return float(subprocess.run([FAKE_WORKER, "ping-pong"], capture_output=True, text=True, check=True).stdout)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def environment():
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY / "bench"), "RUST_LOG": "warn"}


class Place:
    """A folder for logs, and processes that end when the place is left."""

    def __init__(self, stack):
        self.stack = stack
        self.folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
        self.processes, self.fakes = [], []

    def start(self, command, log, **options):
        options = {"env": environment(), "cwd": self.folder, **options}
        process = Process(command, self.folder / f"{log}.log", **options)
        self.stack.callback(process.end)
        self.processes.append(process)
        return process

    def start_fake(self, *words):
        fake = Fake(*words)
        self.stack.callback(fake.end)
        self.fakes.append(fake)
        return fake

    def start_worker(self, address, name, *flags, threads=1):
        """A stock worker."""
        command = [sys.executable, "-m", "distributed.cli.dask_worker", address, "--name", name, "--nthreads", threads]
        command += ["--no-nanny", "--no-dashboard", "--local-directory", self.folder, *flags]
        return self.start(command, name)


class Side(Place):
    """One scheduler; with a stock worker that lowers graphs, where that is not the scheduler's own work."""

    def __init__(self, name, stack, has_builder=True, has_relay=False):
        super().__init__(stack)
        self.name = name
        command, pattern = SIDES[name]
        self.process = self.start(command(), "scheduler")
        self.address = self.process.await_output(pattern)[1]
        self.relay, self.helpers = None, 0
        if name == "mainstay" and has_builder:
            self.start_builder(has_relay)

    def start_builder(self, has_relay):
        """With a relay, what the scheduler and it say to one another is seen."""
        flags = ["--host", "127.0.0.1"]
        if has_relay:
            there, here = free_port(), free_port()
            self.relay = self.start_fake("relay", here, there)
            flags = ["--listen-address", f"tcp://127.0.0.1:{there}", "--contact-address", f"tcp://127.0.0.1:{here}"]
        self.start_worker(self.address, BUILDER, *flags)
        self.helpers = 1

    def start_fakes(self, workers, threads, *flags):
        return self.start_fake("workers", self.address, "--workers", workers, "--threads", threads, *flags)

    def await_workers(self, client, count):
        def there():
            for process in self.processes:
                process.check()
            for fake in self.fakes:
                fake.counters()
            return len(client.nthreads()) == count + self.helpers

        await_condition(there, f"{count} workers", 0.1)


@contextlib.contextmanager
def side(name, **options):
    with contextlib.ExitStack() as stack:
        yield Side(name, stack, **options)


def turns(repetitions):
    """The sides in alternating order."""
    for repetition in range(repetitions):
        yield repetition, NAMES if repetition % 2 == 0 else NAMES[::-1]
