"""Daemons: started apart from this process, known by pid and start time, so that no other process is ever ended."""

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import time

BEGAN = time.monotonic()


def say(text):
    """Tells the person at the terminal. Standard output is kept for results that scripts read."""
    print(f"{time.monotonic() - BEGAN:6.1f} s  {text}", file=sys.stderr, flush=True)


class Failure(Exception):
    """Something that a person must know about; its text is all they see."""


held = set()


@contextlib.contextmanager
def locked(path):
    """One at a time, among all processes of this checkout; what holds the lock may take it again."""
    if path in held:
        yield
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another command of this checkout is at work: waiting for it to end")
            fcntl.flock(lock, fcntl.LOCK_EX)
        held.add(path)
        try:
            yield
        finally:
            held.discard(path)


def run(*command, **options):
    """Runs a command to its end and returns what it wrote; its error output is shown when it fails."""
    command = [str(word) for word in command]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, **options)
    if done.returncode:
        raise Failure(f"failed with {done.returncode}: {' '.join(command)}\n{(done.stderr or done.stdout).strip()}")
    return done.stdout


def start_time(pid):
    """When the process began, in clock ticks since boot; None when there is none or it is a zombie."""
    try:
        with open(f"/proc/{pid}/stat") as stat:
            fields = stat.read().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else fields[19]


def process_of(layout, name):
    """The pid of the daemon, if it runs."""
    try:
        pid, started = (layout.pids / name).read_text().split()
    except (OSError, ValueError):
        return None
    return int(pid) if start_time(pid) == started else None


def start(layout, name, command, cgroups=(), environment=None):
    """Starts the daemon unless it runs. It outlives this process and writes to its own log."""
    if process_of(layout, name):
        return
    layout.pids.mkdir(parents=True, exist_ok=True)
    layout.logs.mkdir(parents=True, exist_ok=True)

    def join_cgroups():
        for cgroup in cgroups:
            (cgroup / "cgroup.procs").write_text(str(os.getpid()))

    with open(layout.logs / f"{name}.log", "ab") as log:
        child = subprocess.Popen(
            [str(word) for word in command],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            start_new_session=True, preexec_fn=join_cgroups, env={**os.environ, **(environment or {})},
        )
    (layout.pids / name).write_text(f"{child.pid} {start_time(child.pid)}\n")


def stop(layout, name, sign=signal.SIGTERM, patience=5.0):
    """Ends the daemon if it is still the process that was started."""
    pid = process_of(layout, name)
    deadline = time.monotonic() + patience
    if pid:
        os.kill(pid, sign)
    while process_of(layout, name):
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)
    (layout.pids / name).unlink(missing_ok=True)


def running(layout):
    """The names of the daemons that run."""
    if not layout.pids.is_dir():
        return []
    return sorted(path.name for path in layout.pids.iterdir() if process_of(layout, path.name))


def forget_ended(layout):
    """Drops what is noted of daemons that have ended, so that only an end from here on is a failure."""
    for path in layout.pids.iterdir() if layout.pids.is_dir() else ():
        if not process_of(layout, path.name):
            path.unlink()


def await_condition(layout, what, condition, seconds=60):
    """Waits for the condition; gives up early, and shows why, when a daemon has ended."""
    deadline = time.monotonic() + seconds
    while not condition():
        for path in layout.pids.iterdir():
            if not process_of(layout, path.name):
                raise Failure(f"{path.name} has ended:\n{end_of_log(layout, path.name)}")
        if time.monotonic() > deadline:
            raise Failure(f"waited {seconds} s for this and gave up: {what}\nthe logs are in {layout.logs}")
        time.sleep(0.1)
    say(what)


def end_of_log(layout, name, lines=5):
    """The last lines that a daemon wrote."""
    path = layout.logs / f"{name}.log"
    return "\n".join(path.read_text(errors="replace").splitlines()[-lines:]) if path.exists() else ""
