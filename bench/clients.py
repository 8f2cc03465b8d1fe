"""Many Clients at once, that come and go, one that does not listen, and one that hands in a large graph: how quick the others stay."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time

from distributed import Client, wait
from figures import compare, quantile, table
from process import await_condition
from shapes import SHAPES
from sides import NAMES, REPOSITORY, environment, side

TITLE = "Many Clients"
WORKERS, THREADS = 16, 8
CROWDS = 2
# Seconds in which nothing else happens, so that there is something to compare with.
CALM_SECONDS = 10


def programs(is_quick):
    """Clients, and the size of the large graph."""
    return [(50, 50_000)] if is_quick else [(200, 500_000)]


class Role:
    """One of the roles of `crowd.py`."""

    def __init__(self, stack, *words):
        command = [sys.executable, REPOSITORY / "bench/crowd.py", *map(str, words)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self.child = subprocess.Popen(command, **pipes, text=True, env=environment())
        stack.callback(self.child.kill)

    def end(self):
        said, _ = self.child.communicate(timeout=120)
        if self.child.returncode:
            raise RuntimeError(f"{self.child.args} ended with {self.child.returncode}")
        return json.loads(said.splitlines()[-1])


def measure(name, clients, count):
    with contextlib.ExitStack() as stack:
        one = stack.enter_context(side(name))
        one.start_fakes(WORKERS, THREADS)
        with Client(one.address) as client:
            one.await_workers(client, WORKERS)
            graph, outputs = SHAPES["independent"](count)
            start = one.process.memory()
            one.process.forget_peak()
            roles = [Role(stack, "crowd", one.address, clients // CROWDS) for _ in range(CROWDS)]
            roles.append(Role(stack, "probe", one.address))
            slow = Role(stack, "slow", one.address)
            slow.child.stdout.readline()
            os.kill(slow.child.pid, signal.SIGSTOP)
            time.sleep(2 * CALM_SECONDS)
            began = time.time()
            futures = client.get(graph, outputs, sync=False)
            wait(futures)
            ended = time.time()
            futures = None
        slow.child.kill()
        *crowds, probe = (role.end() for role in roles)
        peak = one.process.peak()
        with Client(one.address) as client:
            await_condition(lambda: not any(client.has_what().values()), "what Clients held is let go of", 1)
            one.process.await_idle()
            after = one.process.memory()
    return {
        **waits(probe["answers"], began, ended),
        "visits": sum(crowd["visits"] for crowd in crowds),
        "large_s": ended - began,
        "start_mb": start / 1e6,
        "peak_mb": peak / 1e6,
        "after_mb": after / 1e6,
    }


def waits(answers, began, ended):
    """Milliseconds that a small task took, before the large graph was handed in and from then to its end."""
    found = {}
    for window, start, end in [("calm", began - CALM_SECONDS, began), ("large", began, ended)]:
        took = [1e3 * wait for at, wait in answers if start <= at < end]
        found |= {f"{window}_p50": quantile(took, 0.5), f"{window}_p99": quantile(took, 0.99), f"{window}_max": max(took)}
    return found


def run(is_quick, say, wanted=""):
    results = []
    for clients, count in programs(is_quick):
        name = f"{clients} Clients, one with {count:,} tasks"
        if wanted not in name:
            continue
        pair = {side: measure(side, clients, count) for side in NAMES}
        say(f"{name}: " + " → ".join(f"{pair[side]['large_p50']:.1f}" for side in NAMES) + " ms the median answer")
        results.append({"name": name, "pairs": [pair]})
    return results


def show(results):
    waited, held = [], []
    for result in results:
        pairs = result["pairs"]
        waited += [
            [result["name"], when, *(compare(pairs, f"{window}_{figure}", "{:.1f}") for figure in ("p50", "p99", "max"))]
            for window, when in [("calm", "before"), ("large", "while it runs")]
        ]
        held.append([
            result["name"],
            compare(pairs, "large_s", "{:.1f}"),
            *(compare(pairs, figure, "{:,.0f}", more_is_better=figure == "visits") for figure in ("visits", "start_mb", "peak_mb", "after_mb")),
        ])  # fmt: skip
    text = table(["program", "the large graph", "p50 ms of a small task", "p99 ms", "longest ms"], waited)
    head = ["program", "s of the large graph", "visits", "RSS MB before", "at most", "after all have gone"]
    return f"{text}\n\n{table(head, held)}"
