"""Children, and what the kernel says of them."""

import os
import pathlib
import re
import subprocess
import time

DEADLINE_SECONDS = 900
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
# Less than this share of a core is idle: heartbeats go on.
IDLE_SHARE = 0.1
IDLE_SECONDS = 0.25


def await_condition(condition, message, pause=0.01):
    end = time.monotonic() + DEADLINE_SECONDS
    while not (result := condition()):
        if time.monotonic() > end:
            raise TimeoutError(message)
        time.sleep(pause)
    return result


def cpu(child):
    """Seconds of CPU of all its threads, those that have ended included: the process' own clock."""
    return time.clock_gettime((~child.pid << 3) | 2)


class Process:
    """A child, its output in a file, its CPU time and its memory."""

    def __init__(self, command, log, **options):
        self.log = log
        with open(log, "wb") as output:
            options = {"stdin": subprocess.DEVNULL, "stdout": output, "stderr": subprocess.STDOUT, **options}
            self.child = subprocess.Popen([str(word) for word in command], **options)

    def check(self):
        """Fails with what it wrote when it has ended."""
        if self.child.poll() is not None:
            raise RuntimeError(f"ended with {self.child.returncode}:\n{self.log.read_text(errors='replace')}")

    def await_output(self, pattern):
        def found():
            self.check()
            return re.search(pattern, self.log.read_text(errors="replace"), re.MULTILINE)

        return await_condition(found, f"{pattern} in {self.log}")

    def cpu(self):
        return cpu(self.child)

    def memory(self):
        """Resident bytes."""
        statm = pathlib.Path(f"/proc/{self.child.pid}/statm").read_text()
        return int(statm.split()[1]) * PAGE_BYTES

    def peak(self):
        """The most resident bytes since `forget_peak`."""
        status = pathlib.Path(f"/proc/{self.child.pid}/status").read_text()
        return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) * 1024

    def forget_peak(self):
        pathlib.Path(f"/proc/{self.child.pid}/clear_refs").write_text("5")

    def await_idle(self):
        """Waits until it has nothing to do; gives its CPU time by then."""

        def is_idle():
            before = self.cpu()
            time.sleep(IDLE_SECONDS)
            return self.cpu() - before < IDLE_SHARE * IDLE_SECONDS

        await_condition(is_idle, f"{self.log.stem} comes to rest", 0)
        return self.cpu()

    def end(self):
        self.child.terminate()
        try:
            self.child.wait(20)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()


def share_of_others(seconds=0.5):
    """The share of the machine that is busy while we do nothing."""

    def ticks():
        fields = [int(field) for field in pathlib.Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
        return sum(fields), fields[3] + fields[4]

    (all_before, idle_before), _, (all_after, idle_after) = ticks(), time.sleep(seconds), ticks()
    return 1 - (idle_after - idle_before) / max(1, all_after - all_before)
