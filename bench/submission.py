"""From the Client's call to the first task on the wire, and what of it is what."""

import json
import statistics
import subprocess
import sys
import time

from distributed import Client
from figures import compare, median, table
from process import await_condition
from shapes import SHAPES
from sides import NAMES, REPOSITORY, environment, side, turns

TITLE = "From submission to the first task"
WORKERS, THREADS = 16, 8


def programs(is_quick):
    """Shape, count and repetitions."""
    return [("independent", 20_000, 1)] if is_quick else [("independent", 100_000, 3), ("tree", 100_000, 3)]


def measure(name, shape, count):
    """Submits a graph and looks no further than the first task."""
    with side(name, has_relay=True) as one:
        fakes = one.start_fakes(WORKERS, THREADS)
        with Client(one.address) as client:
            one.await_workers(client, WORKERS)
            graph, outputs = SHAPES[shape](count)
            one.process.await_idle()
            fakes.counters()
            if one.relay:
                one.relay.counters()
            began = time.time()
            futures = client.get(graph, outputs, sync=False)
            handed = time.time()
            first = await_condition(lambda: fakes.counters()["first"], "the first task", 0.05)
            relay = one.relay.counters() if one.relay else {}
            del futures
    return {"first_s": first - began, "call_s": handed - began, **parts(relay, began, first)}


def parts(relay, began, first):
    """Where the time went, as the relay before the builder saw it."""
    if not relay:
        return {}
    return {
        "handed_in_s": relay["asked"] - began,
        "lowered_s": relay["first"] - relay["asked"],
        "sent_s": relay["last"] - relay["first"],
        "from_first_byte_s": first - relay["first"],
        "from_last_byte_s": first - relay["last"],
        "lowered_mb": relay["bytes"] / 1e6,
    }


def lowering(shape, count):
    """What lowering takes in a Python process that does nothing else."""
    command = [sys.executable, REPOSITORY / "bench/lowering.py", shape, str(count)]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True, env=environment()).stdout)


def run(is_quick, say, wanted=""):
    results = []
    for shape, count, repetitions in programs(is_quick):
        pairs = []
        for repetition, names in turns(repetitions):
            pairs.append({name: measure(name, shape, count) for name in names})
            pairs[-1]["lowering"] = lowering(shape, count)
            firsts = " → ".join(f"{pairs[-1][name]['first_s']:.2f}" for name in NAMES)
            say(f"{shape} {count:,} ({repetition + 1} of {repetitions}): {firsts} s to the first task")
        results.append({"name": f"{shape} {count:,}", "pairs": pairs})
    return results


def show(results):
    firsts, rows = [], []
    for result in results:
        pairs = result["pairs"]
        ours, alone = [pair["mainstay"] for pair in pairs], [pair["lowering"] for pair in pairs]
        share = statistics.median(pair["lowering"]["seconds"] / pair["dask"]["first_s"] for pair in pairs)
        firsts.append(
            [result["name"], len(pairs), compare(pairs, "first_s", "{:.2f}"), compare(pairs, "call_s", "{:.2f}")]
        )
        rows.append([
            result["name"],
            *(f"{median(ours, part):.2f}" for part in ("handed_in_s", "lowered_s", "sent_s")),
            f"{median(ours, 'from_first_byte_s') * 1e3:,.0f}",
            f"{median(ours, 'from_last_byte_s') * 1e3:,.0f}",
            f"{median(ours, 'lowered_mb'):.1f}",
            f"{median(alone, 'seconds'):.2f} ({share:.2f})",
        ])  # fmt: skip
    head = ["graph", "pairs", "s from the call to the first task", "s of it in the call"]
    text = table(head, firsts)
    head = [
        "graph, Mainstay",
        "s until the builder has it",
        "s until it answers",
        "s its answer takes",
        "ms from its first byte to the first task",
    ]
    head += [
        "ms from its last byte to the first task",
        "MB of the answer",
        "s of lowering alone (of the stock time to the first task)",
    ]
    return f"{text}\n\n{table(head, rows)}"
