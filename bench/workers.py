"""Two stock workers with a thread each, and what the scheduler's way of feeding them does to them."""

import time

from distributed import Client, wait
from figures import compare, table
from process import share_of_others
from shapes import independent, shuffle, tree
from sides import NAMES, side, turns

TITLE = "Stock workers"
WORKERS = 2


def sleeps(count):
    """Tasks of a millisecond."""
    return independent(count, call=time.sleep, args=(0.001,))


def programs(is_quick):
    """Name, graph, and repetitions."""
    if is_quick:
        return [("1 ms each", sleeps, 2_000, 1), ("tree", tree, 3_000, 1), ("shuffle", shuffle, 2_500, 1)]
    return [("1 ms each", sleeps, 10_000, 3), ("tree", tree, 11_400, 3), ("shuffle", shuffle, 10_000, 3)]


def measure(name, graph, outputs):
    """No other worker lowers: what that takes is in the workers' figures."""
    with side(name, has_builder=False) as one:
        workers = [
            one.start_worker(one.address, f"worker-{number}", "--host", "127.0.0.1") for number in range(WORKERS)
        ]
        with Client(one.address) as client:
            one.await_workers(client, WORKERS)
            # What is imported at the first graph is none of this one's cost.
            wait(client.get(*tree(40), sync=False))
            for process in (one.process, *workers):
                process.await_idle()
            cpu, worked, began = one.process.cpu(), sum(worker.cpu() for worker in workers), time.time()
            wait(client.get(graph, outputs, sync=False))
            took = time.time() - began
            return {
                "tasks": len(graph),
                "seconds": took,
                "rate": len(graph) / took,
                "cpu_us": (one.process.cpu() - cpu) / len(graph) * 1e6,
                "worker_us": (sum(worker.cpu() for worker in workers) - worked) / len(graph) * 1e6,
            }


def run(is_quick, say, wanted=""):
    results = []
    for name, shape, count, repetitions in programs(is_quick):
        if wanted not in name:
            continue
        graph, outputs = shape(count)
        pairs, others = [], []
        for repetition, names in turns(repetitions):
            others.append(share_of_others())
            pairs.append({side_name: measure(side_name, graph, outputs) for side_name in names})
            took = " → ".join(f"{pairs[-1][side_name]['seconds']:.1f}" for side_name in NAMES)
            say(f"{name} {len(graph):,} ({repetition + 1} of {repetitions}): {took} s")
        results.append({"name": f"{name} {len(graph):,}", "pairs": pairs, "others": others})
    return results


def show(results):
    head = ["program", "pairs", "makespan, s", "the workers' CPU, µs/task", "the scheduler's CPU, µs/task"]
    rows = [
        [
            result["name"],
            len(result["pairs"]),
            compare(result["pairs"], "seconds", "{:.2f}"),
            compare(result["pairs"], "worker_us", "{:,.0f}"),
            compare(result["pairs"], "cpu_us", "{:,.0f}"),
        ]
        for result in results
    ]
    return table(head, rows)
