#!/usr/bin/env python3
"""Drives the stock `dask scheduler` and Mainstay with the same programs, one after the other, and compares what they take.

`run.py [--quick] [--only WORD] [--json FILE]`. Each program runs on a fresh scheduler, the sides alternate, and the table
has medians: of each side, and of the ratios of the pairs.
"""

import argparse
import dataclasses
import datetime
import gc
import json
import os
import platform
import statistics
import time
import warnings

from distributed import Client, wait
from shapes import SHAPES
from sides import await_condition, side


@dataclasses.dataclass(frozen=True)
class Program:
    """One graph on one set of fake workers."""

    shape: str
    count: int
    workers: int
    threads: int
    restricted: bool = False

    def __str__(self):
        extra = ", restricted" if self.restricted else ""
        return f"{self.shape} {self.count:,} on {self.workers}×{self.threads}{extra}"


QUICK = [Program(shape, 10_000, 16, 8) for shape in SHAPES] + [
    Program("independent", 10_000, 16, 8, restricted=True),
    Program("independent", 10_000, 2, 1),
]
FULL = QUICK + [Program(shape, 100_000, 16, 8) for shape in SHAPES if shape != "chain"] + [
    Program("independent", 10_000, 1000, 1),
    Program("tree", 10_000, 1000, 1),
]


def measure(program, name):
    """Runs a program on a fresh scheduler; gives what it took."""
    with side(name) as one:
        arguments = ["--resource", "GPU=1e6"] if program.restricted else []
        fakes = one.start_fakes(program.workers, program.threads, *arguments)
        with Client(one.address) as client:
            one.await_workers(client, program.workers)
            graph, outputs = SHAPES[program.shape](program.count)
            options = {"priority": 5, "resources": {"GPU": 1}, "retries": 2} if program.restricted else {}
            gc.collect()
            fakes.counters()
            cpu, memory, began = one.process.cpu(), one.process.memory(), time.time()
            futures = client.get(graph, outputs, sync=False, **options)
            wait(futures)
            cpu_used, held = one.process.cpu() - cpu, one.process.memory() - memory
            counters = fakes.counters()
            del futures
            freed = counters["frees"]
            while freed < len(graph):
                time.sleep(0.05)
                freed += fakes.counters()["frees"]
            after = one.process.memory() - memory
    tasks = len(graph)
    assert counters["tasks"] >= tasks, counters
    return {
        "tasks": tasks,
        "cpu_us": cpu_used / tasks * 1e6,
        "rate": tasks / (counters["last"] - counters["first"]),
        "first_s": counters["first"] - began,
        "held_bytes": held / tasks,
        "after_bytes": after / tasks,
        "bytes_down": counters["bytes_in"] / tasks,
        "messages": counters["messages"],
    }


COLUMNS = [
    ("cpu_us", "CPU µs/task", "{:.1f}"),
    ("rate", "tasks/s", "{:,.0f}"),
    ("first_s", "first task after s", "{:.2f}"),
    ("held_bytes", "held B/task", "{:,.0f}"),
    ("bytes_down", "wire B/task", "{:,.0f}"),
]


def table(results):
    """A Markdown table: for each figure stock Dask, Mainstay, and the median ratio."""
    lines = ["| program | " + " | ".join(f"{title}: dask | mainstay | ratio" for _, title, _ in COLUMNS) + " |"]
    lines.append("|---|" + "---|" * (3 * len(COLUMNS)))
    for program, pairs in results.items():
        cells = []
        for figure, _, shown in COLUMNS:
            sides = [[pair[name][figure] for pair in pairs] for name in ("dask", "mainstay")]
            ratios = [stock / ours if ours else float("inf") for stock, ours in zip(*sides)]
            cells += [shown.format(statistics.median(values)) for values in sides] + [f"{statistics.median(ratios):.2f}"]
        lines.append(f"| {program} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main():
    # Fake workers say little of what they are made of.
    warnings.filterwarnings("ignore", category=UserWarning)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="10,000 tasks, three repetitions")
    parser.add_argument("--only", default="", help="programs that have this word")
    parser.add_argument("--repetitions", type=int)
    parser.add_argument("--json", help="also write all figures there")
    args = parser.parse_args()
    repetitions = args.repetitions or (3 if args.quick else 5)
    programs = [program for program in (QUICK if args.quick else FULL) if args.only in str(program)]
    results = {}
    for program in programs:
        results[str(program)] = []
        for repetition in range(repetitions):
            names = ("dask", "mainstay") if repetition % 2 == 0 else ("mainstay", "dask")
            pair = {name: measure(program, name) for name in names}
            results[str(program)].append(pair)
            shown = {name: {key: round(value, 2) for key, value in figures.items()} for name, figures in pair.items()}
            print(f"{program}: {json.dumps(shown)}", flush=True)
    machine = f"{platform.machine()}, {os.cpu_count()} cores, {datetime.date.today()}, {repetitions} repetitions"
    print(f"\n{machine}; ratio is dask / mainstay\n\n{table(results)}")
    if args.json:
        with open(args.json, "w") as file:
            json.dump({"machine": machine, "results": results}, file, indent=1)


if __name__ == "__main__":
    main()
