"""Starts the real `mainstay`, stock schedulers and stock workers on loopback, and ends what it started."""

import contextlib
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import pytest

REPOSITORY = pathlib.Path(__file__).parents[1]
BINARY = pathlib.Path(os.environ.get("MAINSTAY", REPOSITORY / "target/debug/mainstay")).resolve()
MODULES = pathlib.Path(__file__).parent / "modules"
KEEPER = REPOSITORY / "src/server/keeper.py"
# Whose `dask` the workers are of: others than this Python, in turn, where releases are mixed.
WORKER_PYTHONS = os.environ.get("MAINSTAY_TEST_WORKERS", sys.executable).split(os.pathsep)
# Slow machines are slow; nothing waits this long unless something is broken.
DEADLINE_SECONDS = float(os.environ.get("MAINSTAY_TEST_DEADLINE", 90))


def await_condition(condition, message, seconds=DEADLINE_SECONDS):
    """Waits until `condition` gives something true, and gives that."""
    end = time.monotonic() + seconds
    while not (result := condition()):
        assert time.monotonic() < end, f"within {seconds} s: {message() if callable(message) else message}"
        time.sleep(0.02)
    return result


def environment(**extra):
    """What the children get: this Python first, and no settings of the person who runs the tests."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("DASK_", "RUST_LOG"))}
    path = f"{pathlib.Path(sys.executable).parent}{os.pathsep}{kept.get('PATH', '')}"
    return {**kept, "PATH": path, "PYTHONPATH": str(MODULES), "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1", **extra}


def pytest_sessionstart(session):
    """For the `conftest.py` of a suite that runs the binary."""
    if not BINARY.exists():
        pytest.exit(f"{BINARY} is not there: run `make build`, or name another with MAINSTAY", returncode=3)


def workers_of(client):
    """What the scheduler says of its workers, by address.

    Not by `Client.scheduler_info`: it returns a field that the Client sets anew every two seconds, and then without workers.
    """
    return client.sync(client.scheduler.identity, n_workers=-1)["workers"]


class Process:
    """A child with its output in a file."""

    def __init__(self, command, log, **options):
        self.log = log
        with open(log, "wb") as output:
            self.child = subprocess.Popen(
                [str(word) for word in command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=options.pop("env", None) or environment(),
                **options,
            )

    @property
    def pid(self):
        return self.child.pid

    @property
    def output(self):
        return self.log.read_text(errors="replace")

    def is_alive(self):
        return self.child.poll() is None

    def await_output(self, pattern):
        """Waits for a line that matches, and gives the match."""

        def found():
            match = re.search(pattern, self.output, re.MULTILINE)
            assert match or self.is_alive(), f"ended with {self.child.returncode} before /{pattern}/:\n{self.output}"
            return match

        return await_condition(found, lambda: f"no /{pattern}/ in:\n{self.output}")

    def wait(self):
        """Waits for its end, and gives its exit code."""
        try:
            return self.child.wait(DEADLINE_SECONDS)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running:\n{self.output}") from None

    def kill(self):
        self.child.kill()
        self.child.wait()

    def end(self):
        if self.is_alive():
            self.child.terminate()
            try:
                self.child.wait(20)
            except subprocess.TimeoutExpired:
                self.kill()

    def memory(self):
        """Resident bytes."""
        pages = int(pathlib.Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")


class Scheduler:
    """A scheduler with stock workers that it does not know of beforehand."""

    def __init__(self, folder, command, address, *, stack, **options):
        self.folder, self.stack, self.count = folder, stack, 0
        folder.mkdir(parents=True, exist_ok=True)
        self.process = Process(command, folder / "scheduler.log", cwd=folder, **options)
        stack.callback(self.process.end)
        self.address = self.process.await_output(address)[1]
        self.port = int(self.address.rsplit(":", 1)[1])

    def start_worker(self, *arguments, nanny=False, name=None, threads=1, address=None, within=(), **env):
        """Starts a stock `dask worker`; it registers in its own time, here or at another address, run by another command."""
        self.count += 1
        name = name or f"w{self.count}"
        python = WORKER_PYTHONS[self.count % len(WORKER_PYTHONS)]
        address = address or self.address
        command = [*within, python, "-m", "dask", "worker", address, "--name", name, "--nthreads", str(threads)]
        command += ["--nanny" if nanny else "--no-nanny", "--no-dashboard", "--local-directory", self.folder / "scratch"]
        worker = Process([*command, *arguments], self.folder / f"{name}.log", env=environment(**env), cwd=self.folder)
        worker.name = name
        self.stack.callback(worker.end)
        return worker


class Mainstay(Scheduler):
    """`mainstay local`."""

    LISTENS = r"^Serving Dask at (t\w+://\S+)$"

    def __init__(self, folder, *arguments, stack, log="warn"):
        self.env = environment(MAINSTAY_LOG=log)
        super().__init__(folder, [BINARY, "local", "--port", "0", *arguments], self.LISTENS, stack=stack, env=self.env)
        self.arguments, self.successors = arguments, 0

    def start_keeping_worker(self, *arguments, keeper=KEEPER, **options):
        """Starts a stock `dask worker` that outlives its scheduler."""
        return self.start_worker(*arguments, DASK_DISTRIBUTED__WORKER__PRELOAD=str(keeper), **options)

    def succeed(self):
        """Starts another in the place of one that has ended."""
        assert not self.process.is_alive()
        self.successors += 1
        command = [BINARY, "local", "--port", str(self.port), *self.arguments]
        self.process = Process(command, self.folder / f"scheduler-{self.successors}.log", cwd=self.folder, env=self.env)
        self.stack.callback(self.process.end)
        self.process.await_output(self.LISTENS)


class StockScheduler(Scheduler):
    """`dask scheduler`."""

    def __init__(self, folder, *arguments, stack):
        command = [sys.executable, "-m", "dask", "scheduler", "--host", "127.0.0.1", "--port", "0", "--dashboard-address", ":0"]
        super().__init__(folder, [*command, *arguments], r"Scheduler at: +(tcp://\S+)$", stack=stack)


@contextlib.contextmanager
def served(folder, *arguments, log="warn"):
    """A `mainstay local` that starts no workers of its own; `log` is the least severe line that it writes."""
    with contextlib.ExitStack() as stack:
        mainstay = Mainstay(folder, "--workers", "0", *arguments, stack=stack, log=log)
        yield mainstay
        assert mainstay.process.is_alive(), mainstay.process.output
        assert "panicked" not in mainstay.process.output, mainstay.process.output


def run_local(folder, manifest, *arguments, **options):
    """`mainstay local -f manifest --once`, to its end."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "collection.yaml"
    path.write_text(manifest)
    return Process(
        [BINARY, "local", "-f", "collection.yaml", "--port", "0", "--once", "--python", WORKER_PYTHONS[0], *arguments],
        folder / "mainstay.log",
        cwd=folder,
        **options,
    )


def stop(pid):
    os.kill(pid, signal.SIGSTOP)


def resume(pid):
    os.kill(pid, signal.SIGCONT)
