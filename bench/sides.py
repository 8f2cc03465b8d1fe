"""Both schedulers as processes on loopback, with what they are driven by and what is measured of them."""

import contextlib
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time

REPOSITORY = pathlib.Path(__file__).parents[1]
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", REPOSITORY / "target"))
MAINSTAY = TARGET / "release/mainstay"
FAKE_WORKER = TARGET / "release/examples/fake-worker"
DEADLINE_SECONDS = 900
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def await_condition(condition, message, pause=0.01):
    end = time.monotonic() + DEADLINE_SECONDS
    while not (result := condition()):
        if time.monotonic() > end:
            raise TimeoutError(message)
        time.sleep(pause)
    return result


class Process:
    """A child, its output in a file, its CPU time and its memory."""

    def __init__(self, command, log, **options):
        self.log = log
        with open(log, "wb") as output:
            options = {"stdin": subprocess.DEVNULL, "stdout": output, "stderr": subprocess.STDOUT, **options}
            self.child = subprocess.Popen([str(word) for word in command], **options)

    def await_output(self, pattern):
        def found():
            text = self.log.read_text(errors="replace")
            if self.child.poll() is not None:
                raise RuntimeError(f"ended with {self.child.returncode}:\n{text}")
            return re.search(pattern, text, re.MULTILINE)

        return await_condition(found, f"{pattern} in {self.log}")

    def cpu(self):
        """Seconds of CPU of all its threads, those that have ended included: the process' own clock."""
        return time.clock_gettime((~self.child.pid << 3) | 2)

    def memory(self):
        """Resident bytes."""
        statm = pathlib.Path(f"/proc/{self.child.pid}/statm").read_text()
        return int(statm.split()[1]) * PAGE_BYTES

    def end(self):
        self.child.terminate()
        try:
            self.child.wait(10)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()


def stock_command():
    return [sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard"]


def mainstay_command():
    return [MAINSTAY, "local", "--workers", "0", "--port", "0"]


SIDES = {
    "dask": (stock_command, r"Scheduler at:\s+(tcp://\S+)"),
    "mainstay": (mainstay_command, r"^Serving Dask at (tcp://\S+)$"),
}


class FakeWorkers:
    """The process that stands in for many workers."""

    def __init__(self, address, log, workers, threads, *arguments):
        command = [FAKE_WORKER, address, "--workers", workers, "--threads", threads, *arguments]
        self.child = subprocess.Popen(
            [str(word) for word in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def counters(self):
        """What they counted since the last call."""
        self.child.stdin.write("\n")
        self.child.stdin.flush()
        return json.loads(self.child.stdout.readline())

    def end(self):
        self.child.stdin.close()
        self.child.wait(10)


class Side:
    """One scheduler, with a stock worker that lowers graphs where that is not the scheduler's own work."""

    def __init__(self, name, stack):
        self.name, self.stack = name, stack
        self.folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
        command, pattern = SIDES[name]
        self.process = self.start(command(), "scheduler")
        self.address = self.process.await_output(pattern)[1]
        self.helpers = 0
        if name == "mainstay":
            self.start_worker("builder-0")
            self.helpers = 1

    def start(self, command, log, **options):
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY / "bench"), "RUST_LOG": "warn"}
        process = Process(command, self.folder / f"{log}.log", env=environment, cwd=self.folder, **options)
        self.stack.callback(process.end)
        return process

    def start_worker(self, name, threads=1):
        """A stock worker."""
        command = [sys.executable, "-m", "distributed.cli.dask_worker", self.address, "--name", name]
        command += ["--nthreads", threads, "--no-nanny", "--no-dashboard", "--local-directory", self.folder]
        return self.start(command, name)

    def start_fakes(self, workers, threads, *arguments):
        fakes = FakeWorkers(self.address, self.folder / "fakes.log", workers, threads, *arguments)
        self.stack.callback(fakes.end)
        return fakes

    def await_workers(self, client, count):
        def there():
            return len(client.nthreads()) == count + self.helpers

        await_condition(there, f"{count} workers", 0.1)


@contextlib.contextmanager
def side(name):
    with contextlib.ExitStack() as stack:
        yield Side(name, stack)
